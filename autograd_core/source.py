"""A program as one file of Python that NumPy alone runs: `step(state, inputs)`, with the same bits as the program.

The file is written from the calls that the program makes on the tier `array`, one line each, so it does what the
program does, in the same memory. What a call is of our own (the quick forward of a record, the rule of another, a
draw of random numbers) stands in the file too (`carrying.py`): a new record needs nothing here.
"""

from __future__ import annotations

import math
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from ..backends.numpy_backend import NumpyBackend
from . import bounds
from .fusion import FUSED, written_by
from .carrying import Library, implementation, literal
from .naming import host_numbers, module_paths, named_storages, unique
from .passes import reads
from .places import Builder, _draw, _flat, _general
from .program import Program
from .record import REGISTRY, raw_ops
from .recorder import Step, Value
from .rolling import LEAST, rolled
from .static_memory import Memory, extent, owner
from .tape import Undo
from .tensor import TENSOR_TYPES, Tensor, asarray
from .transforms import tree_leaves
from .vjp import fill


LARGEST = 1024  # elements of a constant that is written out
WRITES = {np.copyto: 0, np.dot: 2, np.concatenate: 2}
"""Functions with a place to write to that are no ufuncs → its position."""


class Entry(NamedTuple):
    """One array of `state`: where it is, the place it has in a run, and the one whose values it has afterwards."""

    name: str
    tensor: Tensor
    gradient: bool  # of the tensor, not the tensor itself
    before: np.ndarray | None
    after: np.ndarray | None

    def value(self) -> np.ndarray:
        """A copy of what it holds now; of a gradient that is absent, zeros."""
        if not self.gradient:
            return self.tensor.array.copy()
        return np.zeros_like(self.tensor.array) if self.tensor.grad is None else self.tensor.grad.array.copy()


class Export(NamedTuple):
    """The text, and what its two arguments are made from."""

    text: str
    entries: list[Entry]
    arguments: list[str]
    numbers: dict[str, Tensor]


class _ArrayTier(NumpyBackend):
    """NumPy without generated kernels."""

    highest_tier = "array"
    bound: Sequence[Any] = ()

    def bind(self, groups: Any, scratch: Any) -> Any:
        self.bound = super().bind(groups, scratch)
        return self.bound


class _Traced(Builder):
    """Notes the step that each call belongs to, and the calls before neighbours are cut into blocks."""

    def build(self) -> set[tuple[int, ...]]:
        self.program.trace = self  # type: ignore[attr-defined]
        self.steps: list[Step] = []
        return super().build()

    def _release(self, i: int, step: Step) -> None:
        super()._release(i, step)
        self.steps += [step] * (len(self.program.instructions) - len(self.steps))

    def _kernels(self) -> bool:
        complete = super()._kernels()
        if complete:
            many = {at: len(calls) for (at, _, _), calls in zip(self.groups, self.backend.bound, strict=True)}
            steps = [step for i, step in enumerate(self.steps) for _ in range(many.get(i, 1))]
            self.calls = [(*call, step) for call, step in zip(self.program.instructions, steps, strict=True)]
        return complete


def export(program: Program) -> Export:
    """The file of a program."""
    if program.backend.array_type is not np.ndarray:
        raise TypeError(
            f"source() writes programs on the backend 'numpy', this one runs on {program.backend.name!r}: compile the "
            "same function with tensors of NumPy"
        )
    if not program.valid():
        raise RuntimeError("this program's tensors were replaced since: call the compiled function once more")
    return _Writer(program).export()


class _Writer:
    """Writes one file."""

    def __init__(self, program: Program):
        self.called = program.called
        places = [Tensor(place) for place in program.input_places]
        self.program = Program(program.tape, places, _ArrayTier(), _Traced)
        self.tape = program.tape
        self.trace: _Traced = self.program.trace  # type: ignore[attr-defined]
        self.library = Library(("STATE", "CHANGED", "INPUTS", "step", "state", "inputs", "name", "place", "start", "stop"))
        written = [array for call, places, _ in self.trace.calls for array in _written(call, places)]
        self.fixed = self._fixed()
        known = [array for array in self.trace.places.values() if id(owner(array)) not in self.fixed]
        met = [array for _, places, _ in self.trace.calls for array in _arrays(places)]
        met += [array for check in self.program.checks for array in _arrays(check.args)]
        self.memory = Memory(self.library.fresh, [*known, *written], met, literal)
        self.library.array = self.memory.text
        self.numbers = {n: t for n, t in host_numbers(self.tape).items() if self._used(t)}
        self.names = named_storages(self.tape, self.called.function)

    def export(self) -> Export:
        entries = self._entries()
        arguments = self.called.arguments
        for name, place in zip(arguments, self.program.input_places, strict=True):
            self.memory.add(place, _identifier(name))
        for name, tensor in self.numbers.items():
            self.memory.add(tensor.array, _identifier(name))
        for entry in entries:
            for array in (entry.before, entry.after):
                if array is not None:
                    self.memory.add(array, _identifier(entry.name, array))
                    self.memory.view(array, _identifier(entry.name))
        checks = [self._check(check) for check in self.program.checks]
        body = list(self._body())
        result = self._result()
        tables = self._tables(entries, arguments)
        parts = [
            self._heading(entries, arguments),
            self.library.imported(),
            self.library.text(),
            "# " + "-" * 118 + "\n# Memory: what lies where, made once.",
            "\n".join(self.memory.lines),
            tables,
            "\n".join(["def step(state, inputs):", *_indented(self._start()), *_indented(checks), *_indented(body)])
            + "\n".join(["", *_indented(self._end(entries)), f"    return {result}"]),
        ]
        text = "\n\n".join(part for part in parts[:2]) + "\n\n\n" + "\n\n\n".join(p for p in parts[2:] if p) + "\n"
        return Export(text, entries, arguments, self.numbers)

    # -- what the program reads and writes -----------------------------------------------------------------------------

    def _fixed(self) -> set[int]:
        """Memory of small tensors that a call makes anew with the same values: they are written out."""
        written = {id(owner(self.trace.places[n])) for s in self.program.steps for n in written_by(s)}
        fixed = {*self.tape.fixed, *self.tape.constants.values()} & self.trace.places.keys()
        small = [n for n in fixed if math.prod(self.tape.specs[n][0]) <= LARGEST]
        return {id(owner(self.trace.places[n])) for n in small} - written

    def _used(self, tensor: Tensor) -> bool:
        return any(self.tape.storages[n].array is tensor.array for n in self._storages())

    def _storages(self) -> list[int]:
        """The tensors from outside that the program touches."""
        numbers = {n for step in self.program.steps for n in reads(step)}
        numbers |= {o.number for o in self.program.outputs if isinstance(o, Value)}
        numbers |= {n for _, n in self.program.grads if n is not None}
        return [n for n in self.tape.storages if n in numbers]

    def _entries(self) -> list[Entry]:
        """The arrays of `state`: named tensors that cover all memory which the program touches, then gradients."""
        written = [extent(self.trace.places[n]) for s in self.program.steps for n in written_by(s)]
        slots = {id(tensor.array) for tensor in self.numbers.values()}
        found: dict[Any, tuple[str, Tensor]] = {}
        names = dict(self.names)
        for number in self._storages():
            tensor = self.tape.storages[number]
            if id(tensor.array) in slots or id(owner(tensor.array)) in self.fixed:
                continue
            pieces = _covering(tensor, names)
            if pieces is None:
                name = unique("tensor", names)
                names[name] = tensor
                pieces = [(name, tensor)]
            for name, piece in pieces:
                found.setdefault(_where(piece.array), (name, piece))
        order = {name: i for i, name in enumerate(names)}
        entries = []
        for name, tensor in sorted(found.values(), key=lambda pair: order[pair[0]]):
            changes = any(_overlap(extent(tensor.array), w) for w in written)
            entries.append(Entry(name, tensor, False, tensor.array, tensor.array if changes else None))
        return entries + self._gradients(names)

    def _gradients(self, names: dict[str, Tensor]) -> list[Entry]:
        read = {id(leaf): place for place, leaf in self.program.grad_places}
        made = {id(leaf): n for leaf, n in self.program.grads}
        leaves = {id(leaf): leaf for leaf in [*[x for _, x in self.program.grad_places], *dict(self.program.grads)]}
        known = {_where(t.array): name for name, t in reversed(names.items())}
        entries: list[Entry] = []
        for key, leaf in leaves.items():
            name = known.get(_where(leaf.array)) or unique("tensor", names)
            names.setdefault(name, leaf)
            number = made.get(key)
            after = None if number is None else self.trace.places[number]
            if key in read or after is not None:
                entries.append(Entry(f"{name}/grad", leaf, True, read.get(key), after))
        return entries

    # -- the lines -----------------------------------------------------------------------------------------------------

    def _start(self) -> list[str]:
        lines = ['"""One call: changes the arrays of `state` in place, and returns the results."""']
        for table in ("state", "inputs"):
            lines += [f"for name, place in {table.upper()}.items():", f"    place[...] = {table}[name]"]
        for i in range(len(self.tape.generators)):
            lines.append(f'key_{i}, counter_{i} = stream(inputs["random.{i}"])')
        return lines

    def _end(self, entries: Sequence[Entry]) -> list[str]:
        return ["for name, place in CHANGED.items():", "    state[name][...] = place"]

    def _body(self) -> Iterator[str]:
        paths, shown = module_paths(self.tape), ""
        for _, calls in groupby(self.trace.calls, key=lambda traced: id(traced[2])):
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
            self.library.array = self.memory.spelled
            loop = rolled([self._line(*call) for call in calls])
            self.library.array = self.memory.text
            if loop is not None:
                return loop
        return [self._line(*call) for call in calls]

    def _line(self, call: Any, places: Sequence[Any], step: Step) -> str:
        if call is _general:
            _, inputs, attributes, outs, _ = places
            return self._record(step, inputs, attributes, outs)
        if call is _draw:
            _, place, _, inputs, attributes, outs, _ = places
            i = place.generator
            raw = {"key": f"key_{i}", "counter": f"counter_{i} + {place.offset}"}
            return self._record(step, inputs, {k: v for k, v in attributes.items() if k not in raw}, outs, raw)
        words: dict[str, Any] = {}
        while isinstance(call, partial):
            places, words, call = (*call.args, *places), {**call.keywords, **words}, call.func
        owner = getattr(call, "__self__", None)
        if isinstance(owner, np.ndarray) and call.__name__ == "__setitem__":
            return f"{self._text(owner)}[{self._index(places[0])}] = {self._text(places[1])}"
        if isinstance(call, np.ufunc) and len(places) == call.nin + 1 == call.nin + call.nout:
            places, words = places[:-1], {"out": places[-1], **words}
        return self._call(self.library.expression(call), places, words)

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
            left = ", ".join(next(given) if need else "_" for need in needs) + "," * (len(needs) == 1)
            left, pick = (targets[0], f"[{needs.index(True)}]") if len(targets) == 1 else (left, "")
            name = self.library.expression(rule, rec.name.replace(".vjp", "_rule"))
            return f"{left} = {self._call(name, values, {})}{pick}"
        call, several = implementation(rec)
        given: list[Any] = [*inputs]
        words = dict(attributes)
        while isinstance(call, partial):
            given, words, call = [*call.args, *given], {**call.keywords, **words}, call.func
        text = self._call(self.library.expression(call, f"{rec.name}_forward"), given, _told(call, words), raw)
        if not several:
            return f"{targets[0]} = {text}"
        flat = self.library.expression(_flat)
        return f"{', '.join(targets)} = {flat}({text})" if len(targets) > 1 else f"{targets[0]} = {flat}({text})[0]"

    def _call(self, name: str, places: Sequence[Any], words: Mapping[str, Any], raw: Any = ()) -> str:
        given = [*map(self._text, places), *[f"{k}={self._text(v)}" for k, v in words.items()]]
        given += [f"{k}={v}" for k, v in dict(raw).items()]
        return f"{name}({', '.join(given)})"

    def _text(self, value: Any) -> str:
        return self.library.expression(value)

    def _index(self, index: Any) -> str:
        parts = index if isinstance(index, tuple) else (index,)
        return ", ".join(_range(p) if isinstance(p, slice) else self._text(p) for p in parts) or "()"

    def _check(self, check: Any) -> str:
        rec, _, arrays, attributes = check.args
        assert check.func is bounds._check
        name = self.library.expression(rec.check, f"check_{rec.name}")
        return self._call(name, [self.program.backend, *arrays], _told(rec.check, attributes))

    def _result(self) -> str:
        values = iter(
            [f"{self._text(value)}.copy()" if copied else self._text(value) for value, copied in self.program.results]
        )
        return _nest(self.called.result, values, self.library)

    # -- tables --------------------------------------------------------------------------------------------------------

    def _tables(self, entries: Sequence[Entry], arguments: Sequence[str]) -> str:
        state = {e.name: e.before for e in entries if e.before is not None}
        changed = {e.name: e.after for e in entries if e.after is not None}
        inputs = dict(zip(arguments, self.program.input_places, strict=True))
        inputs |= {name: tensor.array for name, tensor in self.numbers.items()}
        lines = []
        for name, table in (("STATE", state), ("INPUTS", inputs), ("CHANGED", changed)):
            rows = [f"    {key!r}: {self._text(array)}," for key, array in table.items()]
            lines += [f"{name} = {{", *rows, "}"] if rows else [f"{name} = {{}}"]
        text = "\n".join(lines).replace("'", '"')
        if self.tape.generators:
            text += (
                "\n\n\ndef stream(words):\n"
                '    """The key and the counter of a random stream, from the 64-bit words of both."""\n'
                "    words = [int(word) << 64 * i for i, word in enumerate(words)]\n"
                "    return sum(words[:2]), sum(words[2:]) >> 128"
            )
        return text

    def _heading(self, entries: Sequence[Entry], arguments: Sequence[str]) -> str:
        name = getattr(self.called.function, "__name__", type(self.called.function).__name__)
        program = self.program
        rows = [["", "state", "shape", "dtype", "", ""]]
        rows = []
        for e in entries:
            array = e.before if e.before is not None else e.after
            use = "read, changed" if e.before is not None and e.after is not None else "read" if e.after is None else "set"
            rows.append((e.name, str(array.shape), str(array.dtype), use))  # type: ignore[union-attr]
        given = []
        for key, place in zip(arguments, program.input_places, strict=True):
            given.append((key, str(place.shape), str(place.dtype), "argument"))
        for key, tensor in self.numbers.items():
            given.append((key, str(tensor.shape), str(tensor.dtype), "computed on the host before each call"))
        for i, n in enumerate(self.tape.reserved):
            note = f"key (2 words) and counter (4 words) of a random stream; a call takes {n} blocks of it"
            given.append((f"random.{i}", "(6,)", "uint64", note))
        text = (
            f'"""One call of {name} as NumPy alone runs it: step(state, inputs).\n\n'
            f"Written by `program.source()` of retrograd: {len(self.trace.calls)} calls, {program.nbytes:,} bytes in "
            f"{program.buffers} arrays of its own, {program.flops:,} FLOP in matrix products and convolutions.\n\n"
            f"state: name → array, changed in place\n\n{_columns(rows)}\n\n"
            f'inputs: name → array\n\n{_columns(given)}\n"""'
        )
        return re.sub(r"[ ]+\n", "\n", text)


def state_of(made: Export) -> dict[str, np.ndarray]:
    """Name → copy of the array, for `step(state, inputs)`."""
    return {entry.name: entry.value() for entry in made.entries}


def inputs_of(program: Program, made: Export, args: Any, kwargs: Any) -> dict[str, np.ndarray]:
    """The inputs of the call that comes next; host calls run, and what they changed is put back."""
    leaves = tree_leaves((args, kwargs))
    tensors = [v if type(v) in TENSOR_TYPES else asarray(v) for _, v in leaves if _is_array(v)]
    wanted = [(place.shape, place.dtype) for place in program.input_places]
    given = [(t.array.shape, t.array.dtype) for t in tensors]
    if wanted != given:
        expected, came = (", ".join(f"{d} {s}" for s, d in specs) for specs in (wanted, given))
        raise ValueError(f"inputs: this program takes arrays {expected or 'none'}; got {came or 'none'}")
    found = {name: t.array.copy() for name, t in zip(made.arguments, tensors, strict=True)}
    undo, slots = Undo(), [(t, t.array.copy()) for t in made.numbers.values()]
    try:
        for call in program.tape.host_calls:
            undo.keep_host(call)
            call()
        found |= {name: t.array.copy() for name, t in made.numbers.items()}
    finally:
        undo.restore()
        for tensor, before in slots:
            tensor.array[...] = before
    for i, generator in enumerate(program.tape.generators):
        state = generator.state()
        words = [state["key"] >> 64 * n for n in range(2)] + [state["counter"] >> 64 * n for n in range(4)]
        found[f"random.{i}"] = np.array([w % (1 << 64) for w in words], np.uint64)
    return found


def _is_array(value: Any) -> bool:
    return type(value) in TENSOR_TYPES or isinstance(value, np.ndarray)


def _covering(tensor: Tensor, names: Mapping[str, Tensor]) -> list[tuple[str, Tensor]] | None:
    """Named tensors that hold exactly the memory of a tensor: itself, or the pieces laid end to end in it."""
    array = tensor.array
    low, high = extent(array)
    inside = []
    for name, other in names.items():
        if type(other.array) is not np.ndarray or owner(other.array) is not owner(array):
            continue
        if _where(other.array) == _where(array):
            return [(name, other)]
        start, end = extent(other.array)
        if low <= start and end <= high and end - start == other.array.nbytes:
            inside.append((start, end, name, other))
    at, found = low, []
    for start, end, name, other in sorted(inside, key=lambda piece: piece[:2]):
        if start == at and end > start:
            at = end
            found.append((name, other))
    return found if at == high and high - low == array.nbytes and array.size else None


def _where(array: np.ndarray) -> Any:
    return extent(array), array.shape, array.strides, id(owner(array)) if not array.size else 0


def _written(call: Any, places: Sequence[Any]) -> list[np.ndarray]:
    """The arrays that a call of NumPy writes into."""
    words: dict[str, Any] = {}
    while isinstance(call, partial):
        places, words, call = (*call.args, *places), {**call.keywords, **words}, call.func
    reduces = isinstance(getattr(call, "__self__", None), np.ufunc)
    first = call.nin if isinstance(call, np.ufunc) else 3 if reduces else WRITES.get(call, len(places))
    found = [*places[first : None if isinstance(call, np.ufunc) else first + 1], words.get("out")]
    return [array for array in found if isinstance(array, np.ndarray)]


def _arrays(value: Any) -> Iterator[np.ndarray]:
    """The arrays in what a call is given."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _arrays(inner)
    elif isinstance(value, dict):
        yield from _arrays(list(value.values()))


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _told(function: Callable, words: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments without those that say what the function takes anyway."""
    code = getattr(function, "__code__", None)
    if code is None:
        return dict(words)
    names = code.co_varnames[: code.co_argcount]
    given = function.__defaults__ or ()
    defaults = dict(zip(names[len(names) - len(given) :], given, strict=True)) | (function.__kwdefaults__ or {})
    return {
        k: v for k, v in words.items() if k not in defaults or type(defaults[k]) is not type(v) or defaults[k] != v
    }


def _nest(nest: Any, values: Iterator[str], library: Library) -> str:
    """The text of a nest whose leaves have these texts."""
    if isinstance(nest, dict):
        return "{" + ", ".join(f"{k!r}: {_nest(v, values, library)}" for k, v in nest.items()) + "}"
    if isinstance(nest, (list, tuple)):
        inner = ", ".join([_nest(v, values, library) for v in nest])
        return f"[{inner}]" if isinstance(nest, list) else f"({inner}{',' * (len(nest) == 1)})"
    return next(values)


def _range(part: slice) -> str:
    words = ["" if v is None else str(v) for v in (part.start, part.stop, part.step)]
    return ":".join(words if words[2] else words[:2])


def _identifier(name: str, array: np.ndarray | None = None) -> str:
    """A state's name as a Python name; of an array in a larger one, that of the larger one."""
    if array is not None and owner(array).size > array.size:
        name = "flat" + name.partition("/")[1] + name.partition("/")[2]
    name = re.sub(r"\W", "_", name)
    return name if not name[0].isdigit() else f"_{name}"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("    " + "  ".join(w.ljust(n) for w, n in zip(row, widths, strict=True)) for row in rows) or "    none"


def _indented(lines: Sequence[str]) -> list[str]:
    return [textwrap.indent(line, "    ") for line in lines]

