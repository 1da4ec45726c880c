"""Fixtures that the whole suite shares."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Callable[[str], Path]:
    """`data_folder("text/names.txt")` is the path of a data set below RETROGRAD_DATA; skips where it is not there."""
    root = os.environ.get("RETROGRAD_DATA")

    def find(name: str) -> Path:
        if not root:
            pytest.skip(f"{name}: RETROGRAD_DATA names no folder with data sets")
        path = Path(root).expanduser().resolve() / name
        if not path.exists():
            pytest.skip(f"{name} is not in RETROGRAD_DATA ({root})")
        return path

    return find


@pytest.fixture(scope="session")
def against_torch() -> Callable[..., None]:
    """`against_torch(ours, theirs, *arrays)`: the same values and the same gradients of all floating arrays."""
    import numpy as np
    import retrograd as rg

    torch = pytest.importorskip("torch")

    def compare(ours, theirs, *arrays, tolerance=1e-10):
        floating = [isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in arrays]
        given = [a if a is None else rg.tensor(a, requires_grad=f) for a, f in zip(arrays, floating, strict=True)]
        taken = [a if a is None else torch.tensor(a, requires_grad=f) for a, f in zip(arrays, floating, strict=True)]
        out, expected = ours(*given), theirs(*taken)
        weights = np.cos(np.arange(out.size) * 1.7).reshape(out.shape).astype(out.dtype)
        out.backward(rg.tensor(weights))
        expected.backward(torch.tensor(weights))
        pairs = [("value", out, expected)]
        pairs += [
            (f"gradient {i}", a.grad, b.grad) for i, (a, b) in enumerate(zip(given, taken, strict=True)) if floating[i]
        ]
        for what, a, b in pairs:
            b = b.detach().numpy()
            assert (a.shape, a.dtype) == (b.shape, b.dtype), what
            np.testing.assert_allclose(a.numpy(), b, rtol=tolerance, atol=tolerance, err_msg=what)

    return compare


@pytest.fixture(scope="session")
def bert() -> Callable[..., Any]:
    """`bert(BertForSequenceClassification, num_labels=3)`: two layers of width 16 from one seed, in eval mode."""
    import retrograd as rg

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    sizes |= {"vocab_size": 21, "max_position_embeddings": 12}

    def made(cls=rg.models.BertModel, **options):
        rg.manual_seed(0)
        return cls(rg.models.BertConfig.from_dict(sizes | options)).eval()

    return made


@pytest.fixture(scope="session")
def gpt2() -> Callable[..., Any]:
    """`gpt2(tie_word_embeddings=False)`: two layers of width 16 from one seed, in eval mode."""
    import retrograd as rg

    sizes = {"vocab_size": 21, "n_positions": 12, "n_embd": 16, "n_layer": 2, "n_head": 2}

    def made(cls=rg.models.GPT2LMHeadModel, **options):
        rg.manual_seed(0)
        return cls(rg.models.GPT2Config.from_dict(sizes | options)).eval()

    return made


@pytest.fixture(scope="session")
def Net() -> type:
    """A Module of three parts and five parameters, the middle part with two buffers, one of which is not saved."""
    import retrograd as rg
    from retrograd import nn

    class Scale(nn.Module):
        def __init__(self, n):
            super().__init__()
            self.register_buffer("calls", rg.tensor(0))
            self.register_buffer("scratch", rg.zeros(n), persistent=False)
            self.weight = nn.Parameter(rg.ones(n))

        def forward(self, x):
            return x * self.weight

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = nn.Linear(4, 8)
            self.norm = Scale(8)
            self.out = nn.Linear(8, 2)

        def forward(self, x):
            return self.out(self.norm(self.hidden(x)))

    return Net
