"""The loader: a dataset as batches of Tensors, in an order that depends on the seed and the epoch only."""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from contextvars import copy_context
from typing import Any

import numpy as np

from ..autograd_core.promotion import DEFAULT_FLOAT
from ..autograd_core.tensor import Tensor, asarray
from ..backends import random
from .dataset import Dataset, gather
from .draws import Draws, epoch_order
from .prefetch import prefetched
from .transforms import Transform, apply

Batch = tuple[Any, ...]


class DataLoader:
    """Iterating it is one pass, an *epoch*, over the dataset in batches: tuples of Tensors on the current backend.

    Floating arrays come as float32, the default float; whole numbers, such as uint8 images and int64 labels, keep their
    dtype unless the transform makes floats of them. Arrays of text stay NumPy arrays.

    Each iteration that begins is a new epoch, with its own order and its own augmentation, also after one that was
    broken off. `state_dict()` says where the loader is, in the middle of an epoch too, and one that loads it goes on
    with exactly the batches that would have come.

    Args:
        dataset: an ArrayDataset, a Subset of one, or anything with `len(dataset)` and `dataset[i]`.
        batch_size: samples in a batch; the last one may be smaller.
        shuffle: visit the samples in an order drawn from (seed, epoch).
        seed: of that order and of random transforms.
        drop_last: leave out a last batch that would be smaller.
        transform: called with the first array of each batch, (B, ...) NumPy, for its replacement; see
            `retrograd.data.transforms` for those that draw random numbers.
        prefetch: how many batches a background thread makes in advance; 0 makes each when it is asked for.
        collate: called with the list of a batch's samples, for a tuple of arrays; by default fields are stacked.
    Raises:
        TypeError, ValueError: an argument of another kind, or out of range.

    Example:
        >>> import numpy as np
        >>> import retrograd as rg
        >>> dataset = rg.data.ArrayDataset(np.arange(5.0), np.arange(5))
        >>> for x, label in rg.data.DataLoader(dataset, batch_size=2):
        ...     print(x.tolist(), x.dtype, label.tolist())
        [0.0, 1.0] float32 [0, 1]
        [2.0, 3.0] float32 [2, 3]
        [4.0] float32 [4]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        transform: Transform | None = None,
        prefetch: int = 2,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        if not isinstance(dataset, Dataset):
            raise TypeError(
                f"a dataset has len() and dataset[i], got {type(dataset).__name__}. ArrayDataset makes one of arrays."
            )
        self.dataset = dataset
        self.batch_size = _at_least(1, "batch_size", batch_size)
        self.prefetch = _at_least(0, "prefetch", prefetch)
        self.seed = _at_least(0, "seed", seed)
        for name, value in (("transform", transform), ("collate", collate)):
            if value is not None and not callable(value):
                raise TypeError(f"{name} must be callable, got {type(value).__name__}")
        self.shuffle, self.drop_last, self.transform, self.collate = shuffle, drop_last, transform, collate
        self._key = random.seed_to_key(self.seed)
        self._now = self._next = (0, 0)  # (epoch, batches handed out) of the pass under way, and of the one to begin

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    # -- where the loader is ------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch under way; between two of them, the next."""
        return self._now[0]

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is that epoch, from its beginning."""
        self._now = self._next = (_at_least(0, "epoch", epoch), 0)

    def state_dict(self) -> dict[str, int]:
        """Epoch and position (batches handed out), and what these mean something for. Plain whole numbers."""
        epoch, position = self._now
        return {"epoch": epoch, "position": position, **self._identity()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to where `state_dict()` was taken: the next iteration gives the rest of that epoch.

        Raises ValueError, and changes nothing, if the state is of a loader with another seed, batch size, shuffling or
        number of samples, for which a position means something else.
        """
        expected = {"epoch", "position", *self._identity()}
        if set(state) != expected:
            raise ValueError(f"the state of a DataLoader has the entries {sorted(expected)}, got {sorted(state)}")
        for name, value in self._identity().items():
            if int(state[name]) != value:
                raise ValueError(f"the state is of a loader with {name} {state[name]}, this one has {value}")
        epoch, position = _at_least(0, "epoch", state["epoch"]), _at_least(0, "position", state["position"])
        if position > len(self):
            raise ValueError(f"position {position} is beyond the {len(self)} batches of an epoch")
        self._now = self._next = (epoch, position)

    def _identity(self) -> dict[str, int]:
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "shuffle": int(self.shuffle),
            "drop_last": int(self.drop_last),
            "samples": len(self.dataset),
        }

    def order(self, epoch: int) -> np.ndarray:
        """The order in which an epoch visits the samples, (N,) int64: it depends on the seed and the epoch alone."""
        n = len(self.dataset)
        return epoch_order(self._key, epoch, n) if self.shuffle else np.arange(n)

    # -- the batches --------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self._next
        self._now, self._next = (epoch, start), (epoch + 1, 0)
        batches = self._batches(epoch, start)
        if self.prefetch:
            batches = prefetched(batches, self.prefetch, copy_context())
        return self._counted(batches, epoch, start)

    def _counted(self, batches: Generator[Batch, None, None], epoch: int, start: int) -> Generator[Batch, None, None]:
        with closing(batches):
            for position, batch in enumerate(batches, start + 1):
                self._now = (epoch, position)
                yield batch
        self._now = (epoch + 1, 0)

    def _batches(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        order = self.order(epoch)
        for position in range(start, len(self)):
            chosen = order[position * self.batch_size : (position + 1) * self.batch_size]
            first, *others = self._read(chosen)
            if self.transform is not None:
                first = apply(self.transform, first, Draws.from_key(self._key, epoch, chosen))
            yield tuple(_tensor(array) for array in (first, *others))

    def _read(self, chosen: np.ndarray) -> tuple[Any, ...]:
        if self.collate is None:
            return gather(self.dataset, chosen)
        batch = self.collate([self.dataset[i] for i in chosen.tolist()])
        return tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)

    def __repr__(self) -> str:
        return f"DataLoader({self.dataset!r}, batch_size={self.batch_size}, shuffle={self.shuffle}, seed={self.seed})"


def _tensor(array: Any) -> Any:
    if isinstance(array, Tensor):
        return array
    array = np.asarray(array)
    if array.dtype.kind not in "biufc":
        return array
    return asarray(array, dtype=DEFAULT_FLOAT if array.dtype.kind == "f" else None)


def _at_least(lowest: int, name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if number < lowest:
        raise ValueError(f"{name} must be at least {lowest}, got {number}")
    return number
