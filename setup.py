"""Build of voxelrt: three source folders become one package, and CMake builds the native library.

The folders ``engine/``, ``kernels/`` and ``models/`` are installed as ``voxelrt``, ``voxelrt.kernels`` and
``voxelrt.models``. The native library has a plain C ABI and is loaded with ctypes, so one wheel serves every Python 3.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.extension import Extension

ROOT = Path(__file__).resolve().parent
FOLDERS = {"voxelrt": "engine", "voxelrt.kernels": "kernels", "voxelrt.models": "models"}
LIBRARY = "libvoxelrt.so"


def _packages() -> list[str]:
    found: list[str] = []
    for package, folder in FOLDERS.items():
        found.append(package)
        found.extend(f"{package}.{name}" for name in find_packages(folder))
    return found


def _tool(name: str) -> str:
    """The path of a build tool, preferring the one beside this Python."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise SystemExit(f"{name} was not found: pip install {name}")
    return found


class BuildNative(build_ext):
    """Run CMake in the fixed folder build/native and put the library beside its loader."""

    def build_extension(self, ext: Extension) -> None:
        build = ROOT / "build" / "native"
        build.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                _tool("cmake"),
                "-S",
                str(ROOT),
                "-B",
                str(build),
                "-G",
                "Ninja",
                f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}",
                "-DCMAKE_BUILD_TYPE=Release",
            ],
            check=True,
        )
        subprocess.run([_tool("cmake"), "--build", str(build), "--target", "voxelrt"], check=True)
        self._place(Path(self.build_lib, "voxelrt", "kernels", "common"))

    def copy_extensions_to_source(self) -> None:
        self._place(ROOT / "kernels" / "common")  # an editable install runs from the source folders

    def _place(self, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        # A running process may have the old file mapped: replace it whole, never write into it.
        partial = target / f".{LIBRARY}.{os.getpid()}"
        shutil.copy2(ROOT / "build" / "native" / LIBRARY, partial)
        os.replace(partial, target / LIBRARY)

    def get_outputs(self) -> list[str]:
        return [str(Path(self.build_lib, "voxelrt", "kernels", "common", LIBRARY))]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class PlatformWheel(bdist_wheel):
    """Tag the wheel py3-none-<platform>: native code, but no Python ABI."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


class NativeDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


setup(
    packages=_packages(),
    package_dir=dict(FOLDERS),
    package_data={
        "voxelrt": ["py.typed"],
        "voxelrt.kernels": ["common/voxelrt.h", "common/voxelrt.hpp", "common/gpu/*.cuh", "*/*.cu", "*/*.cuh"],
        "voxelrt.models": ["recipes/*.toml"],
    },
    ext_modules=[Extension("voxelrt.kernels.common._native", sources=[])],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": PlatformWheel},
    distclass=NativeDistribution,
)
