"""Published families: what the models compute, from which weights, and which inputs they refuse."""

import os

import numpy as np
import pytest
import retrograd as rg
from retrograd.models import BertForSequenceClassification, mean_pooling

TOKENS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def same(a, b, tolerance=2e-6):
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=tolerance, atol=tolerance)


@pytest.fixture
def few_kernels(monkeypatch):
    """Programs are judged by their values here: without kernels, unless asked for, whose compilation takes long."""
    if "RETROGRAD_KERNELS" not in os.environ:
        monkeypatch.setenv("RETROGRAD_KERNELS", "array")


def padded(side):
    """Two sentences, the second of two tokens: (tokens, mask, positions)."""
    mask = np.array([[1] * 5, [1, 1, 0, 0, 0] if side == "right" else [0, 0, 0, 1, 1]])
    return TOKENS, mask, np.maximum(np.cumsum(mask, axis=1) - 1, 0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_padding_changes_no_other_token(side, family, bert, gpt2):
    model = bert() if family == "bert" else gpt2()
    tokens, mask, places = padded(side)
    with rg.no_grad():
        together = model(rg.tensor(tokens), rg.tensor(mask), position_ids=rg.tensor(places))
        alone = model(rg.tensor(tokens[1:][mask[1:] == 1][None]))
    for a, b in zip(together, alone, strict=True):
        if a is not None and a.ndim == 3:
            same(a[1][rg.tensor(mask[1] == 1)], b[0], 1e-5)


def test_a_decoder_does_not_look_ahead(gpt2):
    model = gpt2()
    changed = TOKENS.copy()
    changed[:, 3:] = 7
    one, other = model(rg.tensor(TOKENS)).logits, model(rg.tensor(changed)).logits
    same(one[:, :3], other[:, :3])
    assert abs(one[:, 3:] - other[:, 3:]).max() > 1e-3


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.usefixtures("few_kernels")
def test_a_cache_gives_what_the_whole_sequence_gives(compiled, side, gpt2):
    model = gpt2()
    tokens, mask, places = (rg.tensor(a) for a in padded(side))
    cache = model.new_cache(2, 8)

    def step(token, place, position):
        return model(token, mask, place, cache=cache, cache_position=position).logits

    step = rg.compile(step) if compiled else step
    with rg.no_grad():
        expected = model(tokens, mask, places).logits
        found = [step(tokens[:, i : i + 1], places[:, i : i + 1], rg.tensor(i)) for i in range(5)]
        same(rg.concat(found, axis=1), expected, 1e-5)
        found = model(
            tokens[:, :3], mask, places[:, :3], cache=cache, logits_to_keep=1
        )  # the next text: from the front
        same(found.logits, expected[:, 2:3], 1e-5)
    assert not compiled or len(step.programs) == 1


def test_what_a_cache_refuses(gpt2):
    model = gpt2()
    tokens, cache = rg.tensor(TOKENS), model.new_cache(2, 6)
    with pytest.raises(RuntimeError, match=r"under `with rg\.no_grad"):
        model(tokens, cache=cache)
    with rg.no_grad():
        with pytest.raises(ValueError, match="7 tokens is longer than the 6 that the cache has room for"):
            model(tokens, cache=cache, cache_position=2)
        with pytest.raises(ValueError, match=r"expected 2 sequences, as many as the cache was made for; got \(1, 5\)"):
            model(tokens[:1], cache=cache)
    for length in (0, 13):
        with pytest.raises(ValueError, match=r"max_len must lie in 1…12"):
            model.new_cache(2, length)


STEPS = {
    "bert": lambda model, tokens, mask: model(tokens, mask, labels=tokens[:, 0] % 2).loss,
    "gpt2": lambda model, tokens, mask: model(tokens, mask, labels=tokens).loss,
}


@pytest.mark.parametrize("family", STEPS)
@pytest.mark.usefixtures("few_kernels")
def test_a_compiled_training_step_is_the_eager_one(family, bert, gpt2):
    def trained(compiles):
        model = (bert(BertForSequenceClassification) if family == "bert" else gpt2()).train()
        optimizer = rg.optim.AdamW(model.parameters(), lr=1e-3)
        rg.manual_seed(7)  # of the dropout

        def step(tokens, mask):
            optimizer.zero_grad()
            loss = STEPS[family](model, tokens, mask)
            loss.backward()
            rg.optim.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return loss

        run = rg.compile(step) if compiles else step
        rng = np.random.default_rng(1)
        mask = rg.tensor(padded("right")[1])
        return model, [run(rg.tensor(rng.integers(1, 21, (2, 5))), mask).item() for _ in range(7)]

    eager, expected = trained(False)
    compiled, found = trained(True)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    for (name, p), q in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        np.testing.assert_allclose(p.numpy(), q.numpy(), atol=2e-5, err_msg=name)


def test_dropout_is_there_in_training_alone(bert, gpt2):
    for model in (bert(BertForSequenceClassification), gpt2()):
        tokens = rg.tensor(TOKENS)
        same(model(tokens).logits, model(tokens).logits)
        model.train()
        assert abs(model(tokens).logits - model(tokens).logits).max() > 1e-4


def test_losses(bert, gpt2):
    tokens = rg.tensor(TOKENS)
    F = rg.nn.functional
    model = gpt2()
    logits = model(tokens).logits
    labels = np.where(TOKENS == 1, -100, TOKENS)
    expected = F.cross_entropy(logits[:, :-1].reshape(8, 21), rg.tensor(labels[:, 1:].reshape(8)))
    same(model(tokens, labels=rg.tensor(labels)).loss, expected)
    for options, labels, loss in (
        ({"num_labels": 3}, [2, 0], F.cross_entropy),
        ({"num_labels": 3}, [[1.0, 0.0, 1.0]] * 2, F.binary_cross_entropy_with_logits),
        ({"num_labels": 1}, [0.5, 2.0], lambda x, y: F.mse_loss(x, y.reshape(2, 1))),
        ({"num_labels": 1, "problem_type": "multi_label_classification"}, [[1], [0]],
         lambda x, y: F.binary_cross_entropy_with_logits(x, y.astype("float32"))),
    ):  # fmt: skip
        head = bert(BertForSequenceClassification, **options)
        found, logits = head(tokens, labels=rg.tensor(labels))
        same(found, loss(logits, rg.tensor(labels)))


def test_mean_pooling(bert):
    rng = np.random.default_rng(0)
    hidden, mask = rng.standard_normal((3, 4, 5)), np.array([[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    x = rg.tensor(hidden, requires_grad=True)
    pooled = mean_pooling(x, mask)
    np.testing.assert_allclose(pooled.numpy()[:2], [hidden[0, :3].mean(0), hidden[1, 1]], rtol=1e-12)
    assert not pooled.numpy()[2].any()
    unit = mean_pooling(x, rg.tensor(mask), normalize=True)
    np.testing.assert_allclose(np.linalg.norm(unit.numpy(), axis=1), [1, 1, 0], rtol=1e-12)
    unit.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()
    np.testing.assert_allclose(mean_pooling(x).numpy(), hidden.mean(1), rtol=1e-12)
    model = bert(BertForSequenceClassification, classifier_pooling="mean")
    assert model.bert.pooler is None
    tokens = rg.tensor(TOKENS)
    same(model(tokens).logits, model.classifier(mean_pooling(model.bert(tokens).last_hidden_state)))


def test_where_the_weights_start(bert, gpt2):
    model = bert(BertForSequenceClassification, vocab_size=300, hidden_size=64)
    word = model.bert.embeddings.word_embeddings.weight.numpy()
    assert not word[0].any(), "padding is nothing"
    assert 0.019 < word[1:].std() < 0.021
    assert not model.bert.encoder.layer[1].output.dense.bias.numpy().any()
    model = gpt2(n_embd=64, n_layer=8)
    assert 0.019 < model.transformer.h[0].mlp.c_fc.weight.numpy().std() < 0.021
    assert 0.0045 < model.transformer.h[0].mlp.c_proj.weight.numpy().std() < 0.0055
    assert "bias" not in "".join(gpt2(bias=False).state_dict())


def test_inputs_that_do_not_fit(bert, gpt2):
    tokens = rg.tensor(TOKENS)
    for model in (bert(), gpt2()):
        with pytest.raises(
            ValueError, match="a sequence of 13 tokens is longer than the 12 that the model has places for"
        ):
            model(rg.zeros((1, 13), dtype="int64"))
        with pytest.raises(ValueError, match=r"tokens of shape \(N, T\) with T above 0, got \(5,\)"):
            model(tokens[0])
        with pytest.raises(ValueError, match=r"\(2, 5\), got \(2, 4\)"):
            model(tokens, rg.ones((2, 4)))
        with pytest.raises(TypeError, match="expected integer indices, got a float32"):
            model(rg.ones((2, 5)))
        with pytest.raises(IndexError, match=r"0…20, got 21"):
            model(rg.tensor([[1, 21]]))
    with pytest.raises(ValueError, match=r"labels of shape \(2, 5\), got \(2, 4\)"):
        gpt2()(tokens, labels=tokens[:, 1:])
    with pytest.raises(IndexError, match="got 2"):
        bert(BertForSequenceClassification)(tokens, labels=rg.tensor([0, 2]))
