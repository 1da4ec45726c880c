"""The checker is itself checked: a wrong rule, of either order, must be caught, and a right one must pass."""

import numpy as np
import pytest
import retrograd as rg
from retrograd.autograd_core.dispatch import function_of
from retrograd.autograd_core.record import Record
from retrograd.autograd_core.samples import Sample, Special, reals
from retrograd.backends import kernel_tier
from retrograd.testing import GradientError, RecordError, check_gradient, check_record, check_second_order

X = np.linspace(0.3, 1.7, 6).reshape(2, 3)
Y = np.linspace(-1.2, 1.1, 3)


def operation(kind, forward, **options):
    """The function of a record that stands in no registry."""
    rec = Record(forward.__name__, kind, forward, **options)
    function = function_of(rec)
    function.__name__ = rec.name
    function.record = rec
    return function


def cube(xp, x, /):
    return x * x * x


def product(xp, x, y, /):
    return xp.multiply(x, y)


def square_twice(ops, x, /):
    return ops.square(ops.square(x))


def right_cube():
    return operation(
        "elementwise", cube, derivatives=dict(x=lambda ops, g, x: ops.multiply(g, ops.multiply(3.0, ops.square(x))))
    )


def test_right_rules_pass_at_both_orders():
    for f, inputs in (
        (right_cube(), (X,)),
        (lambda x, y: rg.sum(rg.sin(x) * y, axis=0), (X, Y)),
        (lambda x: (rg.exp(x), rg.sum(x * x)), (X,)),
        (lambda x, n: x**n, (X, 3)),
        (lambda x: x, (np.array(0.5),)),
    ):
        check_gradient(f, *inputs)
        check_second_order(f, *inputs)


@pytest.mark.parametrize(
    "rule",
    [
        lambda ops, g, x: ops.multiply(g, ops.multiply(2.0, ops.square(x))),  # wrong factor
        lambda ops, g, x: ops.negative(ops.multiply(g, ops.multiply(3.0, ops.square(x)))),  # wrong sign
        lambda ops, g, x: ops.multiply(3.0, ops.square(x)),  # forgets the cotangent
        lambda ops, g, x: ops.multiply(g, ops.multiply(3.0 + 1e-5, ops.square(x))),  # off by 3 millionths
    ],
)
def test_a_wrong_first_order_rule_is_caught(rule):
    with pytest.raises(GradientError, match="wrong gradient of cube for input 0"):
        check_gradient(operation("elementwise", cube, derivatives=dict(x=rule)), X)


def test_a_rule_for_the_wrong_input_is_caught():
    swapped = dict(x=lambda ops, g, x: ops.multiply(g, x), y=lambda ops, g, y: ops.multiply(g, y))
    with pytest.raises(GradientError, match="product for input 0"):
        check_gradient(operation("elementwise", product, derivatives=swapped), X, X + 1)


def test_a_forgotten_rule_is_caught():
    halves = operation("elementwise", product, derivatives=dict(x=lambda ops, g, y: ops.multiply(g, y)))
    with pytest.raises(GradientError, match="product for input 1"):
        check_gradient(halves, X, Y)


def test_a_rule_right_at_first_order_only_is_caught_at_second():
    def value_of(ops, x):  # a constant with the right value: what reading a raw array inside a rule amounts to
        return x if ops.raw else x.detach()

    rule = lambda ops, g, x: ops.multiply(g, ops.multiply(3.0, ops.square(value_of(ops, x))))  # noqa: E731
    frozen = operation("elementwise", cube, derivatives=dict(x=rule))
    check_gradient(frozen, X)
    with pytest.raises(GradientError, match="the gradient of cube for input 0"):
        check_second_order(frozen, X)


def test_a_rule_that_is_not_linear_in_the_cotangent_at_second_order_is_caught():
    rule = lambda ops, g, x: ops.multiply(g if ops.raw else g.detach(), ops.multiply(3.0, ops.square(x)))  # noqa: E731
    with pytest.raises(GradientError, match="for input 1"):
        check_second_order(operation("elementwise", cube, derivatives=dict(x=rule)), X)


fused_tiers = pytest.mark.skipif(
    kernel_tier() == "reference", reason="the reference tier has no rule of a fused operation"
)


@fused_tiers
def test_a_fused_rule_falsely_called_exact_is_caught_at_second_order():
    def joint(ops, needs, g, x):
        x = x if ops.raw else x.detach()
        return [ops.multiply(g, ops.multiply(4.0, ops.multiply(x, ops.square(x))))]

    for exact in (True, False):
        fused = operation("fused", square_twice, derivative=joint, exact=exact)
        check_gradient(fused, X)
        if exact:
            with pytest.raises(GradientError, match="fastest tier gives another"):
                check_second_order(fused, X)
        else:
            check_second_order(fused, X)


@fused_tiers
@pytest.mark.parametrize("order", [check_gradient, check_second_order])
def test_a_fused_rule_or_kernel_that_differs_from_the_definition_is_caught(order):
    def joint(ops, needs, g, x):
        return [ops.multiply(g, ops.multiply(4.0, ops.square(x)))]

    wrong_rule = operation("fused", square_twice, derivative=joint)
    wrong_kernel = operation("fused", square_twice, derivative=joint, fast=lambda ops, x: ops.square(x))
    for fused in (wrong_rule, wrong_kernel):
        with pytest.raises(GradientError, match="fastest tier gives another"):
            order(fused, X)
        order(fused, X, tier="reference")


def test_a_gradient_along_the_wrong_axis_is_caught():
    def row_sums(xp, x, /):
        return xp.sum(x, axis=1)

    rule = lambda ops, g, x_shape: ops.broadcast_to(g, shape=x_shape)  # noqa: E731  right only if all g are equal
    with pytest.raises(GradientError, match="row_sums"):
        check_gradient(operation("reduction", row_sums, derivatives=dict(x=rule)), np.ones((3, 3)))


def test_a_gradient_that_forgets_broadcasting_is_caught():
    def shifted(xp, x, y, /):
        return xp.add(x, y)

    rules = dict(x=lambda ops, g: g, y=lambda ops, g: g)
    lazy = operation("reduction", shifted, derivatives=rules)  # a kind that does not declare broadcasting
    with pytest.raises(RuntimeError, match=r"rule of shifted gave a gradient of shape \(2, 3\) for an input \(3,\)"):
        check_gradient(lazy, X, Y)

    first_row = dict(x=lambda ops, g: g, y=lambda ops, g: ops.getitem(g, template=(0,)))  # takes one row for their sum
    with pytest.raises(GradientError, match="shifted for input 1"):
        check_gradient(operation("elementwise", shifted, derivatives=first_row), X, Y)


def test_a_function_that_changes_its_input_is_caught():
    def doubled(xp, x, /):
        x *= 2
        return x * 1.0

    rule = lambda ops, g: ops.multiply(g, 2.0)  # noqa: E731
    with pytest.raises(GradientError, match="doubled changed its input 0 in place"):
        check_gradient(operation("elementwise", doubled, derivatives=dict(x=rule)), X)


def test_random_numbers_without_a_seed_are_caught():
    with pytest.raises(GradientError, match="two results for the same inputs"):
        check_gradient(lambda x: rg.dropout(x, 0.5), np.ones((8, 8)))


def test_the_report_shows_function_inputs_direction_and_both_values():
    wrong = operation("elementwise", cube, derivatives=dict(x=lambda ops, g: g))
    with pytest.raises(GradientError) as caught:
        check_gradient(wrong, X)
    text = str(caught.value)
    for part in ("cube", "input 0:   float64 (2, 3)", "0.3", "direction:", "expected:", "actual:", "tolerance 1e-06"):
        assert part in text


def test_what_cannot_be_checked_is_said():
    with pytest.raises(TypeError, match="no floating input"):
        check_gradient(lambda n: n, np.arange(3))
    with pytest.raises(TypeError, match="must return a Tensor"):
        check_gradient(lambda x: 3.0, X)
    with pytest.raises(TypeError, match="no floating tensor"):
        check_second_order(lambda x: x > 0, X)
    with pytest.raises(ValueError, match="tier must be"):
        check_gradient(lambda x: x, X, tier="jit")


def test_small_and_large_inputs_and_gradients():
    for scale in (1e-6, 1.0, 1e6):
        check_gradient(lambda x, scale=scale: rg.sin(x / scale) * scale, X * scale, step=1e-3 * min(scale, 1.0))
        check_second_order(lambda x, y: x * y, X * scale, Y)


def test_complex_gradients_follow_the_real_and_the_imaginary_part():
    z = X + 1j * X[::-1]
    check_gradient(lambda z, x: rg.sum(z, axis=0) + rg.sin(rg.real(z)) * x, z, X)
    check_gradient(operation("elementwise", cube, derivatives=dict(x=RIGHT)), z)  # the walk adds the conjugations
    wrong = operation("elementwise", cube, derivatives=dict(x=lambda ops, g, x: ops.conj(RIGHT(ops, g, x))))
    with pytest.raises(GradientError):
        check_gradient(wrong, z)


def test_a_record_is_checked_as_a_whole():
    check_record(rg.sin.record)
    wrong = operation("elementwise", cube, derivatives=dict(x=lambda ops, g: g), samples=reals())
    with pytest.raises(GradientError):
        check_record(wrong.record)
    with pytest.raises(RecordError, match="no samples"):
        check_record(operation("elementwise", cube).record)
    with pytest.raises(RecordError, match="empty generator"):
        check_record(operation("elementwise", cube, samples=lambda: iter(())).record)


RIGHT = lambda ops, g, x: ops.multiply(g, ops.multiply(3.0, ops.square(x)))  # noqa: E731


@pytest.mark.parametrize(
    ("check", "forward", "options", "message"),
    [
        ("float32", lambda xp, x, /: xp.asarray(x, dtype=xp.float64) ** 3, {}, "gives float64"),
        ("float16", lambda xp, x, /: ((x + 200) - 200) ** 3, {}, "the float16 value"),
        ("layouts", lambda xp, x, /: xp.reshape(x.copy(order="K").ravel(order="K"), x.shape) ** 3, {}, "inputs"),
        ("0-d and empty", lambda xp, x, /: (xp.zeros_like(x) + x.ravel()[0]) ** 3, {}, "raised IndexError"),
        ("inputs untouched", lambda xp, x, /: x, {}, "lies in its input's memory"),
        ("special values", lambda xp, x, /: x**3, {"special": "wrong value"}, "the value"),
    ],
)
def test_the_checks_of_records_catch_what_they_are_for(check, forward, options, message):
    forward.__name__ = "cube"
    if options:
        options = {"special": (Special((2.0,), 9.0, (12.0,)),)}
    samples = lambda: iter([Sample((np.linspace(0.5, 1.5, 12).reshape(3, 4),))])  # noqa: E731
    rec = Record("cube", "elementwise", forward, derivatives=dict(x=RIGHT), samples=samples, **options)
    with pytest.raises(RecordError, match=message):
        check_record(rec, [check])


def difference(xp, x, y, /):
    return xp.multiply(x, xp.log(y))


PAIR = [Sample((np.linspace(0.5, 1.5, 6).reshape(2, 3), np.linspace(0.6, 2.0, 6).reshape(2, 3)))]
KEPT: list = []


def keeping(xp, x, y, /):
    KEPT.append(x)
    return difference(xp, x, y)


def _slope(ops, g, x, y):
    return ops.divide(ops.multiply(g, x), y)


def _forgets_the_second_walk(ops, g, x, y):
    KEPT.append(g)
    return _slope(ops, g, x, y) if len(KEPT) % 2 else g


def _lazy(ops, needs, g, x, y):
    return [ops.multiply(g, ops.log(y)) if all(needs) else g, _slope(ops, g, x, y)]


def _confuses_lifted_values(ops, g, x, y):
    return _slope(ops, g, x, y) if ops.raw else g


@pytest.mark.parametrize(
    ("check", "forward", "options"),
    [
        ("memory", keeping, {"derivatives": dict(x=lambda ops, g, y: ops.multiply(g, ops.log(y)))}),
        ("freeing", difference, {"derivatives": dict(y=_forgets_the_second_walk)}),
        ("needs", difference, {"derivative": _lazy}),
        ("recorded", difference, {"derivatives": dict(y=_confuses_lifted_values)}),
        # of a number alone `log` makes a float32 tensor, on the default backend
        ("numbers", difference, {"derivatives": dict(x=lambda ops, g, y: ops.multiply(g, ops.log(y)))}),
        ("elsewhere", difference, {"derivatives": dict(x=lambda ops, g, y: ops.multiply(g, ops.log(y)))}),
    ],
)
def test_the_checks_of_what_surrounds_a_rule_catch_what_they_are_for(check, forward, options):
    KEPT.clear()
    rec = Record("difference", "elementwise", forward, samples=lambda: iter(PAIR), **options)
    with pytest.raises((RecordError, TypeError), match=r"difference|different backends"):
        check_record(rec, [check])
    KEPT.clear()
