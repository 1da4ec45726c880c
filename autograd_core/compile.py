"""`rg.compile`: a function is watched three times, then replayed as a flat program.

    call 1   an eager call: optimizer state and gradients come into being
    call 2   eager and recorded
    call 3   recorded again: what differs is Python state that a replay would freeze, and is an error
    call 4…  the program runs; a new signature needs one recording more

A signature is the nest, shapes and dtypes of the arguments, the values of the static ones, and the modes of what was
entered. Results carry no graph: put `backward()` into the function.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import numpy as np

from .context import current
from .program import Program
from .tape import Tape, compare, record_call
from .tensor import TENSOR_TYPES, Tensor, asarray
from .transforms import tree_leaves, tree_map, tree_rebuild

MAX_PROGRAMS = 64


class Compiled:
    """What `compile` returns: called like the function; attributes of the function (or module) are its own.

    `programs` maps signature to program, `program` is that of the latest replay.
    """

    def __init__(self, function: Callable):
        self.function = function
        self.programs: dict[Any, Program] = {}
        self.program: Program | None = None
        self._results: dict[Any, Any] = {}  # signature → nest of the result
        self._tapes: dict[Any, Tape] = {}
        self._first = True
        self._confirmed = False
        self._lock = threading.Lock()
        if hasattr(function, "__name__"):
            update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            args, kwargs = _as_tensors(args), _as_tensors(kwargs)
            if current().recorder is not None:
                return self.function(*args, **kwargs)
            if self._first:
                return self._warm_up(args, kwargs)
            signature = self._signature(args, kwargs)
            program = self.programs.get(signature)
            if program is not None:
                if program.valid() and all(leaf.grad is not None for _, leaf in program.grad_places):
                    self.program = program
                    leaves = program.run(_tensors(args, kwargs))
                    return tree_rebuild(self._results[signature], iter(leaves))
                del self.programs[signature]  # a storage was replaced: record anew
            return self._record(signature, args, kwargs)

    def _warm_up(self, args: Any, kwargs: Any) -> Any:
        """The first call: what it brings into being is there for the recordings, and optimizers are laid out in one piece."""
        tape, result = record_call(self.function, args, kwargs, {})
        for optimizer in tape.optimizers.values():
            optimizer.flatten()
        self._first = False
        return _detached(result)

    def _record(self, signature: Any, args: Any, kwargs: Any) -> Any:
        first = self._tapes.get(signature)
        slots = {} if first is None else {id(leaf.grad.array): leaf for leaf in first.leaves() if leaf.grad is not None}
        tape, result = record_call(self.function, args, kwargs, slots)
        if not self._confirmed and first is None:
            self._tapes[signature] = tape
            return _detached(result)
        if first is not None:
            compare(first, tape)
            self._confirmed = True
            del self._tapes[signature]
        if len(self.programs) >= MAX_PROGRAMS:
            raise RuntimeError(
                f"a compiled function met its {MAX_PROGRAMS + 1}th signature. Pad its arguments to a few shapes, or pass numbers "
                "that change as 0-d tensors."
            )
        arguments = _tensors(args, kwargs)
        backend = next((t.backend for t in [*arguments, *tape.storages.values()]), None)
        if backend is not None:
            self.programs[signature] = Program(tape, arguments, backend)
            self._results[signature] = tree_map(lambda leaf: None, result)
        return _detached(result)

    def _signature(self, args: Any, kwargs: Any) -> Any:
        leaves = [
            (path, leaf.shape, leaf.dtype, leaf.requires_grad) if type(leaf) in TENSOR_TYPES else (path, _static(leaf))
            for path, leaf in tree_leaves((args, kwargs))
        ]
        return tuple(leaves), current().grad

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["function"], name)

    def __repr__(self) -> str:
        return f"<compiled {getattr(self.function, '__name__', self.function)!s}: {len(self.programs)} programs>"


def compile(function: Callable) -> Compiled:  # noqa: A001  the name that users of PyTorch look for
    """A function (a whole training step, or a model for inference) that runs as a flat program from its fourth call on.

    >>> import retrograd as rg
    >>> w = rg.tensor([2.0], requires_grad=True)
    >>> @rg.compile
    ... def loss_of(x):
    ...     return ((w * x) ** 2).sum()
    >>> [loss_of(rg.tensor([float(i)])).item() for i in range(5)]
    [0.0, 4.0, 16.0, 36.0, 64.0]
    """
    return Compiled(function)


def _as_tensors(tree: Any) -> Any:
    return tree_map(lambda v: asarray(v) if isinstance(v, np.ndarray) else v, tree)


def _tensors(args: Any, kwargs: Any) -> list[Tensor]:
    return [v for _, v in tree_leaves((args, kwargs)) if type(v) in TENSOR_TYPES]


def _static(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return type(value), value


def _detached(result: Any) -> Any:
    return tree_map(lambda v: v.detach() if type(v) in TENSOR_TYPES else v, result)
