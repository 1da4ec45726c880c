"""From what a user passes as `params` to groups: dicts of parameters and the options that hold for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..autograd_core.errors import describe
from ..autograd_core.tensor import Tensor

Group = dict[str, Any]


def groups_of(params: Any) -> list[Group]:
    """`params` as a list of groups with "params" (a list) and, where names were given, "param_names"."""
    items = _listed(params)
    if not items:
        raise ValueError(
            "the optimizer got no parameters. A model that is built without parameters, or an iterator that was used "
            "up before, looks like this."
        )
    if isinstance(items[0], Mapping):
        return [group_of(item) for item in items]
    return [group_of({"params": items})]


def group_of(given: Any) -> Group:
    """One group, its parameters listed and checked."""
    if not isinstance(given, Mapping) or "params" not in given:
        raise TypeError(f"a parameter group is a dict with the key 'params', got {_kind(given)}")
    group = dict(given)
    items = [given["params"]] if isinstance(given["params"], Tensor) else _listed(given["params"])
    named = [isinstance(i, tuple) and len(i) == 2 and isinstance(i[0], str) for i in items]
    if any(named) and not all(named):
        raise TypeError("either all parameters of a group are given with names, as (name, parameter), or none")
    if any(named):
        group["param_names"] = [name for name, _ in items]
        items = [parameter for _, parameter in items]
    for position, parameter in enumerate(items):
        _check_parameter(parameter, position)
    group["params"] = items
    return group


def check_disjoint(groups: Sequence[Group]) -> None:
    """Refuse a parameter that is given twice: it would be updated twice in each step."""
    seen: dict[int, str] = {}
    for number, group in enumerate(groups):
        for position, parameter in enumerate(group["params"]):
            place = f"group {number}, position {position}"
            if id(parameter) in seen:
                raise ValueError(
                    f"{describe(parameter)} at {place} is in the optimizer already, at {seen[id(parameter)]}"
                )
            seen[id(parameter)] = place
    unnamed = ["param_names" not in group for group in groups]
    if any(unnamed) and not all(unnamed):
        raise ValueError("either all parameter groups have names or none")


def complete(group: Group, defaults: Mapping[str, Any], check: Any) -> Group:
    """The group with every option that it does not name; a misspelled one is an error, any other key is the user's."""
    import difflib

    for key in group:
        if key not in defaults and key not in _OURS:
            close = difflib.get_close_matches(key, defaults, 1, 0.8)
            if close:
                raise ValueError(f"unknown option {key!r} in a parameter group; did you mean {close[0]!r}?")
    whole = {**defaults, **group}
    check(whole)
    return whole


_OURS = ("params", "param_names", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum")


def _listed(params: Any) -> list[Any]:
    if isinstance(params, Tensor):
        raise TypeError(f"an optimizer takes a list of parameters, got one {describe(params)}: write [parameter]")
    if hasattr(params, "named_parameters"):
        raise TypeError(
            f"an optimizer takes parameters, got the module itself: write {type(params).__name__.lower()}.parameters()"
        )
    if isinstance(params, Mapping) and "params" in params:
        return [params]
    if isinstance(params, Mapping):
        return list(params.items())
    if not isinstance(params, Iterable) or hasattr(params, "dtype"):
        raise TypeError(_NOT_PARAMETERS.format(_kind(params)))
    return list(params)


def _check_parameter(parameter: Any, position: int) -> None:
    if not isinstance(parameter, Tensor):
        raise TypeError(_NOT_PARAMETERS.format(f"{_kind(parameter)} at position {position}"))
    if parameter.node is not None:
        raise ValueError(
            f"an optimizer updates leaves, got the result of {parameter.node.name} at position {position}: give it the "
            "tensor that was made with requires_grad=True, not one that was computed from it"
        )


_NOT_PARAMETERS = (
    "an optimizer updates tensors that collect gradients in .grad, got {}. Make a parameter of each array, "
    "w = rg.nn.Parameter(w), and compute with it; or keep the arrays and update them yourself: w -= lr * gradient."
)


def _kind(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__} {tuple(value.shape)} of {value.dtype}"
    return type(value).__name__
