"""A seeded nnU-Net folder and a case for the end-to-end rows; weights are drawn, not trained.

Needs torch and nnunetv2: the checkpoint is written by nnU-Net's own trainer.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

PATCH = (128, 128, 128)
FEATURES = (16, 32, 64, 128, 160, 160)
MODEL = "Dataset900_Bench"
SPACING_MM = 1.0
CASE_SPACING_MM = 0.9


def quiet_nnunet() -> None:
    """nnU-Net wants three folders named in the environment, and compiles where it is not told otherwise."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, tempfile.mkdtemp())
    os.environ["nnUNet_compile"] = "f"  # noqa: SIM112 - its own spelling


def make_folder(root: Path, classes: int, seed: int, patch: tuple[int, ...] = PATCH) -> Path:
    """Write the result folder of a half-width nnU-Net with so many classes, the background among them."""
    quiet_nnunet()
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    dataset: dict[str, Any] = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0} | {f"structure {k}": k for k in range(1, classes)},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    plans = _plans(patch)
    folder = root / MODEL / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    kind = Path(os.environ["nnUNet_preprocessed"], MODEL, "nnUNetPlans")  # noqa: SIM112
    kind.mkdir(parents=True, exist_ok=True)
    (kind / "case_0.b2nd").touch()  # the trainer looks for the kind of its data, though none is used
    torch.manual_seed(seed)
    trainer = nnUNetTrainer({**plans, "continue_training": True}, "3d_fullres", 0, dataset, device=torch.device("cpu"))
    trainer.initialize()
    trainer.inference_allowed_mirroring_axes = (0, 1, 2)
    trainer.logger.log("mean_fg_dice", 0.5, 0)
    trainer.save_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
    return root / MODEL


def make_case(path: Path, size_zyx: tuple[int, int, int], seed: int) -> Path:
    """Write a body of smooth tissue in noisy air, in Hounsfield units."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in size_zyx), indexing="ij")
    radius = np.sqrt((axes[1] / 0.8) ** 2 + (axes[2] / 0.9) ** 2)
    tissue = 60 * np.sin(9 * axes[0]) * np.cos(7 * axes[1]) + 80 * np.sin(11 * axes[2] + 2 * axes[0])
    image = np.where(radius < 1, 40 + tissue, -1000) + rng.normal(0, 15, size_zyx).astype(np.float32)
    affine = np.diag([*(CASE_SPACING_MM,) * 3, 1.0])
    nib.save(nib.Nifti1Image(np.rint(image).astype(np.int16).T, affine), path)
    return path


def _plans(patch: tuple[int, ...]) -> dict[str, Any]:
    stages = min(len(FEATURES), min(patch).bit_length() - 2)  # halved to no less than 4 voxels
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": list(patch),
        "spacing": [SPACING_MM] * 3,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "batch_dice": True,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": list(FEATURES[:stages]),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * stages,
                "strides": [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)],
                "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    statistics = {"mean": 60.0, "std": 80.0, "percentile_00_5": -160.0, "percentile_99_5": 300.0}
    return {
        "dataset_name": MODEL,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [SPACING_MM] * 3,
        "original_median_shape_after_transp": list(patch),
        "image_reader_writer": "NibabelIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {**statistics, "median": 55.0, "min": -1000.0, "max": 3000.0}
        },
    }
