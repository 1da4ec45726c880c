"""A description as source that Numba compiles: one readable function over a range of rows.

`stages.py` says which loop over a row computes what; here it is written down, and every number gets its dtype.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .description import Description, Reduction, Statement, Store
from .expressions import translate
from .stages import Stages, is_read

_OURS = {"maximum", "minimum", "where", "exp", "expm1", "log", "log1p", "log2", "log10", "tanh", "erf", "sin", "cos"}
_START = {"sum": "0", "max": "-np.inf", "min": "np.inf"}


def source(description: Description, name: str) -> str:
    """The generated file."""
    writer = _Writer(description)
    parameters = ", ".join(["lo", "hi", *[o.name for o in description.operands]])
    body = "\n".join(f"    {line}" for line in writer.lines())
    functions = sorted(set(re.findall(r"(?<![.\w])(\w+)\(", body)) & _OURS)
    ours = f"from retrograd.backends.kernels.mathematics import {', '.join(functions)}\n" if functions else ""
    return (
        '"""A kernel that retrograd generated: see retrograd/backends/kernels."""\n\n'
        "import math\n\nimport numpy as np\n\n"
        "from retrograd.backends.kernels.compiled import kernel\n"
        f"{ours}\n\n"
        f'@kernel("{signature(description)}")\n'
        f"def {name}({parameters}):\n{body}\n"
    )


def signature(description: Description) -> str:
    """The types of the arguments, as Numba writes them."""
    types = []
    for o in description.operands:
        kind = "boolean" if o.dtype == "bool" else o.dtype
        rank = len(o.axes)
        places = ":" if rank else ""
        if rank:
            places = ", ".join([":"] * (rank - 1) + ["::1" if o.contiguous else ":"])
        types.append(f"Array({kind}, 0, 'C')" if not rank else f"{kind}[{places}]")
    return f"void(int64, int64, {', '.join(types)})"


class _Writer:
    def __init__(self, description: Description):
        self.d = description
        self.stages = Stages(description)

    def lines(self) -> Iterator[str]:
        d = self.d
        for o in d.operands:
            if 0 in o.axes:
                yield f"{o.name} = {o.name}[{', '.join([':'] * o.axes.index(0) + ['lo:hi'])}]"
        for axis in range(d.axes):
            o = next(o for o in d.operands if axis in o.axes)
            yield f"n{axis} = {o.name}.shape[{o.axes.index(axis)}]"
        for o in d.operands:
            if not o.axes and is_read(d, o.name):
                yield f"{o.name}_ = {o.name}[()]"
        inner = [f"n{a}" for a in range(d.outer, d.axes)]
        for dtype in sorted({s.numbers for s in d.body if isinstance(s, Statement) and "count" in s.names}):
            yield f"count_{dtype} = np.{dtype}({' * '.join(inner)})"
        for name in sorted(self.stages.scratch):
            dtype = self._dtype(name)
            yield f"{name}_row = np.empty(({', '.join(inner)},), np.{'bool_' if dtype == 'bool' else dtype})"
        for s in d.stores:
            if s.kind == "columns":
                yield f"{s.operand}[...] = 0"
            elif s.kind in ("total", "mean"):
                yield f"{s.operand}_sum = {'0.0' if d.operand(s.operand).dtype.startswith('float') else '0'}"
        yield from self._rows()
        for s in d.stores:
            if s.kind in ("total", "mean"):
                axes = range(d.outer if self.stages.per_row(s.source) else d.axes)
                divided = f" / ({' * '.join(f'n{a}' for a in axes)})" if s.kind == "mean" else ""
                yield f"{s.operand}[()] = {s.operand}_sum{divided}"

    def _rows(self) -> Iterator[str]:
        indent = ""
        for axis in range(self.d.outer):
            yield f"{indent}for i{axis} in range(n{axis}):"
            indent += "    "
        for k in range(self.stages.count):
            for line in [*self._once(k), *self._loop(k)]:
                yield indent + line

    def _once(self, k: int) -> Iterator[str]:
        """What is computed once a row, as soon as its values are there."""
        stages = self.stages
        if k == 0:
            for o in self.d.operands:
                if o.axes and stages.per_row(o.name) and self._is_read(o.name):
                    yield f"{o.name}_ = {self._element(o.name)}"
        for step in self.d.body:
            if isinstance(step, Statement) and step.per_row and stages.stage[step.target] == k:
                yield self._assignment(step)
        for s in self.d.stores:
            if stages.per_row(s.source) and stages.stage.get(s.source, 0) == k:
                yield self._store(s)

    def _is_read(self, name: str) -> bool:
        return is_read(self.d, name)

    def _loop(self, k: int) -> Iterator[str]:
        stages = self.stages
        goals = stages.goals(k)
        if not goals:
            return
        reductions = [s for s in self.d.body if isinstance(s, Reduction) and stages.stage[s.target] == k + 1]
        for r in reductions:
            yield f"{r.target} = np.{r.dtype}({_START[r.kind]})"
        indent = ""
        for axis in range(self.d.outer, self.d.axes):
            yield f"{indent}for i{axis} in range(n{axis}):"
            indent += "    "
        done: set[str] = set()
        for name in goals:
            for line in self._compute(name, k, done):
                yield indent + line
        for r in reductions:
            value = self._cast(self._name(r.source), self._dtype(r.source), r.dtype)
            if r.kind == "sum":
                yield f"{indent}{r.target} += {value}"
            else:
                yield f"{indent}{r.target} = {r.kind}imum({r.target}, {value})"
        for name in goals:
            if name in stages.scratch:
                yield f"{indent}{name}_row[{self._inner()}] = {name}"
        for s in self.d.stores:
            here = s.source in goals and stages.stage.get(s.source, 0) == k
            if here and not stages.per_row(s.source):
                yield indent + self._store(s)

    def _compute(self, name: str, k: int, done: set[str]) -> Iterator[str]:
        stages = self.stages
        if name in done or stages.per_row(name):
            return
        done.add(name)
        if name in stages.operands:
            yield f"{name}_ = {self._element(name)}"
        elif stages.from_memory(name, k):
            stored = stages.stored.get(name)
            yield f"{name} = {self._element(stored) if stored else f'{name}_row[{self._inner()}]'}"
        else:
            step = stages.makers[name]
            assert isinstance(step, Statement)
            for source in step.names:
                yield from self._compute(source, k, done)
            yield self._assignment(step)

    def _assignment(self, step: Statement) -> str:
        renamed = {n: self._name(n) for n in step.names if n in self.stages.operands}
        renamed["count"] = f"count_{step.numbers}"
        text = translate(step.expression, step.numbers)
        if step.numbers != step.dtype or not step.dtype.startswith("float"):
            text = self._cast(text, step.numbers if text in step.names else None, step.dtype)
        return f"{step.target} = {_renamed(text, renamed)}"

    def _cast(self, text: str, have: str | None, want: str) -> str:
        if have == want:
            return text
        if want == "bool":
            return f"({text}) != 0" if have is not None else text
        return f"np.{want}({text})"

    def _dtype(self, name: str) -> str:
        return self.stages.operands[name].dtype if name in self.stages.operands else self.stages.makers[name].dtype

    def _name(self, name: str) -> str:
        return f"{name}_" if name in self.stages.operands else name

    def _element(self, operand: str) -> str:
        axes = self.stages.operands[operand].axes
        return f"{operand}[{', '.join(f'i{a}' for a in axes) or '()'}]"

    def _inner(self) -> str:
        return ", ".join(f"i{a}" for a in range(self.d.outer, self.d.axes))

    def _store(self, s: Store) -> str:
        value = self._cast(self._name(s.source), self._dtype(s.source), self.d.operand(s.operand).dtype)
        if s.kind in ("total", "mean"):
            return f"{s.operand}_sum += {value}"
        return f"{self._element(s.operand)} {'+=' if s.kind == 'columns' else '='} {value}"


def _renamed(text: str, replacements: dict[str, str]) -> str:
    return re.sub(r"\b[A-Za-z_]\w*\b", lambda m: replacements.get(m.group(), m.group()), text) if replacements else text


def plain(description: Description) -> Any:
    """The generated function run by Python itself, number by number: what tests compare the compiled one with."""
    text = source(description, "plain")
    decorator = "from retrograd.backends.kernels.compiled import kernel\n"
    text = text.replace(decorator, "kernel = lambda signature: lambda f: f\n")
    scope: dict[str, Any] = {}
    exec(compile(text, "<kernel>", "exec"), scope)
    return scope["plain"]
