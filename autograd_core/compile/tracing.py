"""A program planned once more on the tier `array`, with a note of the step that each of its calls belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ...backends.numpy_backend import NumpyBackend
from ..recorder import Step
from ..tensor import Tensor
from .places import Builder
from .program import Program

WRITES = {np.copyto: 0, np.dot: 2, np.concatenate: 2}
"""Functions with a place to write to that are no ufuncs → its position."""


class Traced(NamedTuple):
    """The plan, the array of every value, and each call with its arguments and its step, before neighbours are cut into
    blocks."""

    program: Program
    places: dict[int, Any]
    calls: list[tuple[Any, Sequence[Any], Step]]


def traced(program: Program) -> Traced:
    """Plan a program's recording for NumPy without generated kernels."""
    places = [Tensor(place) for place in program.input_places]
    plan = Program(program.tape, places, _ArrayTier(), builder=_Tracer)
    tracer: _Tracer = plan.tracer  # type: ignore[attr-defined]
    return Traced(plan, tracer.places, tracer.calls)


class _ArrayTier(NumpyBackend):
    highest_tier = "array"
    bound: Sequence[Any] = ()  # the calls of each fused group, as they were bound last

    def bind(self, groups: Any, scratch: Any) -> Any:
        self.bound = super().bind(groups, scratch)
        return self.bound


class _Tracer(Builder):
    def build(self) -> set[tuple[int, ...]]:
        self.program.tracer = self  # type: ignore[attr-defined]
        self.steps: list[Step] = []  # of each call, a fused group counting as one
        self.calls: list[tuple[Any, Sequence[Any], Step]] = []
        return super().build()

    def _release(self, i: int, step: Step) -> None:
        super()._release(i, step)
        self.steps += [step] * (len(self.program.instructions) - len(self.steps))

    def _kernels(self) -> bool:
        complete = super()._kernels()
        if complete:
            bound: Any = self.backend.bound  # type: ignore[attr-defined]  that of _ArrayTier
            many = {at: len(calls) for (at, _, _), calls in zip(self.groups, bound, strict=True)}
            steps = [step for i, step in enumerate(self.steps) for _ in range(many.get(i, 1))]
            self.calls = [(*call, step) for call, step in zip(self.program.instructions, steps, strict=True)]
        return complete


def unfolded(call: Any, places: Sequence[Any]) -> tuple[Any, Sequence[Any], dict[str, Any]]:
    """A call without partial applications: the function, its arguments, those by name."""
    words: dict[str, Any] = {}
    while isinstance(call, partial):
        places, words, call = (*call.args, *places), {**call.keywords, **words}, call.func
    return call, places, words


def written_arrays(call: Any, places: Sequence[Any]) -> list[np.ndarray]:
    """The arrays that a call of NumPy writes into."""
    call, places, words = unfolded(call, places)
    ufunc = isinstance(call, np.ufunc)
    reduction = isinstance(getattr(call, "__self__", None), np.ufunc)
    first = call.nin if ufunc else 3 if reduction else WRITES.get(call, len(places))
    found = [*places[first : None if ufunc else first + 1], words.get("out")]
    return [array for array in found if isinstance(array, np.ndarray)]


def arrays_in(value: Any) -> Iterator[np.ndarray]:
    """The arrays in a nest."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from arrays_in(inner)
