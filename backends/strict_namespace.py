"""The namespace of the strict backend: NumPy's functions, cut down to those of CuPy, with CuPy's parameters.

A function is wrapped when it is first asked for, and then stands on the namespace as an ordinary attribute.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from . import cupy_surface
from .strict_array import SCALARS, StrictArray, check_keywords, index, unwrap, wrap
from .strict_sync import sync, upload

# Functions whose result depends on values by its shape, or is a host object: a GPU is waited for.
READING = frozenset({
    "argwhere", "array2string", "array_repr", "array_str", "bincount", "compress", "delete", "extract", "flatnonzero",
    "intersect1d", "nonzero", "place", "setdiff1d", "setxor1d", "trim_zeros", "union1d", "unique", "unique_all",
    "unique_counts", "unique_inverse", "unique_values",
})  # fmt: skip

# Functions that call back into Python or read files; retrograd has no use for them on a device.
CLOSED = frozenset({
    "apply_along_axis", "apply_over_axes", "c_", "frombuffer", "fromfile", "fromfunction", "fromiter", "fromstring",
    "genfromtxt", "load", "loadtxt", "mask_indices", "mgrid", "ogrid", "piecewise", "poly1d", "polynomial", "r_",
    "random", "save", "savetxt", "savez", "savez_compressed", "testing", "typing", "vectorize",
})  # fmt: skip

# NumPy gives a Python bool or int here, CuPy an array of no dimensions.
ALWAYS_ARRAY = frozenset({"allclose", "array_equal", "array_equiv", "count_nonzero"})

# Parameters behind **kwargs, which the table cannot know.
KEYWORDS = {
    "einsum": {"dtype", "optimize"},
    "meshgrid": {"indexing", "sparse", "copy"},
    "pad": {"mode", "constant_values", "end_values", "stat_length", "reflect_type"},
}

# A first parameter of this name is an array for CuPy: a list, a tuple or a number there is an error.
ARRAY_PARAMETERS = frozenset({"a", "ar", "arr", "array", "ary", "m", "v", "x", "x1"})
TAKES_ANYTHING = frozenset({"asfortranarray", "iscomplexobj", "isrealobj", "nan_to_num", "ndim", "shape", "size"})

UFUNC_KEYWORDS = frozenset({"out", "dtype", "casting"})
UFUNC_METHODS = {
    "reduce": {"add", "multiply"},
    "accumulate": {"add", "multiply"},
    "reduceat": {"add"},
    "at": {"add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"},
}


def plain(name: str, function: Callable[..., Any], parameters: list[str] | None) -> Callable[..., Any]:
    """A function that is NumPy's but for its arguments and results; those not in the table keep NumPy's parameters."""
    known = None if parameters is None else frozenset(parameters) - {"kwargs"} | KEYWORDS.get(name, set())
    reads, always = name in READING, name in ALWAYS_ARRAY
    wants_array = bool(parameters) and parameters[0] in ARRAY_PARAMETERS and name not in TAKES_ANYTHING

    def call(*args: Any, **kwargs: Any) -> Any:
        if reads:
            sync(f"xp.{name}")
        if wants_array and args and isinstance(args[0], list | tuple | int | float | complex | np.generic):
            raise TypeError(f"cupy.{name} takes an array of its own, not a {type(args[0]).__name__}")
        if kwargs:
            if known is not None:
                check_keywords(name, kwargs, known)
            out = kwargs.get("out")
            result = function(*map(unwrap, args), **{k: unwrap(v) for k, v in kwargs.items()})
            if out is not None:
                return out
        else:
            result = function(*map(unwrap, args))
        return StrictArray(np.asarray(result)) if always else wrap(result)

    call.__name__ = name
    return call


def elementwise(name: str, ufunc: np.ufunc) -> Callable[..., Any]:
    """A ufunc: arrays and scalars only, no `where=`, and few of its methods."""

    def call(*args: Any, **kwargs: Any) -> Any:
        for value in args:
            if type(value) is not StrictArray and type(value) not in SCALARS and value is not None:
                raise TypeError(f"unsupported type {type(value).__name__} for cupy.{name}: give its arrays or scalars")
        if kwargs:
            check_keywords(name, kwargs, UFUNC_KEYWORDS)
            out = kwargs.get("out")
            result = ufunc(*map(unwrap, args), **{k: unwrap(v) for k, v in kwargs.items()})
            if out is not None:
                return out[0] if type(out) is tuple and len(out) == 1 else out
        else:
            result = ufunc(*map(unwrap, args))
        # A third positional argument of a binary ufunc is its `out`.
        return args[ufunc.nin] if len(args) > ufunc.nin and ufunc.nout == 1 else wrap(result)

    call.__name__ = name
    facts: dict[str, Any] = {n: getattr(ufunc, n) for n in ("nin", "nout", "nargs", "types")}
    methods = {n: _ufunc_method(name, ufunc, n) for n, having in UFUNC_METHODS.items() if ufunc.__name__ in having}
    methods["outer"] = plain(f"{name}.outer", ufunc.outer, [])
    for attribute, value in (facts | methods).items():
        setattr(call, attribute, value)
    return call


def _ufunc_method(name: str, ufunc: np.ufunc, method: str) -> Callable[..., Any]:
    if method == "at":

        def at(array: StrictArray, indices: Any, value: Any) -> None:
            ufunc.at(unwrap(array), index(array, indices), unwrap(value))

        return at
    return plain(f"{name}.{method}", getattr(ufunc, method), ["array", "indices", "axis", "dtype", "out", "keepdims"])


# -- functions that differ in more than their parameters ---------------------------------------------------------------


def where(condition: Any, *choices: Any) -> Any:
    """Raises for a Python bool, as CuPy does, which asks the condition for its methods."""
    if not isinstance(condition, StrictArray):
        raise AttributeError(f"{type(condition).__name__!r} object has no attribute 'astype'")
    if not choices:
        sync("xp.where with one argument")
    return wrap(np.where(condition._data, *map(unwrap, choices)))


def empty(shape: Any, dtype: Any = float, order: Any = "C") -> StrictArray:
    """Filled with what nobody would take for a result."""
    return StrictArray(poison(np.empty(shape, dtype, order)))


def empty_like(prototype: Any, dtype: Any = None, order: Any = "K", subok: None = None, shape: Any = None) -> Any:
    return StrictArray(poison(np.empty_like(unwrap(prototype), dtype, order, shape=shape)))


def poison(array: np.ndarray) -> np.ndarray:
    """Fill with NaN, or with an odd large number where the dtype has no NaN."""
    kind = array.dtype.kind
    array[...] = True if kind == "b" else np.iinfo(array.dtype).max // 3 if kind in "iu" else np.nan
    return array


def asarray(a: Any, dtype: Any = None, order: Any = None, copy: bool | None = None) -> StrictArray:
    """Host data is copied to the device, arrays of the device are shared where they can be."""
    if isinstance(a, StrictArray):
        return StrictArray(np.array(a._data, dtype=dtype, copy=copy, order=order))
    if copy is False:
        raise ValueError("a host array cannot be shared with the device: copy=False is not possible")
    upload()
    return StrictArray(np.array(_host(a), dtype=dtype, copy=True, order=order))


def array(obj: Any, dtype: Any = None, copy: bool | None = True, order: Any = "K", ndmin: int = 0) -> StrictArray:
    result = asarray(obj, dtype, order, copy=copy or None)
    return StrictArray(np.array(result._data, ndmin=ndmin, copy=None))


def ascontiguousarray(a: Any, dtype: Any = None) -> StrictArray:
    return asarray(a, dtype, "C")


def asnumpy(a: Any) -> np.ndarray:
    return a.get() if isinstance(a, StrictArray) else np.asarray(a)


def _host(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_host(v) for v in value]
    return value._data if isinstance(value, StrictArray) else value


def take(a: StrictArray, indices: Any, axis: int | None = None, out: StrictArray | None = None) -> StrictArray:
    """Indices out of range wrap around."""
    return a.take(indices, axis, out=out)  # pyright: ignore[reportAttributeAccessIssue]


def take_along_axis(a: StrictArray, indices: StrictArray, axis: int | None) -> StrictArray:
    """Indices out of range wrap around."""
    size = a._data.size if axis is None else a.shape[axis]
    rows = unwrap(indices)
    return wrap(np.take_along_axis(a._data, rows % size if size else rows, axis))


def repeat(a: StrictArray, repeats: Any, axis: int | None = None) -> StrictArray:
    """Counts in an array are read by the host, which has to know the size of the result."""
    if isinstance(repeats, StrictArray):
        sync("xp.repeat with an array of counts")
    return wrap(np.repeat(unwrap(a), unwrap(repeats), axis))


def pad(array: StrictArray, pad_width: Any, mode: str = "constant", **kwargs: Any) -> StrictArray:
    if mode == "median" or callable(mode):
        raise ValueError(f"cupy.pad has no mode {mode!r} here")
    return plain("pad", np.pad, ["array", "pad_width", "mode"])(array, pad_width, mode, **kwargs)


def sliding_window_view(*args: Any, **kwargs: Any) -> Any:
    """CuPy's reads the window's shape back from the device, once per axis."""
    raise NotImplementedError("cupy's sliding_window_view waits for the device; use xp.lib.stride_tricks.as_strided")


def _no_error(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """CuPy does not look whether a factorization succeeded: garbage instead of an error."""

    def call(a: StrictArray, *rest: StrictArray) -> StrictArray:
        try:
            return wrap(function(unwrap(a), *map(unwrap, rest)))
        except np.linalg.LinAlgError as error:
            if "must be" in str(error):
                raise
            shape = (rest[0] if rest else a).shape
            return StrictArray(np.full(shape, np.nan, np.result_type(a._data, np.float32)))

    call.__name__ = name
    return call


SPECIAL: dict[str, Any] = {
    "where": where,
    "empty": empty,
    "empty_like": empty_like,
    "asarray": asarray,
    "asanyarray": asarray,
    "array": array,
    "ascontiguousarray": ascontiguousarray,
    "asnumpy": asnumpy,
    "take": take,
    "take_along_axis": take_along_axis,
    "repeat": repeat,
    "pad": pad,
    "ndarray": StrictArray,
    "lib.stride_tricks.sliding_window_view": sliding_window_view,
    **{f"linalg.{n}": _no_error(f"linalg.{n}", getattr(np.linalg, n)) for n in ("cholesky", "inv", "solve")},
}


class StrictNamespace:
    """`xp` of the strict backend, and with a prefix its `xp.linalg`, `xp.fft` and `xp.lib.stride_tricks`."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self.__name__ = f"strict.{prefix}".rstrip(".")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = self._make(name)
        # From now on found without coming here.
        setattr(self, name, value)
        return value

    def _make(self, name: str) -> Any:
        full = self._prefix + name
        surface = cupy_surface.load()
        if full in SPECIAL:
            return SPECIAL[full]
        if full in ("lib", *cupy_surface.NAMESPACES):
            return StrictNamespace(f"{full}.")
        if name not in surface[self._prefix.rstrip(".") or "names"]:
            raise AttributeError(f"cupy has no {full!r}; use what CuPy and NumPy both have")
        value = functools.reduce(lambda owner, part: getattr(owner, part, None), full.split("."), np)
        if name in CLOSED or (value is None and name != "newaxis"):
            raise AttributeError(f"cupy has {full!r}, but the strict backend has no stand-in for it")
        if isinstance(value, np.ufunc) and name in surface["ufuncs"]:
            return elementwise(name, value)
        if callable(value) and not isinstance(value, type):
            return plain(full, value, surface["parameters"].get(full))
        return value

    def __repr__(self) -> str:
        return f"<namespace {self.__name__} in the manner of CuPy {cupy_surface.load()['cupy']}>"
