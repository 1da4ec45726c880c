"""What a program tells: its state, its inputs, the names in them, and a file that reads well; asking changes nothing.

That the file does what the program does, to the last bit, is in test_program_source.py.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import retrograd as rg

pytestmark = pytest.mark.skipif(
    os.environ.get("RETROGRAD_BACKEND", "numpy") != "numpy", reason="the file is one for NumPy"
)
F = rg.nn.functional


def trained():
    """A step that draws, steps a schedule and has been replayed once; and what draws its next arguments."""
    rng = np.random.default_rng(0)
    rg.manual_seed(0)
    model = rg.nn.Sequential(rg.nn.Linear(6, 8), rg.nn.Dropout(0.5), rg.nn.Tanh(), rg.nn.Linear(8, 3))
    optimizer = rg.optim.Adam(model.parameters(), lr=1e-2)
    schedule = rg.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=40)

    @rg.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss

    def draw():
        return rg.tensor(rng.standard_normal((4, 6)).astype(np.float32)), rg.tensor(rng.integers(0, 3, 4))

    for _ in range(4):
        step(*draw())
    return step, draw


def test_on_the_tier_that_is_there_the_file_gives_nearly_the_same():
    compiled, draw = trained()
    program, batch = compiled.program, draw()
    state, names = program.state(), {}
    exec(program.source(), names)
    loss = names["step"](state, program.inputs(*batch))
    np.testing.assert_allclose(loss, compiled(*batch).numpy(), rtol=1e-4)
    for name, array in program.state().items():
        np.testing.assert_allclose(state[name], array, rtol=1e-3, atol=1e-5, err_msg=name)


def test_asking_changes_nothing():
    compiled, draw = trained()
    before, stream = compiled.program.state(), rg.default_generator().state()
    batch = draw()
    first, text = compiled.program.inputs(*batch), compiled.program.source()
    assert rg.default_generator().state() == stream
    assert {"x", "y", "random.0"} < set(first)
    for found in (compiled.program.inputs(*batch), compiled.program.inputs(*[t.numpy() for t in batch])):
        assert all(np.array_equal(found[name], array) for name, array in first.items())
    assert all(np.array_equal(compiled.program.state()[name], array) for name, array in before.items())
    compiled(*batch)
    assert any(not np.array_equal(compiled.program.inputs(*batch)[name], first[name]) for name in first if "." in name)
    assert compiled.program.source() == text


def test_names_are_those_of_modules_optimizers_and_variables():
    compiled, _ = trained()
    names = set(compiled.program.state())
    assert {"0.weight", "0.bias", "0.weight/exp_avg", "3.bias/exp_avg_sq", "3.weight/grad"} <= names
    table = rg.tensor([1.0, 2.0])
    looked_up = rg.compile(lambda i: table[i] * 2)
    for i in range(4):
        looked_up(rg.tensor(i % 2))
    assert set(looked_up.program.state()) == {"table"}
    assert set(looked_up.program.inputs(rg.tensor(1))) == {"i"}


def test_the_file_reads_well():
    compiled, _ = trained()
    text = compiled.program.source()
    assert max(map(len, text.splitlines())) <= 160
    assert "# Linear 0 · test_program_inputs.py" in text
    assert "\n    np.matmul(x, _0_weight.T, out=b0)\n" in text
    assert "retrograd" not in text.split('"""', 2)[2]


def test_labels_out_of_bounds_are_an_error_in_the_file_too():
    compiled, draw = trained()
    names = {}
    exec(compiled.program.source(), names)
    x, _ = draw()
    with pytest.raises(IndexError, match="got 7"):
        names["step"](compiled.program.state(), compiled.program.inputs(x, rg.tensor([0, 7, 1, 2])))


def test_what_cannot_be_asked():
    compiled, draw = trained()
    with pytest.raises(ValueError, match=r"float32 \(4, 6\), int64 \(4,\); got float32 \(4, 6\)$"):
        compiled.program.inputs(draw()[0])
    with rg.use_backend("strict"):
        doubled = rg.compile(lambda x: x * 2)
        for _ in range(4):
            doubled(rg.ones(2))
        with pytest.raises(TypeError, match="'strict'"):
            doubled.program.source()
    w = rg.ones(2)
    scaled = rg.compile(lambda x: x * w)
    for _ in range(4):
        scaled(rg.ones(2))
    w.array = w.array.copy()
    with pytest.raises(RuntimeError, match="replaced"):
        scaled.program.source()


def test_a_file_of_a_program_beside_one_that_trains():
    model = rg.nn.Sequential(rg.nn.Linear(6, 8), rg.nn.Tanh(), rg.nn.Linear(8, 3))
    optimizer = rg.optim.AdamW(model.parameters(), lr=1e-2)

    @rg.compile
    def train(x):
        optimizer.zero_grad()
        (model(x) ** 2).sum().backward()
        optimizer.step()

    predict = rg.compile(lambda x: model(x))
    for _ in range(9):
        x = rg.randn(4, 6)
        train(x)
        predict(x)
    names = {}
    exec(predict.program.source(), names)  # the parameters are pieces of a flat array that this program does not know
    found = names["step"](predict.program.state(), predict.program.inputs(x))
    np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_file_of_a_program_that_changes_its_arguments():
    @rg.compile
    def f(cache, x, w):
        cache.add_(x)
        (cache * w).sum().backward()
        return cache * 1

    cache, w = rg.zeros(3), rg.tensor([2.0, 3.0, 4.0], requires_grad=True)
    for i in range(5):
        f(cache, rg.ones(3) * i, w)
    names = {}
    exec(f.program.source(), names)
    found = names["step"](f.program.state(), f.program.inputs(cache, rg.ones(3), w))
    assert found.tolist() == f(cache, rg.ones(3), w).tolist() == [11.0] * 3
    assert w.grad.tolist() == [0 + 1 + 3 + 6 + 10 + 11.0] * 3


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (({"x": np.ones(2)}, 3.0), "recorded with float 2.0, got float 3.0"),
        (({"x": np.ones(2)}, 2), "recorded with float 2.0, got int 2"),
        (({"z": np.ones(2)}, 2.0), "recorded with dict x, got dict z"),
        ((2.0, {"x": np.ones(2)}), "recorded with dict x, got float 2.0"),
        (({"x": np.ones(3)}, 2.0), r"takes arrays float64 \(2,\); got float64 \(3,\)"),
    ],
)
def test_inputs_of_another_signature_are_refused(args, match):
    f = rg.compile(lambda batch, scale: batch["x"] * scale)
    for _ in range(4):
        f({"x": np.ones(2)}, 2.0)
    assert list(f.program.inputs({"x": np.ones(2)}, 2.0)) == ["batch.x"]
    with pytest.raises(ValueError, match=match):
        f.program.inputs(*args)


@pytest.mark.parametrize("shape", [(40, 40), (3, 2000)])
def test_constants_that_are_one_number_or_row_again_and_again(shape):
    row = np.arange(shape[1], dtype=np.float32)
    repeated = rg.compile(lambda x: (rg.broadcast_to(rg.tensor(row) + 1.0, shape) * x, rg.ones(shape) * x))
    x = np.full(shape, 2, np.float32)
    for _ in range(4):
        results = repeated(x)
    names = {}
    exec(repeated.program.source(), names)
    found = names["step"](repeated.program.state(), repeated.program.inputs(x))
    for one, other in zip(found, results, strict=True):
        np.testing.assert_array_equal(one, other.numpy())
