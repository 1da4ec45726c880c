"""Memory of the host as the C library keeps it: freed arrays of a step are the arrays of the next one.

glibc gives the end of its heap back to the system when so and so much of it is free, and asks for it again in the next
step, page by page: a training step that makes its arrays anew spent a third of its time there. So more is kept, and
given back when it is asked for. Settings of the user's (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`,
`GLIBC_TUNABLES`) stay as they are, and other C libraries as well.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

KEPT = 1 << 30  # bytes that may be free at the end of the heap
LARGEST = 1 << 25  # bytes of an array that lies in the heap; the most that glibc allows
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers for them, of malloc.h


@cache
def _library() -> Any:
    """The C library, None where it is not glibc."""
    library = ctypes.CDLL(None) if os.name == "posix" else None
    return library if hasattr(library, "malloc_trim") else None


@cache
def keep_freed_memory() -> None:
    """Have the C library keep memory that arrays leave, for the next ones. Once in a process."""
    chosen = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys()
    if _library() is not None and not chosen:
        _library().mallopt(_TRIM_THRESHOLD, KEPT)
        _library().mallopt(_MMAP_THRESHOLD, LARGEST)


def give_back() -> None:
    """Give all memory that no array uses back to the system."""
    if _library() is not None:
        _library().malloc_trim(0)
