"""Probes of NVIDIA's libraries beside CuPy: which are found, and whether they work on CuPy's arrays and in a graph.

retrograd's vendor tier will stand on them. Each probe needs what it names, and an ImportError in the report says that
it is not installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import pathlib
import tempfile
from typing import Any

import numpy as np

from ..backends import Backend
from .cublaslt import CublasLt
from .gpu_probes import captured, milliseconds, said

LIBRARIES = ("cublasLt", "cudnn", "nccl", "nvrtc", "cutensor", "curand", "cusolver")
MODULES = ("torch", "triton", "ml_dtypes", "mpi4py", "cudnn", "nvmath", "cuda.bindings", "scipy", "numba")


def libraries(backend: Backend) -> dict[str, str]:
    """Where NVIDIA's libraries are found, and the versions of modules that could use them."""
    found: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            pathfinder = importlib.import_module("cuda.pathfinder")
            found[f"lib{name}"] = str(pathfinder.load_nvidia_dynamic_lib(name).abs_path)
        except Exception as error:
            found[f"lib{name}"] = said(error)
    for name in MODULES:
        try:
            found[name] = str(getattr(importlib.import_module(name), "__version__", "without a version"))
        except Exception as error:
            found[name] = said(error)
    return found


def cublaslt(backend: Backend) -> dict[str, Any]:
    """cuBLASLt through ctypes: relative errors of products with and without transposes and batch, and in a graph."""
    lt = CublasLt(backend)
    found: dict[str, Any] = {}
    for dtype in ("float32", "float16"):
        for batch in ((), (6,)):
            for turned in ((False, False), (True, False), (False, True), (True, True)):
                a = backend.uniform(0, 0, (*batch, *((96, 64) if turned[0] else (64, 96)))).astype(dtype)
                b = backend.uniform(1, 0, (*batch, *((128, 96) if turned[1] else (96, 128)))).astype(dtype)
                found[f"error of {dtype} {batch} transposed {turned}"] = _error(backend, lt, a, b, turned)
    x = backend.uniform(2, 0, (512, 512))

    def chain() -> Any:
        return lt.matmul(backend.xp.tanh(lt.matmul(x, x)), x)

    recorded = captured(backend.xp, chain)
    recorded.graph.launch(recorded.stream)
    recorded.stream.synchronize()
    wide = _wide(backend, x)
    found["error of a captured chain"] = _relative(backend, recorded.output, np.tanh(wide @ wide) @ wide)
    for dtype, n in (("float32", 4096), ("float16", 8192)):
        a = backend.uniform(3, 0, (n, n)).astype(dtype)
        out = backend.xp.empty_like(a)
        taken = milliseconds(backend.xp, lambda a=a, out=out: lt.matmul(a, a, out=out))
        found[f"TFLOP/s of {dtype}, {n} cubed"] = round(2 * n**3 / taken / 1e9, 2)
    return found


def _error(backend: Backend, lt: CublasLt, a: Any, b: Any, turned: tuple[bool, bool]) -> Any:
    try:
        got = lt.matmul(a, b, *turned)
    except Exception as error:
        return said(error)
    factors = [_wide(backend, m) for m in (a, b)]
    left, right = (m.swapaxes(-1, -2) if t else m for m, t in zip(factors, turned, strict=True))
    return _relative(backend, got, left @ right)


def _wide(backend: Backend, array: Any) -> np.ndarray:
    return backend.to_numpy(array).astype(np.float64)


def _relative(backend: Backend, got: Any, expected: np.ndarray) -> float:
    return float(np.linalg.norm(_wide(backend, got) - expected) / np.linalg.norm(expected))


def nccl(backend: Backend) -> dict[str, Any]:
    """NCCL with one rank: its version, and an all-reduce in a graph."""
    library = importlib.import_module("cupy.cuda.nccl")
    cp = backend.xp
    communicator = library.NcclCommunicator(1, library.get_unique_id(), 0)
    x = cp.ones(1 << 20, cp.float32)

    def reduced() -> Any:
        stream = cp.cuda.get_current_stream().ptr
        communicator.allReduce(x.data.ptr, x.data.ptr, x.size, library.NCCL_FLOAT32, library.NCCL_SUM, stream)
        return x

    recorded = captured(cp, reduced)
    recorded.graph.launch(recorded.stream)
    recorded.stream.synchronize()
    return {"version": library.get_version(), "all-reduce of ones in a graph": float(x.max())}


_DOUBLING = """
import triton
import triton.language as tl


@triton.jit
def double(source, target, n, width: tl.constexpr):
    place = tl.program_id(0) * width + tl.arange(0, width)
    inside = place < n
    tl.store(target + place, tl.load(source + place, mask=inside) * 2.0, mask=inside)
"""


def triton(backend: Backend) -> dict[str, Any]:
    """A Triton kernel compiled ahead of time to a cubin, without torch, and launched by CuPy."""
    compiler = importlib.import_module("triton.compiler")
    target = importlib.import_module("triton.backends.compiler").GPUTarget
    cp = backend.xp
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "retrograd_probe_triton.py"
        file.write_text(_DOUBLING)
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        signature = {"source": "*fp32", "target": "*fp32", "n": "i32", "width": "constexpr"}
        source = compiler.ASTSource(fn=module.double, signature=signature, constexprs={"width": 1024})
        capability = int(cp.cuda.Device().compute_capability)
        kernel = compiler.compile(source, target=target("cuda", capability, 32), options={"num_warps": 4})
    loaded = cp.cuda.Module()
    loaded.load(kernel.asm["cubin"])
    x = cp.arange(5000, dtype=cp.float32)
    y = cp.zeros_like(x)
    # Since Triton 3.6 two addresses of scratch memory follow the arguments.
    arguments = (x, y, np.int32(x.size), np.uint64(0), np.uint64(0))
    function = loaded.get_function(kernel.metadata.name)
    function((5,), (kernel.metadata.num_warps * 32,), arguments, shared_mem=kernel.metadata.shared)
    return {"doubles": bool((y == 2 * x).all())}


def cudnn(backend: Backend) -> dict[str, Any]:
    """cuDNN's frontend on CuPy arrays: TFLOP/s of a convolution, its two gradients and causal attention, in float16."""
    library = importlib.import_module("cudnn")
    found: dict[str, Any] = {"frontend": library.__version__, "backend": library.backend_version_string()}
    for name in ("fprop", "dgrad", "wgrad", "causal attention"):
        try:
            rate = _attention(backend, library) if name == "causal attention" else _convolution(backend, library, name)
            found[f"TFLOP/s of {name}"] = rate
        except Exception as error:
            found[f"TFLOP/s of {name}"] = said(error)
    return found


# Images, channels in, height and width, channels out, side of the kernel.
_N, _C, _H, _K, _R = 64, 64, 56, 64, 3


def _channels_last(n: int, channels: int, height: int, width: int) -> list[int]:
    return [height * width * channels, 1, width * channels, channels]


def _convolution(backend: Backend, library: Any, kind: str) -> float:
    shapes = {"image": [_N, _C, _H, _H], "weight": [_K, _C, _R, _R], "loss": [_N, _K, _H, _H]}
    read = {"fprop": ("image", "weight"), "dgrad": ("loss", "filter"), "wgrad": ("image", "loss")}[kind]
    given = {"fprop": "loss", "dgrad": "image", "wgrad": "weight"}[kind]
    handle, graph = _graph(library)
    tensors = {}
    for name in read:
        shape = shapes["weight" if name == "filter" else name]
        tensors[name] = graph.tensor(name=name, dim=shape, stride=_channels_last(*shape))
    result = getattr(graph, f"conv_{kind}")(**tensors, padding=[1, 1], stride=[1, 1], dilation=[1, 1])
    result.set_output(True).set_dim(shapes[given]).set_stride(_channels_last(*shapes[given]))
    sizes = [math.prod(shapes["weight" if name == "filter" else name]) for name in read]
    sizes.append(math.prod(shapes[given]))
    flops = 2 * _N * _H * _H * _C * _K * _R * _R
    return _timed(backend, library, handle, graph, [*tensors.values(), result], sizes, flops)


def _attention(backend: Backend, library: Any) -> float:
    batch, heads, length, width = 8, 16, 2048, 64
    shape = [batch, heads, length, width]
    stride = [length * heads * width, width, heads * width, 1]
    handle, graph = _graph(library)
    q, k, v = (graph.tensor(name=name, dim=shape, stride=stride) for name in "qkv")
    out, statistics = graph.sdpa(
        name="sdpa", q=q, k=k, v=v, attn_scale=width**-0.5, use_causal_mask=True, generate_stats=True
    )
    out.set_output(True).set_dim(shape).set_stride(stride)
    statistics.set_output(True).set_data_type(library.data_type.FLOAT)
    size = math.prod(shape)
    # The statistics are float32: room for two float16 numbers each.
    sizes = [size, size, size, size, 2 * batch * heads * length]
    flops = 4 * batch * heads * length * length * width // 2
    return _timed(backend, library, handle, graph, [q, k, v, out, statistics], sizes, flops)


def _graph(library: Any) -> tuple[Any, Any]:
    kinds, handle = library.data_type, library.create_handle()
    accurate = {"intermediate_data_type": kinds.FLOAT, "compute_data_type": kinds.FLOAT}
    return handle, library.pygraph(io_data_type=kinds.HALF, handle=handle, **accurate)


def _timed(
    backend: Backend, library: Any, handle: Any, graph: Any, tensors: list[Any], sizes: list[int], flops: int
) -> float:
    cp = backend.xp
    arrays = [backend.uniform(i, 0, (size,), "float16") for i, size in enumerate(sizes)]
    for number, tensor in enumerate(tensors, start=1):
        tensor.set_uid(number)
    graph.build([library.heur_mode.A, library.heur_mode.FALLBACK])
    workspace = cp.empty(max(1, graph.get_workspace_size()), cp.uint8)
    pointers = {number: array.data.ptr for number, array in enumerate(arrays, start=1)}
    taken = milliseconds(cp, lambda: graph.execute(pointers, workspace.data.ptr, handle=handle))
    return round(flops / taken / 1e9, 1)
