"""Random functions: the compiled one gives what the eager one gives, whichever generator made its program.

Generated kernels are plain Python too: `unjitted` runs them number by number, so that hundreds of random ones are
checked without a compiler.
"""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import retrograd as rg
from hypothesis import HealthCheck, given, settings
from retrograd.backends.numpy_backend import NumpyBackend
from retrograd.backends.registry import default_backend

UNARY = {
    "exp": lambda x: rg.exp(rg.minimum(x, 3.0)),
    "tanh": rg.tanh,
    "sigmoid": rg.sigmoid,
    "relu": rg.relu,
    "gelu": lambda x: rg.nn.functional.gelu(x),
    "log": lambda x: rg.log(rg.abs(x) + 0.5),
    "sqrt": lambda x: rg.sqrt(rg.square(x) + 1),
    "sin": rg.sin,
    "negative": lambda x: -x,
    "cube": lambda x: x**3 * 0.1,
    "shift": lambda x: x + 0.25,
    "scale": lambda x: 0.5 * x,
    "through int": lambda x: rg.minimum(rg.maximum(x, -9.0), 9.0).astype("int64").astype("float32"),
    "double": lambda x: (x.astype("float64") * 1.5).astype("float32"),
    "detach": lambda x: x.detach(),
    "softplus": lambda x: rg.nn.functional.softplus(x),
}
BINARY = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / (rg.square(y) + 1),
    "maximum": rg.maximum,
    "minimum": rg.minimum,
    "where": lambda x, y: rg.where(x > y, x, y * 0.5),
}
WHOLE = {
    "softmax": lambda x: rg.softmax(x, axis=-1),
    "log_softmax": lambda x: rg.log_softmax(x, axis=-1),
    "layer norm": lambda x: rg.layer_norm(x, normalized_shape=(x.shape[-1],)),
    "sum last": lambda x: rg.sum(x, axis=-1, keepdims=True),
    "mean last": lambda x: rg.mean(x, axis=-1, keepdims=True),
    "max last": lambda x: rg.max(x, axis=-1, keepdims=True),
    "min last": lambda x: rg.min(x, axis=-1),
    "sum first": lambda x: rg.sum(x, axis=0),
    "sum all": rg.sum,
    "mean all": rg.mean,
    "sum middle": lambda x: rg.sum(x, axis=tuple(range(x.ndim))[1:2] or None),
    "transpose": lambda x: x.transpose(),
    "flat": lambda x: x.reshape(-1),
    "tail": lambda x: x[..., 1:],
    "linear": lambda x: rg.matmul(x, rg.full((x.shape[-1], 3), 0.3)),
    "again": lambda x: rg.broadcast_to(x, (2, *x.shape)),
}
SHAPES = [(3, 4), (4,), (3, 1), (2, 3, 4)]


@st.composite
def programs(draw):
    """(which operation, which earlier values) for each step; what does not fit together is left out when it runs."""
    n = draw(st.integers(2, 9))
    names = st.sampled_from([*UNARY, *BINARY, *WHOLE, "store"])
    steps = [(draw(names), draw(st.integers(0, 50)), draw(st.integers(0, 50))) for _ in range(n)]
    return steps, draw(st.booleans())


def run(program, inputs, weight, storage):
    steps, gradients = program
    weight.grad = None
    values = [*inputs, weight]
    for name, i, j in steps:
        x, y = values[-1 - i % len(values)], values[-1 - j % len(values)]
        if name in UNARY:
            values.append(UNARY[name](x))
        elif name in WHOLE:
            if x.ndim and x.size > 1 and x.shape[-1] > 1 and x.size < 60:
                values.append(WHOLE[name](x))
        elif name == "store":
            with rg.no_grad():
                if x.shape == storage.shape:
                    storage.mul_(0.5).add_(x.detach())
                    values.append(storage * 1)
        elif _broadcast(x.shape, y.shape):
            values.append(BINARY[name](x, y))
    results = values[-3:]
    if gradients:
        total = sum((rg.mean(v * v) for v in results if v.requires_grad), rg.mean(weight * 0))
        total.backward()
        with rg.no_grad():
            weight.sub_(weight.grad * 0.1)
        results = [*results, weight.grad]
    return [r.detach() * 1 for r in results]


def _broadcast(one, other):
    try:
        return np.prod(np.broadcast_shapes(one, other)) < 60
    except ValueError:
        return False


@pytest.fixture(scope="module", autouse=True)
def _eager_calls_by_hand():
    """They keep the programs of their kernels, and would leave those that the tests here patch to the tests after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrograd.autograd_core.compile.eager_kernels._Quick._program", lambda self, key, *call: None)
        yield


def check(program, tolerance):
    def state():
        rng = np.random.default_rng(0)
        weight = rg.tensor(rng.standard_normal((3, 4)).astype(np.float32), requires_grad=True)
        storage = rg.tensor(rng.standard_normal((3, 4)).astype(np.float32))
        return weight, storage

    rng = np.random.default_rng(1)
    data = [[rng.standard_normal(s).astype(np.float32) for s in SHAPES] for _ in range(5)]
    one, two = state(), state()
    compiled = rg.compile(lambda *inputs: run(program, inputs, *two))
    with np.errstate(all="ignore"):
        for arrays in data:
            expected = run(program, [rg.tensor(a) for a in arrays], *one)
            found = compiled(*[rg.tensor(a) for a in arrays])
            for e, f in zip([*expected, *one], [*found, *two], strict=True):
                np.testing.assert_allclose(f.numpy(), e.numpy(), rtol=tolerance, atol=tolerance)
    assert compiled.program is not None


COMMON = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=120, **COMMON)
@given(programs())
def test_the_array_library(program):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETROGRAD_KERNELS", "array")
        check(program, 1e-5)


@pytest.mark.skipif(default_backend().name != "numpy", reason="groups run in blocks on NumPy")
@settings(max_examples=120, **COMMON)
@given(programs(), st.sampled_from([4, 12, 30]))
def test_groups_in_small_blocks(program, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETROGRAD_KERNELS", "array")
        patch.setattr("retrograd.backends.kernels.numpy_generator.BLOCK", block)
        check(program, 1e-5)


@pytest.mark.skipif(default_backend().name != "numpy", reason="calls run in blocks on NumPy")
@settings(max_examples=120, **COMMON)
@given(programs(), st.sampled_from([1, 2, 5]))
def test_single_calls_in_small_blocks(program, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NumpyBackend, "fuses", lambda self: False)
        patch.setattr("retrograd.autograd_core.compile.blocking.BLOCK", block)
        check(program, 1e-5)


EXACT = ["exp", "tanh", "sigmoid", "relu", "sqrt", "sin", "negative", "shift", "scale", "double", "detach", *BINARY]


@settings(max_examples=100, **COMMON)
@given(st.lists(st.tuples(st.sampled_from(EXACT), st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=9))
def test_the_array_library_keeps_every_bit_where_it_keeps_the_order(steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETROGRAD_KERNELS", "array")
        check((steps, False), 0)


@pytest.mark.skipif(default_backend().name != "numpy", reason="kernels are generated for NumPy")
@settings(max_examples=250, **COMMON)
@given(programs())
def test_generated_kernels_unjitted(program):
    from retrograd.backends.kernels.numba_generator import plain

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NumpyBackend, "generates", lambda self: True)
        patch.setattr(NumpyBackend, "build", lambda self, descriptions: {d.key: plain(d) for d in descriptions})
        check(program, 1e-3)


@pytest.mark.skipif(not default_backend().generates(), reason="nothing here compiles kernels")
@settings(max_examples=2, **COMMON)
@given(programs())
def test_generated_kernels_compiled(program):
    check(program, 1e-3)
