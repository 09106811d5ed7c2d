"""Networks of PyTorch by torch's exporter: modules with example inputs, exported programs (.pt2), TorchScript (.pt).

Needs the extra ``[torch]``; a compiled plan does not. What is run: of a module, its own ``forward``, under torch's
tracing; of a .pt2 file, operators of ATen; of a TorchScript file, its program, which can compute and print but is
refused where it touches files. No pickle is loaded by Python (``torch_archive``).
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from voxelrt.errors import MissingExtraError, ModelError, UnsupportedError, UsageError
from voxelrt.models.formats import torch_archive
from voxelrt.models.formats.onnx import load_onnx

OPSET = 20
IN_MEMORY_BYTES = 1 << 30  # larger networks go through a file: protobuf ends at 2 GiB
SUFFIXES = (".pt2", ".pt", ".pth", ".ckpt")

Array = NDArray[Any]
Shapes = Mapping[str, Sequence[int | tuple[int, int, int]]]


@dataclass(frozen=True)
class Imported:
    """A graph; what torch itself answered to the example inputs, (inputs, outputs) by name; torch on other inputs."""

    graph: ir.Model
    reference: tuple[tuple[dict[str, Array], dict[str, Array]], ...] = ()
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]] | None = None


def is_torch(source: Any) -> bool:
    """Whether an object is a module or an exported program, asked without importing torch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    exported = getattr(getattr(torch, "export", None), "ExportedProgram", ())
    return isinstance(source, (torch.nn.Module, exported))


def load_torch(source: Any, *, example_inputs: Any = None, shapes: Shapes | None = None) -> Imported:
    """Bring a network of torch to ONNX.

    Parameters
    ----------
    source : an ``nn.Module`` (scripted ones too), an ``ExportedProgram``, or the path of a .pt2 or TorchScript file.
    example_inputs : what a module's ``forward`` takes: a tensor or array, a tuple of them, or a mapping from names.
    shapes : instead of example inputs, the shape of each argument; a dimension may be a range (min, opt, max), which
        stays open in the graph.

    Raises
    ------
    MissingExtraError : torch or onnxscript is not installed. UsageError : no example inputs where they are needed.
    ModelError : a file that is damaged or would run code. UnsupportedError : torch cannot export the network.
    """
    archive = _passed(Path(source)) if isinstance(source, (str, Path)) else None
    torch = _torch()
    if archive is not None:
        source = _read(torch, Path(source), archive)
    if isinstance(source, torch.export.ExportedProgram):
        return _from_program(torch, source)
    examples = _examples(torch, source, example_inputs, shapes)
    with _evaluating(source), _quiet():
        if isinstance(source, torch.jit.ScriptModule):
            graph = _from_script(torch, source, tuple(examples.values()))
        else:
            graph = _from_module(torch, source, examples, shapes or {})
        reference = _answer(torch, source, graph, tuple(examples.values()))
    return Imported(graph, reference, _runner(torch, source, graph, lambda: _evaluating(source)))


def _torch() -> Any:
    for package in ("torch", "onnxscript"):  # the exporter stands on the second
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "torch", "reading a network of PyTorch") from error
    import torch

    return torch


def _passed(path: Path) -> io.BytesIO:
    """What of a file torch may see. It is looked at before torch is asked for: nobody installs that for a bad file."""
    try:
        is_archive = torch_archive.is_archive(path)
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror}") from error
    if not is_archive:
        raise ModelError(
            f"{path.name} is no archive of torch; if it is a pickle, loading it would run what it says: "
            "save the module with torch.export.save (.pt2), or export it to ONNX"
        )
    return torch_archive.exported_program(path) if path.suffix == ".pt2" else torch_archive.script(path)


def _read(torch: Any, path: Path, archive: io.BytesIO) -> Any:
    """What a file that has passed holds, by torch's loaders."""
    with _quiet():
        try:
            return torch.export.load(archive) if path.suffix == ".pt2" else torch.jit.load(archive, map_location="cpu")
        except Exception as error:  # the file is hostile: whatever it triggers in the reader is its own fault
            raise ModelError(f"torch cannot load {path.name}: {_cause(error)}") from error


def _examples(torch: Any, module: Any, given: Any, shapes: Shapes | None) -> dict[str, Any]:
    """The arguments of ``forward`` by name, in order, as tensors."""
    names = _arguments(torch, module)
    if given is None:
        if not shapes:
            raise UsageError(
                "a torch module is traced with inputs: give example_inputs=(tensor, ...) or shapes={name: (1, ...)}; "
                f"its arguments are {', '.join(names) or 'not named'}"
            )
        unknown = sorted(set(shapes) - set(names))
        if unknown:
            raise UsageError(f"shapes names {', '.join(unknown)}; the arguments of the module are {', '.join(names)}")
        generator = torch.Generator().manual_seed(0)
        sizes = {n: [d[1] if isinstance(d, tuple) else int(d) for d in shapes[n]] for n in names if n in shapes}
        return {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise UsageError(f"example_inputs names {', '.join(unknown)}; the module takes {', '.join(names)}")
        found = {name: given[name] for name in names if name in given}
    else:
        values = tuple(given) if isinstance(given, (tuple, list)) else (given,)
        names = names if len(names) >= len(values) else [f"input_{i}" for i in range(len(values))]
        found = dict(zip(names, values, strict=False))
    return {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in found.items()}


def _arguments(torch: Any, module: Any) -> list[str]:
    if isinstance(module, torch.jit.ScriptModule):
        return [argument.name for argument in module.forward.schema.arguments if argument.name != "self"]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in inspect.signature(module.forward).parameters.values() if p.kind in kinds]


def _from_module(torch: Any, module: Any, examples: Mapping[str, Any], shapes: Shapes) -> ir.Model:
    """By torch.export. Ranges of shapes stay open, with as few conditions as the module allows."""
    open_axes = {
        name: {axis: torch.export.Dim.AUTO for axis, d in enumerate(shapes.get(name, ())) if isinstance(d, tuple)}
        for name in examples
    }
    options = {"dynamic_shapes": tuple(open_axes.values())} if any(open_axes.values()) else {}
    return _converted(torch, module, tuple(examples.values()), **options)


def _from_program(torch: Any, program: Any) -> Imported:
    with _quiet():
        graph, module = _converted(torch, program, ()), program.module()
    run = _runner(torch, module, graph, contextlib.nullcontext)
    inputs = graph.graph.inputs
    dims = [[d for d in v.shape or () if isinstance(d, int)] for v in inputs]
    if any(v.dtype != ir.DataType.FLOAT or len(d) != len(v.shape or ()) for v, d in zip(inputs, dims, strict=True)):
        return Imported(graph, (), run)
    generator = torch.Generator().manual_seed(0)
    with _quiet():
        return Imported(graph, _answer(torch, module, graph, [torch.randn(d, generator=generator) for d in dims]), run)


def _converted(torch: Any, network: Any, arguments: tuple[Any, ...], **options: Any) -> ir.Model:
    try:
        made = torch.onnx.export(
            network, arguments, dynamo=True, opset_version=OPSET, verbose=False, optimize=True, **options
        )
    except Exception as error:  # the exporter raises what the user's own module happens to throw
        raise UnsupportedError(f"torch cannot export the network to ONNX: {_cause(error)}") from error
    weights = sum(v.const_value.nbytes for v in made.model.graph.initializers.values() if v.const_value is not None)
    if weights <= IN_MEMORY_BYTES:
        return load_onnx(made.model_proto.SerializeToString())
    with tempfile.TemporaryDirectory(prefix="voxelrt-") as folder:
        path = Path(folder) / "network.onnx"
        made.save(path, external_data=True)
        return load_onnx(path)  # maps the weights, which outlive the names of their files


def _from_script(torch: Any, module: Any, arguments: tuple[Any, ...]) -> ir.Model:
    """By torch's older exporter: the newer one does not take TorchScript."""
    stream = io.BytesIO()
    names = _arguments(torch, module)[: len(arguments)]
    try:
        torch.onnx.export(module, arguments, stream, dynamo=False, opset_version=OPSET, input_names=names)
    except Exception as error:  # as above
        raise UnsupportedError(f"torch cannot export the TorchScript to ONNX: {_cause(error)}") from error
    return load_onnx(stream.getvalue())


def _answer(
    torch: Any, module: Any, graph: ir.Model, arguments: Sequence[Any]
) -> tuple[tuple[dict[str, Array], dict[str, Array]], ...]:
    """What torch answers to the example inputs, where inputs and outputs are plain tensors."""
    inputs, outputs = graph.graph.inputs, graph.graph.outputs
    if len(inputs) != len(arguments) or not all(isinstance(a, torch.Tensor) for a in arguments):
        return ()
    with torch.no_grad():
        found = module(*arguments)
    found = list(found.values()) if isinstance(found, Mapping) else found
    found = list(found) if isinstance(found, (tuple, list)) else [found]
    if len(found) != len(outputs) or not all(isinstance(f, torch.Tensor) for f in found):
        return ()
    given = {str(v.name): _array(a) for v, a in zip(inputs, arguments, strict=True)}
    return ((given, {str(v.name): _array(f) for v, f in zip(outputs, found, strict=True)}),)


def _runner(
    torch: Any, module: Any, graph: ir.Model, prepared: Callable[[], contextlib.AbstractContextManager[None]]
) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
    """torch on inputs by their names in the graph."""
    names = [str(v.name) for v in graph.graph.inputs]

    def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        arguments = [torch.from_numpy(np.array(inputs[name])) for name in names]
        with prepared(), _quiet():
            found = _answer(torch, module, graph, arguments)
        if not found:
            raise UnsupportedError("the torch network takes or gives other things than tensors: it cannot be compared")
        return found[0][1]

    return run


def _array(tensor: Any) -> Array:
    return np.ascontiguousarray(tensor.detach().cpu().numpy()).reshape(tuple(tensor.shape))


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """A module as it is used for inference; every part is put back into its own mode behind."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own parts and prints its progress; what matters is an error."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _cause(error: BaseException) -> str:
    """The first line of what lies at the bottom of an exporter's report."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
