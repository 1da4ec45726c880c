"""Taking a batch apart, whatever form it has: (x, y), {"input_ids": …, "labels": …}, or one array.

what                 of a tuple                 of a dict                    of anything else
the target           its last entry             its entry "labels"           none
the model's inputs   all before, in their order all others, by their names   itself
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from ..autograd_core.tensor import Tensor, asarray
from ..autograd_core.transforms import tree_leaves, tree_map

LABELS = "labels"


def supervised(criterion: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], tuple[Tensor, Any]]:
    """The `loss` for a Trainer that compares the model's output with the batch's target.

    Args:
        criterion: of (output, target), such as `rg.nn.functional.cross_entropy`.

    Example:
        >>> import retrograd as rg
        >>> loss = rg.train.supervised(rg.nn.functional.mse_loss)
        >>> loss(rg.nn.Identity(), (rg.ones(2), rg.zeros(2)))
        (tensor(1.), tensor([1., 1.]))
    """

    def loss(model: Any, batch: Any) -> tuple[Tensor, Any]:
        outputs = outputs_of(model, batch)
        return criterion(outputs, target_of(batch)), outputs

    return loss


def outputs_of(model: Any, batch: Any) -> Any:
    """The model called with the batch's inputs; a tuple or dict without a target is all inputs."""
    if isinstance(batch, dict):
        return model(**{name: value for name, value in batch.items() if name != LABELS})
    if isinstance(batch, (tuple, list)):
        return model(*(batch[:-1] if len(batch) > 1 else batch))
    return model(batch)


def target_of(batch: Any) -> Any:
    """What the outputs are compared with. Raises TypeError where the batch has no place for it."""
    if isinstance(batch, dict) and LABELS in batch:
        return batch[LABELS]
    if isinstance(batch, (tuple, list)) and len(batch) > 1:
        return batch[-1]
    came = f"the entries {list(batch)}" if isinstance(batch, dict) else f"one {type(batch).__name__}"
    raise TypeError(
        f"expected a batch (…, target) or a dict with {LABELS!r}, got {came}. For batches of another form write "
        "loss(model, batch) yourself, and let it return (loss, outputs, targets) where metrics need them"
    )


def size_of(batch: Any) -> int:
    """The number of samples: the length of its first array."""
    return next(len(leaf) for _, leaf in tree_leaves(batch) if getattr(leaf, "shape", ()))


def as_tensors(batch: Any) -> Any:
    """The batch with Tensors for NumPy arrays of numbers."""
    return tree_map(lambda v: asarray(v) if isinstance(v, np.ndarray) and v.dtype.kind in "biufc" else v, batch)


def groups(batches: Iterable[Any], n: int) -> Iterator[list[Any]]:
    """n batches at a time, fewer at the end; none is taken before it is needed."""
    iterator = iter(batches)
    while group := list(islice(iterator, n)):
        yield group


def joined(parts: list[Any]) -> Any:
    """Results of many batches as one, in the same nest, NumPy: end to end along the first axis."""
    if isinstance(parts[0], dict):
        return {name: joined([part[name] for part in parts]) for name in parts[0]}
    if isinstance(parts[0], tuple) and hasattr(parts[0], "_fields"):
        return type(parts[0])(*[joined(list(column)) for column in zip(*parts, strict=True)])
    if isinstance(parts[0], (tuple, list)):
        return type(parts[0])(joined(list(column)) for column in zip(*parts, strict=True))
    return None if parts[0] is None else np.concatenate(parts)


def on_the_host(tree: Any) -> Any:
    """The nest with NumPy arrays for Tensors."""
    return tree_map(lambda v: v.numpy() if isinstance(v, Tensor) else v, tree)
