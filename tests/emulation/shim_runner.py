"""Run a CUDA program through the shim: compile its ``cuda.cu`` with a C++ compiler and sanitizers, and start that."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import voxelrt.kernels.common.gpu
from voxelrt.kernels.common.gpu.program import Buffer, Launch, Program, Tensor

SHIM = Path(__file__).with_name("shim")
DEVICE_HEADERS = Path(voxelrt.kernels.common.gpu.__file__).parent
FLAGS = [
    *("-std=c++17", "-g1", "-O1", "-fno-omit-frame-pointer", "-ffp-contract=off"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    *("-Wall", "-Wno-unknown-pragmas", "-Wno-unused-function"),
]


class ShimError(AssertionError):
    """The sanitizers or the shim itself stopped the program; the message is what they printed."""


def cuda_headers() -> Path | None:
    """The folder of cuda_fp16.h: beside nvcc, or None."""
    nvcc = shutil.which("nvcc")
    places = [Path(nvcc).resolve().parents[1] / "include"] if nvcc else []
    places += [Path("/usr/local/cuda/include")]
    return next((place for place in places if (place / "cuda_fp16.h").exists()), None)


def build(source: Path, folder: Path, names: tuple[str, ...]) -> Path:
    """The executable for a ``cuda.cu`` and its entries; built again only when something that goes into it changed."""
    headers = cuda_headers()
    if headers is None:
        raise FileNotFoundError("cuda_fp16.h of the CUDA toolkit")
    inputs = sorted((*SHIM.iterdir(), *DEVICE_HEADERS.glob("*.cuh"), *source.parent.glob("*.cu*"), source))
    key = hashlib.sha256(repr((names, FLAGS)).encode() + b"".join(path.read_bytes() for path in inputs)).hexdigest()
    made = folder / f"shim-{key}"
    if made.exists():
        return made
    with tempfile.TemporaryDirectory(dir=folder) as name:
        main = Path(name, "main.cpp")
        main.write_text(_main(source, names), encoding="utf-8")
        includes = [f"-I{place}" for place in (SHIM, DEVICE_HEADERS, source.parent)]
        command = ["g++", *FLAGS, *includes, "-isystem", str(headers), "-include", "algorithm", str(main)]
        done = subprocess.run([*command, "-o", f"{name}/shim"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ShimError(f"g++ refused {source.parent.name}/{source.name}: {done.stderr[:4000]}")
        os.replace(f"{name}/shim", made)
    return made


def _main(source: Path, names: tuple[str, ...]) -> str:
    lines = ['#include "cuda_shim.h"', f'#include "{source}"', '#include "scheduler.cpp"', "namespace voxelrt_shim {"]
    lines += ["Entry find_entry(const std::string &name) {"]
    lines += [f'    if (name == "{name}") return Caller<{name}>::call;' for name in names]
    lines += ["    return nullptr;", "}", "size_t entry_arguments_of(const std::string &name) {"]
    lines += [f'    if (name == "{name}") return Caller<{name}>::count;' for name in names]
    lines += ["    return 0;", "}", "}"]
    return "\n".join(lines) + "\n"


def run(program: Program, seed: int, folder: Path, names: tuple[str, ...], source: Path | None = None) -> Any:
    """Run a program; ``seed`` orders the threads (0 ascending, 1 descending, others shuffled).

    Raises
    ------
    ShimError : an access out of bounds, undefined behaviour, or a barrier that not all threads reach.
    """
    executable = build(program.source.with_suffix(".cu") if source is None else source, folder, names)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        job, answer = Path(name, "job"), Path(name, "answer")
        job.write_bytes(_job(program))
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
        command = [str(executable), str(job), str(answer), str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise ShimError(done.stderr[:4000])
        data = answer.read_bytes()
    memory: dict[int, Any] = {}
    place = 0
    for buffer in program.buffers:
        memory[id(buffer)] = np.frombuffer(data, buffer.dtype, buffer.elements, place)
        place += buffer.nbytes
    return program.result(lambda buffer: memory[id(buffer)])


def start_bytes(buffer: Buffer) -> bytes:
    """What a buffer holds before the first launch: NaN bit patterns wherever nothing was given."""
    if buffer.initial is None:
        return b"\xff" * buffer.nbytes
    raw = np.ascontiguousarray(buffer.initial).view(np.uint8).reshape(buffer.elements, buffer.dtype.itemsize).copy()
    if buffer.defined is not None:
        raw[~buffer.defined] = 0xFF
    return raw.tobytes()


def _job(program: Program) -> bytes:
    parts = [struct.pack("<I", len(program.buffers))]
    for buffer in program.buffers:
        parts += [struct.pack("<Q", buffer.nbytes), start_bytes(buffer)]
    parts.append(struct.pack("<I", len(program.launches)))
    for launch in program.launches:
        name = launch.name.encode()
        parts += [struct.pack("<I", len(name)), name, struct.pack("<7I", *launch.grid, *launch.block, launch.shared)]
        parts += [struct.pack("<I", len(launch.arguments)), *(_slot(program, launch, a) for a in launch.arguments)]
    return b"".join(parts)


def _slot(program: Program, launch: Launch, value: Any) -> bytes:
    if isinstance(value, Tensor):
        place = next((i for i, b in enumerate(program.buffers) if b is value.buffer), -1)
        if place < 0:
            raise ValueError(f"{launch.name} is given a tensor of another program")
        return struct.pack("<iQ", place, value.offset * value.dtype.itemsize)
    return struct.pack("<i", -1) + value.tobytes().ljust(8, b"\0")
