"""The training loop: batches to gradients to steps, and the moments at which something else happens.

`Trainer.fit` below is all of it, and `_counted_step` is what a step is. The rest is evaluating, and the numbers that
say where the run is.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from ..autograd_core.context import current_backend
from ..autograd_core.errors import one_frame
from ..autograd_core.operations.random import manual_seed
from ..autograd_core.tensor import Tensor
from ..backends import Backend
from ..nn.module import Module
from ..optim import Optimizer, clip_grad_norm_
from ..optim.lr_scheduler import LRScheduler
from . import evaluation
from .batches import as_tensors, groups, outputs_of
from .callbacks import Callback, Checkpoints, Schedule
from .history import History
from .logs import Log, log_to
from .progress import Progress
from .replay import Replayed

Path = str | os.PathLike[str]

_PLACE = ("step", "epoch", "position", "loss_sum", "loss_count", "validated_at", "rate", "grad_norm", "seconds")


class Loader(Protocol):
    """What gives the batches: a DataLoader, a list of batches, or anything that can be iterated anew for each epoch.

    One with `state_dict()` and `load_state_dict()` says itself where it is; of any other the batches that were used are
    passed over when a run is resumed, so it must give the same ones again.
    """

    def __iter__(self) -> Iterator[Any]: ...


class Trainer:
    """Trains a model, evaluates it, and predicts with it.

    Args:
        model: changed in place.
        optimizer: over the model's parameters, or some of them.
        loss: `loss(model, batch)` gives the loss, a 0-d Tensor, or (loss, outputs) where metrics need the outputs, or
            (loss, outputs, targets) where the targets are not the last entry of a tuple or the "labels" of a dict.
            `rg.train.supervised(F.cross_entropy)` makes one.
        schedule: a learning-rate schedule, stepped after each step; `rg.train.Schedule(schedule, every="epoch")`.
        metrics: functions of (outputs, targets) of a whole validation set, or, where the first parameter is called
            `loss`, of the mean loss; a dict gives them other names than their own.
        clip_grad_norm: scale the gradients so that their norm is at most this.
        accumulate: batches whose gradients make one step; their mean is what the step follows.
        compile: run steps as compiled programs; where that is not possible they run eagerly, after one warning.
        callbacks: see `rg.train.Callback`.
        log: where rows go, one or several: "run.csv", "run.jsonl", or a folder for TensorBoard; see `rg.train.logs`.
        log_every: steps between two rows; None makes rows at validations and ends of epochs only.
        checkpoints: a folder in which to save the run at each epoch's end, or `rg.train.Checkpoints(folder, every=…)`.
        progress: a bar where there is a terminal and tqdm, else a line per row; False for silence.
        seed: of what the model draws in training, such as dropout; None goes on with the default generator as it is.
    Raises:
        TypeError, ValueError: an argument of another kind, or out of range.

    Example:
        >>> import numpy as np
        >>> import retrograd as rg
        >>> x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
        >>> loader = rg.data.DataLoader(rg.data.ArrayDataset(x, 3 * x), batch_size=16, shuffle=True)
        >>> model = rg.nn.Linear(1, 1)
        >>> optimizer = rg.optim.SGD(model.parameters(), lr=0.2)
        >>> loss = rg.train.supervised(rg.nn.functional.mse_loss)
        >>> trainer = rg.train.Trainer(model, optimizer, loss, progress=False)
        >>> history = trainer.fit(loader, epochs=20)
        >>> len(history["loss"]), bool(history["loss"][-1] < 1e-3), trainer.predict(loader).shape
        (20, True, (64, 1))
    """

    @one_frame
    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        loss: evaluation.Loss,
        *,
        schedule: LRScheduler | Callback | None = None,
        metrics: Sequence[evaluation.Metric] | Mapping[str, evaluation.Metric] = (),
        clip_grad_norm: float | None = None,
        accumulate: int = 1,
        compile: bool = True,
        callbacks: Sequence[Callback] = (),
        log: Path | Log | Sequence[Path | Log] = (),
        log_every: int | None = None,
        checkpoints: Path | Checkpoints | None = None,
        progress: bool = True,
        seed: int | None = None,
    ) -> None:
        _check(model, optimizer, loss, accumulate, log_every, clip_grad_norm)
        _check_callbacks(callbacks)
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.clip_grad_norm, self.accumulate, self.log_every, self.seed = clip_grad_norm, accumulate, log_every, seed
        self.metrics = evaluation.named(metrics)
        self.callbacks: list[Callback] = [
            *([Schedule(schedule)] if isinstance(schedule, LRScheduler) else [schedule] if schedule else []),
            *callbacks,
            *[log_to(target) for target in ([log] if isinstance(log, (str, os.PathLike, Log)) else log)],
            *([Progress()] if progress else []),
            *([] if checkpoints is None else [_checkpoints(checkpoints)]),
        ]
        self.history = History()
        self.step = self.epoch = 0
        self.loss_value: float | None = None  # of the last step
        self.grad_norm: float | None = None
        self.rate = float(optimizer.param_groups[0]["lr"])
        self.seconds = 0.0
        self.train_loader: Any = None
        self.validation: Any = None
        self.stopped: str | None = None
        self.total_steps: int | None = None
        self.position = 0  # batches of this epoch that were used
        self.validated_at = 0  # the step of the last validation
        self.loss_sum, self.loss_count = 0.0, 0  # of the steps since the last row
        self._go_on = False  # in the middle of an epoch
        self._step = Replayed(self._gradients, compile)

    # -- training -----------------------------------------------------------------------------------------------------

    @one_frame
    def fit(
        self,
        train: Loader,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        validation: Loader | None = None,
        validate_every: int | None = None,
        resume: bool | Path = False,
    ) -> History:
        """Train until the run has made so many epochs or steps, counted from its beginning, whichever comes first.

        Args:
            train: the batches. validation: those that are evaluated beside them.
            validate_every: steps between two validations; None validates after each epoch. The end is always validated.
            resume: True goes on from the newest whole checkpoint of the run's folder, or begins where there is none
                yet; a path goes on from that checkpoint. The same call then ends with the same bits, and the same rows
                but for `seconds`, as one that was never interrupted.
        Returns:
            The history of the whole run.
        Raises:
            ValueError: no end was named, or a loader without batches.
            FloatingPointError: the loss became infinite or NaN.
            CheckpointError: a checkpoint could not be written, or the one to resume from does not fit.
        """
        self._begin(train, epochs, steps, validation, validate_every, resume)
        try:
            for callback in sorted(self.callbacks, key=lambda callback: isinstance(callback, Log)):
                callback.on_fit_start(self)  # logs last: an earlier run's is not overwritten where another refuses
            while not self._finished(epochs, steps):
                for group in groups(self._batches(train), self.accumulate):
                    self._counted_step(group)
                    self._report_if_due(validate_every)
                    self._tell("on_step_end")
                    if self._finished(epochs, steps):
                        break
                else:
                    self._report(validate=validate_every is None)
                    self._next_epoch()
                    self._tell("on_epoch_end")
            self._report(validate=True)
            self._tell("on_fit_end")
        finally:
            for callback in self.callbacks:
                callback.close()
        return self.history

    def _counted_step(self, group: list[Any]) -> None:
        """The gradients of each batch, added up, and the optimizer's step against them."""
        start = time.perf_counter()
        losses, norm = [], None
        for number, batch in enumerate(group, 1):
            loss, norm = self._step(as_tensors(batch), 1 / len(group), number == len(group))
            losses.append(loss.item())
        self.step += 1
        self.position += len(group)
        self.loss_value = sum(losses) / len(losses)
        self.loss_sum, self.loss_count = self.loss_sum + self.loss_value, self.loss_count + 1
        self.grad_norm = None if norm is None else norm.item()
        self.rate = float(self.optimizer.param_groups[0]["lr"])
        self.seconds += time.perf_counter() - start
        if not math.isfinite(self.loss_value):
            raise FloatingPointError(
                f"the loss is {self.loss_value} at step {self.step}, in epoch {self.epoch + 1}: try a lower learning "
                "rate, a warm-up, or clip_grad_norm=1.0; with compile=False, rg.detect_anomaly() finds the operation"
            )

    def _gradients(self, batch: Any, share: float, last: bool) -> tuple[Tensor, Tensor | None]:
        """What is compiled. It begins and ends a step without gradients, so that all steps have one signature."""
        loss, _, _ = evaluation.parts(self.loss(self.model, batch))
        (loss if share == 1 else loss * share).backward()
        if not last:
            return loss, None
        norm = None
        if self.clip_grad_norm is not None:
            norm = clip_grad_norm_(self.parameters(), self.clip_grad_norm)
        self.optimizer.step()
        self._clear()
        return loss, norm

    def _clear(self) -> None:
        self.optimizer.zero_grad()
        self.model.zero_grad()  # also of what the optimizer does not train

    def parameters(self) -> list[Tensor]:
        """What the optimizer trains."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def stop(self, reason: str = "asked to") -> None:
        """End `fit` after this step; for callbacks."""
        self.stopped = reason

    # -- reports ------------------------------------------------------------------------------------------------------

    @property
    def columns(self) -> list[str]:
        """The columns of this run's rows."""
        found = ["step", "epoch", "loss", "lr"] + ["grad_norm"] * (self.clip_grad_norm is not None)
        if self.validation is not None:
            found += [f"val_{name}" for name in ("loss", *self.metrics)]
        return list(dict.fromkeys([*found, *self.history.columns, "seconds"]))

    def _report_if_due(self, validate_every: int | None) -> None:
        validate = validate_every is not None and self.step % validate_every == 0
        if validate or (self.log_every is not None and self.step % self.log_every == 0):
            self._report(validate)

    def _report(self, validate: bool) -> None:
        """Add a row, with a validation if that is asked for; none where there is nothing new to tell."""
        validation = self.validation if validate and self.validated_at != self.step else None
        if validation is None and not self.loss_count:
            return
        row: dict[str, Any] = dict.fromkeys(self.columns)
        row.update(step=self.step, epoch=self.epoch + (self.position > 0), lr=self.rate, seconds=self.seconds)
        if self.loss_count:
            row["loss"] = self.loss_sum / self.loss_count
        if self.clip_grad_norm is not None:
            row["grad_norm"] = self.grad_norm
        if validation is not None:
            row.update({f"val_{name}": value for name, value in self.evaluate(validation).items()})
            self.validated_at = self.step
        self.loss_sum, self.loss_count = 0.0, 0
        self.history.rows.append(row)
        self._tell("on_row", row)

    # -- evaluating ---------------------------------------------------------------------------------------------------

    @one_frame
    def evaluate(self, loader: Loader) -> dict[str, float]:
        """The mean loss over all samples, and the metrics, in evaluation mode: {"loss": 0.3, "accuracy": 0.9}.

        Where `loss` returns whole numbers as targets, it is the mean over all of those that are not -100, so that a
        text counts by its tokens and not by its batches.
        """
        return evaluation.evaluate(self.model, self.loss, loader, self.metrics)

    @one_frame
    def predict(self, loader: Loader, forward: Callable[[Any, Any], Any] = outputs_of) -> Any:
        """The model's outputs for all batches, one NumPy array (or a nest of them), in evaluation mode.

        Args:
            loader: its batches may have a target, the last of several entries or "labels", which is left out.
            forward: `forward(model, batch)` for batches of another form.
        """
        return evaluation.predict(self.model, loader, forward)

    # -- where the run is ---------------------------------------------------------------------------------------------

    def place(self) -> dict[str, Any]:
        """Counters and sums, for a checkpoint."""
        return {name: getattr(self, name) for name in _PLACE}

    def go_to(self, place: Mapping[str, Any]) -> None:
        """Take over what `place` gave."""
        for name in _PLACE:
            setattr(self, name, place[name])
        self._go_on = True

    def loaders(self) -> dict[str, Any]:
        """The loaders of this fit, by their part in it."""
        both = {"train": self.train_loader, "validation": self.validation}
        return {name: loader for name, loader in both.items() if loader is not None}

    def backend(self) -> Backend:
        """Where the model computes."""
        return next((p.backend for p in self.model.parameters()), None) or current_backend()

    def _begin(
        self,
        train: Loader,
        epochs: int | None,
        steps: int | None,
        validation: Loader | None,
        validate_every: int | None,
        resume: bool | Path,
    ) -> None:
        _check_fit(train, epochs, steps, validation, validate_every)
        if self.position and self.train_loader is train:  # a fit before this one ended in the middle of an epoch
            self._go_on = True
            if hasattr(train, "load_state_dict"):
                train.load_state_dict(train.state_dict())  # type: ignore[attr-defined]
        self.train_loader, self.validation, self.stopped = train, validation, None
        known = [n for n in (steps, epochs and _steps_of(train, epochs, self.accumulate)) if n]
        self.total_steps = min(known, default=None)
        if self.seed is not None and not self.step:
            manual_seed(self.seed)
        if resume is not False:
            from .state import restore, to_resume

            checkpoint = to_resume(self, resume)
            if checkpoint is not None:
                restore(self, checkpoint)
        if not self._go_on:
            self.position = 0
        self.model.train()
        self._clear()

    def _batches(self, train: Any) -> Iterable[Any]:
        """The batches of this epoch that were not used yet."""
        used, self._go_on = self.position if self._go_on else 0, False
        return train if hasattr(train, "state_dict") else islice(train, used, None)

    def _next_epoch(self) -> None:
        if not self.position:
            raise ValueError("the training loader gave no batch")
        self.epoch, self.position = self.epoch + 1, 0

    def _finished(self, epochs: int | None, steps: int | None) -> bool:
        return (
            self.stopped is not None
            or (epochs is not None and self.epoch >= epochs)
            or (steps is not None and self.step >= steps)
        )

    def _tell(self, moment: str, *details: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, moment)(self, *details)


# -- arguments --------------------------------------------------------------------------------------------------------


def _checkpoints(target: Path | Checkpoints) -> Checkpoints:
    return target if isinstance(target, Checkpoints) else Checkpoints(target)


def _steps_of(train: Any, epochs: int, accumulate: int) -> int | None:
    return epochs * -(-len(train) // accumulate) if hasattr(train, "__len__") else None


def _check(model: Any, optimizer: Any, loss: Any, accumulate: Any, log_every: Any, clip: Any) -> None:
    for name, value, kind in (("model", model, Module), ("optimizer", optimizer, Optimizer)):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}")
    if not callable(loss):
        raise TypeError(f"loss must be a function of (model, batch), got {type(loss).__name__}")
    own = {id(parameter) for parameter in model.parameters()}
    if own and own.isdisjoint(id(parameter) for group in optimizer.param_groups for parameter in group["params"]):
        raise ValueError(
            "the optimizer has none of the model's parameters: make it of model.parameters(), after the model is as it "
            "is to be trained"
        )
    for name, value in (("accumulate", accumulate), ("log_every", log_every)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip_grad_norm must be above 0, got {clip!r}")


def _check_callbacks(callbacks: Any) -> None:
    if isinstance(callbacks, Callback):
        raise TypeError(f"callbacks is a list, got a single {type(callbacks).__name__}: write callbacks=[…]")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            mend = ": write it with parentheses" if isinstance(callback, type) else ""
            raise TypeError(f"a callback is an instance of a subclass of rg.train.Callback, got {callback!r:.80}{mend}")


def _check_fit(train: Any, epochs: Any, steps: Any, validation: Any, validate_every: Any) -> None:
    if epochs is None and steps is None:
        raise ValueError("say how long: fit(loader, epochs=…) or fit(loader, steps=…)")
    for name, value in (("epochs", epochs), ("steps", steps), ("validate_every", validate_every)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if not isinstance(train, Iterable) or isinstance(train, Iterator):
        raise TypeError(
            f"the training loader must be iterable anew for each epoch, got {type(train).__name__}: pass a DataLoader "
            "or a list of batches"
        )
    if validation is train:
        raise ValueError("the validation loader is the training loader itself: make a second one, not shuffled")
