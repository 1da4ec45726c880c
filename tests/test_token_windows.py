"""Windows of a text: what they hold, that side by side they cover it, and that a mean loss counts each token once."""

from pathlib import Path

import numpy as np
import pytest
import retrograd as rg
from hypothesis import given
from hypothesis import strategies as st
from retrograd.data import DataLoader, TokenWindows
from retrograd.nn import functional as F

TOKENS = np.arange(100, 130, dtype=np.uint16)


def test_every_place_begins_a_window():
    windows = TokenWindows(TOKENS, 4)
    assert len(windows) == 26
    tokens, labels = windows[25]
    np.testing.assert_array_equal(tokens, [125, 126, 127, 128])
    np.testing.assert_array_equal(labels, [126, 127, 128, 129])
    assert (tokens.dtype, labels.dtype) == (np.int64, np.int64)
    assert len(list(windows)) == 26


@given(st.integers(2, 40), st.integers(1, 12), st.integers(1, 12))
def test_windows_cover_the_text(n: int, length: int, stride: int):
    if n <= length:
        with pytest.raises(ValueError, match=f"at least {length + 1}, there are {n}"):
            TokenWindows(np.arange(n), length, stride)
        return
    windows = TokenWindows(np.arange(n), length, min(stride, length))
    tokens, labels = windows.gather(np.arange(len(windows)))
    assert tokens.shape == labels.shape == (len(windows), length)
    assert ((labels == tokens + 1) | (labels == -100)).all()
    assert set(labels.ravel().tolist()) - {-100} == set(range(1, n))
    side_by_side = TokenWindows(np.arange(n), length, length)
    counted = np.concatenate([labels for _, labels in side_by_side])
    np.testing.assert_array_equal(counted[counted != -100], np.arange(1, n))


@pytest.mark.parametrize(
    ("tokens", "options", "error", "match"),
    [
        (np.zeros(9), {}, TypeError, "float64 of shape"),
        (np.zeros((3, 9), int), {}, TypeError, r"\(3, 9\)"),
        (np.zeros(4, int), {}, ValueError, "at least 5, there are 4"),
        (np.zeros(9, int), {"stride": 0}, ValueError, "stride must be at least 1"),
        (np.zeros(9, int), {"length": 2.5}, TypeError, "length must be a whole number"),
    ],
)
def test_what_is_refused(tokens: np.ndarray, options: dict, error: type[Exception], match: str):
    with pytest.raises(error, match=match):
        TokenWindows(tokens, **{"length": 4} | options)


def test_an_index_beyond_the_end_is_an_error():
    with pytest.raises(IndexError):
        TokenWindows(TOKENS, 4)[26]


def test_a_loader_goes_on_with_the_windows_that_would_have_come():
    def loader() -> DataLoader:
        return DataLoader(TokenWindows(TOKENS, 4), 5, shuffle=True, seed=3, drop_last=True)

    first, batches, states = loader(), [], []
    for batch in first:
        batches.append(batch)
        states.append(first.state_dict())
    second = loader()
    second.load_state_dict(states[1])
    rest = list(second)
    assert len(batches) == 5
    assert len(rest) == 3
    for (tokens, labels), (others, more) in zip(batches[2:], rest, strict=True):
        np.testing.assert_array_equal(tokens.numpy(), others.numpy())
        np.testing.assert_array_equal(labels.numpy(), more.numpy())


def test_a_batch_is_made_of_tensors_of_the_current_backend():
    tokens, labels = next(iter(DataLoader(TokenWindows(TOKENS, 4), 3)))
    assert tokens.backend is labels.backend is rg.current_backend()


# -- the mean over a whole split --------------------------------------------------------------------------------------


class Table(rg.nn.Module):
    """The scores of the next token, looked up by the one before."""

    def __init__(self, scores: np.ndarray):
        super().__init__()
        self.scores = rg.nn.Parameter(rg.tensor(scores))

    def forward(self, tokens: rg.Tensor) -> rg.Tensor:
        return F.embedding(tokens, self.scores)


def loss(model: Table, batch: tuple) -> tuple:
    tokens, labels = batch
    scores = model(tokens)
    return F.cross_entropy(scores.reshape(-1, 7), labels.reshape(-1)), scores, labels


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("n", [22, 25, 6])
def test_evaluating_counts_every_token_once(n: int, batch_size: int):
    rng = np.random.default_rng(n)
    tokens, scores = rng.integers(7, size=n), rng.normal(size=(7, 7)).astype(np.float32)
    model = Table(scores)
    trainer = rg.train.Trainer(model, rg.optim.SGD(model.parameters(), lr=0.1), loss, progress=False)
    found = trainer.evaluate(DataLoader(TokenWindows(tokens, 5, stride=5), batch_size))["loss"]
    rows = scores[tokens[:-1]].astype(np.float64)
    logs = rows[np.arange(n - 1), tokens[1:]] - np.log(np.exp(rows).sum(axis=1))
    assert found == pytest.approx(-logs.mean(), rel=1e-6)


def test_batches_without_labels_count_by_their_samples():
    model = Table(np.zeros((7, 7), np.float32))

    def by_sample(model: Table, batch: tuple) -> rg.Tensor:
        return batch[0].mean() + 0.0 * model.scores.sum()

    trainer = rg.train.Trainer(model, rg.optim.SGD(model.parameters(), lr=0.1), by_sample, progress=False)
    batches = [(rg.tensor([1.0, 2.0, 3.0]), rg.tensor([-100, 1, 2])), (rg.tensor([10.0]), rg.tensor([3]))]
    assert trainer.evaluate(batches)["loss"] == pytest.approx(4.0)


# -- the text ---------------------------------------------------------------------------------------------------------


def test_tiny_shakespeare(data_folder):
    data_folder("text/tinyshakespeare.txt")
    text = rg.data.tiny_shakespeare()
    assert len(text) == 1_115_394
    assert len(set(text)) == 65
    assert text.startswith("First Citizen:\nBefore we proceed")


@pytest.mark.parametrize("named", [True, False])
def test_shakespeare_that_is_not_there(tmp_path: Path, named: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RETROGRAD_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="retrograd fetch tinyshakespeare"):
        rg.data.tiny_shakespeare(tmp_path if named else None)
