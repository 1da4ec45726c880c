"""Memory that calls use in passing: one piece per dtype and number, which all groups of a program use in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

LINE = 64  # bytes of a cache line: a vector instruction whose operands lie across two of them takes twice as long


def aligned(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An array without values that begins on a cache line."""
    n = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(n + LINE, np.uint8)
    start = -memory.__array_interface__["data"][0] % LINE
    return memory[start : start + n].view(dtype).reshape(shape)


class Scratch:
    """Hands out the same memory again and again, and numbers that ufuncs read faster than Python's."""

    def __init__(self) -> None:
        self.pieces: dict[Any, np.ndarray] = {}
        self.numbers: dict[Any, np.ndarray] = {}

    def place(self, key: Any, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """The memory of that key, as an array of a shape."""
        n = math.prod(shape)
        piece = self.pieces.get((key, dtype))
        if piece is None or piece.size < n:
            piece = self.pieces[key, dtype] = aligned((n,), dtype)
        return piece[:n].reshape(shape)

    def number(self, value: Any, dtype: Any) -> np.ndarray:
        """A 0-d array: a ufunc takes it in half the time that it takes to look at a Python number."""
        key = (repr(value), dtype)
        if key not in self.numbers:
            self.numbers[key] = np.array(value, dtype)
        return self.numbers[key]

    def filled(self, value: Any, shape: Sequence[int], dtype: Any) -> np.ndarray:
        """An array of one number."""
        n = math.prod(shape)
        key = ("filled", repr(value), dtype)
        if key not in self.numbers or self.numbers[key].size < n:
            self.numbers[key] = aligned((n,), dtype)
            self.numbers[key].fill(value)
        return self.numbers[key][:n].reshape(shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the memory that is handed out."""
        return sum(a.nbytes for a in [*self.pieces.values(), *self.numbers.values()])
