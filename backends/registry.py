"""Which backends there are, and which one new arrays go to.

Names are `numpy`, `strict`, `cupy`, `cupy:N`, `auto`, and those of plug-ins: entry points of the group
`retrograd.backends`, each a callable that makes a Backend (called with the part after the colon, if there is one).
Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from typing import Any

from .base import Array, Backend
from .errors import BackendError
from .numpy_backend import NumpyBackend

ENTRY_POINTS = "retrograd.backends"

# Each module has a function `make(device)`, device being the text after the colon, or "".
SHIPPED = {"numpy": ".numpy_backend", "cupy": ".cupy_backend", "strict": ".strict_backend"}
ELSEWHERE = {"cpu": "numpy", "cuda": "cupy", "gpu": "cupy"}  # what PyTorch and JAX call a device

BACKEND_BY_TYPE: dict[type, Backend] = {}
"""From the exact type of an array to its backend. A backend enters it when it is first made; NumPy is always there."""

_made: dict[str, Backend] = {}
_default: Backend | None = None
_lock = threading.RLock()


def get_backend(name: str | Backend | None = None) -> Backend:
    """The backend of that name; the same object at every call. None is the default backend of the process.

    Args:
        name: `numpy`, `strict`, `cupy` (device 0), `cupy:N`, `auto` (cupy where it is usable, numpy elsewhere), the
            name of a plug-in, or a Backend, which is given back.
    Raises:
        BackendError: the name is unknown or its library cannot be used here; the message says what can, and why the
            rest cannot.

    Example:
        >>> from retrograd.backends import get_backend
        >>> get_backend("numpy").name
        'numpy'
    """
    if name is None:
        return default_backend()
    if isinstance(name, Backend):
        return register(name)
    if not isinstance(name, str):
        raise TypeError(f"expected the name of a backend (such as 'numpy' or 'cupy:0') or a Backend, got {name!r}")
    if name == "auto":
        return _automatic()
    backend = _made.get(name)
    if backend is None:
        with _lock:
            backend = _made.get(name) or _make(name)
            _made[name] = backend
    return backend


def register(backend: Backend) -> Backend:
    """Make the arrays of a backend known, so that `backend_of` finds it. Those made by name are registered already."""
    with _lock:
        known = BACKEND_BY_TYPE.setdefault(backend.array_type, backend)
        if type(known) is not type(backend):
            raise BackendError(
                f"the backends {known.name!r} and {backend.name!r} both claim arrays of type "
                f"{backend.array_type.__module__}.{backend.array_type.__qualname__}; an array type belongs to one"
            )
        _made.setdefault(backend.name, backend)
    return backend


def default_backend() -> Backend:
    """The backend of new arrays: RETROGRAD_BACKEND at first, `numpy` if it is not set, or what was set since.

    Example:
        >>> import retrograd as rg
        >>> from retrograd.backends import default_backend
        >>> default_backend() is rg.get_backend()
        True
    """
    global _default
    if _default is None:
        asked = os.environ.get("RETROGRAD_BACKEND") or "numpy"
        try:
            _default = get_backend(asked)
        except BackendError as error:
            raise BackendError(f"RETROGRAD_BACKEND={asked}: {error}") from error.__cause__
    return _default


def set_default_backend(name: str | Backend | None) -> Backend:
    """Let new arrays of this process go to that backend, in every thread; None goes back to RETROGRAD_BACKEND.

    Raises BackendError, and changes nothing, if the backend cannot be used.

    Example:
        >>> import retrograd as rg
        >>> before = rg.get_backend()
        >>> _ = rg.set_default_backend("strict")
        >>> rg.zeros(2).backend.name
        'strict'
        >>> _ = rg.set_default_backend(before)
    """
    global _default
    if name is None:
        _default = None
        return default_backend()
    _default = get_backend(name)
    return _default


def backend_of(array: Array) -> Backend:
    """The backend that an array belongs to, by its exact type.

    Raises TypeError for anything that is no array of a backend made so far.

    Example:
        >>> import numpy as np
        >>> from retrograd.backends import backend_of
        >>> backend_of(np.ones(3)).name
        'numpy'
    """
    try:
        backend = BACKEND_BY_TYPE[type(array)]
    except KeyError:
        known = ", ".join(f"{t.__module__}.{t.__qualname__}" for t in BACKEND_BY_TYPE)
        raise TypeError(f"expected an array of a backend ({known}), got {type(array).__qualname__}") from None
    return backend.of_array(array) if backend.shares_array_type else backend


def discover() -> dict[str, str | None]:
    """Every backend that can be named here, with the reason why it is not usable, or None if it is.

    Tries each one, so it imports what is installed.

    Example:
        >>> from retrograd.backends import discover
        >>> discover()["numpy"] is None
        True
    """
    return {name: _trouble(name) for name in [*SHIPPED, *_plugins()]}


def _trouble(name: str) -> str | None:
    if name in _made:
        return None
    try:
        _checked(name, _maker(name), "")
    except BackendError as error:
        return str(error)
    return None


def _automatic() -> Backend:
    return get_backend("numpy" if _trouble("cupy") else "cupy")


def _make(name: str) -> Backend:
    base, _, device = name.partition(":")
    maker = _maker(base)
    if maker is None:
        hint = f" (here it is called {ELSEWHERE[base]!r})" if base in ELSEWHERE else ""
        raise BackendError(f"unknown backend {name!r}{hint}; {_found()}")
    try:
        return register(_checked(name, maker, device))
    except BackendError as error:
        raise BackendError(f"backend {name!r} is not usable: {error}; {_found(but=base)}") from error.__cause__


def _checked(name: str, maker: Callable[..., Any] | None, device: str) -> Backend:
    assert maker is not None
    try:
        backend = maker(device) if device else maker()
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(f"making it failed with {type(error).__name__}: {error}") from error
    if not isinstance(backend, Backend):
        raise BackendError(f"its entry point gave {type(backend).__qualname__}, not a retrograd.backends.Backend")
    return backend


def _maker(name: str) -> Callable[..., Any] | None:
    if name in SHIPPED:
        return importlib.import_module(SHIPPED[name], __package__).make
    point = _plugins().get(name)
    if point is None:
        return None

    def make(*device: str) -> Any:
        return point.load()(*device)

    return make


def _plugins() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINTS) if point.name not in SHIPPED}


def _found(but: str = "") -> str:
    states = {name: _trouble(name) for name in [*SHIPPED, *_plugins()] if name != but}
    usable = [name for name, reason in states.items() if reason is None]
    rest = [f"{name} ({reason})" for name, reason in states.items() if reason is not None]
    return f"usable here: {', '.join(usable)}" + (f"; not usable: {', '.join(rest)}" if rest else "")


register(NumpyBackend())
