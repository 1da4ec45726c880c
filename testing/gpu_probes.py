"""Probes of a CuPy device: what a CUDA graph can hold, what a call costs, how fast products and copies are.

Each takes a CuPy backend and gives values that JSON can hold. None has been chosen to look good: the arrays are small
where the cost of a call is asked, and large where the rate of the device is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..backends import Backend, random

WARM_UPS = 2


def said(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


# -- what a CUDA graph can hold ----------------------------------------------------------------------------------------


class Captured(NamedTuple):
    """A function recorded as a CUDA graph: `graph.launch(stream)` runs it again, into the same `output`."""

    graph: Any
    output: Any
    stream: Any
    blocks: list[Any]


def captured(cupy: Any, function: Callable[[], Any]) -> Captured:
    """Record a function, after warm-ups that compile its kernels.

    Its memory comes from a pool of its own whose blocks are held as long as the graph: memory that went back to the
    common pool would be given to others, and written at every replay.
    """
    blocks: list[Any] = []

    def block(size: int) -> Any:
        memory = cupy.cuda.Memory(size)
        blocks.append(memory)
        return cupy.cuda.MemoryPointer(memory, 0)

    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream, cupy.cuda.using_allocator(cupy.cuda.MemoryPool(block).malloc):
        for _ in range(WARM_UPS):
            function()
        stream.synchronize()
        stream.begin_capture()
        try:
            output = function()
        except BaseException:
            _end(stream)
            raise
        return Captured(stream.end_capture(), output, stream, blocks)


def _end(stream: Any) -> None:
    # A capture that failed has to be ended all the same, and ending it fails too.
    try:
        stream.end_capture()
    except Exception:
        return


def capture(backend: Backend) -> dict[str, str]:
    """Of each call: whether it can be captured, and whether a replay gives what an eager call gives."""
    calls = _calls(backend)
    return {name: _replayed(backend.xp, name, call) for name, call in calls.items()}


def _replayed(cupy: Any, name: str, call: Callable[[], Any]) -> str:
    try:
        recorded = captured(cupy, call)
        copies = []
        for _ in range(2):
            recorded.graph.launch(recorded.stream)
            recorded.stream.synchronize()
            copies.append(cupy.asnumpy(recorded.output))
        if name.startswith("cupy.random"):
            return "two replays differ" if not np.array_equal(*copies) else "two replays are equal"
        eager = cupy.asnumpy(call())
    except Exception as error:
        return said(error)
    return "replay equals eager" if np.allclose(copies[1], eager, rtol=1e-4, atol=1e-4) else "replay differs from eager"


def _calls(backend: Backend) -> dict[str, Callable[[], Any]]:
    cp = backend.xp
    x = backend.uniform(0, 0, (256, 384))
    w = backend.uniform(0, 100_000, (384, 128))
    row = backend.asarray(np.arange(64) * 3 % 256)
    columns = backend.asarray(np.arange(384)[None] % 384)
    mask = x > 0.5

    def scattered() -> Any:
        target = cp.zeros_like(x)
        backend.scatter_add(target, row, x[:64])
        return target

    return {
        "add": lambda: x + x * 2,
        "sum of rows": lambda: x.sum(axis=1),
        "sum of all": lambda: x.sum(),
        "mean of columns": lambda: x.mean(axis=0),
        "max": lambda: x.max(axis=1),
        "argmax": lambda: x.argmax(axis=1),
        "cumsum": lambda: x.cumsum(axis=1),
        "exp minus max": lambda: cp.exp(x - x.max(axis=1, keepdims=True)),
        "sort": lambda: cp.sort(x, axis=1),
        "argsort": lambda: cp.argsort(x, axis=1),
        "index by an array": lambda: x[row],
        "take_along_axis": lambda: cp.take_along_axis(x, columns, 1),
        "scatter_add": scattered,
        "where": lambda: cp.where(mask, x, 0),
        "concatenate 2": lambda: cp.concatenate([x, x]),
        "concatenate 9": lambda: cp.concatenate([x] * 9),
        "stack": lambda: cp.stack([x, x]),
        "pad": lambda: cp.pad(x, 1),
        "copy of the transpose": lambda: cp.ascontiguousarray(x.T),
        "matmul": lambda: x @ w,
        "einsum that is a product": lambda: cp.einsum("ij,jk->ik", x, w),
        "einsum that is a transpose": lambda: cp.einsum("ij->ji", x),
        "tensordot": lambda: cp.tensordot(x, w, 1),
        "fft": lambda: cp.fft.rfft(x),
        "cholesky": lambda: cp.linalg.cholesky(cp.eye(4)),
        "eye": lambda: cp.eye(4),
        "arange": lambda: cp.arange(10),
        "full": lambda: cp.full((3,), 2.0),
        "tril": lambda: cp.tril(x),
        "our uniform": lambda: backend.uniform(1, 2, (64, 64)),
        "our normal": lambda: backend.normal(1, 2, (64, 64)),
        "boolean mask": lambda: x[mask],
        "float()": lambda: cp.full((), float(x[0, 0])),
        "asarray of an ndarray": lambda: cp.asarray(np.ones(3, np.float32)),
        "index by a list": lambda: x[[0, 2, 1]],
        **_their_random_calls(cp),
    }


def _their_random_calls(cp: Any) -> dict[str, Callable[[], Any]]:
    try:
        generator, state = cp.random.default_rng(0), cp.random.RandomState(0)
    except Exception:  # cuRAND is a library of its own; the call then says in the report that it is not there
        return {"cupy.random": lambda: cp.random.RandomState(0).random_sample((4, 5))}
    return {
        "cupy.random generator, uniform": lambda: generator.random((4, 5), dtype=cp.float32),
        "cupy.random generator, normal": lambda: generator.standard_normal((4, 5), dtype=cp.float32),
        "cupy.random state": lambda: state.random_sample((4, 5)),
    }


# -- what a call costs the host ----------------------------------------------------------------------------------------


def host_cost(backend: Backend) -> dict[str, dict[str, float]]:
    """Microseconds of small calls: `enqueued`, when the call is back; `done`, when the device is, by call of many."""
    cp = backend.xp
    x = backend.uniform(0, 0, (64, 64))
    out = cp.empty_like(x)
    rows = backend.asarray(np.arange(4))
    add = cp.ElementwiseKernel("T x, T y", "T z", "z = x + y", "retrograd_probe_add")
    calls: dict[str, Callable[[], Any]] = {
        "empty": lambda: cp.empty((64, 64), cp.float32),
        "zeros": lambda: cp.zeros((64, 64), cp.float32),
        "add": lambda: x + x,
        "add, out": lambda: cp.add(x, x, out=out),
        "add a number": lambda: x + 1.0,
        "exp": lambda: cp.exp(x),
        "elementwise kernel, out": lambda: add(x, x, out),
        "sum of all": lambda: x.sum(),
        "sum of rows": lambda: x.sum(axis=1),
        "matmul": lambda: x @ x,
        "matmul, out": lambda: cp.matmul(x, x, out=out),
        "transpose": lambda: x.T,
        "reshape": lambda: x.reshape(-1),
        "slice": lambda: x[1:],
        "index by an array": lambda: x[rows],
        "our uniform": lambda: backend.uniform(0, 0, (64, 64)),
        "float()": lambda: float(x[0, 0]),
    }
    costs: dict[str, Any] = {name: _cost(backend, call) for name, call in calls.items()}
    costs["kernel in a graph of 200"] = _cost_in_a_graph(backend, lambda: add(x, x, out))
    return costs


def _cost(backend: Backend, call: Callable[[], Any], repeats: int = 1000) -> dict[str, float]:
    for _ in range(20):
        call()
    backend.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    enqueued = time.perf_counter()
    backend.synchronize()
    done = time.perf_counter()
    return {"enqueued": _micro(enqueued - started, repeats), "done": _micro(done - started, repeats)}


def _cost_in_a_graph(backend: Backend, kernel: Callable[[], Any]) -> dict[str, float]:
    kernels, launches = 200, 50
    recorded = captured(backend.xp, lambda: [kernel() for _ in range(kernels)])
    started = time.perf_counter()
    for _ in range(launches):
        recorded.graph.launch(recorded.stream)
    enqueued = time.perf_counter()
    recorded.stream.synchronize()
    done = time.perf_counter()
    n = kernels * launches
    return {"enqueued": _micro(enqueued - started, n), "done": _micro(done - started, n)}


def _micro(seconds: float, calls: int) -> float:
    return round(seconds / calls * 1e6, 2)


# -- how fast the device is --------------------------------------------------------------------------------------------


def milliseconds(cupy: Any, call: Callable[[], Any], repeats: int = 10) -> float:
    """The median time of a call on the device."""
    for _ in range(3):
        call()
    begun, ended = cupy.cuda.Event(), cupy.cuda.Event()
    times = []
    for _ in range(repeats):
        begun.record()
        call()
        ended.record()
        ended.synchronize()
        times.append(cupy.cuda.get_elapsed_time(begun, ended))
    return float(np.median(times))


# (dtype, shapes of the factors): squares for the rate, the others as a Transformer has them.
PRODUCTS = (
    ("float32", (4096, 4096), (4096, 4096)),
    ("float16", (8192, 8192), (8192, 8192)),
    ("float64", (2048, 2048), (2048, 2048)),
    ("float32", (8192, 768), (768, 3072)),
    ("float32", (96, 1024, 64), (96, 64, 1024)),
    ("float16", (96, 1024, 64), (96, 64, 1024)),
)


def matrix_products(backend: Backend) -> dict[str, Any]:
    """TFLOP/s of `a @ b`, or what it raised."""
    return {f"{dtype} {left} @ {right}": _rate(backend, dtype, left, right) for dtype, left, right in PRODUCTS}


def _rate(backend: Backend, dtype: str, left: tuple[int, ...], right: tuple[int, ...]) -> Any:
    try:
        a = backend.uniform(0, 0, left).astype(dtype)
        b = backend.uniform(1, 0, right).astype(dtype)
        time_of_one = milliseconds(backend.xp, lambda: a @ b)
    except Exception as error:
        return said(error)
    return round(2 * np.prod(left, dtype=float) * right[-1] / time_of_one / 1e9, 2)


def memory(backend: Backend) -> dict[str, Any]:
    """GB/s of copies of 256 MiB: on the device (read and written), to it, from it; and what the pool says."""
    host = np.zeros(1 << 26, np.float32)
    x = backend.asarray(host)
    y = backend.xp.empty_like(x)
    gigabytes = host.nbytes / 1e9

    def on_the_device() -> None:
        y[...] = x

    def seconds(call: Callable[[], Any]) -> float:
        started = time.perf_counter()
        call()
        backend.synchronize()
        return time.perf_counter() - started

    rates = {"on the device": 2 * gigabytes / milliseconds(backend.xp, on_the_device) * 1e3}
    rates["to the device"] = gigabytes / min(seconds(lambda: backend.asarray(host)) for _ in range(3))
    rates["from the device"] = gigabytes / min(seconds(lambda: backend.to_numpy(x)) for _ in range(3))
    pool = backend.memory()
    return {"gigabytes_per_second": {name: round(rate, 1) for name, rate in rates.items()}, "pool": pool}


def random_numbers(backend: Backend) -> dict[str, Any]:
    """Numbers per second of our draws, and how far normals are from the CPU's, in units in the last place."""
    n = 1 << 24
    rates = {}
    for name, draw in {"uniform": backend.uniform, "normal": backend.normal}.items():
        taken = milliseconds(backend.xp, lambda draw=draw: draw(1, 2, (n,)))
        rates[name] = round(n / taken / 1e6, 2)
    ours, theirs = (draw(1, 2, (1 << 20,), "float64") for draw in (backend.normal, random.normal))
    ours = backend.to_numpy(ours)
    ulp = np.abs(ours - theirs) / np.spacing(np.abs(theirs))
    return {"billions_per_second": rates, "largest_difference_of_normals_in_ulp": float(ulp.max())}
