"""A case through nnU-Net v2's own predictor, as it is installed. Run as a file: python nnunet_child.py JOB.json"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    scratch = str(Path(job["report"]).parent)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, scratch)
    os.environ.setdefault("nnUNet_compile", "f")
    try:
        import nnunetv2
        import torch
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    except ModuleNotFoundError as error:
        Path(job["report"]).write_text(json.dumps({"missing": error.name}), "utf-8")
        return
    from importlib.metadata import version

    if job.get("threads"):
        torch.set_num_threads(int(job["threads"]))
    device = torch.device("cpu")
    predictor = nnUNetPredictor(device=device, use_mirroring=bool(job["mirroring"]), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(job["folder"], job["folds"], job["checkpoint"])
    start = time.perf_counter()
    predictor.predict_from_files_sequential([job["files"]], [job["out"]], overwrite=True)
    seconds = time.perf_counter() - start
    del nnunetv2
    report = {
        "seconds": seconds,
        "peak_bytes": peak_bytes(),
        "versions": {name: version(name) for name in ("nnunetv2", "torch")},
    }
    Path(job["report"]).write_text(json.dumps(report), "utf-8")


def peak_bytes() -> int:
    """The kernel's own high-water mark of this process."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
