"""Where rows go beside the history: CSV, JSON lines, TensorBoard.

A log says what the history says. It is written anew when a run begins or is resumed, so that rows which a killed
process wrote after its last checkpoint are gone, and then row by row.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .callbacks import Callback
from .history import Row

if TYPE_CHECKING:
    from .trainer import Trainer


class Log(Callback):
    """Base class: a subclass writes `begin` (all rows so far) and `add` (one more)."""

    def begin(self, columns: list[str], rows: list[Row]) -> None:
        """Start anew with these rows; the columns are those that later rows will have too."""
        raise NotImplementedError

    def add(self, row: Row) -> None:
        """Write one row, so that it is there when this returns."""
        raise NotImplementedError

    def on_fit_start(self, trainer: Trainer) -> None:
        self.begin(trainer.columns, trainer.history.rows)

    def on_row(self, trainer: Trainer, row: Row) -> None:
        self.add(row)


class _TextLog(Log):
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self.file: Any = None
        self.columns: list[str] = []

    def header(self) -> str:
        return ""

    def text(self, row: Row) -> str:
        raise NotImplementedError

    def begin(self, columns: list[str], rows: list[Row]) -> None:
        self.columns = columns
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Aside, then renamed: the log of an interrupted run is not lost where the disk is full.
            part.write_text(self.header() + "".join(map(self.text, rows)), encoding="utf-8", newline="")
            os.replace(part, self.path)
            self.file = open(self.path, "a", encoding="utf-8", newline="")  # noqa: SIM115  closed by close()
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise OSError(error.errno, f"cannot write the log {self.path}: {error.strerror}") from None

    def add(self, row: Row) -> None:
        try:
            self.file.write(self.text(row))
            self.file.flush()
        except OSError as error:
            raise OSError(error.errno, f"cannot write the log {self.path}: {error.strerror}") from None

    def close(self) -> None:
        if self.file is not None:
            with suppress(OSError):  # it would try once more to write what `add` could not
                self.file.close()
            self.file = None


class CsvLog(_TextLog):
    """Rows as comma-separated values, the names in the first line; numbers in full, an empty field for nothing."""

    def header(self) -> str:
        return self._line(self.columns)

    def text(self, row: Row) -> str:
        return self._line(["" if row.get(name) is None else row[name] for name in self.columns])

    @staticmethod
    def _line(values: list[Any]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        return text.getvalue()


class JsonlLog(_TextLog):
    """A JSON object per row and line."""

    def text(self, row: Row) -> str:
        return json.dumps(row) + "\n"


class TensorBoardLog(Log):
    """Rows as scalars for TensorBoard, one curve per column, written by its own library (extra `tensorboard`).

    Args:
        folder: one for each run: `tensorboard --logdir` shows all runs below the folder that it is given.
    Raises:
        ImportError: the package `tensorboard` is not installed.
    """

    _SUFFIX = ".retrograd"  # of our own files; others in the folder are left alone

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser()
        self._writer: Any = None
        self._start = 0.0
        _tensorboard()

    def begin(self, columns: list[str], rows: list[Row]) -> None:
        writer, _, _ = _tensorboard()
        for old in self.folder.glob(f"events.out.tfevents.*{self._SUFFIX}"):
            old.unlink()
        self._writer = writer(str(self.folder), filename_suffix=self._SUFFIX)
        self._start = time.time() - (rows[-1]["seconds"] if rows else 0.0)
        for row in rows:
            self._put(row)
        self._writer.flush()

    def add(self, row: Row) -> None:
        self._put(row)
        self._writer.flush()

    def _put(self, row: Row) -> None:
        _, event, summary = _tensorboard()
        values = [
            summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if value is not None and name not in ("step", "seconds")
        ]
        when = self._start + row["seconds"]
        self._writer.add_event(event(wall_time=when, step=row["step"], summary=summary(value=values)))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _tensorboard() -> tuple[Any, Any, Any]:
    """Its writer of event files, and the two kinds of message that it takes."""
    from importlib import import_module

    try:
        writers = import_module("tensorboard.summary.writer.event_file_writer")
        events = import_module("tensorboard.compat.proto.event_pb2")
        summaries = import_module("tensorboard.compat.proto.summary_pb2")
    except ImportError as error:
        raise ImportError(
            "a log for TensorBoard is written by its own library, which is not installed: pip install "
            "'retrograd[tensorboard]'. A log in run.csv or run.jsonl needs nothing"
        ) from error
    return writers.EventFileWriter, events.Event, summaries.Summary


KINDS: dict[str, Callable[[Any], Log]] = {".csv": CsvLog, ".jsonl": JsonlLog, "": TensorBoardLog}


def log_to(target: str | os.PathLike[str] | Log) -> Log:
    """The log that a path means: by its suffix .csv or .jsonl, else a folder for TensorBoard.

    Raises ValueError for another suffix.
    """
    if isinstance(target, Log):
        return target
    suffix = Path(target).suffix
    if suffix not in KINDS:
        raise ValueError(f"a log is a .csv or .jsonl file or, without a suffix, a folder for TensorBoard; got {target}")
    return KINDS[suffix](target)
