"""The NumPy backend where it does more than to call NumPy."""

import numpy as np
import pytest
import retrograd as rg
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from retrograd.autograd_core.record import REGISTRY
from retrograd.backends import get_backend, numpy_backend
from retrograd.backends.numpy_kernels import KERNELS, broadcast_to

numpy = get_backend("numpy")


@st.composite
def scatters(draw):
    """A target, an index of rows with repeats and negatives, and values of the target's dtype."""
    dtype = draw(st.sampled_from(["float32", "float64", "int8", "uint64", "complex64"]))
    shape = draw(npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4).filter(lambda s: s[0] > 0))
    places = st.integers(-shape[0], shape[0] - 1)
    rows = draw(npst.arrays("int64", npst.array_shapes(min_dims=0, max_dims=2, min_side=0), elements=places))
    numbers = st.integers(0, 9)
    value = draw(npst.arrays("int64", rows.shape + shape[1:], elements=numbers)).astype(dtype)
    return draw(npst.arrays("int64", shape, elements=numbers)).astype(dtype), rows, value


@given(scatters(), st.integers(1, 8), st.booleans())
def test_rows_are_added_as_numpy_adds_them(scatter, block, transposed):
    target, rows, value = scatter
    expected, mine = target.copy(), target.copy()
    np.add.at(expected, rows, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numpy_backend, "_BLOCK", block)
        if transposed:  # not contiguous: the general way
            mine = np.asfortranarray(mine)
        numpy.scatter_add(mine, rows, value)
    assert mine.tolist() == expected.tolist()


@pytest.mark.parametrize("rows", [[3], [-4], [0, 2**40]])
def test_rows_out_of_range_raise_and_change_nothing(rows):
    target = np.ones((3, 2))
    with pytest.raises(IndexError, match=r"out of bounds for axis 0 with size 3"):
        numpy.scatter_add(target, np.array(rows), np.ones((len(rows), 2)))
    assert (target == 1).all()


def test_the_order_of_adding_is_that_of_the_index():
    """Sums are rounded as they would be one by one: the same with rows and without."""
    value = np.array([1e8, 1.0, -1e8, 1.0], "float32")
    narrow, wide = np.zeros(1, "float32"), np.zeros((1, 3), "float32")
    numpy.scatter_add(narrow, np.zeros(4, int), value)
    numpy.scatter_add(wide, np.zeros(4, int), np.repeat(value[:, None], 3, axis=1))
    assert narrow.tolist() == [1.0]
    assert wide.tolist() == [[1.0, 1.0, 1.0]]


def test_arrays_are_exactly_ndarrays():
    memory = np.ones(3).view(np.matrix)
    assert type(numpy.asarray(memory)) is np.ndarray
    assert numpy.shares_memory(numpy.asarray(memory), memory)
    x = np.ones(3)
    assert numpy.asarray(x) is x
    assert numpy.to_numpy(x) is x
    assert numpy.asarray(x, copy=True) is not x


def test_the_memory_of_the_host_is_not_the_backends_to_tell():
    assert numpy.memory() == {}
    assert numpy.synchronize() is None
    assert numpy.empty_cache() is None


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_quicker_calls_give_the_bits_of_the_forward(name):
    """On the record's samples in every dtype, with attributes given and left out, and on memory in another order."""
    record = REGISTRY[name]
    forward = record.as_written(np.ndarray)
    compared = 0
    for sample in record.samples():
        for dtype in ("float32", "float64", "float16", "int32", "int64", "uint8", "bool"):
            arrays = [np.asarray(v * 4 if dtype != "bool" else v > 0).astype(dtype) for v in sample.inputs]
            if record.floating and np.dtype(dtype).kind != "f":
                continue
            stepped = [np.repeat(a, 2, -1)[..., ::2] if a.ndim else a for a in arrays]
            for operands in (arrays, [np.asfortranarray(a) for a in arrays], stepped):
                without = [{}] if set(record.attributes) == set(record.defaults) else []
                for attributes in [sample.attributes, *without]:
                    expected, got = forward(*operands, **attributes), KERNELS[name](*operands, **attributes)
                    assert type(got) is type(expected)
                    assert got.dtype == expected.dtype
                    np.testing.assert_array_equal(got, expected)
                    compared += 1
    assert compared >= 10


def test_a_broadcast_view_is_no_copy_and_cannot_be_written_to():
    x = np.arange(3.0)
    one = np.array(1.0)
    for array, shape in ((x, (2, 3)), (x[:, None], (3, 4)), (x[::2], (5, 2)), (x[:0], (2, 0)), (one, (2, 2))):
        view = broadcast_to(array, shape)
        np.testing.assert_array_equal(view, np.broadcast_to(array, shape))
        assert view.strides == np.broadcast_to(array, shape).strides
        assert not view.flags.writeable
    x[0] = 7.0
    assert broadcast_to(x, (2, 3))[1, 0] == 7.0
    for wrong in ((2, 2), (1,), (), (3, 0)):
        with pytest.raises(ValueError, match="broadcast"):
            broadcast_to(x, wrong)
    for wrong in ((-1,), (-2, 1), (2, -1)):  # np.ndarray itself takes -1 of one element for 1
        with pytest.raises(ValueError, match="negative"):
            broadcast_to(one, wrong)


@pytest.mark.parametrize("backend", ["numpy", "strict"])
def test_numbers_in_another_byte_order_are_turned(backend):
    """Kernels read the bytes of the machine and would take others for other numbers."""
    values = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    swapped = values.astype(values.dtype.newbyteorder("S"))
    with rg.use_backend(backend):
        for made in (
            rg.asarray(swapped),
            rg.tensor(swapped, requires_grad=True),
            rg.tensor(values, dtype=swapped.dtype),
            rg.tensor(values).astype(swapped.dtype),
        ):
            assert made.dtype is np.dtype(np.float32)  # itself: the quick ways of a call ask no more
            np.testing.assert_array_equal(made.detach().to("numpy").numpy(), values)
        for made in (rg.zeros(2, dtype=swapped.dtype), rg.zeros(2), rg.ones(2, dtype="float32")):
            assert made.dtype is np.dtype(np.float32)
        for function in (rg.softmax, rg.gelu):
            one, other = function(swapped), function(values)
            np.testing.assert_array_equal(one.to("numpy").numpy(), other.to("numpy").numpy())
        with pytest.raises(ValueError, match="copy"):
            rg.asarray(swapped, copy=False)
