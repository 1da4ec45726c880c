"""Layers and losses against PyTorch: names, shapes, reprs, values, gradients, ten steps of training."""

import numpy as np
import pytest
import retrograd as rg
from retrograd import nn

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

# layer, arguments, options, input shape
LAYERS = [
    ("Linear", (5, 3), {}, (4, 5)),
    ("Linear", (5, 3), {"bias": False}, (2, 4, 5)),
    ("Linear", (5, 3), {}, (5,)),
    ("Conv2d", (3, 4, 3), {}, (2, 3, 8, 7)),
    ("Conv2d", (3, 4, (3, 2)), {"stride": 2, "padding": (2, 1), "bias": False}, (2, 3, 8, 7)),
    ("Conv2d", (4, 6, 3), {"groups": 2, "dilation": 2}, (2, 4, 9, 9)),
    ("Conv2d", (3, 3, 3), {"padding": "same", "dilation": (1, 2), "groups": 3}, (2, 3, 6, 6)),
    ("Conv2d", (2, 3, 3), {"padding": 1, "padding_mode": "reflect"}, (2, 2, 6, 5)),
    ("Conv2d", (2, 3, (2, 3)), {"padding": "same", "padding_mode": "circular"}, (2, 2, 6, 5)),
    ("Conv2d", (2, 3, 3), {"padding": (2, 1), "padding_mode": "replicate"}, (2, 6, 5)),
    ("Conv1d", (3, 4, 3), {"stride": 2, "padding": 1}, (2, 3, 9)),
    ("Conv1d", (2, 4, 3), {"groups": 2, "dilation": 2}, (2, 9)),
    ("MaxPool2d", (2,), {}, (2, 3, 7, 8)),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 8, 7)),
    ("MaxPool2d", ((2, 3),), {"stride": 1, "dilation": (1, 2)}, (3, 8, 7)),
    ("AvgPool2d", (2,), {}, (2, 3, 7, 8)),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False}, (2, 3, 8, 7)),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 8, 8)),
    ("AvgPool2d", (2,), {"divisor_override": 3}, (2, 3, 8, 8)),
    ("AdaptiveAvgPool2d", ((1, 1),), {}, (2, 3, 8, 7)),
    ("AdaptiveAvgPool2d", (3,), {}, (2, 3, 8, 7)),
    ("AdaptiveAvgPool2d", ((2, None),), {}, (3, 7, 5)),
    ("Flatten", (), {}, (2, 3, 4)),
    ("Flatten", (0, 1), {}, (2, 3, 4)),
    ("Unflatten", (1, (2, 3)), {}, (2, 6, 4)),
    ("LayerNorm", (4,), {}, (2, 3, 4)),
    ("LayerNorm", ((3, 4),), {"eps": 1e-2, "bias": False}, (2, 3, 4)),
    ("LayerNorm", (4,), {"elementwise_affine": False}, (2, 3, 4)),
    ("RMSNorm", (4,), {}, (2, 3, 4)),
    ("RMSNorm", ((3, 4),), {"eps": 1e-2}, (2, 3, 4)),
    ("GroupNorm", (2, 6), {}, (2, 6, 3, 4)),
    ("GroupNorm", (3, 6), {"affine": False, "eps": 1e-2}, (2, 6)),
    ("BatchNorm1d", (4,), {}, (5, 4)),
    ("BatchNorm1d", (4,), {"momentum": None, "eps": 1e-2}, (5, 4, 3)),
    ("BatchNorm1d", (4,), {"affine": False, "track_running_stats": False}, (5, 4)),
    ("BatchNorm2d", (4,), {"momentum": 0.3}, (3, 4, 5, 2)),
    ("ReLU", (), {}, (3, 4)),
    ("ReLU", (), {"inplace": True}, (3, 4)),
    ("LeakyReLU", (0.2,), {}, (3, 4)),
    ("ELU", (0.7,), {}, (3, 4)),
    ("GELU", (), {}, (3, 4)),
    ("GELU", (), {"approximate": "tanh"}, (3, 4)),
    ("SiLU", (), {}, (3, 4)),
    ("Sigmoid", (), {}, (3, 4)),
    ("Tanh", (), {}, (3, 4)),
    ("Softplus", (), {"beta": 2.0, "threshold": 1.0}, (3, 4)),
    ("ReLU6", (), {}, (3, 4)),
    ("Hardtanh", (-0.5, 0.3), {}, (3, 4)),
    ("LogSigmoid", (), {}, (3, 4)),
    ("Softmax", (), {"dim": 0}, (3, 4)),
    ("LogSoftmax", (), {"dim": 1}, (3, 4, 2)),
    ("Identity", (), {}, (3, 4)),
]


def pair(name, arguments, options):
    """The layer and torch's, in double precision and with the same state, loaded by name."""
    rg.manual_seed(1)
    ours, theirs = (
        getattr(nn, name)(*arguments, **options).double(),
        getattr(torch.nn, name)(*arguments, **options).double(),
    )
    rng = np.random.default_rng(2)
    for p in ours.parameters():
        p.data = rng.normal(size=p.shape)
    theirs.load_state_dict({n: torch.tensor(t.numpy()) for n, t in ours.state_dict().items()})
    return ours, theirs


def close(ours, theirs, tolerance=1e-10):
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "arguments", "options", "shape"), LAYERS)
def test_layers(name, arguments, options, shape):
    ours, theirs = pair(name, arguments, options)
    assert repr(ours) == repr(theirs)
    rng = np.random.default_rng(3)
    for mode in (True, True, False):  # twice in training: running averages move
        ours.train(mode), theirs.train(mode)
        values = rng.normal(size=shape)
        x, y = rg.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
        # what an inplace layer overwrites must not be a leaf
        out, expected = ours(x), theirs(y * 1.0)
        close(out, expected)
        seed = rng.normal(size=out.shape)
        ours.zero_grad(), theirs.zero_grad()
        out.backward(rg.tensor(seed))
        expected.backward(torch.tensor(seed))
        close(x.grad, y.grad)
        for (label, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            assert label == other
            close(p.grad, q.grad)
        for (label, b), (other, c) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
            assert label == other
            close(b, c)


def test_embedding():
    for padding in (None, 2):
        ours, theirs = pair("Embedding", (6, 3), {"padding_idx": padding})
        assert repr(ours) == repr(theirs)
        indices = np.array([[0, 2], [5, 2]])
        out, expected = ours(rg.tensor(indices)), theirs(torch.tensor(indices))
        close(out, expected)
        rg.sum(out * out).backward()
        (expected * expected).sum().backward()
        close(ours.weight.grad, theirs.weight.grad)


def test_bilinear():
    ours, theirs = pair("Bilinear", (3, 4, 2), {})
    assert repr(ours) == repr(theirs)
    rng = np.random.default_rng(9)
    given = [rng.normal(size=shape) for shape in ((5, 3), (5, 4))]
    out, expected = ours(*map(rg.tensor, given)), theirs(*map(torch.tensor, given))
    close(out, expected)
    rg.sum(out * out).backward()
    (expected * expected).sum().backward()
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        close(one.grad, two.grad)


@pytest.mark.parametrize(("causal", "mask"), [(False, None), (True, None), (False, "bool"), (False, "float")])
def test_attention(causal, mask):
    rng = np.random.default_rng(8)
    given = [rng.normal(size=shape) for shape in ((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 2))]
    masks = {None: None, "bool": rng.random((5, 6)) > 0.3, "float": rng.normal(size=(5, 6))}
    ours = [rg.tensor(v, requires_grad=True) for v in given]
    theirs = [torch.tensor(v, requires_grad=True) for v in given]
    m, t = (None, None) if mask is None else (rg.tensor(masks[mask]), torch.tensor(masks[mask]))
    out = nn.functional.scaled_dot_product_attention(*ours, m, is_causal=causal, scale=0.7)
    expected = torch.nn.functional.scaled_dot_product_attention(*theirs, t, is_causal=causal, scale=0.7)
    close(out, expected)
    rg.sum(out * out).backward()
    (expected * expected).sum().backward()
    for one, two in zip(ours, theirs, strict=True):
        close(one.grad, two.grad)


RNG = np.random.default_rng(4)
SCORES, ROWS = RNG.normal(size=(5, 4)), RNG.dirichlet(np.ones(4), size=5)
LABELS = np.array([0, 3, 1, -100, 2])
VOLUME, VOXELS = RNG.normal(size=(2, 4, 3, 2)), RNG.integers(0, 4, size=(2, 3, 2))
WEIGHT = np.array([0.5, 1.0, 2.0, 0.1])
PLAIN, OTHER, SHARE = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4)), RNG.random((3, 4))

# loss, options (arrays become tensors), prediction, target
LOSSES = [
    ("MSELoss", {}, PLAIN, OTHER),
    ("L1Loss", {}, PLAIN, OTHER),
    ("HuberLoss", {"delta": 0.7}, PLAIN, OTHER),
    ("SmoothL1Loss", {"beta": 0.7}, PLAIN, OTHER),
    ("SmoothL1Loss", {"beta": 0.0}, PLAIN, OTHER),
    ("BCELoss", {}, SHARE, np.round(SHARE[::-1].copy())),
    ("BCELoss", {"weight": WEIGHT}, SHARE, SHARE[::-1].copy()),
    ("BCEWithLogitsLoss", {}, PLAIN, SHARE),
    ("BCEWithLogitsLoss", {"pos_weight": WEIGHT}, PLAIN * 20, np.round(SHARE)),
    ("BCEWithLogitsLoss", {"weight": WEIGHT, "pos_weight": WEIGHT}, PLAIN, SHARE),
    ("CrossEntropyLoss", {}, SCORES, LABELS),
    ("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1}, SCORES, LABELS),
    ("CrossEntropyLoss", {"ignore_index": 3}, SCORES, np.abs(LABELS) % 4),
    ("CrossEntropyLoss", {}, SCORES, np.full_like(LABELS, -100)),
    ("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1}, SCORES, np.full_like(LABELS, -100)),
    ("NLLLoss", {}, SCORES, np.full_like(LABELS, -100)),
    ("NLLLoss", {"weight": WEIGHT}, SCORES, np.full_like(LABELS, -100)),
    ("CrossEntropyLoss", {"label_smoothing": 0.2}, SCORES, ROWS),
    ("CrossEntropyLoss", {"weight": WEIGHT}, SCORES, ROWS),
    ("CrossEntropyLoss", {"weight": WEIGHT}, VOLUME, VOXELS),
    ("CrossEntropyLoss", {}, SCORES[0], LABELS[1]),
    ("NLLLoss", {}, SCORES, LABELS),
    ("NLLLoss", {"weight": WEIGHT, "ignore_index": 0}, SCORES, np.abs(LABELS) % 4),
    ("NLLLoss", {"weight": WEIGHT}, VOLUME, VOXELS),
]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "options", "prediction", "target"), LOSSES)
@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")
def test_losses(name, options, prediction, target, reduction):
    def made(space, tensor):
        given = {k: tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        return getattr(space, name)(reduction=reduction, **given)

    x, y = rg.tensor(prediction, requires_grad=True), torch.tensor(prediction, requires_grad=True)
    out = made(nn, rg.tensor)(x, rg.tensor(target))
    expected = made(torch.nn, torch.tensor)(y, torch.tensor(target))
    close(out, expected)
    seed = np.random.default_rng(5).normal(size=out.shape)
    out.backward(rg.tensor(seed))
    expected.backward(torch.tensor(seed))
    close(x.grad, y.grad)


def mlp(space):
    return space.Sequential(space.Linear(6, 8), space.Tanh(), space.LayerNorm(8), space.Linear(8, 3))


def cnn(space):
    # no bias in front of the batch norm: its gradient is 0 but for rounding, which Adam makes steps of
    return space.Sequential(
        space.Conv2d(1, 4, 3, padding=1, bias=False), space.BatchNorm2d(4), space.ReLU(), space.MaxPool2d(2),
        space.Conv2d(4, 4, 3), space.GELU(), space.AdaptiveAvgPool2d((1, 1)), space.Flatten(), space.Linear(4, 3),
    )  # fmt: skip


TRAINED = [
    (mlp, (10, 6), "SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (mlp, (10, 6), "RMSprop", {"lr": 0.01}),
    (cnn, (6, 1, 9, 9), "Adam", {"lr": 0.01}),
    (cnn, (6, 1, 9, 9), "AdamW", {"lr": 0.01, "weight_decay": 0.1}),
]


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning")
@pytest.mark.parametrize(("model", "shape", "optimizer", "options"), TRAINED)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-3)])
def test_ten_steps_of_training(model, shape, optimizer, options, dtype, tolerance):
    rg.manual_seed(6)
    ours, theirs = model(nn).to(dtype), model(torch.nn).to(getattr(torch, dtype))
    theirs.load_state_dict({n: torch.tensor(t.numpy()) for n, t in ours.state_dict().items()})
    one = getattr(rg.optim, optimizer)(ours.parameters(), **options)
    two = getattr(torch.optim, optimizer)(theirs.parameters(), **options)
    first = rg.optim.lr_scheduler.CosineAnnealingLR(one, 10)
    second = torch.optim.lr_scheduler.CosineAnnealingLR(two, 10)
    rng = np.random.default_rng(7)
    for _ in range(10):
        x, labels = rng.normal(size=shape).astype(dtype), rng.integers(0, 3, shape[0])
        loss = nn.functional.cross_entropy(ours(rg.tensor(x)), rg.tensor(labels), label_smoothing=0.1)
        expected = torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(labels), label_smoothing=0.1)
        np.testing.assert_allclose(loss.item(), expected.item(), rtol=tolerance)
        one.zero_grad(), two.zero_grad()
        loss.backward()
        expected.backward()
        norm = rg.optim.clip_grad_norm_(ours.parameters(), 0.5)
        other = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        np.testing.assert_allclose(norm.item(), other.item(), rtol=tolerance)
        one.step(), two.step()
        first.step(), second.step()
    for name, tensor in ours.state_dict().items():
        close(tensor, theirs.state_dict()[name], tolerance)
    assert repr(ours) == repr(theirs)


def test_the_repr_of_nested_modules():
    def build(space):
        class Net(space.Module):
            def __init__(self):
                super().__init__()
                self.blocks = space.ModuleList([space.Sequential(space.Linear(2, 2), space.ReLU()) for _ in range(3)])
                self.blocks.append(space.Dropout(0.1))
                self.heads = space.ModuleDict({"a": space.Linear(2, 1), "b": space.Identity()})
                self.empty = space.ModuleList()

        return repr(Net())

    assert build(nn) == build(torch.nn)


@pytest.mark.parametrize("pad", [(-1, 0), (2, -1), (1, -2, -1, 2)])
def test_pad_takes_away_where_it_is_negative(pad):
    x = np.arange(20.0).reshape(4, 5)
    wanted = torch.nn.functional.pad(torch.tensor(x), pad, value=7.0)
    np.testing.assert_array_equal(nn.functional.pad(rg.tensor(x), pad, value=7.0).numpy(), wanted.numpy())
