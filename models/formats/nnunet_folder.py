"""What lies where in a result folder of nnU-Net v2, told by names alone: nothing is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from voxelrt.errors import UnsupportedError, UsageError

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
MAX_FOLDS = 32
PREFERRED = ("3d_fullres", "3d_cascade_fullres", "3d_lowres", "2d")


def is_nnunet_folder(folder: Path) -> bool:
    """Whether a path is a folder of nnU-Net's results: one training's, those of a dataset, or one of nnU-Net v1."""
    if not folder.is_dir():
        return False
    return (folder / "plans.json").is_file() or bool(_trainings(folder)) or (folder / "plans.pkl").is_file()


def training_folder(folder: Path, configuration: str | None) -> Path:
    """The folder of one training: this one, or a configuration's below it. Raises UsageError, UnsupportedError."""
    if (folder / "plans.json").is_file():
        if configuration is not None and folder.name.count("__") == 2 and folder.name.split("__")[2] != configuration:
            raise UsageError(f"{folder.name} is of the configuration {folder.name.split('__')[2]}")
        return folder
    if (folder / "plans.pkl").is_file():
        raise UnsupportedError(f"{folder.name} is of nnU-Net v1 (plans.pkl): train or convert it with nnU-Net v2")
    found = _trainings(folder)
    if configuration is None:
        configuration = next((name for name in (*PREFERRED, *found) if name in found), "")
    if configuration not in found:
        raise UsageError(f"{folder.name} has no configuration {configuration!r}; it has {', '.join(found) or 'none'}")
    return found[configuration]


def previous_training(folder: Path, configuration: str | None, previous: str) -> Path:
    """The folder of a cascade's previous stage, which lies beside that of the stage after it.

    Raises
    ------
    UsageError : it is not there.
    """
    training = training_folder(folder, configuration).resolve()
    parts = training.name.split("__")
    beside = training.with_name("__".join((*parts[:2], previous)))
    if len(parts) != 3 or not (beside / "plans.json").is_file() or Path(previous).name != previous:
        raise UsageError(
            f"{training.name} is the second stage of a cascade: the folder of its first, {beside.name}, must lie "
            "beside it"
        )
    return beside


def fold_checkpoints(training: Path, asked: Sequence[str] | None) -> dict[str, Path]:
    """Fold -> checkpoint."""
    there = {
        path.name.removeprefix("fold_"): next((path / c for c in CHECKPOINTS if (path / c).is_file()), None)
        for path in sorted(training.glob("fold_*"))[:MAX_FOLDS]
    }
    found = {fold: path for fold, path in there.items() if path is not None}
    # Like nnU-Net: the training on all data is used only where it is asked for or alone.
    names = list(asked) if asked is not None else [f for f in found if f != "all"] or list(found)
    missing = [name for name in names if name not in found]
    if missing or not names:
        what = f"fold {', '.join(missing)}" if missing else "a fold"
        raise UsageError(f"{training.name} has no checkpoint of {what}; there are {', '.join(found) or 'none'}")
    return {name: found[name] for name in names}


def _trainings(folder: Path) -> dict[str, Path]:
    """Configuration -> folder of a training below a dataset's folder."""
    if not folder.is_dir():
        return {}
    found = sorted(p for p in folder.iterdir() if p.name.count("__") == 2 and (p / "plans.json").is_file())
    return {path.name.split("__")[2]: path for path in reversed(found)}
