"""Rows of different lengths as one array: the shorter ones are filled up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Side = Literal["left", "right"]


def pad(
    rows: Sequence[Sequence[int]] | Sequence[np.ndarray], value: int, *, multiple_of: int = 1, side: Side = "right"
) -> np.ndarray:
    """Rows of numbers, filled up with `value` to the longest: (B, T) int64.

    Args:
        multiple_of: T is rounded up to a multiple of it, so that batches have few different shapes.
        side: where the filling goes; "left" keeps the ends of prompts beside each other, as generation needs them.
    Raises:
        ValueError: no row, another side, or a multiple below 1.

    Example:
        >>> from retrograd.data.padding import pad
        >>> pad([[5, 6, 7], [8]], 0, multiple_of=4)
        array([[5, 6, 7, 0],
               [8, 0, 0, 0]])
    """
    if side not in ("left", "right"):
        raise ValueError(f"padding goes to the 'left' or the 'right', got {side!r}")
    if multiple_of < 1:
        raise ValueError(f"the length can be a multiple of 1 or more, got {multiple_of}")
    if not len(rows):
        raise ValueError("there is no row to pad")
    length = -(-max(len(row) for row in rows) // multiple_of) * multiple_of
    out = np.full((len(rows), length), value, dtype=np.int64)
    for filled, row in zip(out, rows, strict=True):
        filled[slice(len(row)) if side == "right" else slice(length - len(row), None)] = row
    return out
