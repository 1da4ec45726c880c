"""Descriptions become functions: from this process, from the cache, or compiled by worker processes.

A kernel that cannot be made is None, with one warning; the program then runs its steps with NumPy. A number is never
wrong because a file was damaged: code that is not as it was made is compiled again.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import cache
from .description import Description
from .numba_generator import source
from .worker import load

Kernel = Callable[..., None]

_built: dict[str, Kernel | None] = {}
_warned: set[str] = set()


def build(descriptions: Sequence[Description]) -> dict[str, Kernel | None]:
    """Description key → a function (first row, row behind the last, *arrays), None where there is none.

    Compiles what is missing, in parallel where it is more than one, and waits for it.
    """
    wanted = {d.key: d for d in descriptions if d.key not in _built}
    if wanted:
        files = _files(wanted)
        missing = [path for path in files.values() if not cache.compiled(path)]
        damaged = [path for path in missing if cache.forget(path)]
        if damaged:
            _warn(f"a damaged entry of the kernel cache is made anew, in {damaged[0].parent}")
        if missing:
            _compile(missing)
        for key, path in files.items():
            _built[key] = _loaded(path)
    return {d.key: _built[d.key] for d in descriptions}


def _files(wanted: dict[str, Description]) -> dict[str, Path]:
    """Description key → its source file, written where it was not there."""
    try:
        return _written(wanted, cache.prepared())
    except OSError as error:
        _warn(f"the kernel cache cannot be used ({error}): kernels are compiled in every process. Set RETROGRAD_CACHE.")
    place = Path(tempfile.mkdtemp(prefix="retrograd-kernels-"))
    _remove_at_exit(place)
    return _written(wanted, place)


def _written(wanted: dict[str, Description], place: Path) -> dict[str, Path]:
    """The files in a folder. Raises OSError where one cannot be written."""
    files = {}
    for key, description in wanted.items():
        path = place / f"{cache.name_of(description)}.py"
        text = source(description, path.stem)
        try:
            same = path.read_text(encoding="utf-8") == text
        except (OSError, UnicodeDecodeError):
            same = False
        if not same:
            cache.write(path, text)
        files[key] = path
    return files


def _compile(paths: list[Path]) -> None:
    """Have worker processes compile, as many as there are processors."""
    sys.stderr.write(f"compiling {len(paths)} kernel{'s' * (len(paths) > 1)} …\n")
    if len(paths) == 1:
        return  # loading it compiles it
    import subprocess

    workers = min(len(paths), _processors())
    environment = dict(os.environ) | {"OPENBLAS_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "retrograd.backends.kernels.worker", *map(str, paths[i::workers])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        for i in range(workers)
    ]
    for process in processes:
        process.wait()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _loaded(path: Path) -> Kernel | None:
    """The function in a file, None with a warning where it cannot be compiled."""
    try:
        return _entry(load(path))
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    _warn(f"a generated kernel could not be compiled, NumPy computes instead: {text}")
    return None


def _entry(dispatcher: Any) -> Kernel:
    """The compiled code without Numba's choice by types: the arrays of a program never change theirs."""
    (signature,) = dispatcher.signatures
    return dispatcher.overloads[signature].entry_point


def _warn(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def _remove_at_exit(place: Path) -> None:
    import atexit
    import shutil

    atexit.register(shutil.rmtree, place, ignore_errors=True)
