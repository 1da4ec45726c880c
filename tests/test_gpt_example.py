"""The GPT from scratch on a few sentences: what it shows and leaves, that it resumes exactly, and how it fails."""

import builtins
import csv
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import retrograd as rg
from retrograd.__main__ import main as command_line
from retrograd.examples import gpt as example
from retrograd.models import GPT2LMHeadModel
from retrograd.train import History

SIZES = {"batch": 4, "context": 8, "layers": 1, "heads": 2, "width": 8, "steps": 40, "validate-every": 20}
SMALL = [f"--{name}={size}" for name, size in SIZES.items()]
DRAW = example.draw  # `quick` replaces it
OPTIONS = ["--lr", "0.03", "--dropout", "0.1"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """900 letters, of which a tenth is for validation."""
    words = np.random.default_rng(0).choice(["to", "be", "or", "not", "that", "is", "the", "question,\n"], 300)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(words)[:900])
    return path


def run(text: Path | str, out: Path, *arguments: str) -> int:
    return example.main(["--data", str(text), "--out", str(out), *SMALL, *OPTIONS, *arguments])


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Short samples, no picture, and no kernels to compile: they take longer than the steps of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETROGRAD_KERNELS", "array")
        patch.setattr(example, "SAMPLE", 7)
        patch.setattr(example, "FINAL_SAMPLE", 23)
        patch.setattr(example, "draw", lambda *_: None)
        yield


class Finished(NamedTuple):
    """The folder of a run, and what it showed."""

    out: Path
    shown: str


@pytest.fixture(scope="module")
def finished(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    out = tmp_path_factory.mktemp("finished") / "new" / "folder"
    shown = io.StringIO()
    with redirect_stdout(shown):
        assert run(text, out) == 0
    return Finished(out, shown.getvalue())


def logged(out: Path) -> list[dict[str, str]]:
    """The rows of a run's log, but for the times."""
    with (out / "log.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture
def failing(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """`failing(*arguments, data=…, out=…)` runs, expects exit code 1 and one line of error, and gives that line."""

    def fail(*arguments: str, data: Path | str = text, out: Path = tmp_path / "out") -> str:
        assert run(data, out, *arguments) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("gpt: ")
        return lines[0]

    return fail


def test_the_walk_from_a_text_to_a_model(finished: Finished, text: Path):
    out, shown = finished
    for expected in (
        "810 letters to learn from, 15 different; ",
        "32 letters a step",
        "tokens a second. It writes:",
        "| step | training loss | validation loss |",
        "| 40 | ",
        "over 12 windows",
        f"retrograd generate --model {out}",
    ):
        assert expected in shown
    assert set(json.loads((out / "vocab.json").read_text())) == set(text.read_text())
    assert json.loads((out / "config.json").read_text())["n_positions"] == 8
    rows = logged(out)
    assert [row["step"] for row in rows] == ["20", "25", "40"]
    assert [bool(row["val_loss"]) for row in rows] == [True, False, True]


def test_the_model_writes(finished: Finished, capsys: pytest.CaptureFixture[str]):
    prompt = "to be or not to be"  # longer than what the model looks back
    arguments = ["--model", str(finished.out), "--prompt", prompt, "--max-new-tokens", "9"]
    assert command_line(["generate", *arguments]) == 0
    assert len(capsys.readouterr().out) == len(prompt) + 9 + 1


def test_it_has_learnt(finished: Finished, text: Path):
    model = GPT2LMHeadModel.from_pretrained(finished.out, strict=True).eval()
    found = example.read(example.parse(["--data", str(text), *SMALL]))
    losses = [example.next_letter_loss(model, batch)[0].item() for batch in found.validation]
    assert max(losses) < 0.9 * np.log(found.tokenizer.vocab_size)
    assert float(logged(finished.out)[-1]["val_loss"]) == pytest.approx(np.mean(losses), rel=1e-5)


def interrupt_at(step: int, patch: pytest.MonkeyPatch) -> None:
    sample = example.Samples.on_step_end

    def interrupt(self: Any, trainer: Any) -> None:
        if trainer.step == step:
            raise KeyboardInterrupt
        sample(self, trainer)

    patch.setattr(example.Samples, "on_step_end", interrupt)


def test_an_interrupted_run_resumes_with_the_same_bits(
    finished: Finished, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        interrupt_at(27, patch)
        assert run(text, tmp_path) == 130
    assert "interrupted after step 27; --resume goes on from step-00000020" in capsys.readouterr().err
    assert not (tmp_path / "model.safetensors").exists()
    assert run(text, tmp_path) == 1
    assert "holds an earlier run: --resume" in capsys.readouterr().err
    assert example.main(["--out", str(tmp_path), "--resume"]) == 0  # the run's own options hold
    for name in ("model.safetensors", "config.json", "vocab.json"):
        assert (tmp_path / name).read_bytes() == (finished.out / name).read_bytes()
    assert logged(tmp_path) == logged(finished.out)


def test_interrupted_before_the_first_checkpoint(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    interrupt_at(1, monkeypatch)
    assert run(text, tmp_path) == 130
    assert "interrupted after step 1; nothing was saved yet" in capsys.readouterr().err
    assert run(text, tmp_path) == 130  # and not "holds an earlier run"


def test_resuming_a_finished_run_shows_it_again(
    finished: Finished, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(finished.out, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    assert run(text, tmp_path, "--resume") == 0
    table = finished.shown[finished.shown.index("| step |") :].partition("tokens a second")[0]
    assert table in capsys.readouterr().out
    assert (tmp_path / "model.safetensors").read_bytes() == (finished.out / "model.safetensors").read_bytes()


def test_options_given_anew_hold_from_there_on(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(finished.out, tmp_path, dirs_exist_ok=True)
    arguments = ["--out", str(tmp_path), "--resume", "--steps=50", "--lr=0.001", "--dropout=0"]
    assert example.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "goes on with --steps 50 (before: 40), --lr 0.001 (before: 0.03), --dropout 0.0 (before: 0.1)\n" in shown
    rows = logged(tmp_path)
    assert rows[:3] == logged(finished.out)
    assert float(rows[-1]["lr"]) == pytest.approx(0.001)  # the end of a warm-up that takes the whole run
    assert json.loads((tmp_path / "config.json").read_text())["resid_pdrop"] == 0
    assert example.main(arguments[:3]) == 0  # and are kept
    assert "goes on with --" not in capsys.readouterr().out
    assert logged(tmp_path) == rows


# -- what is wrong ----------------------------------------------------------------------------------------------------


def test_no_text_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.delenv("RETROGRAD_DATA", raising=False)
    assert example.main([]) == 1
    line = capsys.readouterr().err
    assert "retrograd fetch tinyshakespeare" in line
    assert len(line.splitlines()) == 1


def test_bad_texts(failing: Any, tmp_path: Path):
    path = tmp_path / "text"
    assert f"{path}: No such file" in failing(data=path)
    assert "Is a directory" in failing(data=tmp_path)
    path.write_bytes(b"abc\xff" * 400)
    assert "UTF-8" in failing(data=path)
    path.write_text("to be or not to be")
    assert "has 18 characters" in failing(data=path)
    assert "at least 91" in failing(data=path)
    assert not (tmp_path / "out").exists()


def test_the_shortest_text_that_is_taken_is_enough(tmp_path: Path):
    path = tmp_path / "text"
    path.write_text(("abcdefg " * 20)[:91])
    found = example.read(example.parse(["--data", str(path), *SMALL]))
    assert min(len(found.train), len(found.validation)) >= 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--heads", "3"], "n_embd=8 must be a multiple of n_head=3"),
        (["--seed", "-1"], "seed"),
        (["--lr", "-1"], "lr"),
        (["--dropout", "2"], "2"),
    ],
)
def test_bad_numbers(failing: Any, tmp_path: Path, arguments: list[str], expected: str):
    assert expected in failing(*arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--width", "many"]])
def test_a_bad_command_line_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        example.main(arguments)
    assert caught.value.code == 2
    assert arguments[1] in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_written(failing: Any, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in failing(out=tmp_path / "file")


def test_resuming_with_another_model(failing: Any, finished: Finished, tmp_path: Path):
    shutil.copytree(finished.out, tmp_path / "out")
    for option, value, before in (("--width", "16", 8), ("--heads", "1", 2), ("--seed", "1", 0)):
        line = failing("--resume", option, value)
        assert f"--resume cannot change {option} {value} (before: {before}): leave it out" in line
    assert "does not fit this run: the state is of a loader with samples" in failing("--resume", data=__file__)


def test_a_loss_that_is_not_finite(failing: Any):
    with np.errstate(all="ignore"):
        assert "the loss is" in failing("--lr", "1e38")


# -- what is shown ----------------------------------------------------------------------------------------------------

ROWS = History(
    [
        {"step": 25, "loss": 3.0, "val_loss": None, "seconds": 9.0},
        {"step": 50, "loss": 2.5, "val_loss": 2.6, "seconds": 10.0},
        {"step": 75, "loss": 2.25, "val_loss": None, "seconds": 11.0},
        {"step": 1000, "loss": 2.0, "val_loss": None, "seconds": 48.0},
        {"step": 1000, "loss": None, "val_loss": 2.125, "seconds": 48.0},
    ]
)


def test_the_rate_is_that_of_most_steps():
    assert example.tokens_per_second(ROWS, 40) == pytest.approx(40 * 25)


def test_the_table_of_losses():
    assert example.loss_table(ROWS).splitlines()[2:] == ["| 50 | 2.5000 | 2.6000 |", "| 1,000 | 2.0000 | 2.1250 |"]


def test_a_picture_where_matplotlib_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("matplotlib")
    DRAW(ROWS, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "loss.png" in capsys.readouterr().out


def test_a_plain_message_where_matplotlib_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    real_import = builtins.__import__

    def without_matplotlib(name: str, *rest, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    DRAW(ROWS, tmp_path / "loss.png")
    assert "matplotlib is not installed" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_text_without_line_ends_begins_with_its_first_letter():
    rg.manual_seed(0)
    options = example.parse(SMALL)
    tokenizer = rg.data.CharTokenizer.from_text("abc")
    assert len(example.written(example.new_model(tokenizer, options), tokenizer, 20)) == 20
