"""Checkpoints on the disk: a folder each, complete or not there at all.

    runs/a/step-00000120-epoch-0003/
        model.safetensors         the weights and buffers by name: what `model.load_state_dict` takes
        optimizer.safetensors     "encoder.weight/exp_avg", "encoder.weight/step", …; its options as metadata
        manifest.json             everything else, and a checksum of each file and of itself

A checkpoint is written under another name, put on the disk (`fsync`, of the files and of their folder), and renamed. So
whatever ends the process, a folder of that name is whole; what is left under another name is swept up by the next run.
What the disk did to it later is told by the checksums.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ..autograd_core import safetensors
from ..autograd_core.errors import CheckpointError, users_level
from ..autograd_core.text_files import write_text

FORMAT = 1
MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8,})-epoch-(\d{4,})")
_WRITING, _REPLACED, _DELETING = ".writing-", ".replaced-", ".deleting-"

Arrays = Mapping[str, np.ndarray]


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged and was passed over, or the run goes on under other conditions than it began."""


class Checkpoint(NamedTuple):
    """One that was found whole: its folder, and what the manifest says of the run."""

    path: Path
    state: dict[str, Any]

    def arrays(self, file: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """The arrays and the metadata of one of its safetensors files."""
        return safetensors.read(self.path / file)


def name_of(step: int, epoch: int) -> str:
    """The folder of the checkpoint after so many steps and complete epochs."""
    return f"step-{step:08}-epoch-{epoch:04}"


def names(folder: Path) -> list[str]:
    """The names of all checkpoints in a folder, oldest first. What is half-written has another name."""
    if not folder.is_dir():
        return []
    found = [match for entry in folder.iterdir() if (match := _NAME.fullmatch(entry.name))]
    return [match[0] for match in sorted(found, key=lambda match: (int(match[1]), int(match[2])))]


# -- writing ----------------------------------------------------------------------------------------------------------


def begin(folder: Path, fresh: bool) -> None:
    """Make the folder and sweep up what a killed process left; a run that begins anew finds no checkpoint there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in list(folder.iterdir()):
            if entry.name.startswith(_REPLACED) and not (whole := folder / entry.name.removeprefix(_REPLACED)).exists():
                entry.rename(whole)
            elif entry.name.startswith((_WRITING, _REPLACED, _DELETING)):
                _remove(entry)
    except OSError as error:
        raise CheckpointError(f"cannot keep checkpoints in {folder}: {error.strerror or error}") from None
    if fresh and (there := names(folder)):
        raise CheckpointError(
            f"{folder} holds checkpoints of an earlier run, up to {there[-1]}. fit(..., resume=True) goes on with it; "
            "for a new run name another folder, or delete this one"
        )


def write(folder: Path, name: str, files: Mapping[str, tuple[Arrays, Mapping[str, str]]], state: Mapping) -> Path:
    """Write one checkpoint.

    Args:
        files: file name → (arrays, metadata), each a safetensors file.
        state: everything else, in values that JSON can hold.
    Raises:
        CheckpointError: the disk is full or refuses. What was written of it is gone, older checkpoints are untouched.
    """
    target, aside, replaced = (folder / f"{prefix}{name}" for prefix in ("", _WRITING, _REPLACED))
    renamed = False
    try:
        _remove(aside)
        aside.mkdir()
        for file, (arrays, metadata) in files.items():
            safetensors.write(aside / file, arrays, metadata)
        content = {"format": FORMAT, "files": {file: _checksum(aside / file) for file in files}, "state": state}
        write_text(aside / MANIFEST, json.dumps({"content": content, "sha256": _text_checksum(content)}, indent=1))
        _sync(aside)
        if target.exists():
            _remove(replaced)
            target.rename(replaced)
        aside.rename(target)
        renamed = True
        _sync(folder)
    except BaseException as error:
        _remove(target if renamed else aside)
        if replaced.exists():
            replaced.rename(target)
        if not isinstance(error, OSError):
            raise
        size = sum(array.nbytes for arrays, _ in files.values() for array in arrays.values())
        raise CheckpointError(
            f"the checkpoint {target} could not be written: {error.strerror or error} ({_megabytes(size)} needed, "
            f"{_megabytes(_free(folder))} free). Nothing of it is left, older checkpoints are untouched: make room, "
            "then resume from the last one, if there is one"
        ) from None
    _remove(replaced)
    return target


def prune(folder: Path, keep: int, best: str | None) -> None:
    """Delete all checkpoints but the last `keep` and the best one."""
    there = names(folder)
    for name in set(there[:-keep]) - {best}:
        gone = folder / f"{_DELETING}{name}"
        _remove(gone)
        (folder / name).rename(gone)  # first: a checkpoint that is half deleted would look like a damaged one
        _remove(gone)


# -- reading ----------------------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """One checkpoint, with every checksum verified. Raises CheckpointError, which says what is wrong with it."""
    folder = Path(path)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        content = manifest["content"]
        whole = manifest["sha256"] == _text_checksum(content)
    except OSError as error:
        there = names(folder)
        mend = f". It holds checkpoints: name one, the last is {folder / there[-1]}" if there else ""
        raise CheckpointError(f"{folder} is no checkpoint: {MANIFEST}: {error.strerror or error}{mend}") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(f"{folder} is damaged: {MANIFEST} cannot be read") from None
    if not whole:
        raise CheckpointError(f"{folder} is damaged: {MANIFEST} is not what was written")
    if content["format"] != FORMAT:
        raise CheckpointError(f"{folder} has format {content['format']}, this version of retrograd reads {FORMAT}")
    for file, checksum in content["files"].items():
        try:
            found = _checksum(folder / file)
        except OSError as error:
            raise CheckpointError(f"{folder} is damaged: {file}: {error.strerror or error}") from None
        if found != checksum:
            raise CheckpointError(f"{folder} is damaged: {file} is not what was written (its SHA-256 differs)")
    return Checkpoint(folder, content["state"])


def newest(folder: Path) -> Checkpoint | None:
    """The last checkpoint that is whole, or None where there is none at all; damaged ones are passed over and told.

    Raises CheckpointError where there are some, and all are damaged.
    """
    wrong = ""
    for name in reversed(names(folder)):
        try:
            return read(folder / name)
        except CheckpointError as error:
            wrong = str(error)
            warnings.warn(f"{error}; it is passed over", CheckpointWarning, stacklevel=users_level())
    if wrong:
        raise CheckpointError(f"no checkpoint in {folder} is whole: {wrong}")
    return None


def find_checkpoint(folder: str | os.PathLike[str], which: Literal["best", "last"] = "best") -> Path:
    """The best or the last checkpoint of a run; `rg.load(path / "model.safetensors")` gives its weights.

    Raises CheckpointError where there is none that is whole.
    """
    if which not in ("best", "last"):
        raise ValueError(f"which must be 'best' or 'last', got {which!r}")
    last = newest(Path(folder))
    if last is None:
        raise CheckpointError(f"there are no checkpoints in {folder}")
    name = last.state["best"] if which == "best" else last.path.name
    if name is None:
        raise CheckpointError(f"no checkpoint of {folder} is known to be the best: nothing was monitored")
    return read(Path(folder) / name).path


# -- files ------------------------------------------------------------------------------------------------------------


def _checksum(path: Path) -> str:
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text_checksum(content: Any) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sync(folder: Path) -> None:
    """Put the names in a folder on the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def _free(folder: Path) -> int:
    import shutil

    return shutil.disk_usage(folder).free


def _megabytes(n: int) -> str:
    return f"{n / 1e6:,.1f} MB"
