"""Checkpoints: a run that goes on is the run that was never interrupted; what is damaged or does not fit is told."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import retrograd as rg
from retrograd.train import (
    CheckpointError,
    Checkpoints,
    CheckpointWarning,
    EarlyStopping,
    Trainer,
    checkpoint,
    find_checkpoint,
    state,
)

F = rg.nn.functional


@pytest.fixture(autouse=True)
def _no_kernels_to_compile(monkeypatch):
    monkeypatch.setenv("RETROGRAD_KERNELS", "array")


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


def made(folder, *more, width=6, seed=3, every=5, keep=2, **options):
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
        "checkpoints": Checkpoints(folder, every=every, keep=keep),
        "compile": False,
        "progress": False,
        "callbacks": [*more, EarlyStopping("loss", patience=50)],
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
    pairs = [(one.model.state_dict(), other.model.state_dict())]
    pairs += [(one.optimizer.to_arrays(one.model)[0], other.optimizer.to_arrays(other.model)[0])]
    for a, b in pairs:
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].numpy().tobytes() == b[name].numpy().tobytes(), name
    assert without_time(one.history) == without_time(other.history)
    assert rows_of(one_folder) == rows_of(other_folder)


def rows_of(folder):
    with open(folder / "log.csv", newline="") as file:
        table = without_time(csv.DictReader(file))
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    return table, without_time(lines)


@pytest.mark.parametrize(
    ("options", "places"),
    [
        ({"compile": False}, (2, 7, 10)),
        ({"compile": False, "accumulate": 4, "every": 2}, (2, 3)),
        ({"compile": True, "accumulate": 2, "every": 2}, (5,)),
    ],
    ids=["eager", "eager, accumulated", "compiled, accumulated"],
)
def test_a_run_that_was_interrupted_ends_with_the_same_bits(tmp_path, options, places):
    whole = ended(tmp_path / "a", epochs=2, **options)
    drawn = rg.default_generator().state()
    for place in places:
        with pytest.raises(Interrupted):
            ended(tmp_path / "b", InterruptAt(place), resume=True, epochs=2, **options)
    other = ended(tmp_path / "b", resume=True, epochs=2, **options)
    assert_same(whole, other, tmp_path / "a", tmp_path / "b")
    assert rg.default_generator().state() == drawn
    assert other.model.noise.state() == whole.model.noise.state()


def test_a_finished_run_is_not_trained_further(tmp_path):
    whole = ended(tmp_path, epochs=2)
    again = ended(tmp_path, epochs=2, resume=True)
    assert_same(whole, again, tmp_path, tmp_path)
    assert again.step == 12


def test_batches_in_a_list_are_passed_over(tmp_path):
    batches = [tuple(t.numpy().copy() for t in batch) for batch in loaders()[0]]
    results = []
    for folder, places in (("a", ()), ("b", (3, 8, 10))):
        for place in (*places, None):
            trainer, _ = made(tmp_path / folder, *([InterruptAt(place)] if place else []), every=2)
            try:
                trainer.fit(batches, epochs=2, resume=True)
            except Interrupted:
                continue
        results.append(trainer)
    assert_same(*results, tmp_path / "a", tmp_path / "b")


def test_a_path_goes_on_from_that_checkpoint_with_a_folder_of_its_own_or_none(tmp_path):
    whole = ended(tmp_path / "a", epochs=2, every=4, keep=9)
    start = tmp_path / "a" / checkpoint.name_of(8, 1)
    other = ended(tmp_path / "b", epochs=2, every=4, resume=start)
    assert_same(whole, other, tmp_path / "a", tmp_path / "b")
    other = ended(tmp_path / "b", epochs=2, checkpoints=None, resume=start)
    assert_same(whole, other, tmp_path / "a", tmp_path / "b")


# -- damage -----------------------------------------------------------------------------------------------------------


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


DAMAGE = {
    "a bit of the weights": lambda folder: flip(folder / "model.safetensors"),
    "a bit of the optimizer": lambda folder: flip(folder / "optimizer.safetensors"),
    "a bit of the manifest": lambda folder: flip(folder / "manifest.json"),
    "the end of the weights": lambda folder: os.truncate(folder / "model.safetensors", 100),
    "the end of the manifest": lambda folder: os.truncate(folder / "manifest.json", 100),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "another manifest": lambda folder: (folder / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_and_the_one_before_is_taken(tmp_path, damage):
    checkpoint.begin(tmp_path, fresh=True)
    arrays = {"w": np.arange(300.0)}
    for step in (1, 2):
        files = {name: (arrays, {}) for name in ("model.safetensors", "optimizer.safetensors")}
        checkpoint.write(tmp_path, checkpoint.name_of(step, 0), files, {"value": step, "filler": [0.5] * 100})
    last = checkpoint.name_of(2, 0)
    assert checkpoint.newest(tmp_path).state["value"] == 2
    DAMAGE[damage](tmp_path / last)
    with pytest.warns(CheckpointWarning, match=f"{last} is .*; it is passed over"):
        found = checkpoint.newest(tmp_path)
    assert found.state["value"] == 1
    assert np.array_equal(found.arrays("model.safetensors")[0]["w"], arrays["w"])


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path):
    whole = ended(tmp_path / "a", epochs=2)
    with pytest.raises(Interrupted):
        ended(tmp_path / "b", InterruptAt(11), epochs=2)
    last = checkpoint.names(tmp_path / "b")[-1]
    flip(tmp_path / "b" / last / "optimizer.safetensors")
    with pytest.warns(CheckpointWarning, match=last):
        other = ended(tmp_path / "b", epochs=2, resume=True)
    assert_same(whole, other, tmp_path / "a", tmp_path / "b")


def test_nothing_is_begun_anew_where_all_are_damaged(tmp_path):
    ended(tmp_path, epochs=1)
    for name in checkpoint.names(tmp_path):
        flip(tmp_path / name / "model.safetensors")
    with pytest.warns(CheckpointWarning), pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole"):
        ended(tmp_path, epochs=1, resume=True)


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class FullDisk:
    """Stands in for a function of the file system, and refuses the call with this number, counted over all of them."""

    def __init__(self, refused):
        self.calls, self.refused = 0, refused

    def instead_of(self, function):
        def checked(*arguments):
            self.calls += 1
            if self.calls == self.refused:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments)

        return checked


@pytest.mark.parametrize("moment", range(1, 9))
@pytest.mark.parametrize("name", [checkpoint.name_of(1, 0), checkpoint.name_of(2, 0)], ids=["replaced", "new"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, name, moment):
    def write(name, value):
        return checkpoint.write(tmp_path, name, {"w.safetensors": ({"w": np.full(3, value)}, {})}, {"value": value})

    checkpoint.begin(tmp_path, fresh=True)
    write(checkpoint.name_of(1, 0), 1.0)
    before = content(tmp_path)
    disk = FullDisk(moment)
    for owner, function in ((os, "fsync"), (os, "replace"), (Path, "mkdir"), (Path, "rename")):
        monkeypatch.setattr(owner, function, disk.instead_of(getattr(owner, function)))
    try:
        write(name, 2.0)
    except CheckpointError as error:
        refusal = str(error)
        assert content(tmp_path) == before
    else:  # nothing was refused, or only to put the name of a file on the disk in a folder that is put there later
        refusal = ""
        assert checkpoint.read(tmp_path / name).arrays("w.safetensors")[0]["w"].tolist() == [2.0] * 3
        assert set(os.listdir(tmp_path)) == {name, checkpoint.name_of(1, 0)}
    assert ("No space left on device" in refusal) == (moment <= disk.calls and moment != 4)


def test_a_full_disk_ends_the_run_with_one_error_and_it_goes_on_from_the_last_checkpoint(tmp_path, monkeypatch):
    whole = ended(tmp_path / "a", epochs=2)
    disk = FullDisk(12)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disk.instead_of(os.fsync))
        with pytest.raises(CheckpointError, match=r"step-00000006.*No space left on device"):
            ended(tmp_path / "b", epochs=2)
    assert checkpoint.names(tmp_path / "b") == [checkpoint.name_of(5, 0)]
    assert_same(whole, ended(tmp_path / "b", epochs=2, resume=True), tmp_path / "a", tmp_path / "b")


def test_what_a_killed_save_left_is_swept_up(tmp_path):
    checkpoint.begin(tmp_path, fresh=True)
    checkpoint.write(tmp_path, checkpoint.name_of(1, 0), {}, {"value": 1})
    for name in (".writing-step-00000002-epoch-0000", ".deleting-step-00000000-epoch-0000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    (tmp_path / checkpoint.name_of(1, 0)).rename(tmp_path / f".replaced-{checkpoint.name_of(1, 0)}")
    assert checkpoint.newest(tmp_path) is None  # looking changes nothing: the save may be going on
    assert len(os.listdir(tmp_path)) == 3
    checkpoint.begin(tmp_path, fresh=False)
    assert checkpoint.newest(tmp_path).state == {"value": 1}
    assert os.listdir(tmp_path) == [checkpoint.name_of(1, 0)]


# -- what does not fit ------------------------------------------------------------------------------------------------


OTHERS = {
    "does not fit this run: the state does not fit Net": {"width": 7},
    "does not fit this run: the state is of a loader with seed 3": {"seed": 4},
    "saved with the callbacks .*EarlyStopping.* this run has Schedule": {"callbacks": []},
    "saved with the callbacks Schedule": {"schedule": None},
}


@pytest.mark.parametrize("message", OTHERS)
def test_a_checkpoint_of_another_run(tmp_path, message):
    ended(tmp_path, epochs=1)
    if "seed" in OTHERS[message]:
        trainer, _ = made(tmp_path)
        train, validation = loaders(**OTHERS[message])
    else:
        trainer, (train, validation) = made(tmp_path, **OTHERS[message])
    before = {name: value.numpy().copy() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        trainer.fit(train, epochs=2, validation=validation, resume=True)
    for name, value in trainer.model.state_dict().items():
        assert np.array_equal(value.numpy(), before[name])


def test_other_surroundings_are_a_warning(tmp_path, monkeypatch):
    ended(tmp_path, epochs=1)
    found = state.surroundings(rg.current_backend())
    monkeypatch.setattr(state, "surroundings", lambda backend: found | {"threads": 99, "numpy": "0.9"})
    with pytest.warns(CheckpointWarning, match=r"numpy was .*, is 0\.9; threads was .*, is 99.*not be bit for bit"):
        ended(tmp_path, epochs=1, resume=True)


def test_a_new_run_does_not_mix_with_an_old_one(tmp_path):
    ended(tmp_path, epochs=1)
    before = content(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds checkpoints of an earlier run, up to step-00000006.*resume=True"):
        ended(tmp_path, epochs=1, log=())
    assert content(tmp_path) == before


def test_resuming_needs_a_folder_and_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="checkpoints=folder"):
        ended(tmp_path, epochs=1, checkpoints=None, resume=True)
    with pytest.raises(CheckpointError, match=r"is no checkpoint: manifest\.json: No such file"):
        ended(tmp_path, epochs=1, resume=tmp_path / "nowhere")
    ended(tmp_path / "run", epochs=1)
    with pytest.raises(CheckpointError, match=r"It holds checkpoints: name one, the last is .*step-\d+-epoch-0001$"):
        ended(tmp_path / "other", epochs=2, resume=tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot keep checkpoints in"):
        ended(tmp_path, epochs=1, checkpoints=tmp_path / "file")


def test_an_optimizer_of_foreign_parameters_is_refused_before_the_first_step(tmp_path):
    trainer, (train, _) = made(tmp_path)
    trainer.optimizer.add_param_group({"params": [rg.nn.Parameter(rg.zeros(2))]})
    trainer.callbacks = [c for c in trainer.callbacks if isinstance(c, Checkpoints)]
    with pytest.raises(ValueError, match="do not belong to this Net"):
        trainer.fit(train, steps=1)
    assert trainer.step == 0


# -- which are kept ---------------------------------------------------------------------------------------------------


class Pretend(rg.train.Callback):
    """Give the rows a quality of our choice."""

    def __init__(self, *values):
        self.values = list(values)

    def on_row(self, trainer, row):
        if row["loss"] is not None:
            row["loss"] = self.values.pop(0)


def test_the_last_and_the_best_are_kept(tmp_path):
    keeping = Checkpoints(tmp_path, keep=2, monitor="loss")
    options = {"checkpoints": keeping, "log_every": None, "callbacks": [Pretend(3.0, 1.0, 2.0, 4.0, 1.5)]}
    trainer = ended(tmp_path, epochs=5, **options)
    assert checkpoint.names(tmp_path) == [checkpoint.name_of(6 * n, n) for n in (2, 4, 5)]
    assert keeping.best == find_checkpoint(tmp_path) == tmp_path / checkpoint.name_of(12, 2)
    last = find_checkpoint(tmp_path, "last")
    assert last.name == checkpoint.name_of(30, 5)
    for name, value in rg.load(last / "model.safetensors").items():
        assert np.array_equal(value.numpy(), trainer.model.state_dict()[name].numpy())


def test_a_step_that_is_the_best_is_saved_at_once(tmp_path):
    keeping = Checkpoints(tmp_path, every=4, keep=9, monitor="loss")
    options = {"checkpoints": keeping, "log_every": 3, "callbacks": [Pretend(3.0, 2.0, 4.0, 4.0)]}
    ended(tmp_path, epochs=2, **options)
    found = [int(name[5:13]) for name in checkpoint.names(tmp_path)]
    assert found == [3, 4, 6, 8, 12, 12]  # 12 after the step, and once more after the epoch
    assert keeping.best == tmp_path / checkpoint.name_of(6, 0)


def test_finding_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="there are no checkpoints in"):
        find_checkpoint(tmp_path)
    ended(tmp_path, epochs=1, checkpoints=Checkpoints(tmp_path, monitor=None))
    with pytest.raises(CheckpointError, match="nothing was monitored"):
        find_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="'best' or 'last'"):
        find_checkpoint(tmp_path, "first")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"keep": 0}, "keep"), ({"every": 0}, "every"), ({"monitor": "loss", "mode": "most"}, "mode")],
)
def test_arguments_of_checkpoints(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        Checkpoints(tmp_path, **arguments)
    with pytest.raises(ValueError, match="no row of this run has 'val_f1'"):
        ended(tmp_path, epochs=1, checkpoints=Checkpoints(tmp_path, monitor="val_f1"))
