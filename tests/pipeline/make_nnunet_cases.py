"""Write tests/pipeline/data/nnunet_cases.npz: cases, and the labels that nnU-Net's own predictor gives them.

Run in an environment with torch==2.13.0 and nnunetv2==2.8.1:

    python tests/pipeline/make_nnunet_cases.py

The models are those of tests/models/data/nnunet_folders.tar.xz. ``float32`` are the labels of a predictor whose two
sums (of logits and of weights) are kept in float32; ``half`` are those of the predictor as it is.
"""

from __future__ import annotations

import inspect
import os
import tarfile
import tempfile
import textwrap
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SCRATCH = Path(tempfile.mkdtemp())
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ[name] = str(SCRATCH)
os.environ["nnUNet_compile"] = "f"  # noqa: SIM112 - its own spelling

import nibabel as nib  # noqa: E402
import nnunetv2.inference.predict_from_raw_data as stock  # noqa: E402
import torch  # noqa: E402

# model, folds, size (x, y, z), spacing, oblique, channels
CASES = {
    "anisotropic": ("Dataset801_Plain", None, (70, 66, 20), (0.8, 0.8, 5.0), False, 1),
    "oblique-regions": ("Dataset802_Residual", None, (50, 44, 40), (1.3, 1.1, 1.2), True, 2),
    "slices": ("Dataset803_Flat", ("all",), (64, 60, 7), (0.7, 0.7, 4.0), False, 1),
}


def image(seed: int, size: tuple[int, ...]) -> np.ndarray:
    """Smooth noise in whole numbers, empty at some sides, so that cropping has something to do."""
    noise = np.random.default_rng(seed).normal(size=size)
    grid = np.meshgrid(*(np.fft.fftfreq(n) ** 2 for n in size), indexing="ij")
    smooth = np.fft.ifftn(np.fft.fftn(noise) * np.exp(-144 * sum(grid))).real
    whole = np.rint(smooth / smooth.std() * 80 + 60).astype(np.int16)
    whole[:3] = whole[:, :2] = whole[:, :, -4:] = 0
    return whole


def affine(spacing: tuple[float, ...], oblique: bool) -> np.ndarray:
    made = np.diag([*spacing, 1.0])
    if oblique:
        a, b = 0.2, -0.15
        turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        turn = turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        made[:3, :3] = turn @ np.diag([-1.0, 1.0, 1.0]) @ made[:3, :3]
        made[:3, 3] = 10, -20, 5
    return made


def predictor(wide: bool) -> type:
    """nnU-Net's predictor, or the same with its two accumulators in float32."""
    if not wide:
        return stock.nnUNetPredictor
    name = "_internal_predict_sliding_window_return_logits"
    source = textwrap.dedent(inspect.getsource(getattr(stock.nnUNetPredictor, name)))
    changed = source.replace("torch.half", "torch.float32")
    assert changed.count("torch.float32") == 2 + source.count("torch.float32")
    scope = dict(vars(stock))
    exec(changed, scope)
    return type("Wide", (stock.nnUNetPredictor,), {name: scope[name]})


def main() -> None:
    with tarfile.open(HERE.parent / "models" / "data" / "nnunet_folders.tar.xz") as archive:
        archive.extractall(SCRATCH / "models", filter="data")
    kept = {}
    for seed, (case, (model, folds, size, spacing, oblique, channels)) in enumerate(CASES.items()):
        grid, files = affine(spacing, oblique), []
        kept[f"{case}.affine"] = grid
        for channel in range(channels):
            array = image(10 * seed + channel, size)
            files.append(str(SCRATCH / f"{case}_{channel:04d}.nii.gz"))
            nib.save(nib.Nifti1Image(array, grid), files[-1])
            kept[f"{case}.image{channel}"] = array
        for name, wide in (("float32", True), ("half", False)):
            made = predictor(wide)(use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False)
            folder = next((SCRATCH / "models" / model).iterdir())
            made.initialize_from_trained_model_folder(str(folder), folds, "checkpoint_final.pth")
            made.predict_from_files_sequential([files], [str(SCRATCH / f"{case}_{name}")], overwrite=True)
            labels = np.asarray(nib.load(SCRATCH / f"{case}_{name}.nii.gz").dataobj).astype(np.uint8)
            kept[f"{case}.{name}"] = labels
    (HERE / "data").mkdir(exist_ok=True)
    np.savez_compressed(HERE / "data" / "nnunet_cases.npz", **kept)
    print(f"wrote nnunet_cases.npz, {(HERE / 'data' / 'nnunet_cases.npz').stat().st_size} bytes")


if __name__ == "__main__":
    main()
