"""A program's file of NumPy does what the program does, to the last bit, in a process that has no framework.

Two processes: one compiles every case on the tier `array` and writes its file, its state and inputs, and what two
replays gave; the other runs the files, and cannot import retrograd.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.record import REGISTRY
from retrograd.testing.record_case import cases as cases_of
from retrograd.testing.record_case import weights

pytestmark = pytest.mark.skipif(
    os.environ.get("RETROGRAD_BACKEND", "numpy") != "numpy", reason="the file is one for NumPy"
)
F = rg.nn.functional
RNG = np.random.default_rng(0)


def floats(*shape):
    return rg.tensor(RNG.standard_normal(shape).astype(np.float32))


def labels(high, *shape):
    return rg.tensor(RNG.integers(0, high, shape))


def training(model, optimizer, loss_of, clip=None, schedule=None, accumulate=False):
    def step(x, y):
        if not accumulate:
            optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        if clip:
            rg.optim.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        if schedule:
            schedule.step()
        return loss

    return step


def mlp(*extra, out=3):
    rg.manual_seed(0)
    return rg.nn.Sequential(rg.nn.Linear(6, 8), *extra, rg.nn.Tanh(), rg.nn.Linear(8, out))


def on_mlp(make, *extra, **options):
    def case():
        model = mlp(*extra)
        optimizer = make(model.parameters())
        if options.get("schedule"):
            schedule = rg.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=40)
            step = training(model, optimizer, F.cross_entropy, **{**options, "schedule": schedule})
        else:
            step = training(model, optimizer, F.cross_entropy, **options)
        return step, lambda: (floats(4, 6), labels(3, 4))

    return case


def wide():
    """Larger than a block, so that calls come in loops."""
    rg.manual_seed(0)
    model = rg.nn.Sequential(rg.nn.Linear(300, 400), rg.nn.LayerNorm(400), rg.nn.GELU(), rg.nn.Linear(400, 10))
    optimizer = rg.optim.AdamW(model.parameters())
    return training(model, optimizer, F.cross_entropy), lambda: (floats(200, 300), labels(10, 200))


def cnn():
    rg.manual_seed(0)
    model = rg.nn.Sequential(
        rg.nn.Conv2d(1, 4, 3, padding=1), rg.nn.BatchNorm2d(4), rg.nn.ReLU(), rg.nn.MaxPool2d(2), rg.nn.Flatten(),
        rg.nn.Linear(64, 5),
    )  # fmt: skip
    optimizer = rg.optim.Adam(model.parameters())
    return training(model, optimizer, F.cross_entropy), lambda: (floats(3, 1, 8, 8), labels(5, 3))


class Block(rg.nn.Module):
    """Attention and a wide layer, each around a residual connection; the last axis becomes scores of tokens."""

    def __init__(self, tokens=11, width=8):
        super().__init__()
        self.embedding = rg.nn.Embedding(tokens, width)
        self.first, self.second = rg.nn.LayerNorm(width), rg.nn.LayerNorm(width)
        self.mixed, self.out = rg.nn.Linear(width, 3 * width), rg.nn.Linear(width, width)
        self.wide, self.narrow = rg.nn.Linear(width, 4 * width), rg.nn.Linear(4 * width, width)
        self.dropout = rg.nn.Dropout(0.1)

    def forward(self, tokens):
        x = self.embedding(tokens)
        n, length, width = x.shape
        split = self.mixed(self.first(x)).reshape(n, length, 3, 2, width // 2).transpose(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(split[0], split[1], split[2], is_causal=True)
        x = x + self.dropout(self.out(seen.transpose(0, 2, 1, 3).reshape(n, length, width)))
        x = x + self.narrow(F.gelu(self.wide(self.second(x))))
        return x.reshape(n * length, width) @ self.embedding.weight.transpose(1, 0)


def gpt():
    rg.manual_seed(0)
    model = Block()
    optimizer = rg.optim.AdamW(model.named_parameters(), weight_decay=0.1)
    step = training(model, optimizer, lambda scores, y: F.cross_entropy(scores, y.reshape(-1)), clip=1.0)
    return step, lambda: (labels(11, 2, 5), labels(11, 2, 5))


def inference():
    model = mlp()
    model.eval()

    def predict(batch, scale, *, shift):
        with rg.no_grad():
            scores = model(batch["x"]) * scale
            return {"scores": scores, "best": [scores.argmax(axis=1), (scores + shift,)], "scale": scale}

    return predict, lambda: ({"x": floats(3, 6), "ids": labels(4, 3)}, 2, {"shift": floats(3)})


def written_at_a_place():
    cache = rg.zeros((5, 4))

    def step(row, place):
        with rg.no_grad():
            cache[place] = row * 2
        return cache[place] + 1, cache.sum()

    return step, lambda: (floats(4), labels(5))


def averaged():
    model = mlp()
    average = [rg.tensor(p.numpy()) for p in model.parameters()]
    inner = training(model, rg.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy)

    def step(x, y):
        loss = inner(x, y)
        with rg.no_grad():
            for a, p in zip(average, model.parameters(), strict=True):
                a.mul_(0.9).add_(p, alpha=0.1)
        return loss

    return step, lambda: (floats(4, 6), labels(3, 4))


def drawn():
    def draws(x):
        return rg.rand(3, 5), rg.randn(7) * x, rg.randn(2, dtype="float64"), rg.rand(3, 5)

    return draws, lambda: (floats(),)


def several():
    """Two modules, two optimizers, groups of their own rates, arguments by name, a module in eval mode."""
    rg.manual_seed(0)
    first, second = rg.nn.Linear(4, 5), mlp(rg.nn.BatchNorm1d(8))
    second.eval()
    groups = [{"params": [first.weight]}, {"params": [first.bias], "lr": 0.2}]
    optimizers = [rg.optim.SGD(groups, lr=0.1), rg.optim.RMSprop(second.parameters())]

    def step(*pairs, scale):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = sum((first(x).sum() ** 2 for x, _ in pairs), rg.zeros(())) + (second(pairs[0][1]) * scale).sum()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return [loss]

    return step, lambda: ((floats(2, 4), floats(3, 6)), [floats(2, 4), floats(1, 6)], {"scale": floats()})


def penalty():
    """Derivatives of derivatives."""
    model = mlp(out=1)
    optimizer = rg.optim.SGD(model.parameters(), lr=0.1)

    def step(x):
        optimizer.zero_grad()
        slope = rg.grad(lambda v: model(v).sum())(x)
        loss = ((slope * slope).sum() - 1.0) ** 2
        loss.backward()
        optimizer.step()
        return loss

    return step, lambda: (floats(4, 6),)


def whole_module():
    return mlp(), lambda: (floats(2, 6),)


def value_and_slope():
    return rg.value_and_grad(lambda w, x: ((w * x) ** 3).sum()), lambda: (floats(3), floats(3))


def halved(x):
    """What the record below reaches."""
    return x * FACTOR


FACTOR = 0.5


def own_record():
    """A record that the framework has never seen, defined inside a function that its forward takes a number from."""
    from retrograd.autograd_core.define import fused

    shift = 0.25

    def fast(ops, x, power=2):
        return ops.power(halved(x), power) + shift

    @fused(derivative=lambda ops, needs, g, x, power: [ops.multiply(g, power * halved(x) / 2)], fast=fast)
    def half_square(ops, x, /, power=2):
        """(x / 2)² + 1/4"""
        return ops.add(ops.power(ops.multiply(x, FACTOR), power), shift)

    w = floats(3).requires_grad_()

    def step(x):
        w.grad = None
        out = half_square(w * x)
        out.sum().backward()
        return out

    return step, lambda: (floats(2, 3),)


CASES = {
    "sgd": on_mlp(lambda p: rg.optim.SGD(p, lr=0.1)),
    "nesterov": on_mlp(lambda p: rg.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2)),
    "adam": on_mlp(lambda p: rg.optim.Adam(p, lr=1e-2)),
    "adamw": on_mlp(lambda p: rg.optim.AdamW(p, lr=1e-2)),
    "dropout": on_mlp(lambda p: rg.optim.Adam(p), rg.nn.Dropout(0.5)),
    "clipping": on_mlp(lambda p: rg.optim.Adam(p), clip=0.1),
    "schedule": on_mlp(lambda p: rg.optim.Adam(p), schedule=True),
    "accumulation": on_mlp(lambda p: rg.optim.SGD(p, lr=0.01), accumulate=True),
    "batch norm": on_mlp(lambda p: rg.optim.Adam(p), rg.nn.BatchNorm1d(8)),
    "wide": wide,
    "cnn": cnn,
    "gpt": gpt,
    "inference": inference,
    "written at a place": written_at_a_place,
    "averaged": averaged,
    "drawn": drawn,
    "several": several,
    "penalty": penalty,
    "whole module": whole_module,
    "value and slope": value_and_slope,
    "own record": own_record,
}
NAMES = [*CASES, *[f"record {name}" for name in REGISTRY if not name.endswith(".vjp")]]


def of_record(name):
    """A record's first sample in float32, forward and (where there is one) backward."""
    rec = REGISTRY[name]
    found = list(cases_of(rec))
    case = found[name == "transfer"].cast(np.float32)  # of the first sample of `transfer` the result is on `strict`
    leaves = case.tensors(case.floating if rec.differentiable else ())

    def step(first, *others):
        given = iter(others)
        inputs = [t if not isinstance(t, rg.Tensor) or t.requires_grad else next(given) for t in leaves]
        attributes = dict(case.attributes)
        if rec.kind == "random":
            shape = case.inputs[0].shape if case.inputs else attributes["shape"]
            attributes |= rg.default_generator().reserve(int(np.prod(shape)))
        outs = case.function(*inputs, **attributes)
        outs = list(outs) if rec.multiple else [outs]
        roots = [o for o in outs if o.requires_grad and o.dtype.kind == "f"]
        for leaf in inputs:
            if isinstance(leaf, rg.Tensor) and leaf.requires_grad:
                leaf.grad = None
        if roots:
            sum([(o * weights(o)).sum() for o in roots], rg.zeros(())).backward()
        return [*outs, first + 1]  # some operations have no tensor to begin from

    return step, lambda: (rg.ones(()), *[t for t in leaves if isinstance(t, rg.Tensor) and not t.requires_grad])


def leaves_of(nest):
    if isinstance(nest, dict):
        return [leaf for inner in nest.values() for leaf in leaves_of(inner)]
    if isinstance(nest, (list, tuple)):
        return [leaf for inner in nest for leaf in leaves_of(inner)]
    return [nest]


def skeleton(nest):
    if isinstance(nest, dict):
        return {key: skeleton(inner) for key, inner in nest.items()}
    return [type(nest).__name__, *map(skeleton, nest)] if isinstance(nest, (list, tuple)) else None


def make(folder, names):
    """Compile the cases and write what they do."""
    failed = {}
    for number, name in enumerate(names):
        try:
            written = made(name)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
            continue
        text, arrays = written
        (folder / f"{number}.py").write_text(text, encoding="utf-8")
        np.savez(folder / f"{number}.npz", **arrays)
    (folder / "failed.json").write_text(json.dumps(failed))


def made(name):
    step, draw = of_record(name.removeprefix("record ")) if name.startswith("record ") else CASES[name]()
    compiled = rg.compile(step)

    def called(function):
        *args, last = draw() or (None,)
        words = last if isinstance(last, dict) and args else {}
        args = args if words else [a for a in (*args, last) if a is not None]
        return function(args, words)

    rg.manual_seed(5)
    while not compiled.programs:
        called(lambda args, words: compiled(*args, **words))
    (program,) = compiled.programs.values()
    arrays = {f"state/{key}": array for key, array in program.state().items()}
    for n in range(2):

        def replay(args, words):
            inputs = program.inputs(*args, **words)
            again = program.inputs(*args, **words)
            assert all(again[key].tobytes() == array.tobytes() for key, array in inputs.items())
            return inputs, compiled(*args, **words)

        inputs, result = called(replay)
        arrays |= {f"inputs{n}/{key}": array for key, array in inputs.items()}
        results = [leaf.numpy() if isinstance(leaf, rg.Tensor) else leaf for leaf in leaves_of(result)]
        arrays |= {f"result{n}/{i}": np.asarray(leaf) for i, leaf in enumerate(results)}
        arrays[f"nest{n}"] = np.array(json.dumps(skeleton(result)))
        arrays |= {f"state{n}/{key}": array for key, array in program.state().items()}
    return program.source(), arrays


RUNNER = """
import json, sys
import numpy as np
from pathlib import Path


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "retrograd":
            raise ImportError("there is no framework here")


def poisoned(*args, **words):
    array = plain(*args, **words)
    array.view(np.uint8).fill(255) if array.ndim and array.flags.c_contiguous else None  # NaN, or -1
    return array


sys.meta_path.insert(0, Blocker())
plain = np.empty
source = Path(sys.argv[1]).read_text(encoding="utf-8")
exec(source, functions := {})  # leaves_of and skeleton, as the other process has them
for file in sorted(Path(sys.argv[2]).glob("*.py")):
    given = dict(np.load(file.with_suffix(".npz")))
    part = lambda head: {k[len(head):]: v for k, v in given.items() if k.startswith(head)}
    found = {}
    try:
        np.empty = poisoned  # nothing may be read before it was written
        exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), names := {"__name__": "program"})
        np.empty = plain
        state = part("state/")
        for n in range(2):
            result = names["step"](state, part(f"inputs{n}/"))
            found |= {f"result{n}/{i}": np.asarray(v) for i, v in enumerate(functions["leaves_of"](result))}
            found[f"nest{n}"] = np.array(json.dumps(functions["skeleton"](result)))
            found |= {f"state{n}/{key}": array.copy() for key, array in state.items()}
    except Exception as error:
        found["error"] = np.array(f"{type(error).__name__}: {error}")
    np.savez(file.with_suffix(".out.npz"), **found)
assert not any(name.split(".")[0] == "retrograd" for name in sys.modules)
"""


def run(arguments, **variables):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", **variables}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def in_two_processes(folder, names):
    run([__file__, str(folder), *names], RETROGRAD_KERNELS="array")
    walkers = "\n\n".join(inspect.getsource(f) for f in (leaves_of, skeleton))
    (folder / "walkers.txt").write_text(walkers)
    (folder / "runner.txt").write_text(RUNNER)
    run(["-I", str(folder / "runner.txt"), str(folder / "walkers.txt"), str(folder)])
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return in_two_processes(tmp_path_factory.mktemp("programs"), NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_program_alone(folder, name):
    """Results, their nest and the state after both calls, bit by bit."""
    number = NAMES.index(name)
    failed = json.loads((folder / "failed.json").read_text())
    assert name not in failed, failed[name]
    expected, found = np.load(folder / f"{number}.npz"), np.load(folder / f"{number}.out.npz")
    assert "error" not in found, str(found["error"])
    for key in expected:
        if key.startswith(("inputs", "state/")):  # given to both
            continue
        a, b = expected[key], found[key]
        assert (a.dtype, a.shape) == (b.dtype, b.shape), key
        assert a.tobytes() == b.tobytes(), key


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2:])
