"""Data: datasets, the loader, transforms, and the digits that come with the package."""

from .dataset import ArrayDataset, Dataset, Subset, random_split, stack_samples
from .digits import Mnist, mnist
from .draws import Draws
from .idx import IdxError, read_idx
from .loader import DataLoader
from .transforms import (
    Compose,
    Normalize,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
    RandomScale,
    ToFloat,
    mean_and_std,
)

__all__ = [
    "ArrayDataset",
    "Compose",
    "DataLoader",
    "Dataset",
    "Draws",
    "IdxError",
    "Mnist",
    "Normalize",
    "RandomAffine",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomRotation",
    "RandomScale",
    "Subset",
    "ToFloat",
    "mean_and_std",
    "mnist",
    "random_split",
    "read_idx",
    "stack_samples",
]
