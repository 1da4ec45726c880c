"""Leaves that a compiled function makes itself: buffers to be filled, inputs to be optimized, state for later calls."""

from __future__ import annotations

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.recorder import RecordingError
from retrograd.nn import functional as F

WEIGHT = rg.tensor([1.0, -2.0, 3.0])


def added_up(x):
    total = rg.zeros(3)
    for _ in range(2):
        total.add_(x * WEIGHT)
    return total


def filled(x):
    out, h = rg.empty((3, 3)), rg.tensor([0.0, 0.5, 1.0])
    for t in range(3):
        h = h + x
        out[t] = h
    return out, out.sum()


def marked(x):
    mask = rg.zeros(3, dtype=bool)
    mask[1:] = x[1:] > 0
    return rg.where(mask, x, 0.0), rg.eye(3).mul_(x)


def attacked(x):
    change = rg.zeros_like(x).requires_grad_()
    for _ in range(3):
        ((x + change) ** 2 * WEIGHT).sum().backward()
        with rg.no_grad():
            change.add_(0.1 * change.grad)
        change.grad = None
    return (x + change).detach()


def searched(x):
    w = rg.full((3,), 0.5, requires_grad=True)
    loss = F.mse_loss(w * x, WEIGHT)
    loss.backward()
    return w.grad, rg.grad(lambda v: ((v * x) ** 3).sum())(w)


@pytest.mark.parametrize("function", [added_up, filled, marked, attacked, searched])
@pytest.mark.parametrize("equal", [True, False])
def test_leaves_begin_anew_in_each_run(function, equal):
    compiled = rg.compile(function)
    rng = np.random.default_rng(0)
    first = rng.standard_normal(3).astype(np.float32)  # equal arguments at first: the filled leaves look like constants
    draws = [first if equal and i < 4 else rng.standard_normal(3).astype(np.float32) for i in range(7)]
    found = [compiled(rg.tensor(x)) for x in draws]
    for x, results in zip(draws, found, strict=True):
        wanted = function(rg.tensor(x))
        for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (results, wanted)), strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert len(compiled.programs) == 1


@pytest.mark.parametrize("begun", [lambda x: rg.zeros(3), lambda x: (x * 0.0).clone(), lambda x: (x * 0.0)[:]])
def test_state_that_a_later_kind_of_call_brings_is_kept(begun):
    state = {}

    @rg.compile
    def step(x, average=False):
        if average:
            if "mean" not in state:
                state["mean"] = begun(x)
            state["mean"].mul_(0.5).add_(x)
            return state["mean"].clone()
        return x * 2

    x = rg.ones(3)
    for _ in range(4):
        step(x)
    wanted = 0.0
    for _ in range(5):
        wanted = 0.5 * wanted + 1.0
        assert step(x, average=True).tolist() == state["mean"].tolist() == [wanted] * 3
    assert len(step.programs) == 1  # that of the other kind of call knew no state: it went when the state came


def test_an_array_that_is_made_and_changed_in_each_call_is_refused():
    @rg.compile
    def step(x):
        total = rg.asarray(np.zeros(3, np.float32))
        return total.add_(x).clone()

    x = rg.ones(3)
    with pytest.raises(RecordingError, match=r"each call makes anew.*rg\.tensor\(array\)"):
        [step(x) for _ in range(4)]


def test_an_optimizer_made_in_each_call_is_refused():
    @rg.compile
    def step(x):
        w = rg.nn.Parameter(rg.zeros(3))
        optimizer = rg.optim.SGD([w], lr=0.1)
        ((w - x) ** 2).sum().backward()
        optimizer.step()
        return w.detach()

    with pytest.raises(RecordingError, match="Make the optimizer once, outside"):
        [step(rg.ones(3)) for _ in range(70)]


def test_truths_are_copied():
    mask = rg.tensor([True, False])
    copies = [mask.clone(), rg.copy(mask)]
    mask.fill_(True)
    assert [c.tolist() for c in copies] == [[True, False]] * 2


def test_gradients_of_functions_at_tensors_from_outside():
    weights = {"a": rg.tensor([1.0, 2.0]), "b": rg.tensor(0.5)}
    slope = rg.grad(lambda w, x: ((w["a"] * x).sum() * w["b"]) ** 2)

    @rg.compile
    def step(x):
        for name, gradient in slope(weights, x).items():
            weights[name].sub_(0.01 * gradient)
        return rg.grad(lambda scale: (scale * x).sum() ** 2)(3.0)

    copies = {name: w.clone() for name, w in weights.items()}
    for n in range(5):
        x = rg.tensor([1.0, float(n)])
        wanted = slope(copies, x)
        copies = {name: w - 0.01 * wanted[name] for name, w in copies.items()}
        assert step(x).item() == pytest.approx(6.0 * (n + 1) ** 2)
        for name, w in weights.items():
            np.testing.assert_allclose(w.numpy(), copies[name].numpy(), rtol=1e-5)
    assert len(step.programs) == 1
