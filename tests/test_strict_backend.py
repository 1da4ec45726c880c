"""The strict backend: each way in which CuPy differs from NumPy, and that a GPU would punish, is an error here."""

import copy
import operator
import pickle

import numpy as np
import pytest
from retrograd.backends import get_backend
from retrograd.backends.strict_sync import HostTransferError, counts, no_sync

strict = get_backend("strict")
xp = strict.xp
HOST = np.arange(6, dtype="float32").reshape(2, 3)


def device(data=HOST):
    return strict.asarray(data, copy=True)


def values(array):
    return strict.to_numpy(array).tolist()


@pytest.mark.parametrize(
    "convert",
    [np.asarray, np.array, np.exp, np.sum, np.shape, lambda x: np.concatenate([x, x]), lambda x: np.add(x, 1)],
)
def test_nothing_becomes_a_numpy_array_by_itself(convert):
    with pytest.raises(TypeError, match=r"\.get\(\)|use xp\."):
        convert(device())


@pytest.mark.parametrize("name", ["add", "mul", "truediv", "matmul", "lt", "eq", "pow", "iadd"])
@pytest.mark.parametrize("swapped", [False, True])
def test_host_arrays_do_not_mix(name, swapped):
    pair = (HOST, device()) if swapped else (device(), HOST)
    with pytest.raises(TypeError):
        getattr(operator, name)(*pair)


@pytest.mark.parametrize("scalar", [2, 2.5, True, np.float32(2), np.float64(2.5), np.int8(3)])
def test_scalars_mix_as_in_numpy(scalar):
    for apply in (lambda x: x * scalar, lambda x: scalar - x, lambda x: x > scalar):
        got, expected = apply(device()), apply(HOST)
        assert (values(got), got.dtype) == (expected.tolist(), expected.dtype)


def test_results_are_arrays_even_without_dimensions():
    x = device()
    results = [x.sum(), x[0, 1], xp.max(x), x[0] @ x[0], xp.linalg.norm(x)]
    for result in [*results, xp.count_nonzero(x), xp.array_equal(x, x)]:
        assert type(result) is strict.array_type
        assert result.shape == ()


def test_an_element_is_a_view():
    x = device()
    element = x[1, 2]
    element += 10
    assert values(x)[1][2] == 15.0


MISSING = ["vecdot", "insert", "errstate", "block", "nanpercentile", "einsum_path", "seterr"]


@pytest.mark.parametrize("name", MISSING)
def test_functions_that_cupy_lacks_are_missing(name):
    assert not hasattr(xp, name)
    with pytest.raises(AttributeError, match=f"cupy has no '{name}'"):
        getattr(xp, name)


def test_whole_rooms_that_cupy_lacks_are_missing():
    for absent in ("vector_norm", "svdvals", "multi_dot"):
        assert not hasattr(xp.linalg, absent)
    for absent in ("setflags", "__array_namespace__", "__index__", "ctypes", "resize"):
        assert not hasattr(device(), absent)
    with pytest.raises(AttributeError, match="no stand-in"):
        xp.random  # draws go through the backend


CALLS = {
    "sum where": lambda x: xp.sum(x, where=x > 0),
    "max initial": lambda x: xp.max(x, initial=0.0),
    "method initial": lambda x: x.max(initial=0.0),
    "ufunc where": lambda x: xp.add(x, x, where=x > 0),
    "sort stable": lambda x: xp.sort(x, stable=True),
    "clip min": lambda x: xp.clip(x, min=1),
    "std correction": lambda x: xp.std(x, correction=1),
    "einsum out": lambda x: xp.einsum("ij->i", x, out=x[:, 0]),
    "take mode": lambda x: xp.take(x, x, mode="clip"),
    "astype casting": lambda x: x.astype("float64", casting="safe"),
    "list to a ufunc": lambda x: xp.exp([1.0]),
    "list to a function": lambda x: xp.sum([1.0, 2.0]),
    "scalar to broadcast_to": lambda x: xp.broadcast_to(1.0, (3,)),
    "host array to a function": lambda x: xp.concatenate([x, HOST]),
    "host array to a ufunc": lambda x: xp.add(x, HOST),
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments_that_cupy_does_not_take_raise(name):
    with pytest.raises(TypeError):
        CALLS[name](device())


def test_ufunc_methods_are_cupys_few():
    x = device()
    assert values(xp.add.reduce(x, axis=1)) == [3.0, 12.0]
    assert values(xp.multiply.accumulate(x, axis=1)) == [[0.0, 0.0, 0.0], [3.0, 12.0, 60.0]]
    assert values(xp.add.outer(x[0], x[0])) == np.add.outer(HOST[0], HOST[0]).tolist()
    xp.maximum.at(x, (0, xp.asarray([0, 0])), 7.0)
    assert values(x)[0] == [7.0, 1.0, 2.0]
    absent = {"maximum": "reduce", "logical_and": "accumulate", "multiply": "reduceat", "divide": "at"}
    for ufunc, method in absent.items():
        assert not hasattr(getattr(xp, ufunc), method)


def test_where_wants_an_array_as_condition():
    x = device()
    with pytest.raises(AttributeError, match="'bool' object has no attribute 'astype'"):
        xp.where(True, x, x)
    assert values(xp.where(x > 2, x, 0)) == np.where(HOST > 2, HOST, 0).tolist()


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex64"])
def test_empty_is_poison(dtype):
    for array in (xp.empty((2, 3), dtype), xp.empty_like(device(HOST.astype(dtype)))):
        assert np.isnan(strict.to_numpy(array)).all()
    assert (strict.to_numpy(xp.empty((4,), "int32")) > 10**8).all()


def test_an_index_without_dimensions_copies():
    x, i = device(), device(np.array(0))
    for part in (x[i], x[:, i], x[i, i]):
        before = values(part)
        x[...] = x + 1
        assert values(part) == before  # a view made from a value would be frozen in a program


def test_indices_out_of_range_wrap_around():
    x = device()
    assert values(x[xp.asarray([2, -3])]) == HOST[[0, 1]].tolist()
    assert values(x[:, xp.asarray([3, 4])]) == HOST[:, [0, 1]].tolist()
    assert values(x[..., xp.asarray([5])]) == HOST[:, [2]].tolist()
    assert values(x[None, xp.asarray([5]), xp.asarray([7])]) == HOST[None, [1], [1]].tolist()
    assert values(xp.take(x, xp.asarray([3]), axis=1)) == HOST[:, [0]].tolist()
    assert values(xp.take_along_axis(x, xp.asarray([[3], [4]]), 1)) == [[0.0], [4.0]]
    x[xp.asarray([3])] = 9.0
    assert values(x)[1] == [9.0, 9.0, 9.0]
    strict.scatter_add(x, xp.asarray([5, 1]), 1.0)
    assert values(x)[1] == [11.0, 11.0, 11.0]
    with pytest.raises(IndexError):
        x[2]


@pytest.mark.parametrize("value", [HOST, [1.0, 2.0, 3.0], "text", None])
def test_only_own_arrays_and_scalars_are_assigned(value):
    x = device()
    with pytest.raises((TypeError, ValueError)):
        x[:] = value
    assert values(x) == HOST.tolist()


def test_sliding_window_view_is_closed_and_as_strided_open():
    x = device()
    with pytest.raises(NotImplementedError, match="as_strided"):
        xp.lib.stride_tricks.sliding_window_view(x, 2, 1)
    windows = xp.lib.stride_tricks.as_strided(x, (2, 2, 2), (12, 4, 4))
    assert values(windows) == np.lib.stride_tricks.sliding_window_view(HOST, 2, 1).tolist()


@pytest.mark.parametrize("name", ["cholesky", "inv"])
def test_a_matrix_that_cannot_be_factorized_gives_garbage(name):
    assert np.isnan(strict.to_numpy(getattr(xp.linalg, name)(xp.zeros((2, 2))))).all()
    with pytest.raises(np.linalg.LinAlgError, match="must be square"):
        getattr(xp.linalg, name)(xp.zeros((2, 3)))


READS = {
    "float": lambda x: float(x[0, 0]),
    "int": lambda x: int(x[0, 0]),
    "bool": lambda x: bool((x > 0).all()),
    "complex": lambda x: complex(x[0, 0]),
    "item": lambda x: x[0, 0].item(),
    "get": lambda x: x.get(),
    "to_numpy": strict.to_numpy,
    "tolist": lambda x: x.tolist(),
    "format": lambda x: f"{x[0, 0]}",
    "a mask": lambda x: x[x > 0],
    "a mask that is assigned to": lambda x: x.__setitem__(x > 0, 1.0),
    "nonzero": lambda x: xp.nonzero(x),
    "the method nonzero": lambda x: x.nonzero(),
    "where of one": lambda x: xp.where(x > 0),
    "unique": lambda x: xp.unique(x),
    "bincount": lambda x: xp.bincount(x.astype("int64").reshape(-1)),
    "repeat by an array": lambda x: xp.repeat(x[0], xp.asarray([1, 2, 3])),
}


@pytest.mark.parametrize("name", READS)
def test_reading_a_value_is_counted_and_can_be_refused(name):
    x = device()
    before = counts().syncs
    READS[name](x)
    assert counts().syncs > before
    with no_sync(), pytest.raises(HostTransferError):
        READS[name](x)
    READS[name](x)


def test_a_step_of_arithmetic_reads_nothing():
    x, w = device(), device(HOST.T)
    before = counts()
    with no_sync():
        y = xp.tanh(x @ w)
        y -= xp.mean(y, axis=1, keepdims=True)
        loss = xp.where(y > 0, y, 0.0).sum() / y.size
        strict.scatter_add(w, (slice(0, 1),), 1.0)
        strict.uniform(1, 2, (3,))
        repr(loss)
    assert counts() == before


def test_uploads_are_counted():
    x = device()
    before = counts().uploads
    xp.asarray(HOST), x[[0, 1]], x[HOST[0].astype(int)]
    assert counts().uploads == before + 3
    xp.asarray(x), x[xp.zeros(2, "int64")], x * 2.0
    assert counts().uploads == before + 3


def test_out_is_filled_and_given_back():
    x, out = device(), xp.empty((2, 3), "float32")
    assert xp.add(x, x, out=out) is out
    assert values(out) == (2 * HOST).tolist()
    assert xp.multiply(x, 3, out) is out
    assert xp.sum(x, axis=0, out=out[0]) is not out
    assert values(out) == [[3.0, 5.0, 7.0], (3 * HOST[1]).tolist()]
    total = xp.zeros((2,), "float32")
    assert x.sum(axis=1, out=total) is total
    assert values(total) == [3.0, 12.0]


def test_in_place_operators_keep_the_array():
    x = device()
    same, view = x, x[0]
    x += 1
    x *= device()
    assert same is x
    assert values(view) == ((HOST + 1) * HOST)[0].tolist()
    scalar = xp.asarray(3.0)
    scalar -= 1
    assert (scalar.shape, float(scalar)) == ((), 2.0)


def test_arrays_are_copied_and_pickled_but_not_hashed():
    x = device()
    for twin in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert values(twin) == HOST.tolist()
        assert not strict.shares_memory(twin, x)
    with pytest.raises(TypeError):
        hash(x)


def test_host_data_is_copied_on_its_way_in_and_out():
    host = HOST.copy()
    x = strict.asarray(host)
    host += 1
    strict.to_numpy(x)[:] = 5
    x.get()[:] = 5
    assert values(x) == HOST.tolist()
    with pytest.raises(ValueError, match="copy=False"):
        strict.asarray(host, copy=False)
    x.set(host)
    assert values(x) == host.tolist()
    with pytest.raises(ValueError, match="shape"):
        x.set(host[:1])


def test_wrapped_functions_stand_on_the_namespace():
    assert xp.exp is xp.exp
    assert vars(xp)["exp"] is xp.exp
    assert xp.linalg is xp.linalg
    assert xp.float32 is np.float32
    assert xp.newaxis is None
