"""Triton kernels to PTX and cubins, ahead of time: no GPU is needed."""

from __future__ import annotations

from typing import Any

from voxelrt.errors import DeviceError
from voxelrt.kernels.common.gpu.cuda_compiler import Compiled
from voxelrt.kernels.common.gpu.program import Launch, Tensor


def specialisation(launch: Launch) -> dict[tuple[int], list[list[Any]]]:
    """What the compiled code may take for granted of the arguments, as Triton's own launcher would find it.

    Pointers and sizes that are multiples of 16, so that loads can be wide; not those of ``do_not_specialize``. It is
    part of what a cubin is made for.
    """
    found: dict[tuple[int], list[list[Any]]] = {}
    plain = {p.num for p in getattr(launch.kernel, "params", ()) if p.do_not_specialize}
    for index, value in enumerate(launch.arguments):
        if index in plain:
            continue
        if isinstance(value, Tensor):
            aligned = value.offset * value.dtype.itemsize % 16 == 0
        else:
            aligned = value.dtype.kind in "iu" and int(value) % 16 == 0
        if aligned:
            found[(index,)] = [["tt.divisibility", 16]]
    return found


def compile_triton(launch: Launch, target: int) -> tuple[Compiled, dict[str, Any]]:
    """Compile a launch's kernel for ``sm_<target>``.

    Returns
    -------
    What was made, and Triton's metadata: ``name``, ``shared`` (bytes), ``num_warps``, ``global_scratch_size`` ...

    Raises
    ------
    DeviceError : Triton refused the kernel or the target; its words are in the message.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = launch.kernel
    names = function.arg_names
    given = [name for name in names if name not in launch.constants]
    signature = dict(zip(given, launch.types(), strict=True))
    signature.update(dict.fromkeys(launch.constants, "constexpr"))
    constexprs = {(names.index(name),): value for name, value in launch.constants.items()}
    places = {(names.index(given[i]),): notes for (i,), notes in specialisation(launch).items()}
    source = ASTSource(function, {name: signature[name] for name in names}, constexprs, places)
    options = {"num_warps": launch.block[0] // 32, "num_stages": launch.stages, "enable_fp_fusion": True}
    if launch.registers:
        options["maxnreg"] = launch.registers
    try:
        made = triton.compile(source, GPUTarget("cuda", target, 32), options=options)
    except Exception as error:
        raise DeviceError(f"triton refused {launch.name} for sm_{target}: {error}") from error
    return Compiled(target, made.asm["ptx"], made.asm["cubin"], ""), made.metadata._asdict()
