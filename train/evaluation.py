"""A model on data that it is not trained on: loss and metrics over all batches, or its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..autograd_core.context import no_grad
from ..autograd_core.tensor import Tensor
from ..nn.module import Module
from .batches import as_tensors, joined, on_the_host, size_of, target_of

Loss = Callable[[Any, Any], Any]
Metric = Callable[..., Any]
IGNORED = -100  # the label that cross_entropy leaves out


def evaluate(model: Module, loss: Loss, loader: Iterable[Any], metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The mean loss over all samples, and the metrics of all outputs together; see `Trainer.evaluate`."""
    total, samples, seen = 0.0, 0, []
    wants_outputs = not all(map(_of_loss, metrics.values()))
    with evaluating(model):
        for batch in loader:
            batch = as_tensors(batch)
            value, outputs, targets = parts(loss(model, batch))
            weight = _weight(batch, targets)
            total += value.item() * weight if weight else 0.0
            samples += weight
            if wants_outputs:
                seen.append(_compared(outputs, target_of(batch) if targets is None else targets))
    if not samples:
        raise ValueError("the loader to evaluate gave no batch")
    found = {"loss": total / samples}
    columns = [np.concatenate(arrays) for arrays in zip(*seen, strict=True)]
    for name, metric in metrics.items():
        value = metric(found["loss"]) if _of_loss(metric) else metric(*columns)
        if np.size(value) != 1:
            raise TypeError(
                f"the metric {name!r} gave {np.size(value)} numbers, a row has place for one: compute such from the "
                "outputs of trainer.predict(loader), or write a function that picks one"
            )
        found[name] = float(np.reshape(value, ()))
    return found


def predict(model: Module, loader: Iterable[Any], forward: Callable[[Any, Any], Any]) -> Any:
    """The outputs for all batches as NumPy; see `Trainer.predict`."""
    with evaluating(model):
        found = [on_the_host(forward(model, as_tensors(batch))) for batch in loader]
    if not found:
        raise ValueError("the loader to predict for gave no batch")
    return joined(found)


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module has the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def parts(result: Any) -> tuple[Tensor, Any, Any]:
    """(loss, outputs, targets) of what `loss` returned, None for what it left out."""
    given = result if isinstance(result, tuple) else (result,)
    if not 1 <= len(given) <= 3 or not isinstance(given[0], Tensor) or given[0].size != 1:
        came = f"a Tensor of shape {result.shape}" if isinstance(result, Tensor) else type(result).__name__
        raise TypeError(
            "loss(model, batch) must return the loss, a Tensor of one number, or (loss, outputs), or (loss, outputs, "
            f"targets); got {came}"
        )
    outputs, targets = (*given[1:], None, None)[:2]
    return given[0], outputs, targets


def named(metrics: Sequence[Metric] | Mapping[str, Metric]) -> dict[str, Metric]:
    """name → metric, by the functions' own names where no others are given."""
    if isinstance(metrics, Mapping):
        return dict(metrics)
    for metric in metrics:
        if not callable(metric) or getattr(metric, "__name__", "<lambda>") == "<lambda>":
            raise TypeError(f"a metric is a function with a name; for {metric!r} write metrics={{'name': function}}")
    return {metric.__name__: metric for metric in metrics}


def _weight(batch: Any, targets: Any) -> int:
    """Of how many losses a batch's loss is the mean: one a sample, or one a label where `loss` returns such."""
    if not isinstance(targets, (Tensor, np.ndarray)) or targets.dtype.kind not in "iu":
        return size_of(batch)
    return int((on_the_host(targets) != IGNORED).sum())


def _of_loss(metric: Metric) -> bool:
    """Whether a metric is a function of the mean loss: its first parameter says so."""
    code = getattr(metric, "__code__", None)
    return code is not None and code.co_varnames[:1] == ("loss",)


def _compared(outputs: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(outputs, Tensor):
        raise TypeError(
            "metrics compare outputs with targets: loss must return (loss, outputs), a Tensor each, got "
            f"{type(outputs).__name__} for the outputs"
        )
    return outputs.numpy(), np.asarray(on_the_host(targets))
