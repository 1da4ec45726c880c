"""Hand-written forwards and rules that can be told where to write: the same numbers, wherever the places lie."""

from __future__ import annotations

import numpy as np
import pytest
from retrograd.autograd_core.record import REGISTRY, raw_ops, takes_places
from retrograd.autograd_core.vjp import vjp_record

OPS = raw_ops(np.ndarray)
FORWARDS = sorted(rec.name for rec in REGISTRY.values() if takes_places(rec.fast))
RULES = sorted(rec.name for rec in REGISTRY.values() if takes_places(rec.joint))


def batch_last(array):
    """A place of that shape and dtype whose memory has the first axis last, and nonsense in it."""
    axes = (*range(1, array.ndim), 0)
    place = np.full([array.shape[a] for a in axes], 77, array.dtype)
    return place.transpose([axes.index(a) for a in range(array.ndim)])


def as_it_comes(array):
    return np.full(array.shape, 77, array.dtype)


def samples(rec, dtype):
    for sample in rec.samples():
        arrays = [a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in sample.inputs]
        arrays += [None] * (len(rec.inputs) - len(arrays))
        yield arrays, rec.defaults | sample.attributes


def test_convolution_and_pooling_do():
    assert {"conv2d", "max_pool2d"} <= set(FORWARDS) & set(RULES)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("lying", [batch_last, as_it_comes])
@pytest.mark.parametrize("name", FORWARDS)
def test_forwards(name, lying, dtype):
    rec, written = REGISTRY[name], 0
    for arrays, attributes in samples(rec, dtype):
        plain = rec.fast(OPS, *arrays, **attributes)
        results = plain if rec.residuals else (plain,)
        places = [lying(r) for r in results]
        found = rec.fast(OPS, *arrays, **attributes, places=places)
        for place, one, other in zip(places, results, found if rec.residuals else (found,), strict=True):
            np.testing.assert_array_equal(other, one)
            assert other is place or not np.may_share_memory(other, place)
            written += other is place
    assert written or dtype == "float16" or lying is as_it_comes


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("lying", [batch_last, as_it_comes])
@pytest.mark.parametrize("name", RULES)
def test_rules(name, lying, dtype):
    rec, written = REGISTRY[name], 0
    rule = vjp_record(rec).as_written(np.ndarray)
    for arrays, attributes in samples(rec, dtype):
        made = rec.fast(OPS, *arrays, **attributes)
        out, *residuals = made if rec.residuals else (made,)
        needs = tuple(i < 2 and a is not None for i, a in enumerate(arrays))
        values = {"residual": residuals, "attribute": attributes, "input": arrays}
        given = [np.ones_like(out), *[values[source][key] for source, key in rec.joint_reads]]
        plain = rule(layout=given, needs=needs)
        places = [lying(g) for g in plain]
        found = rule(layout=given, needs=needs, places=places)
        for place, one, other in zip(places, plain, found, strict=True):
            np.testing.assert_array_equal(other, one)
            assert other is place or not np.may_share_memory(other, place)
            written += other is place
    assert written or dtype == "float16" or lying is as_it_comes
