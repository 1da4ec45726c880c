"""What happens beside the steps of a run: a base class with the moments there are, and the callbacks that come with it.

    on_fit_start                      before the first step, after a resumed run was restored
      on_row(row)                     a row was added to the history: every `log_every` steps, and at validations
      on_step_end                     a step was counted
      on_epoch_end                    the loader has come to its end
    on_fit_end                        after the last step; not where the run was broken off by an error
    close                             always, last

Callbacks are called in their order: the schedule, the user's, logs and progress, and at the end the checkpoints, so
that a checkpoint holds what the others made of the step.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .history import Row, better_is

if TYPE_CHECKING:
    from ..optim.lr_scheduler import LRScheduler
    from .trainer import Trainer

Mode = Literal["min", "max"]


class Callback:
    """Base class: write the methods you need. `trainer` has `model`, `optimizer`, `step`, `epoch`, `history`, `stop()`.

    `state_dict()` gives what a resumed run must know, in values that JSON can hold. What a callback did to the model
    beside its values, such as unfreezing a layer, its `load_state_dict` does again.

    Example:
        >>> import retrograd as rg
        >>> class Shout(rg.train.Callback):
        ...     def on_epoch_end(self, trainer):
        ...         print(f"epoch {trainer.epoch} is done!")
    """

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first step."""

    def on_row(self, trainer: Trainer, row: Row) -> None:
        """After a row was added to the history."""

    def on_step_end(self, trainer: Trainer) -> None:
        """After a counted step; `trainer.step` says how many there were."""

    def on_epoch_end(self, trainer: Trainer) -> None:
        """After an epoch; `trainer.epoch` says how many are complete."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last step."""

    def close(self) -> None:
        """Let go of files; also called where the run ends in an error."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""


class Schedule(Callback):
    """Step a learning-rate schedule after each step, or after each epoch, as its numbers are meant.

    Example:
        >>> import retrograd as rg
        >>> optimizer = rg.optim.SGD([rg.tensor(0.0, requires_grad=True)], lr=1.0)
        >>> halving = rg.train.Schedule(rg.optim.lr_scheduler.StepLR(optimizer, 1, 0.5), every="epoch")
    """

    def __init__(self, schedule: LRScheduler, every: Literal["step", "epoch"] = "step") -> None:
        if every not in ("step", "epoch"):
            raise ValueError(f"a schedule is stepped every 'step' or every 'epoch', got {every!r}")
        self.schedule, self.every = schedule, every

    def on_step_end(self, trainer: Trainer) -> None:
        if self.every == "step":
            self.schedule.step()

    def on_epoch_end(self, trainer: Trainer) -> None:
        if self.every == "epoch":
            self.schedule.step()

    def state_dict(self) -> dict[str, Any]:
        return self.schedule.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.schedule.load_state_dict(state)


class Watch:
    """The best value of one column so far."""

    def __init__(self, column: str, mode: Mode | None = None, min_delta: float = 0.0) -> None:
        self.column, self.min_delta = column, min_delta
        self.mode = mode or better_is(column)
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
        self.best: float | None = None

    def check(self, trainer: Trainer) -> None:
        """Refuse a column that no row will have."""
        if self.column not in trainer.columns:
            raise ValueError(
                f"no row of this run has {self.column!r}; the columns are {', '.join(trainer.columns)}. Columns that "
                "begin with val_ need fit(..., validation=loader)."
            )

    def improves(self, row: Row) -> bool | None:
        """Whether the row is the best so far, by more than `min_delta`; None where it does not have the column."""
        value = row.get(self.column)
        if value is None:
            return None
        gain = float("inf") if self.best is None else self.best - value if self.mode == "min" else value - self.best
        if not gain > self.min_delta:  # also where the value is NaN
            return False
        self.best = value
        return True


class EarlyStopping(Callback):
    """Stop when a column has not become better in `patience` rows that have it.

    Args:
        monitor: a column of the history, such as "val_loss" or "val_accuracy".
        patience: how many rows without an improvement are put up with.
        min_delta: how much better a value must be to count.
        mode: "min" or "max"; by default losses and perplexities are to fall, everything else to rise.
    Raises:
        ValueError: no patience; at `fit`, a column that the run does not have.

    Example:
        >>> import retrograd as rg
        >>> patient = rg.train.EarlyStopping("val_accuracy", patience=5, min_delta=1e-3)
    """

    def __init__(
        self, monitor: str = "val_loss", patience: int = 3, min_delta: float = 0.0, mode: Mode | None = None
    ) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        self.watch, self.patience, self.waited = Watch(monitor, mode, min_delta), patience, 0

    def on_fit_start(self, trainer: Trainer) -> None:
        self.watch.check(trainer)
        self._decide(trainer)

    def on_row(self, trainer: Trainer, row: Row) -> None:
        better = self.watch.improves(row)
        if better is not None:
            self.waited = 0 if better else self.waited + 1
            self._decide(trainer)

    def _decide(self, trainer: Trainer) -> None:
        if self.waited >= self.patience:
            trainer.stop(f"{self.watch.column} has not become better than {self.watch.best:.6g} in {self.waited} rows")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.watch.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.watch.best, self.waited = state["best"], state["waited"]


class Checkpoints(Callback):
    """Save all that a run is made of, so that it can go on exactly where it was; keep the last few and the best.

    Args:
        folder: one for each run; made if need be. `folder/step-…-epoch-…` are the checkpoints, each with the weights in
            its `model.safetensors`.
        every: steps between two checkpoints; None saves at the end of each epoch. The last step is always saved, and so
            is each step whose row is the best so far.
        keep: how many of the last ones are kept.
        monitor: the column that says which one is the best, also kept; None for none. "auto" is "val_loss" where there
            is a validation, and none elsewhere.
        mode: "min" or "max", by default as the column's name says.
    Raises:
        ValueError: a number out of range; at `fit`, a column that the run does not have.
        CheckpointError: at `fit`, the folder holds another run; or a checkpoint cannot be written.

    Example:
        >>> import tempfile
        >>> import retrograd as rg
        >>> layer = rg.nn.Linear(2, 1)
        >>> trainer = rg.train.Trainer(
        ...     layer,
        ...     rg.optim.SGD(layer.parameters(), lr=0.1),
        ...     rg.train.supervised(rg.nn.functional.mse_loss),
        ...     checkpoints=rg.train.Checkpoints(folder := tempfile.mkdtemp(), every=2, keep=3),
        ...     progress=False,
        ... )
        >>> _ = trainer.fit([(rg.ones((4, 2)), rg.zeros((4, 1)))], steps=5, resume=True)
        >>> path = rg.train.find_checkpoint(folder, "last")
        >>> path.name, sorted(rg.load(path / "model.safetensors"))
        ('step-00000005-epoch-0004', ['bias', 'weight'])
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every: int | None = None,
        keep: int = 2,
        monitor: str | None = "auto",
        mode: Mode | None = None,
    ) -> None:
        if keep < 1 or (every is not None and every < 1):
            raise ValueError(f"keep and every must be at least 1, got keep={keep} and every={every}")
        self.folder, self.every, self.keep = Path(folder).expanduser(), every, keep
        self.monitor = monitor
        self.mode: Mode | None = mode
        self.watch = None if monitor in (None, "auto") else Watch(monitor, mode)
        self.best_name: str | None = None
        self._saved: tuple[str, int] | None = None  # name and number of rows of the last one
        self._best_is_due = False

    @property
    def best(self) -> Path | None:
        """The checkpoint with the best value of the monitored column so far."""
        return None if self.best_name is None else self.folder / self.best_name

    def on_fit_start(self, trainer: Trainer) -> None:
        from .checkpoint import begin

        if self.monitor == "auto" and self.watch is None and "val_loss" in trainer.columns:
            self.watch = Watch("val_loss", self.mode)
        if self.watch is not None:
            self.watch.check(trainer)
        trainer.optimizer.state_dict(trainer.model)  # a parameter without a name is refused now, not at the first save
        begin(self.folder, fresh=trainer.step == 0)
        if self.best is not None and not self.best.is_dir():  # deleted, or of the folder that the run came from
            self.best_name = None

    def on_row(self, trainer: Trainer, row: Row) -> None:
        self._best_is_due |= self.watch is not None and self.watch.improves(row) is True

    def on_step_end(self, trainer: Trainer) -> None:
        if self._best_is_due or (self.every is not None and trainer.step % self.every == 0):
            self.save(trainer)

    def on_epoch_end(self, trainer: Trainer) -> None:
        if self._best_is_due or self.every is None:
            self.save(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save now, unless this very state is saved."""
        from .checkpoint import name_of, prune, write
        from .state import captured

        name = name_of(trainer.step, trainer.epoch)
        if self._saved == (name, len(trainer.history)):
            return
        if self._best_is_due:
            self.best_name = name
        self._saved, self._best_is_due = (name, len(trainer.history)), False
        write(self.folder, name, *captured(trainer))
        prune(self.folder, self.keep, self.best_name)

    def state_dict(self) -> dict[str, Any]:
        value = None if self.watch is None else self.watch.best
        return {"saved": self._saved, "best": self.best_name, "value": value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._saved, self.best_name = tuple(state["saved"]), state["best"]
        if state["value"] is not None:
            if self.watch is None:
                self.watch = Watch("val_loss", self.mode)
            self.watch.best = state["value"]
