"""Logs hold the rows of the history, in full; what is shown on the way is a bar on a terminal and lines elsewhere."""

from __future__ import annotations

import csv
import io
import json
import sys

import numpy as np
import pytest
import retrograd as rg
from retrograd.train import Trainer, logs, progress, supervised

F = rg.nn.functional


@pytest.fixture(autouse=True)
def _no_kernels_to_compile(monkeypatch):
    monkeypatch.setenv("RETROGRAD_KERNELS", "array")


def fit(epochs=3, **options):
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((4, 3)).astype(np.float32), rng.integers(0, 2, 4)) for _ in range(3)]
    rg.manual_seed(0)
    model = rg.nn.Linear(3, 2)
    options = {"compile": False, "progress": False, "resume": "checkpoints" in options} | options
    resume = options.pop("resume")
    trainer = Trainer(model, rg.optim.SGD(model.parameters(), lr=0.1), supervised(F.cross_entropy), **options)
    trainer.fit(batches, epochs=epochs, validation=batches[:1], resume=resume)
    return trainer


def test_rows_are_read_back_as_they_were(tmp_path):
    rows = fit(log=[tmp_path / "new" / "a.csv", tmp_path / "a.jsonl"], log_every=2).history.rows
    with open(tmp_path / "new" / "a.csv", newline="") as file:
        table = [{name: float(text) if text else None for name, text in row.items()} for row in csv.DictReader(file)]
    assert table == rows
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == rows
    assert any(row["val_loss"] is None for row in rows)
    assert {path.name for path in tmp_path.rglob("*")} == {"new", "a.csv", "a.jsonl"}


def test_a_run_that_is_refused_leaves_an_earlier_log_alone(tmp_path):
    fit(log=tmp_path / "a.csv", checkpoints=tmp_path / "run")
    before = (tmp_path / "a.csv").read_text()
    with pytest.raises(rg.train.CheckpointError, match="an earlier run"):
        fit(log=tmp_path / "a.csv", checkpoints=rg.train.Checkpoints(tmp_path / "run"), resume=False)
    assert (tmp_path / "a.csv").read_text() == before


def test_a_new_run_begins_a_new_log_and_a_resumed_one_keeps_its_rows(tmp_path):
    fit(epochs=4, log=tmp_path / "a.csv")
    rows = fit(epochs=2, log=tmp_path / "a.csv", checkpoints=tmp_path / "run").history.rows
    with open(tmp_path / "a.csv", "a") as file:
        file.write("what a process wrote before it was killed\n")
    resumed = fit(epochs=3, log=tmp_path / "a.csv", checkpoints=tmp_path / "run").history.rows
    assert resumed[:2] == rows
    with open(tmp_path / "a.csv", newline="") as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == [row["loss"] for row in resumed]


def test_a_row_is_there_as_soon_as_it_is_made(tmp_path):
    log = logs.CsvLog(tmp_path / "a.csv")
    log.begin(["step", "note"], [])
    log.add({"step": 1, "note": 'a "quoted", text'})
    assert (tmp_path / "a.csv").read_text() == 'step,note\n1,"a ""quoted"", text"\n'
    log.close()


def test_a_log_that_cannot_be_written_is_one_error_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError, match=r"cannot write the log .*a\.csv"):
        fit(log=tmp_path / "file" / "a.csv")
    assert (tmp_path / "file").read_text() == "kept"
    with pytest.raises(ValueError, match=r"a log is a \.csv or \.jsonl file or, without a suffix, a folder"):
        fit(log="run.txt")


def test_a_full_disk_is_one_error_that_names_the_log(tmp_path):
    log = logs.JsonlLog(tmp_path / "a.jsonl")
    log.begin(["step"], [])
    log.file.close()
    log.file = open("/dev/full", "w") if sys.platform == "linux" else pytest.skip("no /dev/full")  # noqa: SIM115  closed by the log
    with pytest.raises(OSError, match=r"cannot write the log .*a\.jsonl: No space left on device"):
        log.add({"step": 1})
    log.close()


# -- TensorBoard ------------------------------------------------------------------------------------------------------


def scalars(folder):
    """What TensorBoard itself reads: tag → [(step, value)]."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def curves(rows):
    names = [name for name in rows[0] if name not in ("step", "seconds")]
    return {
        name: [(row["step"], float(np.float32(row[name]))) for row in rows if row[name] is not None] for name in names
    }


@pytest.mark.parity
def test_tensorboard_reads_every_row(tmp_path):
    pytest.importorskip("tensorboard")
    rows = fit(log=tmp_path / "board", log_every=2, clip_grad_norm=1.0).history.rows
    assert scalars(tmp_path / "board") == curves(rows)


@pytest.mark.parity
def test_tensorboard_sees_nothing_of_what_was_lost_with_a_killed_process(tmp_path):
    pytest.importorskip("tensorboard")
    options = {"log": tmp_path / "board", "checkpoints": tmp_path / "run"}
    fit(epochs=2, **options)
    (tmp_path / "board" / "of another program").write_text("kept")
    lost = logs.TensorBoardLog(tmp_path / "board")
    lost.begin([], [{"step": 99, "loss": 1.0, "seconds": 1.0}])
    lost.close()
    rows = fit(epochs=3, **options).history.rows
    assert scalars(tmp_path / "board") == curves(rows)
    assert len(list((tmp_path / "board").glob("events*"))) == 1
    assert (tmp_path / "board" / "of another program").read_text() == "kept"


def test_without_tensorboard_one_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    with pytest.raises(ImportError, match=r"retrograd\[tensorboard\]"):
        fit(log=tmp_path / "board")
    assert not (tmp_path / "board").exists()


# -- progress ---------------------------------------------------------------------------------------------------------


def test_plain_lines(capsys, tmp_path):
    fit(epochs=2, progress=True, checkpoints=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("step 6  epoch 2  loss 0.")
    assert "lr 1.00e-01  val_loss 0." in lines[1]
    fit(epochs=3, progress=True, checkpoints=tmp_path)
    assert capsys.readouterr().out.startswith("going on after step 6\nstep 9  epoch 3")
    fit(epochs=1)
    assert capsys.readouterr().out == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal(monkeypatch):
    pytest.importorskip("tqdm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", terminal)
    fit(epochs=2, progress=True)
    assert "6/6" in terminal.getvalue()
    assert "epoch 2, loss 0." in terminal.getvalue()
    assert "step 6  epoch 2" in terminal.getvalue()


def test_a_terminal_without_tqdm(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    fit(epochs=1, progress=True)
    assert capsys.readouterr().out.startswith("step 3  epoch 1")


def test_why_it_stopped_is_said(capsys):
    class Enough(rg.train.Callback):
        def on_step_end(self, trainer):
            if trainer.step == 2:
                trainer.stop("two are enough")

    fit(progress=True, callbacks=[Enough()])
    assert capsys.readouterr().out.splitlines()[-1] == "stopped after step 2: two are enough"
    assert (
        progress.line({"lr": 2.5e-5, "loss": 12345.0, "val_loss": 0}) == "lr 2.50e-05  loss 1.234e+04  val_loss 0.0000"
    )
