"""Training programs in the idiom in which people write them: eager and compiled, the same numbers after each call."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn, optim


def normal(seed, *shape):
    return rg.tensor(np.random.default_rng(seed).standard_normal(shape))


def labels(seed, classes, n):
    return rg.tensor(np.random.default_rng(seed).integers(0, classes, n))


def mlp(*sizes):
    rg.manual_seed(sum(sizes))
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1]).double()


def same(program):
    """What `program(compiled)` yields is the same where steps are compiled. Returns what was compiled."""
    made = []

    def compiled(function):
        made.append(rg.compile(function))
        return made[-1]

    rounds = zip(program(lambda f: f), program(compiled), strict=True)
    for call, pair in enumerate(rounds):
        one, other = ([t.detach().numpy().copy() for t in found] for found in pair)
        for expected, found in zip(one, other, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=f"call {call}")
    return made


def by_hand(compiled):
    """A recurrent net as a loop: its two biases have the same gradient."""
    rg.manual_seed(0)
    inputs, states = nn.Linear(4, 6).double(), nn.Linear(6, 6).double()
    parameters = [*inputs.parameters(), *states.parameters()]
    optimizer = optim.Adam(parameters, lr=0.01)

    @compiled
    def step(x, h):
        for t in range(x.shape[1]):
            h = rg.tanh(inputs(x[:, t]) + states(h))
        optimizer.zero_grad()
        (h**2).mean().backward()
        nn.utils.clip_grad_norm_(parameters, 0.1)
        optimizer.step()
        return h.detach()

    h = rg.zeros(3, 6, dtype="float64")
    for i in range(8):
        h = step(normal(i, 3, 2, 4), h)
        yield [h, *parameters]


@pytest.mark.parametrize("program", [by_hand])
def test_the_same_numbers(program):
    (step,) = same(program)
    assert len(step.programs) == 1


def test_a_value_laid_end_to_end_with_itself():
    join = rg.compile(lambda x: rg.concat([x * 2, x + 1, x * 2]))
    for i in range(5):
        assert join(rg.ones(2) * i).tolist() == [2 * i, 2 * i, i + 1, i + 1, 2 * i, 2 * i]
