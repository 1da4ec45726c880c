"""Python's own random numbers and iterators: what moves on where a call uses it, and would stand still in a replay."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from types import GeneratorType, ModuleType
from typing import Any

import numpy as np

_GENERATORS = {
    np.random.Generator: lambda g: repr(g.bit_generator.state),
    np.random.RandomState: lambda g: str(hash(str(g.get_state(legacy=False)))),
    random.Random: lambda g: str(hash(g.getstate())),
}
_ITERATORS = (GeneratorType, itertools.count, itertools.cycle, enumerate, zip, map, filter, type(iter([])))


class Position(str):
    """Where a generator of random numbers or an iterator stands, as a text that differs when it has moved on."""


def moving(value: Any) -> Iterator[Any]:
    """What moves on when `value` is used: itself, that whose method it is, or the one that all of a module share."""
    if isinstance(value, ModuleType):
        shared = {random: random.random, np.random: np.random.rand}.get(value)
        yield from moving(shared)
    elif isinstance(value, (*_GENERATORS, *_ITERATORS)):
        yield value
    elif isinstance(getattr(value, "__self__", None), tuple(_GENERATORS)):
        yield value.__self__


def position(value: Any) -> Position:
    """An iterator has always moved on: it is there for nothing else."""
    state = next((state for kind, state in _GENERATORS.items() if isinstance(value, kind)), None)
    return Position(next(_ticks) if state is None else state(value))


_ticks = itertools.count()
