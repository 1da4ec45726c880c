"""The process that compiles kernels: `python -m retrograd.backends.kernels.worker FILE …`. Code goes to the cache."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from .cache import put_seal


def load(path: Path) -> Any:
    """The compiled function in a generated file; compiles it where the cache beside the file has no code."""
    import numba  # pyright: ignore[reportMissingImports]

    config: Any = numba.config  # which makes its names at run time
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # Numba's cache looks a function's module up by its name
    dont_write, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    users, config.CACHE_DIR = config.CACHE_DIR, ""  # NUMBA_CACHE_DIR is for the user's own functions
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode, config.CACHE_DIR = dont_write, users
    put_seal(path)
    return getattr(module, path.stem)


def main(paths: list[str]) -> int:
    """Compile each; one that fails is left to the parent, which tries it and says why."""
    for path in paths:
        try:
            load(Path(path))
        except Exception as error:
            sys.stderr.write(f"{path}: {type(error).__name__}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
