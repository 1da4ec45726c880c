"""The names that a compiled function mentions: its closure, and globals. What stood behind them is part of a program.

    a tensor, a module, an optimizer   another one is a reason to record anew, as where a notebook's cell ran again
    a number, a text, None             another one is an error: it was read once, and frozen

What the function assigns itself, as a counter, is its own affair, and so is what lies inside of lists and objects.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterator
from types import CellType, CodeType
from typing import Any, NamedTuple

from ..recorder import RecordingError
from ..tensor import TENSOR_TYPES

_PLAIN = (int, float, complex, bool, str, type(None))
_WRITES = ("STORE_GLOBAL", "STORE_DEREF", "DELETE_GLOBAL", "DELETE_DEREF")


class Mentioned(NamedTuple):
    """A name, where its value is found now, and what it was."""

    name: str
    place: CellType | dict[str, Any]
    value: Any


def mentioned(function: Callable) -> list[Mentioned]:
    """The names of a function that stand for something a program holds."""
    function = inspect.unwrap(function)
    function = getattr(function, "__func__", function)
    if not inspect.isfunction(function):
        return []
    steps = list(_steps(function.__code__))
    written = {s.argval for s in steps if s.opname in _WRITES}
    places: dict[str, Any] = {s.argval: function.__globals__ for s in steps if s.opname == "LOAD_GLOBAL"}
    places |= zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = [Mentioned(name, place, _behind(place, name)) for name, place in places.items() if name not in written]
    return [m for m in found if _held(m.value) or isinstance(m.value, _PLAIN)]


def _steps(code: CodeType) -> Iterator[dis.Instruction]:
    """What a function does, and what the functions in it do."""
    yield from dis.get_instructions(code)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _steps(inner)


def still_mentioned(names: list[Mentioned]) -> bool:
    """Whether the names stand for the same tensors, modules and optimizers as before.

    Raises:
        RecordingError: a number, a text or None is another one.
    """
    for name, place, value in names:
        now = place.cell_contents if type(place) is CellType else place.get(name)
        if now is not value and not (type(now) is type(value) and isinstance(value, _PLAIN) and now == value):
            if _held(value) or _held(now):
                return False
            raise RecordingError(
                f"{name!r} was {value!r} when the program of the compiled function was made, and is {now!r} now: a "
                "replay would go on with the former. Pass it as an argument, or keep it in a 0-d Tensor (fill_)."
            )
    return True


def _behind(place: Any, name: str) -> Any:
    try:
        return place.get(name, mentioned) if isinstance(place, dict) else place.cell_contents
    except ValueError:  # a cell that is empty yet
        return mentioned  # which is nothing that is held


def _held(value: Any) -> bool:
    return type(value) in TENSOR_TYPES or hasattr(type(value), "_registrations") or hasattr(value, "param_groups")
