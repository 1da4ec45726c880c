"""Recordings: what they hold is enough to compute everything again, they hold no array, and they change nothing."""

import gc
import weakref

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.record import REGISTRY
from retrograd.autograd_core.recorder import RecordingError, Value, recording
from retrograd.backends import kernel_tier
from retrograd.testing.record_case import cases, weights


def leaf(*values):
    return rg.tensor(np.array(values, np.float64), requires_grad=True)


def names(tape):
    return [step.record.name if step.record else "assign" for step in tape.steps]


def replay(tape, values):
    """The values of all numbers of a recording, from those of the captured ones."""
    assert sorted(values) == sorted(tape.captured)
    for step in tape.steps:
        inputs = [values[i.number] if isinstance(i, Value) else i for i in step.inputs]
        if step.record is None:
            index = ... if step.attributes["template"] is None else step.attributes["template"]
            inputs[0][index] = inputs[1]
            continue
        array_type = next((type(i) for i in inputs if hasattr(i, "dtype")), rg.current_backend().array_type)
        out = step.record.impl[array_type](*inputs, **step.attributes)
        outs, residuals = (out[0], out[1:]) if step.record.residuals else (out, ())
        outs = [*(outs if step.record.multiple else [outs]), *residuals]
        for number, made in zip(step.outputs, outs, strict=True):
            values[number] = rg.current_backend().wrap(made)
    return values


def captured(tape, *known):
    """Arrays for the captured numbers: those of the tensors named, and what the walk itself brought in: the seed of
    ones and the zeros that scattered gradients are added to."""
    values = {}
    for number in tape.captured:
        shape, dtype = tape.specs[number]
        values[number] = rg.current_backend().xp.full(shape, 1.0 if shape == () else 0.0, dtype)
    return values | {tape.number(t): t.array.copy() for t in known}


def program(x, w):
    hidden = rg.softmax(rg.tanh(x @ w) * 2.0)
    return ((hidden - 0.5) ** 2).sum() + rg.concat([hidden[0], hidden[1, :2]]).sum()


def first_order(x, w):
    loss = program(x, w)
    loss.backward()
    return loss, w.grad


def second_order(x, w):
    loss = program(x, w)
    loss.backward(create_graph=True)
    gradient, w.grad = w.grad, None
    (gradient * gradient).sum().backward()
    return loss, gradient, w.grad


def updated(x, w):
    program(x, w).backward()
    with rg.no_grad():
        w.sub_(w.grad * 0.1)
        w[0] = 0.5
    return (w * 2,)


def operands():
    values = np.linspace(-1.0, 1.0, 6).reshape(2, 3), np.cos(np.arange(9.0)).reshape(3, 3)
    return rg.tensor(values[0]), rg.tensor(values[1], requires_grad=True)


@pytest.mark.parametrize("step", [first_order, second_order, updated])
def test_a_recording_is_enough_to_compute_everything_again_and_changes_no_number(step):
    plain = step(*operands())
    x, w = operands()
    before = captured_before(step, x, w)
    with recording() as tape:
        results = step(x, w)
    values = replay(tape, before(tape))
    for expected, result in zip(plain, results, strict=True):
        np.testing.assert_allclose(result.numpy(), expected.numpy(), rtol=1e-12)
        again = rg.current_backend().to_numpy(values[tape.number(result)])
        np.testing.assert_allclose(again, expected.numpy(), rtol=1e-12)


def captured_before(step, *tensors):
    """The operands may be changed by the step, so their values are kept from before it."""
    kept = [t.array.copy() for t in tensors]

    def values(tape):
        return captured(tape, *tensors) | {tape.number(t): a for t, a in zip(tensors, kept, strict=True)}

    return values


def test_an_operation_is_one_instruction_with_its_operands_attributes_and_line():
    x = leaf(1.0, 2.0)
    with recording() as tape:
        y = rg.sum(x * 2.0, axis=0)
    assert names(tape) == ["multiply", "sum"]
    times, total = tape.steps
    assert times.inputs == (Value(tape.number(x)), 2.0)
    assert total.inputs == (Value(times.outputs[0]),)
    assert total.attributes["axis"] == 0
    assert total.outputs == (tape.number(y),)
    assert tape.specs[tape.number(y)] == ((), np.float64)
    assert all(step.line.startswith(__file__) for step in tape.steps)
    assert repr(tape) == "%1 = multiply(%0, 2.0)\n%2 = sum(%1, axis=0, keepdims=False)"


FUSED = [
    r for name, r in REGISTRY.items() if r.kind == "fused" and r.joint and not r.exact and not name.endswith(".vjp")
]


@pytest.mark.skipif(kernel_tier() == "reference", reason="the reference tier writes fused operations out")
@pytest.mark.parametrize("rec", FUSED, ids=lambda rec: rec.name)
def test_a_fused_operation_is_one_instruction_and_its_rule_another(rec):
    case = next(case for case in cases(rec) if case.floating)
    for create_graph in (False, True):
        tensors = case.tensors()
        with recording() as tape:
            outs = [o for o in case.call(tensors) if o.requires_grad]
            rg.backward(outs, [weights(o) for o in outs], create_graph=create_graph)
        found = names(tape)
        assert found.count(rec.name) == 1
        assert found.count(f"{rec.name}.vjp") == (
            0 if create_graph else 1
        )  # of higher order its forward is written out


def test_there_are_fused_operations_whose_rule_is_not_exact():
    assert {"cross_entropy", "layer_norm"} <= {rec.name for rec in FUSED}


def test_the_engines_own_arithmetic_is_recorded():
    """Sums over broadcast axes, casts and accumulation: a replay must do them too."""
    x, w = rg.tensor(np.ones((2, 1), np.float32), requires_grad=True), leaf(1.0, 2.0, 3.0)
    with recording() as tape:
        (x * w + x).sum().backward()
    assert {"sum", "astype", "add"} <= set(names(tape))
    values = replay(tape, captured(tape, x, w))
    assert rg.current_backend().to_numpy(values[tape.number(x.grad)]).tolist() == [[9.0], [9.0]]
    assert x.grad.dtype == np.float32


def test_what_comes_from_outside_is_captured_once():
    x, c = leaf(1.0, 2.0), rg.tensor(np.array([3.0, 4.0]))
    with recording() as tape:
        inside = rg.exp(x)
        y = inside * c + c - x.detach()
    assert tape.captured == [tape.number(x), tape.number(c)]
    assert tape.number(inside) not in tape.captured
    assert tape.number(y) not in tape.captured
    assert tape.number(x.detach()) == tape.number(x)


def test_changes_in_place_are_effects_in_their_order():
    x = rg.tensor(np.array([1.0, 2.0]))
    with recording() as tape:
        y = x * 2
        x.add_(1)
        x[0] = 5.0
        z = x * 3
    assert names(tape) == ["multiply", "add", "assign", "assign", "multiply"]
    plain, indexed = (step for step in tape.steps if step.record is None)
    assert plain.inputs[0] == indexed.inputs[0] == Value(tape.number(x))
    assert indexed.attributes["template"] == (0,)
    assert indexed.inputs[1] == 5.0
    assert (y.shape, z.shape) == ((2,), (2,))


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t.item(),
        lambda t: t.tolist(),
        lambda t: t.numpy(),
        lambda t: float(t),
        lambda t: int(t),
        lambda t: bool(t > 0),
        lambda t: np.asarray(t),
        lambda t: f"{t:.2f}",
    ],
)
def test_reading_a_value_is_refused_with_the_line(read):
    t = rg.tensor(2.5)
    with recording(), pytest.raises(RecordingError, match=r"inside a recorded function, at .*test_recorder.py:\d+"):
        read(t * 1)
    assert read(t * 1) is not None


def test_repr_works_inside_and_recordings_do_not_nest():
    t = rg.tensor(2.5)
    with recording() as tape:
        assert "2.5" in repr(t)
        with pytest.raises(RecordingError, match="already"), recording():
            pass
    assert tape.steps == []


def test_nothing_is_recorded_outside_and_after_an_error():
    t = rg.tensor(1.0)
    with recording() as tape:
        t + 1
        with pytest.raises(ValueError, match="broadcast"):
            t + rg.tensor([1.0, 2.0]) + rg.tensor([1.0, 2.0, 3.0])
    t + 2
    assert names(tape) == ["add", "add"]

    def fails():
        with recording():
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    with recording() as tape:  # and the next one begins anew
        t + 1
    assert names(tape) == ["add"]


def test_a_recording_holds_numbers_not_arrays():
    x = leaf(*range(100))
    gc.collect()
    gc.disable()
    try:
        with recording() as tape:
            y = rg.exp(x)
            y = rg.sin(y) * y
            arrays = [weakref.ref(y.array), weakref.ref(y.node.edges[0].saved[0][0])]
            y.sum().backward()
            x.grad = None
            del y
        assert [reference() for reference in arrays] == [None, None]
        assert len(tape.steps) > 5
    finally:
        gc.enable()


def test_an_array_that_lives_where_a_dead_one_lived_gets_a_number_of_its_own():
    x = rg.tensor(np.ones(3))
    with recording() as tape:
        for _ in range(50):
            x + 1  # dies at once, and the next one takes its place in memory
    outputs = [step.outputs[0] for step in tape.steps]
    assert len(set(outputs)) == 50


def test_random_draws_are_recorded_with_their_place_in_the_stream():
    rg.manual_seed(3)
    x = leaf(*np.ones(64))
    with recording() as tape:
        y = rg.dropout(x, 0.5)
        y.sum().backward()
    draw = next(step for step in tape.steps if step.record.kind == "random")
    assert {"key", "counter"} <= set(draw.attributes)
    again = replay(tape, captured(tape, x))
    np.testing.assert_array_equal(rg.current_backend().to_numpy(again[tape.number(y)]), y.numpy())


def test_a_recording_lets_go_of_the_arrays_it_saw() -> None:
    met: list[weakref.ref] = []

    def step(x: rg.Tensor) -> rg.Tensor:
        hidden = rg.exp(x)
        met.append(weakref.ref(hidden.array))
        return rg.sum(hidden * 2.0)

    compiled = rg.compile(step)
    for _ in range(4):
        compiled(rg.tensor([1.0, 2.0]))
    assert compiled.programs
    gc.collect()
    assert len(met) == 3
    assert not any(reference() is not None for reference in met)


def test_a_prepared_program_keeps_no_copies_of_what_it_changes() -> None:
    weight = rg.tensor(np.ones(5), requires_grad=True)
    optimizer = rg.optim.Adam([weight])

    def step(x: rg.Tensor) -> rg.Tensor:
        loss = rg.sum(weight * x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    compiled = rg.compile(step)
    compiled.prepare(rg.ones(5))
    assert weight.tolist() == [1.0] * 5
    assert [program.tape.undo for program in compiled.programs.values()] == [None]
