"""Is a gradient right? The derivative along a direction, from the rules and from differences of values.

    ⟨∇φ(x), v⟩  =  d/dt φ(x + t·v)  ≈  [8·(φ(h) - φ(-h)) - (φ(2h) - φ(-2h))] / 12h,     φ(t) = ⟨w, f(x + t·v)⟩

with random weights w, so that every element of the result counts, and random directions v, one input at a time, so
that a small gradient is not lost beside a large one. In float64 the five-point formula is right to about 1e-11, which
makes a tolerance of 1e-6 one that a wrong factor, sign, axis or broadcast cannot meet.

The second order is the same check, applied to the function x, w ↦ ∇φ: its derivative along v, by the rules, asks for
the gradient of a gradient, and the differences take the first-order gradient at shifted points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from ..autograd_core.backward import gradients_of
from ..autograd_core.context import current_backend, reference_tier
from ..autograd_core.promotion import is_float
from ..autograd_core.tensor import Tensor

Function = Callable[..., Any]
_EPS = np.finfo(np.float64).eps
_FIVE_POINTS = ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0))  # multiple of the step, weight; over 12 steps


class GradientError(AssertionError):
    """A gradient that differs from the difference quotient; the message shows where and by how much."""


def check_gradient(
    f: Function,
    *inputs: Any,
    tolerance: float = 1e-6,
    directions: int = 2,
    step: float = 2e-4,
    seed: int = 0,
    tier: str | None = None,
) -> None:
    """Compare the gradient of `f` with differences of its values, in float64.

    The differences, and a first gradient, are taken on the reference tier (fused operations run as the compositions
    that define them); then the fastest tier must give the same values and gradients.

    Args:
        f: function of Tensors that returns a Tensor, or a list or tuple of them, of any shapes. It must be
            deterministic, and smooth between `inputs` ± 2 steps.
        inputs: arrays, Tensors or numbers. Floating and complex ones are taken in double precision and differentiated,
            all others are passed on as they are.
        tolerance: how far gradient and difference may be apart, relative to the sum of |gradient · direction|.
        directions: random directions per input.
        step: the step h of the difference, relative to the largest number of an input where that is above 1.
        seed: of directions and weights.
        tier: "reference" or "fastest" checks that tier alone; None both.

    Raises:
        GradientError: the gradient is wrong, the tiers differ, `f` changed an input, or `f` gave two results for one
            input. The message shows function, inputs, direction, and both values.
        TypeError, ValueError: `f` returned no Tensor; there is nothing to differentiate; an unknown tier.

    Example:
        >>> import numpy as np, retrograd as rg
        >>> rg.testing.check_gradient(lambda x, y: rg.sin(x) * y, np.linspace(0, 1, 6).reshape(2, 3), np.ones(3))
    """
    if tier not in (None, "reference", "fastest"):
        raise ValueError(f"tier must be None, 'reference' or 'fastest', got {tier!r}")
    check = _Check(f, f, inputs, tolerance, directions, step, seed)
    if tier != "fastest":
        with reference_tier():
            check.against_differences()
    if tier == "fastest":
        check.against_differences()
    elif tier is None:
        check.against_first_tier()


def check_second_order(f: Function, *inputs: Any, **options: Any) -> None:
    """Compare the gradient of the gradient of `f` with differences of its gradient; options as in `check_gradient`.

    Both ways to second order are looked at: how the gradient changes with the inputs, and with the cotangent.

    Example:
        >>> import numpy as np, retrograd as rg
        >>> rg.testing.check_second_order(lambda x: rg.exp(x) * x, np.linspace(-1, 1, 4))
    """
    seed = options.get("seed", 0)
    outs = [_host(o) for o in _outputs(f, [_tensor(x, False) for x in inputs])]
    rng = np.random.default_rng(seed + 1)
    weights = [_like(rng, o) for o in outs if is_float(o.dtype)]
    if not weights:
        raise TypeError(f"{_name(f)} returned no floating tensor: there is no gradient to take")
    check_gradient(gradient_function(f, len(inputs)), *inputs, *weights, **options)


def gradient_function(f: Function, n: int) -> Function:
    """The function (x₁ … xₙ, cotangents…) ↦ gradients of ⟨cotangents, f(x)⟩: differentiable where its arguments are."""

    def gradient(*arguments: Any) -> list[Any]:
        create_graph = any(isinstance(a, Tensor) and a.requires_grad for a in arguments)
        xs = [x.detach().requires_grad_() if _plain_float(x) else x for x in arguments[:n]]
        pairs = [
            (o, w.to(o.backend)) for o, w in zip(_float_outputs(f, xs), arguments[n:], strict=True) if o.requires_grad
        ]
        wanted = [x for x in xs if isinstance(x, Tensor) and x.requires_grad]
        if not pairs or not wanted:
            return [x * 0 for x in wanted]
        outs, cotangents = zip(*pairs, strict=True)
        found = gradients_of(outs, cotangents, wanted, create_graph, create_graph)
        return [x.detach() * 0 if g is None else _as_tensor(g) for x, g in found]

    gradient.__name__ = f"the gradient of {_name(f)}"
    return gradient


class _Check:
    """One function at one point: weights, directions, and what is expected along them."""

    def __init__(
        self,
        f: Function,
        shown: Function,
        inputs: Sequence[Any],
        tolerance: float,
        directions: int,
        step: float,
        seed: int,
    ):
        self.f, self.name, self.tolerance, self.step = f, _name(shown), tolerance, step
        self.inputs = [_host(x) for x in inputs]
        self.directions = directions
        self.rng = np.random.default_rng(seed)
        self.wanted = [i for i, x in enumerate(self.inputs) if isinstance(x, np.ndarray) and is_float(x.dtype)]
        if not self.wanted:
            raise TypeError(f"{self.name} got no floating input: there is nothing to differentiate")
        self.weights: list[Any] = []
        self.values: list[np.ndarray] = []
        self.gradients: list[np.ndarray] = []

    def against_differences(self) -> None:
        self.values = self._values(self.inputs)
        if not all(
            np.array_equal(a, b, equal_nan=True) for a, b in zip(self.values, self._values(self.inputs), strict=True)
        ):
            raise GradientError(f"{self.name} gave two results for the same inputs: seed its random numbers inside it")
        self.weights = [_like(self.rng, v) if is_float(v.dtype) else None for v in self.values]
        self.gradients = self._gradients()
        size = sum(
            float(np.sum(np.abs(w * v))) for w, v in zip(self.weights, self.values, strict=True) if w is not None
        )
        for i, gradient in zip(self.wanted, self.gradients, strict=True):
            x = self.inputs[i]
            step = self.step * max(1.0, float(np.max(np.abs(x), initial=0.0)))
            rounding = 100 * _EPS * size / step
            for _ in range(self.directions if x.size > 1 else min(self.directions, x.size)):
                v = _like(self.rng, x)
                v /= max(float(np.max(np.abs(v), initial=0.0)), _EPS)
                expected = self._difference(i, v, step)
                actual = _inner(gradient, v)
                scale = max(float(np.sum(np.abs(gradient * v))), abs(expected))
                if not abs(actual - expected) <= self.tolerance * scale + rounding:
                    raise GradientError(self._report(i, v, expected, actual, gradient))

    def against_first_tier(self) -> None:
        """Values and gradients of the fastest tier against those of the reference, which are known to be right."""
        pairs = [("value", a, b) for a, b in zip(self.values, self._values(self.inputs), strict=True)]
        pairs += [("gradient", a, b) for a, b in zip(self.gradients, self._gradients(), strict=True)]
        for what, reference, fast in pairs:
            same = reference.shape == fast.shape and reference.dtype == fast.dtype
            if not same or not close(fast, reference, 1e-9):
                raise GradientError(
                    f"{self.name}: the fastest tier gives another {what} than the reference\n{self._show_inputs()}"
                    f"  expected:  {_show(reference)}\n  actual:    {_show(fast)}"
                )

    def _values(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        return [_host(o) for o in _outputs(self.f, [_tensor(x, False) for x in inputs])]

    def _gradients(self) -> list[np.ndarray]:
        tensors = [_tensor(x, i in self.wanted) for i, x in enumerate(self.inputs)]
        before = [t.numpy().tobytes() if isinstance(t, Tensor) else b"" for t in tensors]
        outs = _outputs(self.f, tensors)
        pairs = [
            (o, Tensor(o.backend.asarray(w)))
            for o, w in zip(outs, self.weights, strict=True)
            if w is not None and o.requires_grad
        ]
        leaves = [tensors[i] for i in self.wanted]
        found: list[Any] = [None] * len(leaves)
        if pairs:
            roots, weights = zip(*pairs, strict=True)
            found = [g if g is None else _as_tensor(g) for _, g in gradients_of(roots, weights, leaves, False, False)]
        for i, t in enumerate(tensors):
            if isinstance(t, Tensor) and t.numpy().tobytes() != before[i]:
                raise GradientError(f"{self.name} changed its input {i} in place\n{self._show_inputs()}")
        gradients = []
        for i, g in zip(self.wanted, found, strict=True):
            x = self.inputs[i]
            if g is not None and (g.shape != x.shape or g.dtype != x.dtype):
                raise GradientError(
                    f"the gradient of {self.name} for input {i} is {g.dtype} {g.shape}, the input {x.dtype} {x.shape}"
                )
            gradients.append(np.zeros_like(x) if g is None else g.numpy())
        return gradients

    def _difference(self, i: int, v: np.ndarray, step: float) -> float:
        """The five-point difference of ⟨weights, f⟩ along v in input i, summed before weighting to keep digits."""
        total = 0.0
        for multiple, factor in _FIVE_POINTS:
            shifted = list(self.inputs)
            shifted[i] = np.asarray(shifted[i] + multiple * step * v)
            for value, centre, w in zip(self._values(shifted), self.values, self.weights, strict=True):
                if w is not None:
                    total += factor * _inner(w, value - centre)  # the formula's weights add up to 0
        return total / (12 * step)

    def _report(self, i: int, v: np.ndarray, expected: float, actual: float, gradient: np.ndarray) -> str:
        return (
            f"wrong gradient of {self.name} for input {i}\n{self._show_inputs()}"
            f"  direction: {_show(v)}\n  gradient:  {_show(gradient)}\n"
            f"  expected:  {expected:.12g} (five-point difference along the direction)\n"
            f"  actual:    {actual:.12g} (gradient · direction); relative tolerance {self.tolerance:g}"
        )

    def _show_inputs(self) -> str:
        return "".join(f"  input {i}:   {_show(x)}\n" for i, x in enumerate(self.inputs))


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    """Whether two arrays of one shape agree to `tolerance` times the largest finite number in `expected`.

    NaN and infinities must stand in the same places.
    """
    finite = np.isfinite(expected)
    if actual.shape != expected.shape or not np.array_equal(np.isfinite(actual), finite):
        return False
    if not np.array_equal(actual[~finite], expected[~finite], equal_nan=True):
        return False
    # Small results of large terms lose digits: what is near 1 or below is compared as if it were 1.
    scale = float(np.max(np.abs(expected[finite].astype(_wide(expected.dtype))), initial=1.0))
    apart = np.abs(actual[finite].astype(_wide(actual.dtype)) - expected[finite].astype(_wide(expected.dtype)))
    return bool(np.all(apart <= tolerance * scale))


def tiers() -> dict[str, AbstractContextManager[Any]]:
    """The two ways to run a fused operation, as blocks: written out in operations, and as fast as it can."""
    return {"reference": reference_tier(), "fastest": nullcontext()}


def _wide(dtype: np.dtype) -> type:
    return np.complex128 if dtype.kind == "c" else np.float64


def _host(x: Any) -> Any:
    """An input as an ndarray, in double precision if it is floating or complex; None and the like as they are."""
    if isinstance(x, Tensor):
        x = x.numpy()
    elif type(x) is float:
        x = np.asarray(x)
    if isinstance(x, (np.ndarray, np.generic)) and is_float(x.dtype):
        return np.array(x, dtype=_wide(x.dtype))
    return x


def _tensor(x: Any, requires_grad: bool) -> Any:
    """An input as `f` gets it: a fresh leaf, so that nothing that `f` does to it reaches the next call."""
    if not isinstance(x, np.ndarray):
        return x
    made = Tensor(current_backend().asarray(x, copy=True))
    return made.requires_grad_() if requires_grad else made


def _outputs(f: Function, inputs: Sequence[Any]) -> list[Tensor]:
    out = f(*inputs)
    outs = list(out) if isinstance(out, (list, tuple)) else [out]
    wrong = next((o for o in outs if not isinstance(o, Tensor)), None)
    if wrong is not None or not outs:
        raise TypeError(f"{_name(f)} must return a Tensor or a list of Tensors, got {type(wrong).__name__}")
    return outs


def _float_outputs(f: Function, inputs: Sequence[Any]) -> list[Tensor]:
    return [o for o in _outputs(f, inputs) if is_float(o.dtype)]


def _plain_float(x: Any) -> bool:
    return isinstance(x, Tensor) and is_float(x.dtype) and not x.requires_grad


def _as_tensor(gradient: Any) -> Tensor:
    return gradient if isinstance(gradient, Tensor) else Tensor(gradient[0])


def _like(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Random numbers of the shape and dtype of x, none near 0, so that each element counts."""
    real = np.sign(rng.uniform(-1, 1, x.shape)) * rng.uniform(0.5, 1.5, x.shape)
    imaginary = 1j * rng.uniform(-1, 1, x.shape) if x.dtype.kind == "c" else 0.0
    return np.asarray(real + imaginary)


def _inner(a: np.ndarray, b: np.ndarray) -> float:
    """Re ⟨a, b⟩: for complex arrays the sum over real and imaginary parts, which is what a gradient is taken of."""
    return float(np.sum(np.real(np.conj(a) * b)))


def _name(f: Function) -> str:
    return getattr(f, "__name__", None) or type(f).__name__


def _show(x: Any) -> str:
    if not isinstance(x, np.ndarray):
        return repr(x)
    text = np.array2string(x, precision=6, threshold=40, edgeitems=2, separator=", ", prefix=" " * 13)
    return f"{x.dtype} {x.shape} {text}"
