"""Checkpoints: a run that goes on is the run that was never interrupted; what is damaged or does not fit is told."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import retrograd as rg
from retrograd.train import Checkpoints, EarlyStopping, Trainer

F = rg.nn.functional


class Interrupted(Exception):
    """Stands for the end of a process."""


class InterruptAt(rg.train.Callback):
    """Raise when a step is done, before anything of it is saved."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer):
        if trainer.step == self.step:
            raise Interrupted


def loaders(seed=3):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((43, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0.5)
    train = rg.data.DataLoader(rg.data.ArrayDataset(x, y), 8, shuffle=True, seed=seed)
    return train, rg.data.DataLoader(rg.data.ArrayDataset(x[:10], y[:10]), 4, shuffle=True)


class Net(rg.nn.Module):
    """Dropout, a running mean, and a random stream of its own."""

    def __init__(self, width=6):
        super().__init__()
        self.first, self.norm, self.last = rg.nn.Linear(4, width), rg.nn.BatchNorm1d(width), rg.nn.Linear(width, 3)
        self.drop, self.noise = rg.nn.Dropout(0.3), rg.Generator(7)

    def forward(self, x):
        x = self.drop(rg.tanh(self.norm(self.first(x))))
        if self.training:
            x = x + 0.1 * rg.randn(x.shape, generator=self.noise)
        return self.last(x)


def made(folder, *more, width=6, seed=3, every=5, **options):
    """(trainer, loaders): the same run each time, as a new process would make it."""
    rg.manual_seed(1)
    model = Net(width)
    optimizer = rg.optim.AdamW(model.parameters(), lr=0.05)
    options = {
        "schedule": rg.optim.lr_scheduler.WarmupCosineLR(optimizer, 4, 40),
        "metrics": [rg.train.metrics.accuracy],
        "clip_grad_norm": 1.0,
        "log": [folder / "log.csv", folder / "log.jsonl"],
        "log_every": 3,
        "checkpoints": Checkpoints(folder, every=every),
        "progress": False,
        "callbacks": [*more, EarlyStopping(patience=50)],
        "seed": 5,
    } | options
    return Trainer(model, optimizer, rg.train.supervised(F.cross_entropy), **options), loaders(seed)


def ended(folder, *more, resume=False, epochs=4, **options):
    """The trainer after its whole run."""
    trainer, (train, validation) = made(folder, *more, **options)
    trainer.fit(train, epochs=epochs, validation=validation, resume=resume)
    return trainer


def without_time(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def assert_same(one, other, one_folder, other_folder):
    """The same bits everywhere: weights, optimizer, rows, and what the logs say."""
    for a, b in (
        (one.model.state_dict(), other.model.state_dict()),
        *[(one.optimizer.to_arrays()[0], other.optimizer.to_arrays()[0])],
    ):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].numpy().tobytes() == b[name].numpy().tobytes(), name
    assert without_time(one.history) == without_time(other.history)
    assert rows_of(one_folder) == rows_of(other_folder)
    assert rg.default_generator().state()["counter"] > 0


def rows_of(folder):
    with open(folder / "log.csv", newline="") as file:
        table = without_time(csv.DictReader(file))
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    return table, without_time(lines)


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_was_interrupted_ends_with_the_same_bits(tmp_path, compile, accumulate):
    options = {"compile": compile, "accumulate": accumulate}
    whole = ended(tmp_path / "a", **options)
    for place in (2, 7, 11):
        with pytest.raises(Interrupted):
            ended(tmp_path / "b", InterruptAt(place), resume=True, **options)
    other = ended(tmp_path / "b", resume=True, **options)
    assert_same(whole, other, tmp_path / "a", tmp_path / "b")
