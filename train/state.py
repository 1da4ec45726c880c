"""All that a run is made of, as arrays and values that JSON can hold, and back: what makes a resumed run exact.

model, optimizer by parameter name, schedule and other callbacks
random streams          the default generator, and those that modules hold
the place               steps, epochs, batches of this epoch; what the loaders say of themselves
the history             every row, and the losses since the last one
the surroundings        versions, processor, BLAS, threads, tier of kernels: bits are promised where these agree
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd_core.errors import CheckpointError, users_level
from ..autograd_core.operations.random import Generator, default_generator
from ..backends import Backend, kernel_tier
from .callbacks import Callback, Checkpoints
from .checkpoint import Checkpoint, CheckpointWarning, begin, newest, read
from .history import History

if TYPE_CHECKING:
    from ..autograd_core.tensor import Tensor
    from .trainer import Trainer

MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"


def captured(trainer: Trainer) -> tuple[dict[str, Any], dict[str, Any]]:
    """(files, state) of a checkpoint, as `checkpoint.write` takes them."""
    tensors, metadata = trainer.optimizer.to_arrays(trainer.model)
    files = {MODEL: (_arrays(trainer.model.state_dict()), {}), OPTIMIZER: (_arrays(tensors), metadata)}
    state = {
        "place": trainer.place(),
        "loaders": {name: loader.state_dict() for name, loader in trainer.loaders().items() if _knows(loader)},
        "generators": {name: generator.state() for name, generator in _generators(trainer).items()},
        "callbacks": {name: callback.state_dict() for name, callback in _named(trainer.callbacks).items()},
        "history": trainer.history.rows,
        "best": next((c.best_name for c in trainer.callbacks if isinstance(c, Checkpoints)), None),
        "surroundings": surroundings(trainer.backend()),
    }
    return files, state


def restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Make the trainer what it was when the checkpoint was taken.

    Raises CheckpointError where the checkpoint is of another model, optimizer, loader or set of callbacks.
    """
    state = checkpoint.state
    there = {"generators": _generators(trainer), "callbacks": _named(trainer.callbacks)}
    for what, found in there.items():
        # A run may go on from another run's checkpoint and keep its own elsewhere, or none.
        if (set(found) ^ set(state[what])) - {"Checkpoints"}:
            raise CheckpointError(
                f"{checkpoint.path} was saved with the {what} {_listed(state[what])}, this run has {_listed(found)}"
            )
    try:
        for name, loader in trainer.loaders().items():
            if _knows(loader) and name in state["loaders"]:
                loader.load_state_dict(state["loaders"][name])
        trainer.model.load_state_dict(checkpoint.arrays(MODEL)[0])
        trainer.optimizer.from_arrays(*checkpoint.arrays(OPTIMIZER), trainer.model)
        for name, callback in there["callbacks"].items():
            if name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][name])
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint.path} does not fit this run: {error}") from None
    for name, generator in there["generators"].items():
        generator.set_state(state["generators"][name])
    trainer.history = History(state["history"])
    trainer.go_to(state["place"])
    _compare(state["surroundings"], surroundings(trainer.backend()))


def to_resume(trainer: Trainer, where: bool | str | os.PathLike[str]) -> Checkpoint | None:
    """The checkpoint that `fit(resume=where)` means: a path, or the newest of the run's own folder, if any."""
    if where is not True:
        return read(Path(where))  # type: ignore[arg-type]
    folder = next((c.folder for c in trainer.callbacks if isinstance(c, Checkpoints)), None)
    if folder is None:
        raise ValueError("resume=True needs Trainer(..., checkpoints=folder), or say fit(..., resume=path)")
    begin(folder, fresh=False)
    return newest(folder)


def surroundings(backend: Backend) -> dict[str, Any]:
    """What the bits of a result depend on beside the run itself."""
    tier = kernel_tier(backend)
    generated = backend.generates()
    return {
        **_machine(),
        "numba": _version("numba") if generated else None,
        "backend": backend.name,
        "kernels": tier if generated or tier == "reference" else "array",
        "threads": backend.num_threads,
    }


@cache
def _machine() -> dict[str, Any]:
    from ..backends.blas import describe
    from ..backends.doctor import processor

    blas = describe()
    return {
        "retrograd": _version("retrograd"),
        "numpy": np.__version__,
        "blas": f"{blas['name']} {blas['version']}",
        "processor": processor(),
    }


@cache
def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [f"{name} was {before.get(name)}, is {now.get(name)}" for name in now if before.get(name) != now[name]]
    if changed:
        warnings.warn(
            f"the run goes on under other conditions ({'; '.join(changed)}): it will not be bit for bit what it would "
            "have been",
            CheckpointWarning,
            stacklevel=users_level(),
        )


def _generators(trainer: Trainer) -> dict[str, Generator]:
    """The default generator, and each that a module has as an attribute, by its path."""
    found = {"": default_generator()}
    for path, module in trainer.model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Generator):
                found[f"{path}.{name}" if path else name] = value
    return found


def _named(callbacks: list[Callback]) -> dict[str, Callback]:
    """Callbacks that have a state, by class and, where there are several of one, number."""
    found: dict[str, Callback] = {}
    for callback in callbacks:
        if type(callback).state_dict is not Callback.state_dict:
            kind = type(callback).__name__
            number = sum(name.partition(" ")[0] == kind for name in found)
            found[f"{kind} {number + 1}" if number else kind] = callback
    return found


def _knows(loader: Any) -> bool:
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.backend.to_numpy(tensor.array) for name, tensor in tensors.items()}


def _listed(names: Any) -> str:
    return ", ".join(name or "default" for name in names) or "none"
