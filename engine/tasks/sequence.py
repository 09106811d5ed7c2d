"""Sequence models over frames (cine, multi-frame, dynamic studies): one frame a step through a network with states."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from voxelrt.backends.native import CancelFlag
from voxelrt.errors import CancelledError, InputError, ModelError
from voxelrt.plan.plan import Plan
from voxelrt.postprocess.filmstrip import draw_filmstrip
from voxelrt.preprocess.layout import from_layout, to_layout
from voxelrt.tasks.answered import Answered, Array, activated, class_names

if TYPE_CHECKING:
    from voxelrt.request import Ready

Tell = Callable[[str, int, int], None]


def frames_of(volume: Array, layout: str, channels: int) -> list[Array]:
    """The frames (C, Z, Y, X) of a study (C, Z, Y, X), in order.

    Of a network of volumes the study's channels are frames of `channels` each. Of a network of planes the planes are
    frames; where there is only one plane, the channels.

    Raises
    ------
    InputError : the channels are no whole number of frames.
    """
    if "Z" not in layout and volume.shape[1] > 1:
        return [volume[:, z : z + 1] for z in range(volume.shape[1])]
    if volume.shape[0] % channels:
        raise InputError(f"the study has {volume.shape[0]} channels, no whole number of frames of {channels}")
    return [volume[at : at + channels] for at in range(0, volume.shape[0], channels)]


def follow(plan: Plan, ready: Ready, tell: Tell, cancel: CancelFlag | None) -> Answered:
    """The answer to each frame, and to the sequence: that of the last frame, or the mean, as the recipe says.

    Raises
    ------
    ModelError : the answer is not (1, classes). InputError : the study has no whole number of frames.
    """
    recipe = ready.recipe
    output, layout = recipe.output, recipe.input.layout
    volume = from_layout(ready.tensor, layout)
    frames = frames_of(volume, layout, len(recipe.input.channels))
    rows = []
    stream = plan.stream(recipe.input.states) if recipe.input.states else None
    for number, frame in enumerate(frames):
        if cancel is not None and cancel.is_set:
            raise CancelledError("the run was stopped")
        inputs = {recipe.input.name: to_layout(frame, layout)}
        answers = stream(inputs) if stream is not None else plan.run(inputs, cancel=cancel)
        answer = np.asarray(answers[output.name])
        if answer.size != answer.shape[-1]:
            raise ModelError(f"{recipe.name}: a step answers (1, classes), not {answer.shape}")
        rows.append(answer.reshape(-1))
        tell("run", number + 1, len(frames))
    each = activated(np.stack(rows) / output.temperature, output.activation, 1)
    whole = each[-1] if output.over_frames == "last" else each.mean(axis=0)
    names = class_names(recipe, each.shape[1])
    scores = {name: float(value) for name, value in zip(names, whole, strict=True)}
    best = int(np.argmax(whole))
    peak = int(np.argmax(each[:, best]))
    curves = {name: [float(v) for v in each[:, k]] for k, name in enumerate(names)}
    details: dict[str, Any] = {
        "probabilities": scores,
        "over_frames": output.over_frames,
        "temperature": output.temperature,
        "frames": len(frames),
        "peak": {"class": names[best], "frame": peak + 1, "probability": float(each[peak, best])},
        "each_frame": curves,
    }

    def draw(title: str, caption: str) -> Any:
        return draw_filmstrip([frame[0, frame.shape[1] // 2] for frame in frames], curves, title=title, caption=caption)

    line = f"{len(frames)} frames; {names[best]} peaks at frame {peak + 1} with {each[peak, best]:.4f}"
    return Answered(details, scores, [line], draw=draw)
