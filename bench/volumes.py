"""Rows about volumes: ``python -m bench.volumes export|stream|session|memory``, of seeded nnU-Nets; needs nnunetv2.

export: the same logits through nnU-Net's export and ours, file written; each in a process of its own.
stream: from the last slice to the last label, against a run of the whole volume.
session: several cases through a session and through a plain loop, interleaved, and how busy the network is.
memory: a case within --memory: what was said before the start, the peak, and where the time went.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.case_data import CASE_SPACING_MM, make_case, make_folder
from bench.peers import read_peers
from bench.worker import peak_bytes


def _logits(folder: Path) -> Any:
    return np.load(folder / "logits.npy", mmap_mode="r")


def _export_ours(folder: Path) -> float:
    from voxelrt.case import prepare_case
    from voxelrt.io import read_image, write_nifti
    from voxelrt.kernels import resample_argmax
    from voxelrt.models.nnunet_settings import settings_from_json
    from voxelrt.plan.plan import Plan
    from voxelrt.window_plan import decision_of
    from voxelrt.windowed import labels_of

    image = read_image(folder / "case_0000.nii.gz")
    case = prepare_case(image.volume, settings_from_json(Plan.open(folder / "net.vxp").info.model_settings))
    logits = np.ascontiguousarray(_logits(folder))
    ones = np.ones(logits.shape[2:], np.float32)
    start = time.perf_counter()
    how = decision_of(case, tuple(slice(0, n) for n in logits.shape[1:]))
    labels = np.empty(case.cropped_zyx, np.uint8)
    for z in range(len(labels)):
        low, high, weight = how.reads(z)
        planes = ((logits[:, low], ones), (logits[:, high], ones))
        resample_argmax(*planes, weight, how.rows, how.columns, how.values, regions=how.regions, out=labels[z])
    write_nifti(labels_of(case, labels), folder / "ours.nii.gz", source=image.source)
    return time.perf_counter() - start


def _export_theirs(folder: Path) -> float:
    import torch
    from nnunetv2.inference.export_prediction import export_prediction_from_logits
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    training = next((folder / "Dataset900_Bench").iterdir())
    predictor.initialize_from_trained_model_folder(str(training), None, "checkpoint_final.pth")
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    preprocessor = configuration.preprocessor_class(verbose=False)
    _, _, properties = preprocessor.run_case(
        [str(folder / "case_0000.nii.gz")], None, plans, configuration, predictor.dataset_json
    )
    logits = torch.from_numpy(np.ascontiguousarray(_logits(folder)))
    start = time.perf_counter()
    export_prediction_from_logits(
        logits, properties, configuration, plans, predictor.dataset_json, str(folder / "theirs")
    )
    return time.perf_counter() - start


def _worker(program: str, folder: Path) -> None:
    from bench.case_data import quiet_nnunet

    sys.stdout, kept = sys.stderr, sys.stdout
    quiet_nnunet()
    if program in ("ours", "theirs"):
        seconds = (_export_ours if program == "ours" else _export_theirs)(folder)
        print(json.dumps({"seconds": seconds, "peak": peak_bytes()}), file=kept)
    else:
        print(json.dumps(_within(folder, program)), file=kept)


def export(asked: argparse.Namespace, folder: Path) -> None:
    import nibabel as nib

    grid = [round(n * CASE_SPACING_MM) for n in asked.size]
    rng = np.random.default_rng(asked.seed)
    np.save(folder / "logits.npy", rng.normal(size=(asked.classes, *grid)).astype(np.float32))
    found: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    for _ in range(asked.rounds):
        for program, times in found.items():
            command = [sys.executable, "-m", "bench.volumes", "worker", program, str(folder)]
            environment = {**os.environ, **dict(read_peers()["torch"].environment), "OMP_NUM_THREADS": "2"}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            times.append(json.loads(done.stdout))
    ours, theirs = (np.asarray(nib.load(folder / f"{n}.nii.gz").dataobj) for n in ("ours", "theirs"))
    seconds = {name: float(np.median([one["seconds"] for one in times])) for name, times in found.items()}
    peaks = {name: max(one["peak"] for one in times) / 2**30 for name, times in found.items()}
    print(f"{asked.classes} classes, {asked.size}: equal labels {float((ours == theirs).mean()):.6%}")
    print(
        f"export {seconds['ours']:.2f} s against {seconds['theirs']:.2f} s of nnU-Net: "
        f"{seconds['theirs'] / seconds['ours']:.1f}×; peak RSS, the logits included, {peaks['ours']:.2f} against "
        f"{peaks['theirs']:.2f} GiB; medians of {asked.rounds}"
    )


def _within(folder: Path, budget: str) -> dict[str, Any]:
    """One case within a budget, in a process of its own."""
    import voxelrt as vx

    plan = vx.Plan.open(folder / "net.vxp", threads=2)
    spent, said, run = [0.0], list[str](), plan.run

    def timed(*given: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        answer = run(*given, **options)
        spent[0] += time.perf_counter() - begun
        return answer

    def tell(stage: str, done: int, windows: int) -> None:
        if stage == "run" and done % 100 == 0:
            print(f"{done} of {windows} windows, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)

    plan.run = timed  # type: ignore[method-assign]
    start = time.perf_counter()
    case, out = folder / "case_0000.nii.gz", folder / "out.nii.gz"
    result = vx.predict(plan, case, out, mirroring=False, memory=budget, say=said.append, progress=tell)
    seconds = time.perf_counter() - start
    moved = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {
        "said": said,
        "peak": peak_bytes(),
        "seconds": seconds,
        "network": spent[0],
        "written": int(moved["wchar"]),
        "read": int(moved["rchar"]),
        "labels": len(np.unique(result.labels.array)),
    }


def memory(asked: argparse.Namespace, folder: Path) -> None:
    command = [sys.executable, "-m", "bench.volumes", "worker", asked.memory, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    print(
        f"{asked.classes} classes, {asked.size}, memory={asked.memory}: peak {found['peak'] / 2**20:.0f} MiB; "
        f"{found['seconds']:.0f} s, {found['network']:.0f} s of them the network; {found['written'] / 2**30:.1f} GiB "
        f"written and {found['read'] / 2**30:.1f} read; {found['labels']} labels found\n" + "\n".join(found["said"])
    )


def stream(asked: argparse.Namespace, folder: Path) -> None:
    """Slices come as fast as they are taken, but no window can run before its slab is there."""
    import voxelrt as vx
    from voxelrt.io import read_image

    plan = vx.Plan.open(folder / "net.vxp", threads=asked.threads)
    volume = read_image(folder / "case_0000.nii.gz").volume
    scan, later, whole = volume.array[0], list[float](), list[float]()
    for _ in range(asked.rounds):
        start = time.perf_counter()
        expected = vx.predict(plan, volume, mirroring=False).labels.array
        whole.append(time.perf_counter() - start)
        pace = 1.5 * whole[-1] / len(scan)  # a scan somewhat slower than the network

        def slices(pace: float = pace) -> Any:
            for plane in scan:
                time.sleep(pace)
                yield plane

        with vx.Session(plan, mirroring=False) as session:
            result = session.stream(slices(), volume.shape_zyx, volume.affine).result()
        later.append(result.timings["after the last slice"])
        told = [text for text in result.warnings if "clipped" in text]
        equal = float((result.labels.array == expected).mean())
    print(
        f"{asked.size}: {np.median(later):.2f} s after the last slice against {np.median(whole):.2f} s for the whole "
        f"volume: {np.median(whole) / np.median(later):.1f}×; equal labels {equal:.4%}; medians of {asked.rounds}"
        + "".join(f"\n{text}" for text in told)
    )


def session(asked: argparse.Namespace, folder: Path) -> None:
    import voxelrt as vx

    plan = vx.Plan.open(folder / "net.vxp", threads=asked.threads)
    cases = [make_case(folder / f"case{n}_0000.nii.gz", asked.size, n) for n in range(5)]
    spans: list[tuple[float, float]] = []
    run = vx.Plan.run

    def timed(self: Any, *given: Any, **options: Any) -> Any:
        start = time.perf_counter()
        answer = run(self, *given, **options)
        spans.append((start, time.perf_counter()))
        return answer

    def loop() -> None:
        for number, case in enumerate(cases):
            vx.predict(plan, case, folder / f"loop{number}.nii.gz", mirroring=False)

    def together() -> None:
        with vx.Session(plan, mirroring=False) as made:
            for result in made.map(cases, folder / "out", overwrite=True):
                assert result.error is None, result.error

    vx.Plan.run = timed  # type: ignore[method-assign]
    ratios, busy = [], []
    for _ in range(asked.rounds):
        took = {}
        programs: tuple[tuple[str, Callable[[], None]], ...] = (("loop", loop), ("session", together))
        for name, work in programs:
            spans.clear()
            start = time.perf_counter()
            work()
            took[name] = time.perf_counter() - start
        ratios.append(took["loop"] / took["session"])
        busy.append(sum(b - a for a, b in spans) / (spans[-1][1] - spans[0][0]))
    print(
        f"{len(cases)} cases of {asked.size}: a session is {np.median(ratios):.2f}× a loop (each {ratios}); the "
        f"network is busy {np.median(busy):.1%} from its first window to its last; {asked.rounds} rounds"
    )


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        _worker(sys.argv[2], Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(prog="python -m bench.volumes", description=__doc__)
    parser.add_argument("row", choices=("export", "stream", "session", "memory"))
    parser.add_argument("--classes", type=int, default=5)
    parser.add_argument("--size", type=lambda text: tuple(int(n) for n in text.split(",")), default=(140, 200, 200))
    parser.add_argument("--patch", type=int, default=128, help="edge of a window (default: 128)")
    parser.add_argument("--memory", default="1GiB", help="of the row about memory (default: 1GiB)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    import voxelrt as vx

    with tempfile.TemporaryDirectory(prefix="voxelrt-bench-") as temporary:
        folder = Path(temporary)
        model = make_folder(folder, asked.classes, asked.seed, (asked.patch,) * 3)
        make_case(folder / "case_0000.nii.gz", asked.size, asked.seed)
        vx.compile(model, verify=False, threads=asked.threads).save(folder / "net.vxp")
        {"export": export, "stream": stream, "session": session, "memory": memory}[asked.row](asked, folder)


if __name__ == "__main__":
    main()
