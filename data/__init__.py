"""Data: datasets, the loader, transforms, and the digits that come with the package."""

from .base_tokenizer import BaseTokenizer
from .characters import CharTokenizer
from .dataset import ArrayDataset, Dataset, Subset, random_split, stack_samples
from .digits import Mnist, mnist
from .draws import Draws
from .idx import IdxError, read_idx
from .loader import DataLoader
from .tokenizer import Tokenizer, load_tokenizer
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
    "BaseTokenizer",
    "CharTokenizer",
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
    "Tokenizer",
    "load_tokenizer",
    "mean_and_std",
    "mnist",
    "random_split",
    "read_idx",
    "stack_samples",
]
