"""The two decorators that define operations, and what follows from a definition: the function, methods, operators.

    @record(kind, …)   a primitive: forward in terms of the array library, one rule per input
    @fused(…)          a composition with a name: forward in terms of operations, one joint first-order rule
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .dispatch import FUNCTIONS, function_of
from .errors import full_traceback, one_frame
from .record import Kind, Record, register
from .tensor import Tensor

_Function = TypeVar("_Function", bound=Callable[..., Any])


def record(kind: Kind, **options: Any) -> Callable[[Callable], Callable[..., Any]]:
    """Define a primitive operation from its forward; see `record.Record` for the options.

    A name that would shadow a builtin is written with a trailing underscore: `def sum_` defines `sum`.
    """

    def decorate(forward: Callable) -> Callable[..., Any]:
        rec = register(Record(forward.__name__.rstrip("_"), kind, forward, **options))
        function = _published(function_of(rec), rec)
        FUNCTIONS[rec.name] = function
        if rec.method and rec.inputs:
            setattr(Tensor, rec.name, function)
        for name in rec.operators:
            operator = _published(function_of(rec, operator=True), rec, name)
            reflected = name.startswith("__r") and name not in _NOT_REFLECTED
            setattr(Tensor, name, _reflected(operator) if reflected else operator)
        return function

    return decorate


PUBLIC: dict[str, Callable] = {}  # what `rg.` offers under a name beside, or instead of, the record's own function


def public(function: _Function) -> _Function:
    """Offer a function, written with operations, as `rg.<name>`; it stands before a record of the same name."""
    name = function.__name__.rstrip("_")
    if name in PUBLIC:
        raise ValueError(f"rg.{name} is defined twice")
    PUBLIC[name] = one_frame(function)
    return function


def method(function: _Function) -> _Function:
    """Attach a function of a tensor as a method of Tensor, under its own name."""
    name = function.__name__ if function.__name__.startswith("__") else function.__name__.rstrip("_")
    setattr(Tensor, name, one_frame(function))
    return function


def fused(**options: Any) -> Callable[[Callable], Callable[..., Any]]:
    """Define a fused operation: `forward` written with operations, `derivative` (joint, first order), maybe `fast`."""
    return record("fused", **options)


_NOT_REFLECTED = ("__round__",)


def _reflected(operator: Callable) -> Callable:
    def method(x: Any, y: Any) -> Any:
        try:
            return operator(y, x)
        except Exception as error:
            raise error if full_traceback() else error.with_traceback(None)  # noqa: B904  the same error

    return method


def _published(function: Callable, rec: Record, name: str | None = None) -> Callable:
    function.__name__ = name or rec.name
    function.__qualname__ = function.__name__
    function.__doc__ = rec.doc
    function.__module__ = rec.forward.__module__
    function.record = rec  # type: ignore[attr-defined]
    return function
