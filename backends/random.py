"""Random numbers as a function of a key and a counter: the same numbers on every backend, at any time, in any order.

Philox4x64-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011) scrambles a 256-bit
counter under a 128-bit key into a block of four words of 64 bits. Nothing is carried from one block to the next, so
there is no state to advance: a draw reserves a range of the counter from a `Stream`, and whoever holds (key, counter)
makes the same numbers again: a recomputation, a replayed program, another device.

The words are those of `numpy.random.Philox(key=key, counter=counter)`, which adds one to the counter *before* it makes
a block: the first block of a draw that starts at c is the scramble of c + 1. From words to numbers:

    float64   the upper 53 bits of a word
    float32   the upper 24 bits of each half of a word, lower half first (NumPy's Generator does both the same way)
    float16   the upper 11 bits of each half, lower half first: all are exact in float16, so none rounds up to 1
    normal    Box-Muller in float64 on pairs of words, cast at the end
    integer   the upper 64 bits of word x (high - low)
"""

from __future__ import annotations

import math
import operator
import threading
from typing import Any

import numpy as np

WORDS_PER_BLOCK = 4
KEYS = 1 << 128
COUNTERS = 1 << 256
_WORD = (1 << 64) - 1

# Of each floating dtype: the unsigned integer that a number is made from, and how many of its upper bits are kept.
_RECIPES = {
    np.dtype("float16"): (np.dtype("uint32"), 11),
    np.dtype("float32"): (np.dtype("uint32"), 24),
    np.dtype("float64"): (np.dtype("uint64"), 53),
}

_local = threading.local()


class Stream:
    """A place in the sequence of random numbers: a key, and the counter from which nothing has been drawn yet.

    Args:
        key: which sequence, below 2**128.
        counter: the next free block, below 2**256.

    Example:
        >>> from retrograd.backends.random import Stream, blocks, uniform
        >>> stream = Stream.from_seed(0)
        >>> uniform(stream.key, stream.reserve(blocks(3)), (3,), "float64").round(3)
        array([0.014, 0.258, 0.472])
        >>> stream.counter
        1
    """

    __slots__ = ("_lock", "counter", "key")

    def __init__(self, key: int, counter: int = 0) -> None:
        self._lock = threading.Lock()
        self.key, self.counter = _checked(key, counter)

    @classmethod
    def from_seed(cls, seed: int | None = None) -> Stream:
        """The stream of a seed, at its beginning; None takes a seed from the operating system."""
        return cls(seed_to_key(seed))

    def reserve(self, n_blocks: int) -> int:
        """Take the next n blocks for one draw; gives the counter at which they start. Safe under threads."""
        if n_blocks < 0:
            raise ValueError(f"the number of blocks must not be negative, got {n_blocks}")
        with self._lock:
            start = self.counter
            self.counter = (start + n_blocks) % COUNTERS
        return start

    def state(self) -> dict[str, int]:
        """Where the stream is: {"key": ..., "counter": ...}."""
        with self._lock:
            return {"key": self.key, "counter": self.counter}

    def set_state(self, state: dict[str, int]) -> None:
        """Go to where `state()` was taken. Raises ValueError, and changes nothing, if it is no such dict."""
        if set(state) != {"key", "counter"}:
            raise ValueError(f"the state of a random stream has the entries key and counter, got {sorted(state)}")
        key, counter = _checked(state["key"], state["counter"])
        with self._lock:
            self.key, self.counter = key, counter

    def __repr__(self) -> str:
        return f"Stream(key={self.key:#x}, counter={self.counter})"

    # A lock can be neither copied nor pickled; a copy gets its own.
    def __reduce__(self) -> tuple[Any, ...]:
        return Stream, (self.key, self.counter)


def seed_to_key(seed: int | None = None) -> int:
    """The 128-bit key of a seed: `numpy.random.SeedSequence` mixes it, so that seeds 0, 1, 2 give unrelated keys.

    It is the key that `numpy.random.Philox(seed)` has. None takes a seed from the operating system.
    """
    from numpy.random import SeedSequence

    if seed is not None:
        try:
            seed = operator.index(seed)
        except TypeError:
            raise TypeError(f"a seed must be an integer, got {seed!r}") from None
        if seed < 0:
            raise ValueError(f"a seed must not be negative, got {seed}")
    low, high = SeedSequence(seed).generate_state(2, np.uint64).tolist()
    return low | high << 64


def blocks(n: int, dtype: Any = None) -> int:
    """How many blocks of the counter a draw of n numbers reserves: one word each, whatever is drawn.

    The dtype makes no difference, so a model in float64 sees the same places of the stream as one in float32.
    """
    return -(-n // WORDS_PER_BLOCK)


def bits(key: int, counter: int, n: int) -> np.ndarray:
    """n words of 64 random bits, (n,) uint64.

    Example:
        >>> import numpy as np
        >>> from retrograd.backends.random import bits
        >>> bool((bits(5, 7, 6) == np.random.Philox(key=5, counter=7).random_raw(6)).all())
        True
    """
    return _generator(key, counter).bit_generator.random_raw(n)


def uniform(key: int, counter: int, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Numbers in [0, 1), each multiple of 2**-11 (float16), 2**-24 (float32) or 2**-53 (float64) equally likely."""
    dtype = _floating(dtype)
    if dtype == np.float16:
        n = math.prod(shape)
        return words_to_uniform(np, bits(key, counter, words_for_uniform(n, dtype)), shape, dtype)
    # NumPy's own loop makes the same numbers from the same words, in less time.
    return _generator(key, counter).random(shape, dtype=dtype)


def normal(key: int, counter: int, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Standard normal numbers. The magnitude is at most 8.6; those of float32 are the ones of float64, rounded."""
    dtype = _floating(dtype)
    return words_to_normal(np, bits(key, counter, words_for_normal(math.prod(shape))), shape, dtype)


def integers(key: int, counter: int, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
    """Integers in [low, high), int64: low + the upper half of the 128-bit product of a word and (high - low).

    Two results differ in probability by less than 2**-64. Lemire, "Fast random integer generation in an interval",
    2019, without the rejection step, which would make the number of words depend on their values.

    Raises ValueError unless low < high and both fit in int64.
    """
    if not -(1 << 63) <= low < high <= 1 << 63:
        raise ValueError(f"expected low < high within int64, got low={low}, high={high}")
    words = bits(key, counter, math.prod(shape))
    drawn = _upper_product(words, high - low) if high - low <= _WORD else words
    return (drawn + np.uint64(low & _WORD)).view(np.int64).reshape(shape)


def permutation(key: int, counter: int, n: int) -> np.ndarray:
    """The numbers 0 .. n-1 in random order, (n,) int64: the order that sorts n random words."""
    return np.argsort(bits(key, counter, n), kind="stable").astype(np.int64, copy=False)


# -- from words to numbers, written for any array library --------------------------------------------------------------


def words_for_uniform(n: int, dtype: Any) -> int:
    """How many words `words_to_uniform` reads for n numbers."""
    return n if np.dtype(dtype).itemsize == 8 else -(-n // 2)


def words_to_uniform(xp: Any, words: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Words of 64 bits as numbers in [0, 1) of that shape: the table at the top of this file.

    Args:
        xp: namespace of the array library.
        words: (words_for_uniform(n, dtype),) uint64, contiguous.
    """
    dtype = _floating(dtype)
    source, kept = _RECIPES[dtype]
    wide = np.float64 if source.itemsize == 8 else np.float32
    # Viewing a little-endian word as two halves puts the lower half first.
    upper = words.view(source)[: math.prod(shape)] >> source.type(8 * source.itemsize - kept)
    return (upper.astype(wide) * wide(2.0**-kept)).astype(dtype, copy=False).reshape(shape)


def words_for_normal(n: int) -> int:
    """How many words `words_to_normal` reads for n numbers: they are made in pairs."""
    return n + n % 2


def words_to_normal(xp: Any, words: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Words of 64 bits as standard normal numbers of that shape, by Box and Muller (1958).

    A pair of uniforms (u, v) is a random point of the plane in polar coordinates: radius sqrt(-2 log(1 - u)), angle
    2 pi v. Its two coordinates are independent normals; they stand next to each other in the result.
    """
    pairs = words_to_uniform(xp, words, (len(words) // 2, 2), np.float64)
    # 1 - u is in (0, 1] and exact, where log(u) could be log(0).
    radius = xp.sqrt(-2.0 * xp.log(1.0 - pairs[:, 0]))
    angle = (2.0 * math.pi) * pairs[:, 1]
    points = xp.stack([radius * xp.cos(angle), radius * xp.sin(angle)], axis=1)
    return points.reshape(-1)[: math.prod(shape)].astype(_floating(dtype), copy=False).reshape(shape)


def _floating(dtype: Any) -> np.dtype:
    dtype = np.dtype(dtype)
    if dtype not in _RECIPES:
        raise TypeError(f"random numbers come in {', '.join(d.name for d in _RECIPES)}; got dtype {dtype.name}")
    return dtype


def _checked(key: int, counter: int) -> tuple[int, int]:
    for name, value, end in (("key", key, KEYS), ("counter", counter, COUNTERS)):
        if not isinstance(value, int) or not 0 <= value < end:
            most = end.bit_length() - 1
            raise ValueError(f"the {name} of a random stream is an int in [0, 2**{most}), got {value!r}")
    return key, counter


def _generator(key: int, counter: int) -> np.random.Generator:
    # Making a Philox takes 30 us (it mixes a seed that is then not used), moving one that is there takes 3.
    generator = getattr(_local, "generator", None)
    if generator is None:
        generator = _local.generator = np.random.Generator(np.random.Philox(key=0))
    generator.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {"counter": split_words(counter, 4), "key": split_words(key, 2)},
        "buffer": _EMPTY,
        "buffer_pos": WORDS_PER_BLOCK,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return generator


_EMPTY = np.zeros(WORDS_PER_BLOCK, np.uint64)


def split_words(value: int, n: int) -> np.ndarray:
    """An integer as n words of 64 bits, the lowest first, (n,) uint64. Raises OverflowError if it does not fit."""
    return np.frombuffer(value.to_bytes(8 * n, "little"), np.dtype("<u8"))


def _upper_product(words: np.ndarray, factor: int) -> np.ndarray:
    """Bits 64 to 127 of words x factor, by halves of 32 bits as on paper."""
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    high, low = words >> half, words & mask
    factor_high, factor_low = np.uint64(factor >> 32), np.uint64(factor & 0xFFFFFFFF)
    middle = high * factor_low + (low * factor_low >> half)
    return high * factor_high + (middle >> half) + ((low * factor_high + (middle & mask)) >> half)
