"""A profile as a picture (SVG): each step under the machine's roofs, and where the time of a run goes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from voxelrt.errors import UsageError
from voxelrt.io.atomic import atomic_path
from voxelrt.measure.profile import Profile, StepProfile

WIDTH, HEIGHT = 1180, 560
_LEFT, _TOP, _PLOT_WIDTH, _PLOT_HEIGHT = 70, 60, 480, 430
_BARS_LEFT, _BARS_WIDTH, _MOST_BARS = 800, 300, 24
_COLOURS = ("#3366aa", "#cc6633", "#338855", "#884499", "#aa3344", "#777722", "#228899", "#555555")


def draw_profile(profile: Profile, path: str | Path) -> Path:
    """Write the picture.

    Raises
    ------
    UsageError : the name does not end in .svg. OutputError : the file cannot be written.
    """
    if Path(path).suffix.lower() != ".svg":
        raise UsageError(f"the picture {Path(path).name!r} is an SVG: give a name that ends in .svg")
    with atomic_path(path) as partial:
        partial.write_text("\n".join(_picture(profile)) + "\n", "utf-8")
    return Path(path)


def _picture(profile: Profile) -> Iterator[str]:
    kinds = [row["kind"] for row in profile.kinds()]
    colours = {kind: _COLOURS[i % len(_COLOURS)] for i, kind in enumerate(dict.fromkeys(k.split()[0] for k in kinds))}
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="11">'
    )
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    yield _text(_LEFT, 22, f"{profile.name}: {profile.total_ms:.1f} ms a run, median of {profile.runs}", size=15)
    yield _text(_LEFT, 40, f"ceilings measured here: {profile.ceilings}", colour="#555")
    yield from _roofline(profile, colours)
    yield from _bars(profile, colours)
    yield "</svg>"


def _roofline(profile: Profile, colours: dict[str, str]) -> Iterator[str]:
    """GFLOP/s over FLOP a byte, both logarithmic; the roofs are the ceilings."""
    steps = [step for step in profile.steps if step.flops and step.bytes and step.ms > 0]
    intensities = [step.flops / step.bytes for step in steps] or [1.0]
    peak, bandwidth = profile.ceilings.gflops, profile.ceilings.gbps
    ridge = peak / bandwidth
    low_x, high_x = _decade(min(intensities), -1), _decade(max([*intensities, ridge]), 1)
    rates = [peak, *(step.gflops for step in steps)]
    low_y, high_y = _decade(min(rates), -1), _decade(max(rates), 1)

    def at(intensity: float, rate: float) -> tuple[float, float]:
        x = (math.log10(intensity) - low_x) / (high_x - low_x)
        y = (math.log10(rate) - low_y) / (high_y - low_y)
        return _LEFT + x * _PLOT_WIDTH, _TOP + (1 - y) * _PLOT_HEIGHT

    for decade in range(low_x, high_x + 1):
        x, _ = at(10.0**decade, 10.0**low_y)
        yield _line(x, _TOP, x, _TOP + _PLOT_HEIGHT, "#ddd")
        yield _text(x, _TOP + _PLOT_HEIGHT + 15, f"{10.0**decade:g}", anchor="middle")
    for decade in range(low_y, high_y + 1):
        _, y = at(10.0**low_x, 10.0**decade)
        yield _line(_LEFT, y, _LEFT + _PLOT_WIDTH, y, "#ddd")
        yield _text(_LEFT - 6, y + 4, f"{10.0**decade:g}", anchor="end")
    start = max(10.0**low_x, 10.0**low_y / bandwidth)
    if start < ridge:
        yield _line(*at(start, start * bandwidth), *at(ridge, peak), "#222", 2)
    yield _line(*at(max(ridge, 10.0**low_x), peak), *at(10.0**high_x, peak), "#222", 2)
    for step in steps:
        x, y = at(step.flops / step.bytes, step.gflops)
        radius = 3 + 22 * math.sqrt(step.share)
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colours[step.kernel]}" fill-opacity="0.5" '
            f'stroke="{colours[step.kernel]}"><title>{escape(_label(step))}: {escape(step.text())}</title></circle>'
        )
    yield _text(_LEFT + _PLOT_WIDTH / 2, _TOP + _PLOT_HEIGHT + 34, "FLOP a byte (direct form)", anchor="middle")
    yield _text(_LEFT, _TOP - 6, "GFLOP/s (direct form); area: share of the time", colour="#555")
    for number, (kernel, colour) in enumerate(colours.items()):
        x, y = _LEFT + 8 + number % 3 * 165, _TOP + _PLOT_HEIGHT + 52 + number // 3 * 14
        yield f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>'
        yield _text(x + 14, y, kernel)


def _bars(profile: Profile, colours: dict[str, str]) -> Iterator[str]:
    """The longest steps, with the least time that a direct algorithm could take marked."""
    steps = sorted(profile.steps, key=lambda step: -step.ms)[:_MOST_BARS]
    longest = max((step.ms for step in steps), default=1.0) or 1.0
    pitch = min(20.0, _PLOT_HEIGHT / max(1, len(steps)))
    yield _text(_BARS_LEFT, _TOP - 6, "where the time goes; line: a direct algorithm at the roof", colour="#555")
    for number, step in enumerate(steps):
        y = _TOP + number * pitch
        width = _BARS_WIDTH * step.ms / longest
        roof = _BARS_WIDTH * step.ms * step.of_roof / longest
        yield _text(_BARS_LEFT - 6, y + pitch * 0.7, _label(step)[:36], anchor="end")
        yield (
            f'<rect x="{_BARS_LEFT}" y="{y + 1:.1f}" width="{width:.1f}" height="{pitch - 3:.1f}" '
            f'fill="{colours[step.kernel]}" fill-opacity="0.6"/>'
        )
        if roof <= _BARS_WIDTH + 40:
            yield _line(_BARS_LEFT + roof, y, _BARS_LEFT + roof, y + pitch - 1, "#222", 1.5)
        yield _text(_BARS_LEFT + width + 4, y + pitch * 0.7, f"{step.ms:.2f} ms")


def _label(step: StepProfile) -> str:
    return step.nodes[0] if step.nodes else step.kernel


def _decade(value: float, towards: int) -> int:
    exponent = math.log10(max(value, 1e-6))
    return math.floor(exponent) if towards < 0 else math.ceil(exponent + 1e-9)


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = "#222", size: int = 11) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:g}"/>'
