"""Whose code it is that a compiled function leads to, and what of it may run without being named."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

NO_DICT: dict[str, Any] = {}


@lru_cache(maxsize=4096)
def is_users(module: str) -> bool:
    """Whether code of a module is the user's own: no library's, nor Python's, nor ours."""
    if is_ours(module) or module.partition(".")[0] in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return not {"site-packages", "dist-packages"} & set(Path(file).parts)


def is_ours(module: Any) -> bool:
    return str(module).partition(".")[0] == __name__.partition(".")[0]


def is_users_alone(kind: type) -> bool:
    """Whether nothing of a module's class is ours but what all modules have: our layers read options by themselves."""
    layers = (made for made in kind.__mro__ if hasattr(made, "_registrations") and "_registrations" not in vars(made))
    return not any(is_ours(made.__module__) for made in layers)


def is_implied(method: str) -> bool:
    """Whether code that does something with an object may call a method of it without naming it."""
    return method == "forward" or (method.startswith("__") and method not in _NOT_IMPLIED)


_UNIMPLIED = ("init", "new", "del", "post_init", "init_subclass", "repr", "str", "eq", "ne", "hash", "setattr")
_NOT_IMPLIED = {f"__{name}__" for name in _UNIMPLIED}


def dict_of(value: Any) -> dict[str, Any]:
    """The attributes of its own that an object has, NO_DICT where it has no place for such."""
    try:
        kept = value.__dict__
    except Exception:  # a property may raise anything
        return NO_DICT
    return kept if type(kept) is dict else NO_DICT
