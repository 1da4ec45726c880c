"""The state of an optimizer, by position or by name: as PyTorch has it, and for a file as flat tensors and text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..autograd_core.inplace import overwrite
from ..autograd_core.tensor import Tensor, asarray
from ..backends import BACKEND_BY_TYPE
from .optimizer import Optimizer

Key = int | str


def state_dict(optimizer: Optimizer, model: Any = None) -> dict[str, Any]:
    """See `Optimizer.state_dict`."""
    keys = _keys(optimizer, model)
    groups = []
    for group in optimizer.param_groups:
        packed = {name: value for name, value in group.items() if name != "params"}
        groups.append({**packed, "params": [keys[id(p)] for p in group["params"]]})
    state = {
        keys[id(p)]: {n: v.detach() if isinstance(v, Tensor) else v for n, v in entry.items()}
        for p, entry in optimizer.state.items()
    }
    return {"state": state, "param_groups": groups}


def load_state_dict(optimizer: Optimizer, state: Mapping[str, Any], model: Any = None) -> None:
    """See `Optimizer.load_state_dict`. The options come from the state too, as in PyTorch."""
    if not isinstance(state, Mapping) or not {"state", "param_groups"} <= set(state):
        raise ValueError('an optimizer\'s state is a dict with "state" and "param_groups", as state_dict() gives it')
    saved, groups = state["param_groups"], optimizer.param_groups
    if [len(g["params"]) for g in saved] != [len(g["params"]) for g in groups]:
        raise ValueError(
            f"the state is of {_sizes(saved)}, the optimizer has {_sizes(groups)}; build it with the same groups first"
        )
    by_name = any(isinstance(k, str) for g in saved for k in g["params"])
    keys = _keys(optimizer, model) if by_name else _positions(optimizer)
    if by_name and any(isinstance(k, int) for k in keys.values()):
        raise ValueError(
            "the state is keyed by names, the optimizer has none: build it from model.named_parameters(), or pass the "
            "model, load_state_dict(state, model)"
        )
    options = [_options(g, optimizer.defaults) for g in saved]
    parameters = {keys[id(p)]: (p, group) for g, group in zip(groups, options, strict=True) for p in g["params"]}
    _check_names(parameters, [k for g in saved for k in g["params"]], list(state["state"]))
    for number, (group, given) in enumerate(zip(groups, saved, strict=True)):
        if {keys[id(p)] for p in group["params"]} != set(given["params"]):
            raise ValueError(f"group {number} of the state holds other parameters than group {number} of the optimizer")
    for group in options:
        optimizer.check({**optimizer.defaults, **group})
    made = {}
    for key, entry in state["state"].items():
        parameter, group = parameters[key]
        made[parameter] = _entry(optimizer, key, parameter, {**optimizer.defaults, **group}, entry)
    optimizer.state = {p: _into(optimizer.state.get(p, {}), new) for p, new in made.items()}
    for group, given in zip(groups, options, strict=True):
        group.update(given)


def to_arrays(optimizer: Optimizer, model: Any = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """See `Optimizer.to_arrays`."""
    packed = state_dict(optimizer, model)
    tensors = {}
    for key, entry in packed["state"].items():
        for name, value in entry.items():
            tensors[f"{key}/{name}"] = value if isinstance(value, Tensor) else asarray(np.asarray(value, np.int64))
    text = json.dumps({"class": type(optimizer).__name__, "param_groups": packed["param_groups"]}, default=float)
    return tensors, {"optimizer": text}


def from_arrays(
    optimizer: Optimizer, tensors: Mapping[str, Any], metadata: Mapping[str, str], model: Any = None
) -> None:
    """See `Optimizer.from_arrays`."""
    if "optimizer" not in metadata:
        raise ValueError("the metadata has no entry 'optimizer': these are not the arrays of an optimizer")
    described = json.loads(metadata["optimizer"])
    if described["class"] != type(optimizer).__name__:
        raise ValueError(f"the arrays are of {described['class']}, this optimizer is {type(optimizer).__name__}")
    by_text = {str(k): k for group in described["param_groups"] for k in group["params"]}
    state: dict[Key, dict[str, Any]] = {}
    for path, value in tensors.items():
        key, slash, name = path.rpartition("/")
        if not slash or key not in by_text:
            raise ValueError(f"{path!r} is not <parameter>/<state> of one of the optimizer's {len(by_text)} parameters")
        state.setdefault(by_text[key], {})[name] = value
    load_state_dict(optimizer, {"state": state, "param_groups": described["param_groups"]}, model)


def _positions(optimizer: Optimizer) -> dict[int, Key]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {id(p): position for position, p in enumerate(parameters)}


def _keys(optimizer: Optimizer, model: Any) -> dict[int, Key]:
    """id of a parameter → its name, or its position where there are no names."""
    if model is not None:
        names: dict[int, Key] = {id(p): name for name, p in model.named_parameters()}
        lacking = [position for p, position in _positions(optimizer).items() if p not in names]
        if lacking:
            raise ValueError(
                f"{len(lacking)} of the optimizer's parameters do not belong to this {type(model).__name__}, "
                f"the first at position {lacking[0]}"
            )
        return names
    if "param_names" in optimizer.param_groups[0]:
        return {
            id(p): name
            for group in optimizer.param_groups
            for p, name in zip(group["params"], group["param_names"], strict=True)
        }
    return _positions(optimizer)


def _sizes(groups: Sequence[Mapping[str, Any]]) -> str:
    counts = [len(group["params"]) for group in groups]
    return f"{len(counts)} group{'s' if len(counts) > 1 else ''} with {', '.join(map(str, counts))} parameters"


def _options(group: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    # JSON has no tuples: a list is one again where the option is one by default.
    kept = {k: v for k, v in group.items() if k not in ("params", "param_names")}
    return {k: tuple(v) if isinstance(defaults.get(k), tuple) else v for k, v in kept.items()}


def _check_names(parameters: Mapping[Key, Any], listed: list[Key], with_state: list[Key]) -> None:
    import difflib

    own = [k for k in parameters if isinstance(k, str)]
    unknown = [k for k in [*listed, *with_state] if k not in parameters]
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), own, 3)
        hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
        raise ValueError(f"the state has {len(set(unknown))} parameters that the optimizer lacks: {unknown[0]!r}{hint}")


def _entry(
    optimizer: Optimizer, key: Key, p: Tensor, hyper: Mapping[str, Any], entry: Mapping[str, Any]
) -> dict[str, Any]:
    """The state of one parameter, with arrays of its own on the parameter's backend, in the order of `init`."""
    fresh = optimizer.init(p.array, hyper)
    names = {"step", *fresh}
    if set(entry) != names:
        raise ValueError(
            f"the state of {key!r} holds {sorted(entry)}, {type(optimizer).__name__} needs {sorted(names)}"
        )
    made: dict[str, Any] = {"step": int(np.asarray(_on_host(entry["step"])))}
    for name, array in fresh.items():
        value = _on_host(entry[name])
        if tuple(value.shape) != tuple(array.shape):
            raise ValueError(f"{name!r} of {key!r} must have shape {tuple(array.shape)}, got {tuple(value.shape)}")
        made[name] = Tensor(p.backend.asarray(np.array(value), dtype=array.dtype))
    return made


def _into(held: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new`, in the dict and the Tensors that are there already where they fit: programs are bound to these."""

    def placed(name: str, value: Any) -> Any:
        place = held.get(name)
        if isinstance(place, Tensor) and _kind(place) == _kind(value):
            return overwrite(place, value)
        return value

    found = {name: placed(name, value) for name, value in new.items()}
    held.clear()
    held |= found
    return held


def _kind(value: Tensor) -> tuple[Any, ...]:
    return type(value.array), value.shape, value.dtype


def _on_host(value: Any) -> Any:
    array = value.array if isinstance(value, Tensor) else value
    backend = BACKEND_BY_TYPE.get(type(array))
    return np.asarray(array) if backend is None else backend.to_numpy(array)
