"""Whole small programs as users write them, and the mistakes of programs in print: one error each, with the mend."""

from __future__ import annotations

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn, optim
from retrograd.nn import functional as F

RNG = np.random.default_rng(0)


def scores(classes: int) -> rg.Tensor:
    """What a net of that many outputs gives for four samples."""
    return nn.Sequential(nn.Linear(100, 16), nn.ReLU(), nn.Linear(16, classes))(rg.zeros((4, 100)))


IMAGES = rg.zeros((4, 28, 28))
MISTAKES = {
    "forward pass outside the tape": (
        lambda: rg.mean(rg.zeros((4, 10))).backward(),
        RuntimeError,
        r"no graph.*requires_grad=True on the parameters",
    ),
    "plain arrays given to an optimizer": (
        lambda: optim.Adam([np.zeros((2, 2))]),
        TypeError,
        r"got ndarray \(2, 2\) of float64 at position 0.*rg.nn.Parameter",
    ),
    "ten classes meet 250 outputs": (
        lambda: F.cross_entropy(scores(250), F.one_hot(rg.tensor([0, 1, 2, 9]), 10).float()),
        ValueError,
        r"probabilities \(or one-hot rows\) of 250 classes.*got \(4, 10\)",
    ),
    "a layer taken out between two others": (
        lambda: nn.Sequential(nn.Linear(100, 500), nn.ReLU(), nn.Linear(250, 10))(rg.zeros((4, 100))),
        ValueError,
        r"2 \(Linear\): expected in_features=250.*\(4, 500\)",
    ),
    "a label that no class has": (
        lambda: F.cross_entropy(scores(10), rg.tensor([0, 1, 2, 10])),
        IndexError,
        r"a label for 10 classes must lie in 0…9, got 10",
    ),
    "one-hot rows as integers": (
        lambda: F.cross_entropy(scores(10), F.one_hot(rg.tensor([0, 1, 2, 9]), 10)),
        ValueError,
        r"One-hot rows must be floats",
    ),
    "images without flatten": (
        lambda: nn.Sequential(nn.Linear(784, 128))(IMAGES),
        ValueError,
        r"0 \(Linear\): expected in_features=784.*put nn.Flatten\(\) in front",
    ),
    "images without a channel axis": (
        lambda: nn.Sequential(nn.Conv2d(1, 32, 3))(IMAGES),
        ValueError,
        r"0 \(Conv2d\).*x.reshape\(4, 1, 28, 28\)",
    ),
    "bytes where a layer multiplies": (
        lambda: nn.Linear(4, 2)(rg.zeros((2, 4), dtype="uint8")),
        TypeError,
        r"expected float32.*x.astype\('float32'\) / 255",
    ),
    "a sequence in front of a head for one score": (
        lambda: F.binary_cross_entropy_with_logits(nn.Linear(8, 1)(rg.zeros((4, 12, 8))), rg.zeros((4, 1))),
        ValueError,
        r"prediction \(4, 12, 1\) and target \(4, 1\) must have the same shape",
    ),
    "an attribute that the model lacks": (
        lambda: nn.Sequential(nn.Linear(2, 2)).bert,
        AttributeError,
        r"Sequential has no attribute 'bert'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_print_is_one_error_that_says_what_to_change(mistake):
    program, error, said = MISTAKES[mistake]
    with pytest.raises(error, match=said) as caught:
        program()
    assert "\n" not in str(caught.value)


def test_a_base_that_was_never_connected_is_named_by_the_gradient_report():
    model = nn.Module()
    model.base, model.head = nn.Linear(3, 3), nn.Linear(3, 1)
    model.head(rg.ones((2, 3))).sum().backward()
    assert "no gradient reached base.weight, base.bias" in str(model.gradient_report())


def test_three_layers_by_hand_and_by_grad():
    x, t = RNG.normal(size=(8, 4)), RNG.normal(size=(8, 2))
    weights = [RNG.normal(size=s) for s in ((4, 5), (5, 3), (3, 2))]
    biases = [RNG.normal(size=n) for n in (5, 3, 2)]

    def forward(parameters):
        layers = [x]
        for w, b in zip(*parameters, strict=True):
            layers.append(1 / (1 + np.exp(-(np.dot(layers[-1], w) + b))))
        return layers

    def loss(parameters):
        return 0.5 * np.mean(np.sum((forward(parameters)[-1] - t) ** 2, axis=1))

    gw, gb = rg.grad(loss)((weights, biases))

    layers = forward((weights, biases))
    delta = (layers[-1] - t) / len(x) * layers[-1] * (1 - layers[-1])
    for i in (2, 1, 0):
        assert type(gw[i]) is np.ndarray
        np.testing.assert_allclose(gw[i], layers[i].T @ delta, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(gb[i], delta.sum(axis=0), rtol=1e-12, atol=1e-15)
        delta = delta @ weights[i].T * layers[i] * (1 - layers[i])


def test_a_loop_over_plain_arrays_learns():
    x = RNG.normal(size=(200, 10))
    y = x @ RNG.normal(size=(10, 3))
    w = {"in": RNG.normal(size=(10, 32)) * np.sqrt(2 / 10), "out": RNG.normal(size=(32, 3)) * np.sqrt(2 / 32)}
    step = rg.value_and_grad(lambda w: np.mean((np.maximum(x @ w["in"], 0) @ w["out"] - y) ** 2))
    losses = []
    for _ in range(100):
        loss, g = step(w)
        losses.append(loss.item())
        for name in w:
            w[name] -= 0.05 * g[name]
    assert losses[-1] < 0.2 * losses[0]


def test_transfer_frozen_base_then_unfrozen_at_a_lower_rate():
    rg.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(base, nn.Linear(4, 2))
    base.freeze()
    optimizer = optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = [p.numpy().copy() for p in base.parameters()]

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(rg.rand(4, 3, 8, 8)), rg.tensor([0, 1, 0, 1])).backward()
        optimizer.step()

    step()
    assert all(np.array_equal(b, p.numpy()) for b, p in zip(before, base.parameters(), strict=True))
    model.unfreeze()
    optimizer.add_param_group({"params": list(base.parameters()), "lr": 1e-5})
    step()
    moved = [abs(b - p.numpy()).max() for b, p in zip(before, base.parameters(), strict=True)]
    assert all(0 < m < 1e-4 for m in moved)


def test_training_goes_on_from_files_as_if_it_had_not_stopped(tmp_path):
    x, y = rg.tensor(RNG.normal(size=(16, 3)).astype("float32")), rg.tensor(RNG.integers(0, 2, 16))

    def fresh():
        rg.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        optimizer = optim.AdamW(model.named_parameters(), lr=0.1)
        return model, optimizer, optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)

    def train(model, optimizer, schedule, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()

    whole = fresh()
    train(*whole, 6)

    model, optimizer, schedule = fresh()
    train(model, optimizer, schedule, 3)
    rg.save(model.state_dict(), tmp_path / "model.safetensors")
    tensors, metadata = optimizer.to_arrays()
    rg.save(tensors, tmp_path / "optimizer.safetensors", metadata)
    place = schedule.state_dict()

    model, optimizer, schedule = fresh()
    model.load_state_dict(rg.load(tmp_path / "model.safetensors"))
    path = tmp_path / "optimizer.safetensors"
    optimizer.from_arrays(rg.load(path), rg.load_metadata(path))
    schedule.load_state_dict(place)
    train(model, optimizer, schedule, 3)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), whole[0].state_dict()[name].numpy(), err_msg=name)


ATTENTION = """
class Attention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d, bias=False)  # the gradient of a bias of the keys is 0 but for rounding
        self.proj = nn.Linear(d, d)
        self.register_buffer("mask", T.tril(T.ones(8, 8)).view(1, 1, 8, 8))

    def forward(self, x):
        B, L, D = x.shape
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k, v = (t.view(B, L, self.heads, D // self.heads).permute(0, 2, 1, 3) for t in (q, k, v))
        scores = q @ k.swapaxes(-2, -1) / (D // self.heads) ** 0.5
        weights = F.softmax(scores.masked_fill(self.mask[:, :, :L, :L].eq(0), float("-inf")), dim=-1)
        return self.proj((weights @ v).permute(0, 2, 1, 3).contiguous().view(B, L, D))

model = Attention(8, 2)
model.load_state_dict({k: T.tensor(draw(k, v)) for k, v in model.state_dict().items()})
optimizer = optim.AdamW([
    {"params": [p for n, p in model.named_parameters() if n.endswith("weight")], "weight_decay": 0.1},
    {"params": [p for n, p in model.named_parameters() if n.endswith("bias")], "lr": 0.02},
], lr=0.01)
schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=[0.05, 0.1], total_steps=6)
for step in range(6):
    for part in T.tensor(data).chunk(2):
        loss = F.mse_loss(model(part[:, :-1]), part[:, 1:]) / 2
        loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    optimizer.zero_grad()
    schedule.step()
    results += [loss.item(), norm.item(), *schedule.get_last_lr()]
results += [p.detach().clone().sum().item() for p in model.parameters()]
"""


@pytest.mark.parity
def test_one_program_for_both_libraries_gives_the_same_numbers():
    torch = pytest.importorskip("torch")
    data = RNG.normal(size=(4, 6, 8)).astype(np.float32)

    def draw(name, like):
        shape = tuple(like.shape)
        drawn = np.random.default_rng(len(name)).normal(size=shape).astype(np.float32)
        return np.tril(np.ones(shape, np.float32)) if name == "mask" else drawn * 0.3

    found = []
    for library in (torch, rg):
        names = {"T": library, "nn": library.nn, "F": library.nn.functional, "optim": library.optim}
        names |= {"data": data, "draw": draw, "results": []}
        exec(ATTENTION, names)
        found.append(names["results"])
    np.testing.assert_allclose(found[1], found[0], rtol=2e-4, atol=2e-5)
