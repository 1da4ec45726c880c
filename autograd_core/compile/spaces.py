"""Shapes seen as one list of elements with cuts in it: what a group's shapes have in common.

A cut is a number of elements, counted from the last axis, at which some shape ends an axis: (2, 3, 4) cuts at 4, 12 and
24. (6, 4) cuts at 4 and 24, so both are views of the axes (2, 3, 4); (8, 3) cuts at 3, and is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise


def suffixes(shape: Sequence[int]) -> set[int]:
    """The numbers of elements at which an axis of a shape ends."""
    found, n = set(), 1
    for length in reversed(shape):
        n *= length
        found.add(n)
    return found | {1}


def nested(cuts: Iterable[int]) -> bool:
    """Whether each cut divides the next: only then are all shapes views of one list of axes."""
    ordered = sorted(cuts)
    return all(b % a == 0 for a, b in pairwise(ordered))


def per_row(shape: Sequence[int], whole: Sequence[int], row: int) -> bool:
    """Whether a value of `shape`, broadcast to `whole`, is the same along rows of `row` elements and nowhere else."""
    padded = [1] * (len(whole) - len(shape)) + list(shape)
    n = 1
    for own, length in zip(reversed(padded), reversed(whole), strict=True):
        if n < row:
            if own != 1:
                return False
        elif own != length:
            return False
        n *= length
        if n > row > n // length and length > 1 and own == 1 and n != row:
            return False
    return True
