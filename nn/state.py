"""The state of a module: a flat dict of names and Tensors, and a strict way back that changes all or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..autograd_core.inplace import overwrite
from ..autograd_core.tensor import Tensor
from ..backends import BACKEND_BY_TYPE, backend_of
from .errors import nearest
from .module import Module, _joined, _own_buffers, _own_parameters

_SHOWN = 6  # names per list in an error


class Loaded(NamedTuple):
    """What `load_state_dict(..., strict=False)` left out: names without a value, and values without a place."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def state_dict(module: Module, prefix: str = "") -> dict[str, Tensor]:
    """Dotted name → detached Tensor on the same memory, for parameters and persistent buffers, in fixed order.

    A parameter that is shared by two modules appears once, under its first name. Save it with `rg.save`.

    >>> import retrograd as rg
    >>> {name: t.shape for name, t in rg.nn.Linear(3, 2).state_dict().items()}
    {'weight': (2, 3), 'bias': (2,)}
    """
    seen: set[int] = set()
    state: dict[str, Tensor] = {}
    for name, tensor in entries(module):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            state[prefix + name] = tensor.detach()
    return state


def load_state_dict(module: Module, state: Mapping[str, Any], strict: bool = True) -> Loaded:
    """Copy values into the parameters and buffers of those names, in place.

    Args:
        state: name → Tensor or array, as `state_dict` or `rg.load` give it. A shared parameter may stand under any of
            its names. Values are cast within their kind (float64 to float32) and moved to the module's backend.
        strict: names that are missing or unexpected are errors; otherwise they are left out and returned. A value of
            another shape or kind is always an error.
    Raises:
        RuntimeError: the state does not fit. The text lists missing, unexpected and misshapen names with the nearest
            ones that exist, and nothing has been changed.

    >>> import retrograd as rg
    >>> rg.nn.Linear(3, 2).load_state_dict({"wieght": rg.zeros((2, 3)), "bias": rg.zeros(2)})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    RuntimeError: the state does not fit Linear, nothing was changed; missing 1: 'weight'; unexpected 1: ...
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"load_state_dict expects a dict of names and Tensors, got {type(state).__name__}; rg.load(path) reads one."
        )
    places = dict(entries(module))
    given = {id(places[n]) for n in state if n in places}  # a shared parameter is there under whichever name
    missing = [n for n, t in first_names(places).items() if id(t) not in given]
    unexpected = [n for n in state if n not in places]
    values: dict[int, tuple[str, Tensor, Any]] = {}
    misfits = []
    for name, target in places.items():
        if name in state:
            array = _fitting(target, state[name])
            if isinstance(array, str):
                misfits.append(f"{name!r} {array}")
            elif id(target) in values and not _equal(target, array, values[id(target)][2]):
                misfits.append(f"{name!r} is the same parameter as {values[id(target)][0]!r}, but its values differ")
            else:
                values.setdefault(id(target), (name, target, array))
    if misfits or (strict and (missing or unexpected)):
        raise RuntimeError(_explain(module, missing if strict else [], unexpected if strict else [], misfits))
    for _, target, array in values.values():
        overwrite(target, Tensor(array))
    return Loaded(missing, unexpected)


def entries(module: Module) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of what belongs to the state, shared ones more than once; a module's own before its children's."""
    for path, owner in module.named_modules(remove_duplicate=False):
        for name, tensor in _own_parameters(owner):
            yield _joined(path, name), tensor
        for name, tensor in _own_buffers(owner):
            if owner._buffers[name]:
                yield _joined(path, name), tensor


def first_names(places: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `entries` gave, each tensor once, under its first name."""
    first: dict[int, str] = {}
    for name, tensor in places.items():
        first.setdefault(id(tensor), name)
    return {name: places[name] for name in first.values()}


def _fitting(target: Tensor, value: Any) -> Any:
    """`value` as an array that can be copied into `target`, or in words why it cannot."""
    array = value.array if isinstance(value, Tensor) else np.asarray(value) if isinstance(value, np.generic) else value
    if type(array) not in BACKEND_BY_TYPE and not isinstance(array, np.ndarray):
        return f"expected a Tensor or an array, got {type(value).__name__}"
    if tuple(array.shape) != target.shape:
        return f"expected {target.shape}, got {tuple(array.shape)}"
    if not np.can_cast(array.dtype, target.dtype, "same_kind"):
        return f"expected {target.dtype}, got {array.dtype}"
    if type(array) is not type(target.array):
        array = array if isinstance(array, np.ndarray) else backend_of(array).to_numpy(array)
        array = target.backend.asarray(array)
    return array.astype(target.dtype) if array.dtype != target.dtype else array


def _equal(target: Tensor, one: Any, other: Any) -> bool:
    to_numpy = target.backend.to_numpy
    return one is other or np.array_equal(to_numpy(one), to_numpy(other), equal_nan=target.dtype.kind in "fc")


def _explain(module: Module, missing: list[str], unexpected: list[str], misfits: list[str]) -> str:
    parts = [f"the state does not fit {type(module).__name__}, nothing was changed"]
    if missing:
        parts.append(f"missing {len(missing)}: {_listed([repr(n) for n in missing])}")
    if unexpected:
        names = missing or list(dict(entries(module)))
        shown = []
        for name in unexpected[: _SHOWN + 1]:
            hint = nearest(str(name), names).removeprefix("; ")
            shown.append(f"{name!r} ({hint})" if hint else repr(name))
        parts.append(f"unexpected {len(unexpected)}: {_listed(shown, len(unexpected))}")
    if misfits:
        parts.append(f"not fitting {len(misfits)}: {_listed(misfits)}")
    return "; ".join(parts)


def _listed(texts: list[str], total: int | None = None) -> str:
    more = (total or len(texts)) - _SHOWN
    return ", ".join(texts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
