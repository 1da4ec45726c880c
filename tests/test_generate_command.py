"""`retrograd generate`: text to the standard output, one line for every error, nothing of both mixed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import retrograd as rg
from retrograd.__main__ import main
from retrograd.data import CharTokenizer
from retrograd.models import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, generate

TEXT = "to be, or not to be: that is the question\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a GPT-2 of characters, random weights."""
    rg.manual_seed(0)
    tokenizer = CharTokenizer.from_text(TEXT)
    sizes = {"n_positions": 48, "n_embd": 16, "n_layer": 1, "n_head": 2, "initializer_range": 0.5}
    GPT2LMHeadModel(GPT2Config(vocab_size=tokenizer.vocab_size, **sizes)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["generate", *map(str, arguments)])
    return (code, *capsys.readouterr())


def test_a_text_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--model", folder, "--prompt", "to be", "--max-new-tokens", 20)
    tokenizer, model = CharTokenizer.from_pretrained(folder), GPT2LMHeadModel.from_pretrained(folder)
    expected = generate(model, tokenizer.encode("to be"), max_new_tokens=20, decode=tokenizer.decode).texts
    assert (code, out) == (0, f"to be{expected[0]}\n")
    assert "Traceback" not in err


def test_draws_by_their_seed_past_the_places_of_the_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", folder, "--prompt", "to", "--max-new-tokens", 100, "--temperature", 1, "--top-k", 9]
    options += ["--top-p", 0.95, "--repetition-penalty", 1.1]
    texts = [run(capsys, *options, "--seed", seed)[1] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert [len(text) for text in texts] == [2 + 100 + 1] * 3


def test_it_ends_at_a_stop_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", folder, "--prompt", "to", "--max-new-tokens", 60, "--temperature", 1, "--seed", 3]
    whole = run(capsys, *options)[1]
    stop = whole[10:12]
    _, out, _ = run(capsys, *options, "--stop", stop, "--stop", "§")
    assert out == whole[: whole.index(stop, 2)] + "\n"


def test_a_folder_of_byte_pairs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tokenizers")
    letters = {chr(i + 97): i for i in range(14)}
    vocabulary = {**letters, "ab": 14, "<|endoftext|>": 15}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    model = GPT2LMHeadModel.from_pretrained(folder)
    assert model.config.vocab_size == len(vocabulary)
    # The end of text is made the likeliest word after anything.
    with rg.no_grad():
        model.transformer.ln_f.weight.copy_(rg.zeros_like(model.transformer.ln_f.weight))
        model.transformer.ln_f.bias.copy_(model.transformer.wte.weight[15] * 100)
    model.save_pretrained(folder)
    assert run(capsys, "--model", folder, "--prompt", "abc", "--max-new-tokens", 5)[:2] == (0, "abc\n")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"--model": "nowhere"}, "nowhere is not a folder"),
        ({"--prompt": ""}, "--prompt is empty"),
        ({"--prompt": "TO BE"}, "characters that the vocabulary of 16 lacks: 'B' 'E' 'O' 'T'"),
        ({"--max-new-tokens": 0}, "max_new_tokens must be a whole number of at least 1, got 0"),
        ({"--temperature": -1}, "temperature must be 0 (greedy) or more"),
        ({"--top-p": 2}, "top_p must be above 0 and at most 1"),
        ({"--stop": ""}, "a stop string must not be empty"),
        ({"--seed": -1}, "a seed must not be negative"),
    ],
)
def test_errors_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], expected: str
) -> None:
    options = {"--model": folder, "--prompt": "to be", "--max-new-tokens": 3} | changes
    code, out, err = run(capsys, *(part for pair in options.items() for part in pair))
    assert (code, out) == (1, "")
    assert err.startswith("retrograd generate: ")
    assert expected in err
    assert err.count("\n") == 1


def test_folders_in_which_something_is_missing_or_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(expected: str) -> None:
        code, out, err = run(capsys, "--model", folder, "--prompt", "to")
        assert (code, out, err.count("\n")) == (1, "", 1), err
        assert expected in err

    vocabulary = (folder / "vocab.json").read_text()
    (folder / "vocab.json").unlink()
    fails("holds no tokenizer" if _tokenizers() else "retrograd[text]")
    (folder / "vocab.json").write_text(json.dumps({chr(i + 97): i for i in range(26)}))
    fails("the tokenizer has 26 tokens and the model 16: they do not belong together")
    (folder / "vocab.json").write_text(vocabulary)
    weights = rg.load(folder / "model.safetensors")
    rg.save({n: t for n, t in weights.items() if "ln_f" not in n}, folder / "model.safetensors")
    fails("ln_f.weight")
    rg.save({n: t * np.float32("nan") for n, t in weights.items()}, folder / "model.safetensors")
    fails("scores that are not finite")
    (folder / "model.safetensors").unlink()
    fails("model.safetensors")
    config = BertConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(folder)
    fails("bert")
    (folder / "config.json").write_text("{")
    fails("expected JSON")


def _tokenizers() -> bool:
    from importlib.util import find_spec

    return find_spec("tokenizers") is not None


def test_debug_shows_the_traceback(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--model", folder, "--prompt", "TO", "--debug")
    assert code == 1
    assert err.startswith("Traceback")
    assert "ValueError" in err


def test_a_reader_who_has_enough(folder: Path) -> None:
    command = [sys.executable, "-m", "retrograd", "generate", "--model", str(folder), "--prompt", "to", "--no-compile"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1
