"""Names for what a program touches: its arguments, the tensors from outside, the numbers that host calls fill.

A parameter is called as in its model's `state_dict`, a state of an optimizer "weight/exp_avg" as in its files, a tensor
that the function's own variables hold as the variable. What nobody has a name for is numbered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..tensor import TENSOR_TYPES, Tensor
from .tape import Tape

Named = dict[str, Tensor]


def argument_names(
    function: Callable, args: Sequence[Any], kwargs: dict[str, Any], passed: Sequence[Tensor]
) -> list[str]:
    """A name for each of the arguments that are in `passed`, in their order: "x", "batch.images", "states.0"."""
    import inspect

    try:
        parameters = list(inspect.signature(getattr(function, "forward", function)).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "args")
    found, among = [], set(map(id, passed))
    for i, value in enumerate(args):
        name = plain[i] if i < len(plain) else f"{rest}.{i - len(plain)}"
        found += [path for path, t in tensors_in(name, value) if id(t) in among]
    for name, value in kwargs.items():
        found += [path for path, t in tensors_in(name, value) if id(t) in among]
    return found


def named_storages(tape: Tape, function: Callable) -> Named:
    """Name → tensor, of everything outside that has a name; a tensor of several names has the first of them."""
    found: Named = {}
    taken: dict[int, str] = {}

    def enter(name: str, tensor: Any) -> None:
        if type(tensor) in TENSOR_TYPES and id(tensor) not in taken:
            taken[id(tensor)] = unique(name, found)
            found[taken[id(tensor)]] = tensor

    known = dict(variables(function))
    roots = _roots(list(tape.modules.values()))
    for module in roots:
        called = next((k for k, v in known.items() if v is module), type(module).__name__.lower())
        prefix = "" if len(roots) == 1 else called
        for name, tensor in [*module.named_parameters(prefix=prefix), *module.named_buffers(prefix=prefix)]:
            enter(name, tensor)
    for name, value in known.items():
        for path, tensor in tensors_in(name, value):
            enter(path, tensor)
    for optimizer in tape.optimizers.values():
        for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"]):
            enter(f"parameters.{i}", p)
            for name, tensor in optimizer.state.get(p, {}).items():
                enter(f"{taken[id(p)]}/{name}", tensor)
    return found


def host_numbers(tape: Tape) -> Named:
    """Name → 0-d tensor, of the numbers that host calls fill before each run."""
    owners = {id(owner): owner for owner in map(owner_of, tape.host_calls)}.values()
    found: Named = {}
    for owner in owners:
        for name, tensor in owner.named_numbers() if hasattr(owner, "named_numbers") else ():
            found[unique(name, found)] = tensor
    return found


def owner_of(call: Any) -> Any:
    """The object whose method a host call is; a call may be a partial one."""
    return getattr(call, "__self__", None) or call.func.__self__


def module_paths(tape: Tape) -> dict[int, str]:
    """id of a module → its class and path in the outermost one, such as "Linear 0.fc1"."""
    return {
        id(m): f"{type(m).__name__} {path}".rstrip()
        for root in _roots(list(tape.modules.values()))
        for path, m in root.named_modules()
    }


def unique(name: str, taken: Any) -> str:
    """The name, with a number behind it where it is taken."""
    found, n = name, 1
    while found in taken:
        n += 1
        found = f"{name}.{n}"
    return found


def _roots(modules: list[Any]) -> list[Any]:
    """The modules that are in no other one."""
    inside = {id(m) for root in modules for _, m in root.named_modules() if m is not root}
    return [m for m in modules if id(m) not in inside]


def variables(function: Any) -> Iterator[tuple[str, Any]]:
    """What the function's own names stand for: its closure, and the globals it mentions."""
    import inspect

    function = getattr(inspect.unwrap(function), "__func__", inspect.unwrap(function))
    if not inspect.isfunction(function):
        return
    try:
        found = inspect.getclosurevars(function)
    except ValueError:  # a name that has no value yet
        return
    yield from found.nonlocals.items()
    yield from found.globals.items()


def tensors_in(name: str, value: Any, around: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(path, tensor) for each tensor in a nest, the path with dots; in the order of `tree_leaves`.

    `around`: the nests that it lies in, by id: one may hold itself.
    """
    kind = type(value)
    if kind in TENSOR_TYPES:
        yield name, value
    elif issubclass(kind, (dict, list, tuple)) and id(value) not in around:
        for key, inner in value.items() if issubclass(kind, dict) else enumerate(value):
            if type(inner) in TENSOR_TYPES or issubclass(type(inner), (dict, list, tuple)):  # not for each number
                yield from tensors_in(f"{name}.{key}", inner, (*around, id(value)))
