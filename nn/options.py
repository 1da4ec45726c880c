"""What compiled functions note of the plain attributes of a module (`dropout.p`), to see when one was changed.

Numbers, flags, names, dtypes and nests of them are noted by value; what else an attribute holds (a function, an array)
as the object that it is. Parameters, buffers and Modules are not noted: replacing one is counted as a registration.
Nor is anything of a class that is the user's alone: compile looks into its code, and sees what that reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..autograd_core.compile.mentioned import is_plain
from ..autograd_core.compile.whose import is_users_alone
from ..autograd_core.context import current
from .parameter import Parameter

if TYPE_CHECKING:
    from .module import Module

_INTERNAL = frozenset(["training", "_registrations", "_buffers", "_pre_hooks", "_forward_hooks", "_options", "_noted"])


class _Same:
    """Stands for an object; equal to what stands for the same one. It holds the object, whose place stays taken."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def note_all(module: Module) -> None:
    """Note the attributes of a module that a compiled function meets for the first time."""
    if is_users_alone(type(module)):
        return
    found = {name: _note(module, name, value) for name, value in vars(module).items() if name not in _INTERNAL}
    _keep(module, {name: note for name, note in found.items() if note is not None})


def note(module: Module, name: str, value: Any) -> None:
    """Note that an attribute was assigned. One that a call itself changes, such as a count of calls, is no option."""
    noted = module._noted or {}
    if name in _INTERNAL or noted.get(name, "") is None:
        return
    found = _note(module, name, value)
    if current().recorder is not None and noted.get(name) != found:
        noted[name] = None
    elif found is None:
        noted.pop(name, None)
    else:
        noted[name] = found
    _keep(module, noted)


def _keep(module: Module, noted: dict[str, Any]) -> None:
    module.__dict__["_noted"] = noted
    module.__dict__["_options"] = tuple((name, note) for name, note in noted.items() if note is not None)


def _note(module: Module, name: str, value: Any) -> tuple[type, Any] | None:
    """What is kept of a value, None of one that is registered: values are the same where this is equal."""
    if isinstance(value, Parameter) or name in module._buffers or hasattr(type(value), "_registrations"):
        return None
    return type(value), repr(value) if is_plain(value) else _Same(value)
