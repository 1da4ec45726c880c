"""Recompute or keep: values leave memory where computing them again moves less, and stay what they were."""

from __future__ import annotations

import math

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.compile.expansion import written_out
from retrograd.autograd_core.compile.fusion import FUSED, fuse
from retrograd.autograd_core.compile.recompute import recompute
from retrograd.autograd_core.record import REGISTRY
from retrograd.autograd_core.recorder import Step, Value, recording

X = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(16, 16)).astype(np.float32)


def planned(function, *arrays, also=()):
    """(tape, inputs, result, steps after fusion, steps after recomputation); `also`: indices of recorded steps whose
    values are handed out too."""
    tensors = [rg.tensor(a) for a in arrays]
    with recording() as tape, rg.no_grad():
        inputs = [tape.number(t, known=True) for t in tensors]
        out = tape.number(function(*tensors))
    wanted = {out, *[tape.steps[i].outputs[0] for i in also]}
    root = {n: n for n in range(len(tape.specs))}
    steps = fuse(tape.steps, tape.specs, root, wanted)
    return tape, inputs, out, steps, recompute(steps, tape.specs, root, wanted)


def run(steps, given, out):
    """The result, each group knowing only what it reads and giving only what it hands out."""
    values = dict(given)
    for step in steps:
        known = {v.number: values[v.number] for v in step.inputs if isinstance(v, Value)}
        for member in step.attributes["group"].members if step.record is FUSED else [step]:
            operands = [known[v.number] if isinstance(v, Value) else v for v in member.inputs]
            known[member.outputs[0]] = member.record.as_written(np.ndarray)(*operands, **member.attributes)
        values |= {n: known[n] for n in step.outputs}
    return values[out]


def handed_out(steps, tape):
    """How many whole arrays the groups write for others."""
    return sum(math.prod(tape.specs[n][0]) == X.size for s in steps if s.record is FUSED for n in s.outputs)


def normalized(x, w):
    centered = x - x.mean(axis=-1, keepdims=True)
    y = centered / ((centered**2).mean(axis=-1, keepdims=True) + 1e-5).sqrt()
    return (y * 2) @ w * y + 1


def kept_beside_its_square(x, w):
    y = rg.tanh(x)
    return ((y @ w) * (y * y) + 1) @ w * y + 1


@pytest.mark.parametrize("function", [normalized, kept_beside_its_square])
def test_what_is_cheap_is_computed_where_it_is_read(function):
    tape, inputs, out, before, after = planned(function, X, W)
    assert handed_out(after, tape) < handed_out(before, tape)
    given = dict(zip(inputs, (X, W), strict=True))
    np.testing.assert_array_equal(run(after, given, out), run(before, given, out))
    eager = function(rg.tensor(X), rg.tensor(W)).numpy()
    np.testing.assert_allclose(run(after, given, out), eager, rtol=2e-4, atol=1e-4)


def test_numbers_per_row_are_handed_out_instead():
    tape, _, _, before, after = planned(normalized, X, W)
    short = [n for s in after if s.record is FUSED for n in s.outputs if tape.specs[n][0] == (16, 1)]
    assert len(short) == 2
    assert not [n for s in before if s.record is FUSED for n in s.outputs if tape.specs[n][0] == (16, 1)]


def test_a_group_whose_values_are_all_computed_elsewhere_goes():
    """The mask of the right classes, which cross-entropy reads twice."""
    x, targets = X[:4, :10], np.arange(4)
    defaults = REGISTRY["cross_entropy"].defaults | {"reduction": "sum"}
    step = Step(REGISTRY["cross_entropy"], (Value(0), Value(1)), defaults, (), "")
    tape, inputs, (out,) = written_out(step, [(a.shape, a.dtype) for a in (x, targets)], ())
    root = {n: n for n in range(len(tape.specs))}
    before = fuse(tape.steps, tape.specs, root, {out})
    after = recompute(before, tape.specs, root, {out})
    assert [s.record for s in after].count(FUSED) < [s.record for s in before].count(FUSED)
    given = dict(zip(inputs, (x, targets), strict=True)) | {n: t.array for n, t in tape.storages.items()}
    np.testing.assert_array_equal(run(after, given, out), run(before, given, out))


def test_two_values_that_lead_to_one_another_come_in_order():
    def f(x, w):
        a = x - x.mean(axis=-1, keepdims=True)
        b = a * 3
        return (a + b) @ w * b + a

    tape, inputs, out, before, after = planned(f, X, W)
    assert handed_out(after, tape) < handed_out(before, tape)
    given = dict(zip(inputs, (X, W), strict=True))
    np.testing.assert_array_equal(run(after, given, out), run(before, given, out))


def expensive(x, w):
    y = rg.exp(x) + 1
    return (y * 2) @ w * y + 1


def from_two_others(x, w):
    a, b = x @ w, w @ x
    y = a * b
    return (y * 2) @ w * y + 1


def read_by_a_product(x, w):
    y = x * x + 1
    return (y @ w) * y + 1


@pytest.mark.parametrize("function", [expensive, from_two_others, read_by_a_product])
def test_what_gains_nothing_is_kept(function):
    _, _, _, before, after = planned(function, X, W)
    assert after == before


def test_what_is_handed_out_is_kept():
    def f(x, w):
        y = x + 1
        return (y * 2) @ w * y * 3

    tape, _, _, before, after = planned(f, X, W)
    assert handed_out(after, tape) < handed_out(before, tape)
    _, _, _, before, after = planned(f, X, W, also=[0])
    assert after == before


def test_a_storage_that_changes_is_not_read_later():
    storage = rg.tensor(X)

    def f(x, w):
        y = storage + 1
        z = (y * 2) @ w
        storage.copy_(x)
        return z * y * 3

    _, _, _, before, after = planned(f, X, W)
    assert after == before
