"""Where generated kernels lie: one source file each, its compiled code beside it, found again by every later process.

The folder is `RETROGRAD_CACHE`, by default `retrograd` in the user's cache directory, readable by the user alone. A
kernel's name says all that its code depends on: the description, the generator, and the versions and the processor
that the code is for. Files are written aside and renamed, so two processes that make the same kernel do not disturb
each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import sys
import tempfile
from functools import cache
from pathlib import Path

from .description import Description

_FILES = ("mathematics.py", "compiled.py", "numba_generator.py", "stages.py", "expressions.py")


def folder() -> Path:
    """The kernels' folder; not made here."""
    asked = os.environ.get("RETROGRAD_CACHE")
    if asked:
        return Path(asked) / "kernels"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "retrograd" / "kernels"


@cache
def fingerprint() -> str:
    """What every kernel's code depends on beside its description."""
    digest = hashlib.sha256()
    for name in _FILES:
        digest.update((Path(__file__).parent / name).read_bytes())
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite", "numpy")]
    digest.update(repr((versions, sys.version_info[:2], platform.machine())).encode())
    return digest.hexdigest()[:8]


def name_of(description: Description) -> str:
    """The kernel's name: that of its file and of its function."""
    return f"kernel_{description.key}_{fingerprint()}"


def write(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all. Raises OSError."""
    handle, aside = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise


def prepared() -> Path:
    """The folder, made if it is not there. Raises OSError where nothing can be written into it."""
    path = folder()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(f"cannot write into {path}")
    return path


def compiled(path: Path) -> bool:
    """Whether compiled code lies beside a source file."""
    return path.exists() and any(path.parent.glob(f"__pycache__/{path.stem}.*.nbi"))


def forget(path: Path) -> None:
    """Remove a kernel's source and code."""
    for file in [path, *path.parent.glob(f"__pycache__/{path.stem}.*")]:
        with contextlib.suppress(OSError):
            file.unlink()
