"""What the frame must know of a library to time it: where it comes from, how its values and its matrix products look.

The file stands alone (NumPy at most): the process of a peer loads it by its path, so that no process of a rival ever
imports retrograd. Each library is imported only in the process that times it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Gemm = tuple[int, int, int, str]
"""Rows, inner length and columns of a matrix product, and which operand lies transposed in memory: nn, nt or tn."""


class Adapter(NamedTuple):
    """One library.

    Attributes:
        module: what is imported; its presence in another peer's process is an error.
        distribution: what is installed; its version stands beside each result.
        to_numpy: a value of the library (a loss, a gradient) as an ndarray.
        products: a list of matrix products on float32 operands of the library, as one call without arguments.
        facts: threads and numeric library, as the running process sees them.
        environment: variables of its process, beside those that set the number of threads.
        needs: a program or a module that must be installed too.
        eager: for a library that compiles, the peer whose step costs what its first calls would without compiling:
            the same library's eager one, or, where there is none, itself once it has compiled.
    """

    module: str
    distribution: str
    to_numpy: Callable[[Any], np.ndarray]
    products: Callable[[Sequence[Gemm]], Callable[[], Any]]
    facts: Callable[[], dict[str, Any]]
    environment: Mapping[str, str] = {}
    needs: str = ""
    eager: str = ""


def operands(shapes: Sequence[Gemm]) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """Both operands of each product, as they lie in memory.

    Where a library can write into a given place, it shall: what is freed again moves the thresholds of the heap, and
    the steps that are timed afterwards would run on another heap than a user's.
    """
    rng = np.random.default_rng(0)
    made = []
    for m, k, n, layout in shapes:
        left, right = ((m, k) if layout[0] == "n" else (k, m)), ((k, n) if layout[1] == "n" else (n, k))
        made.append((rng.random(left, np.float32), rng.random(right, np.float32), layout))
    return made


def numpy_products(shapes: Sequence[Gemm]) -> Callable[[], Any]:
    """The products in NumPy, as retrograd and HIPS autograd compute them."""
    pairs = [(a.T if s[0] == "t" else a, b.T if s[1] == "t" else b) for a, b, s in operands(shapes)]
    triples = [(a, b, np.empty((a.shape[0], b.shape[1]), np.float32)) for a, b in pairs]
    return lambda: [np.matmul(a, b, out=c) for a, b, c in triples]


def torch_products(shapes: Sequence[Gemm]) -> Callable[[], Any]:
    """The products in PyTorch."""
    import torch  # pyright: ignore[reportMissingImports]

    made = [(torch.from_numpy(a), torch.from_numpy(b), s) for a, b, s in operands(shapes)]
    pairs = [(a.T if s[0] == "t" else a, b.T if s[1] == "t" else b) for a, b, s in made]
    triples = [(a, b, torch.empty(a.shape[0], b.shape[1])) for a, b in pairs]
    return lambda: [torch.mm(a, b, out=c) for a, b, c in triples]


def jax_products(shapes: Sequence[Gemm]) -> Callable[[], Any]:
    """The products in JAX, compiled as one function."""
    import jax  # pyright: ignore[reportMissingImports]

    made = operands(shapes)
    layouts = [s for *_, s in made]

    def products(pairs: Any) -> Any:
        return [
            (a.T if s[0] == "t" else a) @ (b.T if s[1] == "t" else b) for (a, b), s in zip(pairs, layouts, strict=True)
        ]

    pairs, compiled = [(jax.numpy.array(a), jax.numpy.array(b)) for a, b, _ in made], jax.jit(products)
    return lambda: jax.block_until_ready(compiled(pairs))


def tinygrad_products(shapes: Sequence[Gemm]) -> Callable[[], Any]:
    """The products in tinygrad, recorded and replayed."""
    from tinygrad import Device, Tensor, TinyJit  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]

    made = [(Tensor(a).realize(), Tensor(b).realize(), s) for a, b, s in operands(shapes)]

    @TinyJit
    def products() -> Any:
        return [((a.T if s[0] == "t" else a) @ (b.T if s[1] == "t" else b)).realize() for a, b, s in made]

    def run() -> None:
        products()
        Device[Device.DEFAULT].synchronize()

    return run


def numpy_facts() -> dict[str, Any]:
    """NumPy, its BLAS and the threads of it, as far as they can be found out."""
    blas = (np.show_config(mode="dicts") or {}).get("Build Dependencies", {}).get("blas", {})
    found: dict[str, Any] = {"numpy": np.__version__, "blas": f"{blas.get('name')} {blas.get('version')}"}
    try:
        from threadpoolctl import threadpool_info  # pyright: ignore[reportMissingImports]
    except ImportError:
        return found
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return found | {"threads": max((pool["num_threads"] for pool in pools), default=None)}


def torch_facts() -> dict[str, Any]:
    """PyTorch's numeric libraries and threads."""
    import torch  # pyright: ignore[reportMissingImports]

    libraries = [
        n for n, part in (("mkl", torch.backends.mkl), ("mkldnn", torch.backends.mkldnn)) if part.is_available()
    ]
    return {"blas": " and ".join(libraries), "threads": torch.get_num_threads()}


def jax_facts() -> dict[str, Any]:
    """Where JAX runs, and the threads that it was told to use."""
    import jax  # pyright: ignore[reportMissingImports]

    return {"blas": f"XLA on {jax.devices()[0].platform}", "threads": int(os.environ.get("NPROC", 0)) or None}


def tinygrad_facts() -> dict[str, Any]:
    """Where tinygrad runs, and the threads that it was told to use."""
    from tinygrad import Device  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]

    return {
        "blas": f"its own kernels on {Device.DEFAULT}", "threads": int(os.environ.get("NUM_CPU_THREADS", 0)) or None
    }  # fmt: skip


def retrograd_facts() -> dict[str, Any]:
    """Backend and kernel tier, and NumPy's facts."""
    from retrograd import backends

    backend = backends.get_backend()
    return numpy_facts() | {"backend": backend.name, "kernels": backends.kernel_tier()}


_RETROGRAD = Adapter("retrograd", "retrograd", lambda t: t.detach().numpy(), numpy_products, retrograd_facts)
_TORCH = Adapter("torch", "torch", lambda t: t.detach().numpy(), torch_products, torch_facts)

_KEEPING = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 25)}
"""Has glibc keep the memory that a step leaves for the next one, as retrograd does by itself."""

ADAPTERS = {
    "retrograd": _RETROGRAD,
    "retrograd-numpy": _RETROGRAD._replace(environment={"RETROGRAD_KERNELS": "array"}, eager="retrograd"),
    "retrograd-jit": _RETROGRAD._replace(environment={"RETROGRAD_KERNELS": "jit"}, needs="numba", eager="retrograd"),
    "torch": _TORCH,
    "torch-compiled": _TORCH._replace(needs="g++", eager="torch"),
    "torch-keeping": _TORCH._replace(environment=_KEEPING),
    "jax": Adapter("jax", "jax", np.asarray, jax_products, jax_facts, eager="jax"),
    "autograd": Adapter("autograd", "autograd", np.asarray, numpy_products, numpy_facts),
    "mygrad": Adapter("mygrad", "mygrad", lambda t: t.data, numpy_products, numpy_facts),
    "tinygrad": Adapter(
        "tinygrad", "tinygrad", lambda t: t.numpy(), tinygrad_products, tinygrad_facts, needs="clang", eager="tinygrad"
    ),
}
"""Every peer by the name that `--peer` and `--ours` take. A further one is a row here, and a builder per workload."""


PLAIN = Adapter("", "numpy", np.asarray, numpy_products, numpy_facts)
"""For a peer without a row: steps written by hand in Python or NumPy."""


def strangers(own: str, loaded: Sequence[str]) -> list[str]:
    """Peers whose library is loaded in the process of another one: their thread pools would disturb each other."""
    ours = ADAPTERS[own].module if own in ADAPTERS else ""
    modules = {adapter.module: name for name, adapter in reversed(ADAPTERS.items())}
    return [name for module, name in modules.items() if module != ours and module in loaded]
