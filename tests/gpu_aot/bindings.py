"""Load TensorRT's Python bindings where its libraries are not, and print what they have as JSON.

python -m tests.gpu_aot.bindings FOLDER

The bindings are on PyPI, the libraries are not. Empty libraries with the names and functions that the bindings ask the
loader for are enough to import them, and to read every class, member and signature; calling anything would crash.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from ctypes import CDLL, RTLD_GLOBAL
from pathlib import Path
from typing import Any

OURS = re.compile(
    r"^(create\w+_INTERNAL|get\w*(PluginRegistry|ParserVersion|InferLibVersion)\w*|initLibNvInferPlugins)$"
)


def _needed(library: Path) -> list[str]:
    text = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=True).stdout
    return [name for name in re.findall(r"NEEDED.*\[(.+)\]", text) if name.startswith("libnv")]


def _asked(library: Path) -> list[str]:
    command = ["nm", "-D", "--undefined-only", str(library)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = [line.split()[-1].partition("@")[0] for line in text.splitlines()]
    return [name for name in names if OURS.match(name)]


def load(folder: Path) -> Any:
    """The module of an unpacked wheel of bindings."""
    library = folder / "tensorrt_bindings" / "tensorrt.so"
    with tempfile.TemporaryDirectory() as name:
        source = Path(name, "empty.c")
        source.write_text("".join(f"void *{function}(void) {{ return 0; }}\n" for function in _asked(library)))
        for needed in _needed(library):
            made = Path(name, needed)
            subprocess.run(["gcc", "-shared", "-fPIC", f"-Wl,-soname,{needed}", "-o", made, source], check=True)
            CDLL(str(made), RTLD_GLOBAL)
        spec = importlib.util.spec_from_file_location("tensorrt", library)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def surface(module: Any) -> dict[str, dict[str, str]]:
    """class -> member -> what it says of itself, its signatures first."""
    found = {}
    for name, one in vars(module).items():
        if isinstance(one, type):
            members = {m: str(getattr(getattr(one, m), "__doc__", "") or "") for m in dir(one)}
            found[name] = {m: text for m, text in members.items() if not m.startswith("__")}
    return found


if __name__ == "__main__":
    json.dump(surface(load(Path(sys.argv[1]))), sys.stdout)
