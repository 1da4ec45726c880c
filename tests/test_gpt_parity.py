"""The GPT from scratch beside PyTorch: from the same weights and with the same batches, the same losses.

The comparison over the whole run takes many minutes, so it is made where RETROGRAD_GPT_STEPS says how long it shall be:

    RETROGRAD_GPT_STEPS=2000 RETROGRAD_DATA=… python -m pytest -m slow -s tests/test_gpt_parity.py
"""

import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import retrograd as rg
from retrograd.examples import gpt as example
from retrograd.train import Callback

torch = pytest.importorskip("torch")
functional = torch.nn.functional

pytestmark = pytest.mark.parity

FIRST, CLOSE, AT_THE_END = 20, 1e-4, 0.03


class Losses(Callback):
    """The loss of every step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_step_end(self, trainer: Any) -> None:
        self.found.append(trainer.loss_value)


def logits(weights: dict[str, Any], tokens: Any, options: Any) -> Any:
    """The model as PyTorch would be told it, with the weights under the names of the checkpoint: (B, T, letters)."""

    def norm(name: str, x: Any) -> Any:
        return functional.layer_norm(x, (options.width,), weights[f"transformer.{name}.weight"])

    def times(x: Any, name: str) -> Any:
        return x @ weights[f"transformer.{name}.weight"]

    batch, length = tokens.shape
    x = weights["transformer.wte.weight"][tokens] + weights["transformer.wpe.weight"][:length]
    for i in range(options.layers):
        joint = times(norm(f"h.{i}.ln_1", x), f"h.{i}.attn.c_attn").view(batch, length, 3, options.heads, -1)
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + times(seen.transpose(1, 2).reshape(batch, length, -1), f"h.{i}.attn.c_proj")
        inner = functional.gelu(times(norm(f"h.{i}.ln_2", x), f"h.{i}.mlp.c_fc"), approximate="tanh")
        x = x + times(inner, f"h.{i}.mlp.c_proj")
    return norm("ln_f", x) @ weights["transformer.wte.weight"].T


def torch_loss(weights: dict[str, Any], batch: Any, options: Any, reduction: str = "mean") -> Any:
    tokens, labels = (torch.from_numpy(array.numpy().copy()) for array in batch)
    return functional.cross_entropy(
        logits(weights, tokens, options).flatten(0, 1), labels.flatten(), reduction=reduction
    )


def rate(step: int, options: Any) -> float:
    """The learning rate of a step, counted from 0."""
    rising = min(example.WARM_UP, options.steps - 1)
    if step < rising:
        return options.lr * step / rising
    share = (step - rising) / (options.steps - rising)
    return options.lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share)))


def train_torch(weights: dict[str, Any], batches: Any, steps: int, options: Any) -> list[float]:
    """Train the weights in place; gives the loss of every step."""
    scales = [w for w in weights.values() if w.ndim == 1]
    matrices = [w for w in weights.values() if w.ndim > 1]
    groups = [{"params": matrices, "weight_decay": example.WEIGHT_DECAY}, {"params": scales, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=example.BETAS)
    losses = []
    for step, batch in zip(range(steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, options)
        loss = torch_loss(weights, batch, options)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), example.CLIP)
        optimizer.step()
        losses.append(loss.item())
    return losses


def compared(steps: int, options: Any) -> tuple[example.Text, Any, list[float], dict[str, Any], list[float]]:
    """The text; our trainer and losses; PyTorch's weights and losses."""
    torch.set_num_threads(1)
    rg.manual_seed(options.seed)
    text = example.read(options)
    model = example.new_model(text.tokenizer, options)
    # A tied weight is there under both names; the parameters have it once.
    weights = {name: torch.from_numpy(p.numpy().copy()).requires_grad_(True) for name, p in model.named_parameters()}
    losses = Losses()
    trainer = example.new_trainer(model, options, [losses])
    trainer.fit(text.train, steps=steps)
    return text, trainer, losses.found, weights, train_torch(weights, example.read(options).train, steps, options)


def test_the_first_losses_agree(tmp_path: Path):
    letters = np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyz \n"), 12_000)
    (tmp_path / "text").write_text("".join(letters))
    options = example.parse(["--data", str(tmp_path / "text"), "--out", str(tmp_path / "out")])
    _, _, ours, _, theirs = compared(FIRST, options)
    assert len(ours) == FIRST
    np.testing.assert_allclose(ours, theirs, atol=CLOSE, rtol=0)


@pytest.mark.slow
def test_the_last_losses_agree(tmp_path: Path, data_folder: Any):
    steps = int(os.environ.get("RETROGRAD_GPT_STEPS", "0"))
    if not steps:
        pytest.skip("takes many minutes: RETROGRAD_GPT_STEPS=2000 asks for it")
    data = data_folder("text/tinyshakespeare.txt")
    options = example.parse(["--data", str(data), "--out", str(tmp_path), "--steps", str(steps)])
    text, trainer, ours, weights, theirs = compared(steps, options)
    end = trainer.evaluate(text.validation)["loss"]
    with torch.no_grad():
        parts = [torch_loss(weights, batch, options, "sum").item() for batch in text.validation]
    their_end = sum(parts) / (len(text.validation.dataset.tokens) - 1)
    apart = np.abs(np.subtract(ours, theirs))
    sys.stdout.write(
        f"\nlosses at most {apart[:FIRST].max():.1e} apart in {FIRST} steps, {apart[:200].max():.1e} in 200; "
        f"validation loss after {steps} steps {end:.4f}, PyTorch {their_end:.4f}\n"
    )
    np.testing.assert_allclose(ours[:FIRST], theirs[:FIRST], atol=CLOSE, rtol=0)
    assert abs(end - their_end) < AT_THE_END
