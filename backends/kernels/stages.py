"""Which loop over a row computes what.

Values of an element are computed in as many loops over the row (*stages*) as there are reductions one after another. A
value that a later loop needs again is read back if it is stored anyway, kept in a scratch row if it was expensive, and
otherwise computed anew: additions cost less than memory.
"""

from __future__ import annotations

from .description import Description, Reduction, Statement, Store
from .expressions import cost

CHEAP = 8  # what a value may cost to be computed again, in additions


class Stages:
    """When each value of a description can be had, and which loop reads and makes what."""

    def __init__(self, description: Description):
        self.description = description
        self.makers: dict[str, Statement | Reduction] = {s.target: s for s in description.body}
        self.operands = {o.name: o for o in description.operands}
        self.stage: dict[str, int] = {}
        for step in description.body:
            sources = (step.source,) if isinstance(step, Reduction) else step.names
            ready = max([self.stage.get(n, 0) for n in sources], default=0)
            self.stage[step.target] = ready + 1 if isinstance(step, Reduction) else ready
        self.stored = {s.source: s.operand for s in reversed(description.stores) if self._can_be_read_back(s)}
        self.scratch: set[str] = set()
        self.count = 1 + max([*self.stage.values(), 0])
        self.loads: dict[int, set[str]] = {}  # stage → operands that its loop reads
        for k in reversed(range(self.count)):
            self.loads[k] = set()
            for name in self.goals(k):
                self._visit(name, k)

    def _can_be_read_back(self, store: Store) -> bool:
        made = self.makers.get(store.source)
        same = made is not None and made.dtype == self.operands[store.operand].dtype
        return store.kind == "plain" and same and not self.per_row(store.source)

    def per_row(self, name: str) -> bool:
        """Whether a value is the same for all elements of a row."""
        if name in self.operands:
            return all(a < self.description.outer for a in self.operands[name].axes)
        made = self.makers[name]
        return isinstance(made, Reduction) or made.per_row

    def goals(self, k: int) -> list[str]:
        """Values of an element that loop k must have: what it stores, reduces, or keeps for later loops."""
        stored = (s.source for s in self.description.stores if not self.per_row(s.source))
        found = [name for name in stored if self.stage.get(name, 0) == k]
        found += [s.source for s in self.description.body if isinstance(s, Reduction) and self.stage[s.target] == k + 1]
        return list(dict.fromkeys([*found, *sorted(n for n in self.scratch if self.stage[n] == k)]))

    def from_memory(self, name: str, k: int) -> bool:
        """Whether loop k takes a value from where an earlier one has put it."""
        return self.stage.get(name, 0) < k and (name in self.stored or name in self.scratch)

    def _visit(self, name: str, k: int) -> None:
        if self.per_row(name):
            return
        if name in self.operands:
            self.loads[k].add(name)
            return
        if self.stage[name] < k and name not in self.stored and self._cost(name) > CHEAP:
            self.scratch.add(name)
        if self.from_memory(name, k):
            if name in self.stored:
                self.loads[k].add(self.stored[name])
            return
        for source in self.makers[name].names:  # type: ignore[union-attr]  only statements are per element
            self._visit(source, k)

    def _cost(self, name: str) -> int:
        made = self.makers.get(name)
        if not isinstance(made, Statement) or made.per_row or name in self.scratch or name in self.stored:
            return 0
        return cost(made.expression) + sum(self._cost(n) for n in made.names)


def overwrites_what_it_needs(description: Description) -> bool:
    """Whether an operand that is read and written would be read after it was written."""
    stages = Stages(description)
    for store in description.stores:
        first = stages.stage.get(store.source, 0)
        readers = [k for k, names in stages.loads.items() if store.operand in names and k > first]
        read_back = stages.stored.get(store.source) == store.operand
        if readers and not (read_back and not is_read(description, store.operand)):
            return True
    return False


def is_read(description: Description, operand: str) -> bool:
    """Whether an operand is an input, whatever else it is."""
    return any(operand in (s.names if isinstance(s, Statement) else (s.source,)) for s in description.body) or any(
        s.source == operand for s in description.stores
    )
