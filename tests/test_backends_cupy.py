"""The CuPy backend without a GPU: what it says where CuPy cannot be used, its Python, its kernel run on the CPU.

A stand-in for the module `cupy` stands in sys.modules: the strict namespace, with as much of `cupy.cuda` as the backend
calls. Kernels are compiled for the CPU by the C++ compiler, from the source that the GPU gets.
"""

import ctypes
import importlib
import itertools
import json
import shutil
import subprocess
import sys
import types
import warnings

import numpy as np
import pytest
from retrograd.backends import BackendError, cupy_backend, cupy_surface, get_backend, philox_cuda, random, registry
from retrograd.backends.strict_array import StrictArray
from retrograd.backends.strict_namespace import StrictNamespace
from retrograd.testing import check_backend, doctor, gpu_doctor, gpu_probes, gpu_vendor


class CUDARuntimeError(RuntimeError):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class FakeDevice:
    """A CUDA device: the current one is where new arrays are made."""

    current = 0

    def __init__(self, number):
        self.id = number

    def __enter__(self):
        self.outer, FakeDevice.current = FakeDevice.current, self.id
        return self

    def __exit__(self, *error):
        FakeDevice.current = self.outer

    def use(self):
        FakeDevice.current = self.id

    def synchronize(self):
        pass


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """`compiled(source, name)`: a CUDA kernel as a C function that runs the threads of its grid one after the other."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("kernels")
    shim = """
        #define __global__
        #define __device__ static
        struct Index { unsigned x; };
        static thread_local Index threadIdx, blockIdx, blockDim, gridDim;
        static unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
            return (unsigned long long)(((unsigned __int128)a * b) >> 64);
        }
    """
    numbers = itertools.count()

    def build(source, name):
        words = ", ".join(f"unsigned long long a{i}" for i in range(6))
        run = f"""
            extern "C" void run(unsigned blocks, unsigned threads, unsigned long long* out, long long n, {words}) {{
                gridDim.x = blocks; blockDim.x = threads;
                for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
                    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
                        {name}(out, n, a0, a1, a2, a3, a4, a5);
            }}
        """
        stem = folder / f"kernel{next(numbers)}"
        stem.with_suffix(".cpp").write_text(shim + source + run)
        command = [compiler, "-O1", "-shared", "-fPIC", "-w", f"{stem}.cpp", "-o", f"{stem}.so"]
        subprocess.run(command, check=True, timeout=120)
        function = ctypes.CDLL(f"{stem}.so").run
        words = [ctypes.c_ulonglong] * 6
        function.argtypes = [ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_longlong, *words]
        function.restype = None
        return function

    return build


@pytest.fixture(scope="session")
def philox(compiled):
    return compiled(philox_cuda.SOURCE, philox_cuda.NAME)


@pytest.fixture
def fake_cupy(monkeypatch):
    """The stand-in for CuPy, seeing one device; `fake_cupy.cuda.runtime` can be told to see others or to fail."""
    made = {"numpy": get_backend("numpy"), "strict": get_backend("strict")}  # in the registry that stays, so first
    monkeypatch.setattr(registry, "BACKEND_BY_TYPE", dict(registry.BACKEND_BY_TYPE))
    monkeypatch.setattr(registry, "_made", made)
    monkeypatch.setattr(registry, "_default", None)
    monkeypatch.setattr(cupy_backend, "_by_device", {})
    monkeypatch.setattr(FakeDevice, "current", 0)
    cupy = StrictNamespace()
    cupy.__version__ = "14.2.0"
    cupy.cuda = types.SimpleNamespace(Device=FakeDevice, runtime=fake_runtime())
    cupy.RawKernel = lambda source, name: lambda grid, block, arguments: None
    pool = types.SimpleNamespace(used_bytes=lambda: 512, total_bytes=lambda: 1024, free_all_blocks=lambda: None)
    cupy.get_default_memory_pool = cupy.get_default_pinned_memory_pool = lambda: pool
    cupyx = types.ModuleType("cupyx")
    cupyx.scatter_add = scatter_add
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupyx", cupyx)
    return cupy


def fake_runtime():
    def properties(number):
        return {"name": b"Pretended GPU", "major": 9, "minor": 0, "multiProcessorCount": 132}

    return types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=lambda: 1,
        runtimeGetVersion=lambda: 13020,
        driverGetVersion=lambda: 13000,
        memGetInfo=lambda: (3072, 4096),
        getDeviceProperties=properties,
    )


def scatter_add(target, index, value):
    """As cupyx has it: only what CUDA can add atomically."""
    if target.dtype not in map(np.dtype, ("float16", "float32", "float64", "int32", "int64", "uint32", "uint64")):
        raise TypeError(f"cupyx.scatter_add does not support {target.dtype}")
    get_backend("strict").scatter_add(target, index, value)


def failing(status, text):
    def count():
        raise CUDARuntimeError(status, text)

    return count


# -- what is said when CuPy cannot be used -----------------------------------------------------------------------------


def refusal(name="cupy"):
    """The message of asking for CuPy: one line, and `auto` falls back to NumPy."""
    with pytest.raises(BackendError) as caught:
        get_backend(name)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"backend {name!r} is not usable: ")
    assert message.endswith("usable here: numpy, strict")
    return message


def test_cupy_is_not_installed(fake_cupy, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "CuPy is not installed; pip install 'cupy-cuda13x[ctk]'" in refusal()
    assert get_backend("auto").name == "numpy"


def test_there_is_no_driver(fake_cupy):
    fake_cupy.cuda.runtime.getDeviceCount = failing(35, "cudaErrorInsufficientDriver: insufficient")
    assert "no NVIDIA driver is loaded, or it is older than CuPy's CUDA 13.2; check `nvidia-smi`" in refusal()
    assert get_backend("auto").name == "numpy"


def test_there_is_no_device(fake_cupy):
    fake_cupy.cuda.runtime.getDeviceCount = failing(100, "cudaErrorNoDevice: no CUDA-capable device is detected")
    first = refusal()
    assert "the NVIDIA driver sees no GPU; check `nvidia-smi`, CUDA_VISIBLE_DEVICES" in first
    fake_cupy.cuda.runtime.getDeviceCount = lambda: 0
    assert refusal() == first
    assert get_backend("auto").name == "numpy"


def test_cuda_fails_in_another_way(fake_cupy):
    fake_cupy.cuda.runtime.getDeviceCount = failing(999, "cudaErrorUnknown: unknown error\nmore")
    assert "CUDA does not start (CUDARuntimeError: cudaErrorUnknown: unknown error); check" in refusal()


def test_libraries_of_cuda_are_missing(fake_cupy):
    def raw_kernel(source, name):
        raise ImportError('Failure finding "libnvrtc.so.13"\nNo such file')

    fake_cupy.RawKernel = raw_kernel
    message = refusal()
    assert "CUDA's libraries are not complete (ImportError: Failure finding" in message
    assert "pip install 'cupy-cuda13x[ctk]'" in message


def test_a_device_that_computes_wrongly_is_refused(fake_cupy):
    fake_cupy.ones = lambda shape, dtype: StrictArray(np.zeros(shape, dtype))
    assert "device 0 computes wrongly" in refusal()


def test_an_old_cupy_is_refused(fake_cupy):
    fake_cupy.__version__ = "13.6.0"
    assert "CuPy 13.6.0 is too old; version 14 or newer is needed" in refusal()


def test_an_import_that_fails_is_told_from_one_that_is_not_there(fake_cupy, monkeypatch):
    import_module = importlib.import_module

    def fails(name, package=None):
        if name == "cupy":
            raise ImportError("libcudart.so.13: cannot open shared object file")
        return import_module(name, package)

    monkeypatch.setattr(importlib, "import_module", fails)
    assert "CuPy is installed but not importable (ImportError: libcudart.so.13" in refusal()


@pytest.mark.parametrize("device", ["x", "-1", "1.5", "²"])
def test_a_device_is_a_number(fake_cupy, device):
    assert f"expected the number of a device, as in 'cupy:1', got {device!r}" in refusal(f"cupy:{device}")


def test_a_device_that_is_not_there(fake_cupy):
    assert "there is no device 3: CUDA sees 1, numbered from 0" in refusal("cupy:3")


# -- the backend's own code --------------------------------------------------------------------------------------------


@pytest.fixture
def with_kernel(fake_cupy, philox):
    """The stand-in launches the Philox kernel on the CPU."""

    def raw_kernel(source, name):
        def launch(grid, block, arguments):
            if name == philox_cuda.NAME:
                out, *numbers = arguments
                philox(*grid, *block, out._data.ctypes.data, *map(int, numbers))

        return launch

    fake_cupy.RawKernel = raw_kernel
    # The stand-in's arrays are the strict backend's, whose type is taken.
    registry.BACKEND_BY_TYPE.pop(StrictArray, None)
    fake_cupy.ndarray = StrictArray
    return fake_cupy


def test_the_backend_conforms_on_the_stand_in(with_kernel, monkeypatch):
    monkeypatch.setattr(StrictArray, "device", FakeDevice(0), raising=False)
    backend = get_backend("cupy")
    assert backend is get_backend("cupy:0") is get_backend("auto")
    assert backend.memory() == {"used": 512, "held": 1024, "free": 3072, "total": 4096}
    assert backend.describe()["device"] == "Pretended GPU"
    assert (backend.describe()["cuda_runtime"], backend.describe()["cuda_driver"]) == ("13.2", "13.0")
    check_backend(backend)


def test_every_device_is_a_backend_and_makes_arrays_on_itself(with_kernel, monkeypatch):
    with_kernel.cuda.runtime.getDeviceCount = lambda: 2
    first, second = get_backend("cupy:0"), get_backend("cupy:1")
    assert (first.name, second.name) == ("cupy:0", "cupy:1")
    assert first.shares_array_type
    second.asarray([1.0])
    assert FakeDevice.current == 1
    first.bits(0, 0, 3)
    assert FakeDevice.current == 0
    second.memory()
    assert FakeDevice.current == 0
    x = first.asarray([1.0])
    monkeypatch.setattr(StrictArray, "device", FakeDevice(1), raising=False)
    assert registry.backend_of(x) is second


# -- the kernel --------------------------------------------------------------------------------------------------------

CARRIES = [0, 5, 2**64 - 3, 2**128 - 2, 2**192 - 2, random.COUNTERS - 2]


@pytest.mark.parametrize("counter", CARRIES)
@pytest.mark.parametrize("key", [0, 7, random.KEYS - 1, 0x1234567890ABCDEF << 64 | 0xFEDCBA0987654321])
def test_the_philox_kernel_makes_numpys_words(philox, key, counter):
    first = random.split_words((counter + 1) % random.COUNTERS, 4).tolist()
    for n, blocks, threads in ((1, 1, 1), (7, 1, 32), (1001, 2, 32), (64, 3, 8)):
        out = np.full(n + 1, 99, np.uint64)
        philox(blocks, threads, out.ctypes.data, n, *random.split_words(key, 2).tolist(), *first)
        assert out[:n].tolist() == random.bits(key, counter, n).tolist()
        assert out[n] == 99  # nothing is written behind the end


# -- retrograd doctor --gpu --------------------------------------------------------------------------------------------


class FakeStream:
    """A CUDA stream that runs what it captures."""

    ptr = 0

    def __init__(self, non_blocking=False):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def synchronize(self):
        pass

    def begin_capture(self):
        pass

    def end_capture(self):
        return types.SimpleNamespace(launch=lambda stream: None)


@pytest.fixture
def with_graphs(with_kernel, monkeypatch):
    """The stand-in captures graphs and measures times, well enough to run the probes."""
    event = types.SimpleNamespace(record=lambda: None, synchronize=lambda: None)
    vars(with_kernel.cuda).update(
        Device=lambda number=0: FakeDevice(number),
        Stream=FakeStream,
        Event=lambda: event,
        get_elapsed_time=lambda begun, ended: 1.0,
        MemoryPool=lambda base: types.SimpleNamespace(malloc=base),
        using_allocator=lambda allocate: FakeStream(),
    )
    with_kernel.ElementwiseKernel = lambda *text: lambda x, y, out: with_kernel.add(x, y, out=out)
    monkeypatch.setattr(StrictArray, "device", FakeDevice(0), raising=False)
    # A CPU is too slow for the sizes that a GPU is asked for.
    monkeypatch.setattr(gpu_probes, "PRODUCTS", (("float32", (4, 4), (4, 4)), ("nonsense", (2, 2), (2, 2))))
    monkeypatch.setattr(gpu_vendor, "MODULES", ("json", "no_such_module"))
    small = {name: lambda backend: {} for name in ("memory", "random", "cublaslt", "host_cost")}
    monkeypatch.setattr(gpu_doctor, "PROBES", gpu_doctor.PROBES | small)
    return with_kernel


def test_the_examination_writes_one_report(with_graphs, tmp_path, capsys):
    file = tmp_path / "gpu.json"
    assert doctor.main(["--gpu", "--out", str(file)]) == 0
    assert "cupy:0 passes all" in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["backend"] == "cupy:0"
    assert set(found["conformance"]["result"].values()) == {None}
    assert found["capture"]["result"]["our uniform"] == "replay equals eager"
    assert found["matrix_products"]["result"]["float32 (4, 4) @ (4, 4)"] >= 0
    assert "TypeError" in found["matrix_products"]["result"]["nonsense (2, 2) @ (2, 2)"]
    assert "ModuleNotFoundError" in found["libraries"]["result"]["no_such_module"]
    # What is not installed is an entry, not the end.
    for absent in ("cudnn", "nccl", "triton"):
        assert "error" in found[absent]
    assert {"seconds"} <= found["capture"].keys()


def test_a_device_that_does_not_conform_is_reported_and_exit_code_1(with_graphs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cupy_backend.CupyBackend, "scatter_add", lambda self, target, index, value: None)
    file = tmp_path / "gpu.json"
    assert doctor.main(["--gpu", "--out", str(file)]) == 1
    assert "cupy:0 fails 2 of" in capsys.readouterr().err
    assert "expected" in json.loads(file.read_text())["conformance"]["result"]["scatter_add_of_every_dtype"]


def test_a_report_that_cannot_be_written_is_told_before_the_examination(with_graphs, tmp_path, capsys):
    assert doctor.main(["--gpu", "--out", str(tmp_path / "missing" / "gpu.json")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_costs_and_rates_are_measured_on_the_stand_in(with_graphs, monkeypatch):
    backend = get_backend("cupy")
    monkeypatch.setattr(gpu_probes, "_cost", lambda backend, call: call() is None)
    costs = gpu_probes.host_cost(backend)
    assert costs.keys() >= {"add", "matmul, out", "kernel in a graph of 200"}
    assert costs["kernel in a graph of 200"]["done"] >= 0


# -- with CuPy installed, GPU or not -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def real_cupy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("cupy")


def test_the_table_of_names_is_that_of_cupy(real_cupy):
    table = cupy_surface.load()
    if real_cupy.__version__ != table["cupy"]:
        pytest.skip(f"the table is of CuPy {table['cupy']}, {real_cupy.__version__} is installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert cupy_surface.describe(real_cupy) == table


@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_the_philox_kernel_compiles(real_cupy, architecture):
    compiler = pytest.importorskip("cupy.cuda.compiler")
    program = compiler._NVRTCProgram(philox_cuda.SOURCE, "philox.cu", (), (), name_expressions=None, method="cubin")
    try:
        binary, _ = program.compile(("-std=c++17", f"-arch=sm_{architecture}"))
    except RuntimeError as error:
        if "DynamicLib" not in type(error).__name__:
            raise
        pytest.skip(f"no NVRTC: {error}")
    assert philox_cuda.NAME.encode() in binary


def test_an_installed_cupy_is_usable_or_says_in_one_line_why_not(real_cupy):
    reason = registry.discover()["cupy"]
    if reason is None:
        assert get_backend("cupy").name == "cupy:0"
    else:
        assert "\n" not in reason
        assert "not installed" not in reason
