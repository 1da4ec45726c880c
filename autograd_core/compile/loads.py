"""What the code of a function loads from outside of it, as its instructions show.

A *chain* is a name and the attributes that are loaded from it one after the other: `cfg.model.width` is (GLOBAL, "cfg",
"model", "width"), and `self.rate` in a method (FIRST, "", "rate"). Attributes of anything else, a local variable or the
result of a call, are *loose*: which object they are of is not known.
"""

from __future__ import annotations

import dis
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType
from typing import NamedTuple

GLOBAL, CELL, FIRST, LOCAL = "global", "cell", "first", "local"

Chain = tuple[str, ...]


class Loads(NamedTuple):
    """Chains in order, and loose attributes, that are loaded for more than to be counted on (`calls += 1`)."""

    chains: list[Chain]
    loose: list[str]


@lru_cache(maxsize=4096)
def loads(code: CodeType) -> Loads:
    """What a function, and the functions in it, load.

    >>> def step(self, x):
    ...     self.calls += 1
    ...     return self.scale * len(x.shape)
    >>> loads(step.__code__)
    Loads(chains=[('first', '', 'scale'), ('global', 'len')], loose=['shape'])
    """
    chains: Counter[Chain] = Counter()
    loose: Counter[str] = Counter()
    first = code.co_varnames[0] if code.co_argcount else ""
    for inner in _codes(code):
        _count(inner, first, chains, loose)
    if (GLOBAL, "getattr") in chains:
        loose.update(c for inner in _codes(code) for c in inner.co_consts if isinstance(c, str) and c.isidentifier())
    return Loads(sorted(+chains), sorted(+loose))


def _count(code: CodeType, first: str, chains: Counter[Chain], loose: Counter[str]) -> None:
    counted: dict[str, Chain] = {}  # attribute → the chain that loaded it last
    top: Chain = ()  # the chain that lies on the stack, if one does
    before = ""  # what was computed last, but for moves on the stack

    def end(chain: Chain, times: int = 1) -> None:
        if chain and chain[0] == LOCAL:
            for attribute in chain[2:]:
                loose[attribute] += times
        elif chain:
            chains[chain] += times

    for step in dis.get_instructions(code):
        name = step.opname
        if name in ("LOAD_ATTR", "LOAD_METHOD"):
            top = (top or (LOCAL, "")) + (step.argval,)
            counted[step.argval] = top
        elif name in _ROOTS or name.startswith("LOAD_FAST"):
            for variable in step.argval if isinstance(step.argval, tuple) else (step.argval,):
                if name.startswith("LOAD_FAST") and variable in (*code.co_cellvars, *code.co_freevars):
                    continue  # not its value but its cell, for a function inside
                end(top)
                kind = FIRST if variable == first and name != "LOAD_GLOBAL" else _ROOTS.get(name, LOCAL)
                top = (kind, "" if kind == FIRST else variable)
        elif name == "STORE_ATTR":
            top = ()  # what is written to is not handed on
            if before.endswith("="):  # as by +=
                end(counted.get(step.argval, ()), -1)
        elif name in _STORES:
            end(top)
            top = ()
            if before.endswith("="):
                end((_STORES[name], step.argval), -1)
        elif name == "LOAD_SUPER_ATTR":
            end(top)
            top = ()
            loose[step.argval] += 1
        elif name not in ("COPY", "CACHE", "EXTENDED_ARG"):
            end(top)
            top = ()
        if name not in ("SWAP", "CACHE"):
            before = step.argrepr if name == "BINARY_OP" else ""


_ROOTS = {"LOAD_GLOBAL": GLOBAL, "LOAD_DEREF": CELL}
_STORES = {"STORE_GLOBAL": GLOBAL, "STORE_DEREF": CELL}


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)
