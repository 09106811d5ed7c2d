"""Build the sdist, the wheel from it, install that in a clean venv and use it: ``python -m tests.packaging.check``.

Also lists what the core install takes on disk, and checks what `import voxelrt` brings in and how long it takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.packaging import formats

ROOT = Path(__file__).resolve().parents[2]
USE = """
import numpy as np, voxelrt as vx
from voxelrt.kernels import conv3d
from voxelrt.models.architectures.unet3d import build_unet3d
x = np.ones((1, 2, 4, 4, 4), np.float32)
assert conv3d(x, np.ones((3, 2, 3, 3, 3), np.float32), padding=1)[0, 0, 1, 1, 1] == 54.0
plan = vx.compile(build_unet3d(features=(4, 8), patch=(8, 8, 8), classes=2, channels=1, seed=0), fallback="error")
assert plan(np.zeros(plan.inputs[0].dims, np.float32)).shape == (1, 2, 8, 8, 8)
"""
IMPORT = """
import json, sys, time
start = time.perf_counter()
import voxelrt
print(json.dumps([time.perf_counter() - start, sorted({m.partition(".")[0] for m in sys.modules})]))
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command outside the source folder, so that only what is installed can be found."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("VOXELRT_", "PYTHON"))}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def sizes(python: Path) -> list[tuple[str, float]]:
    """Installed distributions and their size in MB, largest first."""
    script = (
        "import importlib.metadata as m, json, os\n"
        "print(json.dumps([(d.name, sum(os.path.getsize(p) for f in d.files or [] if os.path.exists(p := "
        "d.locate_file(f)))) for d in m.distributions()]))"
    )
    rows = json.loads(run(python, "-c", script, cwd=python.parent))  # not beside the metadata of an editable install
    return sorted(((name, size / 1e6) for name, size in rows), key=lambda row: -row[1])


def main() -> None:
    """Everything in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        dist, env = work / "dist", work / "venv"
        run(sys.executable, "-m", "build", "--outdir", dist, ROOT, cwd=work)  # sdist, then the wheel from the sdist
        wheel, sdist = next(dist.glob("*.whl")), next(dist.glob("*.tar.gz"))
        for file in (sdist, wheel):
            print(f"built {file.name}: {file.stat().st_size / 1e6:.1f} MB")
        audit = run(Path(sys.executable).parent / "auditwheel", "show", wheel, cwd=work)
        tag = next((word for word in audit.replace('"', " ").split() if word.startswith("manylinux_")), "")
        if not tag or "libstdc++" in audit:
            sys.exit(f"the wheel needs more than the C library:\n{audit}")
        print(f"auditwheel: consistent with {tag}")
        venv.create(env, with_pip=True)
        python = env / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", wheel, cwd=work)
        run(python, "-c", USE, cwd=work)
        run(env / "bin" / "voxelrt", "doctor", cwd=work)
        print("models, as `voxelrt info` and `voxelrt run` take them:")
        formats.check(env / "bin", {name: formats.CORE[name] for name in ("nnU-Net folder", "TensorFlow .pb")})
        timings = [json.loads(run(python, "-c", IMPORT, cwd=work)) for _ in range(3)]
        seconds = min(t[0] for t in timings)
        heavy = {"torch", "onnxruntime", "tensorrt", "triton", "cupy", "numba"} & set(timings[0][1])
        if heavy:
            sys.exit(f"import voxelrt imports {', '.join(sorted(heavy))}")
        print(f"import voxelrt: {seconds:.3f} s")
        rows = [row for row in sizes(python) if row[0] not in ("pip", "setuptools")]
        print(f"core install: {sum(size for _, size in rows):.0f} MB")
        for name, size in rows:
            print(f"  {name:24s} {size:7.1f} MB")


if __name__ == "__main__":
    main()
