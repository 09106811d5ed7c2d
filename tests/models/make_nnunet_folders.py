"""Write tests/models/data/nnunet_folders.tar.xz: result folders as nnU-Net's own trainer writes them, untrained.

Run in an environment with torch==2.13.0 and nnunetv2==2.8.1:

    python tests/models/make_nnunet_folders.py [nnunet_trainers]

With the name, those of trainers other than nnUNetTrainer are written, to nnunet_trainers.tar.xz.

Each folder holds plans.json, dataset.json, checkpoints written by the trainer's ``save_checkpoint`` (optimiser state
and logger included), and answer.npz: a seeded input and what the network answers (the mean over the folds).
"""

from __future__ import annotations

import copy
import io
import json
import os
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent / "data"
SCRATCH = tempfile.mkdtemp()
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ[name] = SCRATCH
os.environ["nnUNet_compile"] = "f"  # noqa: SIM112 - its own spelling

import torch  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (  # noqa: E402
    nnUNetTrainerNoMirroring,
)
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import (  # noqa: E402
    nnUNetTrainerBN,
)

CT = {"mean": 60.0, "std": 45.0, "percentile_00_5": -120.0, "percentile_99_5": 280.0, "median": 55.0, "min": -1000.0}


def configuration(patch: list[int], spacing: list[float], schemes: list[str], **more: Any) -> dict[str, Any]:
    return {
        "data_identifier": "nnUNetPlans",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch,
        "median_image_size_in_voxels": patch,
        "spacing": spacing,
        "normalization_schemes": schemes,
        "use_mask_for_norm": [scheme == "ZScoreNormalization" for scheme in schemes],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "batch_dice": True,
        **more,
    }


def architecture(kind: str, dimensions: int, **sizes: Any) -> dict[str, Any]:
    residual = kind == "ResidualEncoderUNet"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": {
            "n_stages": len(sizes["features"]),
            "features_per_stage": sizes["features"],
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": sizes["kernels"],
            "strides": sizes["strides"],
            "n_blocks_per_stage" if residual else "n_conv_per_stage": sizes["encoder"],
            "n_conv_per_stage_decoder": sizes["decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans(name: str, config: dict[str, Any], which: str, forward: list[int], reader: str) -> dict[str, Any]:
    return {
        "dataset_name": name,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.0, 1.0, 1.0],
        "original_median_shape_after_transp": [40, 60, 60],
        "image_reader_writer": reader,
        "transpose_forward": forward,
        "transpose_backward": [forward.index(i) for i in range(3)],
        "configurations": {which: config},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {**CT, "max": 3000.0}, "1": {**CT, "max": 3000.0}},
    }


FOLDERS: list[dict[str, Any]] = [
    {
        "name": "Dataset801_Plain",
        "which": "3d_fullres",
        "config": configuration(
            [16, 32, 32],
            [3.0, 1.2, 1.2],
            ["CTNormalization"],
            architecture=architecture(
                "PlainConvUNet",
                3,
                features=[6, 8, 12],
                kernels=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
                strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]],
                encoder=[2, 2, 2],
                decoder=[2, 1],
            ),
        ),
        "dataset": {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "liver": 1, "tumour": 2},
            "numTraining": 2,
            "file_ending": ".nii.gz",
        },
        "folds": [0, 1],
        "forward": [0, 1, 2],
        "reader": "SimpleITKIO",
    },
    {
        "name": "Dataset802_Residual",
        "which": "3d_fullres",
        "config": configuration(
            [24, 16, 32],
            [1.0, 1.0, 1.0],
            ["ZScoreNormalization", "ZScoreNormalization"],
            architecture=architecture(
                "ResidualEncoderUNet",
                3,
                features=[4, 8, 10],
                kernels=[[3, 3, 3]] * 3,
                strides=[[1, 1, 1], [2, 2, 2], [2, 1, 2]],
                encoder=[1, 2, 1],
                decoder=[1, 1],
            ),
        ),
        "dataset": {
            "channel_names": {"0": "T1", "1": "FLAIR"},
            "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
            "regions_class_order": [1, 2, 3],
            "numTraining": 2,
            "file_ending": ".nii.gz",
        },
        "folds": [0],
        "forward": [2, 0, 1],
        "reader": "NibabelIOWithReorient",
    },
    {
        "name": "Dataset803_Flat",
        "which": "2d",
        "config": configuration(
            [32, 48],
            [0.9, 0.9],
            ["ZScoreNormalization"],
            UNet_class_name="PlainConvUNet",
            UNet_base_num_features=6,
            unet_max_num_features=16,
            n_conv_per_stage_encoder=[2, 2, 2],
            n_conv_per_stage_decoder=[2, 2],
            num_pool_per_axis=[2, 2],
            pool_op_kernel_sizes=[[1, 1], [2, 2], [2, 2]],
            conv_kernel_sizes=[[3, 3]] * 3,
        ),
        "dataset": {
            "channel_names": {"0": "MRI"},
            "labels": {"background": 0, "prostate": 1, "ignore": 2},
            "numTraining": 2,
            "file_ending": ".nii.gz",
        },
        "folds": ["all"],
        "forward": [0, 1, 2],
        "reader": "SimpleITKIO",
    },
]

SMALL = {
    "which": "3d_fullres",
    "config": configuration(
        [8, 16, 16],
        [1.0, 1.0, 1.0],
        ["ZScoreNormalization"],
        architecture=architecture(
            "PlainConvUNet",
            3,
            features=[4, 6],
            kernels=[[3, 3, 3]] * 2,
            strides=[[1, 1, 1], [2, 2, 2]],
            encoder=[1, 1],
            decoder=[1],
        ),
    ),
    "dataset": {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    },
    "folds": [0],
    "forward": [0, 1, 2],
    "reader": "SimpleITKIO",
}
TRAINERS = [
    {**SMALL, "name": "Dataset804_Batch", "trainer": nnUNetTrainerBN},
    {**SMALL, "name": "Dataset805_NoMirroring", "trainer": nnUNetTrainerNoMirroring},
]


def make(entry: dict[str, Any], root: Path) -> None:
    kind = entry.get("trainer", nnUNetTrainer)
    training = root / entry["name"] / f"{kind.__name__}__nnUNetPlans__{entry['which']}"
    training.mkdir(parents=True)
    made = plans(entry["name"], entry["config"], entry["which"], entry["forward"], entry["reader"])
    (training / "plans.json").write_text(json.dumps(made, indent=1))
    (training / "dataset.json").write_text(json.dumps(entry["dataset"], indent=1))
    channels = len(entry["dataset"]["channel_names"])
    image = np.random.default_rng(5).normal(size=(1, channels, *entry["config"]["patch_size"])).astype(np.float32)
    # The trainer looks for the kind of its training data, though none is used here.
    preprocessed = Path(SCRATCH, entry["name"], "nnUNetPlans")
    preprocessed.mkdir(parents=True)
    (preprocessed / "case_0.b2nd").touch()
    answers = []
    for fold in entry["folds"]:
        torch.manual_seed(int.from_bytes(str(fold).encode(), "big"))
        arguments = {**copy.deepcopy(made), "continue_training": True}
        trainer = kind(arguments, entry["which"], fold, entry["dataset"], device=torch.device("cpu"))
        trainer.initialize()
        with torch.no_grad():
            for key, value in trainer.network.named_parameters():
                if key.endswith(("bias", "norm.weight")):
                    value.add_(0.2 * torch.randn_like(value))
            for key, value in trainer.network.named_buffers():
                if key.endswith(("running_mean", "running_var")):
                    value.add_(0.2 * torch.rand_like(value))
        trainer.set_deep_supervision_enabled(False)
        trainer.network.eval()
        with torch.no_grad():
            answers.append(trainer.network(torch.from_numpy(image)).double().numpy())
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()  # sets what mirroring is allowed
        trainer.logger.log("mean_fg_dice", 0.5, 0)
        folder = training / f"fold_{fold}"
        folder.mkdir()
        trainer.save_checkpoint(str(folder / "checkpoint_final.pth"))
    np.savez_compressed(training / "answer.npz", image=image, logits=np.mean(answers, axis=0).astype(np.float32))


def main() -> None:
    root = Path(tempfile.mkdtemp())
    name = sys.argv[1] if len(sys.argv) > 1 else "nnunet_folders"
    for entry in {"nnunet_folders": FOLDERS, "nnunet_trainers": TRAINERS}[name]:
        make(entry, root)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.add(path, str(path.relative_to(root)))
    target = DATA / f"{name}.tar.xz"
    target.write_bytes(buffer.getvalue())
    print(f"wrote {target.name}, {len(buffer.getvalue())} bytes")


if __name__ == "__main__":
    main()
