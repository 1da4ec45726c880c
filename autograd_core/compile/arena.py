"""Memory of the programs of one function: they run one at a time, so all lay their values into the same bytes.

    Needs    a program is gone through once, to see which pieces of memory it needs, and from when to when
    packed   where each of them lies: the largest first, each at the lowest place that is free all that time
    Pieces   it is gone through again, and given those places in the same order
    Arena    the bytes, in chunks; a function has one

The first program of a function gets one chunk of just its size; a larger one adds what it needs beyond.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...backends import Backend
from ...backends.kernels.scratch import LINE  # pieces begin on cache lines


class Span(NamedTuple):
    """So many bytes, needed from one moment until before another."""

    nbytes: int
    start: int
    end: float


class Needs:
    """Stands for the arena where it is not known yet what is needed of it; `spans` is that then, in order."""

    def __init__(self, backend: Backend):
        self.backend = backend
        self.spans: list[Span] = []
        self._now = 0
        self._taken: dict[int, int] = {}  # id of a piece → place among the spans
        self._free: dict[int, list[Any]] = {}  # size → pieces; on a device they are there, where a CPU only promises

    def take(self, nbytes: int) -> Any:
        """A piece of at least so many bytes."""
        self._now += 1
        size = max(-(-nbytes // LINE) * LINE, LINE)
        free = self._free.get(size)
        piece = free.pop() if free else self.backend.empty((size,), np.uint8)
        self._taken[id(piece)] = len(self.spans)
        self.spans.append(Span(size, self._now, math.inf))
        return piece

    def give(self, piece: Any) -> None:
        """Take a piece back: what lay in it is not needed any more."""
        self._now += 1
        place = self._taken.pop(id(piece))
        self.spans[place] = self.spans[place]._replace(end=self._now)
        self._free.setdefault(piece.size, []).append(piece)


class Pieces:
    """The pieces of an arena for one program, in the order in which it asks for them; they lie in `nbytes` bytes."""

    def __init__(self, pieces: Sequence[Any], nbytes: int):
        self._left = iter(pieces)
        self.nbytes = nbytes

    def take(self, nbytes: int) -> Any:
        """The next piece."""
        return next(self._left)

    def give(self, piece: Any) -> None:
        """Nothing to do: whoever gets the same bytes afterwards knows them already."""


class Arena:
    """Chunks of bytes. It grows where a program needs more than those before."""

    def __init__(self, backend: Backend):
        self.backend = backend
        self.chunks: list[Any] = []

    @property
    def nbytes(self) -> int:
        """What all programs together take."""
        return sum(chunk.size for chunk in self.chunks)

    def pieces(self, spans: Sequence[Span]) -> Pieces:
        """A piece of the bytes for each of the spans."""
        places = packed(spans, [chunk.size for chunk in self.chunks])
        end = max((at + span.nbytes for at, span in zip(places, spans, strict=True)), default=0)
        if end > self.nbytes:
            self.chunks.append(self.backend.empty((end - self.nbytes,), np.uint8))
        starts = [sum(chunk.size for chunk in self.chunks[:i]) for i in range(len(self.chunks))]
        found = []
        for at, span in zip(places, spans, strict=True):
            i = max(i for i, start in enumerate(starts) if start <= at)
            found.append(self.chunks[i][at - starts[i] : at - starts[i] + span.nbytes])
        return Pieces(found, end)


def packed(spans: Sequence[Span], chunks: Sequence[int] = ()) -> list[int]:
    """Where each span begins, so that no two that are needed at once overlap, and none lies across the end of a chunk.

    The largest come first, each at the lowest place that is free all the time it is needed (Pisarchyk and Lee 2020).

    >>> packed([Span(10, 0, 2), Span(20, 1, 3), Span(10, 3, 4)])
    [20, 0, 0]
    """
    ends = [sum(chunks[: i + 1]) for i in range(len(chunks))]
    places = [0] * len(spans)
    placed: list[tuple[int, Span]] = []  # in the order of their places
    for i in sorted(range(len(spans)), key=lambda i: -spans[i].nbytes):
        span, at = spans[i], 0
        for start, other in placed:
            if other.start < span.end and span.start < other.end:
                at = _within(at, span.nbytes, ends)
                if at + span.nbytes <= start:
                    break
                at = max(at, start + other.nbytes)
        places[i] = at = _within(at, span.nbytes, ends)
        insort(placed, (at, span), key=lambda pair: pair[0])
    return places


def _within(at: int, nbytes: int, ends: Sequence[int]) -> int:
    """The first place from `at` on where so many bytes lie in one chunk."""
    for end in ends:
        if at < end < at + nbytes:
            at = end
    return at


def laid(piece: Any, shape: Sequence[int], dtype: Any) -> Any:
    """The beginning of a piece as an array."""
    n = math.prod(shape) * np.dtype(dtype).itemsize
    return piece[:n].view(dtype).reshape(tuple(shape))
