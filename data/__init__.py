"""Data: datasets, the loader, transforms, and the digits that come with the package."""

from ..autograd_core.text_files import read_text
from .base_tokenizer import BaseTokenizer
from .byte_pair_encoding import BytePairTokenizer
from .characters import CharTokenizer
from .dataset import ArrayDataset, Dataset, Subset, random_split, stack_samples
from .digits import Mnist, mnist
from .draws import Draws
from .idx import IdxError, read_idx
from .loader import DataLoader
from .text import (
    LabelledTexts,
    Splits,
    label_names,
    label_numbers,
    read_columns,
    read_labelled_texts,
    sentence_polarity,
    tiny_shakespeare,
    trec,
)
from .text_loader import TextDataset, TextLoader
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
from .windows import TokenWindows

__all__ = [
    "ArrayDataset",
    "BaseTokenizer",
    "BytePairTokenizer",
    "CharTokenizer",
    "Compose",
    "DataLoader",
    "Dataset",
    "Draws",
    "IdxError",
    "LabelledTexts",
    "Mnist",
    "Normalize",
    "RandomAffine",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomRotation",
    "RandomScale",
    "Splits",
    "Subset",
    "TextDataset",
    "TextLoader",
    "ToFloat",
    "TokenWindows",
    "Tokenizer",
    "label_names",
    "label_numbers",
    "load_tokenizer",
    "mean_and_std",
    "mnist",
    "random_split",
    "read_columns",
    "read_idx",
    "read_labelled_texts",
    "read_text",
    "sentence_polarity",
    "stack_samples",
    "tiny_shakespeare",
    "trec",
]
