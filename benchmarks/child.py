"""The process of one peer: it prepares a workload, then runs as many steps as it is told and answers with the seconds.

Run by its path with two arguments, the peer's name and the path of `adapters.py`; retrograd is imported only if the
peer is retrograd. One JSON object a line comes in, one goes out; whatever a library prints goes to the error stream.
"""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import shutil
import signal
import sys
import time
import traceback
import zlib
from types import ModuleType
from typing import Any

import numpy as np

FIRST_STEPS = 10


class Absent(Exception):
    """The library is installed, but not what it needs."""


class Peer:
    """What this process knows between two requests: the adapter and the step that was prepared last."""

    def __init__(self, name: str, adapters: ModuleType):
        self.name, self.adapters = name, adapters
        self.adapter = adapters.ADAPTERS.get(name, adapters.PLAIN)
        self.step: Any = None
        self.products: Any = None

    def prepare(self, file: str, size: dict[str, Any], data: str, steps: int) -> dict[str, Any]:
        """Build the step of a workload, run it a few times, and tell what each run gave."""
        self.step = self.products = None
        self.check_needs()
        self.step = load_module(file).PEERS[self.name](size, read(data))
        observed = [self.observe(self.step()) for _ in range(steps)]
        return {"observed": observed, "strangers": self.adapters.strangers(self.name, list(sys.modules))}

    def check_needs(self) -> None:
        """Raise Absent if the library lacks what it needs: a compiler, or a module."""
        needs = self.adapter.needs
        if needs and not shutil.which(needs) and importlib.util.find_spec(needs) is None:
            raise Absent(f"it needs {needs}, which is not there")

    def begin(self, file: str, size: dict[str, Any], data: str, trivial: list[Any]) -> dict[str, Any]:
        """What it costs to begin: seconds of each of the first steps, and by how much the process grows.

        To be asked of a fresh process. `trivial` is (file, size, data) of a small step that is taken first, so that
        what the library loads and makes only once belongs to neither figure.
        """
        self.check_needs()
        small = load_module(trivial[0]).PEERS[self.name](trivial[1], read(trivial[2]))
        for _ in range(FIRST_STEPS):
            small()
        del small
        arrays, module = read(data), load_module(file)
        before = memory(reset=True)
        clock = [time.perf_counter()]
        step = module.PEERS[self.name](size, arrays)
        clock.append(time.perf_counter())
        for _ in range(FIRST_STEPS):
            self.observe(step())
            clock.append(time.perf_counter())
        seconds = np.diff(clock).tolist()
        found: dict[str, Any] = {"seconds": seconds[1:], "bytes": memory() - before}
        if self.adapter.eager:
            eager = module.PEERS[self.adapter.eager](size, arrays)
            found["eager"] = min(timed(eager, warm=0 if i else 1, times=1)[0] for i in range(3))
        return found

    def observe(self, result: Any) -> list[float]:
        """A loss, or a tuple of a loss and gradients, as one number each."""
        items = result if isinstance(result, tuple | list) else (result,)
        return [fingerprint(self.adapter.to_numpy(item)) for item in items]

    def time(self, warm: int, steps: int) -> tuple[float, float]:
        """Seconds for a number of steps, after some that are not timed, and how many of them it waited for a core."""
        return timed(self.step, warm, steps)

    def time_products(self, shapes: list[Any], warm: int, steps: int) -> tuple[float, float]:
        """The same for going through a list of matrix products a number of times."""
        if self.products is None:
            self.products = self.adapter.products(shapes)
        return timed(self.products, warm, steps)

    def bandwidth(self) -> float:
        """Bytes a second that NumPy moves when it copies what no cache holds, read and written ones together."""
        source = np.ones(1 << 24, np.float32)
        target = np.empty_like(source)
        return 2 * source.nbytes / min(timed(lambda: np.copyto(target, source), 1, 1)[0] for _ in range(5))

    def facts(self) -> dict[str, Any]:
        """Threads and numeric library of the peer."""
        return self.adapter.facts()


def timed(call: Any, warm: int, times: int) -> tuple[float, float]:
    """Seconds, and the share of them that was spent waiting. The collector stays on: garbage is part of the cost."""
    for _ in range(warm):
        call()
    waited = waiting()
    start = time.perf_counter()
    for _ in range(times):
        call()
    seconds = time.perf_counter() - start
    return seconds, waiting() - waited


def waiting() -> float:
    """Seconds that threads of this process have been ready to run and had no core. Always 0 where Linux is not."""
    total = 0
    for file in glob.glob("/proc/self/task/*/schedstat"):
        try:
            with open(file, encoding="ascii") as text:
                total += int(text.read().split()[1])
        except (OSError, IndexError):  # the thread has ended, or the kernel does not count
            continue
    return total * 1e-9


def memory(reset: bool = False) -> int:
    """The largest size that the process has had in memory, or since a reset. 0 where the system does not tell."""
    try:
        if reset:
            with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
                file.write("5")
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return 0


def read(path: str) -> dict[str, np.ndarray]:
    """The arrays of a file."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def fingerprint(array: Any) -> float:
    """A number for an array that changes with each element and with their order; a scalar is itself."""
    flat = np.asarray(array, dtype=np.float64).ravel()
    return float(flat @ np.cos(np.arange(flat.size)))


def load_module(path: str) -> ModuleType:
    """The module in a file. `from .neighbour import x` works in it, but its package's `__init__`, which may import what
    must not be imported here, does not run: what stands for the package is an empty module with the same folder."""
    folder, file = os.path.split(os.path.abspath(path))
    package = f"workloads_{zlib.crc32(folder.encode()):x}"
    if package not in sys.modules:
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = [folder]
    spec = importlib.util.spec_from_file_location(f"{package}.{file[:-3]}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def answer(peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked. An error becomes an answer: the next request may well succeed."""
    try:
        return {"value": getattr(peer, request.pop("do"))(**request)}
    except ModuleNotFoundError as error:
        own = peer.adapter.module or error.name
        return {"error": str(error), "missing": error.name == own}
    except Absent as error:
        return {"error": str(error), "missing": True}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return {"error": f"{text} ({os.path.basename(where.filename)}:{where.lineno})"}


def die_with_parent() -> None:
    """Linux: be killed when the parent is gone. A stopped process would otherwise sleep on forever."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main(name: str, adapters: str) -> None:
    """Serve until the parent closes the pipe."""
    die_with_parent()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    peer = Peer(name, load_module(adapters))
    for line in sys.stdin:
        print(json.dumps(answer(peer, json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
