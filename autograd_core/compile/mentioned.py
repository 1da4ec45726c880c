"""What a compiled function mentions: values that Python holds elsewhere, and that a program was made with.

    names             of its closure and globals, and of those of functions and `forward` methods that it mentions
    attributes        that this code loads, of the objects behind the names, of classes, of modules in Python's sense
    lists and dicts   behind them: what they hold

Numbers, texts, flags, None and nests of them are compared by value, everything else by identity. What the code only
counts (`calls += 1`) is its own affair. The code of libraries is not gone through. Our layers note by themselves what
is assigned to their attributes (`nn/options.py`), but for what is changed inside of a list.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache, partial, partialmethod
from importlib.util import resolve_name
from operator import attrgetter, is_
from types import FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..tensor import TENSOR_TYPES, Tensor
from .loads import CELL, FIRST, GLOBAL, IMPORTED, Chain, loads, texts
from .moving import moving, position
from .whose import NO_DICT, dict_of, is_implied, is_ours, is_users, is_users_alone

_PLAIN = (int, float, complex, bool, str, bytes, type(None), np.generic, np.dtype, slice)
_NESTS = (list, tuple, dict, set, frozenset, deque)
_LONGEST = 1000  # members of a nest that each call looks at: a longer one is compared by identity
_MOST = 10_000  # objects that are looked into
_contents = attrgetter("cell_contents")
_WRITING = {f"{m}()" for m in ("append", "appendleft", "extend", "insert", "add", "update", "discard", "clear")}
_NOTHING = object()
_MADE_OF = {  # what leads to functions → its parts
    FunctionType: ("__wrapped__",),
    type(lru_cache(len)): ("__wrapped__",),
    property: ("fget",),
    cached_property: ("func",),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    partial: ("func", "args", "keywords"),
    partialmethod: ("func", "args", "keywords"),
}


class Mentioned(NamedTuple):
    """A name with dots, where its value is found now (`get(key)`), what it was, and what a list or dict held."""

    name: str
    get: Callable[[Any], Any]
    key: Any
    value: Any
    held: Any = None  # a text where that is plain, else the members; None of what is no nest

    @property
    def place(self) -> tuple[str, int]:
        """What tells its place from all others."""
        return self.name, id(getattr(self.get, "__self__", self.key))

    def now(self) -> Any:
        """What is found at its place now, None where that is empty."""
        try:
            return self.get(self.key)
        except (ValueError, AttributeError):
            return None


def mentioned(function: Any, others: Iterable[Any] = (), moving: bool = False) -> list[Mentioned]:
    """What a function reads from outside, given objects that it is called with and modules that it calls.

    `moving`: also what only the call itself may change: positions of generators and iterators, attributes of modules.
    """
    walk = _Walk(function, others)
    return walk.found + (walk.moving if moving else [])


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
    try:
        if type(value) in _NESTS:
            return len(value) <= _LONGEST and all(map(is_plain, _inside(value)))
    except RecursionError:  # it holds itself
        return False
    return issubclass(type(value), _PLAIN)


def _alike(now: Any, value: Any, held: Any) -> bool:
    if type(held) is str:  # a text tells 1 from 1.0 and from True, and 0.0 from -0.0
        return type(now) is type(value) and repr(now) == held
    if type(held) is bytes:
        return now is value and now.tobytes() == held
    if now is not value:
        return held is None and type(now) is type(value) and isinstance(now, _PLAIN) and repr(now) == repr(value)
    members = _inside(now) if held is not None else []
    return len(members) == len(held or ()) and all(map(is_, members, held or ()))


def _held(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tobytes() if value.size <= _LONGEST else None
    if not issubclass(type(value), _NESTS) or len(value) > _LONGEST:
        return None
    return repr(value) if is_plain(value) else _inside(value)


def _inside(nest: Any) -> list[Any]:
    return [*nest, *nest.values()] if isinstance(nest, dict) else [*nest]


class _Walk:
    """Functions lead to names, names to objects, objects to the attributes that the functions load, and so on."""

    def __init__(self, function: Any, others: Iterable[Any]):
        self.found: list[Mentioned] = []
        self.moving: list[Mentioned] = []
        self._todo: deque[tuple[str, Any, Any]] = deque()  # name, value, and of a method the object that it is of
        self._loose: set[str] = set()
        self._texts: set[str] = set()  # what attributes may be called that are loaded by their names
        self._by_name = False
        self._keys: set[str] = set()  # texts that the code holds, with which it may ask dicts
        self._groups: dict[int, tuple[str, Any]] = {}  # of optimizers, which watch them themselves; by id
        self._open: list[tuple[str, Any]] = []  # objects that loose attributes may be of
        self._seen: set[Any] = set()  # functions, nests, places and objects that were gone through
        # What is compiled is looked into whoever wrote it, and so is the package that it is from, but for our own.
        self._from = str(getattr(function, "__module__", "")).partition(".")[0]
        owner = getattr(function, "__self__", _NOTHING) if type(function) is MethodType else _NOTHING
        self._function(getattr(function, "__func__", function), owner, root=True)
        for root in [function, *others]:
            self._hand_on(getattr(root, "__name__", type(root).__name__), root)
        tried: list[str] = []
        while tried != (tried := self._attributes()):
            for name, value in self._open:  # which grows
                for attribute in tried:
                    self._hand_on(f"{name}.{attribute}", self._attribute(name, value, attribute))
                self._finish()
        for name, group in self._groups.values():
            for key in sorted(self._keys & {*group}):
                self._place(f"{name}[{key!r}]", group, group.get, key)

    def _attributes(self) -> list[str]:
        """What may be loaded of open objects."""
        self._finish()
        return sorted({*self._loose, *(self._texts if self._by_name else ())})

    def _hand_on(self, name: str, value: Any, owner: Any = _NOTHING) -> None:
        """A value that the code does something with: calls it, goes through it, gives it to another function."""
        if value is not _NOTHING and value is not None:
            self._todo.append((name, value, owner))

    def _finish(self) -> None:
        while self._todo:
            self._visit(*self._todo.popleft())

    def _new(self, *key: Any) -> bool:
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    # -- code ---------------------------------------------------------------------------------------------------------

    def _function(self, function: Any, owner: Any, root: bool = False) -> None:
        if type(function) is not FunctionType or not (root or self._is_users(function.__module__)):
            return
        if not self._new(id(function), id(owner)):
            return
        chains, loose, by_name = loads(function.__code__)
        self._loose.update(loose)
        self._keys.update(texts(function.__code__))
        self._by_name |= by_name
        if (GLOBAL, "super") in chains and owner is not _NOTHING:
            for attribute in loose:
                self._hand_on(f"self.{attribute}", self._attribute("self", owner, attribute))
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        for chain in chains:
            name, value = self._chain(chain, cells, function.__globals__, owner)
            # A decorator that uses functools.wraps calls what it wraps with the object that it is itself called with.
            self._hand_on(name, value, owner if value is function.__dict__.get("__wrapped__") else _NOTHING)
        for default in [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]:
            self._member(f"{function.__name__}'s default", default)

    def _chain(self, chain: Chain, cells: dict[str, Any], names: dict[str, Any], owner: Any) -> tuple[str, Any]:
        kind, name, *parts = chain
        # Of a dict only the item that is loaded matters, of a list that is written to nothing.
        wholes = [after[:1] != "[" and after not in _WRITING for after in (*parts, "")]
        value = _NOTHING
        if kind == FIRST:
            name, value = "self", owner
        elif kind == CELL and name in cells:
            value = self._place(name, cells[name], _contents, cells[name], whole=wholes[0])
        elif kind == GLOBAL and name in names:
            value = self._place(name, names, names.get, name, whole=wholes[0])
        elif kind == GLOBAL:
            return name, _NOTHING  # Python's own
        elif kind == IMPORTED:
            package = names.get("__package__") or ""
            value = sys.modules.get(resolve_name(name, package) if package else name, _NOTHING)
        for part, whole in zip(parts, wholes[1:], strict=True):
            self._note_moving(name, value)
            if part[0] == "[":
                value = self._item(name, value, part[1:], whole)
            elif value is _NOTHING:
                self._loose.add(part)
            elif self._has_attributes(value):
                value = self._attribute(name, value, part, whole)
            elif isinstance(value, ModuleType):  # of a library
                value = getattr(value, part.removesuffix("()"), _NOTHING)
            name = f"{name}[{part[1:]!r}]" if part[0] == "[" else f"{name}.{part}"
        return name, value

    # -- values -------------------------------------------------------------------------------------------------------

    def _visit(self, name: str, value: Any, owner: Any) -> None:
        kind = type(value)
        self._note_moving(name, value)
        if issubclass(kind, str):
            if value.isidentifier():
                self._texts.add(value)
        elif issubclass(kind, _NESTS):
            if len(value) <= _LONGEST and self._new(id(value)):
                for key, member in value.items() if issubclass(kind, dict) else enumerate(value):
                    self._member(f"{name}[{key!r}]", member)
        elif kind is MethodType:
            self._hand_on(name, value.__func__, value.__self__)
        elif kind in _MADE_OF:
            if kind is staticmethod:
                owner = _NOTHING
            elif kind is classmethod and owner is not _NOTHING and not isinstance(owner, type):
                owner = type(owner)
            if not self._new(id(value), id(owner), "made of"):
                return
            self._function(value, owner)
            for part in _MADE_OF[kind]:
                self._hand_on(name, getattr(value, part, None), owner)
            if getattr(value, "__dict__", None):
                self._open.append((name, value))
        elif self._has_attributes(value):
            self._object(name, value)

    def _note_moving(self, name: str, value: Any) -> None:
        for mover in moving(value):
            if self._new(id(mover), "moving"):
                self.moving.append(Mentioned(name, position, mover, position(mover)))

    def _member(self, name: str, value: Any) -> None:
        """A value that stays where it is, but may be a nest whose members do not."""
        if id(value) in self._groups:
            return
        if issubclass(type(value), _NESTS) and not isinstance(value, tuple):
            self.found.append(Mentioned(name, _itself, value, value, _held(value)))
        self._hand_on(name, value)

    def _object(self, name: str, value: Any) -> None:
        kind = type(value)
        if not self._new(id(value), "object"):
            return
        if not is_ours(kind.__module__) and len(self._open) < _MOST:
            self._open.append((name, value))
        implied = {m for made in filter(self._is_users_class, kind.__mro__) for m in vars(made) if is_implied(m)}
        for method in sorted(implied):
            if callable(getattr(kind, method, None)):
                self._attribute(name, value, method)
        if isinstance(value, type):  # it may be called
            for made in filter(self._is_users_class, value.__mro__):
                for method in ("__init__", "__new__", "__post_init__"):
                    self._hand_on(name, vars(made).get(method))
        if hasattr(kind, "_registrations"):
            for hook in (*(value._pre_hooks or {}).values(), *(value._forward_hooks or {}).values()):
                self._hand_on(name, hook)
        self._hand_on(name, dict_of(value).get("__wrapped__"))

    def _attribute(self, name: str, owner: Any, attribute: str, whole: bool = True) -> Any:
        """The value of an attribute, whose places are noted: in the object, and in its classes. _NOTHING where it has
        none, or where a number is called."""
        asked, called = attribute[-1] == "?", attribute[-1] == ")"
        attribute = attribute.removesuffix("()").removesuffix("?")
        name, kept = f"{name}.{attribute}", dict_of(owner)
        noted = hasattr(type(owner), "_registrations") and _is_noted(owner, attribute, kept.get(attribute))
        if attribute == "__dict__":
            return kept
        if attribute in kept:
            value = kept[attribute]
            if called and not callable(value):
                return _NOTHING
            return self._place(name, owner, kept.get, attribute, noted, whole)
        classes = owner.__mro__ if isinstance(owner, type) else type(owner).__mro__
        holding = [made for made in classes if attribute in vars(made)]
        if not holding:
            if asked and kept is not NO_DICT and not noted:
                self._place(name, owner, kept.get, attribute)  # it may come to be
            elif any("__getattr__" in vars(made) for made in filter(self._is_users_class, classes)):
                self._loose.add(attribute)
                self._object(name.rpartition(".")[0], owner)
            return _NOTHING
        value = vars(holding[0])[attribute]
        if isinstance(value, MemberDescriptorType):
            return self._place(name, owner, attrgetter(attribute), owner)
        users = [made for made in classes[: classes.index(holding[-1]) + 1] if self._is_users_class(made)]
        for made in users:  # base classes too, which super() reaches; None until a class hides what another has
            part = self._place(f"{made.__name__}.{attribute}", made, vars(made).get, attribute)
            if type(part) in _MADE_OF:
                self._hand_on(name, part, owner)
        if users and kept is not NO_DICT and not noted:
            self._place(name, owner, kept.get, attribute)
        if type(value) in _MADE_OF or not users:
            return _NOTHING
        if hasattr(type(value), "__get__"):
            self._object(name.rpartition(".")[0], owner)
        return value

    def _item(self, name: str, nest: Any, key: str, whole: bool) -> Any:
        """What a dict holds, whose place is noted. All that it holds may matter where it has no such key."""
        if issubclass(type(nest), dict) and type(nest).__getitem__ is dict.__getitem__ and key in nest:
            return self._place(f"{name}[{key!r}]", nest, partial(dict.get, nest), key, whole=whole)
        self._member(name, nest)
        return _NOTHING

    def _place(
        self, name: str, owner: Any, get: Callable[[Any], Any], key: Any, noted: bool = False, whole: bool = True
    ) -> Any:
        """The value that is found at a place, which is noted if it was not before, and all of it if it is a nest."""
        try:
            value = get(key)
        except (ValueError, AttributeError):  # empty yet
            return _NOTHING
        last = name.rpartition(".")[2]
        if self._is_library(value) and (isinstance(value, ModuleType) or value.__name__ == last):
            return value  # as it was imported
        if last == "param_groups" and hasattr(owner, "structure"):
            self._groups.update((id(g), (f"{name}[{i}]", g)) for i, g in enumerate(value))
        held = _held(value) if whole else None
        if self._new(id(owner), key if type(key) is str else last, held is None):
            among = self.moving if noted and held is None else self.found
            among.append(Mentioned(name, get, key, value, held))
        return value

    def _has_attributes(self, value: Any) -> bool:
        """Whether a value is looked into: an object, a class, a module in Python's sense."""
        known = issubclass(type(value), (*_PLAIN, *_NESTS)) or type(value) in TENSOR_TYPES
        return not known and not self._is_library(value)

    def _is_library(self, value: Any) -> bool:
        """Whether it is a module in Python's sense, or a class, that is not the user's."""
        if issubclass(type(value), (ModuleType, type)):
            return not self._is_users(value.__name__ if issubclass(type(value), ModuleType) else value.__module__)
        return False

    def _is_users_class(self, made: type) -> bool:
        return self._is_users(made.__module__)

    def _is_users(self, module: Any) -> bool:
        name = str(module)
        return is_users(name) or (name.partition(".")[0] == self._from and not is_ours(name))


def _is_noted(module: Any, attribute: str, value: Any) -> bool:
    """Whether a module watches an attribute itself: what is registered, and the options of our layers but those that a
    recorded call assigned, which are noted as None."""
    registered = hasattr(type(value), "_registrations") or (type(value) in TENSOR_TYPES and type(value) is not Tensor)
    if registered or attribute in module._buffers:
        return True
    return not is_users_alone(type(module)) and (module._noted or {}).get(attribute, "") is not None


def _itself(value: Any) -> Any:
    return value
