"""From a fused group and the arrays of its values to a kernel's description and the arrays it is called with.

The group's shapes are views of one list of axes. Each array is seen on these axes, with stride 0 where it is broadcast;
neighbouring axes that every array walks through as one become one. What is left is what the kernel is made for: an
elementwise group over arrays without gaps has one axis, whatever the shapes were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ...backends.kernels.description import Description, Operand, Reduction, Statement, Store
from ...backends.kernels.expressions import substitute
from ...backends.kernels.stages import overwrites_what_it_needs
from ..graph import Spec
from ..recorder import Step
from .fusion import FLAT, Group
from .passes import is_effect
from .scalar_form import expressed, reduced


class Refused(Exception):
    """A group that no kernel can hold as its arrays lie."""


class _Seen:
    """An array on the axes of the group."""

    def __init__(self, array: Any, strides: tuple[int, ...], written: bool):
        self.array, self.strides, self.written = array, strides, written

    @property
    def key(self) -> Any:
        return self.array.__array_interface__["data"][0], self.strides, self.array.dtype


class Lowering:
    """`description` and `arrays` of a group, ready to be called with rows 0 to `rows`."""

    def __init__(self, step: Step, specs: Sequence[Spec], places: Mapping[int, Any]):
        self.group: Group = step.attributes["group"]
        self.specs, self.places = specs, places
        cuts = self.group.cuts
        self.axes = [b // a for a, b in pairwise(cuts)][::-1]
        row = self.group.row
        self.outer = len(self.axes) - (cuts.index(row) if row else 0)
        self.seen: dict[str, _Seen] = {}
        self.names: dict[Any, str] = {}
        self.env: dict[int, str] = {}
        self.level: dict[str, bool] = {}  # name → whether it is per row
        self.body: list[Statement | Reduction] = []
        self.stores: list[Store] = []
        self.outputs = set(step.outputs)
        for member in self.group.members:
            self._member(member)
        self._finish()

    # -- values ------------------------------------------------------------------------------------------------------

    def _member(self, step: Step) -> None:
        if is_effect(step):
            storage, value = step.inputs[0].number, step.inputs[1].number
            source = self._operand_or_value(value, self.specs[value][0])
            self._store(self.places[storage], self.specs[storage][0], source, "plain", False)
            self.env[storage] = self.env[value]
            return
        out = step.outputs[0]
        rec = step.record
        assert rec is not None
        found = expressed(step, self.specs)
        if rec.name in FLAT:
            self.env[out] = self.env[step.inputs[0].number]
            return
        if found is not None:
            shape = self.specs[out][0]
            per_row = self.group.row is not None and math.prod(shape) != self.group.size
            names = {k: self._operand_or_value(n, shape, per_row) for k, n in found.names.items()}
            text, used = substitute(found.text, names), tuple(dict.fromkeys(names.values()))
            self._state(out, text, used, found.dtype, found.numbers, per_row)
        else:
            self._reduce(step, out)
        if out in self.outputs and out in self.env:
            name = self.env[out]
            self._store(self.places[out], self.specs[out][0], name, "plain", self.level[name])

    def _reduce(self, step: Step, out: int) -> None:
        found = reduced(step, self.specs)
        assert found is not None
        shape, dtype = self.specs[found.source]
        source = self._operand_or_value(found.source, shape, self.level.get(self.env.get(found.source, ""), False))
        if found.over != "row":
            kind = "columns" if found.over == "columns" else "total" if found.kind == "sum" else "mean"
            if out in self.outputs:
                self._store(self.places[out], self.specs[out][0], source, kind, self.level.get(source, False))
            return
        name = f"v{out}"
        total = name if found.kind != "mean" else f"{name}_sum"
        kind = "sum" if found.kind == "mean" else found.kind
        self.body.append(Reduction(total, kind, source, str(self.specs[out][1])))
        self.level[total] = True
        self.env[out] = total
        if found.kind == "mean":
            self._state(out, f"{total} / count", (total, "count"), str(dtype), str(dtype), True)

    def _state(self, out: int, text: str, names: tuple[str, ...], dtype: str, numbers: str, per_row: bool) -> None:
        self.body.append(Statement(f"v{out}", text, names, dtype, numbers, per_row))
        self.env[out] = f"v{out}"
        self.level[f"v{out}"] = per_row

    def _operand_or_value(self, number: int, shape: tuple[int, ...], per_row: bool = False) -> str:
        if number in self.env:
            return self.env[number]
        return self._operand(self._see(self.places[number], shape, per_row, False))

    def _store(self, array: Any, shape: tuple[int, ...], source: str, kind: str, per_row: bool) -> None:
        if kind == "columns":
            strides = (0,) * self.outer + self._strides(array, shape, self.axes[self.outer :])
        elif kind in ("total", "mean"):
            strides = (0,) * len(self.axes)
        else:
            strides = self._see(array, shape, per_row, True).strides
        self.stores.append(Store(self._operand(_Seen(array, strides, True)), source, kind))

    def _operand(self, seen: _Seen) -> str:
        if seen.key not in self.names:
            self.names[seen.key] = name = f"x{len(self.names)}"
            self.seen[name] = seen
        name = self.names[seen.key]
        self.seen[name].written |= seen.written
        return name

    # -- places ------------------------------------------------------------------------------------------------------

    def _see(self, array: Any, shape: tuple[int, ...], per_row: bool, written: bool) -> _Seen:
        axes = self.axes[: self.outer] if per_row else self.axes
        strides = self._strides(array, shape, axes)
        return _Seen(array, strides + (0,) * (len(self.axes) - len(axes)), written)

    def _strides(self, array: Any, shape: tuple[int, ...], axes: list[int]) -> tuple[int, ...]:
        whole = np.broadcast_to(array, shape)
        seen = whole.reshape(axes)
        if array.size and not np.may_share_memory(seen, array):
            raise Refused("an array lies so that its axes cannot be split")
        return tuple(seen.strides)

    def _finish(self) -> None:
        self._forget_unread()
        used = {n for s in self.stores for n in (s.operand, s.source)}
        used |= {n for s in self.body for n in (s.names if isinstance(s, Statement) else (s.source,))}
        seen = {name: self.seen[name] for name in self.seen if name in used}
        self._refuse_overlap(list(seen.values()))
        axes = self._axes_in_memory(list(seen.values()))
        groups: list[list[int]] = []
        for a in axes:
            joins = groups and not (self.group.row and a == self.outer)
            if joins and all(s.strides[groups[-1][-1]] == s.strides[a] * self.axes[a] for s in seen.values()):
                groups[-1].append(a)
            else:
                groups.append([a])
        outer = sum(1 for g in groups if g[-1] < self.outer) if self.group.row else len(groups) - 1
        lengths = [math.prod(self.axes[a] for a in g) for g in groups]
        operands, self.arrays = [], []
        for name, s in seen.items():
            own = [k for k, g in enumerate(groups) if s.strides[g[-1]] != 0]
            strides = [s.strides[groups[k][-1]] for k in own]
            array = np.lib.stride_tricks.as_strided(s.array, [lengths[k] for k in own], strides)
            operands.append(Operand(name, str(array.dtype), tuple(own), bool(array.flags.c_contiguous), s.written))
            self.arrays.append(array)
        if any(all(k not in o.axes for o in operands) for k in range(len(groups))):
            raise Refused("an axis that no array has")
        self.rows = lengths[0]
        made = Description(len(groups), outer, tuple(operands), tuple(self.body), tuple(self.stores))
        self.description = _with_plain_names(made)
        if overwrites_what_it_needs(self.description):
            raise Refused("an array that is written is read again after that")

    def _axes_in_memory(self, seen: list[_Seen]) -> list[int]:
        """The group's axes from the slowest to the quickest. Where no row and no column is summed their order is free,
        and the widest array says what it is: an image with the batch last is gone through as it lies."""
        axes = list(range(len(self.axes)))
        if self.group.row or any(s.kind == "columns" for s in self.stores):
            return axes
        widest = max(seen, key=lambda s: sum(stride != 0 for stride in s.strides))
        return sorted(axes, key=lambda a: -abs(widest.strides[a]))

    def _forget_unread(self) -> None:
        needed = {s.source for s in self.stores}
        kept = []
        for step in reversed(self.body):
            if step.target in needed:
                needed.update(step.names if isinstance(step, Statement) else (step.source,))
                kept.append(step)
        self.body = kept[::-1]

    def _refuse_overlap(self, seen: list[_Seen]) -> None:
        """An array that is written shares memory with no other one."""
        for s in seen:
            if s.written and any(t is not s and np.may_share_memory(s.array, t.array) for t in seen):
                raise Refused("an array that is written overlaps another one")


def _with_plain_names(d: Description) -> Description:
    """Operands and values numbered from 0: two groups that do the same have the same description."""
    names = {o.name: f"x{i}" for i, o in enumerate(d.operands)}
    names |= {s.target: f"t{i}" for i, s in enumerate(d.body)}

    def new(name: str) -> str:
        return names.get(name, name)

    body: list[Statement | Reduction] = []
    for s in d.body:
        if isinstance(s, Statement):
            text = substitute(s.expression, {n: names[n] for n in s.names if n in names})
            body.append(s._replace(target=new(s.target), expression=text, names=tuple(new(n) for n in s.names)))
        else:
            body.append(s._replace(target=new(s.target), source=new(s.source)))
    operands = tuple(o._replace(name=new(o.name)) for o in d.operands)
    stores = tuple(s._replace(operand=new(s.operand), source=new(s.source)) for s in d.stores)
    return d._replace(operands=operands, body=tuple(body), stores=stores)
