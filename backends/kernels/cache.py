"""Where generated kernels lie: one source file each, its compiled code beside it, found again by every later process.

The folder is `RETROGRAD_CACHE`, by default `retrograd` in the user's cache directory, readable by the user alone. A
kernel's name says all that its code depends on: the description, the generator, and the versions and the processor
that the code is for. Files are written aside and renamed, so two processes that make the same kernel do not disturb
each other. Code is used only if its bytes have the sum that was written down when it was compiled.
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
_SEAL = ".whole"


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
    """Whether compiled code lies beside a source file, just as it was made: other code may end the process."""
    seal = _seal(path)
    return seal is not None and seal.exists()


def put_seal(path: Path) -> None:
    """Write down what the code beside a source file is, after it was compiled. Where that fails it is made again."""
    seal = _seal(path)
    if seal is not None:
        with contextlib.suppress(OSError):
            seal.touch()


def forget(path: Path) -> bool:
    """Remove a kernel's code. Whether it had been whole once."""
    files = [*path.parent.glob(f"__pycache__/{path.stem}.*")]
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink()
    return any(file.suffix == _SEAL for file in files)


def _seal(path: Path) -> Path | None:
    """An empty file whose name holds the sum of the code, None where there is no code. Processes that compile the same
    kernel at once put one each, so that whoever writes last leaves code that has its seal."""
    digest = hashlib.sha256()
    try:
        files = sorted(path.parent.glob(f"__pycache__/{path.stem}.*.nb[ic]"))
        for file in files:
            digest.update(file.name.encode() + file.read_bytes())
    except OSError:  # another process is making it anew
        return None
    return path.parent / "__pycache__" / f"{path.stem}.{digest.hexdigest()[:32]}{_SEAL}" if files else None
