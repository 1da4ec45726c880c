"""Names that a compiled function mentions, and that come to stand for something else."""

from __future__ import annotations

import copy
import types

import pytest
import retrograd as rg
from retrograd.autograd_core.recorder import RecordingError


def test_a_model_and_its_optimizer_that_are_made_anew():
    @rg.compile
    def step(x):
        loss = (net(x) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    for seed in range(3):  # as where the cell of a notebook runs again
        rg.manual_seed(seed)
        net = rg.nn.Linear(3, 2)
        same = copy.deepcopy(net)
        optimizer = rg.optim.SGD(net.parameters(), lr=0.1)
        reference = rg.optim.SGD(same.parameters(), lr=0.1)
        for _ in range(6):
            x = rg.randn(4, 3)
            wanted = (same(x) ** 2).sum()
            reference.zero_grad()
            wanted.backward()
            reference.step()
            assert step(x).item() == pytest.approx(wanted.item(), rel=1e-4)
    assert len(step.programs) >= 1


def test_a_number_that_changes_once_a_program_is_there():
    weight, calls = 0.5, 0

    @rg.compile
    def step(x):
        nonlocal calls
        calls += 1  # its own affair
        return (lambda v: v * weight)(x)

    for wanted in (0.5, 0.25, 0.5, -0.0):
        weight = wanted
        for _ in range(5):
            assert repr(step(rg.ones(2)).tolist()) == repr([wanted, wanted])
    assert calls == 3 + 1 + 0 + 1


def test_an_object_that_is_another_one_in_each_call_is_an_error():
    place = types.SimpleNamespace()
    step = rg.compile(lambda x: place.batch["x"] * x)

    def go_on():
        for i in range(100):
            place.batch = {"x": rg.full(1, float(i))}
            assert step(rg.ones(1)).item() == i

    with pytest.raises(RecordingError, match=r"'place\.batch.* changes from call to call .* as an argument"):
        go_on()
