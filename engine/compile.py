"""compile: a trained model in, a Plan out. The stages, top to bottom:

load → specialise (shapes, constants, passes) → partition → lower → plan memory → assemble → measure parity
"""

from __future__ import annotations

import functools
import gc
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ParamSpec

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.backends.tensorrt_libraries import check_architecture
from voxelrt.errors import UnsupportedError, UsageError
from voxelrt.graph.head import head_of, without_head
from voxelrt.graph.passes import expand_functions
from voxelrt.graph.spec import opset_of
from voxelrt.graph.specialise import refine, specialise
from voxelrt.memory_size import parse_size
from voxelrt.models.load import Model, load
from voxelrt.plan import parity
from voxelrt.plan.assembly import sections_of
from voxelrt.plan.batch import mark_batched
from voxelrt.plan.choice import Choice
from voxelrt.plan.file import Section, SectionKind, assemble
from voxelrt.plan.gpu_steps import DEFAULT_OPTIONS, EngineOptions
from voxelrt.plan.guards import guards_of
from voxelrt.plan.head import Head
from voxelrt.plan.image import LARGE
from voxelrt.plan.info import ParityLine, Placement, PlanInfo
from voxelrt.plan.kept import constant_text, kept_constants
from voxelrt.plan.lowering.builder import Builder, Unsupported, WeightTable, supports
from voxelrt.plan.memory import plan_arena
from voxelrt.plan.partition import Segment, detach, partition
from voxelrt.plan.plan import Plan
from voxelrt.plan.portable import read_graph
from voxelrt.plan.schedule import Schedule, Variant
from voxelrt.plan.slabs import in_slabs
from voxelrt.plan.tail import Tail
from voxelrt.plan.tuning import MODES, Tuner
from voxelrt.precision import AGREEMENT, fastest
from voxelrt.quantise import quantised
from voxelrt.runtime.sample import recipe_sample

Array = NDArray[Any]
Dim = int | tuple[int, int, int]
Shapes = Mapping[str, Sequence[Dim]]

LOG = logging.getLogger("voxelrt")
PRECISIONS = ("fp32", "bf16", "int8", "auto")
FALLBACKS = ("onnxruntime", "error")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class _Options:
    fallback: str
    choice: Choice
    precision: str = "fp32"
    fuse: bool = True
    share: bool = True


@dataclass(frozen=True)
class _Lowered:
    variant: Variant
    placements: list[Placement]
    tail: Tail | None = None


P = ParamSpec("P")


def _collected(make: Callable[P, Plan]) -> Callable[P, Plan]:
    """A graph's nodes and values form circles: uncollected, its weights would be held while the plan runs."""

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> Plan:
        plan = make(*args, **kwargs)
        if plan.file_bytes > LARGE:
            gc.collect()
        return plan

    return made


@_collected
def compile(
    model: Any,
    *,
    device: str = "auto",
    arch: Sequence[str] = (),
    precision: str = "fp32",
    shapes: Shapes | Sequence[Shapes] | None = None,
    constants: Mapping[str, Array] | None = None,
    verify: bool = True,
    fallback: str = "onnxruntime",
    samples: Sequence[Mapping[str, Array]] = (),
    reference: Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]] = (),
    threads: int | None = None,
    tune: str = "fast",
    weights_memory: int | str | None = None,
    calibration: Sequence[Mapping[str, Array]] = (),
    calibration_method: str = "percentile",
    label_agreement: float = AGREEMENT,
    example_inputs: Any = None,
    progress: Callable[[str], None] | None = None,
    engine: EngineOptions = DEFAULT_OPTIONS,
    tell: Callable[[str, int, int], None] | None = None,
) -> Plan:
    """Compile a trained model for this machine.

    Parameters
    ----------
    model : what ``voxelrt.load`` takes, or what it gave.
    device : ``auto`` or ``cpu``; ``cuda`` builds engines for GPUs too, which need not be here. A plan for GPUs holds
        the CPU's part as well, in fp32.
    arch : with ``cuda``, the GPUs to build for, such as ``sm_86``.
    precision : ``fp32``; for GPUs also ``tf32``, ``fp16``, ``bf16`` and ``fp8``. On the CPU ``bf16`` stores volumes in
        bfloat16, half the memory, and multiplies in it where that is faster than float32 arithmetic on what is stored;
        sums and norms stay float32. ``int8`` also rounds what convolutions read to 8 bits, for one set of fixed
        shapes; where a network gives labels, the convolutions that these are too sensitive to are left. Networks that
        are quantised already (QuantizeLinear, DequantizeLinear) run so in any precision. ``auto``, for networks that
        give labels: the faster here of fp32 and bf16, timed in turns, if its labels on ``samples`` (or on the recipe's
        example) are those of fp32 to within ``label_agreement``.
    shapes : input name -> shape; a dimension may be ``(min, opt, max)``. A list of such mappings makes one variant
        each, sharing the weights. Inputs whose shape the model fixes need none.
    constants : inputs that are fixed at compile time, e.g. those that determine shapes.
    verify : measure the plan against the graph in another executor; past the tolerance of the precision compile fails.
    fallback : what becomes of nodes without a native kernel: ``onnxruntime`` islands, or ``error``.
    samples : real inputs as the network takes them; with them labels are compared too.
    reference : (inputs, outputs) that the source framework stored; measures the import.
    threads : compute threads (default: all that this process may use).
    tune : how algorithms are chosen: ``off`` by a model of their cost, the same on every machine; ``fast`` times the
        best few of the long steps; ``full`` times more of them, longer. Times are kept in the cache folder, but not
        those of a machine that others used meanwhile: a warning and ``plan.describe()`` then say so.
    weights_memory : what packed convolution weights may take at most, in bytes or as ``400MiB``; fast algorithms need
        up to eight times the network's own weights. Slower ones are taken until they fit.
    calibration : int8 and fp8: real inputs as the network takes them, whose ranges the codes keep.
    calibration_method : ``minmax``, ``percentile`` (99.99) or ``mse`` (least squared error).
    label_agreement : ``auto``: the share of equal voxels, of the union of foregrounds, that labels must reach.
    example_inputs : what a torch module is traced with, as for ``voxelrt.load``.
    progress : called with a line of text before each long step.
    engine : with ``cuda``, how engines are built, here and where they run.
    tell : with ``cuda``, called with (phase, step, steps) while an engine is built.

    Raises
    ------
    UsageError : wrong options or shapes, or weights that do not fit. UnsupportedError : nodes that nothing here can
        run, all named.
    ParityError : the plan's answer departs from the network's own; names the first node that does.
    """
    if device not in DEVICES:
        raise UsageError(f"device {device!r} is unknown; choose from {', '.join(DEVICES)}")
    if arch and device != "cuda":
        raise UsageError("arch names GPUs to build for: it goes with device='cuda'")
    if device == "cuda" and not arch:
        raise UsageError("device 'cuda' needs the GPUs to build for, such as arch=['sm_86'] (--arch sm_86)")
    if engine != DEFAULT_OPTIONS and device != "cuda":
        raise UsageError("options of engines go with device='cuda'")
    for name in arch:
        check_architecture(name, precision)
    if precision not in PRECISIONS and device != "cuda":
        raise UsageError(f"precision {precision!r} is not available; choose from {', '.join(PRECISIONS)}")
    if fallback not in FALLBACKS:
        raise UsageError(f"fallback {fallback!r} is unknown; choose from {', '.join(FALLBACKS)}")
    if tune not in MODES:
        raise UsageError(f"tune {tune!r} is unknown; choose from {', '.join(MODES)}")
    limit = None if weights_memory is None else parse_size(weights_memory, "weights_memory")
    sets = [shapes or {}] if shapes is None or isinstance(shapes, Mapping) else list(shapes)
    loaded = model if isinstance(model, Model) else load(model, example_inputs=example_inputs, shapes=sets[0])
    if precision == "auto":
        if device == "cuda":
            raise UsageError("precision 'auto' is measured on the CPU; for GPUs choose one by name")
        plainly: dict[str, Any] = {"shapes": shapes, "constants": constants, "verify": verify, "fallback": fallback}
        plainly |= {"samples": samples, "reference": reference, "threads": threads, "tune": tune}
        plainly |= {"weights_memory": weights_memory, "progress": progress}
        return fastest(
            lambda one: compile(loaded, precision=one, **plainly),
            loaded,
            lambda plan: samples or recipe_sample(loaded.recipe, plan),
            label_agreement,
            progress or (lambda text: None),
        )
    if loaded.settings is not None and shapes:
        loaded = replace(loaded, graph=_open_batch(loaded.graph))
    source = loaded
    if precision in ("int8", "fp8"):
        if len(sets) != 1 or any(isinstance(d, tuple) for dims in sets[0].values() for d in dims):
            raise UsageError(f"{precision} is calibrated for one set of shapes: give one, without ranges")
        exactly: dict[str, Any] = {"verify": False, "tune": "off", "fallback": fallback, "threads": threads}
        loaded = quantised(
            loaded,
            lambda m: compile(m, shapes=sets[0], constants=constants, **exactly),
            _shape_at(sets[0], 1),
            constants or {},
            calibration,
            calibration_method,
            precision,
            progress,
        )
    elif calibration:
        raise UsageError("calibration goes with precision='int8' or 'fp8'")
    if device == "cuda":
        # What builds for GPUs takes a while to import.
        from voxelrt.gpu_compile import with_gpu

        own: dict[str, Any] = {"shapes": shapes, "constants": constants, "verify": verify, "fallback": fallback}
        own |= {"samples": samples, "reference": reference, "threads": threads, "tune": tune}
        alone = replace(source, parts=())
        plan = compile(alone, weights_memory=weights_memory, progress=progress, **own)
        same: dict[str, Any] = {"precision": precision, "arch": arch, "progress": progress}
        same |= {"engine": engine, "tell": tell}
        plan = with_gpu(plan, loaded.graph, sets, constants or {}, **same)
        if source.parts:
            same |= {"device": device, "verify": verify, "fallback": fallback, "tune": tune, "threads": threads}
            plan = plan.with_parts([compile(part, weights_memory=limit, **same) for part in source.parts])
        return plan
    info = PlanInfo(
        name=loaded.name,
        precision=precision,
        source=dict(loaded.source),
        placements=[],
        parity=[],
        settings={
            "shapes": _asked(loaded.graph, sets),
            "fallback": fallback,
            "tune": tune,
            "weights_memory": limit,
            "constants": {k: constant_text(v) for k, v in (constants or {}).items()},
        },
        recipe=loaded.recipe_text,
        model_settings=None if loaded.settings is None else loaded.settings.to_json(),
    )
    timer = None if tune == "off" else Tuner(tune, threads, progress)
    options = _Options(fallback, Choice(timer, limit), precision)
    head = None if loaded.settings is None else head_of(loaded.graph)
    plan = _compile(loaded.graph, sets, constants or {}, options, info, threads, head)
    if timer is not None and timer.doubts:
        plan.info.settings["tuning_doubts"] = timer.doubts
        LOG.warning("%s: %s", loaded.name, timer.doubts)
    if loaded.parts:
        same = {"precision": precision, "verify": verify, "fallback": fallback, "tune": tune}
        same |= {"threads": threads, "weights_memory": limit, "progress": progress}
        plan = plan.with_parts([compile(part, **same) for part in loaded.parts])
    lines = [ParityLine(name, "pending") for name in ("import", "plan", "labels")]
    if verify:
        lines = _measure(plan, loaded, sets[0], constants or {}, precision, samples, reference, source.graph)
    return plan.describe_as(replace(plan.info, parity=lines))


def _open_batch(graph: ir.Model) -> ir.Model:
    """A network of windows for any number of them at once: nnU-Net's are the same for each of a batch."""
    opened = graph.clone()
    for value in (*opened.graph.inputs, *opened.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape(["n", *list(value.shape)[1:]])
    return opened


def _compile(
    graph: ir.Model,
    sets: Sequence[Shapes],
    constants: Mapping[str, Array],
    options: _Options,
    info: PlanInfo,
    threads: int | None,
    head: Head | None = None,
) -> Plan:
    """A variant for every set of shapes; and as many of the network without its head, if that is given."""
    networks = [graph] if head is None else [graph, without_head(graph)]
    asked = [(network, shapes) for network in networks for shapes in sets]
    while True:
        weights = WeightTable()
        variants: list[Variant] = []
        islands: list[bytes] = []
        tails: list[Tail | None] = []
        for network, shape_set in asked:
            lowered = _variant(network, shape_set, constants, options, weights, islands)
            variants.append(lowered.variant)
            tails.append(lowered.tail)
            info.placements = info.placements or lowered.placements
        if not options.choice.shrink():
            break
    info.settings = {**info.settings, "tails": [None if tail is None else asdict(tail) for tail in tails]}
    sections = sections_of(graph, Schedule(weights.weights, variants), _pack_islands(islands), info)
    if head is not None:
        sections.append(Section(SectionKind.HEAD, head.matrix.reshape(-1).view(np.uint8)))
    return Plan(assemble(sections), threads=threads, checksums=False)


def _variant(
    graph: ir.Model,
    shapes: Shapes,
    constants: Mapping[str, Array],
    options: _Options,
    weights: WeightTable,
    islands: list[bytes],
) -> _Lowered:
    """One variant; a range in the batch becomes a run-time loop bound where every step allows it."""
    known = len(islands)
    lowered = _lower(specialise(graph, _shape_at(shapes, 1), constants), options, weights, islands)
    batches = {s[0][2] for s in shapes.values() if s and isinstance(s[0], tuple)}
    if batches and len(islands) == known:
        one = _lower(specialise(graph, _shape_at(shapes, 1, batch=1), constants), options, weights, islands).variant
        two = _lower(specialise(graph, _shape_at(shapes, 1, batch=2), constants), options, weights, islands).variant
        if mark_batched(one, two):
            lows = {s[0][0] for s in shapes.values() if s and isinstance(s[0], tuple)}
            one.batch = (max(1, *lows), min(batches))
            lowered = replace(lowered, variant=one)
    plan_arena(lowered.variant, share=options.share)
    return lowered


def _shape_at(shapes: Shapes, which: int, batch: int | None = None) -> dict[str, tuple[int, ...]]:
    """Static shapes: of a range its min (0), opt (1) or max (2); ``batch`` replaces a ranged first dimension."""
    result = {}
    for name, dims in shapes.items():
        static = [d[which] if isinstance(d, tuple) else int(d) for d in dims]
        if batch is not None and dims and isinstance(dims[0], tuple):
            static[0] = batch
        result[name] = tuple(static)
    return result


def _lower(model: ir.Model, options: _Options, weights: WeightTable, islands: list[bytes]) -> _Lowered:
    model = _expanded(model)
    segments, placements = partition(model, lambda node: supports(model.graph, node))
    refused = [p for p in placements if p.backend != "native"]
    if refused and options.fallback == "error":
        raise UnsupportedError(
            f"{len(refused)} of {len(placements)} nodes have no native kernel (fallback='error'):",
            [f"{p.node} ({p.op}): {p.why}" for p in refused],
        )
    tail: Tail | None = None
    passed: list[ir.Value] = []
    if segments and segments[-1].tail:
        data = segments[-1].onnx_bytes()
        tail, passed = detach(
            model.graph, segments[-1], len(islands) + sum(s.backend != "native" for s in segments) - 1
        )
    native_nodes = {node for s in segments if s.backend == "native" for node in s.nodes}
    builder = Builder(
        model.graph,
        weights,
        native_nodes=native_nodes,
        fuse=options.fuse,
        choice=options.choice,
        half=options.precision in ("bf16", "int8"),
        needs=guards_of(model.graph),
    )
    for segment in segments:
        if segment.backend == "native":
            for node in segment.nodes:
                try:
                    builder.lower(node)
                except Unsupported as refusal:
                    raise UnsupportedError(
                        "a node that runs natively alone does not in this graph:",
                        [f"{node.name} ({node.op_type}): {refusal}"],
                    ) from refusal
        elif not segment.tail:
            _add_island(builder, segment, islands)
    if tail is not None:
        builder.island(tail.island, [n.name or n.op_type for n in segments[-1].nodes], passed, [])
        islands.append(data)
    variant = builder.finish()
    return _Lowered(in_slabs(variant) if options.share else variant, placements, tail)


def _expanded(model: ir.Model) -> ir.Model:
    """Operators without a native kernel that ONNX defines by a body, as that body; bodies may hold further ones."""
    for _ in range(4):
        opset = opset_of(model)
        wanted = {
            node.op_type
            for node in model.graph
            if expand_functions.is_function(node, opset) and supports(model.graph, node) is not None
        }
        expanded = expand_functions.run(model, wanted) if wanted else model
        if len(expanded.graph) == len(model.graph):
            break
        model = refine(expanded)
    return model


def _add_island(builder: Builder, segment: Segment, islands: list[bytes]) -> None:
    names = [n.name or n.op_type for n in segment.nodes]
    builder.island(len(islands), names, segment.inputs, segment.outputs, segment.nodes)
    islands.append(segment.onnx_bytes())


def _pack_islands(islands: Sequence[bytes]) -> bytes:
    """The island section: a JSON line of sizes, then the ONNX models."""
    if not islands:
        return b""
    return json.dumps([len(i) for i in islands]).encode() + b"\n" + b"".join(islands)


def _asked(graph: ir.Model, sets: Sequence[Shapes]) -> dict[str, list[Any]]:
    """The first set of shapes as JSON, inputs that the model fixes included; ranges are lists of three."""
    asked: dict[str, list[Any]] = {}
    for value in graph.graph.inputs:
        if value.name in sets[0]:
            asked[str(value.name)] = [list(d) if isinstance(d, tuple) else int(d) for d in sets[0][str(value.name)]]
        elif value.shape is not None and all(isinstance(d, int) for d in value.shape):
            asked[str(value.name)] = [int(d) for d in value.shape]  # type: ignore[arg-type]
    return asked


def _measure(
    plan: Plan,
    loaded: Model,
    shapes: Shapes,
    constants: Mapping[str, Array],
    precision: str,
    samples: Sequence[Mapping[str, Array]],
    reference: Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]],
    original: ir.Model,
) -> list[ParityLine]:
    """The three lines, measured at the first variant's shapes; labels against the graph before it was quantised."""
    model = specialise(loaded.graph, _shape_at(shapes, 1, batch=1), constants)
    imported = ParityLine("import", "not independent", "the model is ONNX already")
    reference = reference or [pair for pair in loaded.reference if _fits(plan, pair[0])]
    if reference:
        imported = parity.measure_import(plan, reference, precision)
    elif loaded.source.get("format") != "onnx":
        imported = ParityLine("import", "pending", "no output of the source framework was given")
    samples = list(samples) or recipe_sample(loaded.recipe, plan)
    inputs = [*samples, *parity.sample_inputs(plan, model)]
    measured = parity.measure_plan(plan, model, inputs, precision)
    if plan.trunk is not None:
        parity.check_trunk(plan, inputs[0], precision)
    labels = ParityLine("labels", "pending", "no real input was given")
    if samples and loaded.is_segmentation:
        if original is not loaded.graph:
            model = specialise(original, _shape_at(shapes, 1, batch=1), constants)
        labels = parity.measure_labels(plan, model, samples, loaded.threshold, loaded.channel_axis, precision)
    return [imported, measured, labels]


def _fits(plan: Plan, inputs: Mapping[str, Array]) -> bool:
    """Whether inputs are of the first variant's shapes."""
    return {io.name: tuple(io.dims) for io in plan.inputs} == {name: array.shape for name, array in inputs.items()}


def recompile(plan: Plan, shapes: Mapping[str, tuple[int, ...]], taps: Sequence[str]) -> Plan:
    """A plan for other shapes, or with inner values as outputs (then without fusion and shared memory)."""
    graph = read_graph(bytes(plan.section(SectionKind.GRAPH)), plan.section(SectionKind.WEIGHTS))
    settings = plan.info.settings
    constants = kept_constants(plan)
    choice = Choice(weights_memory=settings.get("weights_memory"))  # for one run at another shape: not timed
    options = _Options(settings["fallback"], choice, plan.info.precision, fuse=not taps, share=not taps)
    info = replace(plan.info, placements=[], parity=[ParityLine("plan", "pending")])
    info.settings = {**settings, "shapes": {name: list(shape) for name, shape in shapes.items()}}
    info.settings.pop("tuning_doubts", None)
    if taps:
        graph = parity.with_outputs(specialise(graph, shapes, constants), taps)
        missing = set(taps) - {str(v.name) for v in graph.graph.outputs}
        if missing:
            raise UsageError(f"the graph has no value named {', '.join(sorted(missing))}")
    return _compile(graph, [shapes], constants, options, info, None)


Plan.recompile = staticmethod(recompile)
