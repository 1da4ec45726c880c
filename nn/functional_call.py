"""Running a module with other parameters than its own: the door from modules to functional transforms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..autograd_core.errors import one_frame
from ..autograd_core.tensor import Tensor
from .errors import nearest
from .module import Module, _joined, _own_buffers, _own_parameters


@one_frame
def functional_call(module: Module, tensors: Mapping[str, Any], /, *args: Any, **kwargs: Any) -> Any:
    """`module(*args, **kwargs)` with the parameters and buffers named in `tensors` in place of its own.

    Names that are not given keep the module's values; a shared parameter is replaced everywhere. The module is as
    before when the call returns, also when it fails. Not for two threads with one module at the same time.

    Args:
        module: any Module.
        tensors: dotted name → Tensor or array of the parameter's shape.
    Raises:
        ValueError: a name that the module does not have, or a shape that differs.

    >>> import retrograd as rg
    >>> layer = rg.nn.Linear(2, 1)
    >>> weights = {"weight": rg.tensor([[1.0, 2.0]]), "bias": rg.tensor([0.5])}
    >>> rg.functional_call(layer, weights, rg.tensor([[3.0, 4.0]]))
    tensor([[11.5]])
    >>> loss = lambda w: rg.sum(rg.functional_call(layer, w, rg.ones((1, 2))))
    >>> rg.grad(loss)(weights)["weight"]
    tensor([[1., 1.]])
    """
    places = [
        (_joined(path, name), owner, name, held)
        for path, owner in module.named_modules(remove_duplicate=False)
        for name, held in [*_own_parameters(owner), *_own_buffers(owner)]
    ]
    given = _checked(module, {name: held for name, _, _, held in places}, tensors)
    replaced = [(owner, name, held) for _, owner, name, held in places if id(held) in given]
    try:
        for owner, name, held in replaced:
            owner.__dict__[name] = given[id(held)]
        return module(*args, **kwargs)
    finally:
        for owner, name, held in replaced:
            owner.__dict__[name] = held


def _checked(module: Module, own: dict[str, Tensor], tensors: Mapping[str, Any]) -> dict[int, Tensor]:
    """id of the tensor to be replaced → the one in its place."""
    given: dict[int, Tensor] = {}
    for name, value in tensors.items():
        if name not in own:
            raise ValueError(f"{type(module).__name__} has no parameter or buffer {name!r}{nearest(name, own)}")
        held = own[name]
        tensor = value if isinstance(value, Tensor) else Tensor(held.backend.asarray(value, dtype=held.dtype))
        if tensor.shape != held.shape:
            raise ValueError(f"{name!r} of {type(module).__name__} has shape {held.shape}, got {tensor.shape}")
        given[id(held)] = tensor
    return given
