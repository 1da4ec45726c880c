"""Fusion: elementwise steps that follow each other become one kernel, which goes through memory once.

    z = x · w + b         three sweeps through memory with NumPy,
    y = max(z, 0)         one in a group

A *group* runs over one space of `size` elements. Values of a group live on one of three levels:

    element   one number per element
    row       one per row of `row` elements: what a sum, mean, maximum or minimum over the last axes gives
    edge      sums over leading axes (gradients of biases) or over everything; nobody in the group can read them

A step joins the group of what it reads if the shapes fit and no way leads out of the group and back to the step: the
group runs as one. Two groups that meet in a step are joined if they can be. What a step reads from outside may be
broadcast in any way. Changes of shape that keep the order of elements are looked through.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any, NamedTuple

from ..graph import Spec
from ..record import Record
from ..recorder import Step, Value
from .passes import is_effect, reads
from .scalar_form import REDUCTIONS, Expressed, Reduced, expressed, reduced
from .spaces import nested, per_row, suffixes

LARGEST = 100  # members of a group: compilers take longer than in proportion
FLAT = {"reshape", "expand_dims", "squeeze", "alias"}  # the order of elements stays
FUSED = Record("fused_group", "fused", lambda ops, /, *inputs, group: None, multiple=True, promote=())


class Group(NamedTuple):
    """Members in their order, the number of elements, the length of a row (None: no rows), and all cuts: numbers of
    elements at which some shape ends an axis, counted from the last axis."""

    members: tuple[Step, ...]
    size: int
    row: int | None
    cuts: tuple[int, ...]

    @property
    def has_row_values(self) -> bool:
        """Whether some value is reduced over rows: then a row is gone through more than once."""
        return any(m.record is not None and m.record.name in REDUCTIONS for m in self.members) and self.row is not None


class _Open:
    """A group that is being made."""

    def __init__(self, size: int):
        self.members: list[int] = []
        self.size = size
        self.row: int | None = None
        self.cuts: set[int] = {1, size}
        self.level: dict[int, str] = {}
        self.assigned: dict[int, int] = {}  # root of a storage → its number


class _Fuser:
    def __init__(self, steps: Sequence[Step], specs: Sequence[Spec], root: Mapping[int, int]):
        self.steps, self.specs, self.root = steps, specs, root
        self.maker: dict[int, int] = {}
        self.group: dict[int, _Open] = {}  # step → its group
        self.needs: list[set[int]] = []  # step → steps that must run before it

    def run(self) -> list[_Open]:
        written = {self.root[s.inputs[0].number] for s in self.steps if is_effect(s)}
        writers: dict[int, int] = {}
        readers: dict[int, list[int]] = {}
        groups: list[_Open] = []
        for i, step in enumerate(self.steps):
            hazards: set[int] = set()
            for number in reads(step):
                memory = self.root[number]
                if memory in written:
                    if memory in writers:
                        hazards.add(writers[memory])
                    readers.setdefault(memory, []).append(i)
            if is_effect(step):
                memory = self.root[step.inputs[0].number]
                hazards |= set(readers.pop(memory, ()))
                writers[memory] = i
            hazards.discard(i)
            self.needs.append({self.maker[n] for n in reads(step) if n in self.maker} | hazards)
            self._place(i, step, groups)
            for number in step.outputs:
                self.maker[number] = i
        return groups

    def _place(self, i: int, step: Step, groups: list[_Open]) -> None:
        """Put a step into a group of what it reads, or begin one."""
        candidates = list({id(g): g for n in reads(step) for g in groups if n in g.level}.values())
        candidates.sort(key=lambda g: -g.members[-1])
        if step.record is not None and step.record.name in FLAT:
            for g in candidates:
                level = g.level.get(step.inputs[0].number)
                if level in ("element", "row") and nested(g.cuts | self._cuts_of(step.outputs[0], level, g)):
                    g.level[step.outputs[0]] = level  # looked through; the step itself stays where it is
                    g.cuts |= self._cuts_of(step.outputs[0], level, g)
            return
        for g in candidates:
            if self._joins(i, step, g):
                self._enter(i, step, g)
                for other in candidates:
                    if other is not g and self._merge(g, other):
                        groups.remove(other)
                return
        if step.record is not None and step.record.name == "broadcast_to":
            return  # whoever reads it reads its input
        size = self._size(step)
        if size is not None and size > 1:
            g = _Open(size)
            if self._fits(step, g):
                self._enter(i, step, g)
                groups.append(g)

    def _cuts_of(self, number: int, level: str, g: _Open) -> set[int]:
        scale = (g.row or 1) if level == "row" else 1
        return {c * scale for c in suffixes(self.specs[number][0])}

    def _size(self, step: Step) -> int | None:
        """The number of elements of a group that a step may begin."""
        if expressed(step, self.specs) is not None:
            return math.prod(self.specs[step.outputs[0]][0])
        found = reduced(step, self.specs)
        return None if found is None else math.prod(self.specs[found.source][0])

    def _joins(self, i: int, step: Step, g: _Open) -> bool:
        if len(g.members) >= LARGEST or not self._fits(step, g):
            return False
        outside = self._outside(i, g)
        return not self._reach(outside, g)

    def _outside(self, i: int, g: _Open) -> set[int]:
        """What a step of a group needs from elsewhere. What the group looks through is not elsewhere."""
        inside = {self.maker[n] for n in reads(self.steps[i]) if self._made_in(n, g)}
        return {j for j in self.needs[i] if self.group.get(j) is not g and j not in inside}

    def _made_in(self, number: int, g: _Open) -> bool:
        """Whether a group makes a value (a storage that it writes has a maker of its own)."""
        return number in g.level and number in self.maker and number not in g.assigned.values()

    def _reach(self, starts: Iterable[int], g: _Open) -> bool:
        """Whether something in `starts` needs a member of g, or is one."""
        first = g.members[0] if g.members else 0
        stack, seen = list(starts), set()
        while stack:
            j = stack.pop()
            other = self.group.get(j)
            if other is g:
                return True
            key = j if other is None else id(other)
            if key in seen or (j if other is None else max(other.members)) < first:
                continue
            seen.add(key)
            if other is None:
                stack.extend(self.needs[j])
            else:
                for m in other.members:
                    stack.extend(self._outside(m, other))
        return False

    def _fits(self, step: Step, g: _Open) -> bool:
        if is_effect(step):
            return self._fits_effect(step, g)
        if any(self.root[n] in g.assigned and g.assigned[self.root[n]] != n for n in reads(step)):
            return False
        found = expressed(step, self.specs)
        if found is not None:
            return self._fits_elementwise(step, found, g)
        reduction = reduced(step, self.specs)
        return reduction is not None and self._fits_reduction(step, reduction, g)

    def _fits_elementwise(self, step: Step, found: Expressed, g: _Open) -> bool:
        shape = self.specs[step.outputs[0]][0]
        n = math.prod(shape)
        level = "element" if n == g.size else "row" if g.row and n * g.row == g.size else None
        if level is None:
            return False
        cuts = g.cuts | {c * ((g.row or 1) if level == "row" else 1) for c in suffixes(shape)}
        if not nested(cuts):
            return False
        for number in found.names.values():
            inner = g.level.get(number)
            own = self.specs[number][0]
            if inner is None:
                continue
            if inner == level:
                if math.prod(own) != n:
                    return False
            elif not (inner == "row" and level == "element" and g.row and per_row(own, shape, g.row)):
                return False
        return True

    def _fits_reduction(self, step: Step, found: Reduced, g: _Open) -> bool:
        level = g.level.get(found.source)
        if level is None and g.members:
            return False
        if level == "edge" or (level == "row" and found.over != "total"):
            return False
        if level != "row" and math.prod(self.specs[found.source][0]) != g.size:
            return False
        if found.row is None:
            return True
        cuts = g.cuts | suffixes(self.specs[found.source][0]) | {found.row}
        return g.row in (None, found.row) and 1 < found.row < g.size and nested(cuts)

    def _fits_effect(self, step: Step, g: _Open) -> bool:
        storage, value = step.inputs[:2]
        if step.attributes["template"] is not None or not isinstance(value, Value):
            return False
        if g.level.get(value.number) != "element":
            return False
        memory = self.root[storage.number]
        if self.specs[storage.number] != self.specs[value.number] or memory in g.assigned:
            return False
        if any(self.root[n] == memory for n in g.level):
            return False  # the group makes what it would overwrite
        if not nested(g.cuts | suffixes(self.specs[storage.number][0])):
            return False
        return all(n == storage.number for m in g.members for n in reads(self.steps[m]) if self.root[n] == memory)

    def _enter(self, i: int, step: Step, g: _Open) -> None:
        g.members.append(i)
        self.group[i] = g
        if is_effect(step):
            storage = step.inputs[0].number
            g.assigned[self.root[storage]] = storage
            g.level[storage] = "element"
            g.cuts |= suffixes(self.specs[storage][0])
            return
        out = step.outputs[0]
        found = reduced(step, self.specs) if expressed(step, self.specs) is None else None
        if found is None:
            shape = self.specs[out][0]
            level = "element" if math.prod(shape) == g.size else "row"
            g.level[out] = level
            g.cuts |= self._cuts_of(out, level, g)
            return
        if found.row is not None:
            g.row = found.row
        if g.level.get(found.source) != "row":
            g.cuts |= suffixes(self.specs[found.source][0]) | ({found.row} if found.row else set())
        g.level[out] = "row" if found.over == "row" else "edge"

    def _merge(self, g: _Open, other: _Open) -> bool:
        """Take another group in, if both can run as one."""
        if g.size != other.size or (g.row and other.row and g.row != other.row) or not nested(g.cuts | other.cuts):
            return False
        if g.assigned.keys() & other.assigned.keys() or len(g.members) + len(other.members) > LARGEST:
            return False
        both = _Open(g.size)
        both.row = g.row or other.row
        both.cuts = g.cuts | other.cuts
        both.members = sorted([*g.members, *other.members])
        both.level = other.level | g.level
        both.assigned = g.assigned | other.assigned
        for m in both.members:
            step = self.steps[m]
            if is_effect(step):
                storage = step.inputs[0].number
                readers = (n for k in both.members for n in reads(self.steps[k]))
                if any(n != storage and self.root[n] == self.root[storage] for n in readers):
                    return False
            elif not self._fits(step, both):
                return False
        if both.row and any(
            g1.level[n] == "element" and math.prod(self.specs[n][0]) != both.size for g1 in (g, other) for n in g1.level
        ):
            return False
        for one, two in ((g, other), (other, g)):
            starts = {j for m in one.members for j in self._outside(m, one) if self.group.get(j) is not two}
            starts -= {self.maker[n] for m in one.members for n in reads(self.steps[m]) if self._made_in(n, two)}
            if self._reach(starts, two):
                return False
        g.members, g.row, g.cuts, g.level, g.assigned = both.members, both.row, both.cuts, both.level, both.assigned
        for m in g.members:
            self.group[m] = g
        return True


def fuse(
    steps: Sequence[Step],
    specs: Sequence[Spec],
    root: Mapping[int, int],
    wanted: Collection[int],
    refused: Collection[tuple[int, ...]] = (),
    smallest: int = 2,
) -> list[Step]:
    """The steps with groups in place of their members, in an order in which everything is computed before it is read.

    A group is a step of the record FUSED with the attribute `group`; its outputs are what others read. Groups whose
    outputs are `refused`, and those of fewer than `smallest` members, are left as single steps.
    """
    fuser = _Fuser(steps, specs, root)
    for g in fuser.run():
        numbers = tuple(n for m in g.members for n in steps[m].outputs)
        if len(g.members) < smallest or numbers in refused:
            for m in g.members:
                del fuser.group[m]
    return _pruned(_ordered(fuser), wanted)


def _ordered(fuser: _Fuser) -> list[Step]:
    """Groups and single steps, each after what it needs."""
    units: dict[int, list[int]] = {}
    unit_of: dict[int, int] = {}
    for i in range(len(fuser.steps)):
        g = fuser.group.get(i)
        key = i if g is None else g.members[-1]
        units.setdefault(key, []).append(i)
        unit_of[i] = key
    waits: dict[int, set[int]] = {}
    for key, members in units.items():
        g = fuser.group.get(key)
        needs = {j for m in members for j in (fuser.needs[m] if g is None else fuser._outside(m, g))}
        waits[key] = {unit_of[j] for j in needs} - {key}
    followers: dict[int, list[int]] = {}
    for key, needs in waits.items():
        for j in needs:
            followers.setdefault(j, []).append(key)
    ready: list[int] = []
    for key, needs in waits.items():
        if not needs:
            heappush(ready, key)
    result = []
    while ready:
        key = heappop(ready)
        result.append(_unit(fuser, units[key], fuser.group.get(key)))
        for follower in followers.get(key, ()):
            waits[follower].discard(key)
            if not waits[follower]:
                heappush(ready, follower)
    if len(result) != len(units):
        raise RuntimeError("internal error: fused groups wait for each other")
    return result


def _unit(fuser: _Fuser, members: list[int], g: _Open | None) -> Step:
    steps = [fuser.steps[m] for m in members]
    if g is None:
        return steps[0]
    looked_through = {fuser.maker[n] for n in g.level if fuser._made_in(n, g)} - set(members)
    whole = sorted([*members, *[m for m in looked_through if m <= members[-1]]])
    ordered = [fuser.steps[m] for m in whole]
    made = {n for s in ordered for n in s.outputs}
    inputs = {n: None for s in ordered for n in reads(s) if n not in made}
    group = Group(tuple(ordered), g.size, g.row, tuple(sorted(g.cuts)))
    outputs = tuple(n for s in steps for n in s.outputs)
    return Step(FUSED, tuple(Value(n) for n in inputs), {"group": group, "values": outputs}, outputs, steps[0].line)


def _pruned(steps: Sequence[Step], wanted: Collection[int]) -> list[Step]:
    """Without what nobody reads; of a group only the outputs that somebody does."""
    needed, kept = set(wanted), []
    for step in reversed(steps):
        if step.record is FUSED:
            step = step._replace(outputs=tuple(n for n in step.outputs if n in needed))
        if written_by(step) or any(n in needed for n in step.outputs):
            needed.update(reads(step))
            kept.append(step)
    return kept[::-1]


def written_by(step: Step) -> list[Any]:
    """Numbers of the storages that a step writes: of an effect, or of the effects in a group."""
    if is_effect(step):
        return [step.inputs[0].number]
    members = step.attributes["group"].members if step.record is FUSED else ()
    return [m.inputs[0].number for m in members if is_effect(m)]
