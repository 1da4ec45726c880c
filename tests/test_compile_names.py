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


class Lightning(rg.nn.Module):
    """A module that is its own trainer, with counts and histories beside what its code reads."""

    def __init__(self):
        super().__init__()
        self.net, self.scale = rg.nn.Linear(3, 2), 1.0
        self.step, self.best, self.losses = 0, 1e9, []
        self.optimizer = rg.optim.SGD(self.net.parameters(), lr=0.1)

    def forward(self, x):
        return self.net(x) * self.scale

    def training_step(self, x):
        loss = (self(x) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss


def test_attributes_of_a_module_that_its_code_does_not_read_do_not_matter():
    rg.manual_seed(0)
    model = Lightning()
    same = copy.deepcopy(model)
    step, programs = rg.compile(model.training_step), set()
    for call in range(80):
        if call == 40:
            model.scale = same.scale = 0.5
        x = rg.randn(4, 3)
        loss = step(x).item()
        assert loss == pytest.approx(same.training_step(x).item(), rel=1e-4)
        model.step, model.best = model.step + 1, min(model.best, loss)
        model.losses.append(loss)
        programs.add(id(step.program))
    assert len(programs) <= 3  # none, that of either scale


def test_calls_that_were_prepared_count_as_recorded(monkeypatch):
    monkeypatch.setattr("retrograd.autograd_core.compile.programs.MAX_PROGRAMS", 6)
    place = types.SimpleNamespace(share=0.0)
    step = rg.compile(lambda x: place.share * x)

    def go_on():
        for i in range(20):
            place.share = float(i)
            step.prepare(rg.ones(1))
            assert step(rg.ones(1)).item() == i

    with pytest.raises(RecordingError, match=r"'place\.share' changes from call to call .* 6 calls in a row"):
        go_on()
    for _ in range(3):
        assert step(rg.ones(1)).item() == place.share
