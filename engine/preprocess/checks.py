"""Is this study what the model was made for? DICOM says what it is; of a NIfTI file only the values can tell.

Nothing of a study's free text is ever repeated: a series description may name the patient.
"""

from __future__ import annotations

import re

import numpy as np

from voxelrt.errors import InputError
from voxelrt.io.image import DicomSource, Source
from voxelrt.models.recipe_schema import Channel, Recipe
from voxelrt.volume import Volume

# Air is -1000 Hounsfield units and surrounds every patient; no other modality stores many values so low.
CT_AIR_BELOW = -200
CT_AIR_FRACTION = 0.05

# Terms of DICOM (PS3.16 annex L) that may be repeated; whatever else stands there is somebody's free text.
BODY_PARTS = frozenset({
    "ABDOMEN", "ABDOMENPELVIS", "ANKLE", "ARM", "BRAIN", "BREAST", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS",
    "CSPINE", "ELBOW", "EXTREMITY", "FOOT", "HAND", "HEAD", "HEADNECK", "HEART", "HIP", "KIDNEY", "KNEE", "LEG",
    "LIVER", "LSPINE", "LUNG", "NECK", "PANCREAS", "PELVIS", "PROSTATE", "SHOULDER", "SKULL", "SPINE", "SSPINE",
    "THIGH", "THORAX", "TSPINE", "UTERUS", "WHOLEBODY", "WRIST",
})  # fmt: skip


def check_image(
    volume: Volume, source: Source | None, channel: Channel, recipe: Recipe, *, force: bool = False
) -> list[str]:
    """Refuse another modality or body part; warn of another contrast.

    Parameters
    ----------
    volume
        As it was read.
    source
        Where it came from, None for a volume in memory.
    channel
        Which of the recipe's channels it is.
    recipe
        Says modality, body parts and patterns of series descriptions.
    force
        Turn refusals into warnings.

    Returns
    -------
    warnings : one sentence each.

    Raises
    ------
    InputError : the image is not what the model was made for, and ``force`` is False.
    """
    refusals = [*_modality(volume, recipe), *_body_part(source, recipe)]
    if refusals and not force:
        raise InputError(
            f"{'; '.join(refusals)}. The answer would mean nothing; to run it all the same use --force (force=True)"
        )
    return refusals + _contrast(source, channel)


def _modality(volume: Volume, recipe: Recipe) -> list[str]:
    wanted, found = recipe.modality, volume.modality
    if not wanted:
        return []
    if found:
        return [f"the study is {found} and {recipe.name} is for {wanted}"] if found != wanted else []
    if volume.array.dtype.kind == "u":
        return [] if wanted != "CT" else _no_air(recipe)
    low = float(np.mean(np.less(volume.array, CT_AIR_BELOW)))
    if wanted != "CT" and low > CT_AIR_FRACTION:
        return [
            f"{low:.0%} of the voxels are below {CT_AIR_BELOW}, so this looks like CT in Hounsfield units, and "
            f"{recipe.name} is for {wanted}"
        ]
    return _no_air(recipe) if wanted == "CT" and low == 0 else []


def _no_air(recipe: Recipe) -> list[str]:
    return [f"no voxel is below {CT_AIR_BELOW}, so this is not CT in Hounsfield units, which {recipe.name} is for"]


def _body_part(source: Source | None, recipe: Recipe) -> list[str]:
    found = source.body_part.upper() if isinstance(source, DicomSource) else ""
    if not found or not recipe.body_parts or found in recipe.body_parts:
        return []
    shown = found if found in BODY_PARTS else "another body part"
    return [f"the study shows {shown} and {recipe.name} is for {', '.join(recipe.body_parts)}"]


def _contrast(source: Source | None, channel: Channel) -> list[str]:
    if not isinstance(source, DicomSource) or not channel.series:
        return []
    description = source.series_description
    if not description:
        return [f"the series has no description, so whether it is {channel.name} could not be checked"]
    if any(re.search(pattern, description) for pattern in channel.series):
        return []
    return [f"the series description does not look like {channel.name}: another contrast than the model was made for?"]
