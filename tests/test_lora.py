"""LoRA: only the adapters learn, merging changes nothing, and files go to peft and back."""

import json
from pathlib import Path

import numpy as np
import pytest
import retrograd as rg
from retrograd.models import (
    BertConfig,
    BertForSequenceClassification,
    LoraLayer,
    add_lora,
    load_lora,
    lora_state_dict,
    merge_lora,
    save_lora,
)
from retrograd.models.layers import Conv1D


def bert(seed: int = 0, **changes) -> BertForSequenceClassification:
    rg.manual_seed(seed)
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(**sizes, intermediate_size=24, max_position_embeddings=12, **changes)
    return BertForSequenceClassification(config)


def tokens(n: int = 4, length: int = 7, seed: int = 0) -> rg.Tensor:
    return rg.tensor(np.random.default_rng(seed).integers(1, 30, (n, length)))


def trained(model: rg.nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad]


def stirred(model: rg.nn.Module, seed: int = 1) -> rg.nn.Module:
    """The same model with adapters that add something: B is no longer zero."""
    rng = np.random.default_rng(seed)
    with rg.no_grad():
        for module in model.modules():
            if isinstance(module, LoraLayer):
                b = module.lora_B.weight
                b.copy_(rg.tensor(rng.normal(size=b.shape, scale=0.3).astype(b.dtype)))
    return model


def logits(model: BertForSequenceClassification) -> np.ndarray:
    with rg.no_grad():
        return model(tokens()).logits.numpy()


def test_at_the_start_nothing_has_changed() -> None:
    model = bert().eval()
    before = logits(model)
    add_lora(model)
    assert sum(isinstance(m, LoraLayer) for m in model.modules()) == 4
    np.testing.assert_array_equal(logits(model), before)
    assert not np.allclose(logits(stirred(model)), before)


def test_only_adapters_and_the_classifier_are_trained() -> None:
    model = add_lora(bert(), rank=3)
    layers = [f"bert.encoder.layer.{i}.attention.self.{name}" for i in (0, 1) for name in ("query", "value")]
    adapters = [f"{layer}.{matrix}.weight" for layer in layers for matrix in ("lora_A", "lora_B")]
    assert sorted(trained(model)) == sorted([*adapters, "classifier.weight", "classifier.bias"])
    model(tokens(), labels=rg.tensor([0, 1, 1, 0])).loss.backward()
    assert sorted(n for n, p in model.named_parameters() if p.grad is not None) == sorted(trained(model))
    assert sorted(lora_state_dict(model)) == sorted(trained(model))
    assert model.get_parameter(adapters[0]).shape == (3, 16)
    assert model.get_parameter(adapters[1]).shape == (16, 3)


def test_what_else_is_trained_can_be_chosen() -> None:
    model = add_lora(bert(), targets=["dense"], modules_to_save=["embeddings.LayerNorm"])
    assert {n for n in trained(model) if "lora" not in n} == {
        "bert.embeddings.LayerNorm.weight",
        "bert.embeddings.LayerNorm.bias",
    }
    assert trained(add_lora(rg.nn.Sequential(rg.nn.Linear(3, 3)), targets=["0"])) == [
        "0.lora_A.weight",
        "0.lora_B.weight",
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_merged_gives_what_unmerged_gave(dtype: str) -> None:
    model = stirred(add_lora(bert().eval(), rank=4, alpha=8, targets=("query", "value", "dense")).to(dtype=dtype))
    before = logits(model)
    names = list(merge_lora(model).state_dict())
    assert names == list(bert().state_dict())
    np.testing.assert_allclose(logits(model), before, rtol=0, atol=(1e-6 if dtype == "float32" else 1e-14))
    assert not any(isinstance(m, LoraLayer) for m in model.modules())
    add_lora(model)  # may be adapted again


def test_a_weight_that_is_kept_the_other_way_round() -> None:
    rg.manual_seed(0)
    model = rg.nn.Sequential(Conv1D(6, 9, std=0.5))
    x = rg.randn(4, 6)
    stirred(add_lora(model, rank=2, targets=["0"]))
    before = model(x).numpy()
    np.testing.assert_allclose(merge_lora(model)(x).numpy(), before, atol=1e-5)
    assert model[0].weight.shape == (6, 9)


def test_dropout_of_the_adapters_only_in_training() -> None:
    model = stirred(add_lora(bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), dropout=0.5))
    assert not np.array_equal(logits(model.train()), logits(model))
    np.testing.assert_array_equal(logits(model.eval()), logits(model))


def test_a_compiled_step_trains_as_an_eager_one_does() -> None:
    losses = {}
    labels = rg.tensor([0, 1, 1, 0])
    for compiled in (False, True):
        model = add_lora(bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), dropout=0.0)
        optimizer = rg.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-2)

        def step(x, y, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = model(x, labels=y).loss
            loss.backward()
            optimizer.step()
            return loss

        run = rg.compile(step) if compiled else step
        frozen = {n: p.numpy().copy() for n, p in model.named_parameters() if not p.requires_grad}
        losses[compiled] = [run(tokens(), labels).item() for _ in range(8)]
        assert all(np.array_equal(frozen[n], p.numpy()) for n, p in model.named_parameters() if n in frozen)
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-4)
    assert losses[True][-1] < 0.9 * losses[True][0]


# -- files -----------------------------------------------------------------------------------------------------------


def test_saved_alone_and_loaded_into_the_published_model(tmp_path: Path) -> None:
    model = stirred(add_lora(bert().eval(), rank=4, alpha=12, dropout=0.25))
    save_lora(model, tmp_path / "adapters")
    assert sorted(path.name for path in (tmp_path / "adapters").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    names = set(rg.load(tmp_path / "adapters" / "adapter_model.safetensors"))
    assert "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight" in names
    assert "base_model.model.classifier.bias" in names
    assert len(names) == 2 * 2 * 2 + 2
    fresh = load_lora(bert().eval(), tmp_path / "adapters")
    assert fresh.lora_config == model.lora_config
    np.testing.assert_array_equal(logits(fresh), logits(model))
    assert trained(fresh) == trained(model)


def test_a_file_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    save_lora(add_lora(bert(), rank=4), tmp_path)
    other = rg.nn.Sequential(rg.nn.Linear(3, 3), rg.nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"no module of Sequential is called 'query'; its layers are 0, 1"):
        load_lora(other, tmp_path)
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    for model, expected in (
        (BertForSequenceClassification(config), r"not fitting .*expected \(4, 8\), got \(4, 16\)"),
        (_one_layer(), "unexpected 4, such as 'bert.encoder.layer.1"),
    ):
        before = {name: t.numpy().copy() for name, t in model.state_dict().items()}
        with pytest.raises(ValueError, match=expected) as caught:
            load_lora(model, tmp_path)
        assert str(tmp_path / "adapter_model.safetensors") in str(caught.value)
        assert trained(model) == [name for name, _ in model.named_parameters()]
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(np.array_equal(before[n], after[n].numpy()) for n in before)


def _one_layer() -> BertForSequenceClassification:
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForSequenceClassification(BertConfig(**sizes, intermediate_size=24, max_position_embeddings=12))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"peft_type": "IA3"}, "peft_type 'LORA', got 'IA3'"),
        ({"use_dora": True}, "use_dora=True is not supported, False is"),
        ({"bias": "all"}, "bias='all' is not supported, 'none' is"),
        ({"rank_pattern": {"query": 2}}, "rank_pattern"),
        ({"target_modules": "all-linear"}, "target_modules to be a list of names, got 'all-linear'"),
        ({"r": 0}, "rank of LoRA is a whole number above 0, got 0"),
        ({"r": None}, "got None"),
    ],
)
def test_configurations_that_we_do_not_do(tmp_path: Path, changes: dict, expected: str) -> None:
    save_lora(add_lora(bert()), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=expected) as caught:
        load_lora(bert(), tmp_path)
    assert str(caught.value).startswith(str(path))


def test_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no adapter_config\.json"):
        load_lora(bert(), tmp_path)
    save_lora(add_lora(bert()), tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no adapter_model\.safetensors"):
        load_lora(bert(), tmp_path)


# -- wrong use -------------------------------------------------------------------------------------------------------


def test_names_that_are_not_there() -> None:
    model = bert()
    with pytest.raises(
        ValueError, match=r"called 'qery'; its layers are classifier, dense, key, query, value; did you mean 'query'"
    ):
        add_lora(model, targets=["qery"])
    with pytest.raises(ValueError, match="called 'head'"):
        add_lora(model, modules_to_save=["head"])
    with pytest.raises(TypeError, match=r"adapts Linear and Conv1D layers, '.*LayerNorm' is a LayerNorm"):
        add_lora(model, targets=["LayerNorm"])
    with pytest.raises(TypeError, match=r"a list of names, got the text 'query'; write \['query'\]"):
        add_lora(model, targets="query")
    with pytest.raises(ValueError, match="no layer to adapt"):
        add_lora(model, targets=[])
    assert trained(model) == [name for name, _ in model.named_parameters()]


def test_adapters_twice_or_not_at_all() -> None:
    model = bert()
    for needs_adapters in (merge_lora, lora_state_dict):
        with pytest.raises(ValueError, match="has no adapters"):
            needs_adapters(model)
    with pytest.raises(ValueError, match="has adapters already"):
        add_lora(add_lora(model))
    for bad in ({"rank": 0}, {"rank": 2.5}, {"dropout": 1.5}):
        with pytest.raises(ValueError, match="of LoRA is a"):
            add_lora(bert(), **bad)


# -- against peft ----------------------------------------------------------------------------------------------------


@pytest.mark.parity
def test_peft_reads_what_we_write_and_we_read_what_peft_writes(tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model = bert().eval()
    model.save_pretrained(tmp_path / "base")
    stirred(add_lora(model, rank=4, alpha=8, targets=("query", "value", "intermediate.dense")))
    save_lora(model, tmp_path / "ours")

    def published():
        return transformers.BertForSequenceClassification.from_pretrained(tmp_path / "base").eval()

    def answer(other):
        with torch.no_grad():
            return other(torch.tensor(tokens().numpy())).logits.numpy()

    theirs = peft.PeftModel.from_pretrained(published(), str(tmp_path / "ours"))
    np.testing.assert_allclose(answer(theirs), logits(model), atol=2e-6)
    assert np.abs(answer(theirs) - answer(published())).max() > 1e-4

    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=["query", "key"], modules_to_save=["classifier"])
    theirs = peft.get_peft_model(published(), config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    theirs.save_pretrained(str(tmp_path / "theirs"))
    np.testing.assert_allclose(logits(load_lora(bert().eval(), tmp_path / "theirs")), answer(theirs), atol=2e-6)
