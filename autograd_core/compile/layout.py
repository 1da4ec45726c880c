"""Which weights had better lie transposed in memory.

A linear layer multiplies by the transpose of its weight, and only the way back to its input multiplies by the weight as
it is. BLAS is quickest where the second factor lies row by row; one that lies otherwise is packed anew for each product
(a tenth to a quarter of its time, where batches are small). So a weight that is read transposed only, as that of the
first layer of a network, whose input wants no gradient, had better lie as (in, out), with the shape (out, in) as ever.
"""

from __future__ import annotations

import numpy as np

from ..recorder import Value
from .tape import Tape

NARROW = 32  # below, products with few columns are quicker the other way


def lie_better_transposed(tape: Tape) -> set[int]:
    """ids of the arrays of all matrices from outside that products read as their second factor, transposed, only."""
    turns = [s for s in tape.steps if s.record is not None and s.record.name == "transpose"]
    sources = {s.outputs[0]: s.inputs[0].number for s in turns}
    transposed: set[int] = set()
    otherwise: set[int] = set()
    for step in tape.steps:
        if step.record is None or step.record.name not in ("matmul", "linear"):
            continue
        for position, value in enumerate(step.inputs):
            if isinstance(value, Value):
                number, turned = value.number, step.record.name == "linear"
                while number in sources:
                    number, turned = sources[number], not turned
                (transposed if turned and position == 1 else otherwise).add(number)
    arrays = [tensor.array for number, tensor in tape.storages.items() if number in transposed - otherwise]
    return {id(a) for a in arrays if type(a) is np.ndarray and a.ndim == 2 and min(a.shape) >= NARROW}
