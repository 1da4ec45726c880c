"""Random numbers in a compiled function: each run draws on where the streams stand, as an eager call would."""

from __future__ import annotations

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.recorder import RecordingError


def test_a_new_seed_reaches_the_program():
    drawn = rg.compile(lambda x: rg.rand(3) * x)
    for _ in range(4):
        drawn(rg.ones(3))
    rg.manual_seed(3)
    found = drawn(rg.ones(3))
    rg.manual_seed(3)
    assert found.tolist() == rg.rand(3).tolist()


def test_integers_and_orders_that_are_drawn_inside():
    def noised(x):
        steps = rg.randint(0, 50, (len(x),))
        return x[rg.randperm(len(x))] * steps[:, None], steps

    inputs = np.random.default_rng(0).standard_normal((6, 8, 6)).astype(np.float32)
    results = []
    for f in (noised, rg.compile(noised)):
        rg.manual_seed(0)
        results.append([[t.numpy().copy() for t in f(rg.tensor(x))] for x in inputs])
    for expected, found in zip(*results, strict=True):
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_seed_that_is_set_before_each_call():
    compiled = rg.compile(lambda x: rg.dropout(x, p=0.5) + rg.rand(64))
    x = rg.ones(64)
    for seed in (0, 1, 0, 2, 1, 0):
        rg.manual_seed(seed)
        found = compiled(x)
        rg.manual_seed(seed)
        np.testing.assert_array_equal(found.numpy(), (rg.dropout(x, p=0.5) + rg.rand(64)).numpy())
    assert len(compiled.programs) == 1


@pytest.mark.parametrize("seeded", [rg.manual_seed, lambda seed: rg.Generator().manual_seed(seed)])
def test_a_stream_that_the_function_sets_itself(seeded):
    def f(x):
        seeded(0)
        return rg.dropout(x)

    before = rg.default_generator().state()
    with pytest.raises(RecordingError, match=r"a random stream is set inside a recorded function, at .*outside"):
        rg.compile(f)(rg.ones(4))
    assert rg.default_generator().state() == before


def test_a_generator_that_each_call_makes_anew():
    f = rg.compile(lambda x: x * rg.rand(4, generator=rg.Generator(0)))
    f(rg.ones(4))
    f(rg.ones(4))
    with pytest.raises(RecordingError, match=r"draws from another generator.*Make the generator once, outside"):
        f(rg.ones(4))
