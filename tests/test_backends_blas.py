"""The threads of NumPy's matrix products."""

import numpy as np
import pytest
from retrograd.backends import BackendError, blas, get_backend


@pytest.fixture
def known_blas():
    if blas.find() is None:
        pytest.skip("NumPy stands on a BLAS that cannot be told its threads here")
    before = blas.num_threads()
    yield
    blas.set_num_threads(before)


@pytest.mark.usefixtures("known_blas")
def test_threads_are_set_and_read():
    backend = get_backend("numpy")
    for n in (2, 1):
        backend.set_num_threads(n)
        assert backend.num_threads == n
        x = np.arange(9.0).reshape(3, 3)
        assert (x @ np.eye(3) == x).all()


@pytest.mark.usefixtures("known_blas")
@pytest.mark.parity
def test_threadpoolctl_sees_the_same():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    blas.set_num_threads(2)
    seen = {p["num_threads"] for p in threadpoolctl.threadpool_info() if p["filepath"] == blas.describe()["file"]}
    assert seen <= {2}


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", None])
def test_a_number_of_threads_is_a_positive_integer(n):
    with pytest.raises(ValueError, match="positive integer"):
        get_backend("numpy").set_num_threads(n)


def test_an_unknown_blas_names_the_environment_variables(monkeypatch):
    monkeypatch.setattr(blas, "find", lambda: None)
    for call in (blas.num_threads, lambda: blas.set_num_threads(2)):
        with pytest.raises(BackendError, match=r"OPENBLAS_NUM_THREADS.*before Python starts"):
            call()
    assert blas.describe()["threads"] is None


def test_libraries_without_the_calls_are_passed_over(monkeypatch):
    monkeypatch.setattr(blas, "_candidates", lambda: ["/no/such/library.so"])
    assert blas.find.__wrapped__() is None
