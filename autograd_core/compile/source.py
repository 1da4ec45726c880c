"""A program as one file of Python that NumPy alone runs: `step(state, inputs)`, with the same bits as the program.

The file is written from the calls that the program makes on the tier `array`, one line each, so it does what the
program does, in the same memory. What a call is of our own (the quick forward of a record, the rule of another, a
draw of random numbers) stands in the file too (`carrying.py`): a new record needs nothing here.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from ..record import REGISTRY, raw_ops
from ..recorder import Step
from ..vjp import fill
from . import bounds
from .carrying import Library, implementation, literal
from .fusion import FUSED
from .naming import module_paths
from .places import _draw, _flat, _general
from .program import Program
from .program_state import Entry, Export, Touched
from .rolling import LEAST, rolled
from .static_memory import Memory, owner
from .tracing import arrays_in, traced, unfolded, written_arrays

TAKEN = ("STATE", "CHANGED", "INPUTS", "step", "stream", "state", "inputs", "name", "place", "start", "stop")
STREAM = '''def stream(words):
    """The key and the counter of a random stream, from the 64-bit words of both."""
    words = [int(word) << 64 * i for i, word in enumerate(words)]
    return sum(words[:2]), sum(words[2:]) >> 128'''


def export(program: Program) -> Export:
    """The file of a program."""
    if program.backend.array_type is not np.ndarray:
        raise TypeError(
            f"source() writes programs on the backend 'numpy', this one runs on {program.backend.name!r}: compile the "
            "same function with tensors of NumPy"
        )
    if not program.tape.stands():
        raise RuntimeError("this program's tensors were replaced since: call the compiled function once more")
    return _Writer(program).export()


class _Writer:
    """Writes one file."""

    def __init__(self, program: Program):
        self.called, self.tape = program.called, program.tape
        plan = traced(program)
        self.program, self.calls = plan.program, plan.calls
        self.touched = Touched(plan, self.called.function)
        self.numbers = self.touched.numbers
        self.carried = Library(TAKEN)
        buffers = [array for array in plan.places.values() if id(owner(array)) not in self.touched.constants]
        scratch = [array for call, places, _ in self.calls for array in written_arrays(call, places)]
        met = [array for _, places, _ in self.calls for array in arrays_in(places)]
        met += [array for check in self.program.checks for array in arrays_in(check.args)]
        self.memory = Memory(self.carried.fresh, buffers, scratch, met, literal)
        self.carried.array = self.memory.text

    def export(self) -> Export:
        entries = self.touched.entries()
        arguments = self.called.arguments
        for name, place in zip(arguments, self.program.input_places, strict=True):
            self.memory.add(place, _identifier(name))
        for name, tensor in self.numbers.items():
            self.memory.add(tensor.array, _identifier(name))
        for entry in entries:
            for array in (entry.before, entry.after):
                if array is not None:
                    kind = "".join(entry.name.partition("/")[1:])
                    self.memory.add(array, _identifier(entry.name if self.memory.fills(array) else f"flat{kind}"))
                    self.memory.view(array, _identifier(entry.name))
        tables = self._tables(entries, arguments)
        step = self._step(tables)
        parts = [
            self.carried.text(),
            f"# {'-' * 116}\n# Memory: what lies where, made once.\n\n" + "\n".join(self.memory.lines),
            "\n\n".join(_table(name, table) for name, table in tables.items() if table),
            STREAM if self.tape.generators else "",
            step,
        ]
        head = f"{self._heading(entries, arguments)}\n\n{self.carried.imported()}"
        text = "\n\n\n".join([head, *[part for part in parts if part]]) + "\n"
        entries = [entry._replace(before=None, after=None) for entry in entries]  # the memory may go
        return Export(text, entries, arguments, self.numbers)

    # -- the lines -----------------------------------------------------------------------------------------------------

    def _step(self, tables: Mapping[str, Any]) -> str:
        lines = ['"""One call: changes the arrays of `state` in place, and returns the results."""']
        for table in ("state", "inputs"):
            if tables[table.upper()]:
                lines += [f"for name, place in {table.upper()}.items():", f"    place[...] = {table}[name]"]
        for i in range(len(self.tape.generators)):
            lines.append(f'key_{i}, counter_{i} = stream(inputs["random.{i}"])')
        lines += [self._check(check) for check in self.program.checks]
        lines += self._body()
        if tables["CHANGED"]:
            lines += ["for name, place in CHANGED.items():", "    state[name][...] = place"]
        lines.append(f"return {self._result()}")
        indented = textwrap.indent("\n".join(lines), "    ")
        return f'@np.errstate(all="ignore")\ndef step(state, inputs):\n{indented}'

    def _body(self) -> Iterator[str]:
        paths, shown = module_paths(self.tape), ""
        for _, calls in groupby(self.calls, key=lambda traced: id(traced[2])):
            listed = list(calls)
            step = listed[0][2]
            head = self._head(step, paths)
            if head != shown:
                yield "\n".join(textwrap.wrap(head, 114, initial_indent="# ", subsequent_indent="#     "))
                shown = head
            yield from self._lines(listed)

    def _head(self, step: Step, paths: Mapping[int, str]) -> str:
        """Where a step comes from: the module, the user's line, and what is fused in it."""
        group = step.attributes.get("group") if step.record is FUSED else None
        first = group.members[0] if group else step
        module = self.tape.made_in.get(first.outputs[0]) if first.outputs else None
        what = "fused: " + " ".join(m.record.name if m.record else "assign" for m in group.members) if group else ""
        return " · ".join(part for part in (paths.get(id(module)), os.path.basename(first.line), what) if part)

    def _lines(self, calls: Sequence[Any]) -> list[str]:
        """The lines of a step; those of its blocks as a loop."""
        if len(calls) > LEAST:
            self.carried.array = self.memory.spelled
            loop = rolled([self._line(*call) for call in calls])
            self.carried.array = self.memory.text
            if loop is not None:
                return loop
        return [self._line(*call) for call in calls]

    def _line(self, call: Any, places: Sequence[Any], step: Step) -> str:
        if call is _general:
            _, inputs, attributes, outs, *_ = places
            return self._record(step, inputs, attributes, outs)
        if call is _draw:
            _, place, _, inputs, attributes, outs, _ = places
            i = place.generator
            raw = {"key": f"key_{i}", "counter": f"counter_{i} + {place.offset}"}
            return self._record(step, inputs, {k: v for k, v in attributes.items() if k not in raw}, outs, raw)
        call, places, words = unfolded(call, places)
        array = getattr(call, "__self__", None)
        if isinstance(array, np.ndarray) and call.__name__ == "__setitem__":
            return f"{self._text(array)}[{self._index(places[0])}] = {self._text(places[1])}"
        if isinstance(call, np.ufunc) and len(places) == call.nin + 1 == call.nin + call.nout:
            places, words = places[:-1], {"out": places[-1], **words}
        return self._call(self.carried.expression(call), places, words)

    def _record(
        self, step: Step, inputs: Sequence[Any], attributes: Mapping[str, Any], outs: Any, raw: Any = ()
    ) -> str:
        """The line of a record that has no place to write to: its value is copied there."""
        rec = step.record
        assert rec is not None
        targets = [f"{self._text(out)}[...]" for out in outs]
        if rec.name.endswith(".vjp"):
            needs = attributes["needs"]
            values = [raw_ops(np.ndarray), needs, *fill(attributes["layout"], iter(inputs))]
            rule: Any = REGISTRY[rec.name.removesuffix(".vjp")].joint
            given = iter(targets)
            left, pick = ", ".join(next(given) if need else "_" for need in needs), ""
            if len(targets) == 1:
                left, pick = targets[0], f"[{needs.index(True)}]"
            name = self.carried.expression(rule, rec.name.replace(".vjp", "_rule"))
            return f"{left} = {self._call(name, values, {})}{pick}"
        call, several = implementation(rec)
        call, given, words = unfolded(partial(call, *inputs, **attributes), ())
        text = self._call(self.carried.expression(call, f"{rec.name}_forward"), given, _told(call, words), raw)
        if not several:
            return f"{targets[0]} = {text}"
        flat = self.carried.expression(_flat)
        return f"{', '.join(targets)} = {flat}({text})" if len(targets) > 1 else f"{targets[0]} = {flat}({text})[0]"

    def _call(self, name: str, places: Sequence[Any], words: Mapping[str, Any], raw: Any = ()) -> str:
        given = [*map(self._text, places), *[f"{k}={self._text(v)}" for k, v in words.items()]]
        given += [f"{k}={v}" for k, v in dict(raw).items()]
        return f"{name}({', '.join(given)})"

    def _text(self, value: Any) -> str:
        return self.carried.expression(value)

    def _index(self, index: Any) -> str:
        parts = index if isinstance(index, tuple) else (index,)
        return ", ".join(_range(p) if isinstance(p, slice) else self._text(p) for p in parts) or "()"

    def _check(self, check: Any) -> str:
        rec, _, arrays, attributes = check.args
        assert check.func is bounds._check
        name = self.carried.expression(rec.check, f"check_{rec.name}")
        return self._call(name, [self.program.backend, *arrays], _told(rec.check, attributes))

    def _result(self) -> str:
        values = iter(
            [f"{self._text(value)}.copy()" if copied else self._text(value) for value, copied in self.program.results]
        )
        return _nest(self.called.result, values, self.carried)

    # -- tables --------------------------------------------------------------------------------------------------------

    def _tables(self, entries: Sequence[Entry], arguments: Sequence[str]) -> dict[str, dict[str, str]]:
        """The tables of the file: name → the text of an array."""
        inputs = dict(zip(arguments, self.program.input_places, strict=True))
        inputs |= {name: tensor.array for name, tensor in self.numbers.items()}
        tables = {
            "STATE": {e.name: e.before for e in entries if e.before is not None},
            "INPUTS": inputs,
            "CHANGED": {e.name: e.after for e in entries if e.after is not None},
        }
        return {name: {k: self._text(array) for k, array in table.items()} for name, table in tables.items()}

    def _heading(self, entries: Sequence[Entry], arguments: Sequence[str]) -> str:
        name = getattr(self.called.function, "__name__", type(self.called.function).__name__)
        program = self.program
        rows = []
        for e in entries:
            array = e.before if e.before is not None else e.after
            use = "set" if e.before is None else "read" if e.after is None else "read, changed"
            rows.append((e.name, str(array.shape), str(array.dtype), use))  # type: ignore[union-attr]
        given = []
        for key, place in zip(arguments, program.input_places, strict=True):
            given.append((key, str(place.shape), str(place.dtype), "argument"))
        for key, tensor in self.numbers.items():
            given.append((key, str(tensor.shape), str(tensor.dtype), "computed on the host before each call"))
        for i, n in enumerate(self.tape.reserved):
            note = f"key (2 words) and counter (4 words) of a random stream; a call takes {n} blocks of it"
            given.append((f"random.{i}", "(6,)", "uint64", note))
        size = (
            f"Written by `program.source()` of retrograd: {len(self.calls)} calls, {program.nbytes:,} bytes in "
            f"{program.buffers} arrays of its own, {program.flops:,} FLOP in matrix products and convolutions."
        )
        return (
            f'"""One call of {name} as NumPy alone runs it: step(state, inputs).\n\n{textwrap.fill(size, 116)}\n\n'
            f"state: name → array, changed in place\n\n{_columns(rows)}\n\n"
            f'inputs: name → array\n\n{_columns(given)}\n"""'
        )


def _told(function: Callable, words: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments without those that say what the function takes anyway."""
    code = getattr(function, "__code__", None)
    if code is None:
        return dict(words)
    names = code.co_varnames[: code.co_argcount]
    given = function.__defaults__ or ()
    defaults = dict(zip(names[len(names) - len(given) :], given, strict=True)) | (function.__kwdefaults__ or {})
    return {k: v for k, v in words.items() if k not in defaults or type(defaults[k]) is not type(v) or defaults[k] != v}


def _nest(nest: Any, values: Iterator[str], library: Library) -> str:
    """The text of a nest whose leaves have these texts."""
    if isinstance(nest, dict):
        inner = [f"{library.expression(k)}: {_nest(v, values, library)}" for k, v in nest.items()]
        return "{" + ", ".join(inner) + "}"
    if isinstance(nest, (list, tuple)):
        inner = ", ".join([_nest(v, values, library) for v in nest])
        return f"[{inner}]" if isinstance(nest, list) else f"({inner}{',' * (len(nest) == 1)})"
    return next(values)


def _range(part: slice) -> str:
    words = ["" if v is None else str(v) for v in (part.start, part.stop, part.step)]
    return ":".join(words if words[2] else words[:2])


def _identifier(name: str) -> str:
    """A state's name as a Python name."""
    name = re.sub(r"\W", "_", name)
    return name if not name[0].isdigit() else f"_{name}"


def _table(name: str, rows: Mapping[str, str]) -> str:
    return "\n".join([f"{name} = {{", *[f'    "{key}": {text},' for key, text in rows.items()], "}"])


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["    " + "  ".join(w.ljust(n) for w, n in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) or "    none"
