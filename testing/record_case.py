"""One call of an operation, as a record's sample describes it, ready to run on any backend and in any dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..autograd_core.backward import gradients_of
from ..autograd_core.context import current_backend
from ..autograd_core.dispatch import FUNCTIONS, function_of
from ..autograd_core.promotion import is_float
from ..autograd_core.record import Record
from ..autograd_core.samples import Sample
from ..autograd_core.tensor import Tensor
from ..backends import get_backend
from .gradcheck import close

EXACT = 1e-12  # float64 results that may differ by the order of a sum only


class RecordError(AssertionError):
    """An operation that does not do what every operation must."""


class Case:
    """One sample of a record, ready to run on the current backend."""

    def __init__(self, rec: Record, sample: Sample):
        self.record = rec
        self.inputs = tuple(np.asarray(x) if isinstance(x, np.generic) else x for x in sample.inputs)
        self.attributes = dict(sample.attributes)
        self.second_order = sample.second_order
        self.floating = [i for i, x in enumerate(self.inputs) if isinstance(x, np.ndarray) and is_float(x.dtype)]
        self.function = FUNCTIONS.get(rec.name) or function_of(rec)

    def __repr__(self) -> str:
        inputs = [f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else repr(x) for x in self.inputs]
        return f"{self.record.name}({', '.join(inputs + [f'{k}={v!r}' for k, v in self.attributes.items()])})"

    def but(self, inputs: Sequence[Any]) -> Case:
        return Case(self.record, Sample(tuple(inputs), self.attributes, self.second_order))

    def cast(self, dtype: Any) -> Case:
        """The same call with its floating inputs rounded to `dtype`."""
        return self.but(
            [
                x.astype(complex_of(dtype) if x.dtype.kind == "c" else dtype) if i in self.floating else x
                for i, x in enumerate(self.inputs)
            ]
        )

    def tensors(
        self, wanted: Sequence[int] | None = None, arrange: Callable | None = None, place: str | None = None
    ) -> list[Any]:
        """Fresh leaves; those at `wanted` (default: all floating ones) require gradients."""
        backend = get_backend(place) if place else current_backend()
        return [self._tensor(i, x, wanted, arrange, backend) for i, x in enumerate(self.inputs)]

    def _tensor(self, i: int, x: Any, wanted: Sequence[int] | None, arrange: Callable | None, backend: Any) -> Any:
        if not isinstance(x, np.ndarray):
            return x
        array = backend.asarray(x, copy=True)
        made = Tensor(arrange(backend.xp, array) if arrange else array)
        return made.requires_grad_() if i in (self.floating if wanted is None else wanted) else made

    def call(self, inputs: Sequence[Any]) -> list[Tensor]:
        out = self.function(*inputs, **self.attributes)
        return list(out) if self.record.multiple else [out]

    def run(
        self, wanted: Sequence[int] | None = None, arrange: Callable | None = None, place: str | None = None
    ) -> tuple[list[np.ndarray], dict[int, np.ndarray]]:
        """Values of the outputs, and the gradient (zeros where there is none) of each wanted input."""
        tensors = self.tensors(wanted, arrange, place)
        outs = self.call(tensors)
        return [o.numpy() for o in outs], self.backward(outs, tensors)

    def run_twice(
        self, wanted: Sequence[int] | None = None, place: str | None = None
    ) -> tuple[list[np.ndarray], dict[int, np.ndarray]]:
        """Gradients, and the gradients of those."""
        tensors = self.tensors(wanted, None, place)
        leaves = {i: t for i, t in enumerate(tensors) if isinstance(t, Tensor) and t.requires_grad}
        roots = [o for o in self.call(tensors) if o.requires_grad]
        if not roots or not leaves:
            return [], {}
        found = gradients_of(roots, [weights(o) for o in roots], list(leaves.values()), True, True)
        first = [g for _, g in found if g is not None]
        second = [g for g in first if g.requires_grad]
        return [g.numpy() for g in first], self.backward(second, tensors)

    def backward(self, outs: Sequence[Tensor], tensors: Sequence[Any], retain: bool = False) -> dict[int, np.ndarray]:
        leaves = {i: t for i, t in enumerate(tensors) if isinstance(t, Tensor) and t.requires_grad}
        roots = [o for o in outs if o.requires_grad]
        zeros = {i: np.zeros(t.shape, t.dtype) for i, t in leaves.items()}
        if not roots or not leaves:
            return zeros
        found = gradients_of(roots, [weights(o) for o in roots], list(leaves.values()), retain, False)
        given = {i: as_numpy(g) for i, (_, g) in zip(leaves, found, strict=True) if g is not None}
        return zeros | given


def weights(out: Tensor) -> Tensor:
    """The cotangent that the checks use for a result: numbers of both signs, the same for every dtype and backend."""
    numbers = np.cos(np.arange(out.size) * 1.7).reshape(out.shape)
    return Tensor(out.backend.asarray(numbers.astype(out.dtype)))


def cases(rec: Record) -> Iterator[Case]:
    if rec.samples is None:
        raise RecordError(f"{rec.name} has no samples: nothing about it is tested. Give its record samples=…")
    for sample in rec.samples():
        yield Case(rec, sample)


def agree(case: Case, what: str, got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    if got.shape != expected.shape or not close(got, expected, tolerance):
        apart = f", {np.max(np.abs(got - expected)):.1e} apart" if got.shape == expected.shape and got.size else ""
        raise RecordError(f"{case}: {what} is\n{got}\nexpected, to {tolerance:.1e}{apart},\n{expected}")


def same(case: Case, what: str, got: tuple, expected: tuple, tolerance: float = EXACT) -> None:
    """Two results of `Case.run`: values and gradients."""
    for n, (a, b) in enumerate(zip(got[0], expected[0], strict=True)):
        if a.dtype != b.dtype:
            raise RecordError(f"{case}, {what}: output {n} is {a.dtype}, not {b.dtype}")
        agree(case, f"{what}: output {n}", a, b, tolerance)
    for i, b in expected[1].items():
        agree(case, f"{what}: the gradient of input {i}", got[1][i], b, tolerance)


def as_numpy(gradient: Any) -> np.ndarray:
    return (gradient if isinstance(gradient, Tensor) else Tensor(gradient[0])).numpy()


def complex_of(dtype: Any) -> Any:
    return np.complex128 if dtype == np.float64 else np.complex64
