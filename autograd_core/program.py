"""A program: a flat list of calls over static arrays, made once from a recording and run many times.

    recording → passes → a place in memory for every value → prebound calls

Every value gets its array before the first run, so a run is `for call, arguments in instructions: call(*arguments)` and
nothing else: no dispatch, no graph, no allocation where the array library can write into a given place. What shares
memory in eager execution (views, storages that are changed in place) shares it here, in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..backends import Backend
from .blocking import Instruction, blocked
from .operations.indexing import join
from .passes import dead_code, is_effect, merge_equal, reads
from .recorder import Step, Value
from .tape import Tape
from .tensor import Tensor


class Program:
    """One signature of a compiled function.

    `steps` are what is left of the recording, `instructions` what a run calls, `nbytes` what its own arrays take.
    """

    def __init__(self, tape: Tape, arguments: Sequence[Tensor], backend: Backend):
        self.backend = backend
        self.tape = tape
        self.root = _roots(tape)
        written = {self.root[s.inputs[0].number] for s in tape.steps if is_effect(s)}
        steps, stands_for = merge_equal(tape.steps, [n for n, m in self.root.items() if m in written])
        self._stands_for = stands_for
        self.grads = [(leaf, None if n is None else stands_for.get(n, n)) for leaf, n in tape.grads]
        self.outputs = [
            Value(stands_for.get(o.number, o.number)) if isinstance(o, Value) else o for o in tape.outputs
        ]
        wanted = {o.number for o in self.outputs if isinstance(o, Value)} | {n for _, n in self.grads if n is not None}
        self.steps = dead_code(steps, wanted)
        self.storages = [(t, t.array) for t in tape.storages.values()]
        self.counters = [0] * len(tape.generators)
        self.instructions: list[Instruction] = []
        self.nbytes = 0
        _Builder(self, arguments, wanted).build()

    def valid(self) -> bool:
        """Whether the tensors from outside still hold the arrays that the calls are bound to."""
        return all(tensor.array is array for tensor, array in self.storages)

    def run(self, arguments: Sequence[Tensor]) -> list[Any]:
        """Copy the arguments in, repeat what Python did, run, and hand the results out as fresh tensors."""
        for place, tensor in zip(self.input_places, arguments, strict=True):
            place[...] = tensor.array
        for place, leaf in self.grad_places:
            place[...] = leaf.grad.array
        for call in self.tape.host_calls:
            call()
        for i, (generator, n) in enumerate(zip(self.tape.generators, self.tape.reserved, strict=True)):
            self.counters[i] = generator.stream.reserve(n)
        for call, places in self.instructions:
            call(*places)
        for tensor in self.changed:
            tensor.cell[0] += 1
        for leaf, array in self.grad_results:
            leaf.grad = None if array is None else Tensor(array)
        return [Tensor(o.copy()) if c else o for o, c in self.results]

    input_places: list[Any]
    grad_places: list[tuple[Any, Any]]  # with the leaf, which has a gradient by then
    grad_results: list[tuple[Tensor, Any]]
    results: list[tuple[Any, bool]]
    changed: list[Any]  # leaves, so they have a version

    def __repr__(self) -> str:
        lines = [f"program of {len(self.steps)} steps, {len(self.instructions)} calls, {self.nbytes:,} bytes"]
        return "\n".join([*lines, *[f"  {s!r}" for s in self.steps]])


class _Builder:
    """Gives every value of a program its array, and binds the calls."""

    def __init__(self, program: Program, arguments: Sequence[Tensor], wanted: set[int]):
        self.program, self.tape, self.backend = program, program.tape, program.backend
        self.xp = self.backend.xp
        self.places: dict[int, Any] = {}
        self.root = program.root
        self.last_use: dict[int, int] = {}
        self.free: dict[tuple[Any, ...], list[Any]] = {}
        self.pieces: dict[int, Any] = {}  # value → its place inside a flat array
        self.own: dict[int, Any] = {}  # root → array that may be used again when its last reader is done
        self.wanted = wanted
        self.arguments = arguments

    def build(self) -> None:
        program, tape = self.program, self.tape
        program.input_places = []
        for number, tensor in zip(tape.inputs, self.arguments, strict=True):
            program.input_places.append(self._put(number, self._empty(tensor.shape, tensor.dtype)))
        for number, tensor in tape.storages.items():
            self._put(number, tensor.array)
        program.grad_places = [(self._put(n, self._empty(*tape.specs[n])), leaf) for n, leaf in tape.grad_reads.items()]
        self._find_last_uses()
        targets = self._targets()
        self._place_pieces()
        for i, step in enumerate(program.steps):
            if is_effect(step):
                if i not in targets.values():
                    self._assign(step)
            else:
                self._step(i, step, targets)
            self._release(i, step)
        if self.xp is np:
            program.instructions = [_named_out(i) for i in blocked(program.instructions)]
        program.results = [
            (self.places[o.number], True) if isinstance(o, Value) else (o, False) for o in program.outputs
        ]
        program.grad_results = [(leaf, None if n is None else self.places[n]) for leaf, n in program.grads]
        changed = {v.number for s in program.steps if is_effect(s) for v in s.inputs[:1]}
        program.changed = [t for n, t in tape.storages.items() if n in changed and t.cell is not None]

    def _put(self, number: int, array: Any) -> Any:
        self.places[number] = array
        return array

    def _empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        self.program.nbytes += int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.xp.empty(shape, dtype)

    def _find_last_uses(self) -> None:
        for i, step in enumerate(self.program.steps):
            for number in [*reads(step), *step.outputs]:
                self.last_use[self.root[number]] = i
        for number in self.wanted:
            self.last_use[self.root[number]] = len(self.program.steps)

    def _targets(self) -> dict[int, int]:
        """Values that can be computed straight into the storage that they are assigned to: value → its assign."""
        found: dict[int, int] = {}
        made = {n: i for i, s in enumerate(self.program.steps) for n in s.outputs}
        for i, step in enumerate(self.program.steps):
            if not is_effect(step) or step.attributes["template"] is not None or not isinstance(step.inputs[1], Value):
                continue
            storage, value = step.inputs[0].number, step.inputs[1].number
            start = made.get(value)
            if start is None or value in found or self.root[value] != value:
                continue
            if self.tape.specs[value] != self.tape.specs[storage]:
                continue
            maker = self.program.steps[start]
            ufunc = maker.record is not None and isinstance(maker.record.impl[self.backend.array_type], np.ufunc)
            memory = self.root[storage]
            between = self.program.steps[start + (1 if ufunc else 0) : i]
            touched = any(self.root[n] == memory for s in between for n in reads(s))
            viewed = any(self.root[n] == memory and n != storage for n in reads(maker))
            elementwise = maker.record is not None and maker.record.kind == "elementwise"
            if elementwise and not touched and not viewed and value not in self.wanted:
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
                if maker is None or maker.record is None or len(maker.outputs) != 1 or piece in self.pieces:
                    continue
                if math.prod(self.tape.specs[piece][0]) == end - start and self._straight(value.number, piece, made):
                    pieces.append((piece, start, end))
            if not pieces:
                continue
            array = self._put(whole, self._empty(*self.tape.specs[whole]))
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
        if step.view:
            out = rec.as_written(self.backend.array_type)(*inputs, **step.attributes)
            for number, array in zip(step.outputs, out if rec.multiple else (out,), strict=True):
                self.places[number] = array
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

    def _read(self, value: Any) -> Any:
        return self.places[value.number] if isinstance(value, Value) else value

    def _claim(self, i: int, step: Step, number: int) -> Any:
        """Memory for a result: that of an input which nobody reads any more, a free array of the same form, or new."""
        shape, dtype = self.tape.specs[number]
        rec = step.record
        if rec is not None and isinstance(rec.impl[self.backend.array_type], np.ufunc):
            for n in reads(step):
                if n in self.own and self.last_use[n] == i and self.tape.specs[n] == (shape, dtype):
                    self.own[number] = self.own.pop(n)
                    return self.own[number]
        key = (tuple(shape), np.dtype(dtype))
        pool = self.free.get(key)
        array = pool.pop() if pool else self._empty(shape, dtype)
        self.own[number] = array
        return array

    def _release(self, i: int, step: Step) -> None:
        for number in {self.root[n] for n in [*reads(step), *step.outputs]}:
            if number in self.own and self.last_use[number] <= i:
                array = self.own.pop(number)
                self.free.setdefault((tuple(array.shape), np.dtype(array.dtype)), []).append(array)

    def _assign(self, step: Step) -> None:
        storage, value, *indices = [self._read(v) for v in step.inputs]
        template = step.attributes["template"]
        index = ... if template is None else join(template, [self.backend.asarray(i) for i in indices])
        self.program.instructions.append((storage.__setitem__, (index, value)))

    def _bind(self, step: Step, inputs: list[Any], outs: list[Any]) -> list[Instruction]:
        """The calls of a step: of a ufunc with a place to write to, those of the record's `into`, any other's."""
        rec = step.record
        assert rec is not None
        call = rec.impl[self.backend.array_type] or rec.as_written(self.backend.array_type)
        several = rec.multiple or bool(rec.residuals)
        if rec.kind == "random":
            place = self.tape.draws[step.attributes["counter"]]
            return [(_draw, (self.program.counters, place, call, inputs, step.attributes, outs, several))]
        if rec.name == "concat" and any(self.root[v.number] in self.pieces for v in step.inputs):
            return self._join(step, inputs, outs[0])
        if isinstance(call, np.ufunc) and len(outs) == 1:
            return [(call, (*inputs, outs[0]))]
        if rec.into is not None and self.xp is np:
            return rec.into(np, outs[0], *inputs, **step.attributes)
        return [(_general, (call, inputs, step.attributes, outs, several))]


    def _join(self, step: Step, inputs: list[Any], out: Any) -> list[Instruction]:
        """A concat whose parts were computed in place, but for those that were not."""
        calls, end = [], 0
        for array in inputs:
            start, end = end, end + array.shape[0]
            if not self.backend.shares_memory(array, out):
                calls.append((out.__setitem__, (slice(start, end), array)))
        return calls


def _roots(tape: Tape) -> dict[int, int]:
    """Value → the first value that lies in the same memory: of a view what it was taken of, of the pieces of one flat
    array the first piece."""
    root = {number: number for number in range(len(tape.specs))}
    owners: dict[int, int] = {}
    for number, tensor in tape.storages.items():
        base = tensor.array
        while getattr(base, "base", None) is not None:
            base = base.base
        root[number] = owners.setdefault(id(base), number)
    for step in tape.steps:
        if step.view:
            for number in step.outputs:
                root[number] = root[step.inputs[0].number]
    return root


def _general(call: Any, inputs: list[Any], attributes: dict[str, Any], outs: list[Any], several: bool) -> None:
    """Any operation: its forward, and a copy of what it gives into the places."""
    result = call(*inputs, **attributes)
    for out, value in zip(outs, _flat(result) if several else (result,), strict=True):
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
    counters: list[int],
    place: Any,
    call: Any,
    inputs: list[Any],
    attributes: dict[str, Any],
    outs: list[Any],
    several: bool,
) -> None:
    """A random operation, at its place in this run's reservation."""
    _general(call, inputs, {**attributes, "counter": counters[place.generator] + place.offset}, outs, several)
