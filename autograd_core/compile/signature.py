"""What a signature says of the arguments of a call, and which of them are tensors that a program copies in.

    tensor, array      its shape and dtype; of one that wants a gradient also whether it has one
    parameter          itself: it is not copied in but used where it lies, as if the function had reached it by itself
    list, dict, …      their kind, length and keys
    anything else      its value

What cannot be told apart by its value (an object that is not hashable) and what hides tensors is refused: a program
would go on with the ones it was recorded with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ..recorder import RecordingError
from ..tensor import TENSOR_TYPES, Tensor, asarray
from ..transforms import tree_leaves

_CONTAINERS = "lists, tuples, dicts and named tuples"


def describe(tree: Any, nest: list[Any], tensors: list[Tensor], held: Collection[int]) -> None:
    """Add what a signature says of a nest to `nest`, in one walk, and the tensors that are copied in to `tensors`.

    `held`: ids of leaves that the function is known to reach by itself.
    """
    kind = type(tree)
    if kind in TENSOR_TYPES or kind is np.ndarray:
        tensor = asarray(tree) if kind is np.ndarray else tree
        array = tensor.array
        if id(tensor) in held or (tensor.requires_grad and kind not in (Tensor, np.ndarray)):
            nest.append(tensor)
            return
        graph = (tensor.node is None, tensor.grad is None) if tensor.requires_grad else ()
        nest.append((array.shape, array.dtype, graph))
        tensors.append(tensor)
    elif isinstance(tree, dict):
        nest.append((kind, *tree))
        for value in tree.values():
            describe(value, nest, tensors, held)
    elif isinstance(tree, (list, tuple)):
        nest.append((kind, len(tree)))
        for value in tree:
            describe(value, nest, tensors, held)
    else:
        nest.append(_static(tree))


def copied_in(args: Any, kwargs: Any, held: Collection[int]) -> list[Tensor]:
    """The tensors among the arguments that are copied into a program."""
    found: list[Tensor] = []
    describe((args, kwargs), [], found, held)
    return found


def spelled(args: Any, kwargs: Any) -> list[str]:
    """What a signature says of the arguments beside their tensors, to read: kinds, keys, lengths, and static values."""
    found: list[Any] = []
    describe((args, kwargs), found, [], ())
    return [_in_words(entry) for entry in found]


def _in_words(entry: Any) -> str:
    if type(entry) is tuple and isinstance(entry[0], type):
        return " ".join([entry[0].__name__, *map(str, entry[1:])])
    return "a tensor"


def shared(tensors: list[Tensor]) -> tuple[int, ...]:
    """Which of the tensors lie in one array, () if each has its own: such a program reads and writes one place."""
    ids = [id(tensor.array) for tensor in tensors]
    return () if len(set(ids)) == len(ids) else tuple(map(ids.index, ids))


def _static(value: Any) -> Any:
    if isinstance(value, (float, complex, np.inexact, slice)):
        return type(value), repr(value)  # 0.0 equals -0.0, NaN nothing; a slice has no hash before Python 3.12
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(map(_static, value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not callable(value):
        fields = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
        nest: list[Any] = [type(value)]
        found: list[Tensor] = []
        describe(fields, nest, found, ())
        if found or any(type(v) in TENSOR_TYPES for v in nest):
            raise RecordingError(
                f"an argument of type {type(value).__name__} holds tensors: a compiled function finds them in "
                f"{_CONTAINERS} only. Pass vars(...) of it, or its tensors."
            )
        return tuple(nest)
    try:
        hash(value)
    except TypeError:
        raise RecordingError(
            f"an argument of type {type(value).__name__} can be neither copied into a program nor told from another "
            f"one by its hash. A compiled function takes tensors, arrays, {_CONTAINERS} of them, and hashable values."
        ) from None
    return type(value), value


def check_results(result: Any) -> None:
    """Raise RecordingError for a result that is no tensor and that a replay would repeat though it hides one."""
    for path, value in tree_leaves(result):
        if isinstance(value, np.ndarray):
            raise RecordingError(
                f"result{path} is a NumPy array, whose values a replay would repeat. Return a Tensor, and take its "
                ".numpy() outside."
            )
        if _hides_tensors(value):
            raise RecordingError(
                f"result{path} is a {type(value).__name__} that holds tensors: a compiled function returns them in "
                f"{_CONTAINERS} only."
            )


def _hides_tensors(value: Any) -> bool:
    if type(value) in TENSOR_TYPES or callable(value) or hasattr(value, "param_groups"):
        return False
    inside = list(value) if isinstance(value, (set, frozenset, Mapping)) else []
    inside += [*getattr(value, "__dict__", {}).values()]
    return any(type(v) in TENSOR_TYPES or isinstance(v, np.ndarray) for _, v in tree_leaves(inside))


_VALUES = (bool, int, float, complex, str, bytes, type(None))
MODES = 3  # where a signature, as `Compiled._signature` puts it together, begins to say what was met: first the modules


def what_changes(modules: Collection[Any], one: Any, other: Any) -> str:
    """Why there are more and more signatures, as two of them show it, and what to do."""
    pairs = zip(modules, one[MODES], other[MODES], strict=False)
    for module, (_, registered, before), (_, again, after) in pairs:
        names = sorted({name for name, _ in set(before) ^ set(after)})
        if names:
            return (
                f"the attribute {names[0]!r} of {type(module).__name__} changes from call to call, and is part of each "
                "signature. Keep it in a 0-d Tensor (a buffer, changed with fill_), or pass it as one."
            )
        if registered != again:
            return (
                f"a parameter, buffer, submodule or hook of {type(module).__name__} is replaced from call to call. "
                "Change its values in place (fill_, copy_) under rg.no_grad()."
            )
    for before, after in zip(one[0], other[0], strict=False):
        values = [part for part in (before, after) if type(part) is tuple and part and type(part[0]) is type]
        if len(values) == 2 and issubclass(values[1][0], _VALUES) and values[0] != values[1]:
            return (
                f"an argument that is a {values[1][0].__name__} changes from call to call, it was {values[0][1]} and "
                f"{values[1][1]!s}, and is part of each signature. Pass a number that changes as a 0-d tensor, and "
                "leave out what the computation does not need."
            )
    return "pad its arguments to a few shapes, and pass numbers that change as 0-d tensors."
