"""`retrograd finetune --resume`: a run that was broken off ends with the bits of one that was not, or it is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import retrograd as rg
from retrograd.__main__ import main
from retrograd.models import BertConfig, BertModel
from retrograd.train import callbacks

pytest.importorskip("tokenizers")

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "the", "film", "a", "town", "is"]


@pytest.fixture
def finetune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """The command on a tiny encoder and a table of 40 rows: gives its exit code and what it wrote on standard error."""
    rg.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=12, **sizes)).save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    draw = np.random.default_rng(0)
    rows = [f"{' '.join(draw.choice(VOCABULARY[5:], draw.integers(1, 9)))},{draw.integers(3)}" for _ in range(40)]
    (tmp_path / "table.csv").write_text("\n".join(["text,label", *rows]))

    def run(out: Path, *options: object, data: str = "table.csv") -> tuple[int, str]:
        known = ["--model", tmp_path, "--data", tmp_path / data, "--text", "text", "--label", "label", "--out", out]
        code = main(["finetune", *map(str, [*known, *options])])
        return code, capsys.readouterr().err

    return run


def interrupt(patch: pytest.MonkeyPatch, epoch: int) -> None:
    """Have the run broken off after the first step of an epoch."""
    proper = callbacks.Schedule.on_step_end

    def on_step_end(self: callbacks.Schedule, trainer: rg.train.Trainer) -> None:
        proper(self, trainer)
        if trainer.epoch == epoch and trainer.position == 1:
            raise KeyboardInterrupt

    patch.setattr(callbacks.Schedule, "on_step_end", on_step_end)


@pytest.mark.parametrize(
    "how",
    [["--lora", 2], ["--freeze", "--no-compile"], ["--full", "--no-compile"]],
    ids=["lora compiled", "freeze", "full"],
)
def test_a_run_goes_on_where_it_was_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finetune: Callable[..., tuple[int, str]], how: list[object]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    how = [*how, "--epochs", 3]
    assert finetune(whole, *how)[0] == 0
    with monkeypatch.context() as patch:
        interrupt(patch, epoch=1)
        assert finetune(broken, *how)[0] == 130
    assert not (broken / "config.json").exists()
    code, err = finetune(broken, *how)
    assert code == 1
    assert "--resume goes on with it" in err
    assert finetune(broken, *how, "--resume")[0] == 0
    assert (whole / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()
    code, err = finetune(broken, *how, "--resume")
    assert code == 1
    assert "is finished" in err


def test_another_run_does_not_go_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finetune: Callable[..., tuple[int, str]]
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt(patch, epoch=1)
        assert finetune(out, "--no-compile")[0] == 130
    lines = (tmp_path / "table.csv").read_text().splitlines()
    (tmp_path / "other.csv").write_text("\n".join([*lines[:-1], "a film,2"]))
    there = sorted(out.rglob("*"))
    for options, expected in (
        (["--epochs", 3], "epochs 4, now 3"),
        (["--lr", 0.1], "lr 0.001, now 0.1"),
        (["--lora", 4], "method lora 8, now lora 4"),
        (["--freeze"], "method lora 8, now frozen; epochs 4, now 40; lr 0.001, now 0.01"),
        (["--seed", 1], "seed 0, now 1"),
        (["--max-length", 8], "max_length None, now 8"),
        (["--data", tmp_path / "other.csv"], "rows "),
    ):
        code, err = finetune(out, "--no-compile", "--resume", *options)
        assert code == 1
        assert f"was begun with {expected}" in err
        assert err.count("\n") == 1
    assert sorted(out.rglob("*")) == there
    # What was not said the first time may be said now.
    assert finetune(out, "--no-compile", "--resume", "--lora", 8, "--epochs", 4)[0] == 0


def test_a_run_without_a_checkpoint_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finetune: Callable[..., tuple[int, str]]
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt(patch, epoch=0)
        patch.setattr("shutil.rmtree", lambda *args, **options: None)  # as where the process was killed
        assert finetune(out, "--no-compile")[0] == 130
    assert {path.name for path in out.iterdir()} == {"checkpoints", "log.csv"}
    code, err = finetune(out, "--no-compile", "--resume")
    assert code == 1
    assert "leave the option out to begin one" in err
    assert finetune(out, "--no-compile", "--epochs", 1)[0] == 0
