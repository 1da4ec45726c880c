"""Recompute or keep: what a later group can compute again for less than it costs to keep is not kept.

    h = (x - mean) / deviation     kept for the way back: an array as large as x, written here and read there
    x, mean, deviation             x is kept anyway, the others are short: the later group begins with h itself

A value goes where all its readers are groups over the same elements, where sums, products and comparisons lead to it
from what is there anyway, from numbers per row, or from one value that is kept in its place, and where less is then
moved through memory. No more is kept afterwards than before. This is for generated kernels, which compute in passing;
NumPy would go through the elements once more for each operation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence

from ..graph import Spec
from ..recorder import Step, Value
from .fusion import FLAT, FUSED, LARGEST, Group, written_by
from .passes import reads
from .scalar_form import expressed
from .spaces import nested, suffixes

CHEAP = {"abs", "maximum", "minimum"}  # functions that take no longer than a sum
LONGEST = 8  # steps that are repeated for one value


def recompute(
    steps: Sequence[Step], specs: Sequence[Spec], root: Mapping[int, int], wanted: Collection[int]
) -> list[Step]:
    """The steps, some values of groups computed again in the groups that read them.

    Args:
        root: value → the first value in the same memory; what is written on the way is read only where it was read.
        wanted: values that are handed out, which stay.
    """
    steps = list(steps)
    written = {root[n] for step in steps for n in written_by(step)}
    made = {n for step in steps for n in step.outputs}
    readers: dict[int, list[int]] = {}
    for i, step in enumerate(steps):
        for n in set(reads(step)):
            readers.setdefault(n, []).append(i)
    for i, step in enumerate(steps):
        for value in step.outputs if step.record is FUSED else ():
            later = readers.get(value, [])
            if value in wanted or not later or not all(_alike(steps[j], step, value, specs) for j in later):
                continue
            found = _way(steps[i], value, specs)
            if found is None or any(root[n] in written for n in found[1]):
                continue
            repeated, sources = found
            short = [n for n in sources if n not in reads(steps[i]) and n not in steps[i].outputs]
            lives = {n: math.inf if n in wanted or n not in made else max(readers.get(n, [0])) for n in sources}
            if _pays(value, lives, short, [steps[j] for j in later], later[-1], specs) and all(
                _takes(steps[j], repeated, specs) for j in later
            ):
                steps[i] = _without(steps[i], value, short)
                made.update(short)
                for j in later:
                    steps[j] = _beginning_with(steps[j], repeated, specs)
                    for n in sources:
                        readers[n] = sorted({*readers.get(n, ()), j})
                del readers[value]
    return [s for s in steps if s.record is not FUSED or s.outputs or written_by(s)]


def _nbytes(number: int, specs: Sequence[Spec]) -> int:
    shape, dtype = specs[number]
    return math.prod(shape) * dtype.itemsize


def _alike(reader: Step, maker: Step, value: int, specs: Sequence[Spec]) -> bool:
    """Whether both are groups over the elements of a value."""
    size = math.prod(specs[value][0])
    return reader.record is FUSED and reader.attributes["group"].size == maker.attributes["group"].size == size


def _way(step: Step, value: int, specs: Sequence[Spec]) -> tuple[list[Step], list[int]] | None:
    """The members of a group that lead to a value, and what they begin with: what the group reads or hands out, or has
    one number of per row. None where it is far, or costs more than arithmetic."""
    group = step.attributes["group"]
    made = {n: m for m in group.members for n in m.outputs}
    stack, chosen, sources = [value], [], []
    while stack:
        n = stack.pop()
        member = made.get(n)
        short = math.prod(specs[n][0]) < group.size
        if member is None or (n != value and (n in step.outputs or (short and not _is_looked_through(member)))):
            sources.append(n)
            continue
        if _is_looked_through(member) or not _is_cheap(member, specs):
            return None
        if member not in chosen:
            chosen.append(member)
            stack += reads(member)
    return ([m for m in group.members if m in chosen], sorted(set(sources))) if len(chosen) <= LONGEST else None


def _is_looked_through(step: Step) -> bool:
    """Whether a member is a change of shape: a group that has its input has it too, but cannot begin with it."""
    return step.record is not None and step.record.name in FLAT


def _is_cheap(step: Step, specs: Sequence[Spec]) -> bool:
    found = expressed(step, specs)
    return found is not None and "**" not in found.text and set(re.findall(r"(\w+) *\(", found.text)) <= CHEAP


def _pays(
    value: int,
    lives: Mapping[int, float],
    short: Sequence[int],
    later: Sequence[Step],
    last: int,
    specs: Sequence[Spec],
) -> bool:
    """Whether less is moved through memory, and no more kept until the last reader is done.

    `lives`: what the way to the value begins with, and until when it is there anyway; `short` ones are handed out anew.
    """
    longer = [n for n, end in lives.items() if end < last and n not in short]
    moved = sum(_nbytes(n, specs) for step in later for n in lives if n not in reads(step))
    kept, anew = _nbytes(value, specs), sum(_nbytes(n, specs) for n in short)
    return (
        sum(_nbytes(n, specs) for n in longer) <= kept and anew <= kept // 8 and moved + anew < kept * (1 + len(later))
    )


def _takes(step: Step, repeated: Sequence[Step], specs: Sequence[Spec]) -> bool:
    """Whether a group can begin with the repeated members."""
    members = step.attributes["group"].members
    return len(members) + len(repeated) <= LARGEST and nested(_cuts(step, repeated, specs))


def _cuts(step: Step, repeated: Sequence[Step], specs: Sequence[Spec]) -> set[int]:
    return {*step.attributes["group"].cuts, *[c for m in repeated for n in m.outputs for c in suffixes(specs[n][0])]}


def _without(step: Step, value: int, short: Sequence[int]) -> Step:
    """A group that hands out the `short` values instead of one, and without the members that only led to that."""
    group = step.attributes["group"]
    outputs = (*[n for n in step.outputs if n != value], *short)
    needed, members = set(outputs), []
    for member in reversed(group.members):
        if member.record is None or any(n in needed for n in member.outputs):
            needed.update(reads(member))
            members.append(member)
    return _of(step, group._replace(members=tuple(members[::-1])))._replace(outputs=outputs)


def _beginning_with(step: Step, repeated: Sequence[Step], specs: Sequence[Spec]) -> Step:
    group = step.attributes["group"]
    members = (*repeated, *[m for m in group.members if m not in repeated])
    return _of(step, group._replace(members=members, cuts=tuple(sorted(_cuts(step, repeated, specs)))))


def _of(step: Step, group: Group) -> Step:
    """The step with another group, and the inputs of that."""
    made = {n for m in group.members for n in m.outputs}
    inputs = dict.fromkeys(n for m in group.members for n in reads(m) if n not in made)
    return step._replace(inputs=tuple(map(Value, inputs)), attributes={**step.attributes, "group": group})
