"""A plan run step by step: what it gives as its state is what it takes in the next step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxelrt.errors import ShapeError, UsageError
from voxelrt.kernels.common import capi
from voxelrt.plan.schedule import Io

if TYPE_CHECKING:
    from voxelrt.plan.plan import Plan

Array = NDArray[Any]


class Stream:
    """One stream through a plan with states; make it with ``Plan.stream``. Several streams may share a plan.

    A call takes the inputs that are no states and gives the outputs that are none. The states go from one call to the
    next without a copy. A call that fails leaves them as they were.
    """

    def __init__(self, plan: Plan, state: Mapping[str, str], *, first: Mapping[str, Any] | None = None) -> None:
        self._plan = plan
        self._names = dict(state)
        inputs, outputs = ({io.name: io for io in ios} for ios in (plan.inputs, plan.outputs))
        if not state:
            raise UsageError("a stream needs states: a dictionary from the plan's outputs to its inputs")
        for output, name in state.items():
            _check(output, plan.output_names, "output")
            _check(name, inputs, "input")
            made, taken = outputs.get(output), inputs[name]
            if made is not None and (made.dims, made.dtype) != (taken.dims, taken.dtype):
                raise ShapeError(
                    f"the output {output} {made.dims} cannot be the input {name} {taken.dims}: shapes or dtypes differ"
                )
        if len(set(state.values())) != len(state):
            raise UsageError(f"two outputs are the state of one input: {dict(state)}")
        self._ios = {name: inputs[name] for name in state.values()}
        self._first = {name: _first(io, (first or {}).get(name)) for name, io in self._ios.items()}
        unknown = sorted(set(first or {}) - set(self._ios))
        if unknown:
            raise UsageError(f"first has arrays for {', '.join(unknown)}; the states are {', '.join(self._ios)}")
        self.steps = 0
        self._state: dict[str, Array] = {}
        self.reset()

    def reset(self) -> None:
        """Begin again: the states are the first ones."""
        self._state = dict(self._first)
        self.steps = 0

    @property
    def state(self) -> dict[str, Array]:
        """Copies of the states, by the names of the inputs; ``restore`` takes them back."""
        return {name: array.copy() for name, array in self._state.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from states that were read before. Raises UsageError or ShapeError where they are not the stream's."""
        if set(state) != set(self._ios):
            raise UsageError(f"the states are {', '.join(self._ios)}, not {', '.join(state) or 'nothing'}")
        self._state = {name: _first(io, state[name]) for name, io in self._ios.items()}

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One step.

        Parameters
        ----------
        inputs : name -> array, without the states.

        Returns
        -------
        name -> array: the outputs that are no states.

        Raises
        ------
        UsageError, ShapeError : as ``Plan.run``; also where a state is given.
        """
        given = sorted(set(inputs) & set(self._ios))
        if given:
            raise UsageError(f"{', '.join(given)} is a state of the stream: it is not given, see Stream.restore")
        made = self._plan.run({**inputs, **self._state})
        self._state = {name: np.asarray(made.pop(output)) for output, name in self._names.items()}
        self.steps += 1
        return made


def _check(name: str, ios: Collection[str], kind: str) -> None:
    if name not in ios:
        raise UsageError(f"the plan has no {kind} {name!r} that could be a state; it has {', '.join(ios)}")


def _first(io: Io, given: Any) -> Array:
    """A state of its own memory: zeros, or a copy of what is given."""
    dtype = capi.numpy_dtype(io.dtype)
    if given is None:
        return np.zeros(io.dims, dtype)
    array = np.array(given)
    if array.shape != io.dims or array.dtype != dtype:
        raise ShapeError(f"the state {io.name} is {array.dtype} {array.shape}; the plan takes {dtype} {io.dims}")
    return array
