"""Random numbers as operations: each draw is a function of a key and a range of a counter (`backends/random.py`).

A `Generator` hands out the ranges. The draw itself is a record whose attributes are (key, counter), so a recomputation
makes the same numbers, and the same seed gives the same numbers on every backend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...backends.random import Stream, blocks, integers, permutation, seed_to_key
from ..context import current, use_backend
from ..define import public, record
from ..dispatch import FUNCTIONS
from ..errors import user_line
from ..promotion import DEFAULT_FLOAT
from ..recorder import RecordingError
from ..samples import Sample, calls, draw
from ..tensor import Tensor, TensorLike, asarray
from .creation import _shape

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


class Generator:
    """A source of random numbers with its own seed and place.

    >>> import retrograd as rg
    >>> g = rg.Generator(0)
    >>> state = g.state()
    >>> a = rg.rand(3, generator=g)
    >>> g.set_state(state)
    >>> bool((rg.rand(3, generator=g) == a).all())
    True
    """

    __slots__ = ("stream",)

    def __init__(self, seed: int | None = None):
        self.stream = Stream.from_seed(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start again from `seed`; returns the generator."""
        _refuse_in_recording()
        self.stream.set_state({"key": seed_to_key(seed), "counter": 0})
        return self

    def state(self) -> dict[str, int]:
        """Where the stream stands: {"key", "counter"}, Python integers."""
        return self.stream.state()

    def set_state(self, state: dict[str, int]) -> None:
        """Go back (or forth) to a state that `state()` gave."""
        _refuse_in_recording()
        self.stream.set_state(state)

    def reserve(self, n: int) -> dict[str, int]:
        """The attributes of a draw of n numbers: the key, and the counter at which its own range begins."""
        counter = self.stream.reserve(blocks(n))
        recorder = current().recorder
        if recorder is not None:
            recorder.reserve(self, self.stream.key, counter, blocks(n))
        return {"key": self.stream.key, "counter": counter}


def _refuse_in_recording() -> None:
    if current().recorder is not None:
        raise RecordingError(
            f"a random stream is set inside a recorded function, at {user_line()}: a replay would not set it again. "
            "Set it outside, before the call."
        )


_default: list[Generator] = []  # made at the first draw, so that importing draws no entropy


def default_generator() -> Generator:
    """The generator of every draw that names no other one.

    >>> import retrograd as rg
    >>> place = rg.default_generator().state()
    >>> a = rg.rand(3)
    >>> rg.default_generator().set_state(place)
    >>> bool((rg.rand(3) == a).all())
    True
    """
    if not _default:
        _default.append(Generator())
    return _default[0]


def manual_seed(seed: int) -> Generator:
    """Start the default generator again from `seed`; the same seed gives the same numbers on every backend.

    >>> import retrograd as rg
    >>> _ = rg.manual_seed(0)
    >>> a = rg.randn(2)
    >>> _ = rg.manual_seed(0)
    >>> bool((rg.randn(2) == a).all())
    True
    """
    return default_generator().manual_seed(seed)


_PLACE = {"key": 5, "counter": 7}
_draws = calls(
    lambda rng: Sample((), {"shape": (3, 4), "dtype": np.float64} | _PLACE),
    lambda rng: Sample((), {"shape": (), "dtype": np.float64} | _PLACE),
    lambda rng: Sample((), {"shape": (0, 2), "dtype": np.float64} | _PLACE),
)
_whole = calls(
    lambda rng: Sample((), {"low": -2, "high": 9, "shape": (3, 4)} | _PLACE),
    lambda rng: Sample((), {"low": 0, "high": 1, "shape": ()} | _PLACE),
)
_orders = calls(
    lambda rng: Sample((), {"shape": (7,)} | _PLACE),
    lambda rng: Sample((), {"shape": (0,)} | _PLACE),
)
_drawn = partial(record, "random", method=False, public="ops", numpy=())  # a record that draws and reads nothing


@_drawn(samples=_draws)
def random_uniform(ops, /, shape, dtype, key, counter):
    """Numbers in [0, 1): see `uniform`."""
    return ops.backend.uniform(key, counter, shape, dtype)


@_drawn(samples=_draws)
def random_normal(ops, /, shape, dtype, key, counter):
    """Numbers of the standard normal distribution: see `normal`."""
    return ops.backend.normal(key, counter, shape, dtype)


@_drawn(samples=_whole)
def random_integers(ops, /, low, high, shape, key, counter):
    """Integers in [low, high): see `randint`."""
    return ops.backend.asarray(integers(key, counter, low, high, shape))


@_drawn(samples=_orders)
def random_permutation(ops, /, shape, key, counter):
    """The integers 0…n-1 in random order, for a shape of (n,): see `randperm`."""
    return ops.backend.asarray(permutation(key, counter, *shape))


def _draw(name: str, shape: tuple[int, ...], dtype: DTypeLike, generator: Generator | None) -> Tensor:
    reserved = (generator or default_generator()).reserve(math.prod(shape))
    return FUNCTIONS[name](shape=shape, dtype=np.dtype(dtype), **reserved)


@public
def uniform(
    shape: int | Sequence[int],
    low: float = 0.0,
    high: float = 1.0,
    dtype: DTypeLike = DEFAULT_FLOAT,
    generator: Generator | None = None,
) -> Tensor:
    """Numbers evenly distributed in [low, high).

    >>> import retrograd as rg
    >>> rg.uniform((2, 3), -1, 1).shape
    (2, 3)
    """
    drawn = _draw("random_uniform", _shape((shape,)), dtype, generator)
    return drawn if (low, high) == (0.0, 1.0) else drawn * (high - low) + low


@public
def normal(
    shape: int | Sequence[int],
    mean: float = 0.0,
    std: float = 1.0,
    dtype: DTypeLike = DEFAULT_FLOAT,
    generator: Generator | None = None,
) -> Tensor:
    """Numbers of the normal distribution with this mean and standard deviation.

    >>> import retrograd as rg
    >>> rg.normal((2, 3), std=0.02).shape
    (2, 3)
    """
    drawn = _draw("random_normal", _shape((shape,)), dtype, generator)
    return drawn if (mean, std) == (0.0, 1.0) else drawn * std + mean


@public
def rand(
    *shape: int | Sequence[int],
    dtype: DTypeLike = DEFAULT_FLOAT,
    generator: Generator | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers evenly distributed in [0, 1): `rg.rand(2, 3)`.

    >>> import retrograd as rg
    >>> rg.rand(2, 3).shape
    (2, 3)
    """
    drawn = _draw("random_uniform", _shape(shape), dtype, generator)
    return drawn.requires_grad_() if requires_grad else drawn


@public
def randn(
    *shape: int | Sequence[int],
    dtype: DTypeLike = DEFAULT_FLOAT,
    generator: Generator | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers of the standard normal distribution: `rg.randn(2, 3)`.

    >>> import retrograd as rg
    >>> rg.randn(2, 3).shape
    (2, 3)
    """
    drawn = _draw("random_normal", _shape(shape), dtype, generator)
    return drawn.requires_grad_() if requires_grad else drawn


@public
def rand_like(x: Tensor, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Numbers evenly distributed in [0, 1), in the shape and (unless given) dtype of `x`.

    >>> import retrograd as rg
    >>> rg.rand_like(rg.zeros(2, 3)).shape
    (2, 3)
    """
    with use_backend(x.backend):
        return rand(x.shape, dtype=dtype or x.dtype, requires_grad=requires_grad)


@public
def randn_like(x: Tensor, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Numbers of the standard normal distribution, in the shape and (unless given) dtype of `x`.

    >>> import retrograd as rg
    >>> rg.randn_like(rg.zeros(2, 3)).shape
    (2, 3)
    """
    with use_backend(x.backend):
        return randn(x.shape, dtype=dtype or x.dtype, requires_grad=requires_grad)


@public
def randint(
    low: int,
    high: int | Sequence[int] | None = None,
    shape: int | Sequence[int] = (),
    generator: Generator | None = None,
) -> Tensor:
    """Integers in [low, high), or in [0, low) where only one is given, as in `rg.randint(10, (2, 3))` too; int64.

    >>> import retrograd as rg
    >>> bool((rg.randint(2, 5, (4,)) < 5).all())
    True
    """
    if isinstance(high, Sequence):
        high, shape = None, high
    low, high = (0, low) if high is None else (low, high)
    if not low < high:
        raise ValueError(f"randint draws from [low, high), got low={low} and high={high}")
    wanted = _shape((shape,))
    reserved = (generator or default_generator()).reserve(math.prod(wanted))
    return FUNCTIONS["random_integers"](low=int(low), high=int(high), shape=wanted, **reserved)


@public
def randperm(n: int, generator: Generator | None = None) -> Tensor:
    """The integers 0…n-1 in random order.

    >>> import retrograd as rg
    >>> sorted(rg.randperm(3).tolist())
    [0, 1, 2]
    """
    reserved = (generator or default_generator()).reserve(n)
    return FUNCTIONS["random_permutation"](shape=(n,), **reserved)


@record(
    "random",
    derivatives=dict(x=lambda ops, g, mask, p: ops.multiply(ops.multiply(g, mask), 1 / (1 - p))),
    residuals=("mask",),
    floating=True,
    method=False,
    public="ops",
    numpy=(),
    samples=calls(
        lambda rng: Sample((draw(rng, (3, 4)),), {"p": 0.5, "key": 1, "counter": 2}),
        lambda rng: Sample((draw(rng, (0, 3)),), {"p": 0.1, "key": 1, "counter": 2}),
    ),
)
def dropout_mask(ops, x, /, p: float, key, counter):
    """Elements kept with probability 1 - p, divided by it; the mask of the kept ones is the residual."""
    mask = ops.backend.uniform(key, counter, x.shape, np.float32) >= np.float32(p)
    out = x * mask
    out *= 1 / (1 - p)
    return out, mask


@public
def dropout(x: TensorLike, p: float = 0.5, training: bool = True, generator: Generator | None = None) -> Tensor:
    """Each element becomes 0 with probability p, the others are divided by 1 - p (Srivastava et al. 2014).

    Without `training`, and for p = 0, x itself.

    >>> import retrograd as rg
    >>> rg.dropout(rg.ones(3), 0.5, training=False)
    tensor([1., 1., 1.])
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is a probability, in 0…1; got {p}")
    if not training or p == 0:
        return asarray(x)
    if p == 1:
        return FUNCTIONS["multiply"](x, 0.0)
    size = x.size if isinstance(x, Tensor) else np.size(x)
    return FUNCTIONS["dropout_mask"](x, p=p, **(generator or default_generator()).reserve(size))
