"""Random programs against a naive model: forward-mode numbers that carry two directions and their product.

The model knows no graph and no reverse mode. A program is a list of steps; for a leaf a and a leaf b it is run anew on
x + ε·u + δ·v with ε² = δ² = 0, so the ε part is the derivative along u, the εδ part the second one along u and v, both
exact to rounding. The machine builds programs with blocks without gradients, detached values, leaves used often and
views, walks parts of them again and again, and keeps account of what must have been freed.
"""

from typing import Any, NamedTuple

import hypothesis.strategies as st
import numpy as np
import retrograd as rg
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

SHAPES = [(), (3,), (1, 3), (2, 1), (2, 3), (3, 3), (2, 2, 3)]


class Dual(NamedTuple):
    """x + ε·a + δ·b + εδ·c, four arrays of one shape."""

    x: Any
    a: Any
    b: Any
    c: Any

    def linear(self, f):
        return Dual(*[f(part) for part in self])

    def through(self, f, slope, curve):
        """A scalar function of each element, by its first and second derivative."""
        return Dual(f(self.x), slope * self.a, slope * self.b, slope * self.c + curve * self.a * self.b)


def product(p, q, times=np.multiply):
    """Anything linear in both."""
    x, a, b, c = p
    y, d, e, f = q
    return Dual(
        times(x, y),
        times(a, y) + times(x, d),
        times(b, y) + times(x, e),
        times(c, y) + times(a, e) + times(b, d) + times(x, f),
    )


def together(f, *duals):
    """Linear in all of them at once: joining, choosing, adding."""
    return Dual(*[f(*parts) for parts in zip(*duals, strict=True)])


def reciprocal(p):
    return p.through(lambda x: 1 / x, -1 / p.x**2, 2 / p.x**3)


def softmax(p):
    top = p.x.max(-1, keepdims=True)
    shifted = Dual(p.x - top, *p[1:])
    e = shifted.through(np.exp, np.exp(shifted.x), np.exp(shifted.x))
    return product(e, reciprocal(e.linear(lambda part: part.sum(-1, keepdims=True))))


def normalised(p):
    """x / √(mean of x² over the last axis + 1)."""
    square = product(p, p).linear(lambda part: part.mean(-1, keepdims=True))
    root = Dual(square.x + 1, *square[1:])
    root = root.through(lambda x: x**-0.5, -0.5 * root.x**-1.5, 0.75 * root.x**-2.5)
    return product(p, root)


def chosen(p, q):
    return together(lambda x, y: np.where(p.x > q.x, x, np.where(p.x == q.x, (x + y) / 2, y)), p, q)


def repeated_rows(part):
    return part[[0, -1, 0]]


ONE = {  # name → (ours, the model's, the least number of axes)
    "negative": (lambda x: -x, lambda p: p.linear(np.negative), 0),
    "sin": (rg.sin, lambda p: p.through(np.sin, np.cos(p.x), -np.sin(p.x)), 0),
    "tanh": (
        rg.tanh,
        lambda p: p.through(np.tanh, 1 - np.tanh(p.x) ** 2, -2 * np.tanh(p.x) * (1 - np.tanh(p.x) ** 2)),
        0,
    ),
    "square": (lambda x: x**2, lambda p: product(p, p), 0),
    "relu": (rg.relu, lambda p: p.linear(lambda part: part * (p.x > 0)), 0),
    "half": (lambda x: x * 0.5 + 1, lambda p: Dual(p.x * 0.5 + 1, *[part * 0.5 for part in p[1:]]), 0),
    "bounded": (lambda x: 1 / (x * x + 1), lambda p: reciprocal(Dual(product(p, p).x + 1, *product(p, p)[1:])), 0),
    "sum": (lambda x: x.sum(), lambda p: p.linear(np.sum), 0),
    "mean of rows": (
        lambda x: rg.mean(x, axis=-1, keepdims=True),
        lambda p: p.linear(lambda a: a.mean(-1, keepdims=True)),
        1,
    ),
    "transpose": (lambda x: x.T, lambda p: p.linear(np.transpose), 0),
    "flat": (lambda x: x.reshape(-1), lambda p: p.linear(lambda a: a.reshape(-1)), 0),
    "stretched": (lambda x: rg.broadcast_to(x, (2, *x.shape)), lambda p: p.linear(lambda a: np.stack([a, a])), 0),
    "reversed": (lambda x: x[::-1], lambda p: p.linear(lambda a: a[::-1]), 1),
    "last": (lambda x: x[..., -1], lambda p: p.linear(lambda a: a[..., -1]), 1),
    "rows twice": (lambda x: x[[0, -1, 0]], lambda p: p.linear(repeated_rows), 1),
    "parts": (lambda x: rg.unstack(x)[0], lambda p: p.linear(lambda a: a[0]), 1),
    "softmax": (rg.softmax, softmax, 1),
    "skip": (lambda x: rg.sin(x) + x, lambda p: together(np.add, p, ONE["sin"][1](p)), 0),
    "normalised": (lambda x: x * (rg.mean(x * x, axis=-1, keepdims=True) + 1) ** -0.5, normalised, 1),
}


def any_two(x, y):
    return True


def broadcast(x, y):
    try:
        return bool(np.broadcast_shapes(x.shape, y.shape) or True)
    except ValueError:
        return False


def not_nearly_equal(x, y):
    """The derivative of the larger one jumps where both are equal, so rounding must not decide."""
    if not broadcast(x, y):
        return False
    apart = np.abs(x.numpy() - y.numpy())
    return not ((apart > 0) & (apart < 1e-6)).any()


def matrices(x, y):
    if not x.ndim or not y.ndim or x.ndim + y.ndim > 5:
        return False
    return x.shape[-1] == y.shape[-2 if y.ndim > 1 else 0]


TWO = {  # name → (ours, the model's, which shapes)
    "add": (lambda x, y: x + y, lambda p, q: together(np.add, p, q), broadcast),
    "subtract": (lambda x, y: x - y, lambda p, q: together(np.subtract, p, q), broadcast),
    "multiply": (lambda x, y: x * y, product, broadcast),
    "maximum": (rg.maximum, chosen, not_nearly_equal),
    "sum of both": (
        lambda x, y: x.sum() + y.sum(),
        lambda p, q: together(lambda a, b: a.sum() + b.sum(), p, q),
        any_two,
    ),
    "joined": (lambda x, y: rg.concat([x.reshape(-1), y.reshape(-1)]), lambda p, q: together(_joined, p, q), any_two),
    "matmul": (lambda x, y: x @ y, lambda p, q: product(p, q, np.matmul), matrices),
    "updated": (
        lambda x, y: x.at[..., 0].set(y),
        lambda p, q: together(_with_first, p, q),
        lambda x, y: x.ndim > 0 and y.shape in ((), x.shape[:-1]),
    ),
}


def _joined(a, b):
    return np.concatenate([a.reshape(-1), b.reshape(-1)])


def _with_first(a, b):
    out = np.array(a)
    out[..., 0] = b
    return out


class Step(NamedTuple):
    """One value of the program: a leaf, a constant copy of another (detached), or a function of others."""

    tensor: rg.Tensor
    model: Any
    inputs: tuple[int, ...]
    tracked: bool


class RandomGraphs(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**16))
    def start(self, seed):
        self.rng = np.random.default_rng(seed)
        self.program: list[Step] = []
        self.live: list[int] = []  # values that may still be used
        self.leaves: dict[int, np.ndarray] = {}  # leaves that require gradients → the direction they are watched along
        self.grads: dict[int, float | None] = {}  # what ⟨.grad, direction⟩ must be
        self.freed: set[int] = set()

    # -- building ------------------------------------------------------------------------------------------------

    def enter(self, tensor, model, inputs, tracked):
        self.program.append(Step(tensor, model, tuple(inputs), tracked))
        self.live.append(len(self.program) - 1)
        return len(self.program) - 1

    @precondition(lambda self: len(self.leaves) < 4)
    @rule(shape=st.sampled_from(SHAPES), requires_grad=st.sampled_from([True, True, False]))
    def leaf(self, shape, requires_grad):
        value = self.rng.uniform(-1.5, 1.5, shape)
        tensor = rg.tensor(value, requires_grad=requires_grad)
        number = self.enter(tensor, np.array(value), (), requires_grad)
        if requires_grad:
            self.leaves[number] = self.rng.uniform(-1, 1, shape)
            self.grads[number] = None

    def applied(self, ours, model, inputs, graph):
        tensors = [self.program[i].tensor for i in inputs]
        with rg.set_grad_enabled(graph):
            result = ours(*tensors)
        tracked = graph and any(self.program[i].tracked for i in inputs)
        assert result.requires_grad == tracked
        if result.size <= 64 and np.abs(result.numpy()).max(initial=0) < 100:  # the programs stay small
            self.enter(result, model, inputs, tracked)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), graph=st.integers(0, 7))
    def one(self, data, graph):
        i = data.draw(st.sampled_from(self.live))
        ndim = self.program[i].tensor.ndim
        name = data.draw(st.sampled_from([name for name, (*_, least) in ONE.items() if ndim >= least]))
        ours, model, _ = ONE[name]
        self.applied(ours, model, (i,), graph > 0)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), graph=st.integers(0, 7))
    def two(self, data, graph):
        i, j = (data.draw(st.sampled_from(self.live)) for _ in "ij")
        x, y = (self.program[k].tensor for k in (i, j))
        name = data.draw(st.sampled_from([name for name, (*_, fits) in TWO.items() if fits(x, y)]))
        ours, model, _ = TWO[name]
        self.applied(ours, model, (i, j), graph > 0)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def detached(self, data):
        i = data.draw(st.sampled_from(self.live))
        tensor = self.program[i].tensor.detach()
        assert not tensor.requires_grad
        self.enter(tensor, lambda p: Dual(p.x, *[np.zeros_like(p.x)] * 3), (i,), False)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), n=st.integers(2, 5))
    def loss(self, data, n):
        """The sum of several values, some perhaps given twice, plain or by their elements: one cotangent for all."""
        inputs = [data.draw(st.sampled_from(self.live)) for _ in range(n)]
        total = inputs[0]
        for i in inputs[1:]:
            name = "add" if broadcast(self.program[total].tensor, self.program[i].tensor) else "sum of both"
            ours, model, _ = TWO[name]
            before = len(self.program)
            self.applied(ours, model, (total, i), True)
            if len(self.program) == before:
                return
            total = before
        if self.program[total].tracked:
            self.walk(data, total, retain=data.draw(st.booleans()), some=False)

    @precondition(lambda self: len(self.live) > 8)
    @rule(data=st.data())
    def forgotten(self, data):
        self.live.remove(data.draw(st.sampled_from(self.live)))

    @precondition(lambda self: self.leaves and len(self.live) > 8)
    @rule(data=st.data())
    def changed(self, data):
        """A step on a leaf, as an optimizer makes it. What was computed from the old values is not used any more."""
        number = data.draw(st.sampled_from(sorted(self.leaves)))
        tensor, value = self.program[number].tensor, self.program[number].model
        with rg.no_grad():
            tensor.sub_(0.25)
        value -= 0.25
        self.live = [i for i in self.live if i == number or number not in self.below(i)]

    # -- the model -----------------------------------------------------------------------------------------------

    def below(self, number):
        """Every step that `number` was computed from, itself included."""
        found, stack = set(), [number]
        while stack:
            i = stack.pop()
            if i not in found:
                found.add(i)
                stack.extend(self.program[i].inputs)
        return found

    def run(self, number, first=None, second=None):
        """The program up to `number`, on leaves moved along the directions of two of them."""
        values = {}
        for i in sorted(self.below(number)):
            step = self.program[i]
            if step.inputs:
                cut = not step.tracked  # made without a graph: no derivative passes
                out = step.model(*[values[k] for k in step.inputs])
                values[i] = Dual(out.x, *[np.zeros_like(out.x)] * 3) if cut else out
            else:
                zero = np.zeros_like(step.model)
                values[i] = Dual(
                    step.model, self.leaves[i] if i == first else zero, self.leaves[i] if i == second else zero, zero
                )
        return values[number]

    def visited(self, number, targets=None):
        """The nodes that a walk from `number` passes: all, or those on a way to the targets."""
        nodes = {i for i in self.reached(number) if self.program[i].inputs}
        return nodes if targets is None else {i for i in nodes if self.reached(i) & set(targets)}

    def reached(self, number):
        """Every step to which the graph leads from `number`: what was made without a graph is where it ends."""
        found, stack = set(), [number]
        while stack:
            i = stack.pop()
            if i not in found and self.program[i].tracked:
                found.add(i)
                stack.extend(self.program[i].inputs)
        return found

    # -- walking -------------------------------------------------------------------------------------------------

    def roots(self):
        return [i for i in self.live if self.program[i].tracked]

    @precondition(lambda self: self.roots())
    @rule(data=st.data(), retain=st.sampled_from([True, False]), some=st.booleans())
    def backward(self, data, retain, some):
        self.walk(data, data.draw(st.sampled_from(self.roots())), retain, some)

    def walk(self, data, number, retain, some):
        y = self.program[number].tensor
        targets = data.draw(st.lists(st.sampled_from(sorted(self.leaves)), min_size=1, unique=True)) if some else None
        inputs = None if targets is None else [self.program[t].tensor for t in targets]
        w = self.rng.uniform(-1, 1, y.shape)
        visited = self.visited(number, targets)
        if visited & self.freed:
            try:
                y.backward(w, retain_graph=True, inputs=inputs)
            except RuntimeError as error:
                assert "was freed" in str(error)  # noqa: PT017
                return
            raise AssertionError("a walk over a freed graph went through")
        y.backward(w, retain_graph=retain, inputs=inputs)
        if not retain:
            self.freed |= visited
        for t in self.leaves if targets is None else targets:
            if t in self.reached(number):
                self.grads[t] = (self.grads[t] or 0.0) + float(np.sum(w * self.run(number, t).a))

    @precondition(lambda self: self.roots())
    @rule(data=st.data())
    def second_order(self, data):
        """d/dv of ⟨gradient by leaf a, u⟩, by walking the gradient's own graph."""
        number = data.draw(st.sampled_from(self.roots()))
        reached = [t for t in sorted(self.leaves) if t in self.reached(number)]
        first = data.draw(st.sampled_from(reached))
        second = data.draw(st.sampled_from(reached))
        if self.visited(number) & self.freed:
            return
        a, b = self.program[first].tensor, self.program[second].tensor
        kept = {t: self.program[t].tensor.grad for t in self.leaves}
        y = self.program[number].tensor
        w = self.rng.uniform(-1, 1, y.shape)
        a.grad = None
        y.backward(w, create_graph=True, inputs=[a])
        gradient, a.grad = a.grad, None
        b.grad = None
        model = self.run(number, first, second)
        close(np.sum(gradient.numpy() * self.leaves[first]), np.sum(w * model.a))
        if gradient.requires_grad:
            gradient.backward(self.leaves[first], retain_graph=True, inputs=[b])
        got = 0.0 if b.grad is None else np.sum(b.grad.numpy() * self.leaves[second])
        close(got, np.sum(w * model.c))
        for t, gradient in kept.items():
            self.program[t].tensor.grad = gradient

    @precondition(lambda self: self.leaves)
    @rule(data=st.data())
    def zero_grad(self, data):
        number = data.draw(st.sampled_from(sorted(self.leaves)))
        self.program[number].tensor.grad = None
        self.grads[number] = None

    # -- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def the_newest_value_is_right(self):
        if getattr(self, "live", None):
            newest = self.live[-1]
            close(self.program[newest].tensor.numpy(), self.run(newest).x)

    @invariant()
    def gradients_are_right(self):
        for t, expected in getattr(self, "grads", {}).items():
            leaf = self.program[t].tensor
            assert (leaf.grad is None) == (expected is None)
            if leaf.grad is not None:
                assert leaf.grad.shape == leaf.shape
                assert leaf.grad.dtype == np.float64
                assert not leaf.grad.requires_grad
                close(np.sum(leaf.grad.numpy() * self.leaves[t]), expected)


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-8)


TestRandomGraphs = RandomGraphs.TestCase
TestRandomGraphs.settings = settings(max_examples=150, stateful_step_count=40)


def test_the_model_is_right():
    """The dual numbers themselves against differences, for every operation of the machine."""
    rng = np.random.default_rng(5)
    x, y, u, v = (rng.uniform(0.2, 1.0, (3, 3)) for _ in range(4))
    h = 1e-4

    def with_a_constant(model):
        return lambda p: model(p, Dual(y, *[np.zeros_like(y)] * 3))

    models = [m for _, m, _ in ONE.values()]
    models += [with_a_constant(m) for name, (_, m, _) in TWO.items() if name != "updated"]
    for model in models:
        zero = np.zeros_like(x)

        def at(s, t, model=model, zero=zero):
            return model(Dual(x + s * u + t * v, zero, zero, zero)).x

        got = model(Dual(x, u, v, zero))
        np.testing.assert_allclose(got.a, (at(h, 0) - at(-h, 0)) / (2 * h), atol=1e-6)
        np.testing.assert_allclose(got.b, (at(0, h) - at(0, -h)) / (2 * h), atol=1e-6)
        np.testing.assert_allclose(got.c, (at(h, h) - at(h, -h) - at(-h, h) + at(-h, -h)) / (4 * h * h), atol=1e-5)
