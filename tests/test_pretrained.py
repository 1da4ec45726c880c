"""Checkpoint folders: what reading and writing them promises, and the one line that says what is wrong with one."""

import json
import tracemalloc
import warnings

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core import safetensors
from retrograd.models import (
    BertForSequenceClassification,
    BertModel,
    CheckpointError,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    load_pretrained,
)


def same_state(a, b):
    one, other = a.state_dict(), b.state_dict()
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name].numpy(), other[name].numpy(), err_msg=name, strict=True)


def rewritten(folder, change):
    """Give the weights of a folder through `change`, a function of name → array."""
    arrays, metadata = safetensors.read(folder / "model.safetensors")
    safetensors.write(folder / "model.safetensors", change(arrays), metadata)


# -- reading and writing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        lambda bert, gpt2: bert(),
        lambda bert, gpt2: bert(BertForSequenceClassification, num_labels=5, classifier_pooling="mean"),
        lambda bert, gpt2: gpt2(),
        lambda bert, gpt2: gpt2(tie_word_embeddings=False, bias=False, n_inner=20),
        lambda bert, gpt2: gpt2(GPT2Model).double(),
    ],
)
def test_there_and_back(tmp_path, model, bert, gpt2):
    saved = model(bert, gpt2)
    saved.save_pretrained(tmp_path)
    generator = rg.default_generator().state()
    loaded = load_pretrained(tmp_path)
    assert rg.default_generator().state() == generator, "weights that are loaded were drawn first"
    assert type(loaded) is type(saved)
    assert not loaded.training
    same_state(loaded, saved)
    assert loaded.config.to_dict() | {"architectures": []} == saved.config.to_dict() | {
        "architectures": [],
        "dtype": str(saved.dtype),
    }


def test_what_stands_in_the_files(tmp_path, gpt2):
    gpt2(mood="good").half().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    expected = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "mood": "good",
        "dtype": "float16",
        "n_embd": 16,
    }
    assert config.items() >= expected.items()
    header = safetensors.read_header(tmp_path / "model.safetensors")
    assert header.metadata == {"format": "pt"}
    assert "lm_head.weight" not in header.specs, "a tied weight is written once"
    assert header.specs["transformer.h.1.attn.c_attn.weight"].shape == (16, 48)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_half_precision_stays_or_widens(tmp_path, gpt2):
    saved = gpt2().half()
    saved.save_pretrained(tmp_path)
    same_state(GPT2LMHeadModel.from_pretrained(tmp_path), saved)
    same_state(GPT2LMHeadModel.from_pretrained(tmp_path, dtype="float32"), saved.float())


def test_shards(tmp_path, gpt2):
    saved = gpt2()
    saved.save_pretrained(tmp_path)
    saved.save_pretrained(tmp_path, max_shard_size="6KB")
    names = sorted(p.name for p in tmp_path.iterdir())
    assert "model.safetensors" not in names, "the older file would be read in place of the shards"
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == [n for n in names if n.startswith("model-")]
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in saved.state_dict().values())
    same_state(load_pretrained(tmp_path), saved)
    saved.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    for size in ("much", 0, "0GB"):
        with pytest.raises(ValueError, match="max_shard_size"):
            saved.save_pretrained(tmp_path, max_shard_size=size)


@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_changes_nothing(tmp_path, monkeypatch, there, gpt2):
    folder = tmp_path / "model"
    old = gpt2()
    if there:
        old.save_pretrained(folder)
    write, written = safetensors.write, []

    def full(path, *rest):
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        write(path, *rest)

    monkeypatch.setattr(safetensors, "write", full)
    new = gpt2(n_layer=3)
    with pytest.raises(OSError, match="No space"):
        new.save_pretrained(folder, max_shard_size="6KB")
    if there:
        assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
        same_state(load_pretrained(folder), old)
    else:
        assert not folder.exists()


@pytest.mark.skipif(
    rg.get_backend().name == "strict", reason="what the wrapper of the strict backend copies is its own"
)
def test_loading_takes_no_second_copy(tmp_path, gpt2):
    model = gpt2(vocab_size=2000, n_embd=64, n_layer=3)
    model.half().save_pretrained(tmp_path)
    tracemalloc.start()
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path, dtype="float32")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    sizes = [p.nbytes for p in loaded.parameters()]
    assert peak < sum(sizes) + 1.1 * max(sizes) + 100_000


def test_a_new_head_starts_fresh_with_one_warning(tmp_path, bert):
    bert().save_pretrained(tmp_path)
    with pytest.warns(
        UserWarning, match=r"lacks 2 weights: 'classifier\.weight', 'classifier\.bias'; .* starts fresh"
    ) as caught:
        model = BertForSequenceClassification.from_pretrained(tmp_path, num_labels=6)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert model.classifier.weight.shape == (6, 16)
    assert 0.01 < model.classifier.weight.numpy().std() < 0.03
    assert not model.classifier.bias.numpy().any()
    same_state(model.bert, bert())
    with pytest.raises(CheckpointError, match=r"lacks 2 weights: 'classifier\.weight'"):
        BertForSequenceClassification.from_pretrained(tmp_path, strict=True)


def test_a_head_that_is_not_wanted_is_named(tmp_path, bert):
    saved = bert(BertForSequenceClassification)
    saved.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"no place for 2 weights: 'classifier\.(bias|weight)'"):
        model = BertModel.from_pretrained(tmp_path)
    same_state(model, saved.bert)


def test_weights_of_another_shape(tmp_path, bert):
    bert(BertForSequenceClassification, num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"'classifier.weight' is \(3, 16\) there and \(6, 16\) in the model"):
        BertForSequenceClassification.from_pretrained(tmp_path, num_labels=6)
    rewritten(tmp_path, lambda arrays: {"new": arrays.pop("bert.pooler.dense.bias"), **arrays})
    with pytest.raises(CheckpointError, match=r"lacks 1 weight: 'bert.*'; .* no place for 1 weight: 'new'; check"):
        BertForSequenceClassification.from_pretrained(tmp_path, num_labels=6)
    rewritten(tmp_path, lambda arrays: {"bert.pooler.dense.bias": arrays.pop("new"), **arrays})
    with pytest.warns(UserWarning, match="other shapes there have 2 weights"):
        model = BertForSequenceClassification.from_pretrained(tmp_path, num_labels=6, ignore_mismatched_sizes=True)
    assert model.classifier.weight.numpy().std() > 0.01


def test_old_names_and_what_is_no_weight(tmp_path, bert, gpt2):
    saved = bert()
    saved.save_pretrained(tmp_path)

    def aged(arrays):
        old = {
            n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): a
            for n, a in arrays.items()
        }
        return {f"bert.{n}": a for n, a in old.items()} | {"bert.embeddings.position_ids": np.arange(12)[None]}

    rewritten(tmp_path, aged)
    same_state(BertModel.from_pretrained(tmp_path), saved)
    saved = gpt2()
    saved.save_pretrained(tmp_path)

    def without_prefix(arrays):
        old = {n.removeprefix("transformer."): a for n, a in arrays.items()}
        return old | {
            "h.0.attn.bias": np.ones((1, 1, 12, 12), bool),
            "h.0.attn.masked_bias": np.array(-1e4, np.float32),
        }

    rewritten(tmp_path, without_prefix)
    same_state(GPT2LMHeadModel.from_pretrained(tmp_path), saved)


def test_a_tied_weight_may_stand_under_either_name_or_both(tmp_path, gpt2):
    saved = gpt2()
    saved.save_pretrained(tmp_path)
    word = "transformer.wte.weight"
    rewritten(tmp_path, lambda arrays: arrays | {"lm_head.weight": arrays[word]})
    same_state(GPT2LMHeadModel.from_pretrained(tmp_path), saved)
    rewritten(tmp_path, lambda arrays: {n: a for n, a in arrays.items() if n != word})
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path)
    same_state(loaded, saved)
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    rewritten(tmp_path, lambda arrays: arrays | {word: arrays["lm_head.weight"] + 1})
    with pytest.raises(CheckpointError, match="are one weight in the model, and two different ones there"):
        GPT2LMHeadModel.from_pretrained(tmp_path)
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path, tie_word_embeddings=False)
    np.testing.assert_array_equal(loaded.transformer.wte.weight.numpy(), loaded.lm_head.weight.numpy() + 1)


# -- errors: one line each, and what there is instead ------------------------------------------------------------------


def no_config(folder):
    (folder / "config.json").unlink()


def broken_config(folder):
    (folder / "config.json").write_text('{"model_type": "gpt2",')


def config_of(**keys):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return change


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def only_a_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def sharded(change):
    def shards(folder):
        load_pretrained(folder).save_pretrained(folder, max_shard_size="6KB")
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(folder, index)
        path.write_text(json.dumps(index))

    return shards


def lose_one(folder, index):
    (folder / sorted(set(index["weight_map"].values()))[1]).unlink()


def point_outside(folder, index):
    index["weight_map"]["transformer.wte.weight"] = "../model.safetensors"


def lie(folder, index):
    index["weight_map"]["nothing.weight"] = index["weight_map"]["transformer.wte.weight"]


def names_of_another(folder):
    rewritten(folder, lambda arrays: {f"vision.{n}": a for n, a in arrays.items()})


def whole_numbers(folder):
    rewritten(folder, lambda arrays: {n: a.astype(np.int32) for n, a in arrays.items()})


ERRORS = [
    (no_config, FileNotFoundError, "holds no config.json"),
    (broken_config, CheckpointError, "config.json"),
    (config_of(model_type="llava"), CheckpointError, "says model_type 'llava'; known are bert, gpt2"),
    (config_of(model_type=["a"]), CheckpointError, "known are bert, gpt2"),
    (config_of(n_embd=0), CheckpointError, "n_embd must be a whole number above 0, got 0"),
    (config_of(n_embd="16"), CheckpointError, "n_embd must be a whole number above 0, got '16'"),
    (config_of(attn_pdrop="a"), CheckpointError, r"config\.json: attn_pdrop must be a number in 0…1, got 'a'"),
    (config_of(num_labels=0), CheckpointError, "num_labels must be a whole number above 0, got 0"),
    (config_of(id2label={"0": "a", "7": "b"}), CheckpointError, "id2label must name the classes 0, 1, 2, … each"),
    (config_of(n_head=3), CheckpointError, "n_embd=16 must be a multiple of n_head=3"),
    (config_of(activation_function="gelo"), CheckpointError, "expected one of the activations gelu, .* got 'gelo'"),
    (config_of(add_cross_attention=True), CheckpointError, "no cross attention"),
    (config_of(problem_type="hard"), CheckpointError, "problem_type must be one of regression, .*, got 'hard'"),
    (
        config_of(n_inner=20),
        CheckpointError,
        r"'transformer\.h\.0\.mlp\.c_fc\..* there and .* in the model.*; check the",
    ),
    (
        no_weights,
        FileNotFoundError,
        r"neither model.safetensors nor model.safetensors.index.json; there is config.json",
    ),
    (
        only_a_pickle,
        CheckpointError,
        r"pytorch_model\.bin, a pickle.* can run any code .*save_pretrained\(new_folder\)",
    ),
    (cut_short, safetensors.SafetensorsError, "damaged"),
    (
        sharded(lose_one),
        FileNotFoundError,
        r"the shard model-00002-of-\d+.safetensors, which holds \d+ weights, is missing",
    ),
    (sharded(point_outside), CheckpointError, "no .safetensors file beside it"),
    (sharded(lie), CheckpointError, "says that 'nothing.weight' is in model-.*; it is not"),
    (
        names_of_another,
        CheckpointError,
        "none of its weights has a place in the model, which lacks 28 weights: 'transformer.wte.weight'",
    ),
    (whole_numbers, CheckpointError, "is I32 there, not floating"),
]


@pytest.mark.parametrize(("change", "kind", "text"), ERRORS)
def test_what_is_wrong_is_said_in_one_line(tmp_path, change, kind, text, gpt2):
    gpt2().save_pretrained(tmp_path)
    change(tmp_path)
    with pytest.raises(kind, match=text) as caught:
        load_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_folders_families_and_options_that_are_none(tmp_path, bert, gpt2):
    with pytest.raises(FileNotFoundError, match=r"does not exist: expected a folder with config.json"):
        load_pretrained(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="is a file"):
        load_pretrained(tmp_path / "file")
    gpt2().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"type 'gpt2', and BertModel reads 'bert'; .*load_pretrained picks"):
        BertModel.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="has no key 'num_lables'; did you mean 'num_labels'"):
        load_pretrained(tmp_path, num_lables=2)
    with pytest.raises(TypeError, match="BertModel takes a BertConfig, got GPT2Config"):
        BertModel(GPT2Config())
    for option, text in (
        ({"num_attention_heads": 3}, "hidden_size=16 must be a multiple of num_attention_heads=3"),
        ({"classifier_pooling": "max"}, "'cls' or 'mean', got 'max'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='absolute' only, got 'relative_key'"),
        ({"num_labels": 3, "id2label": {"0": "a"}}, "num_labels=3, but id2label names 1 classes"),
    ):
        with pytest.raises(CheckpointError, match=text):
            bert(**option)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_whatever_stands_in_a_config_it_is_taken_or_refused_in_one_line(tmp_path, bert, gpt2, family):
    (bert(BertForSequenceClassification) if family == "bert" else gpt2()).save_pretrained(tmp_path)
    good, said = json.loads((tmp_path / "config.json").read_text()), []
    for name in good:
        for value in (None, -1, 1.5, "x", [], {}, [1], {"a": 1}, True, 10**30):
            (tmp_path / "config.json").write_text(json.dumps(good | {name: value}))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    load_pretrained(tmp_path)
            except CheckpointError as error:
                said.append(str(error))
    assert said
    assert not any("\n" in text for text in said)


def test_a_config_knows_other_families_names():
    config = GPT2Config.from_dict({"hidden_size": 24, "num_hidden_layers": 3, "id2label": None})
    assert (config.n_embd, config.n_layer, config.hidden_size, config.num_labels) == (24, 3, 24, 2)
    assert "hidden_size" not in config.to_dict()
    named = GPT2Config(id2label={0: "no", 1: "yes"})
    assert named.replaced(num_labels=2).id2label == {0: "no", 1: "yes"}
    assert named.replaced(num_labels=3).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    changed = config.replaced(num_attention_heads=6, num_labels=4)
    assert (changed.n_head, config.n_head, changed.num_labels) == (6, 12, 4)
    with pytest.raises(AttributeError, match="no field 'n_heads'"):
        config.n_heads
