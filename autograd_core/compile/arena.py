"""Memory of the programs of one function: they run one at a time, so all lay their values into the same bytes.

    Arena   the bytes, in chunks; a function has one
    Plan    one program's way through them from the beginning: `take` cuts off the next piece, `give` takes one back
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...backends import Backend

CHUNK = 1 << 25  # bytes; a larger array gets a chunk of its own
LINE = 64  # pieces begin on cache lines
WASTE = 1.25  # how much larger a piece may be than what is laid into it


class Arena:
    """Chunks of bytes, which plans go through each for itself. It grows where a plan needs more than those before."""

    def __init__(self, backend: Backend):
        self.backend = backend
        self.chunks: list[Any] = []

    @property
    def nbytes(self) -> int:
        """What all programs together take."""
        return sum(chunk.size for chunk in self.chunks)


class Plan:
    """The pieces that one program uses; `nbytes` is what it cut off, in `pieces` pieces."""

    def __init__(self, arena: Arena):
        self.arena = arena
        self.cursors: list[int] = []
        self.free: dict[int, list[Any]] = {}  # size → pieces that were given back
        self.nbytes = self.pieces = 0

    def take(self, nbytes: int) -> Any:
        """A piece of at least so many bytes: one that was given back, or the next of the arena."""
        size = max(-(-nbytes // LINE) * LINE, LINE)
        fitting = [n for n, pieces in self.free.items() if pieces and size <= n <= size * WASTE]
        if fitting:
            return self.free[min(fitting)].pop()
        self.nbytes += size
        self.pieces += 1
        for i, chunk in enumerate(self.arena.chunks):
            if i == len(self.cursors):
                self.cursors.append(0)
            start = self.cursors[i]
            if start + size <= chunk.size:
                self.cursors[i] = start + size
                return chunk[start : start + size]
        self.arena.chunks.append(self.arena.backend.empty((max(size, CHUNK),), np.uint8))
        self.cursors.append(size)
        return self.arena.chunks[-1][:size]

    def give(self, piece: Any) -> None:
        """Take a piece back: what lay in it is not needed any more."""
        self.free.setdefault(piece.size, []).append(piece)


def laid(piece: Any, shape: Sequence[int], dtype: Any) -> Any:
    """The beginning of a piece as an array."""
    n = math.prod(shape) * np.dtype(dtype).itemsize
    return piece[:n].view(dtype).reshape(tuple(shape))
