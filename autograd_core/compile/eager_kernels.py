"""Fused records in eager mode on generated kernels: each call is a small program, bound anew to its operands.

    gelu(x)   the record written out (expansion.py) → passes, fusion, places (program.py) → one kernel   once per shape
              an array for the result; the kernel on x and on that array                                every call

The first order of a record goes the same way: what is written out is then the walk back through its forward.

The hand-written form remains where it serves better: for a record that no kernel holds, for one elementwise operation
alone, where products are between (attention goes through its scores in blocks, which a program would lay out whole),
for dtypes other than float32, and in calls that are recorded, as a program has its own kernels.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..context import current
from ..recorder import Step, Value
from ..tensor import Tensor
from ..vjp import HOLE, vjp_record
from .expansion import written_out
from .fusion import FLAT, FUSED
from .program import Program

MAX_PROGRAMS = 256  # of one record; shapes beyond that are computed by hand
_making = threading.RLock()


class _Quick:
    """The programs of one record's calls, by shapes, dtypes and everything else that they depend on."""

    def __init__(self, rec: Any, backend: Any, by_hand: Callable[..., Any]):
        self.record, self.backend, self.by_hand = rec, backend, by_hand
        self.programs: dict[Any, Rebound | None] = {}
        self.begun: set[Any] = set()  # what a program needs to be made is computed by hand
        self.without = (None,) * len(rec.residuals)  # what is written out leaves none

    def _program(self, key: Any, *call: Any) -> Rebound | None:
        """The program for a key, made from the call where it is the first; None where the hand-written form serves."""
        if not current().plain:
            return None
        try:
            return self.programs[key]
        except KeyError:
            pass
        except TypeError:  # an attribute that cannot be a key
            return None
        with _making:  # who meets it meanwhile waits: the last bits must not depend on who came first
            if key in self.programs:
                return self.programs[key]
            if key in self.begun or len(self.programs) >= MAX_PROGRAMS:
                return None
            self.begun.add(key)
            self.programs[key] = made = self._made(call)
            return made

    def _made(self, call: tuple[Any, ...]) -> Rebound | None:
        raise NotImplementedError


class QuickForward(_Quick):
    """The forward of a fused record on raw arrays: its program for these shapes, or `by_hand`."""

    def __call__(self, *arrays: Any, **attributes: Any) -> Any:
        if len(arrays) == 1:
            key: Any = (arrays[0].shape, arrays[0].dtype.char, *attributes.items())
            given: Sequence[Any] = arrays
        else:
            key = (*[a if a is None else (a.shape, a.dtype.char) for a in arrays], *attributes.items())
            given = [a for a in arrays if a is not None]
        program = self._program(key, arrays, attributes)
        if program is None:
            return self.by_hand(*arrays, **attributes)
        (out,) = program(given)
        return (out, *self.without) if self.without else out

    def _made(self, call: tuple[Any, ...]) -> Rebound | None:
        arrays, attributes = call
        given = [a for a in arrays if a is not None]
        if not _suited(given):
            return None
        numbers = iter(range(len(given)))
        inputs = tuple(None if a is None else Value(next(numbers)) for a in arrays)
        return _rebound(Step(self.record, inputs, self.record.defaults | attributes, (), ""), given, (), self.backend)


class QuickRule(_Quick):
    """The joint rule of a fused record on raw arrays: its program for these shapes, or `by_hand`, the rule itself."""

    def __call__(self, ops: Any, needs: tuple[bool, ...], *values: Any) -> Sequence[Any]:
        parts: list[Any] = [needs]
        given: list[Any] = []
        for value in values:
            if type(value) is np.ndarray:
                given.append(value)
                parts += (value.shape, value.dtype.char)
            else:
                parts.append(value)
        program = self._program(tuple(parts), ops, needs, values)
        if program is None:
            return self.by_hand(ops, needs, *values)
        found = program(given)
        if len(needs) == 1:
            return found
        wanted = iter(found)
        return [next(wanted) if need else None for need in needs]

    def _made(self, call: tuple[Any, ...]) -> Rebound | None:
        ops, needs, values = call
        given = [v for v in values if type(v) is np.ndarray]
        if not _suited(given):
            return None
        layout = [HOLE if type(v) is np.ndarray else v for v in values]
        inputs = tuple(map(Value, range(len(given))))
        outs = [(g.shape, g.dtype) for g in self.by_hand(ops, needs, *values) if g is not None]
        step = Step(vjp_record(self.record), inputs, {"layout": layout, "needs": needs}, (), "")
        return _rebound(step, given, outs, self.backend)


class Rebound:
    """A program whose arguments and results are other arrays at every call; what lies between keeps its place."""

    def __init__(self, program: Program):
        self.places = program.input_places
        self.results = [place for place, _ in program.results]
        self.lock = threading.Lock()  # two threads must not use the places between at the same time
        held = [t.array for t in program.tape.storages.values()]
        bound: list[Any] = list(self.places)
        for i, place in enumerate(self.results):
            others = [*self.places, *held, *self.results[:i]]
            shared = [k for k, other in enumerate(others) if np.may_share_memory(place, other)]
            bound.append(place if not shared and place.flags.c_contiguous else None)
            for k in shared:
                if k < len(self.places):  # the result is a view of an operand, so that is copied in
                    bound[k] = None
        for call, places in program.instructions:
            for array in _inside([getattr(call, "keywords", None), getattr(call, "args", None), _nested(places)]):
                for i, place in enumerate(bound):
                    if place is not None and np.may_share_memory(array, place):
                        bound[i] = None
        self.bound = bound
        self.calls = [(call, places, _bindings(places, bound)) for call, places in program.instructions]
        # One call that goes from operands to results leaves nothing between: it needs no lock and no copies.
        self.fresh = [(place.shape, place.dtype) for place in self.results]
        self.single: Any = None
        if len(self.calls) == 1 and all(place is not None for place in bound):
            call, places, bindings = self.calls[0]
            first = len(places) - len(bound)
            if bindings == [(first + i, i, None, 0, bound[i].strides) for i in range(len(bound))]:
                self.single = partial(call, *places[:first])

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        if self.single is not None:
            results = [np.empty(shape, dtype) for shape, dtype in self.fresh]
            for array in arrays:
                if not array.flags.c_contiguous:
                    break
            else:
                self.single(*arrays, *results)
                return results
        bound, n = self.bound, len(self.places)
        given: list[Any] = list(arrays)
        with self.lock:
            for i, array in enumerate(arrays):
                if bound[i] is None or not array.flags.c_contiguous:
                    self.places[i][...] = array
                    given[i] = self.places[i]
            for place, fresh in zip(self.results, bound[n:], strict=True):
                given.append(place if fresh is None else np.empty(place.shape, place.dtype))
            for call, places, bindings in self.calls:
                call(*(_filled_in(places, bindings, given) if bindings else places))
            return [a.copy() if fresh is None else a for a, fresh in zip(given[n:], bound[n:], strict=True)]


def _filled_in(places: Sequence[Any], bindings: Sequence[tuple[Any, ...]], given: Sequence[Any]) -> list[Any]:
    """The arguments of a call, with what is bound taken from `given`."""
    filled = list(places)
    for position, source, shape, offset, strides in bindings:
        array = given[source]
        filled[position] = array if shape is None else np.ndarray(shape, array.dtype, array, offset, strides)
    return filled


def _suited(arrays: Sequence[Any]) -> bool:
    """Whether kernels are made for such arrays: single precision, and not empty."""
    return {a.dtype.char for a in arrays if a.dtype.kind == "f"} == {"f"} and all(a.size for a in arrays)


def _rebound(step: Step, arrays: Sequence[Any], outs: Sequence[Any], backend: Any) -> Rebound | None:
    """The program of one step on arrays like these; None where the hand-written form serves better."""
    specs = [(a.shape, a.dtype) for a in arrays]
    every = iter(specs)
    written = written_out(step, [None if v is None else next(every) for v in step.inputs], outs)
    if written is None or any(s.record is not None and s.record.kind == "contraction" for s in written.tape.steps):
        return None
    tape = written.tape
    tape.inputs, tape.outputs = written.inputs, [Value(n) for n in written.outputs]
    program = Program(tape, [Tensor(np.empty(*spec)) for spec in specs], backend)
    groups = [s.attributes["group"] for s in program.steps if s.record is FUSED]
    several = any(len([m for m in g.members if m.record and m.record.name not in FLAT]) > 1 for g in groups)
    return Rebound(program) if several else None


def _nested(places: Sequence[Any]) -> list[Any]:
    return [p for p in places if type(p) is not np.ndarray]


def _inside(value: Any) -> list[Any]:
    """All arrays in a nest of lists, tuples and dicts."""
    if type(value) is np.ndarray:
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [array for part in parts for array in _inside(part)]


def _bindings(places: Sequence[Any], bound: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Where an instruction's arrays lie in bound ones: (position, which one, shape, offset, strides), shape None for
    the whole as it is."""
    found: list[tuple[Any, ...]] = []
    for position, array in enumerate(places):
        for source, place in enumerate(bound):
            if type(array) is not np.ndarray or place is None or not np.may_share_memory(array, place):
                continue
            offset = array.__array_interface__["data"][0] - place.__array_interface__["data"][0]
            whole = array.shape == place.shape and array.strides == place.strides
            found.append((position, source, None if whole else array.shape, offset, array.strides))
            break
    return found
