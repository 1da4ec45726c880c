"""Gradients of complex numbers follow PyTorch's convention, dL/dRe(z) + i·dL/dIm(z), to first and second order."""

from __future__ import annotations

import numpy as np
import pytest
import retrograd as rg

rng = np.random.default_rng(0)
Z, W = (rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3)) for _ in range(2))
R = rng.standard_normal((3, 3))

FUNCTIONS = {
    "multiply": (lambda x, y: x * y, Z, W),
    "multiply by real": (lambda x, y: x * y, Z, R),
    "divide": (lambda x, y: x / y, Z, W),
    "power": (lambda x, y: x**y, Z, W),
    "exp": (rg.exp, Z),
    "log": (rg.log, Z),
    "sqrt": (rg.sqrt, Z),
    "sin": (rg.sin, Z),
    "tanh": (rg.tanh, Z),
    "abs": (rg.abs, Z),
    "sign": (rg.sign, Z),
    "real": (rg.real, Z),
    "imag": (rg.imag, Z),
    "imag of real times i": (lambda x: rg.imag(x * 1j), R),
    "conj": (lambda x: rg.conj(x) * x, Z),
    "matmul": (rg.matmul, Z, W),
    "linear": (rg.linear, Z, W),
    "einsum": (lambda x, y: rg.einsum("ij,jk->ik", x, y), Z, W),
    "sum": (lambda x: x.sum(axis=0), Z),
    "mean": (lambda x: (x * x).mean(), Z),
    "variance": (lambda x: x.var(), Z),
    "product": (lambda x: rg.prod(x, axis=1), Z),
    "indexing": (lambda x: x[[0, 0, 2]] * 1j, Z),
    "split": (lambda x: rg.split(x, 3)[1], Z),
    "concat": (lambda x, y: rg.concat([x, y]), Z, W),
    "where": (lambda x, y: rg.where(R > 0, x, y), Z, W),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients(name):
    f, *inputs = FUNCTIONS[name]
    rg.testing.check_gradient(f, *inputs)
    rg.testing.check_second_order(f, *inputs)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["multiply", "divide", "exp", "abs", "matmul"])
def test_the_same_as_pytorch(name):
    torch = pytest.importorskip("torch")
    inputs = FUNCTIONS[name][1:]
    peer = getattr(torch, name)
    ours = [rg.tensor(x, requires_grad=True) for x in inputs]
    theirs = [torch.tensor(x, requires_grad=True) for x in inputs]
    for out, module in ((getattr(rg, name)(*ours), rg), (peer(*theirs), torch)):
        module.abs(out * (0.3 + 0.5j)).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-12)
