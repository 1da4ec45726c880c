"""Gradients that a compiled function does not make: what was there before a call is there after it."""

from __future__ import annotations

import numpy as np
import pytest
import retrograd as rg


@pytest.mark.parametrize("touched", [False, True])
def test_gradients_that_a_call_leaves_are_not_lost_to_the_next(touched):
    torso, head = rg.nn.Linear(6, 5), rg.nn.Linear(5, 2)
    optimizer = rg.optim.SGD([*torso.parameters(), *head.parameters()], lr=0.1)

    @rg.compile
    def look(x):
        if touched:
            optimizer.step()
        with rg.no_grad():
            return head(torso(x)).sum()

    head(torso(rg.ones(4, 6))).square().sum().backward()
    before = [p.grad.numpy().copy() for group in optimizer.param_groups for p in group["params"]]
    for n in (8, 3, 8, 3, 5, 8, 3, 5) * 2:  # programs that lie in the same memory
        look(rg.ones(n, 6))
        for p, grad in zip(optimizer.param_groups[0]["params"], before, strict=True):
            np.testing.assert_array_equal(p.grad.numpy(), grad)
    if not touched:
        assert not any(program.grads for program in look.programs.values())  # nothing is copied in and out
