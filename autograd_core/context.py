"""What surrounds a call: one context variable holds grad mode, recorder, backend and anomaly mode.

A single lookup per operation answers every question about its surroundings, and a context variable keeps the answer
right under threads: a new thread starts from the defaults, and what one thread switches off stays on in the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..backends import Backend, default_backend, get_backend
from .errors import one_frame

if TYPE_CHECKING:
    from contextlib import _GeneratorContextManager
    from typing import TypeAlias

    from .recorder import Recorder

    Block: TypeAlias = _GeneratorContextManager[None]  # the only type of `contextlib` that is a decorator too


class Mode:
    """The surroundings of a call. Immutable: a switch makes a changed copy and puts the old one back on leaving."""

    __slots__ = ("anomaly", "backend", "grad", "plain", "recorder", "reference")

    def __init__(
        self,
        grad: bool = True,
        recorder: Recorder | None = None,
        backend: Backend | None = None,
        anomaly: bool = False,
        reference: bool = False,
    ):
        self.grad = grad
        self.recorder = recorder
        self.backend = backend
        self.anomaly = anomaly
        self.reference = reference
        self.plain = recorder is None and not anomaly and not reference  # the fast lane of dispatch asks only this

    def but(self, **changes: Any) -> Mode:
        kept = {name: getattr(self, name) for name in ("grad", "recorder", "backend", "anomaly", "reference")}
        return Mode(**(kept | changes))


_mode: ContextVar[Mode] = ContextVar("retrograd_mode", default=Mode())  # noqa: B039  Mode is immutable
current = _mode.get


@contextmanager
def switched(**changes: Any) -> Iterator[None]:
    """Run a block with some fields of the current mode changed."""
    token = _mode.set(_mode.get().but(**changes))
    try:
        yield
    finally:
        _mode.reset(token)


def no_grad() -> Block:
    """Context manager and decorator: operations inside make no graph, and leaves may be changed in place.

    >>> import retrograd as rg
    >>> w = rg.tensor([1.0, 2.0], requires_grad=True)
    >>> with rg.no_grad():
    ...     y = w * 2
    >>> y.requires_grad
    False
    """
    return switched(grad=False)


def enable_grad() -> Block:
    """Context manager and decorator: switch recording of the graph on again inside a `no_grad` block.

    >>> import retrograd as rg
    >>> w = rg.tensor(1.0, requires_grad=True)
    >>> with rg.no_grad(), rg.enable_grad():
    ...     (w * 2).requires_grad
    True
    """
    return switched(grad=True)


def set_grad_enabled(mode: bool) -> Block:
    """Context manager: `enable_grad()` where `mode` is true, `no_grad()` where it is false.

    >>> import retrograd as rg
    >>> w = rg.tensor(1.0, requires_grad=True)
    >>> with rg.set_grad_enabled(False):
    ...     (w * 2).requires_grad
    False
    """
    return switched(grad=bool(mode))


def is_grad_enabled() -> bool:
    """Whether operations on tensors that require gradients are put into a graph here.

    >>> import retrograd as rg
    >>> with rg.no_grad():
    ...     rg.is_grad_enabled()
    False
    """
    return _mode.get().grad


def detect_anomaly() -> Block:
    """Context manager that finds the first NaN: each operation checks what it made and remembers the line it stood on.

    An operation whose result or gradient holds a NaN raises `FloatingPointError` with the operation's name and the
    user's line. Slow: for the search of a mistake only.

    >>> import retrograd as rg
    >>> x = rg.tensor(-1.0, requires_grad=True)
    >>> with rg.detect_anomaly():
    ...     rg.sqrt(x)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    FloatingPointError: sqrt(x: float32 tensor ()): sqrt made a NaN ...
    """
    return switched(anomaly=True)


def reference_tier() -> Block:
    """Context manager: operations run as their records define them, without kernels, fused ones written out in others.

    What `RETROGRAD_KERNELS=reference` does to a process, this does to a block, so that tests can compare the tiers.
    """
    return switched(reference=True)


@one_frame
def use_backend(name: str | Backend) -> Block:
    """Context manager: new arrays inside the block are made by the backend called `name` ("numpy", "cupy:1", …).

    Operations follow their operands, so tensors made outside stay where they are.

    >>> import retrograd as rg
    >>> with rg.use_backend("strict"):
    ...     t = rg.zeros(2)
    >>> t.backend.name
    'strict'
    """
    return switched(backend=get_backend(name) if isinstance(name, str) else name)


def current_backend() -> Backend:
    """The backend that makes new arrays here: that of the innermost `use_backend` block, else the process default.

    >>> import retrograd as rg
    >>> with rg.use_backend("strict"):
    ...     rg.current_backend().name
    'strict'
    """
    return _mode.get().backend or default_backend()
