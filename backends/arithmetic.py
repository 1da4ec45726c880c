"""Whether the processor computes correctly: division and its like in vectors, against the same in scalars.

Processors fail silently: a core was met whose vector division was wrong by 1e-11 in one lane of four, for minutes at a
time, while everything else on it was right (Hochschild and others, "Cores that don't count", HotOS 2021, describe the
kind). No program can be trusted there, and no test result; so `retrograd doctor` looks, and so do the tests.
"""

from __future__ import annotations

import math
import os
import random
from functools import cache
from typing import Any

import numpy as np

SIZE = 4096  # a faulty lane was seen to err on one pair of operands in eight


@cache
def _cases() -> dict[str, tuple[Any, tuple[np.ndarray, ...], np.ndarray]]:
    """name → (vector function, operands, results computed one number at a time)."""
    draw = random.Random(0)
    a, b = ([draw.uniform(0.1, 10.0) for _ in range(SIZE)] for _ in range(2))
    exact = {
        "multiply": (np.multiply, (a, b), [x * y for x, y in zip(a, b, strict=True)]),
        "divide": (np.divide, (a, b), [x / y for x, y in zip(a, b, strict=True)]),
        "sqrt": (np.sqrt, (a,), [math.sqrt(x) for x in a]),
    }
    return {name: (f, tuple(map(np.array, operands)), np.array(out)) for name, (f, operands, out) in exact.items()}


def faults() -> list[str]:
    """The operations that the core this thread runs on computes wrongly; empty on a sound one. Takes about 20 µs.

    Example:
        >>> from retrograd.backends.arithmetic import faults
        >>> faults()
        []
    """
    return [name for name, (f, operands, out) in _cases().items() if not np.array_equal(f(*operands), out)]


def faults_by_core() -> dict[int, list[str]]:
    """`faults` on every core that this process may use; only faulty ones are listed.

    Where the system does not let a process choose its core, the current one is looked at, and called 0.
    """
    if not hasattr(os, "sched_setaffinity"):
        found = {0: faults()}
    else:
        usable, found = os.sched_getaffinity(0), {}
        try:
            for core in sorted(usable):
                os.sched_setaffinity(0, {core})
                found[core] = faults()
        finally:
            os.sched_setaffinity(0, usable)
    return {core: names for core, names in found.items() if names}
