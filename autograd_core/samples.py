"""Inputs that a record's tests run on: seeded generators of `Sample`s, one or two lines in a record.

Samples hold float64 NumPy arrays (integers and booleans where an input is an index or a mask). Kinks are avoided: the
checks compare with finite differences. What happens *at* kinks, ties and infinities stands in a record's `special`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np


class Sample(NamedTuple):
    """One call: array inputs, attributes, and whether the result is smooth enough for a second-order check."""

    inputs: tuple[Any, ...]
    attributes: Mapping[str, Any] = MappingProxyType({})
    second_order: bool = True


class Special(NamedTuple):
    """What must come out at special values: inputs, the result, and the gradients of its sum (None: not asked)."""

    inputs: tuple[Any, ...]
    out: Any
    gradients: tuple[Any, ...] = ()


Samples = Callable[[], Iterator[Sample]]
UNARY_SHAPES: tuple[tuple[int, ...], ...] = ((3, 4), (), (0, 3), (2, 1, 3))
BINARY_SHAPES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((3, 4), (3, 4)),
    ((3, 4), (4,)),
    ((2, 1, 3), (4, 1)),
    ((), (3,)),
    ((), ()),
    ((0, 3), (1, 3)),
)


def draw(
    rng: np.random.Generator,
    shape: Sequence[int],
    low: float = -2.0,
    high: float = 2.0,
    avoid: Sequence[float] = (),
    margin: float = 0.1,
) -> np.ndarray:
    """Uniform float64 numbers in [low, high), none nearer than `margin` to a point of `avoid`."""
    x = rng.uniform(low, high, tuple(shape))
    for point in avoid:
        near = np.abs(x - point) < margin
        x = np.where(near, x + np.where(x < point, -2 * margin, 2 * margin), x)
    return np.asarray(x)


def reals(low: float = -2.0, high: float = 2.0, avoid: Sequence[float] = (), shapes: Any = UNARY_SHAPES) -> Samples:
    """Samples of one real input: plain, 0-d, empty, with an axis of length 1."""

    def generate() -> Iterator[Sample]:
        rng = np.random.default_rng(7)
        for shape in shapes:
            yield Sample((draw(rng, shape, low, high, avoid),))

    return generate


def pairs(
    low: float = -2.0,
    high: float = 2.0,
    avoid: Sequence[float] = (),
    second: tuple[float, float] | None = None,
    apart: float = 0.0,
) -> Samples:
    """Samples of two real inputs with every kind of broadcasting; `second` is the second's range, `apart` keeps them
    from being equal."""

    def generate() -> Iterator[Sample]:
        rng = np.random.default_rng(11)
        for first_shape, second_shape in BINARY_SHAPES:
            x = draw(rng, first_shape, low, high, avoid)
            y = draw(rng, second_shape, *(second or (low, high)), avoid=avoid)
            if apart:
                # values on two interleaved grids can be neither equal nor nearly so
                x, y = np.round(x / apart) * apart, (np.floor(y / apart) + 0.5) * apart
            yield Sample((x, y))

    return generate


def calls(*made: Callable[[np.random.Generator], Sample]) -> Samples:
    """Samples written out one by one: each a function of a random generator."""

    def generate() -> Iterator[Sample]:
        for number, make in enumerate(made):
            yield make(np.random.default_rng(number))

    return generate


def over(shape: Sequence[int], *attributes: dict[str, Any], low: float = -2.0, high: float = 2.0) -> Samples:
    """One real input of `shape`, called with each set of attributes."""

    def generate() -> Iterator[Sample]:
        rng = np.random.default_rng(13)
        for given in attributes:
            yield Sample((draw(rng, shape, low, high),), given)

    return generate
