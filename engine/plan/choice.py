"""Which algorithm each convolution gets: the cheapest by model or by the clock, within a limit of packed weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from voxelrt.errors import UsageError
from voxelrt.kernels.conv3d.algorithm import Algorithm, Problem

Timer = Callable[[Problem, Sequence[Algorithm]], list[Algorithm]]  # the same, measured, the cheapest first

PRICE = 0.75  # cycles of a core that a byte of packed weights is worth: 100 MB for 12 ms on two cores
FREE = 96 << 20  # packed weights up to here have no price: a small network is to be fast
SHARING = 1.5  # how much slower a step may be for weights that another variant has packed already


@dataclass
class _Layer:
    """The convolutions of one weight, and what is possible for all of them."""

    chosen: dict[Problem, Algorithm] = field(default_factory=dict)
    possible: dict[Problem, list[Algorithm]] = field(default_factory=dict)

    @property
    def weight_bytes(self) -> int:
        return sum({_form(a): a.weight_bytes for a in self.chosen.values()}.values())

    @property
    def cycles(self) -> float:
        return sum(a.cycles for a in self.chosen.values())


def _form(algorithm: Algorithm) -> tuple[str, tuple[int, ...]]:
    """What packed weights depend on."""
    return algorithm.kernel, tuple(algorithm.params.get("tile", ()))


class Choice:
    """Picks algorithms while graphs are lowered; ``shrink`` then says whether lowering must be done again.

    Parameters
    ----------
    timer : measures the first of the algorithms; None trusts the model.
    weights_memory : bytes that packed convolution weights may take; None means no limit.
    """

    def __init__(self, timer: Timer | None = None, weights_memory: int | None = None) -> None:
        self._timer = timer
        self._limit = weights_memory
        self._layers: dict[Any, _Layer] = {}

    def pick(self, weight: Any, problem: Problem, found: Sequence[Algorithm]) -> Algorithm:
        """The algorithm of a convolution with the weight of this key. ``found``: the possible ones, the best first.

        The batch does not matter: a plan's steps are the same for any.
        """
        problem = replace(problem, batch=1)
        layer = self._layers.setdefault(weight, _Layer())
        if problem not in layer.possible:
            layer.possible[problem] = list(found) if self._timer is None else self._timer(problem, found)
            best = layer.possible[problem][0]
            forms = {_form(a) for a in layer.chosen.values()}
            shared = [a for a in layer.possible[problem] if _form(a) in forms and a.cycles < SHARING * best.cycles]
            layer.chosen[problem] = shared[0] if shared else best
        return layer.chosen[problem]

    @property
    def weight_bytes(self) -> int:
        """Of all packed convolution weights."""
        return sum(layer.weight_bytes for layer in self._layers.values())

    def shrink(self) -> bool:
        """Exchange algorithms while that saves memory at a low price, and until the weights fit the limit.

        Up to ``FREE`` bytes only what costs no time is exchanged.

        The exchange that loses the least time for what it saves comes first. True if any was made.

        Raises
        ------
        UsageError : they do not fit even in their smallest form.
        """
        changed = False
        while True:
            best: tuple[float, _Layer, dict[Problem, Algorithm]] | None = None
            for layer in self._layers.values():
                for form in {_form(a) for choices in layer.possible.values() for a in choices}:
                    rate, chosen = _exchange(layer, form)
                    if chosen and (best is None or rate < best[0]):
                        best = (rate, layer, chosen)
            fits = self._limit is None or self.weight_bytes <= self._limit
            price = PRICE if self.weight_bytes > FREE else 0.0
            if fits and (best is None or best[0] > price):
                return changed
            if best is None:
                raise UsageError(
                    f"weights_memory is {self._limit} bytes, but the convolution weights take {self.weight_bytes} "
                    "at least"
                )
            best[1].chosen = best[2]
            changed = True


def _exchange(layer: _Layer, form: tuple[str, tuple[int, ...]]) -> tuple[float, dict[Problem, Algorithm]]:
    """Cycles lost for each byte saved with all of a layer's convolutions in one form; nothing where none is saved."""
    chosen: dict[Problem, Algorithm] = {}
    for problem, choices in layer.possible.items():
        fitting = [a for a in choices if _form(a) == form]
        if not fitting:
            return 0.0, {}
        chosen[problem] = fitting[0]
    other = _Layer(chosen, layer.possible)
    saved = layer.weight_bytes - other.weight_bytes
    return ((other.cycles - layer.cycles) / saved, chosen) if saved > 0 else (0.0, {})
