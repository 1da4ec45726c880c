"""Gradients clipped by norm and by value, also in a recording; parameters as one vector."""

import math

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn, optim
from retrograd.autograd_core.recorder import RecordingError, recording


def with_gradients(dtype="float32"):
    rng = np.random.default_rng(5)
    params = [nn.Parameter(rg.zeros(shape, dtype=dtype)) for shape in ((3, 4), (5,), (), (0,))]
    for p in params:
        p.grad = rg.tensor(rng.normal(size=p.shape).astype(dtype))
    return [*params, nn.Parameter(rg.zeros(2))]


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_gradients_are_scaled_to_the_norm(norm_type, max_norm):
    params = with_gradients("float64")
    before = np.concatenate([p.grad.numpy().ravel() for p in params[:-1]])
    memory = params[0].grad
    total = optim.clip_grad_norm_(params, max_norm, norm_type)
    expected = np.linalg.norm(before, norm_type)
    assert total.shape == ()
    assert total.item() == pytest.approx(expected, rel=1e-12)
    after = np.concatenate([p.grad.numpy().ravel() for p in params[:-1]])
    np.testing.assert_allclose(after, before * min(1, max_norm / (expected + 1e-6)), rtol=1e-12)
    assert params[0].grad is memory
    assert params[-1].grad is None


def test_clipping_bad_and_empty_requests():
    params = with_gradients()
    params[1].grad = rg.full((5,), math.inf)
    before = params[0].grad.numpy().copy()
    with pytest.raises(RuntimeError, match=r"norm of the gradients is inf; nothing was clipped"):
        optim.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(params[0].grad.numpy(), before)
    with pytest.raises(ValueError, match="max_norm must be"):
        optim.clip_grad_norm_(params, -1.0)
    with pytest.raises(TypeError, match=r"write module\.parameters"):
        optim.clip_grad_norm_(nn.Linear(2, 1), 1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected parameters, got ndarray"):
        optim.clip_grad_norm_([np.zeros(2)], 1.0)  # type: ignore[list-item]
    assert optim.clip_grad_norm_([nn.Parameter([1.0])], 1.0).item() == 0.0
    with recording(), pytest.raises(RecordingError, match="error_if_nonfinite"):
        optim.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)


def test_half_precision_gradients_have_a_finite_norm():
    p = nn.Parameter(rg.zeros(4, dtype="float16"))
    p.grad = rg.full((4,), 1000.0, dtype="float16")
    assert optim.clip_grad_norm_(p, 1.0).item() == 2000.0
    np.testing.assert_allclose(p.grad.numpy(), 0.5, rtol=1e-3)
    assert p.grad.dtype == np.float16


def test_clipping_by_value():
    p = nn.Parameter([0.0, 0.0, 0.0])
    p.grad = rg.tensor([-3.0, 0.5, 2.0])
    optim.clip_grad_value_(p, 1.0)
    assert p.grad.tolist() == [-1.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="clip_value"):
        optim.clip_grad_value_(p, -1.0)


def test_in_a_recording_clipping_is_operations_on_all_gradients_end_to_end():
    params, others = with_gradients()[:2], with_gradients()[:2]
    with recording() as tape:
        optim.clip_grad_norm_(params, 0.5)
    names = [step.record.name for step in tape.steps]
    assert names.count("matmul") == 1
    assert names.count("multiply") == 1
    optim.clip_grad_norm_(others, 0.5)
    for p, q in zip(params, others, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6)


def test_parameters_as_one_vector():
    net = nn.Linear(3, 2)
    vector = nn.utils.parameters_to_vector(net.parameters())
    assert vector.shape == (8,)
    nn.utils.vector_to_parameters(rg.arange(8.0), net.parameters())
    assert net.weight.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert net.bias.tolist() == [6.0, 7.0]
    assert net.weight.requires_grad
    with pytest.raises(ValueError, match="a vector of 8 numbers, got float32 tensor"):
        nn.utils.vector_to_parameters(rg.zeros(7), net.parameters())
    assert nn.utils.clip_grad_norm_ is optim.clip_grad_norm_


def test_zeros_of_zero_grad_that_are_changed_in_place_are_zeros_in_the_next_run():
    unused, trained = rg.nn.Parameter([3.0, 4.0]), rg.nn.Parameter([3.0, 4.0])
    optimizer, unused.grad = rg.optim.SGD([unused], lr=0.1), rg.ones(2)

    @rg.compile
    def step(x):
        optimizer.zero_grad(set_to_none=False)
        rg.sum(trained * x).backward()
        optim.clip_grad_norm_(unused, 1.0)
        with rg.no_grad():
            unused.grad.add_(0.5)
        optimizer.step()

    for n in range(1, 7):
        step(rg.ones(2))
        np.testing.assert_allclose(unused.numpy(), [3.0 - 0.05 * n, 4.0 - 0.05 * n], rtol=1e-5)
        unused.grad.add_(1.0)
