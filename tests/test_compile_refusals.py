"""What a compiled function refuses: frozen Python state, values that are read, signatures without end."""

from __future__ import annotations

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.recorder import RecordingError


def _counter():
    calls = [0.0]
    w = rg.tensor([1.0, 2.0], requires_grad=True)

    def f(x):
        calls[0] += 1
        return (w * x * calls[0]).sum()

    return f


def _draw():
    rng = np.random.default_rng(0)
    return lambda x: (x * rg.tensor(rng.standard_normal(2))).sum()


def _length():
    calls = [0]

    def f(x):
        calls[0] += 1
        for _ in range(calls[0]):
            x = x * 2
        return x

    return f


@pytest.mark.parametrize("made", [_counter, _draw, _length])
def test_frozen_python_state_is_an_error(made):
    f = rg.compile(made())

    def call_it_often():
        for _ in range(4):
            f(rg.ones(2))

    with pytest.raises(RecordingError, match=r"freeze|number of operations"):
        call_it_often()


@pytest.mark.parametrize("read", [lambda t: t.item(), lambda t: t.numpy(), lambda t: bool(t > 0), lambda t: f"{t:.2f}"])
def test_reading_a_value_inside_is_an_error_that_says_what_to_do(read):
    f = rg.compile(lambda x: read(x.sum()))
    with pytest.raises(RecordingError, match="outside"):
        f(rg.ones(2))


def test_too_many_signatures():
    f = rg.compile(lambda x: x * 2)

    def call_it_with_every_length():
        for n in range(1, 80):
            for _ in range(3):
                f(rg.ones(n))

    with pytest.raises(RecordingError, match="signatures"):
        call_it_with_every_length()
