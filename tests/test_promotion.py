"""Which dtype comes out, and what stands beside a Tensor: other dtypes, numbers, NumPy scalars, arrays, lists."""

import numpy as np
import pytest
import retrograd as rg

TABLE = [
    # within a kind as NumPy
    ("float16", "float32", "float32"),
    ("float32", "float64", "float64"),
    ("int8", "int16", "int16"),
    ("uint8", "int8", "int16"),
    ("int32", "int64", "int64"),
    ("complex64", "complex128", "complex128"),
    # across kinds the higher kind's dtype, as it is
    ("bool", "int8", "int8"),
    ("bool", "float16", "float16"),
    ("uint8", "float16", "float16"),
    ("int64", "float16", "float16"),
    ("int64", "float32", "float32"),
    ("int64", "float64", "float64"),
    ("int64", "complex64", "complex64"),
    ("float32", "complex64", "complex64"),
    ("float64", "complex64", "complex64"),
]


def one(dtype):
    return rg.tensor(np.ones(2, dtype))


@pytest.mark.parametrize(("a", "b", "common"), TABLE)
def test_two_tensors(a, b, common):
    for result in (
        one(a) + one(b),
        one(b) * one(a),
        rg.where(one("bool"), one(a), one(b)),
        rg.concat([one(b), one(a)]),
    ):
        assert result.dtype == common
    assert rg.add(one(a), one(a)).dtype == a
    assert rg.maximum(one(a), one(b)).dtype == common if "complex64" not in (a, b) else True


def test_a_0d_tensor_is_not_weak_but_has_its_dtype():
    assert (one("float32") * rg.tensor(np.float64(2.0), dtype="float64")).dtype == np.float64


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numbers_do_not_widen_floats(dtype):
    t = one(dtype)
    for number in (2, 2.5, True, np.float64(2.5), np.float32(2.5), np.int64(2), np.bool_(True), np.sqrt(64)):
        for result in (t + number, number - t, t * number, number / t, t**number, rg.maximum(t, number), t > number):
            assert isinstance(result, rg.Tensor)
            assert result.dtype == (bool if result.dtype == bool else dtype)
    assert (t * 1j).dtype == ("complex128" if dtype == "float64" else "complex64")


def test_numbers_of_a_higher_kind_give_the_default_of_that_kind():
    for dtype in ("bool", "uint8", "int64"):
        assert (one(dtype) * 2.5).dtype == np.float32
        assert (one(dtype) * 1j).dtype == np.complex64
    assert (one("bool") + 1).dtype == np.int64
    assert (one("uint8") + 1).dtype == np.uint8
    assert (one("uint8") / 255.0).dtype == np.float32


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
def test_division_and_float_functions_of_integers_give_the_default_float(dtype):
    t = one(dtype)
    for result in (t / t, t / 2, 2 / t, rg.exp(t), rg.sqrt(t), rg.mean(t), rg.softmax(t), rg.var(t)):
        assert result.dtype == np.float32
    assert (t / one("float64")).dtype == np.float64
    assert rg.sum(one("int64")).dtype == np.int64


def test_an_array_or_a_list_is_a_constant():
    x = rg.tensor([1.0, 2.0], requires_grad=True)
    for constant, dtype in (
        (np.array([3.0, 4.0]), np.float64),
        (np.array([3, 4]), np.float32),
        (np.array([3.0, 4.0], np.float32), np.float32),
        ([3.0, 4.0], np.float32),
        ((3, 4), np.float32),
    ):
        for result in (x * constant, rg.multiply(constant, x)):
            assert result.dtype == dtype
            assert result.tolist() == [3.0, 8.0]
            x.grad = None
            result.sum().backward()
            assert x.grad.tolist() == [3.0, 4.0]
            assert x.grad.dtype == np.float32
    assert (np.array([3.0, 4.0]) * x).dtype == np.float64


def test_arrays_alone_give_tensors_of_their_dtype():
    assert rg.exp(np.ones(2)).dtype == np.float64
    assert rg.add(np.ones(2, np.float32), 1.0).dtype == np.float32
    assert rg.exp(1.0).dtype == np.float32
    assert rg.add(1, 2).dtype == np.int64


def test_what_tensor_makes_of_data():
    for data, dtype in (
        ([1, 2, 3], np.int64),
        ([1.0, 2.0], np.float32),
        ([True], bool),
        ([1j], np.complex64),
        (3, np.int64),
        (2.5, np.float32),
        (np.float64(2.5), np.float64),
        (np.ones(2, np.float16), np.float16),
        ([np.float64(1.0)], np.float64),
        ([], np.float32),
        (range(3), np.int64),
    ):
        assert rg.tensor(data).dtype == dtype
    array = np.ones(2)
    copied, shared = rg.tensor(array), rg.asarray(array)
    array[0] = 5.0
    assert copied.tolist() == [1.0, 1.0]
    if shared.backend.name == "numpy":
        assert shared.tolist() == [5.0, 1.0]
    assert rg.asarray(shared) is shared


def test_reductions_give_tensors_of_no_axes_never_scalars():
    x = rg.tensor([[1.0, 2.0]])
    for result in (x.sum(), x.mean(), x.max(), rg.std(x), rg.argmax(x), rg.all(x > 0), x[0, 0], x[0] @ x[0]):
        assert isinstance(result, rg.Tensor)
        assert result.shape == ()
        assert type(result.array) is x.backend.array_type


def test_bounds_of_clip_promote_as_other_numbers_do():
    whole = rg.tensor([1, 4])
    assert whole.clip(0, 2).dtype == np.int64
    assert whole.clip(0.5, 2).tolist() == [1.0, 2.0]
    assert whole.clip(0.5, 2).dtype == np.float32
    assert rg.tensor([1.0]).clip(0, 2.5).dtype == np.float32


@pytest.mark.parametrize("dtype", [object, "U3", "M8[s]"])
def test_what_is_no_dtype_of_numbers_is_refused(dtype):
    for make in (lambda: rg.zeros(2, dtype=dtype), lambda: rg.arange(2, dtype=dtype), lambda: rg.ones(2).astype(dtype)):
        with pytest.raises(TypeError, match="is no dtype of numbers"):
            make()


def test_arange_and_one_hot_refuse_what_they_cannot_use():
    with pytest.raises(ValueError, match="arange from 0 to 5 needs a step other than 0"):
        rg.arange(0, 5, 0)
    with pytest.raises(TypeError, match="one_hot expects integer classes, got float32"):
        rg.one_hot(rg.tensor([1.0]), 3)
