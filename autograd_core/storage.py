"""Tensors in files: flat dicts of name to tensor, as safetensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import safetensors
from .context import current_backend
from .define import public
from .tensor import Tensor, asarray


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
    safetensors.write(path, {name: _on_the_host(name, value) for name, value in tensors.items()}, metadata)


def _on_the_host(name: Any, value: Any) -> np.ndarray:
    if isinstance(value, Mapping) or (isinstance(value, (list, tuple)) and any(isinstance(v, Mapping) for v in value)):
        raise TypeError(
            f"save expects a flat dict of name to tensor, but {name!r} holds a {type(value).__name__}. Give its "
            "tensors names of their own, such as 'model.weight'; optimizer.to_arrays() does that, with the metadata"
        )
    if isinstance(value, (str, bytes)) or value is None:
        raise TypeError(f"save expects tensors, got {value!r} for {name!r}. Text goes into metadata={{name: text}}")
    tensor = asarray(value)
    return tensor.backend.to_numpy(tensor.array)


def load(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a safetensors file: a dict of name to Tensor on the current backend.

    Nothing in the file is executed. A damaged or foreign file raises `SafetensorsError`, which says what it is.

    >>> import os, tempfile
    >>> import retrograd as rg
    >>> path = os.path.join(tempfile.mkdtemp(), "layer.safetensors")
    >>> layer = rg.nn.Linear(2, 1)
    >>> rg.save(layer.state_dict(), path)
    >>> {name: t.shape for name, t in rg.load(path).items()}
    {'bias': (1,), 'weight': (1, 2)}
    """
    _check_file(path)
    arrays, _ = safetensors.read(path)
    backend = current_backend()
    return {name: Tensor(backend.asarray(array)) for name, array in arrays.items()}


@public
def load_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The strings that `save` was given beside the tensors.

    >>> import os, tempfile, retrograd as rg
    >>> path = os.path.join(tempfile.mkdtemp(), "adam.safetensors")
    >>> layer = rg.nn.Linear(2, 1)
    >>> optimizer = rg.optim.Adam(layer.named_parameters())
    >>> tensors, metadata = optimizer.to_arrays()
    >>> rg.save(tensors, path, metadata)
    >>> optimizer.from_arrays(rg.load(path), rg.load_metadata(path))
    """
    _check_file(path)
    return dict(safetensors.read_header(path).metadata)


def _check_file(path: str | os.PathLike) -> None:
    if not os.path.exists(path):
        raise FileNotFoundError(f"cannot load {os.fspath(path)!r}: there is no such file")
    if os.path.isdir(path):
        raise IsADirectoryError(f"cannot load {os.fspath(path)!r}: it is a folder; name a file in it")
