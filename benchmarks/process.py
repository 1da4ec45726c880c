"""The parent's end of a peer's process: start, ask, let it sleep while another is timed, end for certain."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .adapters import ADAPTERS, PLAIN
from .machine import THREAD_VARIABLES

HERE = Path(__file__).resolve().parent
PATIENCE = 300.0
"""Seconds after which a peer that has not answered is given up; none should need a tenth of it."""


class PeerError(RuntimeError):
    """A peer could not do what it was asked; `missing` if because its library is not installed."""

    def __init__(self, peer: str, text: str, missing: bool = False):
        super().__init__(text)
        self.peer, self.missing = peer, missing


class PeerProcess:
    """One peer, asleep whenever it is not asked.

    Asleep means stopped by a signal: a thread pool at rest spins for a while, and would take the cores of the other.
    """

    def __init__(self, peer: str, threads: int, patience: float = PATIENCE, extra: Mapping[str, str] | None = None):
        self.peer, self.patience = peer, patience
        environment = {**ADAPTERS.get(peer, PLAIN).environment, **(extra or {})}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        self._process = subprocess.Popen(
            # -P: the folder of a script is not searched for modules, so a workload file cannot hide a library.
            [sys.executable, "-P", str(HERE / "child.py"), peer, str(HERE / "adapters.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | environment,
            # Its own group: Ctrl-C comes to the parent alone, and signals reach workers that the peer starts.
            start_new_session=True,
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._asleep = self._ended = False
        self.prepared: tuple[Any, Any] = (None, None)
        """What it was last asked to prepare, and what its first steps gave: it need not do so again."""

    @property
    def pid(self) -> int:
        """The number of the process, which is that of its group too."""
        return self._process.pid

    def ask(self, do: str, **arguments: Any) -> Any:
        """Wake the peer, let it answer one request, and put it to sleep again.

        Raises PeerError if it reports an error, ends, or does not answer in time; in the latter two it is ended.
        """
        self._wake()
        try:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # its end is told below
                self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
                self._process.stdin.flush()
            line = self._answers.get(timeout=self.patience)
        except queue.Empty:
            self.end()
            raise PeerError(self.peer, f"no answer for {self.patience:.0f} s") from None
        if line is None:
            raise PeerError(self.peer, self._last_words())
        self._sleep()
        reply = json.loads(line)
        if "error" in reply:
            raise PeerError(self.peer, reply["error"], reply.get("missing", False))
        return reply["value"]

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self._process.poll() is None

    def end(self) -> None:
        """Kill the process and those that it started. A stopped one dies too. Calling it twice does no harm."""
        if self._ended:
            return  # the number may belong to a stranger by now
        self._ended = True
        self._signal("SIGKILL")
        with contextlib.suppress(OSError):
            self._process.kill()  # where there are no process groups
        self._process.wait()
        for stream in (self._process.stdin, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._answers.put(line)
        self._answers.put(None)

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(words) if line.strip()), "")
        self.end()
        return f"its process ended with code {code}" + (f": {last}" if last else "")

    def _sleep(self) -> None:
        self._signal("SIGSTOP")
        self._asleep = True

    def _wake(self) -> None:
        if self._asleep:
            self._signal("SIGCONT")
            self._asleep = False

    def _signal(self, name: str) -> None:
        # A system without the signal, or without groups, lets the peers spin.
        if hasattr(signal, name) and hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, getattr(signal, name))


class Peers:
    """The living peers of a workload, one process for each library and number of threads."""

    def __init__(self, patience: float = PATIENCE):
        self._patience = patience
        self._living: dict[tuple[str, int], PeerProcess] = {}

    def get(self, peer: str, threads: int) -> PeerProcess:
        """The process of that peer, started if there is none or the last one is dead."""
        found = self._living.get((peer, threads))
        if found is None or not found.alive:
            if found is not None:
                found.end()
            found = self._living[peer, threads] = PeerProcess(peer, threads, self._patience)
        return found

    def fresh(self, peer: str, threads: int, extra: Mapping[str, str]) -> PeerProcess:
        """A process that has done nothing yet, in place of the one that there may be."""
        if (peer, threads) in self._living:
            self._living[peer, threads].end()
        found = self._living[peer, threads] = PeerProcess(peer, threads, self._patience, extra)
        return found

    def end(self) -> None:
        """End every process."""
        for process in self._living.values():
            process.end()


@contextlib.contextmanager
def peers(patience: float = PATIENCE) -> Iterator[Peers]:
    """A set of peers that are gone when the block is left, by an error or Ctrl-C too."""
    made = Peers(patience)
    try:
        yield made
    finally:
        made.end()
