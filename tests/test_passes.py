"""Passes: each does what it says on a small program, and changes no value."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.compile.expansion import written_out
from retrograd.autograd_core.compile.fusion import FUSED, fuse
from retrograd.autograd_core.compile.passes import dead_code, merge_equal
from retrograd.autograd_core.compile.simplify import fold_constants, simplify
from retrograd.autograd_core.compile.spaces import nested, per_row, suffixes
from retrograd.autograd_core.record import REGISTRY
from retrograd.autograd_core.recorder import Step, Value, recording
from retrograd.backends import get_backend


def recorded(function, *arrays):
    """(recorder, numbers of the inputs, number of the result) of a function of tensors."""
    tensors = [rg.tensor(a) for a in arrays]
    with recording() as tape:
        inputs = [tape.number(t, known=True) for t in tensors]
        out = tape.number(function(*tensors))
    return tape, inputs, out


def run(tape, steps, given, wanted, stands_for=()):
    """The value of `wanted`, by running the steps as their records are written."""
    values = dict(given)
    for step in steps:
        inputs = [values[v.number] if isinstance(v, Value) else v for v in step.inputs]
        values[step.outputs[0]] = step.record.as_written(np.ndarray)(*inputs, **step.attributes)
    return values[dict(stands_for).get(wanted, wanted)]


X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2


def names(steps):
    return [s.record.name for s in steps]


def test_dead_code_keeps_what_leads_to_the_wanted():
    def f(x):
        rg.exp(x)
        return rg.sin(x) * 2

    tape, _, out = recorded(f, X)
    assert names(dead_code(tape.steps, [out])) == ["sin", "multiply"]


def test_dead_code_keeps_effects():
    storage = rg.zeros(2)

    def f(x):
        with rg.no_grad():
            storage.add_(x)
        return x

    tape, _, out = recorded(f, X[0, :2])
    assert len(dead_code(tape.steps, [out])) == 2


def test_equal_steps_are_merged_and_draws_are_not():
    tape, inputs, out = recorded(lambda x: rg.exp(x) + rg.exp(x), X)
    steps, stands_for = merge_equal(tape.steps, ())
    assert names(steps) == ["exp", "add"]
    np.testing.assert_array_equal(run(tape, steps, {inputs[0]: X}, out, stands_for), np.exp(X) + np.exp(X))
    tape, _, _ = recorded(lambda x: rg.dropout(x) + rg.dropout(x), X)
    assert len(merge_equal(tape.steps, ())[0]) == len(tape.steps)


SIMPLER = {
    "times one": (lambda x: rg.exp(x * 1), ["exp"]),
    "one times": (lambda x: rg.exp(1.0 * x), ["exp"]),
    "by one": (lambda x: rg.exp(x / 1), ["exp"]),
    "minus nothing": (lambda x: rg.exp(x - 0.0), ["exp"]),
    "plus nothing may change a sign": (lambda x: rg.exp(x + 0.0), ["add", "exp"]),
    "to the first": (lambda x: rg.exp(x**1), ["exp"]),
    "twice negative": (lambda x: rg.exp(rg.negative(-x)), ["negative", "exp"]),
    "a copy": (lambda x: rg.exp(+x), ["exp"]),
    "a cast that casts nothing": (lambda x: rg.exp(x.astype("float32")), ["exp"]),
    "a cast that casts": (lambda x: rg.exp(x.astype("float64")), ["astype", "exp"]),
    "transposed back": (lambda x: rg.exp(x.T.T), ["transpose", "exp"]),
    "transposed twice": (
        lambda x: rg.exp(x.reshape(1, 2, 3).transpose(1, 2, 0).transpose(1, 2, 0)),
        ["reshape", "transpose", "transpose", "exp"],
    ),
    "reshaped back": (lambda x: rg.exp(x.reshape(6).reshape(2, 3)), ["reshape", "exp"]),
    "broadcast to its own shape": (lambda x: rg.exp(rg.broadcast_to(x, (2, 3))), ["exp"]),
    "cut and put together": (
        lambda x: (lambda flat: rg.exp(rg.concat([flat[:2], flat[2:6]])))(x.reshape(6)),
        ["reshape", "getitem", "getitem", "exp"],
    ),
    "put together otherwise": (
        lambda x: (lambda flat: rg.exp(rg.concat([flat[2:], flat[:2]])))(x.reshape(6)),
        ["reshape", "getitem", "getitem", "concat", "exp"],
    ),
    "broadcast": (lambda x: rg.exp(rg.broadcast_to(x, (2, 2, 3))), ["broadcast_to", "exp"]),
}


@pytest.mark.parametrize("case", SIMPLER)
def test_algebra(case):
    function, expected = SIMPLER[case]
    tape, inputs, out = recorded(function, X)
    steps, stands_for = simplify(tape.steps, tape.specs, {out}, ())
    assert names(steps) == expected
    np.testing.assert_array_equal(run(tape, steps, {inputs[0]: X}, out, stands_for), function(rg.tensor(X)).numpy())


def test_two_transposes_become_one():
    tape, _, out = recorded(lambda x: rg.exp(x.reshape(1, 2, 3).transpose(1, 2, 0).transpose(1, 2, 0)), X)
    steps, _ = simplify(tape.steps, tape.specs, {out}, ())
    assert names(dead_code(steps, [out])) == ["reshape", "transpose", "exp"]


def test_a_value_that_is_handed_out_stays_a_value_of_its_own():
    tape, _, out = recorded(lambda x: x * 1, X)
    assert len(simplify(tape.steps, tape.specs, {out}, ())[0]) == 1


def test_a_copy_of_a_storage_that_changes_is_a_copy():
    tape, inputs, out = recorded(lambda x: rg.exp(+x), X)
    assert len(simplify(tape.steps, tape.specs, {out}, {inputs[0]})[0]) == 2


def test_constants_are_computed_once():
    tape, inputs, out = recorded(lambda x, c: x * rg.exp(c + 1), X, X)
    steps, known = fold_constants(tape.steps, tape.specs, {inputs[1]: X}, get_backend("numpy"))
    assert names(steps) == ["multiply"]
    np.testing.assert_array_equal(run(tape, steps, {inputs[0]: X, **known}, out), X * np.exp(X + 1))


def test_a_program_computes_with_constants_once():
    def masked(x):
        rows = rg.arange(3).reshape(3, 1)
        return rg.sum(rg.where(rows >= rg.arange(3), x, 0.0) * 2, axis=1)

    compiled = rg.compile(masked)
    x = rg.arange(9.0).reshape(3, 3)
    for _ in range(4):
        out = compiled(x)
    np.testing.assert_array_equal(out.numpy(), masked(x).numpy())
    assert "greater_equal" not in repr(compiled.program)


def test_draws_are_not_constants():
    tape, inputs, _ = recorded(lambda x: rg.dropout(x), X)
    steps, _ = fold_constants(tape.steps, tape.specs, {inputs[0]: X}, get_backend("numpy"))
    assert "dropout" in names(steps) or any(s.record.kind == "random" for s in steps)


def fused(function, *arrays, smallest=2):
    tape, _, out = recorded(function, *arrays)
    steps = fuse(tape.steps, tape.specs, {n: n for n in range(len(tape.specs))}, {out}, smallest=smallest)
    return [
        [m.record.name for m in s.attributes["group"].members] if s.record is FUSED else s.record.name for s in steps
    ]


V = np.arange(3, dtype=np.float32)
GROUPS = {
    "a chain": (lambda x, v: rg.exp(x * 2) + 1, [["multiply", "exp", "add"]]),
    "broadcast inputs": (
        lambda x, v: rg.maximum(x * v, 0) - x[:, :1],
        ["getitem", ["multiply", "maximum", "subtract"]],
    ),
    "rows": (
        lambda x, v: rg.exp(x - rg.max(x, axis=1, keepdims=True)),
        [["max", "subtract", "exp"]],
    ),
    "columns": (lambda x, v: rg.sum(x * v, axis=0), [["multiply", "sum"]]),
    "everything": (lambda x, v: rg.mean(x * v), [["multiply", "mean"]]),
    "through a change of shape": (lambda x, v: rg.exp((x * v).reshape(6)), [["multiply", "reshape", "exp"]]),
    "two ends meet": (lambda x, v: rg.exp(x) * rg.sin(x), [["exp", "sin", "multiply"]]),
    "one step alone": (lambda x, v: rg.exp(x), ["exp"]),
    "not through a product of matrices": (
        lambda x, v: rg.exp(x * v) + rg.matmul(rg.exp(x * v).T, x)[:2],
        None,
    ),
    "not over the middle of a transpose": (
        lambda x, v: rg.exp((x * v).T) + 1,
        ["multiply", "transpose", ["exp", "add"]],
    ),
}


@pytest.mark.parametrize("case", GROUPS)
def test_fusion(case):
    function, expected = GROUPS[case]
    found = fused(function, X, V)
    if expected is not None:
        assert found == expected
    else:
        assert "matmul" in found
        assert all("matmul" not in g for g in found if isinstance(g, list))


def test_shapes_as_cuts():
    assert suffixes((2, 3, 4)) == {1, 4, 12, 24}
    assert nested(suffixes((2, 3, 4)) | suffixes((6, 4)))
    assert not nested(suffixes((2, 3, 4)) | suffixes((8, 3)))
    assert per_row((2, 1), (2, 3), 3)
    assert not per_row((1, 3), (2, 3), 3)
    assert not per_row((2, 3), (2, 3), 3)


def test_values_that_must_lie_apart_are_not_merged():
    tape, _, _ = recorded(lambda x: rg.exp(x) + rg.exp(x), X)
    second = tape.steps[1].outputs[0]
    assert names(merge_equal(tape.steps, (), {second})[0]) == ["exp", "exp", "add"]
    assert names(merge_equal(tape.steps, {second})[0]) == ["exp", "exp", "add"]


def test_writing_out_stops_at_the_first_step_that_no_kernel_could_hold():
    """A convolution's windows are too many; its product, which is larger still, is not formed to find that out."""
    images, weights = ((8, 16, 32, 32), np.dtype("float32")), ((256, 16, 3, 3), np.dtype("float32"))
    windows, product = 4 * 8 * 16 * 9 * 30 * 30, 4 * 8 * 256 * 30 * 30
    rec = REGISTRY["conv2d"]
    step = Step(rec, (Value(0), Value(1), None), rec.defaults, (), "")
    tracemalloc.start()
    try:
        assert written_out(step, [images, weights, None], ()) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < windows + product


ROWS = np.random.default_rng(0).standard_normal((40, 36)).astype(np.float32)


def weight(*shape):
    return rg.nn.Parameter(np.random.default_rng(1).standard_normal(shape).astype(np.float32) / 6)


def test_a_gradient_that_is_a_view_of_what_the_program_made_is_not_copied():
    w = weight(48, 36)
    loss = rg.compile(lambda x: rg.sum((x @ w.T) ** 2).backward())
    for _ in range(4):
        w.grad = None
        loss(ROWS)
    assert "positive" not in {s.record.name for s in loss.program.steps}
    np.testing.assert_allclose(w.grad.numpy(), 2 * (ROWS @ w.numpy().T).T @ ROWS, rtol=1e-3, atol=1e-3)


def test_equal_gradients_stay_apart():
    a, b = weight(48, 36), weight(48, 36)
    step = rg.compile(lambda x: rg.sum(x @ a.T + x @ b.T).backward())
    for _ in range(4):
        a.grad = b.grad = None
        step(ROWS)
    assert not a.backend.shares_memory(a.grad.array, b.grad.array)
    with rg.no_grad():
        a.grad.mul_(2.0)
    np.testing.assert_allclose(a.grad.numpy(), 2 * b.grad.numpy(), rtol=1e-6)


def test_a_view_whose_memory_is_handed_out_is_copied():
    w = weight(48, 36)

    def step(x):
        out = x @ w.T
        rg.sum(out).backward()
        return w.grad.T

    step = rg.compile(step)
    for _ in range(4):
        w.grad = None
        result = step(ROWS)
    assert not w.backend.shares_memory(w.grad.array, result.array)
    np.testing.assert_array_equal(result.numpy(), w.grad.numpy().T)


def test_a_gradient_does_not_lie_in_the_buffer_that_took_what_it_is_a_view_of(monkeypatch):
    monkeypatch.setenv("RETROGRAD_KERNELS", "reference")  # where each step is a call of its own, not part of a group
    w, buffer = weight(36, 40), rg.zeros((40, 36))

    def look(gradient):
        buffer.copy_(gradient)

    def step(x):
        w.grad = None
        turned = w.T
        turned.register_hook(look)
        rg.sum(turned * x).backward()

    compiled = rg.compile(step)
    for _ in range(5):
        compiled(ROWS)
        np.testing.assert_array_equal(buffer.numpy(), ROWS)
        with rg.no_grad():
            buffer.fill_(7.0)
        np.testing.assert_array_equal(w.grad.numpy(), ROWS.T)


def test_a_value_is_not_changed_with_the_buffer_that_took_it(monkeypatch):
    monkeypatch.setenv("RETROGRAD_KERNELS", "reference")
    buffer = rg.zeros((40, 36))

    def step(x):
        tripled = x * 3.0
        buffer.copy_(tripled)
        buffer.mul_(2.0)
        return rg.sum(tripled, axis=0), tripled.T

    compiled = rg.compile(step)
    for _ in range(5):
        total, result = compiled(ROWS)
        np.testing.assert_allclose(total.numpy(), 3 * ROWS.sum(0), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(result.numpy(), np.float32(3) * ROWS.T)
