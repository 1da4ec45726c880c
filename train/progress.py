"""What a run shows while it goes: a bar by tqdm on a terminal, else a plain line for each row."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .callbacks import Callback
from .history import Row, line

if TYPE_CHECKING:
    from .trainer import Trainer


class Progress(Callback):
    """A bar where standard error is a terminal and tqdm is installed; otherwise lines on standard output."""

    def __init__(self) -> None:
        self.bar: Any = None

    def on_fit_start(self, trainer: Trainer) -> None:
        self.bar = _bar(trainer.total_steps, trainer.step)
        if trainer.step:
            self._say(f"going on after step {trainer.step}")

    def on_step_end(self, trainer: Trainer) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(f"epoch {trainer.epoch + 1}, loss {trainer.loss_value:.4f}", refresh=False)
            self.bar.update()

    def on_row(self, trainer: Trainer, row: Row) -> None:
        self._say(line(row))

    def on_fit_end(self, trainer: Trainer) -> None:
        if trainer.stopped:
            self._say(f"stopped after step {trainer.step}: {trainer.stopped}")

    def _say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.write(text)
        else:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _bar(total: int | None, done: int) -> Any:
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm  # pyright: ignore[reportMissingModuleSource]
    except ImportError:
        return None
    return tqdm(total=total, initial=done, unit="step", dynamic_ncols=True)
