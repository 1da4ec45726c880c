"""What a kernel computes, as plain data: no tensor, no array library, no sizes.

A kernel is a *row program*. It runs over some axes; the inner ones make up a row. For each row it evaluates values per
element, reduces them over the row (a sum, a maximum), goes over the row again with what came out, and so on. At the
edge it may add up all rows, column by column, or everything. Softmax, layer norm, cross-entropy, the gradient of a bias
and the update of an optimizer all have this form.

    softmax of (R, C):   m = max x      e = exp(x - m)      s = sum e      y = e / s
                         reduction      element             reduction      element

A description depends on the number of axes, on which of them each array has, on dtypes, and on whether an array lies
without gaps; not on lengths. A generator makes source of it: Numba's is here, one for CUDA needs nothing else.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Operand(NamedTuple):
    """An array that the kernel is called with. It has the kernel's `axes` in their order; () is one number."""

    name: str
    dtype: str
    axes: tuple[int, ...]
    contiguous: bool
    written: bool


class Statement(NamedTuple):
    """`target = expression`, a scalar expression of earlier targets and operands; its numbers have the dtype `numbers`.
    `per_row`: it names no value that differs within a row."""

    target: str
    expression: str
    names: tuple[str, ...]
    dtype: str
    numbers: str
    per_row: bool = False


class Reduction(NamedTuple):
    """`target` is the "sum", "max" or "min" of `source` over a row, a value per row."""

    target: str
    kind: str
    source: str
    dtype: str


class Store(NamedTuple):
    """`source` goes to `operand`: as it is ("plain"), summed over all rows ("columns"), or summed over everything
    ("total"), or averaged ("mean")."""

    operand: str
    source: str
    kind: str = "plain"


class Description(NamedTuple):
    """A kernel over `axes` axes, of which the first `outer` count rows."""

    axes: int
    outer: int
    operands: tuple[Operand, ...]
    body: tuple[Statement | Reduction, ...]
    stores: tuple[Store, ...]

    @property
    def key(self) -> str:
        """The same for equal descriptions, in every process."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def operand(self, name: str) -> Operand:
        return next(o for o in self.operands if o.name == name)
