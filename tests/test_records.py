"""Every operation, by its record: each check of `retrograd.testing.records` on each record there is."""

import pytest
import retrograd as rg  # noqa: F401  defines the operations
from retrograd.autograd_core.record import REGISTRY
from retrograd.backends import BackendError, get_backend
from retrograd.testing.records import CHECKS, numpy_like_cupy

# `name.vjp` records come into being when a fused operation's backward is recorded; they have no life of their own.
RECORDS = [rec for name, rec in REGISTRY.items() if not name.endswith(".vjp")]


def test_there_are_records():
    assert len(RECORDS) > 80


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("rec", RECORDS, ids=lambda rec: rec.name)
def test_record(rec, check):
    CHECKS[check](rec)


@pytest.mark.gpu
@pytest.mark.parametrize("rec", RECORDS, ids=lambda rec: rec.name)
def test_record_on_a_device(rec):
    try:
        get_backend("cupy")
    except BackendError as error:
        pytest.skip(str(error))
    numpy_like_cupy(rec)
