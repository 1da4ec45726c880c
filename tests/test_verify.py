"""`verify=True` where rounding decides: no false alarm, and no mistake that goes unseen behind it."""

from __future__ import annotations

import pytest
import retrograd as rg
from retrograd.autograd_core.recorder import RecordingError


def trained(verify):
    """A bias in front of a normalization has no gradient but rounding errors, of which Adam makes whole steps."""
    rg.manual_seed(0)
    net = rg.nn.Sequential(rg.nn.Linear(6, 32), rg.nn.BatchNorm1d(32), rg.nn.Tanh(), rg.nn.Linear(32, 1))
    optimizer = rg.optim.Adam(net.parameters(), lr=0.1)

    @rg.compile
    def step(x, y):
        loss = rg.nn.functional.mse_loss(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    step.verify = verify
    for _ in range(8):
        step(rg.randn(16, 6), rg.randn(16, 1))
    return step


def test_differences_that_rounding_makes_are_no_alarm():
    trained(verify=True)


def test_mistakes_are_seen_beside_them():
    step = trained(verify=False)
    step.verify = True
    del step.program.instructions[-1]
    with pytest.raises(RecordingError, match=r"verify: .* differs from eager"):
        step(rg.randn(16, 6), rg.randn(16, 1))
