"""What a compiled function mentions: values that Python holds elsewhere, and that a program was made with.

    names             of its closure and globals, and of those of functions and `forward` methods that it mentions
    attributes        that this code loads, of the objects behind the names, of classes, of modules in Python's sense
    lists and dicts   behind them: what they hold

Numbers, texts, flags, None and nests of them are compared by value, everything else by identity. What the code only
counts (`calls += 1`) is its own affair. The code of libraries is not gone through. Attributes of nn's modules note by
themselves what is assigned to them (`nn/options.py`), but for what is changed inside of a list.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from operator import attrgetter, is_
from pathlib import Path
from types import FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..tensor import TENSOR_TYPES
from .loads import CELL, FIRST, GLOBAL, Chain, loads

_PLAIN = (int, float, complex, bool, str, bytes, type(None), np.generic, np.dtype, slice)
_NESTS = (list, tuple, dict, set, frozenset)
_LONGEST = 1000  # members of a nest that each call looks at: a longer one is compared by identity
_contents = attrgetter("cell_contents")
_NOTHING = object()


class Mentioned(NamedTuple):
    """A name with dots, where its value is found now (`get(key)`), what it was, and what a list or dict held."""

    name: str
    get: Callable[[Any], Any]
    key: Any
    value: Any
    held: Any = None  # a text where that is plain, else the members; None of what is no nest

    @property
    def is_number(self) -> bool:
        """Whether it was a number, a text or a flag."""
        return isinstance(self.value, _PLAIN) and self.value is not None


def mentioned(function: Any, arguments: Iterable[Any] = (), modules: Iterable[Any] = ()) -> list[Mentioned]:
    """What a function reads from outside, given objects that it is called with and modules that it calls."""
    return _Walk(function, [*arguments, *modules]).found


def unchanged(found: Iterable[Mentioned]) -> bool:
    """Whether all that was mentioned is what it was."""
    try:
        for _, get, key, value, held in found:
            now = get(key)
            if (now is not value or held is not None) and not _alike(now, value, held):
                return False
    except (ValueError, AttributeError):  # a cell or slot that is empty now
        return False
    return True


def changes(found: Iterable[Mentioned]) -> list[Mentioned]:
    """Those that are not what they were."""
    return [m for m in found if not unchanged([m])]


def is_plain(value: Any) -> bool:
    """Whether a value is a number, a text, a flag, None or a nest of such, which are compared by what they say."""
    if type(value) in _NESTS:
        return len(value) <= _LONGEST and all(map(is_plain, _inside(value)))
    return isinstance(value, _PLAIN)


def _alike(now: Any, value: Any, held: Any) -> bool:
    if type(held) is str:  # a text tells 1 from 1.0 and from True, and 0.0 from -0.0
        return type(now) is type(value) and repr(now) == held
    if now is not value:
        return held is None and type(now) is type(value) and isinstance(now, _PLAIN) and repr(now) == repr(value)
    members = _inside(now) if held is not None else []
    return len(members) == len(held or ()) and all(map(is_, members, held or ()))


def _held(value: Any) -> Any:
    if not isinstance(value, _NESTS) or len(value) > _LONGEST:
        return None
    return repr(value) if is_plain(value) else _inside(value)


def _inside(nest: Any) -> list[Any]:
    return [*nest, *nest.values()] if isinstance(nest, dict) else [*nest]


class _Walk:
    """Functions lead to names, names to objects, objects to the attributes that the functions load, and so on."""

    def __init__(self, function: Any, others: Iterable[Any]):
        self.found: list[Mentioned] = []
        self._loose: set[str] = set()
        self._open: dict[int, tuple[str, Any]] = {}  # objects that loose attributes may be of
        self._seen: set[Any] = set()  # functions, nests, places, and attributes of objects that were gone through
        # What is compiled is looked into whoever wrote it, and so is the package that it is from, but for our own.
        self._from = (getattr(function, "__module__", None) or "").partition(".")[0]
        owner = getattr(function, "__self__", _NOTHING) if type(function) is MethodType else _NOTHING
        self._function(getattr(function, "__func__", function), owner, root=True)
        for root in [function, *others]:
            self._hand_on(getattr(root, "__name__", type(root).__name__), root)
        known = -1
        while known != len(self._seen):
            known = len(self._seen)
            for name, value in list(self._open.values()):
                for attribute in sorted(self._loose):
                    self._hand_on(f"{name}.{attribute}", self._attribute(name, value, attribute))

    def _new(self, *key: Any) -> bool:
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    # -- code ---------------------------------------------------------------------------------------------------------

    def _function(self, function: Any, owner: Any = _NOTHING, root: bool = False) -> None:
        """`owner`: of a method, the object that it is called on."""
        if type(function) is not FunctionType or not (root or self._is_users(function.__module__ or "")):
            return
        if not self._new(id(function), id(owner)):
            return
        chains, loose = loads(function.__code__)
        self._loose.update(loose)
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        for chain in chains:
            self._chain(chain, cells, function.__globals__, owner)
        for default in [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]:
            self._member(f"{function.__name__}'s default", default)

    def _chain(self, chain: Chain, cells: dict[str, Any], names: dict[str, Any], owner: Any) -> None:
        kind, name, *attributes = chain
        value = _NOTHING
        if kind == FIRST:
            name, value = "self", owner
        elif kind == CELL and name in cells:
            value = self._place(name, cells[name], _contents, cells[name])
        elif kind == GLOBAL and name in names:
            value = self._place(name, names, names.get, name)
        elif kind == GLOBAL:
            return  # Python's own
        for attribute in attributes:
            if value is _NOTHING:
                self._loose.add(attribute)
            elif self._has_attributes(value):
                value = self._attribute(name, value, attribute)
                name = f"{name}.{attribute}"
        self._hand_on(name, value)

    # -- values -------------------------------------------------------------------------------------------------------

    def _hand_on(self, name: str, value: Any) -> None:
        """A value that the code does something with: calls it, goes through it, gives it to another function."""
        kind = type(value)
        if value is _NOTHING:
            return
        if isinstance(value, _NESTS):
            if len(value) <= _LONGEST and self._new(id(value)):
                for key, member in value.items() if isinstance(value, dict) else enumerate(value):
                    self._member(f"{name}[{key!r}]", member)
        elif kind is FunctionType:
            self._function(value)
            if value.__dict__:
                self._open.setdefault(id(value), (name, value))
        elif kind is MethodType:
            self._function(value.__func__, value.__self__)
        elif kind is partial:
            self._hand_on(name, value.func)
            for part in (*value.args, *value.keywords.values()):
                self._member(name, part)
        elif self._has_attributes(value):
            self._object(name, value)

    def _member(self, name: str, value: Any) -> None:
        """A value that stays where it is, but may be a nest whose members do not."""
        if isinstance(value, _NESTS) and not isinstance(value, tuple):
            self.found.append(Mentioned(name, _itself, value, value, _held(value)))
        self._hand_on(name, value)

    def _object(self, name: str, value: Any) -> None:
        kind = type(value)
        if not _is_ours(kind.__module__):
            self._open.setdefault(id(value), (name, value))
        for owner in kind.__mro__:
            if self._is_users(owner.__module__):
                for method in filter(_is_implied, vars(owner)):
                    self._function(vars(owner)[method], value)
        if hasattr(kind, "_registrations"):
            for hook in (*(value._pre_hooks or {}).values(), *(value._forward_hooks or {}).values()):
                self._hand_on(name, hook)
        if "__wrapped__" in getattr(value, "__dict__", ()):
            self._hand_on(name, value.__wrapped__)

    def _attribute(self, name: str, owner: Any, attribute: str) -> Any:
        """The value of an attribute, whose place is noted: the object, or its class. _NOTHING where it has none."""
        name, kept = f"{name}.{attribute}", getattr(owner, "__dict__", {})
        if attribute in kept and not isinstance(owner, type):
            noted = hasattr(type(owner), "_registrations")
            return self._place(name, owner, kept.get, attribute, noted)
        defined = [
            (c, vars(c)[attribute])
            for c in (owner.__mro__ if isinstance(owner, type) else type(owner).__mro__)
            if attribute in vars(c)
        ]
        for kind, value in defined:  # those of base classes too, which super() reaches
            if isinstance(value, MemberDescriptorType):
                return self._place(name, owner, attrgetter(attribute), owner)
            if not isinstance(value, (staticmethod, classmethod, property, FunctionType)):
                if not self._is_users(kind.__module__):
                    return _NOTHING
                if kept and owner is not kind:
                    self._place(name, owner, kept.get, attribute)  # None, until one of its own hides that of its class
                return self._place(name, kind, vars(kind).get, attribute)
            self._function(getattr(value, "fget", None) or getattr(value, "__func__", value), owner)
        return _NOTHING

    def _place(self, name: str, owner: Any, get: Callable[[Any], Any], key: Any, noted: bool = False) -> Any:
        """The value that is found at a place, which is noted if it was not before."""
        try:
            value = get(key)
        except (ValueError, AttributeError):  # empty yet
            return _NOTHING
        if self._is_library(value):
            return value
        if self._new(id(owner), name.rpartition(".")[2], "place") and (not noted or isinstance(value, _NESTS)):
            self.found.append(Mentioned(name, get, key, value, _held(value)))
        return value

    def _has_attributes(self, value: Any) -> bool:
        """Whether a value is looked into: an object, a class, a module in Python's sense."""
        known = isinstance(value, (*_PLAIN, *_NESTS)) or type(value) in TENSOR_TYPES
        return not known and not self._is_library(value)

    def _is_library(self, value: Any) -> bool:
        """Whether it is a module in Python's sense, or a class, that is not the user's."""
        if isinstance(value, (ModuleType, type)):
            return not self._is_users(value.__name__ if isinstance(value, ModuleType) else value.__module__)
        return False

    def _is_users(self, module: str) -> bool:
        return _is_users(module) or (module.partition(".")[0] == self._from and not _is_ours(module))


@lru_cache(maxsize=4096)
def _is_users(module: str) -> bool:
    """Whether code of a module is the user's own: no library's, nor Python's, nor ours."""
    if _is_ours(module) or module.partition(".")[0] in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return not {"site-packages", "dist-packages"} & set(Path(file).parts)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == __name__.partition(".")[0]


def _is_implied(method: str) -> bool:
    """Whether code that does something with an object may call a method of it without naming it."""
    return method == "forward" or (method.startswith("__") and method not in _NOT_IMPLIED)


_UNIMPLIED = ("init", "new", "del", "post_init", "init_subclass", "repr", "str", "eq", "ne", "hash", "setattr")
_NOT_IMPLIED = {f"__{name}__" for name in _UNIMPLIED}


def _itself(value: Any) -> Any:
    return value
