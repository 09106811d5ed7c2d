"""Plan: a compiled network. Runs arrays, saves and opens .vxp files, says where every node runs and why."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from voxelrt.backends.native import CancelFlag, NativePlan, Progress, StepTimers
from voxelrt.errors import PlanError, ShapeError, UsageError
from voxelrt.io.atomic import atomic_path
from voxelrt.kernels.common import capi, native
from voxelrt.models.nnunet_settings import FEATURES
from voxelrt.plan.arrays import Array, check_ranges, make_outputs, match, take
from voxelrt.plan.file import Bytes, Section, SectionKind, assemble, disassemble, map_file, with_description
from voxelrt.plan.head import Head
from voxelrt.plan.info import ParityLine, PlanInfo
from voxelrt.plan.schedule import Io
from voxelrt.plan.stream import Stream
from voxelrt.plan.tail import Tail, TailCall, read_tails

if TYPE_CHECKING:
    from voxelrt.measure.profile import Profile


class Gpu(Protocol):
    """What runs a plan on GPUs, see ``runtime/gpu_run.py``."""

    @property
    def count(self) -> int: ...

    def run(self, inputs: Mapping[str, Any], out: Mapping[str, Any] | None = None) -> dict[str, Any]: ...

    def run_windows(
        self, job: Any, *, memory: int | None, cancel: CancelFlag | None, say: Callable[[str], None] | None
    ) -> None: ...

    def runner(self, memory: int | None, cancel: CancelFlag) -> Any: ...

    def close(self) -> None: ...


Recompile = Callable[["Plan", Mapping[str, tuple[int, ...]], Sequence[str]], "Plan"]


class Plan:
    """A compiled network. Immutable; may be run from several threads.

    Make one with ``voxelrt.compile`` or ``Plan.open``.
    """

    # Set by compile.py: makes a plan for other shapes or with taps, from the portable section.
    recompile: Recompile | None = None
    kept = 4  # plans for other shapes that are kept

    def __init__(
        self, file: Bytes, *, threads: int | None = None, checksums: bool = True, pool: native.Pool | None = None
    ) -> None:
        self._file, self._checksums = file, checksums
        self._sections = disassemble(file)
        self.info = PlanInfo.from_json(bytes(self.section(SectionKind.META)))
        self._pool = pool or (native.Pool(threads) if threads else native.default_pool())
        self._islands: dict[int, Any] = {}
        itself = weakref.ref(self)  # no circle: what a run holds goes with the plan's last user

        def host_step(variant: int, island: int, inputs: list[Array], outputs: list[Array]) -> None:
            plan = itself()
            assert plan is not None
            plan._run_island(variant, island, inputs, outputs)

        self._native = NativePlan(file, pool=self._pool, host_step=host_step, checksums=checksums)
        self._others: dict[Any, Plan] = {}
        self._parts: tuple[Plan, ...] | None = None
        self._tails = read_tails(self.info.settings.get("tails", []))
        self._call = TailCall()
        self._head: Head | None = None
        self._profile: Profile | None = None
        self._open_gpu: Callable[[Plan], Gpu] | None = None
        self.gpu: Gpu | None = None
        if not self._native.variants:
            raise PlanError("the plan is damaged: it has no variant")

    # ---- files ----

    @classmethod
    def open(cls, path: str | Path, *, threads: int | None = None, checksums: bool = True) -> Plan:
        """Open a .vxp file by memory map.

        Raises
        ------
        PlanError : the file is damaged, truncated, foreign or newer, or has no section for this machine.
        """
        return cls(map_file(Path(path)), threads=threads, checksums=checksums)

    def save(self, path: str | Path, *, packed: bool = True) -> Path:
        """Write the plan; with ``packed=False`` weights are packed when it is opened (a smaller file)."""
        target = Path(path)
        data = self._file if packed else self._without_packed()
        with atomic_path(target) as partial:
            data.tofile(partial)
        return target

    def _without_packed(self) -> Bytes:
        from voxelrt.plan.assembly import pack_on_open  # imports Plan

        sections = [
            replace(s, data=Plan(s.data, pool=self._pool, checksums=False)._without_packed())
            if s.kind == SectionKind.PART
            else s
            for s in self._sections
        ]
        return assemble(pack_on_open(sections))

    def with_parts(self, parts: Sequence[Plan]) -> Plan:
        """The same plan with other plans inside; ``parts`` gives them again."""
        sections = [s for s in self._sections if s.kind != SectionKind.PART]
        inside = [Section(SectionKind.PART, part._file, str(index)) for index, part in enumerate(parts)]
        return Plan(assemble([*sections, *inside]), pool=self._pool, checksums=False)

    @property
    def parts(self) -> tuple[Plan, ...]:
        """The plans inside this one, on its threads: earlier stages of a cascade, further models of a composite.

        Raises
        ------
        PlanError : one of them is damaged.
        """
        if self._parts is None:
            found = {s.target: s.data for s in self._sections if s.kind == SectionKind.PART}
            if set(found) != {str(index) for index in range(len(found))}:
                raise PlanError("the plan is damaged: the plans inside it are not numbered")
            parts = [Plan(found[str(index)], pool=self._pool, checksums=self._checksums) for index in range(len(found))]
            self._parts = tuple(p if self._open_gpu is None else p.on_gpu(self._open_gpu) for p in parts)
        return self._parts

    def on_gpu(self, open_gpu: Callable[[Plan], Gpu]) -> Plan:
        """The same plan, run on GPUs in place of the CPU; so are the plans inside it.

        open_gpu : makes of a plan what runs it there.
        """
        made = Plan(self._file, pool=self._pool, checksums=False)
        made._open_gpu, made.gpu = open_gpu, open_gpu(made)
        return made

    def with_info(self, info: PlanInfo, threads: int | None = None) -> Plan:
        """The same plan with another description."""
        sections = [s for s in self._sections if s.kind != SectionKind.META]
        meta = Section(SectionKind.META, np.frombuffer(info.to_json(), np.uint8))
        return Plan(assemble([*sections, meta]), threads=threads, checksums=False)

    def describe_as(self, info: PlanInfo) -> Plan:
        """This plan with another description, in its own memory where there is room: for who has just made it."""
        file = with_description(self._file, np.frombuffer(info.to_json(), np.uint8))
        if file is None:
            return self.with_info(info, self.threads)
        self.info, self._file, self._sections = info, file, disassemble(file)
        return self

    def with_sections(self, more: Sequence[Section], info: PlanInfo) -> Plan:
        """The same plan with further sections, and another description."""
        sections = [s for s in self._sections if s.kind != SectionKind.META]
        meta = Section(SectionKind.META, np.frombuffer(info.to_json(), np.uint8))
        return Plan(assemble([*sections, *more, meta]), pool=self._pool, checksums=False)

    @property
    def threads(self) -> int:
        """How many compute threads it runs on."""
        return self._pool.threads

    def with_threads(self, threads: int) -> Plan:
        """The same plan, on its own compute threads; the file in memory is shared."""
        made = Plan(self._file, threads=threads, checksums=False)
        return made if self._open_gpu is None else made.on_gpu(self._open_gpu)

    def section(self, kind: SectionKind, target: str = "") -> Bytes:
        """The bytes of a section. Raises PlanError where there is none."""
        for section in self._sections:
            if section.kind == kind and section.target == target:
                return section.data
        raise PlanError(f"the plan has no {kind.name.lower()} section{f' for {target}' if target else ''}")

    @property
    def file_bytes(self) -> int:
        """The size of the plan as a file."""
        return self._file.size

    @property
    def targets(self) -> list[str]:
        """The targets that the plan has compiled sections or engines for."""
        return [s.target for s in self._sections if s.kind in (SectionKind.COMPILED, SectionKind.ENGINES)]

    @property
    def kernel_targets(self) -> list[str]:
        """The GPUs that the plan has code of our kernels for."""
        return [s.target for s in self._sections if s.kind == SectionKind.KERNELS]

    # ---- what it takes and gives ----

    @property
    def inputs(self) -> list[Io]:
        """The inputs of the first variant."""
        return self._native.variants[0][0]

    @property
    def outputs(self) -> list[Io]:
        """The outputs of the first variant."""
        return self._native.variants[0][1]

    @property
    def output_names(self) -> list[str]:
        """The names of all outputs, those too whose shape depends on data and that ``outputs`` does not list."""
        tail = self._tail(0)
        return [io.name for io in self.outputs] if tail is None else list(tail.outputs)

    @property
    def _wanted(self) -> list[str]:
        """The names of all inputs."""
        tail = self._tail(0)
        return [io.name for io in self.inputs] if tail is None else tail.inputs

    @property
    def host_inputs(self) -> list[str]:
        """The names of inputs that no schedule can hold (strings, sequences, optionals); ONNX Runtime takes them."""
        tail = self._tail(0)
        return [] if tail is None else tail.hosts

    @property
    def variants(self) -> list[tuple[list[Io], list[Io], tuple[int, int], int]]:
        """(inputs, outputs, (smallest, largest batch), steps) of every variant."""
        return self._native.variants

    @property
    def trunk(self) -> tuple[Io, Head] | None:
        """The output that ``run`` gives where `out` names it, and the head that makes logits of it.

        None where the plan was not compiled without its head as well, see ``graph/head.py``. Raises PlanError where it
        is damaged.
        """
        if not any(s.kind == SectionKind.HEAD for s in self._sections):
            return None
        features = next((o[0] for _, o, _, _ in self.variants if [io.name for io in o] == [FEATURES]), None)
        if features is None:
            raise PlanError("the plan is damaged: it has a head and no variant without it")
        if self._head is None:
            self._head = Head.of(self.section(SectionKind.HEAD), self.outputs[0], features)
        return features, self._head

    @property
    def parity(self) -> list[ParityLine]:
        """How far this plan's answers are from the network's own: import, plan, labels."""
        return self.info.parity

    @property
    def memory_bytes(self) -> int:
        """What a run holds: arena, scratch, staging, for each run that was under way at once; at least for one."""
        return self._native.context_bytes

    # ---- running ----

    def __call__(self, x: Any) -> Any:
        """Run a network of one input; one output comes back alone, several as a tuple."""
        if len(self.inputs) != 1:
            names = ", ".join(io.name for io in self.inputs)
            raise UsageError(f"this plan has the inputs {names}: use plan.run({{name: array}})")
        results = tuple(self.run({self.inputs[0].name: x}).values())
        return results[0] if len(results) == 1 else results

    def run(
        self,
        inputs: Mapping[str, Any],
        out: Mapping[str, Array] | None = None,
        taps: Sequence[str] = (),
        *,
        cancel: CancelFlag | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Run the network.

        Parameters
        ----------
        inputs : name -> array (NumPy, or anything with DLPack on the CPU). A plan on GPUs takes arrays that lie there
            too (DLPack or the CUDA array interface), after the streams that write them; its outputs then stay there.
        out : name -> array to write into; with it nothing is allocated after the first call. It may name the output
            of ``trunk`` alone: then the network runs without its head.
        taps : names of inner values of the graph that are wanted too (compiled on first use, without fusion).
        cancel : a flag that stops the run between two steps.
        progress : called with (step, steps).

        Returns
        -------
        name -> array of the same kind as the inputs.

        Raises
        ------
        UsageError : unknown or missing names. ShapeError : shapes or dtypes the plan was not compiled for.
        CancelledError : the flag was set.
        """
        if self.gpu is not None:
            if taps:
                raise UsageError("inner values are read on the CPU only: open the plan without a GPU for taps")
            return self.gpu.run(inputs, out)
        arrays, library = take(inputs, self._wanted, self.inputs)
        if taps:
            return self._other(arrays, tuple(taps)).run(inputs, out, cancel=cancel, progress=progress)
        found = match(self._native.variants, arrays, out)
        if found is None:
            return self._other(arrays, ()).run(inputs, out, cancel=cancel, progress=progress)
        variant, batch = found
        tail = self._tail(variant)
        if tail is not None and out is not None:
            raise UsageError(
                "the shapes of this plan's outputs depend on data: they cannot be written into given arrays"
            )
        outputs = make_outputs(self._native.variants[variant][1], batch, out)
        self._call.inputs = inputs
        self._native.run(
            [arrays[io.name] for io in self._native.variants[variant][0]],
            list(outputs.values()),
            cancel=cancel,
            progress=progress,
        )
        if tail is not None:
            return self._call.finish(tail, outputs)
        if library is None or out is not None:
            return dict(outputs)
        return {name: library.from_dlpack(array) for name, array in outputs.items()}

    def stream(self, state: Mapping[str, str], *, first: Mapping[str, Any] | None = None) -> Stream:
        """Run step by step a network that takes its own state: a recurrent one, over a signal in chunks.

        Parameters
        ----------
        state : name of an output -> name of the input that it is in the next step.
        first : name of such an input -> its first array; zeros where not given.

        Returns
        -------
        A callable that takes the other inputs and gives the other outputs of a step.

        Raises
        ------
        UsageError : unknown names. ShapeError : an output and its input differ in shape or dtype.
        """
        return Stream(self, state, first=first)

    def time_steps(self, inputs: Mapping[str, Any], out: Mapping[str, Array] | None = None) -> StepTimers:
        """Run once and say when each step began and how long it took. ``inputs`` and ``out`` as for ``run``.

        Raises
        ------
        ShapeError : no variant takes these inputs.
        """
        arrays, _ = take(inputs, self._wanted, self.inputs)
        found = match(self._native.variants, arrays)
        if found is None:
            raise ShapeError("no variant takes these inputs")
        variant, batch = found
        timers = StepTimers(self._native.variants[variant][3])
        outputs = make_outputs(self._native.variants[variant][1], batch, out)
        ordered = [arrays[io.name] for io in self._native.variants[variant][0]]
        self._native.run(ordered, list(outputs.values()), timers=timers)
        return timers

    def profile(self, inputs: Mapping[str, Any], *, runs: int = 5) -> Profile:
        """Time every step over some runs and hold it against what this machine can do; ``describe`` then shows it.

        Parameters
        ----------
        inputs : as for ``run``. runs : how often; the median counts.
        """
        from voxelrt.measure.profile import measure_profile  # imports Plan

        self._profile = measure_profile(self, inputs, runs)
        return self._profile

    def _other(self, arrays: Mapping[str, Array], taps: Sequence[str]) -> Plan:
        """A plan for other shapes or with taps, compiled on first use and kept."""
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        if not taps:
            check_ranges(self.info.settings["shapes"], self._native.variants, shapes)
        key = (tuple(sorted(shapes.items())), tuple(taps))
        if key not in self._others:
            if Plan.recompile is None:
                raise ShapeError(f"the plan was not compiled for {shapes}")
            while len(self._others) >= self.kept:
                self._others.pop(next(iter(self._others)))
            self._others[key] = Plan.recompile(self, shapes, taps)
        return self._others[key]

    def _run_island(self, variant: int, island: int, inputs: list[Array], outputs: list[Array]) -> None:
        if island not in self._islands:
            from voxelrt.backends.onnxruntime import load_islands  # an extra; only plans with islands need it

            self._islands = load_islands(bytes(self.section(SectionKind.ISLANDS, capi.target())), self._pool.threads)
        tail = self._tail(variant)
        if tail is not None and tail.island == island:
            self._call.run(tail, self._islands[island], inputs)
        else:
            self._islands[island].run(inputs, outputs)

    def _tail(self, variant: int) -> Tail | None:
        return self._tails[variant] if variant < len(self._tails) else None

    # ---- saying what it is ----

    def describe(self) -> str:
        """Every node's place and why, the steps, the memory and the parity, as text."""
        from voxelrt.plan.description import describe  # imports Plan

        return describe(self, self._profile)

    def __repr__(self) -> str:
        ins = ", ".join(f"{io.name} {io.dims}" for io in self.inputs)
        return f"<voxelrt.Plan {self.info.name}: {ins}; {self.info.precision}; {', '.join(self.targets)}>"
