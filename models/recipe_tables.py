"""The tables of a recipe that only some tasks have: sliding windows, boxes of a detector, heat maps of a classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


class Invalid(ValueError):  # noqa: N818 - never leaves the reader
    """A value that has the right type but cannot be; the reader adds where it stands."""


def require(condition: bool, text: str) -> None:
    """Raise Invalid unless the condition holds."""
    if not condition:
        raise Invalid(text)


@dataclass(frozen=True)
class Sliding:
    """Sliding windows, in MONAI's words and with its meaning (``monai.inferers.SlidingWindowInferer``).

    ``roi_zyx`` is the window in voxels, by default the network's own input; ``overlap`` the share of it that
    neighbours have in common, one for all axes or one each. ``mode`` "gaussian" weighs voxels by a Gaussian whose
    deviation is ``sigma_scale`` of the window (one, or one each). A volume smaller than the window is padded on both
    sides by ``padding_mode``, with ``cval`` where that is "constant".
    """

    roi_zyx: tuple[int, ...] = ()
    overlap: tuple[float, ...] = (0.25,)
    mode: Literal["constant", "gaussian"] = "constant"
    sigma_scale: tuple[float, ...] = (0.125,)
    padding_mode: Literal["constant", "reflect", "replicate", "circular"] = "constant"
    cval: float = 0.0

    def __post_init__(self) -> None:
        require(len(self.roi_zyx) in (0, 2, 3) and all(1 <= n <= 4096 for n in self.roi_zyx), "roi_zyx")
        require(
            len(self.overlap) in (1, 2, 3) and all(0 <= v < 1 for v in self.overlap),
            f"overlap {list(self.overlap)}: one for all axes or one each, at least 0 and below 1",
        )
        good = len(self.sigma_scale) in (1, 2, 3) and all(0 < v <= 10 for v in self.sigma_scale)
        require(good, f"sigma_scale {list(self.sigma_scale)}: one for all axes or one each, above 0")


@dataclass(frozen=True)
class Boxes:
    """How a detector's outputs are read. All lengths are in voxels of the network's grid, axes z, y, x.

    ``form``: "corners" are (K, 6) z0 y0 x0 z1 y1 x1 and "centre-size" (K, 6) z y x depth height width, with scores (K,)
    or (K, classes); "distances" is (N, 6, Z, Y, X), from each point of a grid of ``stride`` voxels to the six faces
    (down z, y, x, then up), with scores (N, classes, Z, Y, X); "points" has scores alone, whose local maxima are found.
    ``scores`` and ``classes`` name further outputs; ``classes`` holds class numbers (K,) where scores are (K,).
    ``activation`` makes scores of logits. Of boxes of one class whose intersection over union exceeds ``overlap`` the
    best stays; at most ``most`` in all.
    """

    form: Literal["corners", "centre-size", "distances", "points"]
    scores: str = ""
    classes: str = ""
    activation: Literal["none", "sigmoid", "softmax"] = "sigmoid"
    stride: tuple[int, ...] = (1,)
    overlap: float = 0.25
    most: int = 100

    def __post_init__(self) -> None:
        require(self.scores != "" or self.form == "points", f"form {self.form} needs the output of the scores")
        require(len(self.stride) in (1, 3) and all(1 <= s <= 1024 for s in self.stride), "stride: one number or three")
        require(0 <= self.overlap <= 1 and 1 <= self.most <= 10000, "overlap is 0 to 1, most 1 to 10000")


@dataclass(frozen=True)
class Heat:
    """Where a classifier looked, without gradients.

    ``method`` "class-activation" (Zhou et al., CVPR 2016) needs a network that ends in global pooling and a linear
    layer, "occlusion" (Zeiler and Fergus, ECCV 2014) does not; "auto" takes the first where it can. Of occlusion:
    ``size_zyx`` of the part that is hidden and ``step_zyx`` between them in voxels of the network's grid, by default an
    eighth of the grid and half of that; it is filled with the image's ``fill``.
    """

    method: Literal["auto", "class-activation", "occlusion"] = "auto"
    size_zyx: tuple[int, ...] = ()
    step_zyx: tuple[int, ...] = ()
    fill: Literal["mean", "minimum", "zero"] = "mean"

    def __post_init__(self) -> None:
        for name, sizes in (("size_zyx", self.size_zyx), ("step_zyx", self.step_zyx)):
            require(len(sizes) in (0, 3) and all(1 <= n <= 4096 for n in sizes), f"{name}: three numbers of voxels")
