"""One operation, one record: everything the framework knows of an operation stands in one place.

A record is written as a decorated function. Its signature is data: the first parameter is the namespace it computes
with, those before the slash are array inputs, the rest are attributes; a rule's parameters name what it reads, so what
a node must keep follows from the rule itself.

    @record("elementwise", derivatives=dict(x=lambda ops, g, x: ops.multiply(g, ops.cos(x))), samples=reals())
    def sin(xp, x, /):
        return xp.sin(x)

A *primitive*'s forward is written against `xp`, the array library. A *fused* record's forward is written with
operations (`ops`): it is the definition, the reference tier and the path for derivatives of higher order, while
`fast` and the joint `derivative` make the first order quick.

The namespace `ops` comes as an argument because it comes in two kinds. With raw arrays it holds the array library's
own functions (`raw_ops`), so a rule costs what its array calls cost; with Tensors it holds the public functions
(`tensor_ops`), so the same rule is differentiable and can be recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

from ..backends import BACKEND_BY_TYPE, kernel_tier

Kind = Literal["elementwise", "reduction", "contraction", "movement", "indexing", "creation", "random", "fused"]
REGISTRY: dict[str, Record] = {}


class Scatter:
    """A gradient that is zero but for `value` at an index: the walk adds it into a buffer instead of making zeros.

    The index is a template with places for index arrays, as in operations/indexing.py; `shape` is the whole's.
    """

    __slots__ = ("indices", "shape", "template", "value")

    def __init__(self, template: tuple[Any, ...], indices: Sequence[Any], value: Any, shape: tuple[int, ...]):
        self.template = template
        self.indices = indices
        self.value = value
        self.shape = shape


class _Resolved(dict):
    """Array type → callable, found at the first use of that type: nothing is looked up twice on the hot path."""

    def __init__(self, resolve: Callable[[type], Any]):
        super().__init__()
        self.resolve = resolve

    def __missing__(self, array_type: type) -> Any:
        self[array_type] = found = self.resolve(array_type)
        return found


class Record:
    """What the framework knows of one operation. Made by `record` and `fused`, never changed afterwards.

    From the signature of `forward`: `inputs` names the array inputs (`variadic`: that of a final `*inputs`),
    `attributes` the rest, `defaults` what they are if not given. Options of the two decorators:

        derivatives   (record) input → its rule `(ops, g, …)`, kept as `rules`; an input without one gets no gradient
        derivative    (fused) one rule `(ops, needs, g, …)` for all inputs, kept as `joint`; None where not needed
        fast          (fused) a quicker forward `(ops, …)` on raw arrays, of first order only; it and `derivative` may
                      take `places=`, arrays to write results into, and return those that they did write into
        residuals     names of what the forward gives beside its result for rules to read, such as row statistics
        exact         a joint rule that may be differentiated itself (a fused record's otherwise may not)
        promote       names of the inputs that are brought to one dtype; by default all, () none
        floating      integers become floats first
        multiple      the forward gives several results
        check         `(backend, *arrays, **attributes)` raises for values that are wrong, such as labels out of range
        broadcasts    gradients are summed over stretched axes; by default for elementwise, fused and contraction
        operators     methods of Tensor that call it: ("__add__", "__radd__")
        method        whether Tensor has a method of its name
        public        "rg" where `rg.` offers it, "ops" where only rules use it
        numpy         names of the NumPy functions that call it when they are given a Tensor; by default its own
        expression    an elementwise forward as text for the compiler, "x * x"; other records are called
        into          `(xp, out, *inputs, **attributes)` gives calls that write into `out`, for compiled steps
        samples       what its tests call it with (`samples.py`), required; `special`: results at special values
    """

    def __init__(self, name: str, kind: Kind, forward: Callable, **options: Any):
        code = forward.__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        self.name = name
        self.kind: Kind = kind
        self.forward = forward
        self.doc = forward.__doc__ or ""
        self.inputs: tuple[str, ...] = names[1 : code.co_posonlyargcount]
        self.variadic: str | None = code.co_varnames[len(names)] if code.co_flags & 0x04 else None
        self.attributes: tuple[str, ...] = names[code.co_posonlyargcount :]
        positional = names[: code.co_argcount]
        given = forward.__defaults__ or ()
        defaults = dict(zip(positional[len(positional) - len(given) :], given, strict=True))
        defaults |= forward.__kwdefaults__ or {}
        self.defaults: dict[str, Any] = {k: v for k, v in defaults.items() if k in self.attributes}
        self.optional: frozenset[str] = frozenset(k for k in defaults if k in self.inputs)
        self.rules: dict[str, Callable] = dict(options.pop("derivatives", None) or {})
        self.joint: Callable | None = options.pop("derivative", None)
        self.fast: Callable | None = options.pop("fast", None)
        self.takes_places = takes_places(self.fast)
        self.residuals: tuple[str, ...] = tuple(options.pop("residuals", ()))
        self.exact: bool = options.pop("exact", kind != "fused")
        self.promote: tuple[str, ...] | None = options.pop("promote", None)
        self.floating: bool = options.pop("floating", False)
        self.multiple: bool = options.pop("multiple", False)
        self.check: Callable | None = options.pop("check", None)
        self.into: Callable | None = options.pop("into", None)
        self.expression: str | None = options.pop("expression", None)
        self.samples: Callable[[], Iterable[Any]] | None = options.pop("samples", None)
        self.special: tuple[Any, ...] = tuple(options.pop("special", ()))
        self.operators: tuple[str, ...] = tuple(options.pop("operators", ()))
        self.method: bool = options.pop("method", True)
        self.public: str = options.pop("public", "rg")
        self.numpy: tuple[str, ...] = tuple(options.pop("numpy", (name,)))
        self.broadcasts: bool = options.pop("broadcasts", kind in ("elementwise", "fused", "contraction"))
        if options:
            raise TypeError(f"record {name}: unknown options {sorted(options)}")
        self.reads = {key: self._reads(rule, 2) for key, rule in self.rules.items()}
        self.joint_reads = self._reads(self.joint, 3) if self.joint else ()
        self.sharing = None if self.promote is None else tuple(self.inputs.index(n) for n in self.promote)
        self.casts = self.sharing != () and (self.floating or self.variadic is not None or len(self.inputs) > 1)
        self.moves = kind in ("movement", "indexing") and bool(self.inputs)
        self.ordered = tuple(self.rule_of(i) for i in range(len(self.inputs)))
        self.by_hand = _Resolved(self._by_hand)
        self.impl = _Resolved(self._implementation)
        self.first_order = _Resolved(self._first_order)
        self.save: dict[tuple[bool, ...] | bool, Callable] = _Savers(self)
        self.saved_inputs: dict[tuple[bool, ...], tuple[int, ...]] = _SavedInputs(self)

    def __repr__(self) -> str:
        return f"<record {self.name}: {self.kind}>"

    @property
    def differentiable(self) -> bool:
        """Whether it has a rule for any of its inputs."""
        return bool(self.rules or self.joint)

    def rule_of(self, position: int) -> tuple[Callable | None, tuple]:
        """The rule for the input at `position` and what it reads."""
        name = self.inputs[position] if position < len(self.inputs) else self.variadic
        return self.rules.get(name or ""), self.reads.get(name or "", ())

    def _reads(self, rule: Callable, skip: int) -> tuple[tuple[str, Any], ...]:
        """What a rule's parameters after the first `skip` stand for: (source, key) pairs."""
        code = rule.__code__
        return tuple(self._source(p) for p in code.co_varnames[skip : code.co_argcount])

    def _source(self, parameter: str) -> tuple[str, Any]:
        stem, _, suffix = parameter.rpartition("_")
        if parameter in self.inputs:
            return "input", self.inputs.index(parameter)
        if parameter == self.variadic:
            return "variadic", len(self.inputs)
        if parameter == "out":
            return "out", None
        if parameter in self.residuals:
            return "residual", self.residuals.index(parameter)
        if parameter in self.attributes:
            return "attribute", parameter
        if suffix == "shape" and stem in self.inputs:
            return "shape", self.inputs.index(stem)
        if suffix == "shape" and stem == self.variadic:
            return "shapes", len(self.inputs)
        raise TypeError(
            f"record {self.name}: a rule reads {parameter!r}, which is no input, attribute, residual, 'out' or "
            "'<input>_shape'"
        )

    def _by_hand(self, array_type: type) -> Callable | None:
        """The fastest forward that is not generated: the backend's kernel, the hand-written one, or the reference."""
        backend = BACKEND_BY_TYPE[array_type]
        reference = kernel_tier(backend) == "reference"
        if self.kind == "fused" and reference:
            return None  # dispatch writes it out in operations
        written = self.as_written(array_type)
        kernel = None if reference else backend.kernels.get(self.name)
        if kernel:
            return kernel
        if self.kind not in ("fused", "random"):
            return array_function(self, backend.xp) or written
        if self.fast:
            return partial(self.fast, raw_ops(array_type))
        if self.residuals and self.kind == "fused":  # a random record's forward gives its residuals itself
            return lambda *a, **k: (written(*a, **k), *[None] * len(self.residuals))
        return written

    def _implementation(self, array_type: type) -> Callable | None:
        """What an eager call runs: generated kernels where the backend makes them, else what `by_hand` says."""
        by_hand, backend = self.by_hand[array_type], BACKEND_BY_TYPE[array_type]
        if by_hand is None or self.name in backend.kernels or not self._on_kernels(backend):
            return by_hand
        from .compile.eager_kernels import QuickForward

        return QuickForward(self, backend, by_hand)

    def _first_order(self, array_type: type) -> Callable | None:
        """The joint rule on arrays of that type: on kernels where the backend generates them."""
        backend = BACKEND_BY_TYPE[array_type]
        if self.joint is None or not self._on_kernels(backend):
            return self.joint
        from .compile.eager_kernels import QuickRule

        return QuickRule(self, backend, self.joint)

    def _on_kernels(self, backend: Any) -> bool:
        return self.kind == "fused" and not self.multiple and bool(self.samples) and backend.generates()

    def as_written(self, array_type: type) -> Callable:
        """The forward for arrays of that type, without kernels: what every faster way is compared with."""
        takes_ops = self.kind in ("fused", "random")
        return partial(self.forward, raw_ops(array_type) if takes_ops else BACKEND_BY_TYPE[array_type].xp)


def takes_places(function: Callable | None) -> bool:
    """Whether a hand-written forward or rule can be told where to write its results: `places=`, one for each."""
    return function is not None and "places" in (function.__kwdefaults__ or {})


class _Probe:
    """A stand-in for `xp` that answers a call with what was called."""

    def __getattr__(self, name: str) -> Callable:
        return lambda *args, **kwargs: (name, args, kwargs)


def array_function(rec: Record, xp: Any) -> Callable | None:
    """`xp.name` itself where the forward only hands its inputs on to it: one Python frame less per operation."""
    if rec.variadic or rec.attributes:
        return None
    try:
        name, args, kwargs = rec.forward(_Probe(), *rec.inputs)
    except (TypeError, ValueError, AttributeError):
        return None
    return getattr(xp, name, None) if args == rec.inputs and not kwargs else None


_READ = {
    "input": "inputs[{0}]",
    "variadic": "inputs[{0}:]",
    "out": "out",
    "residual": "residuals[{0}]",
    "attribute": "attributes[{0!r}]",
    "shape": "getattr(inputs[{0}], 'shape', None)",
    "shapes": "tuple(getattr(a, 'shape', None) for a in inputs[{0}:])",
}


class _Savers(dict):
    """needs → a function (inputs, out, attributes, residuals) → what the rules of the needed inputs read, a tuple each.

    Written as source and compiled once per pattern of needs, as `collections.namedtuple` does: a loop over the reads
    at every operation would cost more than a small operation itself.
    """

    def __init__(self, rec: Record):
        super().__init__()
        self.record = rec

    def __missing__(self, needs: tuple[bool, ...]) -> Callable:
        rec = self.record

        def one(reads: Iterable[tuple[str, Any]]) -> str:
            return "(" + "".join(_READ[source].format(key) + ", " for source, key in reads) + ")"

        if rec.joint:
            body = one(rec.joint_reads)
        else:
            body = "(" + "".join((one(rec.rule_of(i)[1]) if n else "None") + ", " for i, n in enumerate(needs)) + ")"
        text = f"lambda inputs, out, attributes, residuals: {body}"
        self[needs] = made = eval(text, {"getattr": getattr, "tuple": tuple})
        return made


class _SavedInputs(dict):
    """needs → positions of the inputs whose arrays a node keeps: their version cells are noted."""

    def __init__(self, rec: Record):
        super().__init__()
        self.record = rec

    def __missing__(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        rec = self.record
        if rec.joint and not rec.exact:
            found = tuple(range(len(needs)))  # forward runs again for higher orders, so all of them
        else:
            reads = rec.joint_reads if rec.joint else [r for i, n in enumerate(needs) if n for r in rec.rule_of(i)[1]]
            whole = {key for source, key in reads if source == "input"}
            for source, key in reads:
                if source == "variadic":
                    whole |= set(range(key, len(needs)))
            found = tuple(sorted(whole))
        self[needs] = found
        return found


class _RawOps:
    """`ops` for raw arrays of one type: each name is the record's resolved forward."""

    def __init__(self, array_type: type):
        self.xp = BACKEND_BY_TYPE[array_type].xp
        self.backend = BACKEND_BY_TYPE[array_type]
        self.array_type = array_type
        self.raw = True

    def zeros(self, shape: tuple[int, ...], like: Any) -> Any:
        """Zeros of `shape`, with the dtype of `like`."""
        return self.xp.zeros(shape, like.dtype)

    def arange_like(self, like: Any, n: int) -> Any:
        """The integers 0…n-1 where `like` is."""
        return self.xp.arange(n)

    def eye(self, n: int, like: Any) -> Any:
        """The identity matrix, with the dtype of `like`."""
        return self.xp.eye(n, dtype=like.dtype)

    def __getattr__(self, name: str) -> Callable:
        rec = REGISTRY.get(name)
        if rec is None:
            raise AttributeError(f"ops has no operation {name!r}")
        call = rec.impl[self.array_type]
        if call is None:
            setattr(self, name, written := rec.as_written(self.array_type))
            return written
        if rec.residuals:
            setattr(self, name, picked := lambda *a, **k: call(*a, **k)[0])
            return picked
        setattr(self, name, call)
        return call


class _TensorOps:
    """`ops` for Tensors: each name is the public function of the record."""

    raw = False

    def zeros(self, shape: tuple[int, ...], like: Any) -> Any:
        """Zeros of `shape`, with the backend and dtype of `like`."""
        return type(like)(like.backend.xp.zeros(shape, like.dtype))

    def arange_like(self, like: Any, n: int) -> Any:
        """The integers 0…n-1 on the backend of `like`."""
        return type(like)(like.backend.xp.arange(n))

    def eye(self, n: int, like: Any) -> Any:
        """The identity matrix, with the backend and dtype of `like`."""
        return type(like)(like.backend.xp.eye(n, dtype=like.dtype))

    def __getattr__(self, name: str) -> Callable:
        if name not in REGISTRY:
            raise AttributeError(f"ops has no operation {name!r}")
        from .dispatch import FUNCTIONS

        setattr(self, name, FUNCTIONS[name])
        return FUNCTIONS[name]


tensor_ops = _TensorOps()
raw_ops = _Resolved(lambda array_type: _RawOps(array_type)).__getitem__


def register(rec: Record) -> Record:
    """Enter a record under its name. A name that is taken is an error: two definitions would hide each other."""
    if rec.name in REGISTRY:
        raise ValueError(f"operation {rec.name!r} is registered already, by {REGISTRY[rec.name].forward.__module__}")
    REGISTRY[rec.name] = rec
    return rec
