"""The published families against transformers: values, gradients, and checkpoints that go both ways."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import retrograd as rg
from retrograd import models
from retrograd.benchmarks import model_parity

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

BERT = dict(vocab_size=21, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
GPT2 = dict(vocab_size=21, n_positions=12, n_embd=16, n_layer=2, n_head=2)
TOKENS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


@pytest.fixture(autouse=True)
def quiet():
    transformers.utils.logging.set_verbosity(50)
    transformers.utils.logging.disable_progress_bar()


@pytest.mark.parametrize("dtype", model_parity.LIMITS)
@pytest.mark.parametrize("case", model_parity.CASES, ids=lambda case: f"{case.model}, {case.name}")
def test_values_gradients_and_the_way_there_and_back(case, dtype):
    errors = model_parity.compare(case, dtype)
    assert max(errors[:4]) <= model_parity.LIMITS[dtype], errors


def made(name, config):
    torch.manual_seed(0)
    cls = getattr(transformers, name)
    return cls(cls.config_class(**config)).eval()


def test_a_pretraining_checkpoint_gives_its_encoder(tmp_path):
    theirs = made("BertForPreTraining", BERT)
    theirs.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"no place for 7 weights: 'cls\.predictions\.bias'"):
        ours = models.BertModel.from_pretrained(tmp_path)
    found = ours(rg.tensor(TOKENS)).last_hidden_state.numpy()
    np.testing.assert_allclose(found, theirs.bert(torch.tensor(TOKENS))[0].detach().numpy(), atol=1e-5)


def test_names_of_classes_and_unknown_keys_survive_both_libraries(tmp_path):
    names = {0: "calm", 1: "angry", 2: "torn"}
    made("BertForSequenceClassification", BERT | {"id2label": names, "mood": "good"}).save_pretrained(tmp_path)
    ours = models.load_pretrained(tmp_path)
    assert type(ours) is models.BertForSequenceClassification
    assert ours.config.id2label == names
    ours.save_pretrained(tmp_path / "again")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert again.config.id2label == names
    assert again.config.mood == "good"


@pytest.mark.parametrize("ours_first", [True, False])
def test_shards_of_either_library(tmp_path, ours_first):
    if ours_first:
        ours = models.GPT2LMHeadModel(models.GPT2Config(**GPT2)).eval()
        ours.save_pretrained(tmp_path, max_shard_size=9_000)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    else:
        theirs = made("GPT2LMHeadModel", GPT2)
        theirs.save_pretrained(tmp_path, max_shard_size="9KB")
        ours = models.GPT2LMHeadModel.from_pretrained(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    found = ours(rg.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(found, theirs(torch.tensor(TOKENS)).logits.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_files_become_float32_on_request(tmp_path, half):
    theirs = made("GPT2LMHeadModel", GPT2).to(getattr(torch, half))
    theirs.save_pretrained(tmp_path)
    ours = models.GPT2LMHeadModel.from_pretrained(tmp_path, dtype="float32")
    for name, parameter in theirs.named_parameters():
        np.testing.assert_array_equal(ours.get_parameter(name).numpy(), parameter.detach().float().numpy())
    kept = models.GPT2LMHeadModel.from_pretrained(tmp_path)
    assert kept.dtype == ("float16" if half == "float16" else "float32")


@pytest.mark.parametrize("left", [False, True])
def test_decoding_with_a_cache_step_by_step(left):
    case = model_parity.Case("", "GPT2LMHeadModel", {}, "left" if left else "")
    ours = model_parity.made(case, "float64")
    theirs = made("GPT2LMHeadModel", ours.config.to_dict()).double()
    theirs.load_state_dict({n: torch.tensor(t.numpy()) for n, t in ours.state_dict().items()}, strict=False)
    theirs.tie_weights()
    inputs, _, _ = model_parity.batch(case)
    mask = inputs.get("attention_mask", np.ones_like(inputs["input_ids"]))
    prompt = dict(attention_mask=torch.tensor(mask), max_new_tokens=8, do_sample=False, pad_token_id=0)
    expected = theirs.generate(torch.tensor(inputs["input_ids"]), **prompt)[:, -8:].numpy()
    places = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    found, length = [], mask.shape[1]
    cache, tokens, start = ours.new_cache(len(mask), length + 8), rg.tensor(inputs["input_ids"]), 0
    with rg.no_grad():
        for _ in range(8):
            scores = ours(tokens, mask, rg.tensor(places), cache=cache, cache_position=start, logits_to_keep=1).logits
            tokens, start, places = scores.argmax(axis=-1), start + tokens.shape[1], places[:, -1:] + 1
            found.append(tokens.numpy())
    np.testing.assert_array_equal(np.concatenate(found, axis=1), expected)


# -- the real one ---------------------------------------------------------------------------------------------------

# What its tokenizer makes of the four sentences of expected.json.
SENTENCES = [
    [101, 2008, 2003, 1037, 3407, 2711, 102],
    [101, 2008, 2003, 1037, 3407, 3899, 102],
    [101, 2008, 2003, 1037, 2200, 3407, 2711, 102],
    [101, 2651, 2003, 1037, 11559, 2154, 102],
]


@pytest.fixture(scope="module")
def minilm():
    folder = os.environ.get("RETROGRAD_MINILM")
    if not folder or not Path(folder, "config.json").exists():
        pytest.skip("RETROGRAD_MINILM names no folder with the checkpoint")
    return folder


def sentences(side):
    longest = max(map(len, SENTENCES))
    gaps = [[0] * (longest - len(s)) for s in SENTENCES]
    rows = [s + g if side == "right" else g + s for s, g in zip(SENTENCES, gaps, strict=True)]
    return np.array(rows), (np.array(rows) != 0).astype(np.int64)


def test_minilm_knows_its_answers(minilm, data_folder):
    answers = json.loads(data_folder("tools/expected.json").read_text())["minilm_l6_v2"]
    tokens, mask = sentences("right")
    with rg.no_grad():
        hidden = models.BertModel.from_pretrained(minilm)(rg.tensor(tokens), rg.tensor(mask)).last_hidden_state
        vectors = models.mean_pooling(hidden, mask, normalize=True).numpy()
    np.testing.assert_allclose(vectors @ vectors[0], answers["cosine_with_first"], atol=6e-5)
    np.testing.assert_allclose(vectors[0, :4], answers["first4_of_unit_embedding_of_first"], atol=1e-6)


@pytest.mark.parametrize("dtype", model_parity.LIMITS)
def test_minilm_and_its_gradients(minilm, dtype):
    tokens, mask = sentences("left")
    ours = models.BertModel.from_pretrained(minilm, dtype=dtype)
    theirs = transformers.BertModel.from_pretrained(minilm, dtype=getattr(torch, dtype)).eval()
    found = ours(rg.tensor(tokens), rg.tensor(mask))
    expected = theirs(torch.tensor(tokens), torch.tensor(mask))
    for a, b in zip(found, (expected.last_hidden_state, expected.pooler_output), strict=True):
        assert model_parity.share(a.numpy(), b.detach().numpy()) <= model_parity.LIMITS[dtype]
    found.pooler_output.sum().backward()
    expected.pooler_output.sum().backward()
    error, name = model_parity.gradients(ours, theirs)
    assert error <= model_parity.LIMITS[dtype], name
