# pyright: reportUnnecessaryTypeIgnoreComment=error
"""What a type checker knows of retrograd: a user's program in which pyright must find the types that are asserted.

CI checks it against the installed package and runs it too. In `mistakes`, which never runs, pyright must find one
error in every marked line: a mark that is not needed is an error itself.
"""

from typing import Any, assert_type

import numpy as np
import retrograd as rg
from retrograd import Tensor, nn, optim
from retrograd.models import GPT2Config, GPT2LMHeadModel, generate
from retrograd.nn import functional as F


def tensors() -> None:
    """Making tensors, their attributes, and the ways out."""
    x = rg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    assert_type(x, Tensor)
    assert_type(rg.zeros(2, 3, dtype="float64"), Tensor)
    assert_type(rg.zeros((2, 3)), Tensor)
    assert_type(rg.arange(3), Tensor)
    assert_type(rg.rand(2, 3, generator=rg.Generator(0)), Tensor)
    assert_type(x.shape, tuple[int, ...])
    assert_type(x.grad, Tensor | None)
    assert_type(x.numpy(), np.ndarray)
    assert_type(x.astype(np.float64).to("numpy").detach().float(), Tensor)
    assert_type(float(x.detach().sum()), float)
    assert_type(list(x), list[Tensor])


def operators() -> None:
    """Operators with tensors, numbers and lists on either side."""
    x = rg.tensor([1.0, 2.0])
    assert_type(x + 1, Tensor)
    assert_type(1 - x, Tensor)
    assert_type(2 / x**2 @ x, Tensor)
    assert_type([1.0, 2.0] - x, Tensor)
    assert_type(-abs(x), Tensor)
    assert_type(x == 1, Tensor)
    assert_type((x < 2) & ~(x != 1), Tensor)
    assert_type(x[..., None], Tensor)
    assert_type(x.at[0].set(3.0), Tensor)
    x += 1
    assert_type(x, Tensor)
    x[0] = 5
    assert_type(x.add_(1, alpha=2).zero_(), Tensor)


def operations() -> None:
    """Functions and methods that come from records, with their attributes."""
    x = rg.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert_type(rg.exp(x), Tensor)
    assert_type(rg.maximum(x, 0.0), Tensor)
    assert_type(rg.sum(x, axis=(0, 1), keepdims=True), Tensor)
    assert_type(x.mean(axis=0).max(), Tensor)
    assert_type(x.reshape(4).reshape((2, 2)).transpose(1, 0), Tensor)
    assert_type(rg.split(x, 2), tuple[Tensor, ...])
    assert_type(x.unstack(axis=1), tuple[Tensor, ...])
    assert_type(rg.concat([x, x], axis=1), Tensor)
    assert_type(rg.concatenate([x, x]), Tensor)
    assert_type(rg.where(x > 2, x, 0.0), Tensor)
    assert_type(rg.clip(x, min=0).softmax(axis=-1), Tensor)
    assert_type(rg.einsum("ij,jk->ik", x, x), Tensor)
    assert_type(rg.cross_entropy(x, [0, 1], label_smoothing=0.1), Tensor)


@rg.no_grad()
def frozen(x: Tensor) -> Tensor:
    """A decorated function keeps its signature."""
    return x * 2


def gradients() -> None:
    """Both faces of the walk."""
    w = rg.tensor([1.0, 2.0], requires_grad=True)
    (w * w).sum().backward()
    with rg.no_grad(), rg.use_backend("numpy"):
        assert_type(frozen(w), Tensor)
    assert_type(rg.grad(lambda v: (v * v).sum())(w), Any)
    assert_type(rg.is_grad_enabled(), bool)


def training() -> None:
    """A step of a small network."""
    rg.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss = F.cross_entropy(model(rg.ones(4, 2)), rg.tensor([0, 1, 0, 1]))
    assert_type(loss, Tensor)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    assert_type(rg.nn.Linear(2, 3), nn.Linear)
    assert_type(rg.optim.SGD, type[optim.SGD])


def texts() -> None:
    """What a tokenizer gives is what `generate` takes."""
    tokenizer = rg.data.CharTokenizer.from_text("to be or not")
    model = GPT2LMHeadModel(GPT2Config(vocab_size=7, n_positions=8, n_embd=4, n_layer=1, n_head=1))
    assert_type(tokenizer("to be")["input_ids"], np.ndarray)
    assert_type(generate(model, **tokenizer("to be"), max_new_tokens=2).tokens, list[list[int]])


def mistakes() -> None:
    """Calls that a type checker must refuse."""
    x = rg.tensor([1.0])
    rg.exp("text")  # pyright: ignore[reportArgumentType]
    rg.sum(x, dim=0)  # pyright: ignore[reportCallIssue]
    x.sum(axis="rows")  # pyright: ignore[reportArgumentType]
    x.no_such_method()  # pyright: ignore[reportAttributeAccessIssue]
    rg.no_such_function(x)  # pyright: ignore[reportAttributeAccessIssue]
    _ = x + "text"  # pyright: ignore[reportOperatorIssue]
    rg.maximum(x)  # pyright: ignore[reportCallIssue]


if __name__ == "__main__":
    for part in (tensors, operators, operations, gradients, training, texts):
        part()
