"""LoRA: fine-tuning a large model by training small additions to its weights.

A weight W (out, in) stays as it was published. Beside it two thin matrices A (rank, in) and B (out, rank) are trained,

    y = W · x  +  alpha / rank · B · (A · x)

with B = 0 at the start, so that the first step begins at the published model. The change B · A of a weight has rank
`rank` only, which turns out to be enough: of BERT's 110 million parameters 0.3 % are trained, saved and kept in the
optimizer. After training the product can be added to W, and nothing of this is left in the model (`merge_lora`).

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021. Files have the names and the layout of
those that the peft library reads and writes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from ..autograd_core import safetensors
from ..autograd_core.context import no_grad
from ..autograd_core.record import tensor_ops as ops
from ..autograd_core.storage import save
from ..autograd_core.tensor import Tensor
from ..autograd_core.text_files import read_json, write_json
from ..nn import Dropout, Linear, Module, init
from ..nn.errors import nearest
from .layers import Conv1D

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."  # what peft puts in front of every name: the path of the model inside its wrapper
_HEADS = ("classifier", "score")

M = TypeVar("M", bound=Module)
Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """What adapters a model has.

    Attributes:
        rank: rows of A and columns of B. alpha: the additions are multiplied by alpha / rank.
        dropout: of the input of the additions, in training.
        targets: the last parts of the names of the layers that are adapted.
        modules_to_save: modules that are trained whole and saved beside the adapters, such as a new classifier.
    """

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = ("query", "value")
    modules_to_save: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise ValueError(f"the rank of LoRA is a whole number above 0, got {self.rank!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"the dropout of LoRA is a probability in 0…1, got {self.dropout!r}")


class LoraLayer(Module):
    """A Linear or Conv1D with an addition of low rank: (…, in_features) → (…, out_features).

    Submodules: `base_layer`, frozen; `lora_A` and `lora_B`, whose weights are (rank, in) and (out, rank).
    """

    def __init__(self, base: Linear | Conv1D, config: LoraConfig):
        super().__init__()
        dtype = base.weight.dtype
        self.base_layer = base
        self.lora_dropout = Dropout(config.dropout)
        self.lora_A = Linear(base.in_features, config.rank, bias=False, dtype=dtype)
        self.lora_B = Linear(config.rank, base.out_features, bias=False, dtype=dtype)
        init.zeros_(self.lora_B.weight)
        if base.weight.backend is not self.lora_A.weight.backend:
            self.to(base.weight.backend)
        self.scaling = config.alpha / config.rank
        self.train(base.training)

    def forward(self, input: Tensor) -> Tensor:
        # Scaled where the array is thin.
        thin = ops.multiply(self.lora_A(self.lora_dropout(input)), self.scaling)
        return ops.add(self.base_layer(input), self.lora_B(thin))

    def delta(self) -> Tensor:
        """The addition as one matrix of the base weight's shape: what merging adds."""
        product = ops.multiply(ops.matmul(self.lora_B.weight, self.lora_A.weight), self.scaling)
        return ops.transpose(product) if isinstance(self.base_layer, Conv1D) else product

    def extra_repr(self) -> str:
        return f"rank={self.lora_A.out_features}, scaling={self.scaling:g}"


def add_lora(
    model: M,
    rank: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: Sequence[str] = ("query", "value"),
    modules_to_save: Sequence[str] | None = None,
) -> M:
    """Put adapters beside layers of a model, in place, and freeze everything else; returns the model.

    Args:
        model: any Module.
        rank, alpha, dropout: see LoraConfig.
        targets: layers (Linear or Conv1D) are adapted whose dotted name is one of these or ends in "." and one of them.
            ("query", "value") are the names in a BERT; GPT-2 has ("c_attn",).
        modules_to_save: names, in the same sense, of modules that are trained whole and saved with the adapters. By
            default the heads that have to be learnt anew, "classifier" and "score", where the model has them.
    Raises:
        ValueError: a name that no module has (lists those that there are), numbers out of range, or a model that has
            adapters already. The model is unchanged.
        TypeError: a target that is neither Linear nor Conv1D.

    Example:
        >>> import retrograd as rg
        >>> from retrograd.models import add_lora
        >>> model = rg.nn.Sequential(rg.nn.Linear(64, 64), rg.nn.ReLU(), rg.nn.Linear(64, 2))
        >>> model = add_lora(model, rank=4, targets=["0"], modules_to_save=["2"])
        >>> [(name, p.shape) for name, p in model.named_parameters() if p.requires_grad]
        [('0.lora_A.weight', (4, 64)), ('0.lora_B.weight', (64, 4)), ('2.weight', (2, 64)), ('2.bias', (2,))]
    """
    if modules_to_save is None:
        modules_to_save = [name for name in _HEADS if _named(model, name)]
    for name, given in (("targets", targets), ("modules_to_save", modules_to_save)):
        if isinstance(given, str):
            raise TypeError(f"{name} is a list of names, got the text {given!r}; write [{given!r}]")
    config = LoraConfig(rank, alpha, dropout, tuple(targets), tuple(modules_to_save))
    _add(model, config)
    return model


def merge_lora(model: M) -> M:
    """Add what the adapters learnt to the weights, and take the adapters out, in place; returns the model.

    The outputs stay what they were, but for rounding. What was frozen stays frozen: `model.unfreeze()` thaws it.

    Raises ValueError for a model without adapters.

    Example:
        >>> import retrograd as rg
        >>> from retrograd.models import add_lora, merge_lora
        >>> model = add_lora(rg.nn.Sequential(rg.nn.Linear(4, 4)), rank=2, targets=["0"])
        >>> merge_lora(model)
        Sequential(
          (0): Linear(in_features=4, out_features=4, bias=True)
        )
    """
    for name, layer in _adapters(model).items():
        base = layer.base_layer
        with no_grad():
            base.weight.data = ops.add(base.weight, layer.delta())
        _replace(model, name, base)
    del model.lora_config
    return model


def lora_state_dict(model: Module) -> dict[str, Tensor]:
    """Dotted name → detached Tensor of what was trained: the adapters' matrices, and the modules saved whole.

    Raises ValueError for a model without adapters.

    Example:
        >>> import retrograd as rg
        >>> from retrograd.models import add_lora, lora_state_dict
        >>> model = add_lora(rg.nn.Sequential(rg.nn.Linear(4, 4)), rank=2, targets=["0"])
        >>> list(lora_state_dict(model))
        ['0.lora_A.weight', '0.lora_B.weight']
    """
    config = _config(model)
    wanted = [f"{name}.{matrix}" for name in _adapters(model) for matrix in ("lora_A", "lora_B")]
    wanted += [name for saved in config.modules_to_save for name in _named(model, saved)]
    return {n: t for n, t in model.state_dict().items() if any(n.startswith(f"{module}.") for module in wanted)}


def save_lora(model: Module, folder: Path) -> None:
    """Write the adapters alone into a folder, made where it is missing: the files that peft writes and reads.

    `adapter_model.safetensors` holds `lora_state_dict(model)`, every name beginning with "base_model.model.";
    `adapter_config.json` the configuration. Raises ValueError for a model without adapters, OSError from the disk.
    """
    config, state = _config(model), lora_state_dict(model)
    os.makedirs(folder, exist_ok=True)
    save({_PREFIX + name: tensor for name, tensor in state.items()}, os.path.join(folder, WEIGHTS), {"format": "pt"})
    transposed = any(isinstance(layer.base_layer, Conv1D) for layer in _adapters(model).values())
    values = _AS_WE_DO | {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": list(config.targets),
        "modules_to_save": list(config.modules_to_save) or None,
        "fan_in_fan_out": transposed,
        "inference_mode": True,
    }
    write_json(os.path.join(folder, CONFIG), values)


def load_lora(model: M, folder: Path) -> M:
    """Put the adapters of a folder, ours or peft's, beside the layers of a model, in place; returns the model.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: files that are damaged, that ask for what this LoRA does not do, or that do not fit the model; says
            which names. The model is unchanged.

    Example:
        >>> import os, tempfile
        >>> import retrograd as rg
        >>> from retrograd.models import add_lora, load_lora, save_lora
        >>> def made():
        ...     rg.manual_seed(0)
        ...     return rg.nn.Sequential(rg.nn.Linear(4, 4))
        >>> model = add_lora(made(), rank=2, targets=["0"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_lora(model, folder)
        ...     sorted(os.listdir(folder))
        ...     again = load_lora(made(), folder)
        ['adapter_config.json', 'adapter_model.safetensors']
        >>> again[0].lora_A.weight.tolist() == model[0].lora_A.weight.tolist()
        True
    """
    config = _read_config(os.path.join(folder, CONFIG))
    path = os.path.join(folder, WEIGHTS)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{os.fspath(folder)} has no {WEIGHTS}, the weights of the adapters")
    arrays, _ = safetensors.read(path)
    state = {name.removeprefix(_PREFIX): array for name, array in arrays.items()}
    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    _add(model, config)
    try:
        _load(model, state, path)
    except Exception:
        for name, layer in _adapters(model).items():
            _replace(model, name, layer.base_layer)
        del model.lora_config
        for parameter, flag in required:
            parameter.requires_grad = flag
        raise
    return model


# -- the layers of a model --------------------------------------------------------------------------------------------


def _add(model: Module, config: LoraConfig) -> None:
    if hasattr(model, "lora_config"):
        raise ValueError(f"this {type(model).__name__} has adapters already; merge_lora(model) takes them in")
    found = {}
    for target in config.targets:
        for name, layer in _found(model, target).items():
            if not isinstance(layer, Linear | Conv1D):
                raise TypeError(f"LoRA adapts Linear and Conv1D layers, {name!r} is a {type(layer).__name__}")
            found[name] = layer
    if not found:
        raise ValueError("targets names no layer to adapt")
    whole = [module for saved in config.modules_to_save for module in _found(model, saved).values()]
    model.requires_grad_(False)
    for module in whole:
        module.requires_grad_(True)
    for name, layer in found.items():
        _replace(model, name, LoraLayer(layer, config))
    model.lora_config = config


def _named(model: Module, target: str) -> dict[str, Module]:
    """The modules whose name is `target` or ends in it."""
    return {n: m for n, m in model.named_modules() if n and (n == target or n.endswith(f".{target}"))}


def _found(model: Module, target: str) -> dict[str, Module]:
    found = _named(model, target)
    if not found:
        layers = [name for name, m in model.named_modules() if isinstance(m, Linear | Conv1D)]
        ends = sorted({name.rpartition(".")[2] for name in layers})
        shown = ", ".join(ends[:20]) + (" …" if len(ends) > 20 else "")
        raise ValueError(
            f"no module of {type(model).__name__} is called {target!r}; its layers are {shown}{nearest(target, ends)}"
        )
    return found


def _replace(model: Module, name: str, module: Module) -> None:
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, module)


def _adapters(model: Module) -> dict[str, LoraLayer]:
    _config(model)
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _config(model: Module) -> LoraConfig:
    config = vars(model).get("lora_config")
    if config is None:
        raise ValueError(f"this {type(model).__name__} has no adapters: add_lora(model) puts them in")
    return config


def _load(model: Module, state: dict[str, np.ndarray], path: str) -> None:
    wanted = lora_state_dict(model)
    missing, strange = sorted(wanted.keys() - state), sorted(state.keys() - wanted)
    if missing or strange:
        parts = [
            f"{what} {len(n)}, such as {n[0]!r}" for what, n in (("missing", missing), ("unexpected", strange)) if n
        ]
        raise ValueError(f"{path} does not fit this {type(model).__name__}: {'; '.join(parts)}")
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{path}: {error}") from None


# -- the configuration file -------------------------------------------------------------------------------------------

# What peft can vary and we do not: key → the one value that we understand. None in a file stands for the default.
_AS_WE_DO: dict[str, Any] = {
    "bias": "none",
    "use_rslora": False,
    "use_dora": False,
    "lora_bias": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
    "layers_pattern": None,
    "exclude_modules": None,
    "trainable_token_indices": None,
    "target_parameters": None,
}


def _read_config(path: str) -> LoraConfig:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{os.path.dirname(path) or '.'} has no {CONFIG}, which says what the adapters are")
    values = read_json(path)
    if values.get("peft_type", "LORA") != "LORA":
        raise ValueError(f"{path}: expected adapters of peft_type 'LORA', got {values['peft_type']!r}")
    for key, known in _AS_WE_DO.items():
        if values.get(key) not in (known, None, [], {}):
            raise ValueError(f"{path}: {key}={values[key]!r} is not supported, {known!r} is")
    targets = values.get("target_modules")
    if not isinstance(targets, list):
        raise ValueError(f"{path}: expected target_modules to be a list of names, got {targets!r}")
    try:
        saved = tuple(values.get("modules_to_save") or ())
        rank, alpha = values["r"], values["lora_alpha"]
        return LoraConfig(rank, alpha, values.get("lora_dropout", 0.0), tuple(targets), saved)
    except (KeyError, TypeError, ValueError) as error:
        what = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: {what}") from None
