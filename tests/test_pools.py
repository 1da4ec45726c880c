"""A relu waits until after the max pool that reads it: the same numbers from fewer elements."""

from __future__ import annotations

import numpy as np
import pytest
import retrograd as rg
from retrograd.backends import kernel_tier

F = rg.nn.functional
OPTIONS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 1},
    {"kernel_size": (3, 2), "stride": (2, 3), "ceil_mode": True},
    {"kernel_size": 2, "dilation": 2, "stride": 2},
]


def order(program):
    """Names of the steps on whole images or pooled ones, those in groups too."""
    steps = [m for s in program.steps for m in getattr(s.attributes.get("group"), "members", (s,))]
    return [s.record.name for s in steps if s.record is not None and s.record.name in ("relu", "max_pool2d")]


def trained(options, compiles, between=lambda h: h):
    """Losses and parameters of some steps through convolution, relu and pool."""
    rng = np.random.default_rng(4)
    weight = rg.tensor(rng.standard_normal((3, 2, 3, 3)).astype(np.float32), requires_grad=True)
    bias = rg.tensor(np.array([-3.0, 0.0, 1.0], np.float32), requires_grad=True)  # of the first, whole windows are 0
    optimizer = rg.optim.SGD([weight, bias], lr=0.01)

    def step(x):
        optimizer.zero_grad()
        h = between(F.relu(F.conv2d(x, weight, bias)))
        loss = (F.max_pool2d(h, **options) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    run = rg.compile(step) if compiles else step
    images = rng.standard_normal((6, 4, 2, 9, 11)).astype(np.float32)
    losses = [run(rg.tensor(x)).item() for x in images]
    return [losses, weight.numpy(), bias.numpy(), bias.grad.numpy()], run


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_step_computes_the_same(options):
    eager, _ = trained(options, False)
    compiled, run = trained(options, True)
    if kernel_tier() != "reference":
        assert order(run.program) == ["max_pool2d", "relu"]
    for one, other in zip(eager, compiled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(kernel_tier() == "reference", reason="pools are written out")
def test_inference_too_and_with_negative_images():
    model = rg.nn.Sequential(rg.nn.ReLU(), rg.nn.MaxPool2d(2))
    compiled = rg.compile(model)
    with rg.no_grad():
        for shift in (0.0, -9.0, 0.0, -9.0, 1.0):
            x = rg.randn(2, 3, 6, 6) + shift
            np.testing.assert_array_equal(compiled(x).numpy(), model(x).numpy())
    assert order(compiled.program) == ["max_pool2d", "relu"]


def _read_twice(h):
    return h + h.mean()


def test_a_relu_that_somebody_else_reads_stays():
    eager, _ = trained(OPTIONS[0], False, _read_twice)
    compiled, run = trained(OPTIONS[0], True, _read_twice)
    if kernel_tier() != "reference":
        assert order(run.program) == ["relu", "max_pool2d"]
    for one, other in zip(eager, compiled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_relu_that_is_a_result_stays():
    weight = rg.randn(2, 1, 3, 3).requires_grad_()

    def both(x):
        h = F.relu(F.conv2d(x, weight))
        return h, F.max_pool2d(h, 2)

    compiled, x = rg.compile(both), rg.randn(2, 1, 8, 8)
    for _ in range(5):
        for one, other in zip(compiled(x), both(x), strict=True):
            np.testing.assert_allclose(one.numpy(), other.detach().numpy(), rtol=1e-5, atol=1e-6)
    if kernel_tier() != "reference":
        assert order(compiled.program) == ["relu", "max_pool2d"]


def agree(function, weight, rtol, atol):
    """A function of images that leaves a gradient in `weight`: the same, compiled and eager."""
    compiled, x = rg.compile(function), rg.randn(2, 1, 8, 8)
    for _ in range(5):
        one, gradient = compiled(x).item(), weight.grad.numpy().copy()
        assert function(x).item() == pytest.approx(one, rel=rtol / 10)
        np.testing.assert_allclose(gradient, weight.grad.numpy(), rtol=rtol, atol=atol)


def test_two_pools_of_one_relu():
    weight = rg.randn(2, 1, 3, 3).requires_grad_()

    def loss(x):
        weight.grad = None
        h = F.relu(F.conv2d(x, weight))
        total = F.max_pool2d(h, 2).sum() + F.max_pool2d(h, 3).sum()
        total.backward()
        return total

    agree(loss, weight, rtol=1e-4, atol=1e-5)


def test_second_order_through_relu_and_pool():
    weight = rg.randn(2, 1, 3, 3).requires_grad_()

    def penalty(x):
        weight.grad = None
        out = F.max_pool2d(F.relu(F.conv2d(x, weight)), 2)
        g = rg.grad(lambda w: (F.max_pool2d(F.relu(F.conv2d(x, w)), 2) ** 2).sum())(weight)
        total = (g**2).sum() + out.sum()
        total.backward()
        return total

    agree(penalty, weight, rtol=1e-3, atol=1e-3)
