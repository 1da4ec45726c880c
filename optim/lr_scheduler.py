"""Learning rates that change with time, under PyTorch's names. Each schedule is a formula in the number of steps.

    for batch in loader:
        ...
        optimizer.step()
        schedule.step()

Because the rate is computed from the step and not from the last rate, a schedule that is loaded or run anew gives the
same numbers, bit for bit.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..autograd_core.context import current
from ..autograd_core.errors import one_frame
from .optimizer import Optimizer


class LRScheduler:
    """Base class: a subclass writes `rate(step, base, group)`, the learning rate after `step` steps.

    Making a schedule sets the rate of step 0. `base` is what the group's rate was when its first schedule was made; it
    stays in the group as "initial_lr". One schedule at a time drives an optimizer: SequentialLR joins several.

    >>> import retrograd as rg
    >>> class Halving(rg.optim.lr_scheduler.LRScheduler):
    ...     def rate(self, step, base, group):
    ...         return base / 2**step
    >>> opt = rg.optim.SGD([rg.tensor(0.0, requires_grad=True)], lr=1.0)
    >>> schedule = Halving(opt)
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
    """

    @one_frame
    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"a schedule takes an Optimizer, got {type(optimizer).__name__}")
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.optimizer = optimizer
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch + 1
        self._set()

    def rate(self, step: int, base: float, group: int) -> float:
        """The learning rate of group number `group` after `step` steps."""
        raise NotImplementedError

    def step(self) -> None:
        """One step on: after each `optimizer.step()`, or after each epoch, as the schedule's numbers are meant."""
        recorder = current().recorder
        if recorder is not None:
            recorder.host(self._advance)
        self._advance()

    def host_state(self) -> Any:
        """The place, and the options of all groups, so that calls which shall leave no trace can put them back."""
        return self.last_epoch, [dict(group) for group in self.optimizer.param_groups]

    def restore_host_state(self, state: Any) -> None:
        """Put back what `host_state` gave."""
        self.last_epoch, groups = state
        for group, before in zip(self.optimizer.param_groups, groups, strict=True):
            group.update(before)

    def _advance(self) -> None:
        self.last_epoch += 1
        self._set()

    def get_last_lr(self) -> list[float]:
        """The rates that hold now, one per group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on from here: numbers and lists of numbers alone, fit for JSON."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    @one_frame
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the schedule stood that gave `state`; sets the rates."""
        if set(state) != set(self.state_dict()):
            raise ValueError(
                f"{type(self).__name__} needs {sorted(self.state_dict())}, the state holds {sorted(state)}"
            )
        if len(state["base_lrs"]) != len(self.optimizer.param_groups):
            raise ValueError(
                f"the state is of {len(state['base_lrs'])} parameter groups, the optimizer has "
                f"{len(self.optimizer.param_groups)}"
            )
        self.last_epoch, self.base_lrs = int(state["last_epoch"]), [float(b) for b in state["base_lrs"]]
        self._set()

    def _set(self) -> None:
        for number, (group, base) in enumerate(zip(self.optimizer.param_groups, self.base_lrs, strict=True)):
            group["lr"] = self.rate(self.last_epoch, base, number)


class LambdaLR(LRScheduler):
    """The first rate times `lr_lambda(step)`; one function for all groups, or one for each.

    >>> import retrograd as rg
    >>> opt = rg.optim.SGD([rg.tensor(0.0, requires_grad=True)], lr=1.0)
    >>> schedule = rg.optim.lr_scheduler.LambdaLR(opt, lambda step: 0.5**step)
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
    """

    @one_frame
    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ):
        groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ValueError(f"expected one function for each of the {groups} groups, got {len(self.lr_lambdas)}")
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int) -> float:
        return base * self.lr_lambdas[group](step)


class StepLR(LRScheduler):
    """The rate times gamma after every `step_size` steps.

    >>> import retrograd as rg
    >>> opt = rg.optim.SGD([rg.tensor(0.0, requires_grad=True)], lr=1.0)
    >>> schedule = rg.optim.lr_scheduler.StepLR(opt, step_size=2, gamma=0.5)
    >>> rates = []
    >>> for _ in range(5):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    @one_frame
    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1):
        self.step_size, self.gamma = _positive("step_size", step_size), gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int) -> float:
        return base * self.gamma ** (step // self.step_size)


class LinearLR(LRScheduler):
    """The rate times a factor that goes from start_factor to end_factor in `total_iters` steps and stays there.

    >>> import retrograd as rg
    >>> opt = rg.optim.SGD([rg.tensor(0.0, requires_grad=True)], lr=1.0)
    >>> schedule = rg.optim.lr_scheduler.LinearLR(opt, start_factor=0.5, total_iters=2)
    >>> rates = []
    >>> for _ in range(4):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [0.5, 0.75, 1.0, 1.0]
    """

    @one_frame
    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ):
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(f"factors lie in 0…1 and the first is above 0, got {start_factor} and {end_factor}")
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = _positive("total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int) -> float:
        share = min(step, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * share)


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the first rate down to eta_min in `T_max` steps, and back up in as many.

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.

    >>> import retrograd as rg
    >>> opt = rg.optim.SGD([rg.tensor(0.0, requires_grad=True)], lr=1.0)
    >>> schedule = rg.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=2)
    >>> for _ in range(2):
    ...     schedule.step()
    >>> schedule.get_last_lr()
    [0.0]
    """

    @one_frame
    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1):
        self.T_max, self.eta_min = _positive("T_max", T_max), eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int) -> float:
        return _cosine(base, self.eta_min, step / self.T_max)


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine from the first rate to eta_min in T_0 steps, then from the top again in T_0 · T_mult, and so on.

    >>> import retrograd as rg
    >>> opt = rg.optim.SGD([rg.tensor(0.0, requires_grad=True)], lr=1.0)
    >>> schedule = rg.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=2)
    >>> rates = []
    >>> for _ in range(4):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> [round(rate, 3) for rate in rates]
    [1.0, 0.5, 1.0, 0.5]
    """

    @one_frame
    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1):
        self.T_0, self.T_mult, self.eta_min = _positive("T_0", T_0), _positive("T_mult", T_mult), eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int) -> float:
        length = self.T_0
        while step >= length:
            step, length = step - length, length * self.T_mult
        return _cosine(base, self.eta_min, step / length)


class WarmupCosineLR(LRScheduler):
    """From 0 to the first rate in a straight line, then half a cosine down to eta_min, where it stays.

    Args:
        warmup_steps: how many steps the rate rises. total_steps: when it has come down.

    >>> import retrograd as rg
    >>> opt = rg.optim.AdamW([rg.tensor(0.0, requires_grad=True)], lr=1.0)
    >>> schedule = rg.optim.lr_scheduler.WarmupCosineLR(opt, warmup_steps=2, total_steps=6)
    >>> rates = []
    >>> for _ in range(6):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> [round(rate, 3) for rate in rates]
    [0.0, 0.5, 1.0, 0.854, 0.5, 0.146]
    """

    @one_frame
    def __init__(
        self, optimizer: Optimizer, warmup_steps: int, total_steps: int, eta_min: float = 0.0, last_epoch: int = -1
    ):
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(f"expected 0 ≤ warmup_steps < total_steps, got {warmup_steps} and {total_steps}")
        self.warmup_steps, self.total_steps, self.eta_min = warmup_steps, total_steps, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int) -> float:
        if step < self.warmup_steps:
            return base * step / self.warmup_steps
        share = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return _cosine(base, self.eta_min, min(share, 1.0))


class SequentialLR(LRScheduler):
    """Several schedules of one optimizer, one after the other: number i runs from milestones[i-1] to milestones[i].

    >>> import retrograd as rg
    >>> from retrograd.optim import lr_scheduler
    >>> opt = rg.optim.SGD([rg.tensor(0.0, requires_grad=True)], lr=1.0)
    >>> parts = [lr_scheduler.LinearLR(opt, 0.5, total_iters=2), lr_scheduler.StepLR(opt, 1, gamma=0.5)]
    >>> schedule = lr_scheduler.SequentialLR(opt, parts, milestones=[2])
    >>> rates = []
    >>> for _ in range(5):
    ...     rates += schedule.get_last_lr()
    ...     schedule.step()
    >>> rates
    [0.5, 0.75, 1.0, 0.5, 0.25]
    """

    @one_frame
    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ):
        if len(milestones) != len(schedulers) - 1 or list(milestones) != sorted(milestones):
            raise ValueError(
                f"{len(schedulers)} schedules need {len(schedulers) - 1} rising milestones, got {milestones}"
            )
        if any(s.optimizer is not optimizer for s in schedulers):
            raise ValueError("all schedules must drive the optimizer that is given")
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int) -> float:
        number = bisect_right(self.milestones, step)
        begun = self.milestones[number - 1] if number else 0
        return self.schedulers[number].rate(step - begun, base, group)


class OneCycleLR(LRScheduler):
    """One rise from max_lr / div_factor to max_lr and one fall far below it, momentum the other way.

    Smith and Topin, "Super-convergence: very fast training of neural networks using large learning rates", 2018.

    Args:
        max_lr: the peak, one number or one per group. It replaces the rate that the optimizer was given.
        total_steps: how many steps the whole takes; or epochs · steps_per_epoch. A step more is an error.
        pct_start: the share of the steps that rises. anneal_strategy: "cos" or "linear".
        cycle_momentum: let momentum (or Adam's β₁) fall from max_momentum to base_momentum while the rate rises.
        final_div_factor: the last rate is the first divided by it. three_phase: fall to the first rate, then below.

    >>> import retrograd as rg
    >>> opt = rg.optim.Adam([rg.tensor(0.0, requires_grad=True)])
    >>> schedule = rg.optim.lr_scheduler.OneCycleLR(opt, max_lr=1.0, total_steps=10)
    >>> for _ in range(2):
    ...     schedule.step()
    >>> round(schedule.get_last_lr()[0], 3), round(opt.param_groups[0]["betas"][0], 3)
    (1.0, 0.85)
    """

    @one_frame
    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ):
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR needs total_steps, or both epochs and steps_per_epoch")
            total_steps = _positive("epochs", epochs) * _positive("steps_per_epoch", steps_per_epoch)
        self.total_steps = _positive("total_steps", total_steps)
        if not 0 <= pct_start <= 1:
            raise ValueError(f"pct_start is a share, in 0…1; got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        self.anneal = _cosine if anneal_strategy == "cos" else _line
        rising = float(pct_start * total_steps) - 1
        if three_phase:
            self.ends = [rising, 2 * rising, total_steps - 1]
        else:
            self.ends = [rising, total_steps - 1]
        count = len(optimizer.param_groups)
        peaks = _per_group("max_lr", max_lr, count)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group.update(initial_lr=peak / div_factor, max_lr=peak, min_lr=peak / div_factor / final_div_factor)
        self.momentum_key = _momentum_key(optimizer) if cycle_momentum else None
        if cycle_momentum:
            lows, highs = (
                _per_group("base_momentum", base_momentum, count),
                _per_group("max_momentum", max_momentum, count),
            )
            for group, low, high in zip(optimizer.param_groups, lows, highs, strict=True):
                group.update(base_momentum=low, max_momentum=high)
        self.three_phase = three_phase
        super().__init__(optimizer, last_epoch)

    def rate(self, step: int, base: float, group: int) -> float:
        options = self.optimizer.param_groups[group]
        top, end = options["max_lr"], options["min_lr"]
        return self._along(step, [base, top, base, end] if self.three_phase else [base, top, end])

    def _along(self, step: int, corners: list[float]) -> float:
        """The value at `step` on the way from corner to corner."""
        if step > self.total_steps:
            raise ValueError(
                f"OneCycleLR was made for {self.total_steps} steps, and this is one more: total_steps (or epochs · "
                "steps_per_epoch) is the number of optimizer steps"
            )
        begun = 0.0
        for end, start_value, end_value in zip(self.ends, corners, corners[1:], strict=False):
            if step <= end or end == self.ends[-1]:
                return self.anneal(start_value, end_value, (step - begun) / (end - begun) if end != begun else 1.0)
            begun = end
        raise AssertionError("the last end is the last step")

    def _set(self) -> None:
        super()._set()
        if self.momentum_key is None:
            return
        for group in self.optimizer.param_groups:
            low, high = group["base_momentum"], group["max_momentum"]
            value = self._along(self.last_epoch, [high, low, high, high] if self.three_phase else [high, low, high])
            group[self.momentum_key] = (value, *group["betas"][1:]) if self.momentum_key == "betas" else value


def _momentum_key(optimizer: Optimizer) -> str:
    for key in ("betas", "momentum"):
        if key in optimizer.defaults:
            return key
    raise ValueError(f"{type(optimizer).__name__} has no momentum to cycle; pass cycle_momentum=False")


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)


def _line(start: float, end: float, share: float) -> float:
    return (end - start) * share + start


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or int(value) != value or value <= 0:
        raise ValueError(f"{name} must be a positive whole number, got {value!r}")
    return int(value)


def _per_group(name: str, value: float | Sequence[float], count: int) -> list[float]:
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)] * count
    if len(values) != count:
        raise ValueError(f"{name} needs one number, or one for each of the {count} groups; got {len(values)}")
    return values
