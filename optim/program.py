"""An update rule as a short program that works in place.

A rule is written as mathematics: it makes new arrays from old ones. Run as it stands it allocates an array per
operation and walks through memory each time. So the rule is run once on stand-ins, which note what is computed, and
each operation becomes one call of NumPy with a place to write to: the old value itself where nobody needs it any more,
else one of a few scratch buffers. The calls then run over blocks that fit the cache.

>>> from retrograd.optim import SGD
>>> print(build(SGD.update, ("momentum_buffer",), ("lr", "keep")).source)
def update(p, g, momentum_buffer, lr, keep, t0):
    multiply(momentum_buffer, keep, out=t0)
    add(t0, g, out=momentum_buffer)
    multiply(momentum_buffer, lr, out=t0)
    subtract(p, t0, out=p)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd_core.record import REGISTRY

BLOCK = 1 << 16  # elements: p, g, two states and the scratch of one block stay in a second-level cache


class NotElementwise(Exception):
    """A rule uses an operation that is no NumPy ufunc: it runs as it is written."""


class Program:
    """`call` works on one block; `scratch` is how many buffers it needs; `source` is what it does, to be read."""

    def __init__(self, call: Callable[..., None], scratch: int, source: str):
        self.call = call
        self.scratch = scratch
        self.source = source
        self.buffers: dict[np.dtype, list[np.ndarray]] = {}
        self.numbers: dict[np.dtype, list[np.ndarray]] = {}

    def run(self, arrays: Sequence[np.ndarray], scalars: Sequence[float]) -> None:
        """Update contiguous arrays (parameter, gradient, states) of one shape and dtype in place."""
        dtype, n = arrays[0].dtype, arrays[0].size
        if dtype not in self.buffers:
            self.buffers[dtype] = [np.empty(BLOCK, dtype) for _ in range(self.scratch)]
            # A ufunc takes a 0-d array in half the time that it takes to look at a Python float.
            self.numbers[dtype] = [np.empty((), dtype) for _ in scalars]
        numbers, buffers = self.numbers[dtype], self.buffers[dtype]
        for place, value in zip(numbers, scalars, strict=True):
            place.fill(value)
        flat = [a.reshape(-1) for a in arrays]
        for start in range(0, n, BLOCK):
            stop = min(start + BLOCK, n)
            self.call(*[a[start:stop] for a in flat], *numbers, *[b[: stop - start] for b in buffers])


def fits(arrays: Sequence[Any]) -> bool:
    """Whether a program can work on these arrays: NumPy's, contiguous, of one dtype."""
    dtype = arrays[0].dtype
    return all(type(a) is np.ndarray and a.flags.c_contiguous and a.dtype == dtype for a in arrays)


def build(rule: Callable[..., Any], states: tuple[str, ...], scalars: tuple[str, ...]) -> Program:
    """The program of `rule(ops, p, g, state, scalars)` for states and scalars of these names."""
    trace = _Trace()
    inputs = ("p", "g", *states, *scalars)
    new_p, new_state = rule(trace, "p", "g", {n: n for n in states}, {n: n for n in scalars})
    results = {new_p: "p"} | {new_state[n]: n for n in states if new_state[n] != n}
    lines, scratch = _allocate(trace.steps, {v: t for v, t in results.items() if v not in inputs})
    names = [*inputs, *[f"t{i}" for i in range(scratch)]]
    source = f"def update({', '.join(names)}):\n" + "\n".join(f"    {line}" for line in lines)
    scope: dict[str, Any] = dict(trace.functions)
    exec(source, scope)
    return Program(scope["update"], scratch, source)


class _Trace:
    """`ops` on names instead of arrays: it notes what is computed from what."""

    raw = True

    def __init__(self) -> None:
        self.steps: list[tuple[str, tuple[str, ...], str]] = []
        self.functions: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Callable[..., str]:
        rec = REGISTRY.get(name)
        function = rec.impl[np.ndarray] if rec is not None else None
        if not isinstance(function, np.ufunc):
            raise NotElementwise(name)

        def note(*operands: str) -> str:
            result = f"v{len(self.steps)}"
            self.functions[function.__name__] = function
            self.steps.append((function.__name__, operands, result))
            return result

        return note


def _allocate(steps: list[tuple[str, tuple[str, ...], str]], targets: dict[str, str]) -> tuple[list[str], int]:
    """Give every value a place, and write the calls down. A value dies with its last use: its place is free again."""
    last_use = {operand: i for i, (_, operands, _) in enumerate(steps) for operand in operands}
    place: dict[str, str] = {}
    free: list[str] = []
    used = 0
    lines = []
    for i, (function, operands, result) in enumerate(steps):
        given = [place.get(o, o) if isinstance(o, str) else repr(o) for o in operands]
        # A ufunc may write over its own operand, so those that die here are free already.
        free += [place[o] for o in set(operands) if o in place and o not in targets and last_use[o] == i]
        target = targets.get(result)
        if target is not None and last_use.get(target, -1) <= i:
            place[result] = target
        elif free:
            place[result] = free.pop()
        else:
            place[result] = f"t{used}"
            used += 1
        lines.append(f"{function}({', '.join(given)}, out={place[result]})")
    late = [(place[value], target) for value, target in targets.items() if place[value] != target]
    return [*lines, *[f"{target}[:] = {where}" for where, target in late]], used
