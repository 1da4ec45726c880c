"""The checks of `backend.xp`: what retrograd calls by the name that NumPy and CuPy share.

The tables are the contract: a name that retrograd's operations use stands here, with the arguments that they use.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ..backends import Backend
from .backend_conformance import check, expect, raises, same, sample

# Functions of one array by the numbers on which they are tried.
ANY = np.array([[-2.5, -1.0, -0.25], [0.0, 0.5, 3.0]])
POSITIVE = np.array([[0.1, 0.5, 1.0], [2.0, 3.5, 80.0]])
UNIT = np.array([[-0.9, -0.5, -0.1], [0.0, 0.3, 0.75]])

UNARY = {
    "absolute": ANY, "negative": ANY, "positive": ANY, "square": ANY, "sign": ANY, "floor": ANY, "ceil": ANY,
    "trunc": ANY, "rint": ANY, "exp": ANY, "exp2": ANY, "expm1": ANY, "sin": ANY, "cos": ANY, "tan": ANY, "sinh": ANY,
    "cosh": ANY, "tanh": ANY, "arctan": ANY, "arcsinh": ANY, "isnan": ANY, "isinf": ANY, "isfinite": ANY,
    "signbit": ANY, "logical_not": ANY, "sqrt": POSITIVE, "cbrt": POSITIVE, "log": POSITIVE, "log2": POSITIVE,
    "log10": POSITIVE, "log1p": POSITIVE, "reciprocal": POSITIVE, "arcsin": UNIT, "arccos": UNIT, "arctanh": UNIT,
}  # fmt: skip

BINARY = (
    "add", "subtract", "multiply", "divide", "floor_divide", "remainder", "power", "maximum", "minimum", "fmax", "fmin",
    "arctan2", "hypot", "copysign", "logaddexp", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
    "logical_and", "logical_or", "logical_xor",
)  # fmt: skip

OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lt", "le", "gt", "ge", "eq", "ne")

# (function, keywords), each on a (2, 3, 4) array.
_REDUCING = ("sum", "mean", "max", "min", "prod", "var", "std", "any", "all", "argmax", "argmin")
REDUCTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    *((name, keywords) for name in _REDUCING for keywords in ({}, {"axis": 1}, {"axis": -1, "keepdims": True})),
    ("sum", {"axis": (0, 2)}), ("max", {"axis": (0, 2), "keepdims": True}), ("sum", {"dtype": "float64"}),
    ("count_nonzero", {}), ("cumsum", {"axis": 1}), ("cumprod", {"axis": -1}),
)  # fmt: skip

# (function, arguments after the array, keywords), each on a (2, 3, 4) array.
MOVEMENTS: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...] = (
    ("reshape", ((4, 6),), {}), ("reshape", (-1,), {}), ("ravel", (), {}), ("transpose", (), {}),
    ("transpose", ((2, 0, 1),), {}), ("swapaxes", (0, 2), {}), ("moveaxis", (0, -1), {}),
    ("expand_dims", ((0, 2),), {}), ("squeeze", (), {}), ("broadcast_to", ((5, 2, 3, 4),), {}),
    ("flip", (), {"axis": 1}), ("roll", (2,), {"axis": 2}), ("repeat", (2,), {"axis": 1}), ("tile", ((1, 2, 1),), {}),
    ("pad", (((0, 0), (1, 2), (0, 1)),), {}), ("pad", (1,), {"constant_values": 3.0}), ("diagonal", (0, 1, 2), {}),
    ("tril", (), {}), ("triu", (1,), {}),
    ("sort", (), {"axis": 1}), ("argsort", (), {"axis": -1}), ("clip", (-1.0, 1.5), {}), ("round", (0,), {}),
    ("nan_to_num", (), {}), ("ones_like", (), {}), ("zeros_like", (), {}),
)  # fmt: skip

CREATIONS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("zeros", ((2, 3), "float32")), ("ones", ((), "int64")), ("full", ((2,), 1.5, "float64")), ("arange", (2, 9, 3)),
    ("eye", (3, 4, 1, "float32")), ("linspace", (0.0, 1.0, 5)), ("tri", (3, 4)),
)  # fmt: skip

EINSUMS = ("ij,jk->ik", "ij,kj->ik", "ij,ij->", "ij->ji", "ij->i", "ij,ij->ij")

ATTRIBUTES = ("shape", "dtype", "ndim", "size", "itemsize", "nbytes", "strides")


@check
def elementwise_functions(b: Backend) -> None:
    for dtype in ("float64", "float32", "float16"):
        for name, numbers in UNARY.items():
            data = numbers.astype(dtype)
            expected = getattr(np, name)(data)
            same(b, getattr(b.xp, name)(b.asarray(data)), expected, f"xp.{name} of {dtype}", ulp=16)


@check
def binary_functions(b: Backend) -> None:
    for dtype in ("float64", "float32"):
        left, right = POSITIVE.astype(dtype), ANY[1].astype(dtype) + 1
        for name in BINARY:
            expected = getattr(np, name)(left, right)
            got = getattr(b.xp, name)(b.asarray(left), b.asarray(right))
            same(b, got, expected, f"xp.{name} of {dtype}", ulp=16)


@check
def operators(b: Backend) -> None:
    left, right = POSITIVE.astype("float32"), ANY[1].astype("float32") + 1
    for name in OPERATORS:
        apply = getattr(operator, name)
        same(b, apply(b.asarray(left), b.asarray(right)), apply(left, right), f"operator {name}", ulp=16)
        same(b, apply(b.asarray(left), 2), apply(left, 2), f"operator {name} with a scalar", ulp=16)
        same(b, apply(2.0, b.asarray(left)), apply(2.0, left), f"operator {name} with a scalar first", ulp=16)
    integers, bits = sample("int64"), sample("bool")
    same(b, ~b.asarray(bits) | (b.asarray(integers) > 0), ~bits | (integers > 0), "~, | and >")
    same(b, b.asarray(integers) % 3 ^ 1, integers % 3 ^ 1, "% and ^ of int64")
    same(b, abs(-b.asarray(left)), left, "abs and -")


@check
def in_place_operators(b: Backend) -> None:
    for name in ("iadd", "isub", "imul", "itruediv"):
        data = POSITIVE.astype("float32")
        mine = b.asarray(data, copy=True)
        view = mine[1:]
        result = getattr(operator, name)(mine, 2.0)
        data = getattr(operator, name)(data, 2.0)
        expect(result is mine, f"operator {name}", "the same object", "another")
        same(b, view, data[1:], f"a view after operator {name}", ulp=4)


@check
def promotion(b: Backend) -> None:
    for dtype in ("float16", "float32", "float64", "int32", "uint8", "bool"):
        for other in (2, 2.5, np.float64(2.5), np.int64(2), "float32", "float64", "int64"):
            data = sample(dtype, (3,))
            right = sample(other, (3,)) if isinstance(other, str) else other
            mine = b.asarray(right) if isinstance(right, np.ndarray) else right
            same(b, b.asarray(data) * mine, data * right, f"{dtype} * {other!r}", ulp=4)


@check
def out_argument(b: Backend) -> None:
    data = POSITIVE.astype("float32")
    for name, arguments in (("add", 2), ("multiply", 2), ("exp", 1), ("maximum", 2), ("matmul", 2)):
        inputs = [data[:, :2]] * arguments
        out = b.xp.empty((2, 2), "float32")
        result = getattr(b.xp, name)(*map(b.asarray, inputs), out=out)
        expect(result is out, f"xp.{name}(..., out=out)", "out itself", "another object")
        same(b, out, getattr(np, name)(*inputs), f"xp.{name}(..., out=out)", ulp=16)
    out = b.xp.zeros((3,), "float32")
    b.xp.sum(b.asarray(data), axis=0, out=out)
    same(b, out, data.sum(axis=0), "xp.sum(..., out=out)", ulp=16)


@check
def reductions(b: Backend) -> None:
    for dtype in ("float64", "float32", "int64", "bool"):
        data = sample(dtype, (2, 3, 4))
        for name, keywords in REDUCTIONS:
            expected = np.asarray(getattr(np, name)(data, **keywords))
            got = b.wrap(getattr(b.xp, name)(b.asarray(data), **keywords))
            same(b, got, expected, f"xp.{name}({dtype}, {keywords})", ulp=16)


@check
def special_values(b: Backend) -> None:
    data = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0], "float32")
    mine = b.asarray(data)
    for name in ("isnan", "isinf", "isfinite", "sign", "signbit", "absolute"):
        same(b, getattr(b.xp, name)(mine), getattr(np, name)(data), f"xp.{name} of special values")
    for name in ("maximum", "minimum", "fmax", "fmin"):
        same(b, getattr(b.xp, name)(mine, 0.5), getattr(np, name)(data, 0.5), f"xp.{name} of special values")
    same(b, b.wrap(mine.max()), np.asarray(data.max()), "the maximum of numbers with a NaN")
    same(b, mine == mine, data == data, "NaN == NaN")


@check
def contractions(b: Backend) -> None:
    shapes = (((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)),
              ((5, 2, 3), (3, 4)), ((2, 1, 2, 3), (4, 3, 2)), ((2, 0), (0, 3)))  # fmt: skip
    for dtype in ("float64", "float32"):
        for left, right in shapes:
            x, y = sample(dtype, left), sample(dtype, right)
            got = b.wrap(b.xp.matmul(b.asarray(x), b.asarray(y)))
            same(b, got, np.asarray(np.matmul(x, y)), f"xp.matmul of {dtype} {left} and {right}", ulp=16)
        square = sample(dtype, (3, 3))
        same(b, b.asarray(square).T @ b.asarray(square), square.T @ square, "x.T @ x", ulp=16)
        for subscripts in EINSUMS:
            inputs = [square] * len(subscripts.partition("->")[0].split(","))
            got = b.wrap(b.xp.einsum(subscripts, *map(b.asarray, inputs)))
            same(b, got, np.asarray(np.einsum(subscripts, *inputs)), f"xp.einsum({subscripts!r})", ulp=16)
        got = b.xp.tensordot(b.asarray(square), b.asarray(square), axes=([0], [1]))
        same(b, got, np.tensordot(square, square, axes=([0], [1])), "xp.tensordot", ulp=16)


@check
def movements(b: Backend) -> None:
    for dtype in ("float32", "int64"):
        data = sample(dtype, (2, 3, 4))
        for name, arguments, keywords in MOVEMENTS:
            if dtype == "int64" and name == "clip":
                arguments = (-1, 2)
            expected = getattr(np, name)(data, *arguments, **keywords)
            got = getattr(b.xp, name)(b.asarray(data), *arguments, **keywords)
            same(b, got, expected, f"xp.{name}({dtype}, {arguments}, {keywords})")


@check
def joining_and_splitting(b: Backend) -> None:
    x, y = sample("float32", (2, 3)), sample("float32", (4, 3))
    mine = [b.asarray(x), b.asarray(y)]
    same(b, b.xp.concatenate(mine, axis=0), np.concatenate([x, y]), "xp.concatenate")
    same(b, b.xp.stack([mine[0], mine[0]], axis=1), np.stack([x, x], axis=1), "xp.stack")
    for got, expected in zip(b.xp.split(mine[1], [1, 3], axis=0), np.split(y, [1, 3]), strict=True):
        same(b, got, expected, "xp.split")
    grids = np.meshgrid(x[0], y[0], indexing="ij")
    for got, expected in zip(b.xp.meshgrid(mine[0][0], mine[1][0], indexing="ij"), grids, strict=True):
        same(b, got, expected, "xp.meshgrid")


@check
def creation(b: Backend) -> None:
    for name, arguments in CREATIONS:
        same(b, getattr(b.xp, name)(*arguments), getattr(np, name)(*arguments), f"xp.{name}{arguments}", ulp=4)
    for got in (b.xp.empty((2, 3), "float16"), b.xp.empty_like(b.asarray(sample("float16", (2, 3))))):
        kind = (type(got), tuple(got.shape), got.dtype)
        expect(kind == (b.array_type, (2, 3), np.float16), "xp.empty", (b.array_type, (2, 3), "float16"), kind)


@check
def strided_windows(b: Backend) -> None:
    data = sample("float32", (2, 6))
    step = data.strides[1]
    expected = np.lib.stride_tricks.as_strided(data, (2, 4, 3), (data.strides[0], step, step))
    mine = b.asarray(data)
    got = b.xp.lib.stride_tricks.as_strided(mine, (2, 4, 3), (mine.strides[0], mine.strides[1], mine.strides[1]))
    same(b, got, expected, "as_strided")
    expect(b.shares_memory(got, mine), "as_strided", "a view", "a copy")


@check
def basic_indexing(b: Backend) -> None:
    data = sample("float32", (4, 5, 6))
    mine = b.asarray(data)
    backwards = (slice(None, None, -2), slice(4, 1, -1))
    columns = (slice(None), 2)
    keys: tuple[Any, ...] = (0, -1, slice(1, 3), columns, (..., 1), (None, 1), backwards, (1, 2, 3), slice(2, 2), ...)
    for key in keys:
        got, expected = b.wrap(mine[key]), np.asarray(data[key])
        same(b, got, expected, f"x[{key}]")
    changed, written = data.copy(), b.asarray(data, copy=True)
    for key in keys:
        written[key], changed[key] = 2.5, 2.5
        written[key], changed[key] = mine[key] * 2, data[key] * 2
        same(b, written, changed, f"x after x[{key}] = ...")


@check
def advanced_indexing(b: Backend) -> None:
    data, rows, columns = sample("float32", (4, 5)), np.array([[0, 2], [-1, 2]]), np.array([1, 3])
    mask = data > 0
    mine = b.asarray(data)
    keys: tuple[Any, ...] = (rows, (rows, columns), (slice(1, 3), columns), (rows, slice(None, 2)), (..., columns),
                             (rows, None), mask, (slice(None), mask[0]), np.zeros(0, np.int64))  # fmt: skip
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        own = tuple(b.asarray(part) if isinstance(part, np.ndarray) else part for part in parts)
        same(b, mine[own], data[key], f"x[{key}]")
    index = np.array([[0, 3], [1, 2], [4, 4], [2, 0]])
    got = b.xp.take_along_axis(mine, b.asarray(index), 1)
    same(b, got, np.take_along_axis(data, index, 1), "xp.take_along_axis")
    same(b, b.xp.take(mine, b.asarray(columns), axis=1), np.take(data, columns, axis=1), "xp.take")
    changed, written = data.copy(), b.asarray(data, copy=True)
    changed[columns], written[b.asarray(columns)] = 7.0, 7.0
    same(b, written, changed, "x after x[array] = 7")


@check
def choosing(b: Backend) -> None:
    data = sample("float32")
    mine = b.asarray(data)
    same(b, b.xp.where(mine > 0, mine, 0), np.where(data > 0, data, 0), "xp.where(mask, x, 0)")
    same(b, b.xp.where(mine > 0, mine, mine * 2), np.where(data > 0, data, data * 2), "xp.where(mask, x, y)")
    levels = np.array([-1.0, 0.0, 1.0], "float32")
    got = b.xp.searchsorted(b.asarray(levels), mine.reshape(-1))
    same(b, got, np.searchsorted(levels, data.reshape(-1)), "xp.searchsorted")


@check
def array_attributes(b: Backend) -> None:
    data = sample("float32", (3, 4))
    mine = b.asarray(data)
    for name in ATTRIBUTES:
        expect(getattr(mine, name) == getattr(data, name), f"x.{name}", getattr(data, name), getattr(mine, name))
    expect(len(mine) == 3, "len(x)", 3, len(mine))
    same(b, mine.astype("float64"), data.astype("float64"), "x.astype")
    same(b, mine.T.copy(), data.T, "x.T.copy()")
    same(b, mine.reshape(4, 3), data.reshape(4, 3), "x.reshape(4, 3)")
    expect(mine.astype("float32", copy=False) is mine or b.shares_memory(mine.astype("float32", copy=False), mine),
           "x.astype(copy=False)", "no copy", "a copy")  # fmt: skip
    expect(float(mine[0, 1]) == float(data[0, 1]), "float(x[0, 1])", float(data[0, 1]), float(mine[0, 1]))
    expect(mine[0, 1].item() == data[0, 1].item(), "x[0, 1].item()", data[0, 1].item(), mine[0, 1].item())


@check
def shapes_that_do_not_fit(b: Backend) -> None:
    x, y = b.asarray(sample("float32", (2, 3))), b.asarray(sample("float32", (2, 4)))
    raises(ValueError, "x + y of (2, 3) and (2, 4)", lambda: x + y)
    raises(ValueError, "x @ y of (2, 3) and (2, 4)", lambda: b.xp.matmul(x, y))
    raises(ValueError, "x.reshape(4)", lambda: x.reshape(4))
    raises(ValueError, "xp.concatenate", lambda: b.xp.concatenate([x, y], axis=0))
    raises(IndexError, "x[2]", lambda: x[2])


@check
def inputs_stay_as_they_were(b: Backend) -> None:
    data = (abs(UNIT) * 0.5 + 0.125).astype("float32")
    mine = b.asarray(data, copy=True)
    for name in (*UNARY, *BINARY):
        getattr(b.xp, name)(*[mine] * (2 if name in BINARY else 1))
        same(b, mine, data, f"the input after xp.{name}")
    for name in ("sum", "max", "cumsum", "sort", "argsort", "flip"):
        getattr(b.xp, name)(mine, axis=0)
        same(b, mine, data, f"the input after xp.{name}")
