"""The kernels' own functions against float64: errors in units in the last place, and the ends of the range."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
from retrograd.backends.kernels import mathematics

WIDE = np.concatenate([np.linspace(-87, 88, 40_001), np.linspace(-1, 1, 20_001), np.geomspace(1e-30, 1e-3, 2001)])
POSITIVE = np.concatenate([np.geomspace(1e-37, 3e38, 40_001), np.linspace(0.5, 2, 20_001)])
ANGLES = np.concatenate([np.linspace(-20, 20, 40_001), np.linspace(-1e6, 1e6, 20_001)])

ERF = np.vectorize(math.erf)

# name → (points, exact function, greatest error in ulp, or absolute error where a zero is crossed)
BOUNDS = {
    "exp": (WIDE, np.exp, 2, None),
    "expm1": (WIDE, np.expm1, 4, None),
    "log": (POSITIVE, np.log, 4, None),
    "log1p": (np.concatenate([POSITIVE, np.linspace(-0.99, 1, 20_001)]), np.log1p, 4, None),
    "log2": (POSITIVE, np.log2, 4, None),
    "log10": (POSITIVE, np.log10, 4, None),
    "tanh": (WIDE, np.tanh, 4, None),
    "erf": (np.linspace(-6, 6, 40_001), ERF, None, 5e-7),
    "sin": (ANGLES, np.sin, None, 2e-7),
    "cos": (ANGLES, np.cos, None, 2e-7),
}
ENDS = {
    "exp": {np.inf: np.inf, -np.inf: 0.0, 0.0: 1.0, 100.0: np.inf, -200.0: 0.0},
    "expm1": {np.inf: np.inf, -np.inf: -1.0, 0.0: 0.0, 100.0: np.inf},
    "log": {np.inf: np.inf, 0.0: -np.inf, 1.0: 0.0, -1.0: np.nan},
    "log1p": {np.inf: np.inf, -1.0: -np.inf, 0.0: 0.0, -2.0: np.nan},
    "log2": {8.0: 3.0, 0.0: -np.inf},
    "log10": {0.0: -np.inf},
    "tanh": {np.inf: 1.0, -np.inf: -1.0, 0.0: 0.0},
    "erf": {np.inf: 1.0, -np.inf: -1.0, 0.0: 0.0},
    "sin": {0.0: 0.0, np.inf: np.nan},
    "cos": {0.0: 1.0, -np.inf: np.nan},
}
FUNCTIONS = {f.__name__: f for f in mathematics.FLOAT32}


def evaluate(name, points):
    """The plain Python function, on every element."""
    with np.errstate(all="ignore"):
        return np.array([FUNCTIONS[name](np.float32(x)) for x in points], np.float32)


def error(found, exact, absolute):
    distance = np.abs(found.astype(np.float64) - exact)
    if absolute is not None:
        return distance.max()
    return (distance / np.maximum(np.spacing(np.abs(exact).astype(np.float32)), np.float32(1e-45))).max()


def test_every_function_has_a_bound():
    assert BOUNDS.keys() == ENDS.keys() == FUNCTIONS.keys()


@pytest.mark.parametrize("name", BOUNDS)
def test_error(name):
    points, exact, ulp, absolute = BOUNDS[name]
    points = points.astype(np.float32)[::17]
    assert error(evaluate(name, points), exact(points.astype(np.float64)), absolute) <= (ulp or absolute)


@pytest.mark.parametrize("name", ENDS)
def test_ends(name):
    np.testing.assert_array_equal(evaluate(name, ENDS[name]), np.array(list(ENDS[name].values()), np.float32))
    assert np.isnan(evaluate(name, [np.nan])[0])


def test_denormal_numbers():
    tiny = np.array([1e-40, 3e-45], np.float32)
    np.testing.assert_allclose(evaluate("log", tiny), np.log(tiny.astype(np.float64)), rtol=1e-6)
    np.testing.assert_allclose(evaluate("exp", [-95.0]), np.exp(-95.0), rtol=1e-3)


@pytest.mark.parametrize("function", [mathematics.maximum, mathematics.minimum])
def test_extremes_keep_a_nan(function):
    one, nan = np.float32(1), np.float32(np.nan)
    assert np.isnan(function(nan, one))
    assert np.isnan(function(one, nan))
    assert function(1.0, 2.0) == {"maximum": 2.0, "minimum": 1.0}[function.__name__]


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs Numba")
def test_compiled_they_are_as_exact():
    """All functions in one kernel: fast-math must not undo what the polynomials rely on."""
    from retrograd.backends.kernels.build import build
    from retrograd.backends.kernels.description import Description, Operand, Statement, Store

    f = "float32"
    names = list(BOUNDS)
    description = Description(
        1,
        0,
        (Operand("x", f, (0,), True, False), *[Operand(f"y{i}", f, (0,), True, True) for i in range(len(names))]),
        tuple(Statement(f"t{i}", f"{name}(x)", ("x",), f, f) for i, name in enumerate(names)),
        tuple(Store(f"y{i}", f"t{i}") for i in range(len(names))),
    )
    kernel = build([description])[description.key]
    assert kernel is not None
    for i, name in enumerate(names):
        points, exact, ulp, absolute = BOUNDS[name]
        points = points.astype(f)
        outs = [np.empty_like(points) for _ in names]
        kernel(0, len(points), points, *outs)
        assert error(outs[i], exact(points.astype(np.float64)), absolute) <= (ulp or absolute), name
        ends = np.array([*ENDS[name], np.nan] * 20, f)
        outs = [np.empty_like(ends) for _ in names]
        kernel(0, len(ends), ends, *outs)
        np.testing.assert_array_equal(outs[i], np.array([*ENDS[name].values(), np.nan] * 20, f))
