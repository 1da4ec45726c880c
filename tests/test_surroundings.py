"""What surrounds a call: threads, backends, anomaly mode; and what an error looks like from where the user stands."""

import threading
import traceback
from contextvars import copy_context

import numpy as np
import pytest
import retrograd as rg


def leaf(*values):
    return rg.tensor(np.array(values, np.float64), requires_grad=True)


def in_a_thread(function, *args):
    """The result of a function, run in a thread of its own."""
    results, errors = [], []

    def run():
        try:
            results.append(function(*args))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


# -- threads ----------------------------------------------------------------------------------------------------


def test_a_thread_starts_from_the_defaults_and_keeps_its_switches_to_itself():
    x = leaf(1.0)
    with rg.no_grad(), rg.use_backend("strict"):
        assert in_a_thread(lambda: (x * 2).requires_grad)
        assert in_a_thread(lambda: rg.zeros(1).backend.name) == rg.backends.default_backend().name
        assert in_a_thread(copy_context().run, rg.is_grad_enabled) is False
    go, seen = threading.Barrier(2, timeout=30), {}

    def work(name, mode, backend):
        with mode(), rg.use_backend(backend):
            go.wait()
            for _ in range(50):
                t = rg.tensor([1.0, 2.0], requires_grad=True)
                y = t * 3
                seen.setdefault(name, set()).add((y.requires_grad, y.backend.name))
            go.wait()

    threads = [
        threading.Thread(target=work, args=("a", rg.no_grad, "numpy")),
        threading.Thread(target=work, args=("b", rg.enable_grad, "strict")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"a": {(False, "numpy")}, "b": {(True, "strict")}}
    assert rg.is_grad_enabled()


def test_walks_of_separate_graphs_run_side_by_side():
    def work(seed):
        x = leaf(*np.linspace(0.1, 1.0, 7) * seed)
        for _ in range(20):
            (rg.sin(x) * x).sum().backward()
        return x.grad.numpy()

    got = [None] * 4
    threads = [threading.Thread(target=lambda i=i: got.__setitem__(i, work(i + 1))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, g in enumerate(got):
        v = np.linspace(0.1, 1.0, 7) * (i + 1)
        np.testing.assert_allclose(g, 20 * (np.cos(v) * v + np.sin(v)), rtol=1e-12)


# -- backends ---------------------------------------------------------------------------------------------------


def on(name, *values):
    with rg.use_backend(name):
        return rg.tensor(np.array(values, np.float32))


def test_tensors_of_two_backends_do_not_mix():
    here, there = on("numpy", 1.0, 2.0), on("strict", 3.0, 4.0)
    for mixed in (lambda: here + there, lambda: rg.concat([here, there]), lambda: rg.where(here > 0, there, 1.0)):
        with pytest.raises(TypeError) as caught:
            mixed()
        text = str(caught.value)
        assert "different backends" in text
        assert "(2,) on numpy" in text
        assert "(2,) on strict" in text
        assert '.to("' in text or ".to('" in text
    assert (here + there.to("numpy")).tolist() == [4.0, 6.0]
    with pytest.raises(TypeError, match=r"\.to\('numpy'\)"):
        here.copy_(there)


def test_operations_follow_their_operands():
    x = on("strict", 1.0, 2.0)
    assert (x * 2 + 1).backend.name == "strict"
    assert rg.sum(x).backend.name == "strict"
    with rg.use_backend("strict"):
        assert (on("numpy", 1.0) * 2).backend.name == "numpy"


def test_an_ndarray_beside_a_tensor_is_a_constant_and_goes_where_the_tensor_is():
    for name in ("numpy", "strict"):
        with rg.use_backend(name):
            x = leaf(1.0, 2.0)
        c = np.array([10.0, 20.0])
        for result in (x * c, c * x, np.multiply(c, x), rg.multiply(c, x)):
            assert isinstance(result, rg.Tensor)
            assert result.backend.name == name
            assert result.tolist() == [10.0, 40.0]
            x.grad = None
            result.sum().backward()
            assert x.grad.tolist() == [10.0, 20.0]
            assert x.grad.backend.name == name
        assert (c - x).tolist() == [9.0, 18.0]
        assert (np.eye(2) @ x).tolist() == [1.0, 2.0]
        assert (c < x * 15).tolist() == [True, True]


def test_gradients_travel_back_over_a_transfer():
    x = on("numpy", 1.0, 2.0).requires_grad_()
    y = (x * 2).to("strict")
    (y * y).sum().backward()
    assert x.grad.backend.name == "numpy"
    assert x.grad.tolist() == [8.0, 16.0]
    x.grad = None
    (x.to("strict") ** 3).sum().backward(create_graph=True)
    g, x.grad = x.grad, None
    g.sum().backward()
    assert x.grad.tolist() == [6.0, 12.0]


# -- anomaly mode -----------------------------------------------------------------------------------------------


def here(offset=0):
    """File and line of the caller, some lines further on."""
    frame = traceback.extract_stack()[-2]
    return f"{frame.filename}:{frame.lineno + offset}"


def test_anomaly_mode_names_the_operation_that_made_a_nan_and_the_line():
    x = leaf(-1.0)
    with np.errstate(all="ignore"), rg.detect_anomaly():
        line = here(2)
        with pytest.raises(FloatingPointError) as caught:
            rg.log(x)
    assert "log" in str(caught.value)
    assert line in str(caught.value)


def test_anomaly_mode_names_the_operation_whose_gradient_is_a_nan_and_its_line():
    x = leaf(0.0)
    with np.errstate(all="ignore"), rg.detect_anomaly():
        line = here(1)
        y = rg.sqrt(x) * 0.0
        with pytest.raises(FloatingPointError) as caught:
            y.sum().backward()
    assert "gradient of sqrt" in str(caught.value)
    assert line in str(caught.value)


def test_anomaly_mode_adds_the_line_to_a_version_error_and_passes_right_programs():
    x = leaf(1.0)
    with rg.detect_anomaly():
        line = here(1)
        y = x * x
        with rg.no_grad():
            x.add_(1)
        with pytest.raises(RuntimeError) as caught:
            y.backward()
        assert f"gradient of multiply at {line} needs" in str(caught.value)
        rg.sum(rg.sin(x)).backward()
        x.grad = None
        (x**3).backward(create_graph=True)
        x.grad.backward()


# -- errors as the user sees them -------------------------------------------------------------------------------


def framework_frames(call):
    """How many frames of the framework an error shows below the last line of this file, and the error."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    error = caught.value
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    last = max(i for i, name in enumerate(frames) if name == __file__)
    return len(frames) - 1 - last, error


def mutated(x):
    y = x * x
    with rg.no_grad():
        x.add_(1)
    return y.sum()


def freed(x):
    y = (x * x).sum()
    y.backward()
    return y


def hooked(x, hook):
    y = x * 2
    y.register_hook(hook)
    return y.sum()


ERRORS = {
    "shapes": lambda x: x + rg.ones(3),
    "operator": lambda x: x @ rg.ones(3),
    "ndarray": lambda x: np.ones(3) * x,
    "numpy function": lambda x: np.add(x, np.ones(3)),
    "axis": lambda x: rg.sum(x, axis=5),
    "method": lambda x: x.sum(axis=5),
    "dim": lambda x: x.sum(dim=0),
    "unknown keyword": lambda x: rg.sum(x, axes=0),
    "too many arguments": lambda x: rg.exp(x, x, x),
    "no number": lambda x: rg.exp("text"),
    "reshape": lambda x: x.reshape(7),
    "index": lambda x: x[7],
    "index type": lambda x: x["a"],
    "float index": lambda x: x[1.5],
    "concat": lambda x: rg.concat([x, rg.ones(2, 2)]),
    "einsum": lambda x: rg.einsum("ij->i", x),
    "mixed": lambda x: on("numpy", 1.0) + on("strict", 1.0),
    "not one element": lambda x: (x * x).backward(),
    "wrong cotangent": lambda x: (x * x).backward(np.ones(3)),
    "freed": lambda x: freed(x).backward(),
    "mutated": lambda x: mutated(x).backward(),
    "no graph": lambda x: x.detach().backward(),
    "inputs": lambda x: (x * x).sum().backward(inputs=[x.detach()]),
    "rg.backward": lambda x: rg.backward([x * x], [None]),
    "rg.grad": lambda x: rg.grad(lambda v: v * 2)(x),
    "item": lambda x: x.item(),
    "bool": lambda x: bool(x),
    "float": lambda x: float(x),
    "asarray": lambda x: np.asarray(x),
    "len": lambda x: len(x.sum()),
    "tensor of text": lambda x: rg.tensor("text"),
    "ragged": lambda x: rg.tensor([[1, 2], [3]]),
    "requires_grad": lambda x: rg.tensor([1], requires_grad=True),
    "zeros": lambda x: rg.zeros(-1),
    "backend": lambda x: x.to("nowhere"),
    "use_backend": lambda x: rg.use_backend("nowhere"),
    "in place": lambda x: x.add_(1),
    "in place on a result": lambda x: (x * 2).mul_(2),
    "augmented": lambda x: x.__iadd__(1),
    "in place shape": lambda x: x.detach().copy_(np.ones(3)),
    "setitem": lambda x: x.__setitem__(0, 1.0),
    "data": lambda x: setattr(x, "data", np.ones(3)),
    "no operand": lambda x: rg.relu(None),
    "one operand": lambda x: rg.matmul(x, None),
    "bound of a slice": lambda x: x[0.5:],
    "hook": lambda x: x.detach().register_hook(print),
    "anomaly": lambda x: rg.detect_anomaly().__enter__() or rg.log(-x),
}


@pytest.mark.parametrize("name", [name for name in ERRORS if name != "anomaly"])
def test_at_most_one_frame_of_the_framework_stands_below_the_users_line(name):
    frames, error = framework_frames(lambda: ERRORS[name](leaf(1.0, 2.0)))
    assert frames <= 1, "".join(traceback.format_exception(error))


def test_an_error_in_the_users_own_function_shows_where_it_happened():
    def hook(g):
        return g + rg.ones(3)

    for call in (
        lambda: hooked(leaf(1.0, 2.0), hook).backward(),
        lambda: rg.grad(hook)(leaf(1.0, 2.0)),
        lambda: rg.value_and_grad(hook)(np.ones(2)),
    ):
        frames, error = framework_frames(call)
        assert frames <= 1
        assert traceback.extract_tb(error.__traceback__)[-2].name == "hook"


def test_the_full_traceback_is_a_variable_away(monkeypatch):
    monkeypatch.setenv("RETROGRAD_TRACEBACK", "full")
    for name in ("freed", "shapes"):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            ERRORS[name](leaf(1.0, 2.0))
        names = [f.f_globals["__name__"] for f, _ in traceback.walk_tb(caught.value.__traceback__)]
        assert sum(n.startswith("retrograd.") for n in names) > (2 if name == "freed" else 0)


def test_errors_say_what_was_called_on_what():
    x = leaf(1.0, 2.0)
    for call, parts in (
        (lambda: x + rg.ones(3), ["add(x: float64 tensor (2,), y: float32 tensor (3,))", "broadcast"]),
        (lambda: rg.sum(x, axis=5), ["sum(x: float64 tensor (2,), axis=5", "out of bounds"]),
        (lambda: x.sum(dim=0), ["sum takes axis=, as in NumPy, not dim="]),
        (lambda: x.reshape(7), ["reshape(x: float64 tensor (2,)", "number of elements"]),
        (lambda: rg.exp("text"), ["exp(x: 'text')", "expected a Tensor, an array or a number, got str"]),
        (lambda: rg.sum(x, axes=0), ["sum has no argument 'axes'"]),
        (lambda: rg.relu(None), ["relu()", "expected a Tensor, an array or a number, got NoneType"]),
        (lambda: rg.matmul(x, None), ["matmul(x: float64 tensor (2,))", "got NoneType"]),
        (lambda: x.reshape(1, 2) @ x.reshape(1, 2), ["the last axis of the first operand must be as long as"]),
        (lambda: x[0.5:], ["getitem(x: float64 tensor (2,))", "'float'", "integer"]),
        (lambda: x.sum(0, axis=0), ["sum expects (x, axis=None, keepdims=False), got 2 positional", "['axis']"]),
        (lambda: rg.sum(x, 0, True, 1), ["got 4 positional arguments"]),
        (lambda: rg.sum(keepdims=True), ["got 0 positional arguments and ['keepdims']"]),
    ):
        with pytest.raises((ValueError, TypeError)) as caught:
            call()
        for part in parts:
            assert part in str(caught.value)


def test_attributes_by_place_and_by_name_mean_the_same():
    x = rg.tensor(np.arange(24.0).reshape(2, 3, 4), requires_grad=True)
    for one, other in (
        (x.sum(1), x.sum(axis=1)),
        (x.sum((0, 2), True), x.sum(axis=(0, 2), keepdims=True)),
        (x.sum([0, 2], keepdims=True), x.sum(axis=(0, 2), keepdims=True)),
        (rg.max(x, np.int64(1)), rg.max(x, axis=1)),
        (x.softmax(-1), rg.softmax(x=x, axis=-1)),
        (rg.max_pool2d(x, 2, 1), rg.max_pool2d(x, kernel_size=2, stride=1)),
    ):
        np.testing.assert_array_equal(one.detach().numpy(), other.detach().numpy())


def test_numpy_classes_of_errors_are_kept():
    with pytest.raises(np.exceptions.AxisError):
        rg.sum(leaf(1.0), axis=5)
    with pytest.raises(IndexError):
        leaf(1.0)[7]
    with pytest.raises(ValueError, match="broadcast"):
        leaf(1.0, 2.0) + rg.ones(3)


def test_unknown_operands_are_left_to_the_other_side():
    class Other:
        def __radd__(self, x):
            return "theirs"

    assert leaf(1.0) + Other() == "theirs"
    with pytest.raises(TypeError, match="unsupported operand"):
        leaf(1.0) + object()
    assert (leaf(1.0) == "text") is False


@pytest.mark.filterwarnings("error")
def test_anomaly_mode_raises_its_own_error_without_a_warning_of_numpy_before():
    with rg.detect_anomaly(), pytest.raises(FloatingPointError, match="sqrt made a NaN"):
        rg.sqrt(rg.tensor([-1.0]))
