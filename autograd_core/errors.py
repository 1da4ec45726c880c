"""Errors that say what was called, what was expected and what came. All text is built on failure only.

At most one framework frame stands below the user's line in a traceback: the error that leaves a public function is a
new one, raised there. `RETROGRAD_TRACEBACK=full` raises the original with all its frames.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..backends import BackendError

if TYPE_CHECKING:
    from .record import Record

_CLASSES = (IndexError, ValueError, TypeError, OverflowError, ZeroDivisionError, MemoryError, FloatingPointError)


class BackendMixError(TypeError):
    """Operands of two backends in one operation: data crosses only where the user says so."""

    explained = True

    def __init__(self, rec: Record, inputs: tuple[Any, ...]):
        tensors = [v for v in inputs if getattr(v, "backend", None) is not None]
        first = tensors[0]
        second = next(t for t in tensors if type(t.array) is not type(first.array))
        super().__init__(
            f"{rec.name}: operands live on different backends: {describe(first)} on {first.backend.name} and "
            f"{describe(second)} on {second.backend.name}. Move one of them, e.g. with .to({first.backend.name!r})."
        )


class CheckpointError(ValueError):
    """Weights or the state of a training run that cannot be written, read or used. One line: what was expected, what
    came, how to mend it."""


def describe(value: Any) -> str:
    """One operand in words: a tensor with dtype and shape, a number as itself.

    >>> import retrograd as rg
    >>> from retrograd.autograd_core.errors import describe
    >>> describe(rg.zeros((2, 3)))
    'float32 tensor (2, 3)'
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        text = repr(value)
        return text if len(text) < 40 else text[:37] + "…"
    return f"{dtype} {'array' if isinstance(value, np.ndarray) else 'tensor'} {tuple(shape)}"


def explained(rec: Record, inputs: tuple[Any, ...], attributes: dict[str, Any], error: Exception) -> Exception:
    """The error to raise for `error`, which a record's forward raised: what was called, and on what."""
    if getattr(error, "explained", False) or isinstance(error, BackendError):
        return error if full_traceback() else error.with_traceback(None)
    names = [*rec.inputs, *[f"{rec.variadic}[{i}]" for i in range(len(inputs) - len(rec.inputs))]]
    operands = ", ".join(f"{n}: {describe(v)}" for n, v in zip(names, inputs, strict=False) if v is not None)
    options = ", ".join(f"{k}={describe(v)}" for k, v in attributes.items() if v is not None)
    where = f"{rec.name}({operands}{', ' if options and operands else ''}{options})"
    text = f"{where}: {_reason(error)}{_hint(rec, inputs, error)}"
    if full_traceback():
        error.add_note(f"in {where}")
        return error
    made: Exception
    if isinstance(error, np.exceptions.AxisError):
        made = np.exceptions.AxisError(text)
    else:
        made = next((cls(text) for cls in _CLASSES if isinstance(error, cls)), None) or error
    if made is error:
        error.add_note(f"in {where}")
    made.explained = True  # type: ignore[attr-defined]
    return made


def _reason(error: Exception) -> str:
    if "core dimension" in str(error) or "not aligned" in str(error):  # np.matmul's words, which help nobody, and dot's
        return "the last axis of the first operand must be as long as the second to last of the second"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _hint(rec: Record, inputs: tuple[Any, ...], error: Exception) -> str:
    text = str(error)
    if "broadcast" in text:
        return ". Axes are matched from the last one; each pair must be equal or contain a 1"
    if "reshape" in text:
        return ". The number of elements must stay the same"
    return ""


_PYTORCHS = {"dim": "axis", "keepdim": "keepdims", "unbiased": "correction"}


def bind_error(rec: Record, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TypeError:
    """The error for arguments that do not fit a record's signature."""
    signature = ", ".join(
        [n + ("=None" if n in rec.optional else "") for n in rec.inputs]
        + ([f"*{rec.variadic}"] if rec.variadic else [])
        + [f"{a}={rec.defaults[a]!r}" if a in rec.defaults else a for a in rec.attributes]
    )
    unknown = [k for k in kwargs if k not in rec.attributes and k not in rec.inputs]
    for key, ours in _PYTORCHS.items():
        if key in unknown and ours in rec.attributes:
            return TypeError(f"{rec.name} takes {ours}=, as in NumPy, not {key}=: {rec.name}({signature})")
    if unknown:
        return TypeError(f"{rec.name} has no argument {unknown[0]!r}: {rec.name}({signature})")
    return TypeError(f"{rec.name} expects ({signature}), got {len(args)} positional arguments and {sorted(kwargs)}")


_Function = TypeVar("_Function", bound=Callable[..., Any])


def one_frame(function: _Function) -> _Function:
    """Let an error leave a public function as if its first line had raised it: our frames below that are left out.

    Frames of the user's own code, which hooks and transforms call, stay.
    """

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if full_traceback():
                raise
            raise error.with_traceback(users_part(error.__traceback__))  # noqa: B904  the same error

    return call  # type: ignore[return-value]


def users_part(traceback: TracebackType | None) -> TracebackType | None:
    """The frames of the user's code, each with the first of ours below it."""
    entries = []
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    ours = [is_ours(entry.tb_frame.f_globals.get("__name__", "")) for entry in entries]
    kept = None
    for i in reversed(range(len(entries))):
        if not ours[i] or (i > 0 and not ours[i - 1]):
            kept = TracebackType(kept, entries[i].tb_frame, entries[i].tb_lasti, entries[i].tb_lineno)
    return kept


def is_ours(module: str) -> bool:
    return module.startswith(("retrograd.", "numpy.")) and not module.startswith("retrograd.examples.")


def full_traceback() -> bool:
    return os.environ.get("RETROGRAD_TRACEBACK") == "full"


def user_line() -> str:
    """File and line of the nearest caller outside the framework."""
    frame = sys._getframe(1)
    while frame.f_back is not None and is_ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def users_level() -> int:
    """How far above its caller the user's own line is, as `warnings.warn` counts in `stacklevel`."""
    level, frame = 0, sys._getframe()
    while frame.f_back is not None and is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level
