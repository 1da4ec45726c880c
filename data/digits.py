"""MNIST: 70,000 handwritten digits, bundled with the package (CC BY-SA 3.0, see mnist/LICENSE.txt)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, overload

import numpy as np

from .dataset import ArrayDataset
from .idx import IdxError, read_idx

FOLDER = Path(__file__).parent / "mnist"

# Of each split: how the names of its files begin, and how many digits it has.
FILES = {"train": ("train", 60_000), "test": ("t10k", 10_000)}


class Mnist(NamedTuple):
    """The two splits of MNIST."""

    train: ArrayDataset
    test: ArrayDataset


@overload
def mnist(split: None = None) -> Mnist: ...
@overload
def mnist(split: Literal["train", "test"]) -> ArrayDataset: ...
def mnist(split: str | None = None) -> Mnist | ArrayDataset:
    """The MNIST digits (LeCun, Cortes and Burges, 1998), read from the installed package: nothing is downloaded.

    Args:
        split: "train" (60,000) or "test" (10,000); None gives both, as `.train` and `.test`.
    Returns:
        datasets of images, (N, 28, 28) uint8 from 0 (paper) to 255 (ink), and labels, (N,) int64 from 0 to 9.
    Raises:
        ValueError: another split.
        IdxError: a file of the package is damaged.

    Example:
        >>> import retrograd as rg
        >>> images, labels = rg.data.mnist("test").arrays
        >>> images.shape, images.dtype, labels.dtype
        ((10000, 28, 28), dtype('uint8'), dtype('int64'))
        >>> labels[:5]
        array([7, 2, 1, 0, 4])
    """
    if split is None:
        return Mnist(_read("train"), _read("test"))
    if split not in FILES:
        raise ValueError(f"MNIST has the splits 'train' and 'test', or None for both; got {split!r}")
    return _read(split)


def _read(split: str) -> ArrayDataset:
    # gzip's own checksum has found damage by now; the shapes find a file in the place of another.
    name, count = FILES[split]
    images = read_idx(_checked_path(f"{name}-images-idx3-ubyte.gz"))
    labels = read_idx(_checked_path(f"{name}-labels-idx1-ubyte.gz"))
    if images.shape != (count, 28, 28) or labels.shape != (count,):
        raise IdxError(
            f"the {split} files of MNIST in {FOLDER} should hold images of shape {(count, 28, 28)} and labels of shape "
            f"{(count,)}, got {images.shape} and {labels.shape}. Install retrograd again."
        )
    return ArrayDataset(images, labels.astype(np.int64))


def _checked_path(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it belongs to the installed package. Install retrograd again.")
    return path
