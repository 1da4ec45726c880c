"""Where the strict backend would wait for a GPU, or copy host memory to one: counted, and refused if so wished."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple


class HostTransferError(RuntimeError):
    """A value was read by the host inside `no_sync()`, where a GPU would have had to finish all its work first."""


class Counts(NamedTuple):
    """How often values were read by the host (`syncs`) and host data was copied to the device (`uploads`)."""

    syncs: int
    uploads: int


_allowed = contextvars.ContextVar("retrograd_strict_sync_allowed", default=True)
_syncs = 0
_uploads = 0


def counts() -> Counts:
    """The counts since the process began; take the difference of two.

    Example:
        >>> from retrograd.backends import get_backend
        >>> from retrograd.backends.strict_sync import counts
        >>> x = get_backend("strict").asarray([1.0, 2.0])
        >>> before = counts()
        >>> float(x.sum())
        3.0
        >>> counts().syncs - before.syncs
        1
    """
    return Counts(_syncs, _uploads)


@contextlib.contextmanager
def no_sync() -> Iterator[None]:
    """Inside the block, reading a value of a strict array raises HostTransferError: `.get()`, `.item()`, `float()`,
    `bool()`, boolean masks, `nonzero`, `unique`, and everything else whose result depends on values by its shape."""
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)


def sync(what: str) -> None:
    """Count one wait for the device, or refuse it."""
    global _syncs
    _syncs += 1
    if not _allowed.get():
        raise HostTransferError(f"{what} reads a value from the device, which is not allowed here (no_sync)")


def upload() -> None:
    """Count one copy of host data to the device."""
    global _uploads
    _uploads += 1
