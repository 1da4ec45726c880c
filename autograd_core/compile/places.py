"""A place in memory for every value of a program, and the calls that compute from place to place.

Every value gets its array before the first run. A view lies in the array it is a view of; what is assigned to a storage
is computed there where that is safe; what is laid end to end is computed in the whole; every other result takes the
memory of an input that nobody reads any more, a free piece of about its size, or the next of the arena that the
programs of a function share.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..operations.indexing import join
from ..recorder import Step, Value
from ..tensor import Tensor
from .arena import Needs, Pieces, laid
from .blocking import Instruction, blocked
from .bounds import bound_checks
from .fusion import FUSED, written_by
from .lowering import Lowering, Refused
from .passes import is_effect, reads

if TYPE_CHECKING:
    from .program import Program


class Builder:
    """Gives every value of a program its array, and binds the calls.

    `memory` gives pieces of the arena; None: every value has memory of its own.
    """

    def __init__(
        self, program: Program, arguments: Sequence[Tensor], wanted: set[int], memory: Needs | Pieces | None = None
    ):
        self.program, self.tape, self.backend = program, program.tape, program.backend
        self.xp = self.backend.xp
        self.places: dict[int, Any] = {}
        self.root = program.root
        self.last_use: dict[int, int] = {}
        self.memory = memory
        self.free: dict[tuple[Any, ...], list[Any]] = {}  # arrays to be used again where there is no arena, by form
        self.pieces: dict[int, Any] = {}  # value → its place inside a flat array
        self.own: dict[int, Any] = {}  # root → memory that may be used again when its last reader is done
        self.lasting = {program.root[n] for _, n in program.grads if n is not None}  # what is read after a run
        self.wanted = wanted
        self.arguments = arguments
        self.groups: list[tuple[int, tuple[int, ...], Lowering]] = []  # place among the instructions, values, kernel
        self.refused: set[tuple[int, ...]] = set()

    def place(self) -> set[tuple[int, ...]]:
        """Give every value its array. Returns the groups that no kernel can be made for."""
        program, tape = self.program, self.tape
        program.input_places = []
        for number, tensor in zip(tape.inputs, self.arguments, strict=True):
            if number not in self.places:  # one tensor may be passed twice
                self._put(number, self._empty(tensor.shape, tensor.dtype))
            program.input_places.append(self.places[number])
        for number, tensor in tape.storages.items():
            self._put(number, tensor.array)
        given = {id(t): i for i, t in tape.given.items()}
        reads_at_entry = [
            (self._put(n, self._empty(*tape.specs[n], lasting=n in self.lasting)), leaf)
            for n, leaf in tape.grad_reads.items()
        ]
        program.grad_places = [(place, leaf) for place, leaf in reads_at_entry if id(leaf) not in given]
        program.given_places = [(place, given[id(leaf)]) for place, leaf in reads_at_entry if id(leaf) in given]
        self._find_last_uses()
        self._hand_down()
        targets = self._targets()
        self._place_pieces()
        for i, step in enumerate(program.steps):
            if is_effect(step):
                if i not in targets.values():
                    self._assign(step)
            elif step.record is FUSED:
                self._group(i, step)
            else:
                self._step(i, step, targets)
            self._release(i, step)
        return self.refused

    def build(self) -> set[tuple[int, ...]]:
        """Fill in the program's instructions and places. Returns the groups that no kernel could be made for."""
        program, tape = self.program, self.tape
        if self.place() or not self._kernels():
            return self.refused
        program.nbytes += program.scratch.nbytes
        if self.xp is np:
            program.instructions = [_named_out(i) for i in blocked(program.instructions)]
        program.results = [
            (self.places[o.number], True) if isinstance(o, Value) else (o, False) for o in program.outputs
        ]
        given = {id(t): i for i, t in tape.given.items()}
        grads = [(leaf, None if n is None else self.places[n]) for leaf, n in program.grads]
        program.grad_results = [(leaf, array) for leaf, array in grads if id(leaf) not in given]
        program.given_results = [(given[id(leaf)], array) for leaf, array in grads if id(leaf) in given]
        changed = {n for s in program.steps for n in written_by(s)}
        roots = {self.root[n] for n in changed}
        written = {n for n in [*tape.storages, *tape.inputs] if self.root[n] in roots}
        program.changed_inputs = [i for i, n in enumerate(tape.inputs) if n in written]
        program.checks = bound_checks(tape, self.places, written, self.backend)
        program.changed = [t for n, t in tape.storages.items() if n in changed and t.cell is not None]
        return set()

    def _put(self, number: int, array: Any) -> Any:
        self.places[number] = array
        return array

    def _empty(self, shape: tuple[int, ...], dtype: Any, lasting: bool = False) -> Any:
        """An array that is never used again for another value."""
        return self._new(shape, dtype, lasting)[1]

    def _new(self, shape: tuple[int, ...], dtype: Any, lasting: bool = False) -> tuple[Any, Any]:
        """Memory and an array in it: a piece of the arena, which other programs use too, or, for what lasts until the
        next run and where there is no arena, an array of its own."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        if self.memory is not None and not lasting:
            self.program.buffers += 1
            piece = self.memory.take(nbytes)
            return piece, laid(piece, shape, dtype)
        pool = self.free.get((tuple(shape), np.dtype(dtype)))
        if pool:
            return (array := pool.pop()), array
        self.program.buffers += 1
        self.program.nbytes += nbytes
        return (array := self.backend.empty(shape, dtype)), array

    def _find_last_uses(self) -> None:
        for i, step in enumerate(self.program.steps):
            for number in [*reads(step), *step.outputs]:
                self.last_use[self.root[number]] = i
        for number in self.wanted:
            self.last_use[self.root[number]] = len(self.program.steps)

    def _hand_down(self) -> None:
        """What lasts can be computed where an operand lies that nobody reads any more, if that lies in memory that
        lasts too: gradients are clipped where they are."""
        made = {n: i for i, s in enumerate(self.program.steps) for n in s.outputs}
        given = [n for n in self.lasting if n in made]
        while given:
            number = given.pop()
            i = made[number]
            heir = next(self._overwritable(i, self.program.steps[i], number), None)
            if heir in made:
                self.lasting.add(heir)
                given.append(heir)

    def _overwritable(self, i: int, step: Step, number: int) -> Iterator[int]:
        """The operands of a step in whose memory its result may lie: nobody reads them any more."""
        spec = self.tape.specs[number]
        if self._may_overwrite(step, math.prod(spec[0])):
            for n in reads(step):
                if self.root[n] == n and self.last_use[n] == i and self.tape.specs[n] == spec:
                    yield n

    def _targets(self) -> dict[int, int]:
        """Values that can be computed straight into the storage that they are assigned to: value → its assign."""
        found: dict[int, int] = {}
        made = {n: i for i, s in enumerate(self.program.steps) for n in s.outputs}
        for i, step in enumerate(self.program.steps):
            if not is_effect(step) or step.attributes["template"] is not None or not isinstance(step.inputs[1], Value):
                continue
            storage, value = step.inputs[0].number, step.inputs[1].number
            start = made.get(value)
            if start is None or value in found or self.root[value] != value or self.last_use[value] > i:
                continue  # who reads it later would find there what is assigned next
            if self.tape.specs[value] != self.tape.specs[storage]:
                continue
            maker = self.program.steps[start]
            ufunc = maker.record is not None and isinstance(maker.record.by_hand[self.backend.array_type], np.ufunc)
            memory = self.root[storage]
            between = self.program.steps[start + (1 if ufunc else 0) : i]
            touched = any(self.root[n] == memory for s in between for n in reads(s))
            viewed = any(self.root[n] == memory and n != storage for n in reads(maker))
            elementwise = maker.record is not None and maker.record.kind == "elementwise"
            if elementwise and not touched and not viewed:
                found[value] = i
        return found

    def _place_pieces(self) -> None:
        """What is laid end to end is computed there: the inputs of a flat concat get their places inside its result."""
        made = {n: s for s in self.program.steps for n in s.outputs}
        for step in self.program.steps:
            if step.record is None or step.record.name != "concat" or len(self.tape.specs[step.outputs[0]][0]) != 1:
                continue
            whole = step.outputs[0]
            array, end, pieces = None, 0, []
            for value in step.inputs:
                start, end = end, end + self.tape.specs[value.number][0][0]
                piece = self.root[value.number]
                maker = made.get(piece)
                if maker is None or maker.record is None or piece in self.pieces:
                    continue
                if any(piece == other for other, _, _ in pieces):  # laid down twice: it is copied the second time
                    continue
                if len(maker.outputs) != 1 and maker.record is not FUSED:
                    continue
                if math.prod(self.tape.specs[piece][0]) == end - start and self._straight(value.number, piece, made):
                    pieces.append((piece, start, end))
            if not pieces:
                continue
            inside = {whole, *[piece for piece, _, _ in pieces]}
            memory, array = self._new(*self.tape.specs[whole], lasting=bool(inside & self.lasting))
            self._put(whole, array)
            self.last_use[whole] = max(self.last_use[n] for n in inside)
            if not inside & self.wanted:
                self.own[whole] = memory, array
            for piece, start, end in pieces:
                self.pieces[piece] = array[start:end].reshape(self.tape.specs[piece][0])

    def _straight(self, number: int, root: int, made: dict[int, Step]) -> bool:
        """Whether `number` is `root`, or reached from it by reshaping alone."""
        while number != root:
            step = made[number]
            if step.record is None or step.record.name != "reshape":
                return False
            number = step.inputs[0].number
        return True

    def _step(self, i: int, step: Step, targets: dict[int, int]) -> None:
        rec = step.record
        assert rec is not None
        inputs = [self._read(v) for v in step.inputs]
        if step.view and self._view(step, inputs):
            return
        outs = []
        for number in step.outputs:
            if number in targets:
                storage = self.program.steps[targets[number]].inputs[0].number
                outs.append(self._put(number, self.places[storage]))
                self.root[number] = self.root[storage]
            elif number in self.pieces:
                outs.append(self._put(number, self.pieces[number]))
            elif number in self.places:
                outs.append(self.places[number])
            else:
                outs.append(self._put(number, self._claim(i, step, number)))
        self.program.instructions.extend(self._bind(step, inputs, outs))

    def _view(self, step: Step, inputs: list[Any]) -> bool:
        """Bind the results of a step that shared memory when it was recorded; False where it has to copy here."""
        rec = step.record
        assert rec is not None
        out = rec.as_written(self.backend.array_type)(*inputs, **step.attributes)
        outs = out if rec.multiple else (out,)
        if not all(array.size == 0 or self.backend.shares_memory(array, inputs[0]) for array in outs):
            for number in step.outputs:
                self.last_use[number] = self.last_use[self.root[number]]
                self.root[number] = number
            return False
        for number, array in zip(step.outputs, outs, strict=True):
            self.places[number] = array
        return True

    def _group(self, i: int, step: Step) -> None:
        """Places for what a fused group hands out, and its description; the call is bound when all are known."""
        for number in step.outputs:
            self._put(number, self.pieces[number] if number in self.pieces else self._claim(i, step, number))
        try:
            lowering = Lowering(step, self.tape.specs, self.places)
        except Refused:
            self.refused.add(step.attributes["values"])
            return
        self.groups.append((len(self.program.instructions), step.attributes["values"], lowering))
        self.program.instructions.append((_group_without_kernel, ()))

    def _kernels(self) -> bool:
        """Bind the calls of all groups. False if some have none; they are then among the refused."""
        program = self.program
        wanted = [(g.description, g.rows, g.arrays) for _, _, g in self.groups]
        found = self.backend.bind(wanted, program.scratch)
        self.refused |= {v for (_, v, _), calls in zip(self.groups, found, strict=True) if calls is None}
        if self.refused:
            return False
        at = {place: calls for (place, _, _), calls in zip(self.groups, found, strict=True)}
        program.instructions = [call for i, single in enumerate(program.instructions) for call in at.get(i) or [single]]
        return True

    def _read(self, value: Any) -> Any:
        return self.places[value.number] if isinstance(value, Value) else value

    def _claim(self, i: int, step: Step, number: int) -> Any:
        """Memory for a result: that of an input which nobody reads any more, a free array of the same form, or new."""
        shape, dtype = self.tape.specs[number]
        for n in self._overwritable(i, step, number):
            if n in self.own and (n in self.lasting) == (number in self.lasting):
                self.own[number] = self.own.pop(n)
                return self.own[number][1]
        # Axes lie in memory as they lay in the recorded call: there each operation found the order it is quickest in.
        order = self.tape.orders.get(number)
        lying = tuple(shape) if order is None else tuple(shape[a] for a in order)
        memory, whole = self._new(lying, dtype, lasting=number in self.lasting)
        array = whole if order is None else whole.transpose([order.index(a) for a in range(len(shape))])
        self.own[number] = memory, array
        return array

    def _may_overwrite(self, step: Step, size: int) -> bool:
        """Whether a result may lie where an input lay: element i is written when element i of all inputs is read."""
        rec = step.record
        assert rec is not None
        if rec is not FUSED:
            return isinstance(rec.by_hand[self.backend.array_type], np.ufunc)
        memory = [self.root[n] for n in reads(step)]
        group = step.attributes["group"]
        return size == group.size and not group.has_row_values and len(set(memory)) == len(memory)

    def _release(self, i: int, step: Step) -> None:
        for number in {self.root[n] for n in [*reads(step), *step.outputs]}:
            if number in self.own and self.last_use[number] <= i:
                piece, _ = self.own.pop(number)
                if self.memory is not None and number not in self.lasting:
                    self.memory.give(piece)
                else:
                    self.free.setdefault((tuple(piece.shape), np.dtype(piece.dtype)), []).append(piece)

    def _assign(self, step: Step) -> None:
        storage, value, *indices = [self._read(v) for v in step.inputs]
        template = step.attributes["template"]
        index = ... if template is None else join(template, [self.backend.asarray(i) for i in indices])
        self.program.instructions.append((storage.__setitem__, (index, value)))

    def _bind(self, step: Step, inputs: list[Any], outs: list[Any]) -> list[Instruction]:
        """The calls of a step: of a ufunc with a place to write to, those of the record's `into`, any other's."""
        rec = step.record
        assert rec is not None
        call = rec.by_hand[self.backend.array_type] or rec.as_written(self.backend.array_type)
        several = rec.multiple or bool(rec.residuals)
        if rec.kind == "random":
            place = self.tape.draws[step.attributes["counter"]]
            return [(_draw, (self.program.streams, place, call, inputs, step.attributes, outs, several))]
        if rec.name == "concat" and any(self.root[v.number] in self.pieces for v in step.inputs):
            return self._join(step, inputs, outs[0])
        if isinstance(call, np.ufunc) and len(outs) == 1:
            return [(call, (*inputs, outs[0]))]
        if rec.into is not None and self.xp is np:
            return rec.into(np, outs[0], *inputs, **step.attributes)
        writes = rec.takes_places and getattr(call, "func", None) is (rec.fast or rec.forward)
        return [(_general, (call, inputs, step.attributes, outs, several, writes))]

    def _join(self, step: Step, inputs: list[Any], out: Any) -> list[Instruction]:
        """A concat whose parts were computed in place, but for those that were not."""
        calls, end = [], 0
        for array in inputs:
            start, end = end, end + array.shape[0]
            if not self.backend.shares_memory(array, out[start:end]):
                calls.append((out.__setitem__, (slice(start, end), array)))
        return calls


def _group_without_kernel() -> None:
    raise RuntimeError("internal error: a fused group was not bound to its kernel")


def _general(
    call: Any, inputs: list[Any], attributes: dict[str, Any], outs: list[Any], several: bool, writes: bool = False
) -> None:
    """Any operation: its forward, and a copy of what it gives into the places, unless it writes there itself."""
    result = call(*inputs, **attributes, **({"places": outs} if writes else {}))
    for out, value in zip(outs, _flat(result) if several else (result,), strict=True):
        if value is out:
            continue
        if value.shape != out.shape:  # what is picked by a mask from outside that was changed
            raise RuntimeError(f"a replay made an array of shape {value.shape}, its recording one of {out.shape}")
        out[...] = value


def _named_out(instruction: Instruction) -> Instruction:
    """NumPy wants the place of the result of `maximum` and `minimum` by name."""
    call, places = instruction
    return (partial(call, out=places[2]), places[:2]) if call in (np.maximum, np.minimum) else instruction


def _flat(result: Any) -> list[Any]:
    """Results and residuals in one row, without the residuals that are None."""
    flat: list[Any] = []
    for part in result:
        flat.extend(part) if isinstance(part, (list, tuple)) else flat.append(part)
    return [part for part in flat if part is not None]


def _draw(
    streams: list[tuple[int, int]],
    place: Any,
    call: Any,
    inputs: list[Any],
    attributes: dict[str, Any],
    outs: list[Any],
    several: bool,
) -> None:
    """A random operation, at its place in this run's reservation."""
    key, counter = streams[place.generator]
    _general(call, inputs, {**attributes, "key": key, "counter": counter + place.offset}, outs, several)
