"""What assigning to an attribute of a Module means: what becomes part of it, what is refused, what is recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..autograd_core.context import current
from ..autograd_core.inplace import overwrite
from ..autograd_core.recorder import RecordingError
from ..autograd_core.tensor import Tensor
from .errors import nearest
from .module import Module
from .parameter import Parameter

_INTERNAL = frozenset(["_buffers", "_pre_hooks", "_forward_hooks"])
_PLAIN = (list, tuple, dict)


def assign(module: Module, name: str, value: Any, held: Any) -> None:
    """`module.name = value`, where the new or the old value may be a Parameter, a buffer, a Module or a list."""
    if type(value) in _PLAIN and name not in _INTERNAL:
        value = container_of(value, name)
    is_buffer = name in module._buffers
    _refuse_wrong_kind(name, value, held, is_buffer)
    if current().recorder is not None and _is_part(value, is_buffer):
        _assign_in_recording(name, value, held, is_buffer)
        return
    object.__setattr__(module, name, value)
    if is_buffer or isinstance(value, Parameter | Module) or isinstance(held, Parameter | Module):
        module.__dict__["_registrations"] = module._registrations + 1


def adopt(module: Module) -> None:
    """Turn plain lists and dicts that were filled with Modules after their assignment into ModuleLists and -Dicts."""
    for name, value in list(vars(module).items()):
        if type(value) in _PLAIN and name not in _INTERNAL:
            made = container_of(value, name)
            if made is not value:
                module.__dict__[name] = made
                module.__dict__["_registrations"] = module._registrations + 1


def container_of(value: Any, name: str) -> Any:
    """A list or dict that holds Modules (or Parameters) as the container that registers them; all else as it is."""
    from .containers import ModuleDict, ModuleList, ParameterDict, ParameterList

    items = list(value.values()) if type(value) is dict else list(value)
    items = [container_of(i, name) if type(i) in _PLAIN and i else i for i in items]
    for kind, numbered, named in ((Module, ModuleList, ModuleDict), (Parameter, ParameterList, ParameterDict)):
        found = sum(isinstance(i, kind) for i in items)
        if not found:
            continue
        if found < len(items):
            other = next(type(i).__name__ for i in items if not isinstance(i, kind))
            raise TypeError(
                f"{name!r} holds {found} {kind.__name__}s and a {other}: a list or dict of {kind.__name__}s must hold "
                "nothing else, or they would not be found for training and saving"
            )
        return named(dict(zip(value, items, strict=True))) if type(value) is dict else numbered(items)
    return value


def check_name(module: Module, name: Any) -> None:
    """Refuse a name that cannot be an attribute, or that would hide a method of the module."""
    if not isinstance(name, str) or not name or "." in name:
        raise ValueError(f"expected a name without a dot, got {name!r}")
    if callable(getattr(type(module), name, None)):
        raise ValueError(f"the name {name!r} would hide {type(module).__name__}.{name}; choose another one")


def matching(module: Module, patterns: Sequence[str]) -> Iterator[Parameter]:
    """The parameters whose names fit one of the patterns: a shell pattern, or the name of a module above them."""
    from fnmatch import fnmatchcase

    named = dict(module.named_parameters(remove_duplicate=False))
    chosen: set[str] = set() if patterns else set(named)
    for pattern in patterns:
        hits = {n for n in named if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*")}
        if not hits:
            names = [*named, *dict(module.named_modules())]
            raise ValueError(f"no parameter of {type(module).__name__} matches {pattern!r}{nearest(pattern, names)}")
        chosen |= hits
    return iter({id(named[n]): named[n] for n in named if n in chosen}.values())


def _refuse_wrong_kind(name: str, value: Any, held: Any, is_buffer: bool) -> None:
    if isinstance(held, Parameter) and not (value is None or isinstance(value, Parameter | Module)):
        raise TypeError(
            f"{name!r} is a Parameter, and {type(value).__name__} is none: it would vanish from training. Change its "
            f"values under rg.no_grad() with {name}.copy_(value), or assign nn.Parameter(value)."
        )
    if isinstance(held, Module) and isinstance(value, Tensor):
        raise TypeError(
            f"{name!r} is a submodule; a {type(value).__name__} would take its place. Give it another name."
        )
    if is_buffer and not (value is None or isinstance(value, Tensor)):
        raise TypeError(
            f"{name!r} is a buffer: expected a Tensor or None, got {type(value).__name__}. Use rg.tensor(...)."
        )


def _is_part(value: Any, is_buffer: bool) -> bool:
    """Whether a value becomes part of a module. Any other tensor is an attribute like those of other objects: one made
    once (a mask, a rotary cache) may stay, and `compile/lasting.py` refuses one that each call leaves there."""
    return isinstance(value, Parameter | Module) or (is_buffer and isinstance(value, Tensor))


def _assign_in_recording(name: str, value: Any, held: Any, is_buffer: bool) -> None:
    if isinstance(value, Tensor) and isinstance(held, Tensor) and (is_buffer or isinstance(held, Parameter)):
        overwrite(held, value)
        return
    raise RecordingError(
        f"assigning {type(value).__name__} {name!r} inside a recorded function: a replay could not repeat it. Make it "
        "outside, or register it as a buffer, whose assignments are recorded."
    )
