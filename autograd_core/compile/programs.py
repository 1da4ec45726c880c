"""The programs of one compiled function, and the recordings on the way to one, by signature.

What a function mentions is no part of a signature. Of the programs of a signature one is current, that for the values
of now; those for other values wait until they come again, as where a flag is switched on and off.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from ..recorder import RecordingError
from .mentioned import Mentioned, changes, is_plain, unchanged
from .program import Program
from .signature import MODES, what_changes
from .tape import Tape

MAX_PROGRAMS = 64


class Recording(NamedTuple):
    """A recording that waits to be confirmed by a second one, and what was mentioned when it was made."""

    tape: Tape
    mentioned: list[Mentioned]


class Programs:
    """Finds the program of a call, and lets go of those that will not be asked for again."""

    def __init__(self) -> None:
        self.current: dict[Any, Program] = {}
        self.waiting: dict[Any, list[Recording]] = {}
        self.left: dict[Any, Tape | None] = {}  # signature → its first call, which left something behind
        self._others: dict[Any, list[Program]] = {}
        self.in_a_row = 0  # calls without a program because what is mentioned had changed, with no replay between them
        self._replaced: list[weakref.ref] = []  # objects that were mentioned, and whose place another one took
        self._returning = False  # whether such an object came back
        self._dropped: list[Tape] = []  # of programs that will not be asked for again

    def find(self, signature: Any) -> Program | None:
        """The program of a signature, if there is one for the values that are mentioned now."""
        program = self.current.get(signature)
        if program is not None and program.tape.stands() and unchanged(program.called.mentioned):
            return program
        made = self._others.pop(signature, [])
        if program is not None:
            made = [self.current.pop(signature), *made]
            self._look_for_replaced(changes(program.called.mentioned))
        if not made:
            return None
        alive = [p for p in made if p.tape.stands() and self._may_be_asked_for(p)]
        self._dropped += [p.tape for p in made if p not in alive]
        fitting = next((p for p in alive if unchanged(p.called.mentioned)), None)
        self._others[signature] = [p for p in alive if p is not fitting][:MAX_PROGRAMS]
        if fitting is not None:
            self.current[signature] = fitting
            return fitting
        self.in_a_row += 1
        if self.in_a_row > MAX_PROGRAMS:
            self.in_a_row = 0
            _refuse_changes([m for p in made for m in changes(p.called.mentioned)])
        return None

    def refuse_more(self, signature: Any, modules: Collection[Any]) -> None:
        """Raise RecordingError where there are too many signatures for one more. `modules`: that they speak of."""
        if len(self.current) + len(self.waiting) >= MAX_PROGRAMS and signature not in self.waiting:
            advice = what_changes(modules, next(reversed(self.current or self.waiting)), signature)
            raise RecordingError(f"a compiled function met more than {MAX_PROGRAMS} signatures: {advice}")

    def wait(self, signature: Any, recording: Recording) -> None:
        """Keep the first recording of a signature until a second one confirms it."""
        waiting = self.waiting.get(signature, [])
        if len(waiting) >= MAX_PROGRAMS:
            _refuse_changes(changes(waiting[-1].mentioned))
        kept = [r for r in waiting if r.tape.stands()][1 - MAX_PROGRAMS :]
        self.waiting[signature] = [*kept, recording]

    def add(self, signature: Any, program: Program) -> None:
        """A program that was made now. Others that will not be asked for again are dropped."""
        self.current[signature] = program
        self.left = dict.fromkeys(self.left)
        for other in [s for s, p in self.current.items() if not self._may_be_asked_for(p)]:
            self._dropped.append(self.current.pop(other).tape)

    def met_by_dropped(self) -> set[int]:
        """ids of what programs that were dropped since the last time used, and what is kept does not use."""
        programs = [*self.current.values(), *[p for others in self._others.values() for p in others]]
        tapes = [p.tape for p in programs] + [r.tape for waiting in self.waiting.values() for r in waiting]
        gone = {id(o) for tape in self._dropped for o in tape.met()} - {id(o) for tape in tapes for o in tape.met()}
        self._dropped = []
        return gone

    def rename(self, change: Callable[[Any], Iterable[Any]]) -> None:
        """Change the modes in all signatures that something is kept under."""
        kinds: tuple[dict[Any, Any], ...] = (self.current, self._others, self.waiting, self.left)
        for each in kinds:
            renamed = {(*s[:MODES], *change(s[MODES:])): kept for s, kept in each.items()}
            each.clear()
            each.update(renamed)

    def _may_be_asked_for(self, program: Program) -> bool:
        """Whether what is mentioned may become again what a program was made with: a number may, of an object or tensor
        that was replaced nobody knows, until one has come back."""
        return self._returning or all(is_plain(m.value) for m in changes(program.called.mentioned))

    def _look_for_replaced(self, changed: Iterable[Mentioned]) -> None:
        """Notice objects that take their place again (models that take turns), without keeping them."""
        gone = [ref() for ref in self._replaced]
        self._returning = self._returning or any(m.now() is o for m in changed for o in gone if o is not None)
        objects = [m.value for m in changed if type(m.value).__weakrefoffset__]
        self._replaced = [weakref.ref(o) for o in [*objects, *gone] if o is not None]


def _refuse_changes(changed: Iterable[Mentioned]) -> None:
    """Raise RecordingError for what changes from call to call."""
    for mentioned in changed:
        raise RecordingError(
            f"{mentioned.name!r} changes from call to call of the compiled function, and {MAX_PROGRAMS} calls in a row "
            "were recorded anew. Pass it as an argument (a number as a 0-d Tensor), or keep it in a Tensor that is "
            "changed with copy_ or fill_."
        )
