"""Datasets: anything with a length and samples by index. Those made of arrays give a whole batch in one gather."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .draws import split_order


@runtime_checkable
class Dataset(Protocol):
    """What a DataLoader reads: `len(dataset)`, and `dataset[i]`, one sample as an array or a tuple of arrays.

    A dataset that also has `gather(indices)`, which gives the batch for an array of indices as a tuple of arrays, is
    read a batch at a time.

    Example:
        >>> import numpy as np
        >>> from retrograd.data import DataLoader
        >>> class Squares:
        ...     def __len__(self):
        ...         return 6
        ...     def __getitem__(self, i):
        ...         return np.float32(i), np.float32(i * i)
        >>> [y.tolist() for _, y in DataLoader(Squares(), batch_size=3)]
        [[0.0, 1.0, 4.0], [9.0, 16.0, 25.0]]
    """

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """The sample at that index."""
        ...


class ArrayDataset:
    """Samples that are the rows of arrays of equal length, such as images and their labels.

    Args:
        arrays: ndarrays, Tensors or nested lists; the first axis of each counts the samples. Memory is shared.
    Raises:
        TypeError: no array, a 0-d one, or one of objects.
        ValueError: lengths that differ.

    Example:
        >>> import numpy as np
        >>> from retrograd.data import ArrayDataset
        >>> dataset = ArrayDataset(np.arange(6.0).reshape(3, 2), np.array([0, 1, 0]))
        >>> len(dataset)
        3
        >>> dataset[1]
        (array([2., 3.]), np.int64(1))
    """

    def __init__(self, *arrays: Any) -> None:
        if not arrays:
            raise TypeError("ArrayDataset expects at least one array, got none")
        self.arrays: tuple[np.ndarray, ...] = tuple(_host(array, i) for i, array in enumerate(arrays))
        lengths = [len(array) for array in self.arrays]
        if len(set(lengths)) > 1:
            raise ValueError(f"the arrays of a dataset must have one length, got {', '.join(map(str, lengths))}")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        """The sample at an index, or the samples of a slice or an array of indices: a tuple, one entry per array."""
        return tuple(array[index] for array in self.arrays)

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """The batch of the samples at those indices, (B,) integers: a copy, (B, ...) from each array."""
        return tuple(array.take(indices, axis=0) for array in self.arrays)

    def __repr__(self) -> str:
        return f"ArrayDataset({', '.join(f'{a.dtype} {a.shape}' for a in self.arrays)})"


class Subset:
    """The samples of another dataset at the given indices, in that order.

    Raises TypeError unless the indices are whole numbers, IndexError for one outside the dataset.

    Example:
        >>> import numpy as np
        >>> from retrograd.data import ArrayDataset, Subset
        >>> Subset(ArrayDataset(np.array([10, 20, 30])), [2, 0])[0]
        (np.int64(30),)
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int] | np.ndarray) -> None:
        self.dataset = dataset
        chosen = np.asarray(indices)
        if chosen.size and (chosen.dtype.kind not in "iu" or chosen.ndim != 1):
            raise TypeError(f"the indices of a Subset are a row of integers, got {chosen.dtype} {chosen.shape}")
        self.indices = chosen.astype(np.int64).reshape(-1)
        outside = (self.indices < 0) | (self.indices >= len(dataset))
        if outside.any():
            raise IndexError(f"index {self.indices[outside][0]} is outside of a dataset of {len(dataset)} samples")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[index])]

    def gather(self, indices: np.ndarray) -> tuple[Any, ...]:
        """The batch of the samples at those places of the subset, (B,) integers."""
        return gather(self.dataset, self.indices.take(indices))

    def __repr__(self) -> str:
        return f"Subset({len(self)} of {self.dataset!r})"


def gather(dataset: Dataset, indices: np.ndarray) -> tuple[Any, ...]:
    """The batch of the samples at those indices, a tuple of arrays (B, ...): in one step where the dataset has it."""
    if hasattr(dataset, "gather"):
        return dataset.gather(indices)  # type: ignore[attr-defined]
    return stack_samples([dataset[i] for i in indices.tolist()])


def stack_samples(samples: list[Any]) -> tuple[np.ndarray, ...]:
    """Samples, each an array or a tuple of arrays, stacked field by field: what a loader does without `collate`.

    Raises ValueError where the samples have not the same number of fields, or a field not one shape, TypeError for a
    field that is no array.

    Example:
        >>> from retrograd.data import stack_samples
        >>> stack_samples([(1.0, 5), (2.0, 6)])
        (array([1., 2.]), array([5, 6]))
    """
    rows = [sample if isinstance(sample, tuple) else (sample,) for sample in samples]
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"the samples of a batch have different numbers of fields: {[len(row) for row in rows]}")
    return tuple(_stack(field, i) for i, field in enumerate(zip(*rows, strict=True)))


def _stack(values: tuple[Any, ...], field: int) -> np.ndarray:
    arrays = [np.asarray(value.numpy() if hasattr(value, "numpy") else value) for value in values]
    if any(array.dtype.kind == "O" for array in arrays):
        raise TypeError(
            f"field {field} of a sample is a {type(values[0]).__name__}, of which no array can be made. A sample is an "
            "array or a tuple of arrays; give the loader a `collate` that makes those, for example of a dict's values."
        )
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ValueError(
            f"field {field} of the samples has different shapes in one batch: {sorted(shapes)}. Give the loader a "
            "`collate` that makes one array of them, for example by padding."
        )
    return np.stack(arrays)


def random_split(dataset: Dataset, parts: Sequence[int] | Sequence[float], seed: int = 0) -> list[Subset]:
    """The dataset in parts that do not overlap, drawn at random; equal seeds give equal parts.

    Args:
        dataset: what to split.
        parts: either lengths, whole numbers that add up to `len(dataset)`, or fractions that add up to 1. Samples left
            over by rounding the fractions down go to the first parts, one each.
        seed: of the draw.
    Raises ValueError for parts that are neither.

    Example:
        >>> import numpy as np
        >>> from retrograd.data import ArrayDataset, random_split
        >>> [len(part) for part in random_split(ArrayDataset(np.arange(50)), [0.9, 0.1])]
        [45, 5]
    """
    lengths = _lengths(parts, len(dataset))
    order = split_order(seed, len(dataset))
    ends = np.cumsum([0, *lengths])
    return [Subset(dataset, order[start:end]) for start, end in pairwise(ends)]


def _lengths(parts: Sequence[int] | Sequence[float], total: int) -> list[int]:
    values = np.asarray(parts)
    if values.ndim == 1 and values.size and values.dtype.kind in "iuf" and (values >= 0).all():
        if values.dtype.kind in "iu" and values.sum() == total:
            return [operator.index(value) for value in values]
        if values.dtype.kind == "f" and abs(values.sum() - 1.0) < 1e-6:
            # The small addition keeps 0.29 * 100 = 28.999999999999996 from losing a sample.
            lengths = [int(value * total + 1e-9 * total) for value in values]
            for i in range(total - sum(lengths)):
                lengths[i % len(lengths)] += 1
            return lengths
    raise ValueError(
        f"random_split expects lengths that add up to the {total} samples or fractions that add up to 1, got "
        f"{list(parts)} (sum {values.sum() if values.dtype.kind in 'iuf' else 'undefined'})"
    )


def _host(array: Any, position: int) -> np.ndarray:
    found = np.asarray(array.numpy() if hasattr(array, "numpy") else array)
    if found.ndim == 0 or found.dtype.kind == "O":
        raise TypeError(
            f"array {position} of a dataset must have an axis that counts samples and a dtype other than object, got "
            f"{found.dtype} of shape {found.shape}"
        )
    return found
