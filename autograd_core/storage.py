"""Tensors in files: flat dicts of name to tensor, as safetensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from . import safetensors
from .context import current_backend
from .tensor import TENSOR_TYPES, Tensor, asarray


def save(tensors: Mapping[str, Any], path: str | os.PathLike, metadata: Mapping[str, str] | None = None) -> None:
    """Write a flat dict of name to tensor (or array) as a safetensors file; written aside, then renamed.

    Args:
        tensors: for example `model.state_dict()`.
        metadata: strings to keep beside the tensors.
    Raises:
        TypeError: a value is no tensor or a name no string. OSError: the file cannot be written; an older one stays.

    >>> import os, tempfile, retrograd as rg
    >>> path = os.path.join(tempfile.mkdtemp(), "w.safetensors")
    >>> rg.save({"w": rg.tensor([1.0, 2.0])}, path)
    >>> rg.load(path)
    {'w': tensor([1., 2.])}
    """
    if not isinstance(tensors, Mapping):
        raise TypeError(
            f"save expects a dict of name to tensor, such as model.state_dict(); got {type(tensors).__name__}"
        )
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"cannot save to {os.fspath(path)!r}: the folder {folder!r} does not exist. Make it first."
        )
    arrays = {}
    for name, value in tensors.items():
        tensor = value if type(value) in TENSOR_TYPES else asarray(value)
        arrays[name] = tensor.backend.to_numpy(tensor.array)
    safetensors.write(path, arrays, metadata)


def load(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a safetensors file: a dict of name to Tensor on the current backend.

    Nothing in the file is executed. A damaged or foreign file raises `SafetensorsError`, which says what it is.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"cannot load {os.fspath(path)!r}: there is no such file")
    arrays, _ = safetensors.read(path)
    backend = current_backend()
    return {name: Tensor(backend.asarray(array)) for name, array in arrays.items()}
