"""A volume through MONAI's sliding_window_inference. Run as a file: python monai_child.py JOB.json"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    try:
        import numpy
        import torch
        from monai.inferers import sliding_window_inference

        if job["network"].endswith(".onnx"):
            import onnxruntime
    except ModuleNotFoundError as error:
        Path(job["report"]).write_text(json.dumps({"missing": error.name}), "utf-8")
        return
    from importlib.metadata import version

    used = ["monai", "torch"]
    if job.get("threads"):
        torch.set_num_threads(int(job["threads"]))
    if job["network"].endswith(".onnx"):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(job.get("threads") or 0)
        session = onnxruntime.InferenceSession(job["network"], options, providers=["CPUExecutionProvider"])
        used.append("onnxruntime")

        def network(x):  # type: ignore[no-untyped-def]
            rows = [session.run([job["output"]], {job["input"]: row[None].numpy()})[0] for row in x]
            return torch.from_numpy(numpy.concatenate(rows))

    elif job["network"].endswith(".pt2"):
        network = torch.export.load(job["network"]).module()
    else:
        network = torch.jit.load(job["network"], map_location="cpu").eval()
    volume = torch.from_numpy(numpy.load(job["volume"], allow_pickle=False))
    # (C, Z, Y, X); to a network of planes each plane is a sample.
    batch = volume[None] if len(job["roi"]) == 3 else volume.transpose(0, 1)
    start = time.perf_counter()
    with torch.no_grad():
        made = sliding_window_inference(batch, job["roi"], 1, network, **job["options"])
    seconds = time.perf_counter() - start
    answer = made[0] if len(job["roi"]) == 3 else made.transpose(0, 1)
    numpy.save(job["out"], answer.numpy())
    report = {
        "seconds": seconds,
        "peak_bytes": peak_bytes(),
        "versions": {name: version(name) for name in used},
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
