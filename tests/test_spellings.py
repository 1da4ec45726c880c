"""Names that PyTorch and NumPy users reach for: each gives what its namesake gives."""

from __future__ import annotations

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.operations.spellings import SPELLINGS

RNG = np.random.default_rng(0)
X, CUBE, V = RNG.normal(size=(3, 4)), RNG.normal(size=(2, 4, 5)), RNG.normal(size=4)


def test_every_spelling_is_the_same_operation():
    for name, others in SPELLINGS.items():
        for other in others.split():
            assert getattr(rg, other) is getattr(rg, name)
            assert hasattr(rg.Tensor, other) == hasattr(rg.Tensor, name)


def test_methods_under_pytorchs_short_names():
    x = rg.tensor([1.0, -2.0])
    assert x.pow(2).tolist() == x.mul(x).tolist() == [1.0, 4.0]
    assert x.sub(1).neg().tolist() == [0.0, 3.0]
    assert x.clamp(min=0).tolist() == [1.0, 0.0]
    assert x.gt(0).tolist() == [True, False]
    assert x.ne(1).tolist() == [False, True]
    assert x.int().dtype == np.int32
    assert x.bool().dtype == bool
    assert rg.ones((2, 3)).t().shape == (3, 2)


@pytest.mark.parametrize(("x", "y"), [(X, CUBE), (X, V), (V, V), (2.0, X), (V, CUBE), (CUBE, RNG.normal(size=(5, 2)))])
def test_dot_is_numpys(x, y):
    found = np.dot(rg.tensor(x), rg.tensor(y))
    np.testing.assert_allclose(found.numpy(), np.dot(x, y), rtol=1e-12 if np.ndim(x) else 1e-6)


@pytest.mark.parametrize("axes", [0, 1, (1, 0), ((1,), (0,)), (-1, -1)])
def test_tensordot_is_numpys(axes):
    y = RNG.normal(size=(4, 4))
    np.testing.assert_allclose(np.tensordot(rg.tensor(X), y, axes=axes).numpy(), np.tensordot(X, y, axes=axes))


def test_tensordot_names_axes_of_different_length():
    with pytest.raises(ValueError, match=r"axes \[0\] of \(3, 4\) and \[0\] of \(4,\)"):
        rg.tensordot(X, V, axes=(0, 0))


def test_products_and_stacks_are_numpys():
    for function in (np.inner, np.outer):
        np.testing.assert_allclose(function(rg.tensor(X), V).numpy(), function(X, V))
    for function in (np.vstack, np.hstack):
        for array in (X, V):
            np.testing.assert_array_equal(function([rg.tensor(array), array]).numpy(), function([array, array]))


@pytest.mark.parametrize("k", [-1, 0, 2])
@pytest.mark.parametrize("function", [np.tril, np.triu])
def test_triangles_are_numpys(function, k):
    for array in (CUBE, np.ones((3, 3), bool)):
        found = function(rg.tensor(array), k)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found.numpy(), function(array, k))


def test_what_is_composed_is_differentiable():
    rg.testing.check_gradient(lambda x, y: rg.sum(rg.square(rg.dot(x, y))), X, CUBE)
    rg.testing.check_gradient(lambda x: rg.sum(rg.square(rg.tril(x))), X)


def test_numpys_keywords():
    x = rg.tensor(X)
    np.testing.assert_allclose(x.var(ddof=1).numpy(), X.var(ddof=1))
    np.testing.assert_allclose(x.std(0, ddof=1).numpy(), X.std(0, ddof=1))
    np.testing.assert_allclose(np.einsum("ij,jk", x, X.T, optimize=True).numpy(), X @ X.T)


@pytest.mark.parametrize(("given", "ours"), [("dim", "axis"), ("keepdim", "keepdims")])
def test_pytorchs_keywords_are_errors_that_name_ours(given, ours):
    with pytest.raises(TypeError, match=f"sum takes {ours}=, as in NumPy, not {given}="):
        rg.sum(rg.ones(2), **{given: 0})


def test_created_like_another():
    x = rg.zeros((2, 3), dtype="float64")
    for function in (rg.empty_like, rg.rand_like, rg.randn_like):
        assert function(x).shape == (2, 3)
        assert function(x).dtype == np.float64
        assert function(x).backend is x.backend
    assert rg.empty(2, 3).tolist() == [[0.0] * 3] * 2


def test_dtypes_under_pytorchs_names():
    assert [rg.zeros(1, dtype=d).dtype.name for d in (rg.half, rg.float, rg.double, rg.long)] == [
        "float16",
        "float32",
        "float64",
        "int64",
    ]


def test_randint_takes_a_shape_in_either_place():
    assert rg.randint(10, (2, 3)).shape == rg.randint(0, 10, (2, 3)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"\[low, high\), got low=3 and high=3"):
        rg.randint(3, 3, (2,))


@pytest.mark.parametrize("dtype", ["float32", "bool"])
@pytest.mark.parametrize("turn", [lambda x: x.T, lambda x: x[:, ::2], lambda x: x[:, :1], lambda x: x[0, ::2], rg.flip])
def test_contiguous_lies_row_by_row(turn, dtype):
    x = turn(rg.asarray(np.arange(12).reshape(3, 4) % 3).astype(dtype))
    found = x.contiguous()
    assert found.array.flags.c_contiguous
    np.testing.assert_array_equal(found.numpy(), x.numpy())
    assert found.contiguous() is found
