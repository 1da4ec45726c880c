"""What CuPy offers: its names and their parameters, as a table that the strict backend reads.

The table lies beside this file, so that no CuPy is needed to test against it. To make it anew for another version,
where that CuPy is installed (a GPU is not needed):

    python -m retrograd.backends.cupy_surface > backends/cupy_surface.json
"""

from __future__ import annotations

import functools
import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

NAMESPACES = ("linalg", "fft", "lib.stride_tricks")

_FILE = pathlib.Path(__file__).with_name("cupy_surface.json")


@functools.cache
def load() -> dict[str, Any]:
    """The table: `cupy` (version), `names`, `ufuncs`, `methods` and `attributes` of arrays, one list for each
    namespace, and `parameters` by dotted name (`sum`, `linalg.norm`, `ndarray.sum`)."""
    return json.loads(_FILE.read_text())


def describe(cupy: Any) -> dict[str, Any]:
    """The same table, read from an imported CuPy."""
    ufuncs = [n for n in _public(cupy) if isinstance(getattr(cupy, n), cupy.ufunc)]
    methods = [n for n in _public(cupy.ndarray) if callable(getattr(cupy.ndarray, n))]
    table: dict[str, Any] = {
        "cupy": cupy.__version__,
        "names": _public(cupy),
        "ufuncs": ufuncs,
        "methods": methods,
        "attributes": [n for n in _public(cupy.ndarray) if n not in methods],
    }
    functions = {n: getattr(cupy, n) for n in _public(cupy) if n not in ufuncs}
    functions |= {f"ndarray.{n}": getattr(cupy.ndarray, n) for n in methods}
    for name in NAMESPACES:
        space = functools.reduce(getattr, name.split("."), cupy)
        table[name] = _public(space)
        functions |= {f"{name}.{n}": getattr(space, n) for n in table[name]}
    table["parameters"] = dict(_parameters(functions))
    return table


def _public(owner: Any) -> list[str]:
    return sorted(n for n in dir(owner) if not n.startswith("_"))


def _parameters(functions: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    import inspect

    for name, function in functions.items():
        if not callable(function) or isinstance(function, type):
            continue
        try:
            yield name, [p.name for p in inspect.signature(function).parameters.values() if p.name != "self"]
        except (TypeError, ValueError):
            # Compiled methods carry their signature in the first line of the docstring only.
            head = re.match(r"[\w.]+\(self,? ?(.*?)\)( ->|$)", (function.__doc__ or "").partition("\n")[0])
            if head:
                words = [p.partition("=")[0].split()[-1].lstrip("*") for p in head[1].split(",") if p.strip()]
                yield name, words


def main() -> None:
    import cupy  # pyright: ignore[reportMissingImports]

    table = describe(cupy)
    # One entry a line keeps the differences between two versions readable.
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in table.items() if k != "parameters"]
    rows = ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in table["parameters"].items())
    sys.stdout.write("{\n" + ",\n".join(lines) + ',\n"parameters": {\n  ' + rows + "}}\n")


if __name__ == "__main__":
    main()
