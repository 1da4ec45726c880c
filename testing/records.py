"""What every operation must satisfy, checked from its record alone: no operation is tested by hand for these.

`CHECKS` is a table from a name to a function of a record that raises `RecordError`. The suite runs each on each record
of the registry; `check_record` runs all on one, for operations defined elsewhere.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ..autograd_core.backward import gradients_of
from ..autograd_core.context import current_backend, use_backend
from ..autograd_core.dispatch import FUNCTIONS
from ..autograd_core.promotion import is_float
from ..autograd_core.record import Record, raw_ops
from ..autograd_core.recorder import recording
from ..autograd_core.samples import Sample
from ..autograd_core.tensor import Tensor
from ..backends import kernel_tier
from .gradcheck import check_gradient, check_second_order, tiers
from .record_case import EXACT, Case, RecordError, agree, as_numpy, cases, complex_of, same, weights

_SHARING = ("movement", "indexing")  # kinds whose results may lie in the memory of an input


def check_record(rec: Record, only: Sequence[str] | None = None) -> None:
    """Run every check (or those named in `only`) on one operation; raises at the first that fails.

    Args:
        rec: the record, as `function.record` holds it.
        only: names from `retrograd.testing.records.CHECKS`.
    Raises:
        RecordError, GradientError: what is wrong, and for which sample.

    Example:
        >>> import retrograd as rg
        >>> rg.testing.check_record(rg.sin.record)
    """
    for name in only or CHECKS:
        CHECKS[name](rec)


def _samples(rec: Record) -> None:
    if not list(cases(rec)):
        raise RecordError(f"{rec.name} has an empty generator of samples: nothing about it is tested")


def _first_order(rec: Record) -> None:
    for case in cases(rec):
        if case.floating and any(is_float(o.dtype) for o in case.call(case.tensors(()))):
            check_gradient(_named(case), *case.inputs)


def _second_order(rec: Record) -> None:
    if not rec.differentiable:
        return
    for case in cases(rec):
        if case.second_order and any(o.requires_grad for o in case.call(case.tensors())):
            check_second_order(_named(case), *case.inputs, directions=1)


def _precision(dtype: Any) -> Callable[[Record], None]:
    """Values and gradients in a narrow dtype against float64 at the same, rounded, inputs."""

    def check(rec: Record) -> None:
        for case in cases(rec):
            if not case.floating:
                continue
            narrow = case.cast(dtype)
            try:
                values, gradients = narrow.run()
            except TypeError as error:
                if dtype is np.float16 and "float16" in str(error):
                    continue  # the array library has no such kernel, and says so
                raise
            wide_values, wide_gradients = narrow.cast(np.float64).run()
            size = max([x.size for x in narrow.inputs if isinstance(x, np.ndarray)])
            tolerance = np.finfo(dtype).eps * (16 + 2 * size**0.5)
            for value, wide in zip(values, wide_values, strict=True):
                agree(case, f"the {np.dtype(dtype)} value", value, wide, tolerance)
                if (
                    is_float(wide.dtype)
                    and value.dtype not in _narrow(wide.dtype, dtype, narrow)
                    and "dtype" not in case.attributes
                ):
                    raise RecordError(f"{case} gives {value.dtype} for {np.dtype(dtype)} inputs")
            for i, gradient in gradients.items():
                agree(case, f"the {np.dtype(dtype)} gradient of input {i}", gradient, wide_gradients[i], tolerance)
                if gradient.dtype != narrow.inputs[i].dtype:
                    raise RecordError(f"{case}: the gradient of input {i} is {gradient.dtype}, not {np.dtype(dtype)}")

    return check


def _raw_like_tensors(rec: Record) -> None:
    """`ops.name` on raw arrays, as rules call it, gives what the public function gives, dtype included."""
    for dtype in (np.float64, np.float32, np.float16):
        for case in cases(rec):
            tensors = case.cast(dtype).tensors(())
            ops = raw_ops(current_backend().array_type)
            try:
                expected = case.call(tensors)
            except TypeError:
                continue  # no float16 kernel: see the check of precision
            raw = getattr(ops, rec.name)(*[t.array if isinstance(t, Tensor) else t for t in tensors], **case.attributes)
            for a, b in zip(list(raw) if rec.multiple else [raw], expected, strict=True):
                a = b.backend.wrap(a)
                if a.dtype != b.dtype or a.shape != b.shape:
                    raise RecordError(f"{case}: raw {a.dtype} {a.shape}, as Tensors {b.dtype} {b.shape}")
                agree(case, "the raw value", b.backend.to_numpy(a), b.numpy(), 0.0)


def _transposed(xp: Any, x: Any) -> Any:
    return xp.transpose(xp.transpose(x).copy())


def _reversed(xp: Any, x: Any) -> Any:
    return x if x.ndim == 0 else x[::-1].copy()[::-1]


def _strided(xp: Any, x: Any) -> Any:
    if x.ndim == 0:
        return x
    gaps = xp.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    gaps[..., ::2] = x
    return gaps[..., ::2]


def _repeated(xp: Any, x: Any) -> Any:
    return x if x.ndim == 0 or not x.size else xp.broadcast_to(x[:1], x.shape)


def _layouts(rec: Record) -> None:
    """Transposed, reversed, strided and broadcast views give what contiguous arrays give."""
    for case in cases(rec):
        if not any(isinstance(x, np.ndarray) and x.ndim for x in case.inputs):
            continue
        expected = case.run()
        for arrange in (_transposed, _reversed, _strided):
            same(case, f"{arrange.__name__[1:]} inputs", case.run(arrange=arrange), expected)
        try:
            expected = case.run(arrange=lambda xp, x: _repeated(xp, x).copy())
        except (ValueError, ArithmeticError, np.linalg.LinAlgError):
            continue  # equal rows are outside its domain
        same(case, "broadcast inputs", case.run(arrange=_repeated), expected)


def _scalars_and_empty(rec: Record) -> None:
    """0-d and empty inputs work for elementwise operations; elsewhere they do, or are refused with a reason."""
    for shrink in (lambda x: x.ravel()[:1].reshape(()), lambda x: x.ravel()[:0], lambda x: x[..., :0] if x.ndim else x):
        for case in cases(rec):
            arrays = [x for x in case.inputs if isinstance(x, np.ndarray)]
            if not arrays or any(x.size == 0 for x in arrays):
                continue
            small = case.but([shrink(x) if isinstance(x, np.ndarray) else x for x in case.inputs])
            try:
                with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # NumPy's on means of nothing
                    values, gradients = small.run()
            except (ValueError, IndexError, TypeError) as error:  # AxisError is two of them
                if rec.kind == "elementwise":
                    raise RecordError(f"{small} raised {type(error).__name__}: {error}") from error
                inner = rec.kind == "fused" and kernel_tier() == "reference"  # there the error is that of a part
                if rec.name not in str(error) and not inner:
                    raise RecordError(f"{small}: the error does not name the operation: {error}") from error
                continue
            if rec.kind == "elementwise":
                shape = np.broadcast_shapes(*[np.shape(x) for x in small.inputs if isinstance(x, np.ndarray)])
                if any(v.shape != shape for v in values):
                    raise RecordError(f"{small} has shapes {[v.shape for v in values]}, expected {shape}")
            if any(g.shape != np.shape(small.inputs[i]) for i, g in gradients.items()):
                raise RecordError(f"{small}: a gradient has another shape than its input")


def _special_values(rec: Record) -> None:
    """The record's table of what happens at kinks, ties, zeros and infinities, on both tiers."""
    for row in rec.special:
        inputs = [np.asarray(x) if x is not None else None for x in row.inputs]
        case = Case(
            rec, Sample(tuple(x.astype(np.float64) if x is not None and x.dtype.kind == "f" else x for x in inputs))
        )
        for tier, block in tiers().items():
            with np.errstate(all="ignore"), block:
                tensors = case.tensors()
                out = case.call(tensors)[0]
                agree(case, f"{row.inputs}: the value ({tier})", out.numpy(), np.asarray(row.out, out.dtype), 1e-12)
                asked = {i: g for i, g in enumerate(row.gradients) if g is not None}
                if asked:
                    found = gradients_of([out.sum()], [None], [tensors[i] for i in asked], False, False)  # type: ignore[attr-defined]
                    for (i, expected), (_, g) in zip(asked.items(), found, strict=True):
                        got = np.zeros(np.shape(expected)) if g is None else as_numpy(g)
                        what = f"{row.inputs}: the gradient of input {i} ({tier})"
                        agree(case, what, got, np.asarray(expected, np.float64), 1e-12)


def _inputs_untouched(rec: Record) -> None:
    """Forward and backward leave every input and the cotangent as they were, bit for bit; only results that may share
    memory with an input do."""
    for case in cases(rec):
        tensors = case.tensors()
        arrays = [t for t in tensors if isinstance(t, Tensor)]
        before = [t.numpy().tobytes() for t in arrays]
        outs = case.call(tensors)
        shared = any(
            t.backend is o.backend and t.backend.shares_memory(t.array, o.array) for t in arrays for o in outs if o.size
        )
        if shared and rec.kind not in _SHARING:
            raise RecordError(
                f"{case}: the result of a {rec.kind} record lies in its input's memory, without its version"
            )
        values = [o.numpy().tobytes() for o in outs]
        cotangents = [weights(o) for o in outs if o.requires_grad]
        kept = [c.numpy().tobytes() for c in cotangents]
        if cotangents:
            wanted = [t for t in arrays if t.requires_grad]
            gradients_of([o for o in outs if o.requires_grad], cotangents, wanted, False, False)
        for what, now, then in (
            ("an input", [t.numpy().tobytes() for t in arrays], before),
            ("its result", [o.numpy().tobytes() for o in outs], values),
            ("the cotangent", [c.numpy().tobytes() for c in cotangents], kept),
        ):
            if now != then:
                raise RecordError(f"{case} changed {what}")


def _backends(*names: str) -> Callable[[Record], None]:
    def check(rec: Record) -> None:
        results = []
        for name in names:
            with use_backend(name):
                results.append([(case, case.run()) for case in cases(rec)])
        for (_, expected), (case, got) in zip(*results, strict=True):
            same(case, f"{names[1]} beside {names[0]}", got, expected, 1e-10)

    return check


def _numbers(rec: Record) -> None:
    """A Python number as operand gives what a 0-d array gives, to second order: it is weak, not different."""
    if rec.kind != "elementwise":
        return
    for case in cases(rec):
        for i in case.floating:
            rest = [j for j in case.floating if j != i]
            if not rest or not case.inputs[i].size:
                continue
            number = float(case.inputs[i].flat[0])
            as_number, as_array = (
                case.but([x if j != i else given for j, x in enumerate(case.inputs)])
                for given in (number, np.asarray(number))
            )
            same(case, f"input {i} a number", as_number.run(rest), as_array.run(rest))
            same(case, f"input {i} a number", as_number.run_twice(rest), as_array.run_twice(rest))


def _elsewhere(rec: Record) -> None:
    """Tensors of another backend than the default one stay there, in every order."""
    other = "strict" if current_backend().name == "numpy" else "numpy"
    for case in cases(rec):
        if not any(isinstance(x, np.ndarray) for x in case.inputs):
            continue
        for run in (Case.run, Case.run_twice):
            same(case, f"made on {other}", run(case, place=other), run(case))
        number = [float(x.flat[0]) if i in case.floating[1:] and x.size else x for i, x in enumerate(case.inputs)]
        if rec.kind == "elementwise":
            same(case, f"made on {other}", case.but(number).run_twice(place=other), case.but(number).run_twice())


def _memory(rec: Record) -> None:
    """A node keeps alive what its rules read, and nothing else."""
    if not rec.differentiable or (rec.kind == "fused" and kernel_tier() == "reference"):
        return
    for case in cases(rec):
        leaves = case.tensors()
        # A leaf stays alive by its edge, so the inputs are results that nothing else holds.
        inputs = [FUNCTIONS["positive"](t) if isinstance(t, Tensor) and t.requires_grad else t for t in leaves]
        outs = case.call(inputs)
        node = outs[0].node
        node = getattr(node, "parent", node)
        if node is None or any(_shares(t, o) for t in inputs for o in outs):
            continue
        needs = tuple(isinstance(t, Tensor) and t.requires_grad for t in inputs)
        if rec.rules:
            needs = tuple(n and rec.rule_of(i)[0] is not None for i, n in enumerate(needs))
        reads = rec.joint_reads if rec.joint else [r for i, n in enumerate(needs) if n for r in rec.rule_of(i)[1]]
        read = {i for i in range(len(inputs)) for source, key in reads if _names(source, key, i)}
        if rec.joint and not rec.exact:
            read = set(range(len(inputs)))  # its forward runs again for higher orders
        dying = {
            f"input {i}": weakref.ref(t.array)
            for i, t in enumerate(inputs)
            if i not in read and isinstance(t, Tensor) and t.requires_grad
        }
        if not any(source == "out" for source, _ in reads):
            dying |= {f"output {i}": weakref.ref(o.array) for i, o in enumerate(outs)}
        del inputs, outs
        alive = [name for name, reference in dying.items() if reference() is not None]
        if alive:
            raise RecordError(f"{case}: its node keeps {', '.join(alive)} alive, which its rules do not read")


def _names(source: str, key: Any, i: int) -> bool:
    """Whether a rule that reads (source, key) reads the array of input i."""
    return (source == "input" and key == i) or (source == "variadic" and key <= i)


def _freeing(rec: Record) -> None:
    """Two walks need `retain_graph`; without it the second is an error that names the operation."""
    for case in cases(rec):
        tensors = case.tensors()
        outs = case.call(tensors)
        if not any(o.requires_grad for o in outs):
            continue
        once = case.backward(outs, tensors, retain=True)
        same(case, "a second walk", ([], case.backward(outs, tensors)), ([], once), 0.0)
        try:
            case.backward(outs, tensors)
        except RuntimeError as error:
            if "retain_graph=True" not in str(error):
                raise
        else:
            raise RecordError(f"{case}: a walk over a freed graph went through")


def _needs(rec: Record) -> None:
    """Each subset of inputs that require gradients gives the gradients that all together give."""
    for case in cases(rec):
        if len(case.floating) < 2 or not rec.differentiable:
            continue
        _, everything = case.run()
        sizes = range(1, len(case.floating)) if len(case.floating) < 5 else (1, len(case.floating) - 1)
        for size in sizes:
            for subset in combinations(case.floating, size):
                _, some = case.run(subset)
                same(case, f"inputs {subset} alone", ([], some), ([], {i: everything[i] for i in subset}), EXACT)


def _given_twice(rec: Record) -> None:
    """One tensor given as two inputs gets the sum of both gradients."""
    for case in cases(rec):
        for i, j in combinations(case.floating, 2):
            if case.inputs[i].shape != case.inputs[j].shape:
                continue
            inputs = list(case.inputs)
            inputs[j] = inputs[i]
            both = case.but(inputs)
            with np.errstate(all="ignore"):
                _, apart = both.run((i, j))
                tensors = both.tensors((i,))
                tensors[j] = tensors[i]
                outs = both.call(tensors)
                twice = both.backward(outs, tensors[:j])
            same(case, f"inputs {i} and {j} the same tensor", ([], twice), ([], {i: apart[i] + apart[j]}), EXACT)


def _recorded(rec: Record) -> None:
    """A recording of forward and backward changes no number."""
    for case in cases(rec):
        expected = case.run()
        tensors = case.tensors()
        wanted = {i: t for i, t in enumerate(tensors) if isinstance(t, Tensor) and t.requires_grad}
        with recording() as tape:
            outs = case.call(tensors)
            roots = [o for o in outs if o.requires_grad]
            seeds = [weights(o) for o in roots]
            found = gradients_of(roots, seeds, list(wanted.values()), False, False) if roots else []
        if not tape.steps:
            raise RecordError(f"{case} left nothing in a recording")
        gradients = {i: np.zeros(t.shape, t.dtype) for i, t in wanted.items()}
        gradients |= {i: as_numpy(g) for i, (_, g) in zip(wanted, found, strict=False) if g is not None}
        same(case, "recorded", ([o.numpy() for o in outs], gradients), expected, EXACT)


CHECKS: dict[str, Callable[[Record], None]] = {
    "samples": _samples,
    "first order": _first_order,
    "second order": _second_order,
    "float32": _precision(np.float32),
    "float16": _precision(np.float16),
    "raw": _raw_like_tensors,
    "layouts": _layouts,
    "0-d and empty": _scalars_and_empty,
    "special values": _special_values,
    "inputs untouched": _inputs_untouched,
    "numpy = strict": _backends("numpy", "strict"),
    "numbers": _numbers,
    "elsewhere": _elsewhere,
    "memory": _memory,
    "freeing": _freeing,
    "needs": _needs,
    "given twice": _given_twice,
    "recorded": _recorded,
}
numpy_like_cupy = _backends("numpy", "cupy")
"""The check for machines with a device, which CHECKS cannot ask for everywhere."""


def _named(case: Case) -> Callable[..., Any]:
    def function(*inputs: Any) -> list[Tensor]:
        return case.call(inputs)

    function.__name__ = repr(case)
    return function


def _shares(t: Any, o: Tensor) -> bool:
    return isinstance(t, Tensor) and t.backend is o.backend and t.backend.shares_memory(t.array, o.array)


def _narrow(wide: np.dtype, dtype: Any, case: Case) -> tuple[np.dtype, ...]:
    """What a wide result may become for inputs of `dtype`: the parts of complex numbers are as narrow as those get."""
    if wide.kind == "c":
        return (np.dtype(complex_of(dtype)),)
    parts = {x.real.dtype for x in case.inputs if isinstance(x, np.ndarray) and x.dtype.kind == "c"}
    return (np.dtype(dtype), *parts)
