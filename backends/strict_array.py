"""The array of the strict backend: NumPy's memory behind the manners of `cupy.ndarray`, where those differ.

- Nothing becomes a NumPy array by itself: `np.exp(x)`, `np.asarray(x)` and `x + ndarray` raise, `x.get()` copies out.
- Only Python and NumPy scalars mix with it. Results are arrays always, of no dimensions where NumPy gives a scalar.
- Reading a value (`float(x)`, `x[mask]`) is counted, and refused inside `no_sync()`.
- Integer arrays out of range wrap around silently when they index. There are no read-only arrays.
- Methods and their parameters are CuPy's, from the table in `cupy_surface.json`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from . import cupy_surface
from .strict_sync import sync, upload

_NUMPY_SCALARS = [t for t in np.sctypeDict.values() if issubclass(t, np.number | np.bool_)]
SCALARS = frozenset({bool, int, float, complex, *_NUMPY_SCALARS})


class Flags(NamedTuple):
    """What `cupy.ndarray.flags` knows; there is no `writeable`."""

    c_contiguous: bool
    f_contiguous: bool
    owndata: bool


class StrictArray:
    """An array that plays being on a device. Made by the strict backend's `asarray` and by operations."""

    __slots__ = ("__weakref__", "_data")
    __array_priority__ = 100
    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __init__(self, data: np.ndarray) -> None:
        self._data = data

    # -- the ways out, counted -----------------------------------------------------------------------------------------

    def get(self, stream: None = None, order: str = "C", out: np.ndarray | None = None) -> np.ndarray:
        sync("get()")
        if out is None:
            return self._data.copy()
        out[...] = self._data
        return out

    def __float__(self) -> float:
        sync("float()")
        return float(self._data.item())

    def __int__(self) -> int:
        sync("int()")
        return int(self._data.item())

    def __complex__(self) -> complex:
        sync("complex()")
        return complex(self._data.item())

    def __bool__(self) -> bool:
        sync("bool()")
        return bool(self._data)

    def __format__(self, spec: str) -> str:
        sync("format()")
        return format(self._data, spec)

    def __repr__(self) -> str:
        return f"strict {self._data!r}"

    def __reduce__(self) -> tuple[Any, ...]:
        return StrictArray, (self._data.copy(),)

    def __copy__(self) -> StrictArray:
        return StrictArray(self._data.copy())

    def __deepcopy__(self, memo: Any) -> StrictArray:
        return StrictArray(self._data.copy())

    # -- the ways in that are closed -----------------------------------------------------------------------------------

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("implicit conversion of a device array to a NumPy array is not allowed; use .get()")

    def __array_function__(self, function: Any, *args: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called on a device array; use xp.{function.__name__}")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        # NumPy scalars on the left of an operator arrive here, and are welcome.
        others = [x for x in inputs if type(x) is not StrictArray]
        if method == "__call__" and not kwargs and others and all(isinstance(x, np.generic) for x in others):
            return wrap(ufunc(*map(unwrap, inputs)))
        raise TypeError(f"numpy.{ufunc.__name__} was called on a device array; use xp.{ufunc.__name__}")

    # -- shape and elements --------------------------------------------------------------------------------------------

    @property
    def flags(self) -> Flags:
        flags = self._data.flags
        return Flags(flags.c_contiguous, flags.f_contiguous, flags.owndata)

    def set(self, values: np.ndarray, stream: None = None) -> None:
        """Copy a NumPy array of the same shape and dtype into this one."""
        if not isinstance(values, np.ndarray) or values.shape != self.shape or values.dtype != self._data.dtype:
            raise ValueError(f"set() takes an ndarray of shape {self.shape} and dtype {self._data.dtype}")
        upload()
        self._data[...] = values

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[StrictArray]:
        return (self[i] for i in range(len(self._data)))

    def __getitem__(self, key: Any) -> StrictArray:
        key = index(self, key)
        result = self._data[key]
        if type(result) is not np.ndarray:
            # One element: NumPy gives a scalar, CuPy a view without dimensions. An ellipsis asks NumPy for that view.
            result = self._data[(*key, ...) if type(key) is tuple else (key, ...)]
        return StrictArray(result)

    def __setitem__(self, key: Any, value: Any) -> None:
        kind = type(value)
        if kind is StrictArray:
            value = value._data
        elif isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        elif kind not in SCALARS and not isinstance(value, np.ndarray):
            raise TypeError(f"unsupported type {kind.__name__}: assign an array of this backend or a scalar")
        self._data[index(self, key)] = value

    def __getattr__(self, name: str) -> Any:
        known = cupy_surface.load()
        if name in known["methods"] or name in known["attributes"]:
            raise AttributeError(f"cupy.ndarray has {name!r}, but the strict backend has no stand-in for it")
        raise AttributeError(f"cupy.ndarray has no attribute {name!r}")


# -- between arrays and memory -----------------------------------------------------------------------------------------


def unwrap(value: Any) -> Any:
    """What NumPy gets to see of an argument. Raises TypeError for host arrays, which a device function cannot read."""
    kind = type(value)
    if kind is StrictArray:
        return value._data
    if kind is list or kind is tuple:
        return kind(map(unwrap, value))
    if isinstance(value, np.ndarray):
        raise TypeError(f"unsupported type {kind.__name__}: a host array was given to a device function")
    return value


def wrap(result: Any) -> Any:
    """What a device function gives for NumPy's result: arrays and scalars as arrays, also inside tuples and lists."""
    kind = type(result)
    if kind is np.ndarray:
        return StrictArray(result)
    if isinstance(result, np.generic | np.ndarray):
        return StrictArray(np.asarray(result))
    if kind is list:
        return list(map(wrap, result))
    if isinstance(result, tuple):
        return tuple(map(wrap, result))
    return result


def index(array: StrictArray, key: Any) -> Any:
    """The key as NumPy gets it: arrays unwrapped, integer ones wrapped around the axis that they index."""
    kind = type(key)
    if kind is int or kind is slice:
        return key
    parts = key if kind is tuple else (key,)
    if all(type(part) in _BASIC for part in parts):
        return key
    return _wrapped_around(parts, array._data.shape)


_BASIC = frozenset({int, slice, type(None), type(Ellipsis)})


def _wrapped_around(key: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[Any, ...]:
    parts = [_index_array(part) if isinstance(part, StrictArray | np.ndarray | list) else part for part in key]
    taken = sum(part.ndim if _is_mask(part) else 0 if part is None or part is Ellipsis else 1 for part in parts)
    axis, wrapped = 0, []
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype.kind in "iu" and axis < len(shape) and shape[axis]:
            part = np.asarray(part % shape[axis])  # of no dimensions it stays an array, by which CuPy copies
        wrapped.append(part)
        if part is Ellipsis:
            axis += len(shape) - taken
        elif part is not None:
            axis += part.ndim if _is_mask(part) else 1
    return tuple(wrapped)


def _index_array(part: Any) -> np.ndarray:
    if isinstance(part, StrictArray):
        part = part._data
    else:
        upload()
        part = np.asarray(part, dtype=None if len(part) else np.intp)
    if part.dtype == np.bool_:
        sync("a boolean mask")
    return part


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype == np.bool_


# -- operators, attributes and methods, from tables --------------------------------------------------------------------

_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift")
_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
_UNARY = ("neg", "pos", "abs", "invert")
_ATTRIBUTES = ("T", "mT", "base", "dtype", "imag", "itemsize", "nbytes", "ndim", "real", "shape", "size", "strides")
_NOT_YET = {"astype": frozenset({"casting", "subok"})}  # CuPy has the parameters, and raises when they are given
_READING = frozenset({"compress", "dump", "dumps", "item", "nonzero", "tobytes", "tofile", "tolist"})


def _operand(value: Any) -> Any:
    kind = type(value)
    if kind is StrictArray:
        return value._data
    if kind in SCALARS:
        return value
    if isinstance(value, np.ndarray):
        raise TypeError(f"unsupported type {kind.__name__}: a host array was given to a device operation")
    return NotImplemented


def _binary(function: Callable[..., Any], swapped: bool = False) -> Callable[..., Any]:
    def operate(self: StrictArray, other: Any) -> Any:
        other = _operand(other)
        if other is NotImplemented:
            return NotImplemented
        return wrap(function(other, self._data) if swapped else function(self._data, other))

    return operate


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    def operate(self: StrictArray, other: Any) -> Any:
        other = _operand(other)
        if other is NotImplemented:
            return NotImplemented
        function(self._data, other)
        return self

    return operate


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self: wrap(function(self._data))


def _attribute(name: str) -> property:
    return property(lambda self: wrap(getattr(self._data, name)))


def _method(name: str, parameters: list[str]) -> Callable[..., Any]:
    # NumPy 2 has no method ptp any more, CuPy has; every other one is a method of both.
    function = getattr(np.ndarray, name, None) or getattr(np, name)
    reads, wraps = name in _READING, name == "take"
    known = frozenset(parameters) - _NOT_YET.get(name, frozenset())

    def method(self: StrictArray, *args: Any, **kwargs: Any) -> Any:
        if reads:
            sync(f"{name}()")
        if kwargs:
            check_keywords(f"ndarray.{name}", kwargs, known)
            kwargs = {k: unwrap(v) if k != "out" else v for k, v in kwargs.items()}
        out = kwargs.pop("out", None)
        if out is not None:
            kwargs["out"] = unwrap(out)
        if wraps:
            kwargs["mode"] = "wrap"
        result = function(self._data, *map(unwrap, args), **kwargs)
        if out is not None:
            return out
        return result if reads and name != "nonzero" and name != "compress" else wrap(result)

    method.__name__ = name
    return method


def check_keywords(name: str, given: Any, known: frozenset[str]) -> None:
    """TypeError for keywords that CuPy's function does not take, even if NumPy's does."""
    if not known.issuperset(given):
        raise TypeError(f"cupy.{name} takes no argument {', '.join(sorted(set(given) - known))}")


def _equip() -> None:
    functions = {name: getattr(operator, f"__{name}__") for name in (*_ARITHMETIC, *_COMPARISONS, "matmul")}
    functions["divmod"] = divmod
    for name, function in functions.items():
        setattr(StrictArray, f"__{name}__", _binary(function))
        if name not in _COMPARISONS:
            setattr(StrictArray, f"__r{name}__", _binary(function, swapped=True))
        if name in _ARITHMETIC:
            setattr(StrictArray, f"__i{name}__", _in_place(getattr(operator, f"__i{name}__")))
    for name in _UNARY:
        setattr(StrictArray, f"__{name}__", _unary(getattr(operator, f"__{name}__")))
    for name in _ATTRIBUTES:
        setattr(StrictArray, name, _attribute(name))
    surface = cupy_surface.load()
    for name in surface["methods"]:
        if name not in vars(StrictArray) and (hasattr(np.ndarray, name) or hasattr(np, name)):
            setattr(StrictArray, name, _method(name, surface["parameters"].get(f"ndarray.{name}", [])))


_equip()
