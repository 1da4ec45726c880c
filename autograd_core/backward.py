"""The walk: reverse-mode differentiation as one loop over the graph, newest node first.

    while nodes are waiting: take the newest, hand its cotangent to its rules, add what they give to its inputs

The same walk runs in two ways. On raw arrays (first order, the common case) rules cost what their array calls cost and
sums are formed in place. *Lifted*, where gradients of gradients are wanted or a recorder listens, cotangents and saved
values are Tensors and every piece of arithmetic, the engine's own included, is an operation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import Any

from ..backends import BACKEND_BY_TYPE, backend_of
from .context import current, switched
from .errors import describe, one_frame
from .graph import Node, Output
from .hooks import run_hooks
from .operations.indexing import index_added, scatter_into
from .promotion import is_float
from .record import Record, Scatter, raw_ops, tensor_ops
from .tensor import TENSOR_TYPES, Tensor
from .vjp import call_vjp

Edge = Any  # Node | Output | Tensor (a leaf)


@one_frame
def backward(
    tensors: Sequence[Tensor],
    gradients: Sequence[Any],
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add the gradients of `tensors`, weighted by `gradients`, to `.grad` of the leaves below them (or of `inputs`).

    >>> import retrograd as rg
    >>> w = rg.tensor(3.0, requires_grad=True)
    >>> rg.backward([w * w, 2 * w], [rg.tensor(1.0), rg.tensor(10.0)])
    >>> w.grad.item()
    26.0
    """
    targets = None if inputs is None else [inputs] if type(inputs) in TENSOR_TYPES else list(inputs)
    retain = create_graph if retain_graph is None else retain_graph
    found = gradients_of(tensors, gradients, targets, retain, create_graph)
    stored = {id(g.array) for g in gradients if isinstance(g, Tensor)}  # arrays that belong to somebody already
    for leaf, gradient in found:
        if gradient is not None:
            _store(leaf, gradient, stored)


def gradients_of(
    tensors: Sequence[Tensor],
    seeds: Sequence[Any],
    targets: Sequence[Tensor] | None,
    retain_graph: bool,
    create_graph: bool,
) -> list[tuple[Tensor, Any]]:
    """Pairs (tensor, gradient) for all leaves below `tensors`, or for `targets` alone (None where none is reached).

    Gradients are Tensors when the walk is lifted, else (array, owned) pairs: `owned` says that nobody else holds it.
    """
    for t in tensors:
        if not t.requires_grad:
            raise RuntimeError(_no_graph(t))
    for t in targets or ():
        if not t.requires_grad:
            raise RuntimeError(
                "a gradient was asked for with respect to a tensor that does not require one. Set requires_grad=True."
            )
    lifted = create_graph or current().recorder is not None
    cotangents = [_seed(t, s, lifted) for t, s in zip(tensors, seeds, strict=True)]
    if not lifted:
        return _walk(tensors, cotangents, targets, retain_graph, False, False)
    with switched(grad=create_graph):
        return _walk(tensors, cotangents, targets, retain_graph, True, create_graph)


def _walk(
    roots: Sequence[Tensor],
    cotangents: list[Any],
    targets: Sequence[Tensor] | None,
    retain: bool,
    lifted: bool,
    create_graph: bool,
) -> list[tuple[Tensor, Any]]:
    array_type = type(roots[0].array)
    backend = BACKEND_BY_TYPE[array_type]
    ops: Any = tensor_ops if lifted else raw_ops(array_type)
    kind: Any = Tensor if lifted else array_type
    wanted = None if targets is None else {id(t.node or t) for t in targets}
    leads = None if wanted is None else _leading_to([t.node or t for t in roots], wanted)
    found: dict[int, Any] = {}  # id of a target or leaf → its cotangent
    heap: list[int] = []
    waiting: dict[int, list[Any]] = {}  # number of a node → [node, cotangent, owned]
    leaves: dict[int, list[Any]] = {}  # id of a leaf → [leaf, cotangent, owned]

    def add(edge: Edge, g: Any) -> None:
        """Add a cotangent to what waits for `edge`. The engine owns only a buffer that it made by adding two."""
        if type(edge) in TENSOR_TYPES:
            key, table = id(edge), leaves
        else:
            key, table = edge.number, waiting
        entry = table.get(key)
        owned = False
        if type(g) is Scatter:
            g, owned = _dense(g, entry, lifted), not lifted
            if g is None:
                return
        if entry is None:
            table[key] = [edge, g, owned]
            if table is waiting:
                heappush(heap, key)
        elif lifted:
            entry[1] = ops.add(entry[1], g)
        elif entry[2]:
            entry[1] += g
        else:
            total = ops.add(entry[1], g) if type(g) is kind else raw_ops(type(g)).add(entry[1], g)
            entry[1] = total if type(total) is type(g) else BACKEND_BY_TYPE[type(g)].wrap(total)
            entry[2] = True

    for root, cotangent in zip(roots, cotangents, strict=True):
        if leads is None or id(root.node or root) in leads:
            add(root.node or root, cotangent)

    while heap:
        node, g, owned = waiting.pop(heappop(heap))
        if type(g) is not kind and type(g) in BACKEND_BY_TYPE:  # the way has crossed to another backend
            kind = type(g)
            ops, backend = raw_ops(kind), BACKEND_BY_TYPE[kind]
        if node.hooks:
            g = run_hooks(node.hooks, g, lifted)
        if wanted is not None and id(node) in wanted:
            found[id(node)] = g if lifted else (g, owned)
        if type(node) is Output:
            parent = node.parent
            entry = waiting.get(parent.number)
            if entry is None:
                waiting[parent.number] = entry = [parent, [None] * len(parent.outputs or ()), False]
                heappush(heap, parent.number)
            parts = entry[1]
            if parts[node.index] is not None:  # where a rule that read this output was differentiated itself
                g = ops.add(parts[node.index], g)
            parts[node.index] = g if type(g) is kind else backend.wrap(g)
            continue
        saved = node.saved
        if saved is None:
            raise RuntimeError(
                f"the graph of {node.name} was freed by an earlier backward pass. Pass retain_graph=True to that one, "
                "or compute the forward pass again."
            )
        for cell, version in node.versions:
            if cell[0] != version:
                raise RuntimeError(_mutated(node))
        # Rules give f'(x)·g. The gradient of complex numbers is conj(f'(x))·g by convention (PyTorch's), which is the
        # same rule between two conjugations.
        turns = g.dtype.kind == "c" if type(g) is kind else _is_complex(g)
        if turns:
            g = _conjugate(ops, g)
        rec, specs = node.record, node.specs
        together = _joint(node, g, leads, ops, lifted, create_graph) if rec.joint else None
        for i, edge in enumerate(node.edges):
            if edge is None or (leads is not None and id(edge) not in leads):
                continue
            if together is None:
                rule, reads = rec.ordered[i]
                if rule is None:
                    continue
                gradient = rule(ops, g, *(_lift(node, saved[i], reads) if lifted else saved[i]))
            else:
                gradient = together[i]
            if gradient is None:
                continue
            if turns:
                gradient = _conjugate(ops, gradient)
            if type(gradient) is not Scatter:
                if type(gradient) is not kind and type(gradient) not in BACKEND_BY_TYPE:
                    gradient = backend.wrap(gradient)
                if specs is not None:
                    shape, dtype = specs[i]
                    if gradient.shape != shape or gradient.dtype != dtype:
                        gradient = fit(ops, gradient, shape, dtype, rec)
                if node.line is not None:
                    _refuse_nan_gradient(node, i, gradient, backend)
            add(edge, gradient)
        if not retain:
            node.saved = node.inputs = None

    results: list[tuple[Tensor, Any]] = []
    for leaf, g, owned in leaves.values():
        if leaf._hooks:
            g = run_hooks(leaf._hooks, g, lifted)
        if wanted is None:
            results.append((leaf, g if lifted else (g, owned)))
        elif id(leaf) in wanted:
            found[id(leaf)] = g if lifted else (g, owned)
    if targets is not None:
        results = [(t, found.get(id(t.node or t))) for t in targets]
    return results


def _joint(node: Node, g: Any, leads: set[int] | None, ops: Any, lifted: bool, create_graph: bool) -> Sequence[Any]:
    """The gradients of all inputs at once, for records that have one rule for all.

    A fused record's rule is right to first order only. Where higher orders are wanted its forward runs again, written
    out in operations; where the walk is recorded, the rule becomes one instruction of the recording.
    """
    rec, saved = node.record, node.saved or ()
    if leads is None and len(node.edges) == 1:
        needs: tuple[bool, ...] = (True,)
    else:
        needs = tuple([e is not None and (leads is None or id(e) in leads) for e in node.edges])
    if not lifted:
        return rec.first_order[ops.array_type](ops, needs, g, *saved)
    rule: Any = rec.joint
    if rec.exact:
        return rule(ops, needs, g, *_lift(node, saved, rec.joint_reads))
    return _through_forward(node, g, needs) if create_graph else _recorded_rule(node, g, needs)


def _is_complex(g: Any) -> bool:
    if type(g) is not list:
        return g is not None and g.dtype.kind == "c"
    return any(_is_complex(part) for part in g)


def _conjugate(ops: Any, g: Any) -> Any:
    """The complex conjugate of a cotangent: of each part, of the scattered value; real ones as they are."""
    if type(g) is list:
        return [_conjugate(ops, part) for part in g]
    if type(g) is Scatter:
        return Scatter(g.template, g.indices, _conjugate(ops, g.value), g.shape)
    return ops.conj(g) if g is not None and g.dtype.kind == "c" else g


def _through_forward(node: Node, g: Any, needs: tuple[bool, ...]) -> list[Any]:
    """Differentiate the written-out forward. Every input gets a stand-in of its own, an alias on the real one: one
    tensor given twice (attention of x, x, x) must get two gradients, and the chain of higher orders goes on below."""
    inputs = []
    for array, edge in zip(node.inputs or (), node.edges, strict=True):
        handle = _handle(array, edge)
        inputs.append(tensor_ops.alias(handle) if type(edge) is not type(None) else handle)
    outs = node.record.forward(tensor_ops, *inputs, **node.attributes)
    outs, seeds = (outs, g) if node.record.multiple else ([outs], [g])
    pairs = [(o, s) for o, s in zip(outs, seeds, strict=True) if s is not None and o.requires_grad]
    targets = [t for t, need in zip(inputs, needs, strict=True) if need]
    walked = iter(_walk([o for o, _ in pairs], [s for _, s in pairs], targets, True, True, True))
    return [next(walked)[1] if need else None for need in needs]


def _recorded_rule(node: Node, g: Any, needs: tuple[bool, ...]) -> list[Any]:
    """Run a fused record's rule as one operation, `name.vjp`, so that a recording holds one instruction for it."""
    values = [g, *_lift(node, node.saved or (), node.record.joint_reads)]
    outs = iter(call_vjp(node.record, needs, values))
    return [next(outs) if need else None for need in needs]


def _lift(node: Node, values: tuple[Any, ...], reads: Iterable[tuple[str, Any]]) -> list[Any]:
    """What a rule reads, as Tensors that stand where the arrays stood in the graph."""
    lifted = []
    for value, (source, key) in zip(values, reads, strict=True):
        if source == "input":
            value = _handle(value, node.edges[key])
        elif source == "variadic":
            value = tuple(_handle(v, e) for v, e in zip(value, node.edges[key:], strict=True))
        elif source == "out" and node.outputs is not None:
            value = [_handle(v, Output(node, i)) for i, v in enumerate(value)]
        elif source == "out":
            value = _handle(value, node)
        elif source == "residual":
            value = _handle(value, None)
        lifted.append(value)
    return lifted


def _handle(array: Any, edge: Edge) -> Any:
    """A Tensor on `array` at `edge`: the leaf itself, a new handle on a node's result, or a constant."""
    if type(array) not in BACKEND_BY_TYPE:
        return array
    if type(edge) in TENSOR_TYPES:
        return edge
    handle = Tensor(array)
    if edge is not None:
        handle.node, handle.requires_grad, handle.cell = edge, True, None
    return handle


def fit(ops: Any, g: Any, shape: tuple[int, ...], dtype: Any, rec: Record) -> Any:
    """Close a gradient: sum over broadcast axes, take the real part for a real input, cast to the input's dtype."""
    if g.shape != shape:
        lead = len(g.shape) - len(shape)
        if lead < 0 or not rec.broadcasts:
            raise RuntimeError(
                f"internal error: the rule of {rec.name} gave a gradient of shape {g.shape} for an input {shape}"
            )
        stretched = tuple(i + lead for i, n in enumerate(shape) if n == 1 and g.shape[i + lead] != 1)
        g = ops.sum(g, axis=tuple(range(lead)) + stretched, keepdims=True)
        g = ops.reshape(g, shape=shape)
        if tuple(g.shape) != tuple(shape):
            raise RuntimeError(f"internal error: the rule of {rec.name} gave a gradient that does not fit {shape}")
    if g.dtype != dtype:
        if g.dtype.kind == "c" and dtype.kind != "c":
            g = ops.real(g)
        if g.dtype != dtype:
            g = ops.astype(g, dtype=dtype)
    return g


def _dense(g: Scatter, entry: list[Any] | None, lifted: bool) -> Any:
    """Add a scattered gradient to what waits in `entry`: None where that took it up, else the first total."""
    if lifted:
        total = index_added(None if entry is None else entry[1], g)
        if entry is None:
            return total
        entry[1] = total
    elif entry is None:
        return scatter_into(None, g)
    elif entry[2]:
        scatter_into(entry[1], g)
    else:
        entry[1], entry[2] = scatter_into(entry[1].copy(), g), True
    return None


def _leading_to(roots: Sequence[Edge], wanted: set[int]) -> set[int]:
    """Ids of the nodes on a way from `roots` to `wanted`: the walk goes nowhere else."""
    seen: dict[int, Edge] = {}
    stack = list(roots)
    while stack:
        edge = stack.pop()
        if id(edge) not in seen:
            seen[id(edge)] = edge
            stack.extend(_inputs(edge))
    # A node is older than every node made from it, so in order of age each comes after all of its inputs.
    leads = {key for key in seen if key in wanted}
    nodes = [e for e in seen.values() if type(e) not in TENSOR_TYPES]
    for edge in sorted(nodes, key=lambda e: e.number, reverse=True):
        if any(id(i) in leads for i in _inputs(edge)):
            leads.add(id(edge))
    return leads


def _inputs(edge: Edge) -> Iterable[Edge]:
    if type(edge) is Output:
        return (edge.parent,)
    return () if type(edge) in TENSOR_TYPES else [e for e in edge.edges if e is not None]


def _seed(tensor: Tensor, gradient: Any, lifted: bool) -> Any:
    backend = backend_of(tensor.array)
    if gradient is None:
        if tensor.array.size != 1:
            raise ValueError(
                f"backward() without a gradient needs a result of one element, got shape {tensor.shape}. "
                "Reduce it first, e.g. with .sum() or .mean(), or pass gradient=."
            )
        array = backend.xp.ones(tensor.shape, tensor.dtype)
        return Tensor(array) if lifted else array
    if type(gradient) not in TENSOR_TYPES:
        gradient = Tensor(backend.asarray(gradient, dtype=tensor.dtype))
    if gradient.shape != tensor.shape:
        raise ValueError(f"gradient must have the shape of the result, {tensor.shape}; got {describe(gradient)}")
    if type(gradient.array) is not type(tensor.array):
        raise TypeError(f"gradient is on {gradient.backend.name}, the result on {tensor.backend.name}; use .to()")
    if gradient.dtype != tensor.dtype:
        gradient = gradient.astype(tensor.dtype)
    return gradient if lifted else gradient.array.copy()  # it may end in .grad, and the caller keeps his own


def _store(leaf: Tensor, gradient: Any, stored: set[int]) -> None:
    """Put a gradient into `.grad`. The first one is copied where somebody else may hold the same memory."""
    if isinstance(gradient, Tensor):
        array = gradient.array
        if leaf.grad is not None:
            gradient = tensor_ops.add(leaf.grad, gradient)
        elif not gradient.requires_grad and (id(array) in stored or array.base is not None):
            gradient = tensor_ops.positive(gradient)
        stored.add(id(array))
        leaf.grad = gradient
        return
    array, owned = gradient
    if array.shape != leaf.array.shape or array.dtype != leaf.array.dtype:
        raise RuntimeError(f"internal error: a gradient {array.dtype} {array.shape} came for a leaf {describe(leaf)}")
    if leaf.grad is not None:
        if not leaf.grad.requires_grad and leaf.grad.cell is not None:
            leaf.grad.array += array
            leaf.grad.cell[0] += 1
        else:
            leaf.grad = tensor_ops.add(leaf.grad, Tensor(array))
        return
    if not owned and (id(array) in stored or array.base is not None):
        array = array.copy()
    stored.add(id(array))
    leaf.grad = Tensor(array)


def _no_graph(t: Tensor) -> str:
    if t.node is None and is_float(t.dtype):
        return (
            "backward() on a tensor with no graph: nothing that it was computed from requires a gradient. Set "
            "requires_grad=True on the parameters (rg.tensor(..., requires_grad=True)) before the forward pass, and do "
            "not run it under no_grad. What a compiled function returns has none: call backward() inside it."
        )
    return f"backward() on a tensor that cannot have a graph: {describe(t)}"


def _mutated(node: Node) -> str:
    line = f" at {node.line}" if node.line else ""
    return (
        f"a value that the gradient of {node.name}{line} needs was changed in place after the forward pass. "
        "Change leaves only after backward(), or compute with a copy."
    )


def _refuse_nan_gradient(node: Node, position: int, gradient: Any, backend: Any) -> None:
    array = gradient.array if isinstance(gradient, Tensor) else gradient
    if type(array) is not Scatter and bool(backend.to_numpy(backend.xp.isnan(array).any())):
        raise FloatingPointError(f"the gradient of {node.name}, called at {node.line}, holds a NaN (input {position})")
