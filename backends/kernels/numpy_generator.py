"""A description and its arrays → prebound NumPy calls that compute it, block of rows after block of rows.

Ten calls on arrays of eight megabytes move them through memory ten times. Here all calls are made for one block, as
many rows as stay in the processor's cache, then for the next: only what the group reads and what it stores comes from
and goes to memory, values in between lie in scratch places. A value that is stored is computed straight into its place
unless the old one is read later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .array_calls import Call, Number, array_calls
from .description import Description, Store
from .expressions import Unsupported
from .scratch import Scratch

Instruction = tuple[Callable[..., Any], tuple[Any, ...]]
Axes = tuple[slice, ...]

BLOCK = 32768  # elements: a few arrays of so many float32 fit the second-level cache, and a call on one is long enough
LONG = 4096  # the longest row that BLAS sums: it adds in a few lanes, NumPy pairwise and more exactly
SHORT = 64  # the longest row that is turned before its largest element is looked for

REDUCTIONS = {"sum": np.add.reduce, "max": np.maximum.reduce, "min": np.minimum.reduce}
ON_BITS = {"bitwise_xor", "bitwise_and"}


class Stored(NamedTuple):
    """A store with the value it keeps, and whether that value is computed in place of the operand."""

    store: Store
    value: str
    direct: bool


def instructions(description: Description, arrays: Sequence[np.ndarray], scratch: Scratch) -> list[Instruction]:
    """The calls. Raises Unsupported for what NumPy has no function for."""
    return list(_Binder(description, arrays, scratch).bound())


class _Binder:
    def __init__(self, description: Description, arrays: Sequence[np.ndarray], scratch: Scratch):
        self.d, self.scratch = description, scratch
        self.calls, names = array_calls(description)
        if description.axes - description.outer == 1:
            self.calls = _with_products(self.calls, {names[s.source] for s in description.stores})
        axes = range(description.axes)
        self.views = {  # every operand with all axes, of length 1 where it has none; a number stays one
            o.name: array[tuple(slice(None) if a in o.axes else None for a in axes)] if o.axes else array
            for o, array in zip(description.operands, arrays, strict=True)
        }
        self.lengths = [next(self.views[o.name].shape[a] for o in description.operands if a in o.axes) for a in axes]
        self.row = math.prod(self.lengths[description.outer :])
        self.stored = self._destinations(names)
        written = {s.operand for s in description.stores}
        if any(s.value in written and s.value != s.store.operand for s in self.stored):
            raise Unsupported("what one store overwrites, another one copies")
        self.slots = self._slots()
        self.dtypes = {o.name: o.dtype for o in description.operands} | {c.target: c.dtype for c in self.calls}
        self.per_row = {c.target for c in self.calls if c.per_row}
        self.per_row |= {o.name for o in description.operands if all(a < description.outer for a in o.axes)}

    # -- before the blocks -------------------------------------------------------------------------------------------

    def _destinations(self, names: dict[str, str]) -> list[Stored]:
        """Which stores a call makes by itself. The others copy or reduce after the calls of a block."""
        made = {c.target: i for i, c in enumerate(self.calls)}
        last_read = {name: i for i, c in enumerate(self.calls) for name in c.operands}
        last_read |= {names[s.source]: len(self.calls) for s in self.d.stores}
        direct: set[str] = set()
        found = []
        for s in self.d.stores:
            value = names[s.source]
            start = made.get(value, -1)
            fits = s.kind == "plain" and start >= 0 and value not in direct
            if fits and self.calls[start].dtype == self.d.operand(s.operand).dtype:
                # An element may be written over while it is read, a row that is being summed may not.
                safe = start if self.calls[start].function in _ELEMENTWISE else start - 1
                fits = last_read.get(s.operand, -1) <= safe
            else:
                fits = False
            if fits:
                direct.add(value)
            found.append(Stored(s, value, fits))
        return found

    def _slots(self) -> dict[str, tuple[Any, ...]]:
        """A scratch place for every value that is not stored directly: of one that nobody reads any more, or new."""
        last = {name: i for i, c in enumerate(self.calls) for name in c.operands if isinstance(name, str)}
        last |= {s.value: len(self.calls) for s in self.stored}
        direct = {s.value for s in self.stored if s.direct}
        free: dict[Any, list[tuple[Any, ...]]] = {}
        slots: dict[str, tuple[Any, ...]] = {}
        used = 0
        for i, c in enumerate(self.calls):
            names = [n for n in dict.fromkeys(c.operands) if isinstance(n, str)]
            dying = [n for n in names if n in slots and last[n] == i]
            in_place = c.function in _ELEMENTWISE
            if in_place:
                self._give_back(dying, slots, free)
            if c.target not in direct:
                kind = (c.dtype, c.per_row)
                if free.get(kind):
                    slots[c.target] = free[kind].pop()
                else:
                    slots[c.target] = (*kind, used)
                    used += 1
            if not in_place:
                self._give_back(dying, slots, free)
            if last.get(c.target, -1) < i and c.target in slots:
                self._give_back([c.target], slots, free)
        return slots

    @staticmethod
    def _give_back(names: Sequence[Any], slots: dict[str, Any], free: dict[Any, list[Any]]) -> None:
        for n in names:
            free.setdefault(slots[n][:2], []).append(slots[n])

    def _blocks(self) -> list[Axes]:
        """Balanced ranges of the leading axes whose elements fit the cache; rows stay whole where values need them."""
        rows = any(c.per_row for c in self.calls) or any(s.kind == "columns" for s in self.d.stores)
        splittable = self.d.outer if rows else self.d.axes
        inner = math.prod(self.lengths)
        blocks: list[Axes] = [()]
        for length in self.lengths[:splittable]:
            if inner <= BLOCK:
                break
            inner //= max(length, 1)
            many = -(-length * inner // BLOCK) if inner < BLOCK else length
            step = -(-length // max(many, 1))
            step = -(-step // 16) * 16 if inner == 1 else step  # blocks of a flat array begin on cache lines
            blocks = [(*b, slice(at, min(at + step, length))) for b in blocks for at in range(0, length, step)]
        return blocks

    # -- one block ---------------------------------------------------------------------------------------------------

    def bound(self) -> Iterator[Instruction]:
        for number, block in enumerate(self._blocks()):
            yield from self._block(block, first=number == 0)
        for s in self.stored:
            if s.store.kind == "mean":
                out = self.views[s.store.operand].reshape(())
                over = self.lengths[: self.d.outer] if s.value in self.per_row else self.lengths
                yield np.divide, (out, self.scratch.number(math.prod(over), out.dtype), out)

    def _block(self, block: Axes, first: bool) -> Iterator[Instruction]:
        shape = [s.stop - s.start for s in block] + self.lengths[len(block) :]
        rows = shape[: self.d.outer] + [1] * (self.d.axes - self.d.outer)
        self.shapes = {False: shape, True: rows}
        self.places = {name: self._part(view, block) for name, view in self.views.items()}
        for s in self.stored:
            if s.direct:
                self.places[s.value] = self.places[s.store.operand]
        for c in self.calls:
            if c.target not in self.places:
                self.places[c.target] = self.scratch.place(self.slots[c.target], self.shapes[c.per_row], c.dtype)
        for c in self.calls:
            yield from self._call(c)
        for s in self.stored:
            if s.store.kind == "plain":
                if not s.direct:
                    yield np.copyto, (self.places[s.store.operand], self.places[s.value], "unsafe")
            elif s.store.kind == "columns":
                yield from self._columns(s, first)
            else:
                yield from self._total(s, first)

    @staticmethod
    def _part(view: np.ndarray, block: Axes) -> np.ndarray:
        if not view.ndim:
            return view
        return view[tuple(b if view.shape[a] != 1 else slice(None) for a, b in enumerate(block))]

    def _call(self, c: Call) -> Iterator[Instruction]:
        out = self.places[c.target]
        if c.function in REDUCTIONS:
            yield from self._reduce(c, out)
        elif c.function == "products":
            yield np.vecdot, (*[self._whole(str(n), False) for n in c.operands], out[..., 0])
        elif c.function == "cast":
            yield np.copyto, (out, self._operand(c.operands[0], c), "unsafe")
        elif c.function == "mask":
            yield np.negative, (self._operand(c.operands[0], c).view(np.int8), out)
        else:
            operands = [self._operand(o, c) for o in c.operands]
            if c.function in ON_BITS:
                bits = f"i{out.itemsize}"
                operands, out = [o.view(bits) for o in operands], out.view(bits)
            function = getattr(np, c.function)
            if c.function in ("maximum", "minimum"):  # their third argument must be named
                yield partial(function, out=out), tuple(operands)
            else:
                yield function, (*operands, out)

    def _operand(self, operand: str | Number, c: Call) -> np.ndarray:
        if operand == "count":
            return self.scratch.number(self.row, c.dtype)
        if isinstance(operand, str):
            return self.places[operand]
        # NumPy takes a number beside an array slowly where it compares and keeps: it has no vector loop for that.
        if c.function in ("maximum", "minimum"):
            return self.scratch.filled(operand.value, self.shapes[c.per_row], operand.dtype)
        return self.scratch.number(operand.value, operand.dtype)

    def _whole(self, name: str, per_row: bool) -> np.ndarray:
        """A value on all elements (or rows) of the block, also where it is broadcast."""
        return np.broadcast_to(self.places[name], self.shapes[per_row])

    def _reduce(self, c: Call, out: np.ndarray) -> Iterator[Instruction]:
        (source,) = c.operands
        whole = self._whole(str(source), False)
        straight = whole.flags.c_contiguous and out.flags.c_contiguous
        if c.function == "sum" and straight and self._for_blas(whole, c.dtype) and self.row <= LONG:
            ones = self.scratch.filled(1.0, (self.row,), c.dtype)
            yield np.dot, (whole.reshape(-1, self.row), ones, out.reshape(-1))
        elif c.function != "sum" and straight and self.row <= SHORT and out.size >= 16:
            # Row after row costs a call's beginning each time: here the rows lie side by side, and all are compared.
            rows = whole.reshape(-1, self.row)
            turned = self.scratch.place("turned", rows.T.shape, rows.dtype)
            yield np.copyto, (turned, rows.T)
            yield REDUCTIONS[c.function], (turned, 0, np.dtype(c.dtype), out.reshape(-1))
        else:
            axes = tuple(range(self.d.outer, self.d.axes))
            over = axes if len(axes) > 1 else self.d.outer
            yield REDUCTIONS[c.function], (whole, over, np.dtype(c.dtype), out, True)

    @staticmethod
    def _for_blas(array: np.ndarray, dtype: str) -> bool:
        return str(array.dtype) == dtype and dtype in ("float32", "float64") and array.flags.c_contiguous

    def _columns(self, s: Stored, first: bool) -> Iterator[Instruction]:
        """The sum over the rows of a block, laid down or added to that of the blocks before."""
        whole = self._whole(s.value, False)
        out = self.views[s.store.operand]
        target = out if first else self.scratch.place("columns", out.shape, out.dtype)
        rows = math.prod(self.shapes[False]) // self.row
        if self._for_blas(whole, str(out.dtype)) and target.flags.c_contiguous and rows <= LONG:
            ones = self.scratch.filled(1.0, (rows,), out.dtype)
            yield np.dot, (ones, whole.reshape(rows, self.row), target.reshape(-1))
        else:
            yield np.add.reduce, (whole, tuple(range(self.d.outer)), out.dtype, target, True)
        if not first:
            yield np.add, (out, target, out)

    def _total(self, s: Stored, first: bool) -> Iterator[Instruction]:
        out = self.views[s.store.operand].reshape(())
        target = out if first else self.scratch.place("total", (), out.dtype)
        whole = self._whole(s.value, s.value in self.per_row)
        yield np.add.reduce, (whole, None, out.dtype, target)
        if not first:
            yield np.add, (out, target, out)


_ELEMENTWISE = {
    "add", "subtract", "multiply", "divide", "negative", "absolute", "sqrt", "square", "floor", "sign", "exp", "expm1",
    "log", "log1p", "log2", "log10", "tanh", "sin", "cos", "maximum", "minimum", "bitwise_xor", "bitwise_and",
}  # fmt: skip
"""What may write where one of its operands lies."""


def _with_products(calls: Sequence[Call], stored: set[str]) -> list[Call]:
    """A sum over a row of a product that nobody else reads is a product of vectors: one sweep without the product."""
    readers: dict[Any, int] = {}
    for c in calls:
        for name in c.operands:
            readers[name] = readers.get(name, 0) + 1
    made = {c.target: c for c in calls}
    found, gone = [], set()
    for c in calls:
        inner = made.get(c.operands[0]) if c.function == "sum" else None  # type: ignore[arg-type]
        if inner is None or inner.per_row or inner.dtype != c.dtype or readers[inner.target] > 1:
            found.append(c)
            continue
        factors = inner.operands * 2 if inner.function == "square" else inner.operands
        if inner.function not in ("multiply", "square") or inner.target in stored or not _are_values(factors):
            found.append(c)
            continue
        gone.add(inner.target)
        found.append(c._replace(function="products", operands=factors))
    return [c for c in found if c.target not in gone]


def _are_values(operands: Sequence[str | Number]) -> bool:
    return all(isinstance(o, str) and o != "count" for o in operands)
