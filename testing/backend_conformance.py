"""Is this a backend? Named checks of everything that retrograd asks of one, for authors of backends of their own.

    >>> from retrograd.backends import get_backend
    >>> from retrograd.testing import check_backend
    >>> check_backend(get_backend("numpy"))

Under pytest, one test for each check:

    @pytest.mark.parametrize("name", backend_checks())
    def test_my_backend(name):
        backend_checks()[name](MyBackend())

The reference is NumPy: values, dtypes and shapes. This file checks the methods of Backend, `namespace_conformance` the
functions of `xp`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backends import TIERS, Backend, BackendError, backend_of, random, register

Check = Callable[[Backend], None]

_checks: dict[str, Check] = {}

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = ("bool", *INTEGERS, *FLOATS, "complex64", "complex128")


class ConformanceError(AssertionError):
    """A backend fails checks. `failures` has the reason of each, by name."""

    def __init__(self, backend: Backend, failures: dict[str, str], total: int) -> None:
        self.failures = failures
        listed = "".join(f"\n  {name}: {reason}" for name, reason in failures.items())
        name = getattr(backend, "name", backend)
        super().__init__(f"backend {name!r} fails {len(failures)} of {total} checks:{listed}")


def check(function: Check) -> Check:
    """Enter a check of a backend into the table, under the function's name."""
    if function.__name__ in _checks:
        raise ValueError(f"there is a check {function.__name__!r} already")
    _checks[function.__name__] = function
    return function


def backend_checks() -> dict[str, Check]:
    """Every check by name: a function of the backend that raises an error with what was expected and what came."""
    from . import namespace_conformance  # noqa: F401 (its checks enter the table)

    return dict(_checks)


def run_checks(backend: Backend) -> dict[str, str | None]:
    """Run every check: the reason of each failure by name, None where there is none."""
    return {name: _failure(function, backend) for name, function in backend_checks().items()}


def check_backend(backend: Backend) -> None:
    """Run every check. Raises ConformanceError that lists the failures.

    The backend is registered (see `retrograd.backends.register`), if it was not.
    """
    results = run_checks(backend)
    failures = {name: reason for name, reason in results.items() if reason is not None}
    if failures:
        raise ConformanceError(backend, failures, len(results))


def _failure(function: Check, backend: Backend) -> str | None:
    try:
        function(backend)
    except AssertionError as error:
        return str(error)
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"
    return None


# -- comparing ---------------------------------------------------------------------------------------------------------


def expect(condition: bool, what: str, expected: Any, actual: Any) -> None:
    """AssertionError with what was looked at, what was expected and what came, unless the condition holds."""
    if not condition:
        raise AssertionError(f"{what}: expected {expected}, got {actual}")


def same(backend: Backend, actual: Any, expected: Any, what: str, ulp: float = 0.0) -> None:
    """The array is the backend's, with dtype, shape and values of the expected NumPy array.

    Args:
        ulp: by how many units in the last place of its dtype a value may differ, relative to the value or to 1.
    """
    expected = np.asarray(expected)
    expect(type(actual) is backend.array_type, f"type of {what}", backend.array_type, type(actual))
    expect(actual.dtype == expected.dtype, f"dtype of {what}", expected.dtype, actual.dtype)
    expect(tuple(actual.shape) == expected.shape, f"shape of {what}", expected.shape, tuple(actual.shape))
    got = backend.to_numpy(actual)
    expect(type(got) is np.ndarray, f"to_numpy of {what}", np.ndarray, type(got))
    if ulp and expected.dtype.kind in "fc":
        tolerance = ulp * float(np.finfo(expected.dtype).eps)
        equal = np.allclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    else:
        equal = np.array_equal(got, expected, equal_nan=expected.dtype.kind in "fc")
    expect(bool(equal), what, expected, got)


def raises(error: type[Exception], what: str, call: Callable[[], Any]) -> None:
    """The call raises that error."""
    try:
        result = call()
    except error:
        return
    except Exception as other:
        raise AssertionError(f"{what}: expected {error.__name__}, got {type(other).__name__}: {other}") from other
    raise AssertionError(f"{what}: expected {error.__name__}, got the result {result!r}")


def sample(dtype: str, shape: tuple[int, ...] = (3, 4)) -> np.ndarray:
    """Small numbers of that dtype, different from each other where the dtype allows it."""
    n = int(np.prod(shape))
    numbers = (np.arange(n) * 7) % 11 - (0 if dtype == "bool" or dtype.startswith("uint") else 5)
    if dtype == "bool":
        return (numbers % 3 == 0).reshape(shape)
    factor = 0.5 + 0.25j if dtype.startswith("complex") else 0.5 if dtype in FLOATS else 1
    return (numbers * factor).astype(dtype).reshape(shape)


# -- the object --------------------------------------------------------------------------------------------------------


@check
def attributes(b: Backend) -> None:
    expect(isinstance(b, Backend), "the backend", "a retrograd.backends.Backend", type(b))
    expect(isinstance(b.name, str) and b.name.strip() == b.name != "", "name", "a name", b.name)
    expect(isinstance(b.array_type, type), "array_type", "a type", b.array_type)
    expect(b.highest_tier in TIERS, "highest_tier", f"one of {TIERS}", b.highest_tier)
    expect(all(map(callable, b.kernels.values())), "kernels", "functions by name", b.kernels)


@check
def found_by_array_type(b: Backend) -> None:
    register(b)
    found = backend_of(b.asarray([1.0]))
    expect(found is b or type(found) is type(b), "backend_of(array)", b, found)


@check
def description_is_json(b: Backend) -> None:
    expect(isinstance(json.loads(json.dumps(b.describe())), dict), "describe()", "a dict", b.describe())


@check
def device_calls(b: Backend) -> None:
    b.synchronize()
    b.empty_cache()
    memory = b.memory()
    sound = isinstance(memory, dict) and all(isinstance(n, int) and n >= 0 for n in memory.values())
    expect(sound, "memory()", "bytes by name", memory)


@check
def threads(b: Backend) -> None:
    raises(ValueError, "set_num_threads(0)", lambda: b.set_num_threads(0))
    try:
        before = b.num_threads
        b.set_num_threads(before)
    except BackendError:
        return  # a library that cannot be told is allowed
    expect(b.num_threads == before >= 1, "num_threads after set_num_threads", before, b.num_threads)


# -- conversion --------------------------------------------------------------------------------------------------------


@check
def round_trip_of_every_dtype(b: Backend) -> None:
    for dtype in DTYPES:
        for shape in ((3, 4), (), (0,), (2, 0, 3)):
            data = sample(dtype, shape)
            same(b, b.asarray(data), data, f"asarray of {dtype} {shape}")


@check
def from_lists_and_scalars(b: Backend) -> None:
    for data in ([1, 2, 3], [[1.5], [2.5]], 3, 2.5, True, 1j, np.float32(1.5), np.int8(3), [], [np.float32(1), 2]):
        same(b, b.asarray(data), np.asarray(data), f"asarray({data!r})")


@check
def from_views(b: Backend) -> None:
    data = sample("float32", (4, 6))
    views = {"transposed": data.T, "strided": data[::2, ::-1], "broadcast": np.broadcast_to(data[0], (3, 6))}
    for name, view in views.items():
        same(b, b.asarray(view), view, f"asarray of a {name} ndarray")
    same(b, b.asarray(data).T, data.T, "to_numpy of a transposed array")


@check
def dtype_argument(b: Backend) -> None:
    for data in ([1, 2, 3], sample("int64"), b.asarray(sample("float64"))):
        host = b.to_numpy(data) if type(data) is b.array_type else np.asarray(data)
        same(b, b.asarray(data, dtype="float32"), host.astype("float32"), "asarray(..., dtype='float32')")


@check
def copy_argument(b: Backend) -> None:
    host = sample("float32")
    copied = b.asarray(host, copy=True)
    before = host.copy()
    host += 1
    same(b, copied, before, "asarray(ndarray, copy=True) after the ndarray changed")
    own = b.asarray(before)
    expect(b.shares_memory(b.asarray(own), own), "asarray of an own array", "shared memory", "a copy")
    expect(not b.shares_memory(b.asarray(own, copy=True), own), "asarray(own, copy=True)", "a copy", "shared memory")
    raises(ValueError, "asarray(list, copy=False)", lambda: b.asarray([1.0], copy=False))
    raises(ValueError, "asarray(own, other dtype, copy=False)", lambda: b.asarray(own, dtype="float64", copy=False))


@check
def refuses_what_is_no_number(b: Backend) -> None:
    for data in ("text", ["a", "b"], None, [object()], {"a": 1}):
        raises(TypeError, f"asarray({data!r})", lambda data=data: b.asarray(data))
    raises(ValueError, "asarray of a ragged list", lambda: b.asarray([[1.0, 2.0], [3.0]]))


@check
def wraps_scalars(b: Backend) -> None:
    for value in (np.float32(1.5), np.int64(3), np.bool_(True), np.asarray(2.0)):
        same(b, b.wrap(value), np.asarray(value), f"wrap({value!r})")
    own = b.asarray([1.0, 2.0])
    expect(b.wrap(own) is own, "wrap(own array)", "the same object", "another")


# -- memory and scattering ---------------------------------------------------------------------------------------------


@check
def memory_sharing(b: Backend) -> None:
    x = b.asarray(sample("float32", (4, 6)))
    for name, view in {"x[1:]": x[1:], "x.T": x.T, "x.reshape": x.reshape(24), "x[1, 2]": x[1:2, 2]}.items():
        expect(b.shares_memory(x, view), f"shares_memory(x, {name})", True, False)
    for name, other in {"x + 0": x + 0, "x.copy()": x.copy(), "another": b.asarray(sample("float32"))}.items():
        expect(not b.shares_memory(x, other), f"shares_memory(x, {name})", False, True)


@check
def scatter_add_of_every_dtype(b: Backend) -> None:
    index = np.array([2, 0, 2, -1, 2])
    for dtype in DTYPES:
        target, value = sample(dtype, (4, 3)), sample(dtype, (5, 3))
        expected = target.copy()
        np.add.at(expected, index, value)
        mine = b.asarray(target, copy=True)
        result = b.scatter_add(mine, b.asarray(index), b.asarray(value))
        expect(result is None, "what scatter_add gives", None, result)
        same(b, mine, expected, f"scatter_add into {dtype}", ulp=4)


@check
def scatter_add_of_every_index(b: Backend) -> None:
    rows, columns = np.array([[0, 2], [2, 2]]), np.array([1, 1])
    mask = sample("bool", (4, 5))
    cases: dict[str, tuple[Any, Any]] = {
        "an array": (rows, 1.5),
        "two arrays": ((rows, columns), sample("float32", (2, 2))),
        "a slice and an array": ((slice(1, 3), columns), sample("float32", (2, 2))),
        "an array and a slice": ((rows, slice(None, None, 2)), sample("float32", (3,))),
        "an integer and an array": ((-1, columns), 2),
        "an ellipsis and an array": ((..., columns), sample("float32", (1, 2))),
        "a mask": (mask, -1.0),
        "a slice": (slice(None, None, 2), sample("float32", (5,))),
        "nothing": (np.zeros(0, np.int64), 1.0),
    }
    for name, (index, value) in cases.items():
        expected = sample("float32", (4, 5))
        mine = b.asarray(expected, copy=True)
        np.add.at(expected, index, value)
        parts = index if isinstance(index, tuple) else (index,)
        own = tuple(b.asarray(p) if isinstance(p, np.ndarray) else p for p in parts)
        own_value = b.asarray(value) if isinstance(value, np.ndarray) else value
        b.scatter_add(mine, own if isinstance(index, tuple) else own[0], own_value)
        same(b, mine, expected, f"scatter_add with {name} as index", ulp=4)


# -- random numbers ----------------------------------------------------------------------------------------------------

PLACES = ((0, 0), (5, 7), (2**127 + 3, 2**64 - 3), (random.KEYS - 1, 2**192 - 2), (1, random.COUNTERS - 2))


@check
def random_bits(b: Backend) -> None:
    for key, counter in PLACES:
        for n in (0, 1, 4, 9, 1001):
            same(b, b.bits(key, counter, n), random.bits(key, counter, n), f"bits({key}, {counter}, {n})")


@check
def random_uniform(b: Backend) -> None:
    for key, counter in PLACES:
        for dtype in FLOATS:
            for shape in ((), (0, 3), (7,), (3, 5)):
                expected = random.uniform(key, counter, shape, dtype)
                same(b, b.uniform(key, counter, shape, dtype), expected, f"uniform({key}, {counter}, {shape}, {dtype})")
    for dtype in FLOATS:
        drawn = b.to_numpy(b.uniform(3, 0, (40_000,), dtype))
        expect(bool(((drawn >= 0) & (drawn < 1)).all()), f"uniform of {dtype}", "in [0, 1)", (drawn.min(), drawn.max()))


@check
def random_normal(b: Backend) -> None:
    for dtype in FLOATS:
        for shape in ((), (0, 3), (7,), (1000,)):
            expected = random.normal(11, 5, shape, dtype)
            same(b, b.normal(11, 5, shape, dtype), expected, f"normal(11, 5, {shape}, {dtype})", ulp=4)


@check
def random_refuses_other_dtypes(b: Backend) -> None:
    for draw in (b.uniform, b.normal):
        raises(TypeError, f"{draw.__name__} of int32", lambda draw=draw: draw(0, 0, (3,), "int32"))


@check
def works_from_several_threads(b: Backend) -> None:
    failures: list[str] = []

    def work(key: int) -> None:
        for n in range(1, 60):
            drawn, expected = b.to_numpy(b.uniform(key, n, (n,)) + 1), random.uniform(key, n, (n,)) + 1
            if not np.array_equal(drawn, expected):
                failures.append(f"key {key}, {n} numbers")

    workers = [threading.Thread(target=work, args=(key,)) for key in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    expect(not failures, "draws in three threads", "those of one thread", failures)
