"""A checkpoint is a folder: config.json, and weights by name in model.safetensors, or in shards that an index lists.

    model.safetensors                   all weights, or
    model.safetensors.index.json        {"weight_map": {"encoder.layer.0…": "model-00001-of-00002.safetensors", …}}
    model-00001-of-00002.safetensors    …

Weights are taken out one at a time from files that are mapped into memory, so loading needs no second copy of a model.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from ..autograd_core import safetensors
from ..autograd_core.errors import CheckpointError
from ..autograd_core.text_files import read_json, write_json
from .config import Path

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_PICKLES = re.compile(r".*\.(bin|pt|pth|ckpt)(\.index\.json)?")
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


class Weights:
    """The arrays of an open checkpoint, still on the disk. Made by `open_weights`; used like a read-only dict.

    Attributes:
        names: the names of all arrays.
    """

    def __init__(self, files: Mapping[str, safetensors.SafetensorsFile]):
        self._files = files
        self.names = tuple(files)

    def spec(self, name: str) -> safetensors.Spec:
        """Dtype, as the format spells it, and shape of an array."""
        return self._files[name].spec(name)

    def get(self, name: str) -> np.ndarray:
        """An array: a read-only view of the file where it needs no conversion (bfloat16 becomes float32)."""
        return self._files[name].get(name, copy=False)


@contextmanager
def open_weights(folder: Path) -> Iterator[Weights]:
    """Open the weights of a checkpoint folder.

    Raises:
        FileNotFoundError: there are none, or a shard is missing; names what is there instead.
        CheckpointError: they are there as pickles only, or the index is damaged.
        SafetensorsError: a file is damaged.
    """
    with ExitStack() as stack:

        def opened(name: str) -> safetensors.SafetensorsFile:
            return stack.enter_context(safetensors.open_file(os.path.join(folder, name)))

        if os.path.exists(os.path.join(folder, WEIGHTS)):
            file = opened(WEIGHTS)
            yield Weights(dict.fromkeys(file.names, file))
        elif os.path.exists(os.path.join(folder, INDEX)):
            shards = _shards(folder)
            files = {shard: opened(shard) for shard in sorted(set(shards.values()))}
            for name, shard in shards.items():
                if name not in files[shard].names:
                    raise CheckpointError(f"{os.fspath(folder)!r}: {INDEX} says that {name!r} is in {shard}; it is not")
            yield Weights({name: files[shard] for name, shard in shards.items()})
        else:
            raise _no_weights(folder)


def _shards(folder: Path) -> dict[str, str]:
    """Name of an array → name of the file that holds it. The index, a stranger's, may name files beside it only."""
    shown = os.fspath(folder)
    try:
        found = read_json(os.path.join(shown, INDEX)).get("weight_map")
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(found, dict) or not found or not all(isinstance(v, str) for v in found.values()):
        raise CheckpointError(f"{shown!r}: {INDEX} must hold a weight_map of names to files; download it again")
    for shard in sorted(set(found.values())):
        if os.path.basename(shard) != shard or not shard.endswith(".safetensors"):
            raise CheckpointError(f"{shown!r}: {INDEX} names {shard!r}, which is no .safetensors file beside it")
        if not os.path.exists(os.path.join(shown, shard)):
            missing = sum(file == shard for file in found.values())
            raise FileNotFoundError(
                f"{shown!r}: the shard {shard}, which holds {missing} weights, is missing; fetch it"
            )
    return found


def _no_weights(folder: Path) -> Exception:
    shown, there = os.fspath(folder), sorted(os.listdir(folder))
    pickled = [name for name in there if _PICKLES.fullmatch(name)]
    if pickled:
        return CheckpointError(
            f"{shown!r} holds its weights as {pickled[0]}, a pickle, and no {WEIGHTS}. Reading a pickle can run any "
            "code that its author put in, so it is refused. Convert it once where PyTorch and transformers are: "
            "AutoModel.from_pretrained(folder).save_pretrained(new_folder) writes safetensors"
        )
    return FileNotFoundError(f"{shown!r} holds neither {WEIGHTS} nor {INDEX}; there is {', '.join(there) or 'nothing'}")


# --- writing ---------------------------------------------------------------------------------------------------------


def write(
    folder: Path, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray], max_shard_size: int | str | None = None
) -> None:
    """Write a checkpoint: all files aside first, then each renamed into its place, so a full disk changes nothing.

    Args:
        folder: made if it is not there. Weights of an earlier checkpoint in it are replaced; other files stay.
        config: for config.json. arrays: name → array.
        max_shard_size: bytes, or text such as "5GB"; weights that take more are spread over several files.
    Raises:
        ValueError: a size that cannot be read. OSError: the file system refuses; the folder is as it was.
    """
    files = _split(arrays, _bytes(max_shard_size))
    made = not os.path.isdir(folder)
    os.makedirs(folder, exist_ok=True)
    aside = os.path.join(folder, f".saving-{os.getpid()}-{os.urandom(4).hex()}")
    os.mkdir(aside)
    try:
        for name, part in files.items():
            # Readers of PyTorch refuse a file that does not say whose layout of weights it has.
            safetensors.write(os.path.join(aside, name), part, {"format": "pt"})
        if len(files) > 1:
            total = sum(array.nbytes for array in arrays.values())
            places = {array: file for file, part in files.items() for array in part}
            write_json(os.path.join(aside, INDEX), {"metadata": {"total_size": total}, "weight_map": places})
        write_json(os.path.join(aside, "config.json"), dict(config))
        written = os.listdir(aside)
        for name in written:
            os.replace(os.path.join(aside, name), os.path.join(folder, name))
        for name in os.listdir(folder):  # of an earlier checkpoint: they would be read in place of the new ones
            if (name in (WEIGHTS, INDEX) or _SHARD.fullmatch(name)) and name not in written:
                os.unlink(os.path.join(folder, name))
    except BaseException:
        shutil.rmtree(folder if made else aside, ignore_errors=True)
        raise
    os.rmdir(aside)


def _bytes(size: int | str | None) -> int | None:
    if size is None or (isinstance(size, int) and size > 0):
        return size
    match = re.fullmatch(r"(\d+) ?([KMG]B)", size) if isinstance(size, str) else None
    if match is None or not int(match[1]):
        raise ValueError(f'max_shard_size must be a number of bytes or text such as "5GB" or "200MB", got {size!r}')
    return int(match[1]) * _UNITS[match[2]]


def _split(arrays: Mapping[str, np.ndarray], limit: int | None) -> dict[str, dict[str, np.ndarray]]:
    """File name → its arrays, in their order, each file at most `limit` bytes unless one array alone is larger."""
    parts: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, array in arrays.items():
        if limit is not None and parts[-1] and size + array.nbytes > limit:
            parts.append({})
            size = 0
        parts[-1][name] = array
        size += array.nbytes
    if len(parts) == 1:
        return {WEIGHTS: parts[0]}
    return {f"model-{i:05}-of-{len(parts):05}.safetensors": part for i, part in enumerate(parts, 1)}
