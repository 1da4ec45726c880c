"""`verify=True`: each replay is undone, the call is made eagerly, and what the two leave is compared.

The two may round differently. Where that is much magnified (a bias in front of a normalization has no gradient but
rounding errors, which Adam makes steps of full length of) they differ without anything being wrong. So a difference
counts only if eager calls that begin with a few last bits changed do not differ as much among themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..recorder import RecordingError
from ..tensor import TENSOR_TYPES, Tensor
from ..transforms import tree_leaves
from .program import Program
from .tape import Undo

TRIES = 8  # eager calls that show what rounding does
MARGIN = 8  # and how many times as much a replay may differ

Outcome = list[tuple[str, Any]]  # what it is, its values: results, storages, gradients


def verified(program: Program, leaves: Sequence[Tensor], arguments: Sequence[Tensor], call: Callable[[], Any]) -> Any:
    """Replay, undo, call eagerly, compare; the eager results. `call` makes the eager call, of these arguments.

    Raises:
        RecordingError: they differ.
    """
    undo = Undo()
    changed = [*program.changed, *[arguments[i] for i in program.changed_inputs]]
    leaves = [*leaves, *[t for t in arguments if t.requires_grad]]
    gradients = [(leaf, leaf.grad) for leaf in leaves]
    for tensor in [*changed, *[grad for _, grad in gradients if grad is not None]]:
        undo.keep(tensor)
    for host in program.tape.host_calls:
        undo.keep_host(host)
    undo.streams = [(g, g.state()) for g in program.tape.generators]

    def outcome(result: Any) -> Outcome:
        values = [(f"result {i}", v) for i, (_, v) in enumerate(tree_leaves(result)) if type(v) in TENSOR_TYPES]
        values += [(f"storage {t.shape}", t) for t in changed]
        values += [(f"gradient {leaf.shape}", leaf.grad) for leaf in leaves]
        return [(what, None if v is None else np.array(v.backend.to_numpy(v.array))) for what, v in values]

    def eagerly(seed: int | None = None) -> Any:
        undo.restore()
        for leaf, grad in gradients:
            leaf.grad = grad
        for tensor in changed if seed is not None else ():
            _disturb(tensor, np.random.default_rng(seed))
        return call()

    replayed = outcome(program.run(arguments))
    result = eagerly()
    wanted = outcome(result)
    if _difference(replayed, wanted, ()):
        others = [outcome(eagerly(seed)) for seed in range(TRIES)]
        result = eagerly()
        found = _difference(replayed, wanted, others)
        if found:
            raise RecordingError(f"verify: {found}")
    return result


def _disturb(tensor: Tensor, rng: np.random.Generator) -> None:
    """Change the last bits of every element."""
    if tensor.dtype.kind == "f":
        noise = 4 * np.finfo(tensor.dtype).eps * rng.standard_normal(tensor.shape)
        values = tensor.backend.to_numpy(tensor.array)
        tensor.array[...] = tensor.backend.asarray((values * (1 + noise)).astype(tensor.dtype))


def _difference(replayed: Outcome, eager: Outcome, others: Sequence[Outcome]) -> str:
    """The first difference between a replay and an eager call, beyond what others differ from this one; "" if none."""
    for place, ((what, one), (_, two)) in enumerate(zip(replayed, eager, strict=True)):
        if one is None and two is None:
            continue
        if one is None or two is None:
            return f"{what} is there after the replay or after eager execution, not after both"
        tolerance = 1e-4 if one.dtype.itemsize <= 4 else 1e-9
        one, two = one * 1.0, two * 1.0  # truths have no difference
        slack = tolerance + tolerance * np.abs(two)
        for other in others:
            if other[place][1] is not None:
                slack = np.maximum(slack, MARGIN * np.abs(other[place][1] * 1.0 - two))
        with np.errstate(invalid="ignore"):
            alike = (one == two) | (np.abs(one - two) <= slack) | (np.isnan(one) & np.isnan(two))
        if not np.all(alike):
            worst = float(np.max(np.abs(one - two), where=~alike, initial=0.0))
            return f"{what} of the replay differs from eager execution by up to {worst:.3g}"
    return ""
