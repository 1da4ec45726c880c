"""PretrainedModel: a Module with a config, that reads and writes the checkpoints in which models are published.

Weights find their places by name. What is left over on either side is said once; what has another shape is an error.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from ..autograd_core import safetensors
from ..autograd_core.errors import CheckpointError, one_frame, users_level
from ..autograd_core.inplace import overwrite
from ..autograd_core.tensor import Tensor
from ..nn import Module, init
from ..nn.errors import nearest
from ..nn.state import entries, first_names
from . import checkpoint
from .config import Config, Path, read_config

# Names that the first published checkpoints used, and what they are called since.
OLD_NAMES = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))

_SHOWN = 6  # names per list in a message


class Fit(NamedTuple):
    """How the names of a checkpoint fit a model.

    Attributes:
        found: name in the model → name in the checkpoint. A tied weight may be there under several names.
        missing: names in the model without a value. unexpected: names in the checkpoint without a place.
        misfits: in words, what has a place but cannot go there.
    """

    found: dict[str, str]
    missing: list[str]
    unexpected: list[str]
    misfits: dict[str, str]


class PretrainedModel(Module):
    """Base class of the published models. A family sets the class attributes; its constructor takes the config.

    Attributes:
        config: the model's config. config_class: its class.
        base_model_prefix: under which attribute a model with a head keeps the model without one.
        options: names of further arguments of the constructor. ignored: patterns of names in checkpoints that are no
            weights, and are passed over in silence.
    """

    config_class: ClassVar[type[Config]]
    base_model_prefix: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    ignored: ClassVar[tuple[str, ...]] = ()
    config: Any

    def __init__(self, config: Config):
        super().__init__()
        if not isinstance(config, self.config_class):
            raise TypeError(
                f"{type(self).__name__} takes a {self.config_class.__name__}, got {type(config).__name__}; "
                f"{type(self).__name__}.from_pretrained(folder) reads a published model"
            )
        self.config = config

    @classmethod
    @one_frame
    def from_pretrained(
        cls,
        path: Path,
        *,
        dtype: Any = None,
        strict: bool = False,
        ignore_mismatched_sizes: bool = False,
        **changes: Any,
    ) -> Self:
        """The model that a folder holds as config.json and model.safetensors (or its shards), in evaluation mode.

        Args:
            path: the folder. Nothing is downloaded, and nothing in it is executed.
            dtype: of the parameters; None takes the file's (bfloat16, which NumPy lacks, becomes float32).
            strict: make missing and unexpected names an error in place of a warning.
            ignore_mismatched_sizes: let weights of another shape start fresh, with a warning, in place of an error.
            changes: keys of the config to change (`num_labels=6`), or options of the constructor.
        Raises:
            FileNotFoundError: the folder, its config.json or its weights are not there.
            CheckpointError: the checkpoint is another family's, a pickle, damaged, or does not fit; names are listed.
        Warns:
            UserWarning: once, with the names of weights that start fresh because the checkpoint lacks them (a new
                head), and of those that it has in excess.
        """
        values = read_config(path)
        if values.get("model_type") != cls.config_class.model_type:
            raise CheckpointError(
                f"{os.fspath(path)!r} holds a model of type {values.get('model_type')!r}, and {cls.__name__} reads "
                f"{cls.config_class.model_type!r}; retrograd.models.load_pretrained picks the class"
            )
        try:
            config = cls.config_class.from_dict(values)
        except CheckpointError as error:
            raise CheckpointError(f"{os.path.join(path, 'config.json')}: {error}") from None
        config, options = cls._changed(config, changes)
        with init.no_init():
            model = cls(config, **options)
        with checkpoint.open_weights(path) as weights:
            places = dict(entries(model))
            fit = match(places, weights, cls.base_model_prefix, cls.ignored)
            where = f"{cls.__name__} from {os.fspath(path)!r}"
            fresh = _settle(where, fit, strict, ignore_mismatched_sizes)
            model.to(dtype=_widest(weights, fit) if dtype is None else np.dtype(dtype))
            _start(model, fresh)
            _fill(where, places, fit.found, weights)
        return model.eval()

    @one_frame
    def save_pretrained(self, path: Path, *, max_shard_size: int | str | None = None) -> None:
        """Write config.json and model.safetensors into a folder, for `from_pretrained` here or in transformers.

        Args:
            path: the folder, made if it is not there. Everything is written aside and renamed.
            max_shard_size: bytes, or text such as "5GB": larger models are spread over several files with an index.
        Raises:
            OSError: the file system refuses; the folder is as it was.

        >>> import tempfile, retrograd as rg
        >>> from retrograd.models import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     again = GPT2LMHeadModel.from_pretrained(folder)
        >>> bool((again.lm_head.weight == model.lm_head.weight).all())
        True
        """
        state = {name: tensor.backend.to_numpy(tensor.array) for name, tensor in self.state_dict().items()}
        kept = {name: value for name, value in self.config.to_dict().items() if name != "torch_dtype"}
        # The dtype stands in the config too: transformers goes by it.
        dtype = str(next((a.dtype for a in state.values() if a.dtype.kind == "f"), np.dtype(np.float32)))
        checkpoint.write(path, kept | {"architectures": [type(self).__name__], "dtype": dtype}, state, max_shard_size)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the parameters."""
        return next(self.parameters()).dtype

    @classmethod
    def _changed(cls, config: Config, changes: dict[str, Any]) -> tuple[Config, dict[str, Any]]:
        """The config with changes, and those of them that are options of the constructor."""
        options = {name: changes.pop(name) for name in cls.options if name in changes}
        known = {*config.to_dict(), "num_labels", *cls.config_class.other_names}
        for name in changes:
            if name not in known:
                raise TypeError(
                    f"{cls.config_class.__name__} has no key {name!r}{nearest(name, [*known, *cls.options, 'dtype'])}"
                )
        return (config.replaced(**changes) if changes else config), options


def match(places: Mapping[str, Tensor], weights: checkpoint.Weights, prefix: str, ignored: Iterable[str] = ()) -> Fit:
    """Find for every name of a checkpoint its place in a model.

    A checkpoint of the model without head fits into one with a head and the other way round: `prefix` is added or taken
    away where that makes a name known.
    """
    found: dict[str, str] = {}
    unexpected, misfits = [], {}
    for name in weights.names:
        if any(re.search(pattern, name) for pattern in ignored):
            continue
        place = _place(name, places, prefix)
        if place is None:
            unexpected.append(name)
        elif place in found:
            misfits[place] = f"{place!r} stands there twice, as {found[place]!r} and as {name!r}"
        else:
            found[place] = name
    for place, name in found.items():
        spec = weights.spec(name)
        if spec.shape != places[place].shape:
            misfits[place] = f"{place!r} is {spec.shape} there and {places[place].shape} in the model"
        elif not spec.dtype.startswith(("F", "BF")):
            misfits[place] = f"{place!r} is {spec.dtype} there, not floating"
    given = {id(places[place]) for place in found}  # a tied weight is there under whichever name
    missing = [name for name, tensor in first_names(places).items() if id(tensor) not in given]
    return Fit(found, missing, unexpected, misfits)


def _place(name: str, places: Mapping[str, Tensor], prefix: str) -> str | None:
    for old, new in OLD_NAMES:
        name = name.replace(old, new)
    candidates = (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}."))
    return next((candidate for candidate in candidates if candidate in places), None)


def _settle(where: str, fit: Fit, strict: bool, ignore_mismatched_sizes: bool) -> list[str]:
    """Raise or warn for what does not fit; gives the names of the weights that start fresh."""
    if not fit.found:
        raise CheckpointError(
            f"{where}: none of its weights has a place in the model, which lacks {_listed(fit.missing)}"
        )
    lines = []
    if fit.missing:
        lines.append(f"the checkpoint lacks {_listed(fit.missing)}")
    if fit.unexpected:
        lines.append(f"the model has no place for {_listed(fit.unexpected)}")
    if fit.misfits and not ignore_mismatched_sizes:
        mend = "check the config, or give ignore_mismatched_sizes=True to start them fresh"
        misfits = "; ".join([*fit.misfits.values()][:_SHOWN]) + _more(fit.misfits)
        raise CheckpointError(f"{where}: {'; '.join([misfits, *lines])}; {mend}")
    if lines and strict:
        raise CheckpointError(f"{where}: {'; '.join(lines)}")
    fresh = [*fit.missing, *fit.misfits]
    for place in fit.misfits:
        del fit.found[place]
    if fit.misfits:
        lines.append(f"other shapes there have {_listed([*fit.misfits])}")
    if lines:
        starts = "; what is not loaded starts fresh and has to be trained" if fresh else ""
        warnings.warn(f"{where}: {'; '.join(lines)}{starts}", stacklevel=users_level())
    return fresh


def _listed(names: list[str]) -> str:
    return f"{len(names)} weight{'s' * (len(names) != 1)}: {', '.join(map(repr, names[:_SHOWN]))}{_more(names)}"


def _more(names: Any) -> str:
    return f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""


def _widest(weights: checkpoint.Weights, fit: Fit) -> np.dtype:
    """The dtype that holds all of the checkpoint's numbers."""
    dtypes = {weights.spec(name).dtype for name in fit.found.values()}
    return np.result_type(*["f4" if dtype == "BF16" else safetensors.DTYPES[dtype] for dtype in dtypes])


def _start(model: Module, fresh: Iterable[str]) -> None:
    """Draw the weights that the checkpoint does not give, as the model would have started."""
    for path in dict.fromkeys(name.rpartition(".")[0] for name in fresh):
        module = model.get_submodule(path)
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def _fill(where: str, places: Mapping[str, Tensor], found: Mapping[str, str], weights: checkpoint.Weights) -> None:
    """Copy the weights to their places, one at a time."""
    filled: dict[int, str] = {}
    for place, name in found.items():
        tensor = places[place]
        array = weights.get(name)
        if id(tensor) not in filled:
            overwrite(tensor, array)
            filled[id(tensor)] = place
        elif not np.array_equal(tensor.backend.to_numpy(tensor.array), array.astype(tensor.dtype)):
            raise CheckpointError(
                f"{where}: {place!r} and {filled[id(tensor)]!r} are one weight in the model, and two different ones "
                "there; tie_word_embeddings=False keeps both"
            )
