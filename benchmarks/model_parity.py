"""`python -m retrograd.benchmarks.model_parity`: our models beside transformers', on the same random weights.

Each case makes a small model here, lets transformers read what `save_pretrained` wrote, and compares: last hidden
states, logits, loss and the gradient of every parameter; then transformers saves, and we read the same numbers back.
"""

# transformers and PyTorch may be absent.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import retrograd as rg
from retrograd import models

LIMITS = {"float32": 1e-4, "float64": 1e-9}
SHAPE = (3, 7)
LENGTHS = (7, 5, 2)  # tokens of each sentence; the rest is padding

_BERT = dict(vocab_size=37, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40)
_GPT2 = dict(vocab_size=37, n_positions=16, n_embd=24, n_layer=3, n_head=4)


class Case(NamedTuple):
    """A model, what its config has beside the family's sizes, and on which side its sentences are padded."""

    name: str
    model: str
    config: dict[str, Any]
    padding: str = ""


CASES = (
    Case("pooler", "BertModel", {}),
    Case("padded right", "BertModel", {"hidden_act": "gelu_new"}, "right"),
    Case("padded left", "BertModel", {"pad_token_id": None, "num_attention_heads": 1}, "left"),
    Case("two classes", "BertForSequenceClassification", {}, "right"),
    Case("six classes", "BertForSequenceClassification", {"num_labels": 6, "hidden_act": "relu"}, "left"),
    Case("regression", "BertForSequenceClassification", {"num_labels": 1, "type_vocab_size": 3}, "right"),
    Case(
        "several labels",
        "BertForSequenceClassification",
        {"num_labels": 4, "problem_type": "multi_label_classification", "layer_norm_eps": 1e-5},
    ),
    Case("norms at the end", "GPT2Model", {}, "right"),
    Case("tied", "GPT2LMHeadModel", {}),
    Case("tied, padded right", "GPT2LMHeadModel", {"n_inner": 30}, "right"),
    Case("tied, padded left", "GPT2LMHeadModel", {"activation_function": "relu"}, "left"),
    Case("not tied", "GPT2LMHeadModel", {"tie_word_embeddings": False, "activation_function": "gelu"}, "left"),
    Case("no biases", "GPT2LMHeadModel", {"bias": False, "activation_function": "silu"}, "right"),
    Case("scores not scaled", "GPT2LMHeadModel", {"scale_attn_weights": False}, "left"),
    Case("scaled by layer", "GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True, "n_head": 1}, "right"),
)


class Errors(NamedTuple):
    """Distances from transformers, as shares of the largest value; the gradient's is the worst parameter's."""

    hidden: float
    logits: float
    loss: float
    gradient: float
    parameter: str  # the worst one


def compare(case: Case, dtype: str) -> Errors:
    """Run a case in one dtype. Raises AssertionError where the way to transformers and back changes a number."""
    ours = made(case, dtype)
    inputs, labels, real = batch(case)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # biases that one side has and the other lacks
        ours.save_pretrained(folder)
        theirs = _transformer(case, folder, dtype)
        theirs.save_pretrained(Path(folder, "back"))
        back = type(ours).from_pretrained(Path(folder, "back"))
    for name, value in ours.state_dict().items():
        np.testing.assert_array_equal(back.state_dict()[name].numpy(), value.numpy(), err_msg=name, strict=True)
    ours_found, theirs_found = _ours(ours, inputs, labels, real), _theirs(theirs, inputs, labels, real)
    return Errors(*map(share, ours_found, theirs_found), *gradients(ours, theirs))


def made(case: Case, dtype: str) -> models.PretrainedModel:
    """The case's model in evaluation mode, no parameter of which is 0 or 1."""
    rg.manual_seed(3)
    cls = getattr(models, case.model)
    sizes = _GPT2 if issubclass(cls.config_class, models.GPT2Config) else _BERT
    model = cls(cls.config_class.from_dict(sizes | case.config)).to(dtype=dtype).eval()
    rng = np.random.default_rng(4)
    with rg.no_grad():
        for parameter in model.parameters():
            parameter.add_(rg.tensor(0.2 * rng.standard_normal(parameter.shape)).astype(parameter.dtype))
    return model


def batch(case: Case) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Arguments of the model, labels, and which places hold tokens."""
    rng = np.random.default_rng(5)
    tokens = rng.integers(1, 37, SHAPE)
    inputs = {"input_ids": tokens}
    mask = np.ones(SHAPE, bool)
    if case.padding:
        place = np.arange(SHAPE[1])
        mask = np.array([place < n if case.padding == "right" else place >= SHAPE[1] - n for n in LENGTHS])
        inputs["attention_mask"] = mask.astype(np.int64)
        inputs["position_ids"] = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    if case.model.startswith("Bert"):
        inputs["token_type_ids"] = rng.integers(0, case.config.get("type_vocab_size", 2), SHAPE)
        classes = case.config.get("num_labels", 2)
        if "problem_type" in case.config or classes == 1:
            return inputs, rng.random((SHAPE[0], classes)), mask
        return inputs, rng.integers(0, classes, SHAPE[0]), mask
    # The first token is foretold by nothing, or by padding that sees nothing.
    first = np.cumsum(mask, axis=1) == 1
    return inputs, np.where(mask & ~first, tokens, -100), mask


def _ours(model: Any, inputs: dict, labels: np.ndarray, real: np.ndarray) -> list[np.ndarray]:
    """Last hidden states at tokens, logits, loss; the gradients are left in the parameters."""
    given = {name: rg.tensor(value) for name, value in inputs.items()}
    base = getattr(model, model.base_model_prefix, model)
    out = base(**given)
    hidden = getattr(out, "last_hidden_state", out)
    if base is model:
        logits = getattr(out, "pooler_output", hidden)
        loss = (hidden * rg.tensor(_weights(real, hidden.dtype))).sum() + logits.sum()
    else:
        _, logits = out = model(**given, labels=rg.tensor(labels))
        loss = out.loss
    loss.backward()
    return _numbers(real, *(t.numpy() for t in (hidden, logits, loss)))


def _theirs(model: Any, inputs: dict, labels: np.ndarray, real: np.ndarray) -> list[np.ndarray]:
    """The same of transformers. The loss is PyTorch's own: that of transformers' GPT-2 is rounded to float32."""
    import torch

    given = {name: torch.tensor(value) for name, value in inputs.items()}
    base = getattr(model, model.base_model_prefix, model)
    out = base(**given)
    hidden = out.last_hidden_state
    if base is model:
        logits = getattr(out, "pooler_output", hidden)
        loss = (hidden * torch.tensor(_weights(real, np.dtype(str(hidden.dtype)[6:])))).sum() + logits.sum()
    else:
        wanted = torch.tensor(labels)
        logits = model(**given).logits
        if wanted.ndim == 2 and wanted.dtype == torch.int64:
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), wanted[:, 1:].flatten())
        else:
            loss = model(**given, labels=wanted if wanted.dtype == torch.int64 else wanted.to(logits.dtype)).loss
    loss.backward()
    return _numbers(real, *(t.detach().numpy() for t in (hidden, logits, loss)))


def _weights(real: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """What a model without head is judged by: a sum over tokens in which all numbers count differently."""
    return np.cos(np.arange(real.size * 24).reshape(*real.shape, 24)).astype(dtype) * real[..., None]


def _numbers(real: np.ndarray, hidden: np.ndarray, logits: np.ndarray, loss: np.ndarray) -> list[np.ndarray]:
    """What is compared: of padding, which may see nothing, no numbers."""
    return [hidden[real], logits[real] if logits.ndim == 3 else logits, loss]


def _transformer(case: Case, folder: str, dtype: str) -> Any:
    import torch
    import transformers

    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    cls = getattr(transformers, case.model)
    return cls.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def share(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference as a share of the largest value."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def gradients(ours: Any, theirs: Any) -> tuple[float, str]:
    """The worst parameter: ‖g − r‖ / max(‖r‖, ‖all‖ / 1000). A key's bias has gradient 0, so ‖r‖ alone will not do."""
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    reference = {name: grad.numpy() for name, grad in expected.items() if grad is not None}
    whole = np.sqrt(sum(float(np.square(grad).sum()) for grad in reference.values()))
    errors = []
    for name, parameter in ours.named_parameters():
        grad, wanted = parameter.grad, reference.get(name)
        assert (grad is None) == (wanted is None), name
        if grad is not None and wanted is not None:
            error = np.linalg.norm(grad.numpy() - wanted) / max(np.linalg.norm(wanted), whole / 1000)
            errors.append((float(error), name))
    return max(errors)


def main() -> int:
    """Print the table; returns 1 where an error is above its limit."""
    worst = 0.0
    print("| model | case | padding | dtype | hidden states | logits | loss | gradient | its parameter |")
    print("|---|---|---|---|---:|---:|---:|---:|---|")
    for case in CASES:
        for dtype, limit in LIMITS.items():
            errors = compare(case, dtype)
            worst = max(worst, *(error / limit for error in errors[:4]))
            numbers = " | ".join(f"{error:.1e}" for error in errors[:4])
            print(f"| {case.model} | {case.name} | {case.padding} | {dtype} | {numbers} | `{errors.parameter}` |")
    print(f"\nLimits: {', '.join(f'{limit:g} in {dtype}' for dtype, limit in LIMITS.items())}.")
    return int(worst > 1)


if __name__ == "__main__":
    sys.exit(main())
