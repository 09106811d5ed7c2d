"""Write tests/pipeline/data/nnunet_meaning.tar.xz: small models, cases, and what nnU-Net's own predictor answers.

Run in an environment with torch==2.13.0 and nnunetv2==2.8.1:

    python tests/pipeline/make_nnunet_meaning.py

Each entry of ENTRIES becomes a folder: the result folders of one dataset (one training a stage), its images
``case_000N.nii.gz``, and ``labels.npz`` with ``float32``, the labels of a predictor whose two sums are kept in float32,
and ``half``, those of the predictor as it is. A cascade's later stages are given what its earlier ones answered. The
networks are nnU-Net's own, seeded and untrained, in checkpoints with the fields that its predictor reads.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "models")]

import make_nnunet_cases as cases  # noqa: E402
import make_nnunet_folders as folders  # noqa: E402
import skimage.io  # noqa: E402
import tifffile  # noqa: E402
import torch  # noqa: E402
from nnunetv2.postprocessing.remove_connected_components import (  # noqa: E402
    apply_postprocessing,
)
from nnunetv2.postprocessing.remove_connected_components import (  # noqa: E402
    remove_all_but_largest_component_from_segmentation as keep_largest,
)
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans  # noqa: E402
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels  # noqa: E402
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: E402


def small(kind: str, dimensions: int, features: list[int], **sizes: Any) -> dict[str, Any]:
    """An architecture of as many stages as there are features, strided by 2 unless it is said otherwise."""
    stages = len(features)
    strides = [[1] * dimensions] + [[2] * dimensions] * (stages - 1)
    given: dict[str, Any] = {
        "features": features,
        "kernels": [[3] * dimensions] * stages,
        "strides": strides,
        "encoder": [1] * stages,
        "decoder": [1] * (stages - 1),
        **sizes,
    }
    return folders.architecture(kind, dimensions, **given)


def resampled(**orders: dict[str, Any]) -> dict[str, Any]:
    """Fields of a configuration with other orders of resampling: data=..., probabilities=..., seg=..."""
    made = {}
    for what, given in orders.items():
        plain = {"is_seg": what == "seg", "order": 3 if what == "data" else 1, "order_z": 0, "force_separate_z": None}
        made[f"resampling_fn_{what}_kwargs"] = {**plain, **given}
    return made


def labelled(count: int) -> dict[str, Any]:
    return {"background": 0, **{f"organ {value}": value for value in range(1, count)}}


PLAIN = small("PlainConvUNet", 3, [4, 6])
ISOTROPIC = ([16, 16, 16], [1.6, 1.6, 1.6])
SMALL = (28, 30, 22)


def with_orders(order: int, order_z: int) -> dict[str, Any]:
    """Data by splines of an order, slices far apart, each on its own and then along the coarse axis by another."""
    resampling = resampled(data={"order": order, "order_z": order_z}, probabilities={"order_z": min(order_z, 1)})
    base = folders.configuration(
        [8, 16, 16], [3.9, 1.1, 1.1], ["ZScoreNormalization"], architecture=PLAIN, **resampling
    )
    return {"base": base, "labels": labelled(3), "case": ((30, 28, 9), (0.9, 1.0, 5.2), False)}


ENTRIES: dict[str, dict[str, Any]] = {
    "cascade": {
        "stages": {
            "3d_lowres": {"inherits_from": "3d_fullres", "spacing": [3.1, 2.6, 2.6], "patch_size": [8, 16, 16]},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
        "base": folders.configuration([16, 16, 16], [1.9, 1.4, 1.4], ["ZScoreNormalization"], architecture=PLAIN),
        "labels": labelled(4),
        "case": ((40, 44, 30), (1.3, 1.5, 1.8), True),
    },
    "cascade-apart": {
        "stages": {
            "3d_lowres": {"inherits_from": "3d_fullres", "spacing": [5.0, 2.4, 2.4], "patch_size": [8, 16, 16]},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
        "base": folders.configuration([8, 24, 16], [4.0, 1.1, 1.1], ["CTNormalization"], architecture=PLAIN),
        "labels": {"background": 0, "whole": [1, 2], "core": [2]},
        "order": [1, 2],
        "case": ((44, 40, 13), (1.2, 1.0, 5.0), False),
    },
    "two-classes-oblique": {
        "base": folders.configuration(*ISOTROPIC, ["ZScoreNormalization"], architecture=PLAIN),
        "labels": labelled(2),
        "reader": "NibabelIO",
        "case": (SMALL, (1.3, 1.1, 1.4), True),
    },
    "120-classes": {
        "base": folders.configuration(*ISOTROPIC, ["CTNormalization"], architecture=PLAIN),
        "labels": labelled(120),
        "reader": "NibabelIOWithReorient",
        "forward": [1, 2, 0],
        "case": (SMALL, (1.2, 1.2, 1.9), True),
    },
    "order-2": with_orders(2, 1),
    "order-4": {**with_orders(4, 3), "seed": 20},
    "order-5": with_orders(5, 0),
    "scaled": {
        "base": folders.configuration(
            *ISOTROPIC, ["NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"], architecture=PLAIN
        ),
        "labels": labelled(3),
        "clip": (0, 255),
        "case": ((24, 22, 20), (1.6, 1.6, 1.6), False),
    },
    "postprocessed": {
        "base": folders.configuration(*ISOTROPIC, ["ZScoreNormalization"], architecture=PLAIN),
        "labels": labelled(4),
        "fixes": [{"labels_or_regions": [1, 2, 3]}, {"labels_or_regions": 2, "background_label": 3}],
        "case": (SMALL, (1.6, 1.5, 1.7), False),
    },
    "picture": {
        "stages": {"2d": None},
        "base": folders.configuration(
            [32, 32], [1, 1], ["RGBTo01Normalization"] * 3, architecture=small("ResidualEncoderUNet", 2, [4, 6, 8])
        ),
        "labels": labelled(3),
        "reader": "NaturalImage2DIO",
        "ending": ".png",
        "clip": (0, 255),
        "case": ((47, 58, 1), (1, 1, 1), False),
    },
    "tiff": {
        "base": folders.configuration(*ISOTROPIC, ["ZScoreNormalization"], architecture=PLAIN),
        "labels": labelled(3),
        "reader": "Tiff3DIO",
        "ending": ".tif",
        "case": (SMALL, (1.2, 1.4, 1.7), False),
    },
}


def main() -> None:
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for seed, (name, entry) in enumerate(ENTRIES.items()):
            make(root / name, name, entry, entry.get("seed", seed))
        with tarfile.open(fileobj=buffer, mode="w:xz", preset=9) as archive:
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    archive.add(path, str(path.relative_to(root)))
    target = HERE / "data" / "nnunet_meaning.tar.xz"
    target.write_bytes(buffer.getvalue())
    print(f"wrote {target.name}, {len(buffer.getvalue())} bytes")


def make(root: Path, name: str, entry: dict[str, Any], seed: int) -> None:
    root.mkdir(parents=True)
    stages: dict[str, Any] = entry.get("stages", {"3d_fullres": None})
    first = "2d" if "2d" in stages else "3d_fullres"
    plans = folders.plans(
        name, entry["base"], first, entry.get("forward", [0, 1, 2]), entry.get("reader", "SimpleITKIO")
    )
    for index in range(3):
        plans["foreground_intensity_properties_per_channel"][str(index)] = {**folders.CT, "max": 3000.0}
    plans["configurations"] |= {stage: config for stage, config in stages.items() if config is not None}
    channels = len(entry["base"]["normalization_schemes"])
    dataset = {
        "channel_names": {str(index): f"image {index}" for index in range(channels)},
        "labels": entry["labels"],
        "numTraining": 2,
        "file_ending": entry.get("ending", ".nii.gz"),
    }
    if "order" in entry:
        dataset["regions_class_order"] = entry["order"]
    files = images(root, entry, channels, seed)
    for stage in stages:
        train(root / f"nnUNetTrainer__nnUNetPlans__{stage}", plans, dataset, stage, seed, entry.get("fixes"))
    answers = {kind: predict(root, list(stages), files, kind == "float32", entry) for kind in ("float32", "half")}
    np.savez_compressed(root / "labels.npz", **answers)
    print(name, {kind: np.bincount(array.ravel())[:6].tolist() for kind, array in answers.items()})
    print("  differ:", int((answers["float32"] != answers["half"]).sum()))


def images(root: Path, entry: dict[str, Any], channels: int, seed: int) -> list[str]:
    """The case's files, as the model's reader takes them; what is no NIfTI file is in images.npy (C, z, y, x) too."""
    size, spacing, oblique = entry["case"]
    arrays = [cases.image(100 * seed + channel, (*size[:2], max(size[2], 9))) for channel in range(channels)]
    if "clip" in entry:
        arrays = [np.clip(array, *entry["clip"]).astype(np.uint8) for array in arrays]
    ending = entry.get("ending", ".nii.gz")
    if ending == ".nii.gz":
        files = [str(root / f"case_{index:04d}.nii.gz") for index in range(channels)]
        for file, array in zip(files, arrays, strict=True):
            nib.save(nib.Nifti1Image(array, cases.affine(spacing, oblique)), file)
        return files
    kept = np.stack([array.T[4 : 4 + size[2]] if size[2] == 1 else array.T for array in arrays])
    np.save(root / "images.npy", kept)
    file = str(root / f"case_0000{ending}")
    if ending == ".png":
        skimage.io.imsave(file, kept[:, 0].transpose(1, 2, 0), check_contrast=False)
    else:
        tifffile.imwrite(file, kept[0])
        (root / "case.json").write_text(json.dumps({"spacing": spacing[::-1]}))
    return [file]


def train(folder: Path, plans: dict[str, Any], dataset: dict[str, Any], stage: str, seed: int, fixes: Any) -> None:
    """The files that a training of nnU-Net leaves; its weights are drawn, not learnt."""
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    if fixes is not None:
        (folder / "postprocessing.pkl").write_bytes(pickle.dumps(([keep_largest] * len(fixes), fixes)))
        # What nnU-Net writes beside it for people.
        said = {"postprocessing_fns": [keep_largest.__name__] * len(fixes), "postprocessing_kwargs": fixes}
        (folder / "postprocessing.json").write_text(json.dumps(said))
    manager = PlansManager(plans)
    config = manager.get_configuration(stage)
    torch.manual_seed(seed)
    network = get_network_from_plans(
        config.network_arch_class_name,
        config.network_arch_init_kwargs,
        config.network_arch_init_kwargs_req_import,
        determine_num_input_channels(manager, config, dataset),
        manager.get_label_manager(dataset).num_segmentation_heads,
        allow_init=True,
        deep_supervision=False,
    )
    with torch.no_grad():
        for parameter in network.parameters():
            # Rounded to few bits: what is stored of them is small.
            parameter.copy_(((parameter + 0.1 * torch.randn_like(parameter)) * 64).round() / 64)
    dimensions = len(config.patch_size)
    content = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": stage, "fold": 0},
        "inference_allowed_mirroring_axes": tuple(range(dimensions)),
    }
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")


def predict(root: Path, stages: list[str], files: list[str], wide: bool, entry: dict[str, Any]) -> np.ndarray:
    before: list[str] | None = None
    for stage in stages:
        with tempfile.TemporaryDirectory() as out:
            made = cases.predictor(wide)(use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False)
            folder = root / f"nnUNetTrainer__nnUNetPlans__{stage}"
            made.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
            target = Path(out) / "case"
            made.predict_from_files_sequential(
                [files], [str(target)], overwrite=True, folder_with_segs_from_prev_stage=before and before[0]
            )
            ending = entry.get("ending", ".nii.gz")
            array = read(f"{target}{ending}")
            kept = Path(tempfile.mkdtemp())
            # nnU-Net looks for the case's own name in the folder of the stage before.
            shutil.copy(f"{target}{ending}", kept / f"case{ending}")
            before = [str(kept)]
    fixes = entry.get("fixes", [])
    return apply_postprocessing(array, [keep_largest] * len(fixes), fixes)


def read(path: str) -> np.ndarray:
    """Labels (x, y, z)."""
    if path.endswith(".png"):
        return skimage.io.imread(path).T[:, :, None]
    if path.endswith(".tif"):
        return tifffile.imread(path).T
    return np.asarray(nib.load(path).dataobj).astype(np.uint8)


if __name__ == "__main__":
    main()
