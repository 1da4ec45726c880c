"""rg.grad and its kin on plain arrays: kinds of arguments, nests, nesting."""

from __future__ import annotations

import numpy as np
import pytest
import retrograd as rg


@pytest.mark.parametrize("backend", ["numpy", "strict"])
def test_an_array_has_an_array_for_its_gradient_wherever_it_was_computed(backend):
    with rg.use_backend(backend):
        w = np.ones(3)
        w -= 0.5 * rg.grad(lambda w: np.sum(w * w))(w)
        jacobian = rg.jacobian(lambda w: w * w)(w)
        hessian = rg.hessian(lambda w: (w * w).sum())(w)
    assert w.tolist() == [0.0, 0.0, 0.0]
    assert type(jacobian) is np.ndarray
    assert type(hessian) is np.ndarray


def test_a_gradient_of_an_array_inside_a_gradient_stays_in_the_graph():
    def f(x):
        inner = rg.grad(lambda y: (y**2 * x).sum())(np.ones(2))  # 2x
        return (inner * x).sum()

    found = rg.grad(f)(np.ones(2))
    assert type(found) is np.ndarray
    assert found.tolist() == [4.0, 4.0]


def test_an_array_has_an_array_for_its_gradient_beside_parameters():
    layer = rg.nn.Linear(3, 1)
    found = rg.grad(lambda x: layer(x).sum())(np.ones((1, 3), np.float32))
    assert type(found) is np.ndarray
    assert layer.weight.grad is None


def test_aux_carries_no_graph():
    value, g = rg.value_and_grad(lambda x: (x.sum(), {"x": x * 2, "n": 3}), has_aux=True)(np.ones(2))
    assert not value[1]["x"].requires_grad
    assert value[1]["n"] == 3
    assert g.tolist() == [1.0, 1.0]


def test_what_is_no_function_is_refused_at_once():
    with pytest.raises(TypeError, match="take a function, got float"):
        rg.grad(3.0)


def test_the_product_with_a_hessian_is_the_one_with_the_whole_matrix():
    def f(x):
        return (rg.sin(x) * x[::-1] ** 2).sum()

    rng = np.random.default_rng(0)
    x, v = rng.standard_normal((2, 5))
    found = rg.hvp(f, x, v)
    assert type(found) is np.ndarray
    np.testing.assert_allclose(found, rg.hessian(f)(x) @ v, rtol=1e-12)


def test_a_jacobian_has_the_axes_of_the_result_before_those_of_the_argument():
    x = np.arange(6.0).reshape(2, 3)
    found = rg.jacobian(lambda x: x.sum(axis=1) ** 2)(x)
    assert found.shape == (2, 2, 3)
    np.testing.assert_allclose(found, np.eye(2)[:, :, None] * 2 * x.sum(axis=1)[:, None, None] * np.ones(3))


def test_gradients_that_are_constants_are_the_callers_own():
    p, q = (rg.tensor(np.ones(2), requires_grad=True) for _ in range(2))
    cotangent = rg.tensor(np.array([3.0, 4.0]))
    for given in ((p, q), (p.detach(), q.detach())):
        for one, other in (
            rg.grad(lambda x, y: (x + y).sum(), argnums=(0, 1))(*given),
            rg.vjp(lambda x, y: x + y, *given)[1](cotangent),
        ):
            before = other.numpy().copy()
            one.zero_()
            np.testing.assert_array_equal(other.numpy(), before)
    np.testing.assert_array_equal(cotangent.numpy(), [3.0, 4.0])
