"""What the code of a function loads from outside of it, as its instructions show.

A *chain* is a name and what is loaded from it one after the other: `cfg.sizes["width"]` is (GLOBAL, "cfg", "sizes",
"[width"), and `self.rate` in a method (FIRST, "", "rate"). Attributes of anything else, a local variable or the result
of a call, are *loose*: which object they are of is not known. "mean()" is one that is called, "width?" one that may be
asked for by its name (`getattr`, `hasattr`).
"""

from __future__ import annotations

import dis
import sys
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

GLOBAL, CELL, FIRST, LOCAL, IMPORTED = "global", "cell", "first", "local", "imported"

Chain = tuple[str, ...]


class Loads(NamedTuple):
    """Chains in order, and loose attributes, that are loaded for more than to be counted on (`calls += 1`)."""

    chains: list[Chain]
    loose: list[str]
    by_name: bool  # whether texts from elsewhere may name attributes


@lru_cache(maxsize=4096)
def loads(code: CodeType) -> Loads:
    """What a function, and the functions in it, load.

    >>> def step(self, x):
    ...     self.calls += 1
    ...     return self.scale * self.rates["low"] * len(x.shape)
    >>> loads(step.__code__).chains
    [('first', '', 'rates', '[low'), ('first', '', 'scale'), ('global', 'len')]
    >>> loads(step.__code__).loose
    ['shape']
    """
    chains: Counter[Chain] = Counter()
    loose: Counter[str] = Counter()
    first = code.co_varnames[0] if code.co_argcount else ""
    for inner in _codes(code):
        _Reader(inner, first, chains, loose).read()
    by_name = bool(_BY_NAME & {*loose, *(part for chain in chains for part in chain)})
    if by_name:
        loose.update(f"{c}?" for inner in _codes(code) for c in inner.co_consts if type(c) is str and c.isidentifier())
    return Loads(sorted(+chains), sorted(+loose), by_name)


_BY_NAME = {"getattr", "hasattr", "vars", "__dict__", "__match_args__"}
_ROOTS = {"LOAD_GLOBAL": GLOBAL, "LOAD_DEREF": CELL}
_STORES = {"STORE_GLOBAL": GLOBAL, "STORE_DEREF": CELL}


class _Reader:
    """Goes through instructions, and keeps in mind what lies on top of the stack."""

    def __init__(self, code: CodeType, first: str, chains: Counter[Chain], loose: Counter[str]):
        self._code, self._first, self._chains, self._loose = code, first, chains, loose
        self._top: Chain = ()  # the chain that lies there, if one does
        self._key: str | None = None  # a text that lies above it
        self._last: Chain = ()  # the chain that was ended last
        self._changed: Chain = ()  # the one that was loaded to be changed, as by +=
        self._sign = ""  # of what was computed last, if nothing followed but where it is stored

    def read(self) -> None:
        before, constants = "", {}  # by type, the latest
        for step in dis.get_instructions(self._code):
            name = "BINARY_SUBSCR" if step.opname == "BINARY_OP" and step.argrepr == "[]" else step.opname
            if name in ("CACHE", "EXTENDED_ARG"):
                continue
            if name in ("LOAD_CONST", "LOAD_SMALL_INT"):
                constants[type(step.argval)] = step.argval
            self._step(name, step, constants)
            if before == "COPY" and name in ("LOAD_ATTR", "BINARY_SUBSCR"):
                self._changed = self._top
            if name == "BINARY_OP":
                self._sign = step.argrepr
            elif name != "SWAP" and name not in _ROOTS and "LOAD_FAST" not in name:
                self._sign = ""
            before = name

    def _step(self, name: str, step: dis.Instruction, constants: dict[type, Any]) -> None:
        value = step.argval
        if name == "COPY":
            return
        if name == "LOAD_CONST" and type(value) is str and self._top and self._key is None:
            self._key = value
            return
        if name == "BINARY_SUBSCR" and self._key is not None:
            self._top, self._key = (*self._top, f"[{self._key}"), None
            return
        if self._key is not None:
            self._end()
        if name in ("LOAD_ATTR", "LOAD_METHOD"):
            called = name == "LOAD_METHOD" or (sys.version_info >= (3, 12) and step.arg and step.arg & 1)
            self._top = (*(self._top or (LOCAL, "")), f"{value}()" if called else value)
        elif name == "STORE_ATTR":
            if self._sign and (*self._top, value) == self._last:  # self.calls = self.calls + 1
                self._count(self._last, -1)
            self._stored()
        elif name == "STORE_SUBSCR":
            self._end()
            self._stored()
        elif name == "IMPORT_FROM":
            self._count((*self._top, value))
        else:
            self._end()
            if name in _ROOTS or "LOAD_FAST" in name:
                for variable in value if isinstance(value, tuple) else (value,):
                    self._variable(name, variable)
            elif name in _STORES and (self._sign[-1:] == "=" or (self._sign and self._last == (_STORES[name], value))):
                self._count((_STORES[name], value), -1)
            elif name == "IMPORT_NAME":
                self._top = (IMPORTED, "." * constants.get(int, 0) + value)
            elif name == "LOAD_SUPER_ATTR":
                self._loose[value] += 1
            elif name == "MATCH_CLASS":
                self._loose.update((*constants.get(tuple, ()), "__match_args__"))

    def _variable(self, name: str, variable: str) -> None:
        if name not in _ROOTS and variable in (*self._code.co_cellvars, *self._code.co_freevars):
            return  # not its value but its cell, for a function inside
        self._end()
        kind = FIRST if variable == self._first and name != "LOAD_GLOBAL" else _ROOTS.get(name, LOCAL)
        self._top = (kind, "" if kind == FIRST else variable)

    def _stored(self) -> None:
        self._top = ()  # what is written to is not handed on
        if self._sign[-1:] == "=":
            self._count(self._changed, -1)

    def _end(self) -> None:
        self._count(self._top)
        self._top, self._key = (), None

    def _count(self, chain: Chain, times: int = 1) -> None:
        self._last = chain or self._last
        if chain and chain[0] == LOCAL:
            for attribute in chain[2:]:
                if attribute[0] != "[":
                    self._loose[attribute] += times
        elif chain:
            self._chains[chain] += times


@lru_cache(maxsize=4096)
def texts(code: CodeType) -> frozenset[str]:
    """The texts that a function and those in it hold."""
    return frozenset(c for inner in _codes(code) for c in inner.co_consts if type(c) is str)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)
