"""The main job on a few hundred digits: what it shows and leaves, and how it fails."""

import builtins
from pathlib import Path

import numpy as np
import pytest
import retrograd as rg
from retrograd.backends import registry
from retrograd.examples import mnist as example
from retrograd.examples import mnist_report as report

FEW = ["--limit", "640", "--epochs", "2"]


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest of a small run."""
    monkeypatch.setattr(report, "draw", lambda *_: None)


def run(out: Path, *arguments: str) -> int:
    return example.main([*FEW, "--out", str(out), *arguments])


def test_the_walk_from_data_to_fine_tuning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "new" / "folder") == 0
    shown = capsys.readouterr().out
    for expected in (
        "training images (60000, 28, 28) uint8, values 0 to 255",
        "labels (10000,) int64",
        "5,923",
        "labelled 5:",
        "dense: 101,770 parameters, 9 steps an epoch",
        "epoch 2/2",
        "validation loss",
        "macro avg",
        "true \\ predicted",
        "% before",
    ):
        assert expected in shown
    found = rg.load(tmp_path / "new" / "folder" / "mnist.safetensors")
    assert {name: weight.shape for name, weight in found.items()} == {
        "1.weight": (128, 784),
        "1.bias": (128,),
        "4.weight": (10, 128),
        "4.bias": (10,),
    }


@pytest.mark.usefixtures("no_pictures")
def test_it_learns_even_from_a_few(tmp_path: Path) -> None:
    result = example.run(example.parse(["--limit", "2000", "--epochs", "3", "--out", str(tmp_path)]))
    assert 0.8 < result.accuracy < 1
    assert 0.8 < result.tuned_accuracy < 1


@pytest.mark.usefixtures("no_pictures")
def test_equal_seeds_give_equal_weights_bit_for_bit(tmp_path: Path) -> None:
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert (
            example.main(
                ["--limit", "320", "--epochs", "1", "--augment", "--seed", seed, "--out", str(tmp_path / name)]
            )
            == 0
        )
    a, b, c = ((tmp_path / name / "mnist.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("model", ["cnn", "case-study"])
def test_the_convolutional_networks_run(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main(["--model", model, "--limit", "72", "--epochs", "1", "--out", str(tmp_path)]) == 0
    assert f"{model}: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("dense", 784 * 128 + 128 + 1290),
        ("cnn", 320 + 18_496 + 73_856 + (1152 + 1) * 128 + 1290),
        ("case-study", 320 + 18_496 + (9216 + 1) * 512 + 5130),
    ],
)
def test_the_sizes_of_the_networks(model: str, parameters: int) -> None:
    assert sum(p.size for p in example.MODELS[model]().parameters()) == parameters


def test_an_output_folder_that_cannot_be_written_is_one_error_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert run(tmp_path / "file") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"mnist: cannot write in the output folder {tmp_path / 'file'}")
    assert "--out" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("asked", ["option", "variable"])
def test_an_unknown_backend_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    if asked == "variable":
        monkeypatch.setenv("RETROGRAD_BACKEND", "abacus")
        monkeypatch.setattr(registry, "_default", None)
    assert run(tmp_path / "results", *["--backend", "abacus"] * (asked == "option")) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "abacus" in err
    assert "Traceback" not in err
    assert not (tmp_path / "results").exists()


def test_a_loss_that_is_not_finite_is_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "PEAK_RATE", 1e38)
    with np.errstate(all="ignore"):
        assert run(tmp_path) == 1
    err = capsys.readouterr().err
    assert err.startswith("mnist: the loss is ")
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", [5, 14])
def test_ctrl_c_leaves_the_last_complete_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    steps = 0

    def interrupt(*_: float) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(report.Progress, "step", interrupt)
    assert run(tmp_path) == 130
    err = capsys.readouterr().err
    if step <= 9:
        assert "interrupted in epoch 1; no epoch was complete" in err
        assert list(tmp_path.iterdir()) == []
    else:
        assert "mnist.safetensors holds the weights of epoch 1" in err
        example.MODELS["dense"]().load_state_dict(rg.load(tmp_path / "mnist.safetensors"))


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--limit", "many"], ["--model", "vit"]])
def test_a_bad_command_line_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        example.main(arguments)
    assert caught.value.code == 2
    assert arguments[1] in capsys.readouterr().err


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_a_digit_in_characters() -> None:
    image = np.zeros((4, 5), np.uint8)
    image[1, 1:4] = [255, 0, 100]
    image[2, 2] = 30
    assert report.in_characters(image) == "@@  --\n  .."
    assert report.in_characters(np.zeros((2, 2), np.uint8)) == ""


def test_the_confusion_table() -> None:
    assert report.confusion_table(np.array([[7, 0], [12, 5]])).splitlines() == [
        "true \\ predicted     0     1",
        "               0     7     .",
        "               1    12     5",
    ]


def test_progress_in_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with report.Progress("epoch 1/2", 8) as progress:
        for loss in range(8):
            progress.step(loss, loss / 8, 0.001)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == ["2/8", "4/8", "6/8", "8/8"]
    assert lines[-1].endswith("8/8  loss 3.5000  accuracy 43.75%  rate 1.0e-03")
    assert "validation loss 0.5000  accuracy 90.00%" in progress.summary(0.5, 0.9)


def pictures(out: Path, scores: np.ndarray) -> None:
    labels = np.arange(10)
    history = example.History(losses=[2.0, 1.0, 0.5, 0.3], validation_losses=[1.5, 0.4])
    report.draw(out, np.zeros((10, 28, 28), np.uint8), scores, labels, history)


def test_pictures_where_matplotlib_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    pictures(tmp_path, np.eye(10)[::-1])
    for name in ("mnist_loss.png", "mnist_mistakes.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    (tmp_path / "mnist_mistakes.png").unlink()
    pictures(tmp_path, np.eye(10))
    assert "no digit was misclassified" in capsys.readouterr().out
    assert not (tmp_path / "mnist_mistakes.png").exists()


def test_a_plain_message_where_matplotlib_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def without_matplotlib(name: str, *rest, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    pictures(tmp_path, np.eye(10)[::-1])
    assert "matplotlib is not installed" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
