"""How a call of an operation runs: `apply` is the whole way, the three lanes are shortcuts for everyday calls.

    operands → Tensors of one backend → common dtype → the record's forward for that array type → result, node

The lanes take the everyday call (one Tensor, one with attributes, or two of one dtype; nothing recorded) and hand
everything else to `apply`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backends import BACKEND_BY_TYPE, Backend, backend_of
from .context import Mode, current, current_backend
from .errors import BackendMixError, bind_error, explained, full_traceback, user_line
from .graph import Node, Output
from .promotion import is_float, result_dtype, scalar_kind, weak
from .record import Record, tensor_ops
from .tensor import TENSOR_TYPES, Tensor, host_array

FUNCTIONS: dict[str, Callable] = {}  # record name → public function
_new = object.__new__


def function_of(rec: Record, operator: bool = False) -> Callable:
    """The function that runs a record: `operator` ones answer NotImplemented for operands they do not know."""
    uniform = not rec.joint and len(rec.rules) in (0, len(rec.inputs))  # the lanes look at no single rule
    plain = not rec.attributes and not rec.check and not rec.variadic and rec.promote is None
    if rec.kind == "elementwise" and uniform and plain and len(rec.inputs) == 1:
        return _unary(rec)
    if rec.kind in ("elementwise", "contraction") and uniform and plain and len(rec.inputs) == 2:
        return _binary(rec, operator)
    if len(rec.inputs) == 1 and not (rec.multiple or rec.residuals or rec.optional):
        return _with_attributes(rec)
    return _general(rec)


def _unary(rec: Record) -> Callable:
    impl, floating, has_rule = rec.impl, rec.floating, bool(rec.rules)

    def call(x: Any) -> Any:
        try:
            if type(x) in TENSOR_TYPES:
                mode = current()
                a = x.array
                if mode.plain and not (floating and a.dtype.kind not in "fc"):
                    out = impl[type(a)](a)
                    edges = specs = None
                    if x.requires_grad and has_rule and mode.grad:
                        edges = (x.node or x,)
                        if out.dtype is not a.dtype:  # |z| of complex z
                            specs = ((a.shape, a.dtype),)
                    return _finished(rec, out, type(a), (x,), (a,), edges, _ONE, specs)
            return apply(rec, (x,), {})
        except Exception as error:
            raise explained(rec, (x,), {}, error) from None

    return call


def _binary(rec: Record, operator: bool) -> Callable:
    impl, floating, has_rule, elementwise = rec.impl, rec.floating, bool(rec.rules), rec.kind == "elementwise"

    def call(x: Any, y: Any) -> Any:
        try:
            mode = current()
            if type(x) in TENSOR_TYPES and type(y) in TENSOR_TYPES:
                a, b = x.array, y.array
                dtype = a.dtype
                if mode.plain and dtype is b.dtype and type(a) is type(b) and not (floating and dtype.kind not in "fc"):
                    needs = (x.requires_grad, y.requires_grad)
                    edges = specs = None
                    if (needs[0] or needs[1]) and has_rule and mode.grad:
                        edges = ((x.node or x) if needs[0] else None, (y.node or y) if needs[1] else None)
                        if a.shape != b.shape or not elementwise:
                            specs = ((a.shape, dtype), (b.shape, dtype))
                    return _finished(rec, impl[type(a)](a, b), type(a), (x, y), (a, b), edges, needs, specs)
            elif elementwise and type(y) in _NUMBERS and type(x) in TENSOR_TYPES:  # a number is weak: x's dtype holds
                a = x.array
                if mode.plain and a.dtype.kind == "f":
                    edges = (x.node or x, None) if x.requires_grad and has_rule and mode.grad else None
                    return _finished(rec, impl[type(a)](a, y), type(a), (x, y), (a, y), edges, _FIRST)
            elif elementwise and type(x) in _NUMBERS and type(y) in TENSOR_TYPES:
                b = y.array
                if mode.plain and b.dtype.kind == "f":
                    edges = (None, y.node or y) if y.requires_grad and has_rule and mode.grad else None
                    return _finished(rec, impl[type(b)](x, b), type(b), (x, y), (x, b), edges, _SECOND)
            elif operator and not (_is_operand(x) and _is_operand(y)):
                return NotImplemented
            return apply(rec, (x, y), {})
        except Exception as error:
            raise explained(rec, (x, y), {}, error) from None

    return call


def _with_attributes(rec: Record) -> Callable:
    """One Tensor, and attributes by name: reductions, movements, softmax, slices and their like."""
    impl, defaults, n, floating = rec.impl, rec.defaults, len(rec.attributes), rec.floating
    has_rule, forward_again = rec.differentiable, rec.joint and not rec.exact
    save, check, moves = rec.save[_ONE], rec.check, rec.moves
    by_place = () if rec.variadic else rec.attributes
    keeps_input = bool(rec.saved_inputs[_ONE]) if has_rule else False
    general = _general(rec)

    def call(x: Any = None, /, *rest: Any, **kwargs: Any) -> Any:
        mode = current()
        quick = mode.plain and type(x) in TENSOR_TYPES and len(rest) <= len(by_place)
        array: Any = x.array if quick else None
        array_type, given, forward = type(array), defaults, None
        if quick:
            forward, named = impl[array_type], kwargs
            if rest:
                named = {**kwargs, **dict(zip(by_place, rest, strict=False))}
                quick = len(named) == len(kwargs) + len(rest)  # nothing is given twice
            if named:
                given = {**defaults, **named}
                for value in named.values():
                    quick = quick and type(value) in _PLAIN
            quick = quick and forward is not None and len(given) == n
            quick = quick and not (floating and array.dtype.kind not in "fc")
        if not quick:
            try:
                return general(*(() if x is None and not rest else (x, *rest)), **kwargs)
            except Exception as error:  # explained already; only the frame of `general` goes
                raise error if full_traceback() else error.with_traceback(None)  # noqa: B904  the same error
        try:
            if check:
                check(BACKEND_BY_TYPE[array_type], array, **given)
            out = forward(array, **given)  # type: ignore[misc]  it is there where the call is quick
        except Exception as error:
            raise explained(rec, (x,), given, error) from None
        if type(out) is not array_type and type(out) not in BACKEND_BY_TYPE:
            out = BACKEND_BY_TYPE[array_type].wrap(out)
        node, cell = None, x.cell
        if has_rule and x.requires_grad and mode.grad and (out.dtype.kind == "f" or is_float(out.dtype)):
            versions = ((cell, cell[0]),) if keeps_input and cell is not None else ()
            saved = save((array,), out, given, None)
            node = Node(rec, (x.node or x,), saved, versions, ((array.shape, array.dtype),), given)
            if forward_again:
                node.inputs = (array,)
        result = _made(out, node)
        if moves:
            _share_version(result, x, array_type)
        return result

    return call


_PLAIN = frozenset((int, float, bool, str, tuple, type(None)))  # attributes that a node keeps as they are
_ONE, _FIRST, _SECOND = (True,), (True, False), (False, True)
_NUMBERS = frozenset((int, float))


def _finished(
    rec: Record,
    out: Any,
    array_type: type,
    operands: tuple[Any, ...],
    arrays: tuple[Any, ...],
    edges: tuple[Any, ...] | None,
    needs: tuple[bool, ...],
    specs: Any = None,
) -> Tensor:
    """The end of both lanes: a Tensor on what the forward gave, with a node where gradients are wanted."""
    if type(out) is not array_type:
        out = BACKEND_BY_TYPE[array_type].wrap(out)
    if edges is None:
        return _made(out, None)
    saved = rec.save[needs](arrays, out, None, None)
    return _made(out, Node(rec, edges, saved, _versions(rec.saved_inputs[needs], operands), specs))


def _made(array: Any, node: Any) -> Tensor:
    """A Tensor on a new array: a result of `node`, or a leaf without one."""
    result = _new(Tensor)
    result.array = array
    result.grad = result._hooks = None
    result.node = node
    if node is None:
        result.requires_grad = False
        result.cell = [0]
    else:
        result.requires_grad = True
        result.cell = None
    return result


def _share_version(result: Tensor, operand: Tensor, array_type: type) -> None:
    """What a movement gives has the version of its operand where it lies in its memory."""
    cell = operand.cell
    if result.cell is cell:
        return
    out, array = result.array, operand.array
    if type(out) is array_type:
        base = getattr(out, "base", None)  # of a view of a view it is the array at the bottom
        view = base is not None and (base is array or base is array.base)
        if view or BACKEND_BY_TYPE[array_type].shares_memory(out, array):
            result.cell = cell


def _static(value: Any) -> Any:
    """An attribute as a node and a recording keep it: lists as tuples, NumPy scalars as Python's."""
    return tuple(value) if type(value) is list else weak(value)


def _general(rec: Record) -> Callable:
    fixed, attributes, defaults = len(rec.inputs), rec.attributes, rec.defaults
    required = fixed - len(rec.optional)

    def call(*args: Any, **kwargs: Any) -> Any:
        inputs, given = args, defaults
        if rec.variadic:
            given = {**defaults, **{k: _static(v) for k, v in kwargs.items()}} if kwargs else defaults
        else:
            if len(args) > fixed:
                inputs = args[:fixed]
                given = {**defaults, **{k: _static(v) for k, v in zip(attributes, args[fixed:], strict=False)}}
                if not kwargs.keys().isdisjoint(attributes[: len(args) - fixed]):
                    raise bind_error(rec, args, kwargs)
            if kwargs:
                if len(inputs) < fixed:
                    inputs = (*inputs, *[kwargs.pop(name, None) for name in rec.inputs[len(inputs) :]])
                given = {**given, **{k: _static(v) for k, v in kwargs.items()}}
            if len(inputs) < fixed:
                inputs = (*inputs, *[None] * (fixed - len(inputs)))
        if (
            len(given) != len(attributes)
            or (len(args) > fixed + len(attributes) and not rec.variadic)
            or len(inputs) < required
            or (required and inputs[0] is None)
            or (required > 1 and any([v is None for v in inputs[1:required]]))  # noqa: C419  a list is faster
        ):
            if "ddof" in kwargs and "correction" in attributes:  # NumPy's word
                kwargs["correction"] = kwargs.pop("ddof")
                return call(*inputs, *args[fixed:], **kwargs)
            raise bind_error(rec, args, kwargs)
        try:
            return apply(rec, inputs, given)
        except Exception as error:
            raise explained(rec, inputs, given, error) from None

    return call


def apply(rec: Record, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
    """Run a record on operands of any kind: the whole way, see above."""
    mode = current()
    array_type = None
    arrays: list[Any] = []
    wanted = False  # whether an operand wants a gradient
    for value in inputs:
        if type(value) in TENSOR_TYPES:
            array = value.array
            if type(array) is not array_type:
                if array_type is not None:
                    raise BackendMixError(rec, inputs)
                array_type = type(array)
            arrays.append(array)
            wanted = wanted or value.requires_grad
        elif value is None and (rec.optional or rec.variadic):
            arrays.append(None)
        else:
            array_type = None
            break
    if array_type is None or (rec.casts and not _one_dtype(rec, arrays)):
        inputs = _settled(rec, inputs)
        arrays = [v.array if type(v) in TENSOR_TYPES else v for v in inputs]
        array_type = _backend(rec, inputs).array_type
        wanted = any(type(v) in TENSOR_TYPES and v.requires_grad for v in inputs)
    if rec.check:
        rec.check(BACKEND_BY_TYPE[array_type], *arrays, **attributes)
    call = rec.impl[array_type]
    if mode.reference or call is None:
        if rec.kind == "fused":
            if rec.check and mode.recorder is not None:
                mode.recorder.checked(rec, inputs, attributes)
            return rec.forward(tensor_ops, *inputs, **attributes)
        call = rec.as_written(array_type)
    raw = call(*arrays, **attributes) if mode.plain else _without_warnings(mode, call, arrays, attributes)
    residuals = None
    if rec.residuals:
        raw, *residuals = raw
        residuals = [BACKEND_BY_TYPE[array_type].wrap(r) if isinstance(r, np.generic) else r for r in residuals]
    outs = list(raw) if rec.multiple else [raw]
    for index, out in enumerate(outs):
        if type(out) is not array_type and type(out) not in BACKEND_BY_TYPE:
            outs[index] = BACKEND_BY_TYPE[array_type].wrap(out)
    node = None
    if wanted and mode.grad and rec.differentiable:
        node = _node(rec, inputs, arrays, outs if rec.multiple else outs[0], attributes, residuals, mode)
    results = []
    for index, out in enumerate(outs):
        if node is None or not (out.dtype.kind == "f" or is_float(out.dtype)):
            result = _made(out, None)
        else:
            result = _made(out, Output(node, index) if rec.multiple else node)
        if rec.moves:
            _share_version(result, inputs[0], array_type)
        results.append(result)
    if not mode.plain:
        if mode.anomaly:
            _refuse_nan(rec, BACKEND_BY_TYPE[array_type], results)
        if mode.recorder is not None:
            mode.recorder.record(rec, inputs, attributes, results, residuals)
    return tuple(results) if rec.multiple else results[0]


def _node(
    rec: Record, operands: Any, arrays: list[Any], out: Any, attributes: dict[str, Any], residuals: Any, mode: Mode
) -> Node | None:
    """What the walk will need of this call; None where no operand that has a rule wants a gradient."""
    needs, edges, specs = [], [], []
    for i, operand in enumerate(operands):
        if type(operand) in TENSOR_TYPES and operand.requires_grad and (rec.joint or rec.ordered[i][0]):
            array = arrays[i]
            needs.append(True)
            edges.append(operand.node or operand)
            specs.append((array.shape, array.dtype))
        else:
            needs.append(False)
            edges.append(None)
            specs.append(None)
    if True not in needs:
        return None
    key = tuple(needs)
    saved = rec.save[key](arrays, out, attributes, residuals)
    node = Node(rec, tuple(edges), saved, _versions(rec.saved_inputs[key], operands), tuple(specs), attributes)
    if rec.joint and not rec.exact:
        node.inputs = arrays
    if rec.multiple:
        node.outputs = tuple([(o.shape, o.dtype) for o in out])
    if mode.anomaly:
        node.line = user_line()
    return node


def _one_dtype(rec: Record, arrays: list[Any]) -> bool:
    """Whether the operands that share a dtype have one already, and a float where one is needed."""
    first = None
    for array in arrays if rec.sharing is None else [arrays[i] for i in rec.sharing]:
        if array is None:
            continue
        if first is None:
            first = array.dtype
            if rec.floating and first.kind not in "fc" and not is_float(first):
                return False
        elif array.dtype is not first:
            return False
    return True


def _versions(positions: tuple[int, ...], operands: tuple[Any, ...]) -> tuple[tuple[list[int], int], ...]:
    """(cell, version) of the operands whose arrays a node keeps and a user could change."""
    found = ()
    for i in positions:
        cell = getattr(operands[i], "cell", None)
        if cell is not None:
            found = (*found, (cell, cell[0]))
    return found


def _settled(rec: Record, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Operands as Tensors of one backend and, where they share it, one dtype; scalars of elementwise records stay."""
    backend = _backend(rec, inputs)
    return _common_dtype(rec, backend, tuple([_operand(rec, backend, i) for i in inputs]))


def _backend(rec: Record, inputs: tuple[Any, ...]) -> Backend:
    """The backend of the Tensor operands, of which there may be only one; without any, that of new arrays."""
    first, raw = None, None
    for value in inputs:
        if type(value) in TENSOR_TYPES:
            if first is None:
                first = value
            elif type(value.array) is not type(first.array):
                raise BackendMixError(rec, inputs)
        elif raw is None and type(value) in BACKEND_BY_TYPE and not isinstance(value, np.ndarray):
            raw = value
    if first is not None:
        return backend_of(first.array)
    return current_backend() if raw is None else backend_of(raw)


def _is_operand(value: Any) -> bool:
    return (
        type(value) in TENSOR_TYPES
        or type(value) in BACKEND_BY_TYPE
        or isinstance(value, (int, float, complex, np.generic, list, tuple, np.ndarray))
    )


def _operand(rec: Record, backend: Backend, value: Any) -> Any:
    """A Tensor, a Python scalar (elementwise records only) or None for an optional input that was not given."""
    if type(value) in TENSOR_TYPES or (value is None and (rec.optional or rec.variadic)):
        return value
    value = weak(value)
    if scalar_kind(value) is not None:
        return value
    if type(value) is backend.array_type:
        return Tensor(value if value.dtype.isnative else backend.asarray(value))
    if not _is_operand(value):
        raise TypeError(f"expected a Tensor, an array or a number, got {type(value).__name__}")
    if type(value) in BACKEND_BY_TYPE and not isinstance(value, np.ndarray):
        raise BackendMixError(rec, (Tensor(backend.asarray(0.0)), Tensor(value)))
    return Tensor(backend.asarray(host_array(value)))


def _common_dtype(rec: Record, backend: Backend, operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """Cast the operands that share a dtype to it; Python scalars become 0-d arrays in records not elementwise."""
    sharing = range(len(operands)) if rec.sharing is None else rec.sharing
    dtypes = [operands[i].array.dtype for i in sharing if type(operands[i]) in TENSOR_TYPES]
    scalars = [operands[i] for i in sharing if type(operands[i]) not in TENSOR_TYPES and operands[i] is not None]
    kinds: list[Any] = [scalar_kind(value) for value in scalars]
    common = result_dtype(dtypes, kinds, rec.floating) if dtypes or kinds else None
    scalars_stay = rec.kind == "elementwise" and bool(dtypes)
    converted = list(operands)
    for i, operand in enumerate(operands):
        if type(operand) in TENSOR_TYPES:
            if i in sharing and operand.array.dtype != common:
                converted[i] = FUNCTIONS["astype"](operand, dtype=common)
        elif operand is not None and not (scalars_stay and i in sharing):
            dtype = common if i in sharing else None
            converted[i] = Tensor(backend.asarray(host_array(operand, dtype), dtype=dtype))
    return tuple(converted)


def _without_warnings(mode: Mode, call: Callable, arrays: list[Any], attributes: dict[str, Any]) -> Any:
    """The call as it is, but in anomaly mode, where a NaN is an error of ours, without NumPy's warning before that."""
    with np.errstate(invalid="ignore" if mode.anomaly else None):
        return call(*arrays, **attributes)


def _refuse_nan(rec: Record, backend: Backend, results: Sequence[Tensor]) -> None:
    for result in results:
        if is_float(result.dtype) and bool(backend.to_numpy(backend.xp.isnan(result.array).any())):
            raise FloatingPointError(f"{rec.name} made a NaN at {user_line()}")
