"""Looking at a module: its repr, a table of its layers, a table of its gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from ..autograd_core.context import no_grad
from ..autograd_core.promotion import DEFAULT_FLOAT, is_float
from ..autograd_core.tensor import Tensor
from .containers import ModuleList
from .errors import refusal
from .module import Module, _children, _own_parameters


def tree(module: Module) -> str:
    """The repr of a module: one line, or its children indented below it; equal items of a list are counted."""
    extra = module.extra_repr()
    lines = [extra] if extra else []
    for names, text in _children_as_text(module):
        lines.append(f"({names}): {text}")
    if not lines:
        return f"{type(module).__name__}()"
    if extra and len(lines) == 1:
        return f"{type(module).__name__}({extra})"
    body = "\n".join(lines).replace("\n", "\n  ")
    return f"{type(module).__name__}(\n  {body}\n)"


def _children_as_text(module: Module) -> Iterator[tuple[str, str]]:
    texts = [
        (name, tree(child) if type(child).__repr__ is Module.__repr__ else repr(child))
        for name, child in _children(module)
    ]
    if not isinstance(module, ModuleList):
        yield from texts
        return
    for text, same in groupby(texts, key=lambda pair: pair[1]):
        names = [name for name, _ in same]
        yield (names[0], text) if len(names) == 1 else (f"{names[0]}-{names[-1]}", f"{len(names)} x {text}")


@dataclass(frozen=True)
class Layer:
    """One row of a summary: `parameters` are the module's own, each counted where it is first met."""

    name: str
    kind: str
    output: str
    parameters: int
    frozen: int


@dataclass(frozen=True, repr=False)
class Summary:
    """The layers of a module and what they hold; its text is the table. `trained` and `frozen` count numbers."""

    layers: list[Layer]
    trained: int
    frozen: int
    nbytes: int

    def __str__(self) -> str:
        rows = [("layer", "output shape", "parameters", "")]
        for layer in self.layers:
            depth = layer.name.count(".") + 1 if layer.name else 0
            name = layer.name.rpartition(".")[2]
            state = "" if not layer.parameters else _STATES[(layer.frozen > 0) + (layer.frozen == layer.parameters)]
            count = f"{layer.parameters:,}" if layer.parameters else "-"
            rows.append(("  " * depth + f"{name} {layer.kind}".strip(), layer.output, count, state))
        total = f"{self.trained + self.frozen:,} parameters: {self.trained:,} trained, {self.frozen:,} frozen"
        return f"{_table(rows, right=(2,))}\n{total}; {_amount(self.nbytes)} with buffers"

    __repr__ = __str__


_STATES = ("trained", "partly frozen", "frozen")


def summary(module: Module, input_shape: tuple[int, ...] | None = None, sample: Any = None) -> Summary:
    """A table of a module and all modules below it; print it, or look at its fields.

    Args:
        input_shape: the shape of one example, without the batch axis: the module is run once on a batch of one, in
            evaluation mode, to learn the output shapes.
        sample: instead, what to call the module with: a Tensor or array with its batch axis, or a tuple of several.
            Without both, no output shapes are shown.

    >>> import retrograd as rg
    >>> from retrograd import nn
    >>> net = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)).freeze("0")
    >>> net.summary((784,))
    layer       output shape  parameters
    Sequential  (1, 10)                -
      0 Linear  (1, 128)         100,480  frozen
      1 ReLU    (1, 128)               -
      2 Linear  (1, 10)            1,290  trained
    101,770 parameters: 1,290 trained, 100,480 frozen; 407.1 kB with buffers
    """
    shapes = _output_shapes(module, input_shape, sample)
    seen: set[int] = set()
    layers = []
    for name, each in module.named_modules():
        own = [p for _, p in _own_parameters(each) if id(p) not in seen]
        seen.update(map(id, own))
        frozen = sum(p.size for p in own if not p.requires_grad)
        shown = "" if shapes is None else shapes.get(id(each), "not called")
        layers.append(Layer(name, type(each).__name__, shown, sum(p.size for p in own), frozen))
    frozen = sum(layer.frozen for layer in layers)
    nbytes = sum(t.nbytes for t in [*module.parameters(), *module.buffers()])
    return Summary(layers, sum(layer.parameters for layer in layers) - frozen, frozen, nbytes)


@dataclass(frozen=True, repr=False)
class GradientReport:
    """Norms of the gradients by parameter name, None where none was reached; its text is the table."""

    norms: dict[str, float | None]
    weights: dict[str, float]
    frozen: list[str]
    unreached: list[str] = field(init=False)

    def __post_init__(self) -> None:
        missing = [n for n, norm in self.norms.items() if norm is None and n not in self.frozen]
        object.__setattr__(self, "unreached", missing)

    @property
    def total(self) -> float:
        """The norm of all gradients together: what `clip_grad_norm_` compares."""
        return math.sqrt(sum(n * n for n in self.norms.values() if n is not None))

    def __str__(self) -> str:
        rows = [("parameter", "norm", "gradient norm", "ratio")]
        for name, norm in self.norms.items():
            weight = self.weights[name]
            if norm is None:
                rows.append((name, f"{weight:.3g}", "frozen" if name in self.frozen else "not reached", ""))
            else:
                rows.append((name, f"{weight:.3g}", f"{norm:.3g}", f"{norm / weight:.1e}" if weight else "-"))
        end = f"total gradient norm {self.total:.3g}"
        if self.unreached:
            end += f"; no gradient reached {', '.join(self.unreached)}"
        return f"{_table(rows, right=(1, 2, 3))}\n{end}"

    __repr__ = __str__


def gradient_report(module: Module) -> GradientReport:
    """The norm of every parameter and of its gradient, after `backward()`. Small norms in the first layers mean that
    gradients vanish on the way, large ones that they explode; a parameter that none reached is not connected.

    >>> import retrograd as rg
    >>> layer = rg.nn.Linear(2, 1)
    >>> rg.sum(layer.weight * 3.0).backward()
    >>> report = layer.gradient_report()
    >>> round(report.norms["weight"], 3), report.unreached
    (4.243, ['bias'])
    """
    named = dict(module.named_parameters())
    norms = {name: None if p.grad is None else _norm(p.grad) for name, p in named.items()}
    frozen = [name for name, p in named.items() if not p.requires_grad]
    return GradientReport(norms, {name: _norm(p) for name, p in named.items()}, frozen)


def _norm(tensor: Tensor) -> float:
    values = abs(tensor.backend.to_numpy(tensor.array)).astype("float64")
    return math.sqrt(float((values * values).sum()))


def _output_shapes(module: Module, input_shape: tuple[int, ...] | None, sample: Any) -> dict[int, str] | None:
    if input_shape is None and sample is None:
        return None
    if sample is None:
        like = next((p for p in module.parameters() if is_float(p.dtype)), None)
        sample = _zeros((1, *(input_shape or ())), like)
    found: dict[int, str] = {}

    def note(each: Module, _: Any, out: Any) -> None:
        found.setdefault(id(each), _shape(out))

    training = [(each, each.training) for each in module.modules()]
    handles = [each.register_forward_hook(note) for each, _ in training]
    module.eval()
    try:
        with no_grad():
            module(*sample) if isinstance(sample, tuple) else module(sample)
    except Exception as error:
        if input_shape is None:
            raise
        raise refusal(
            type(error),
            f"summary ran the module on zeros of shape {(1, *input_shape)}, and: {error} "
            "(input_shape is the shape of one example; for integer or several inputs pass sample=)",
        ) from None
    finally:
        for handle in handles:
            handle.remove()
        for each, mode in training:
            each.training = mode
    return found


def _zeros(shape: tuple[int, ...], like: Tensor | None) -> Tensor:
    from ..autograd_core.context import current_backend

    backend = current_backend() if like is None else like.backend
    return Tensor(backend.xp.zeros(shape, DEFAULT_FLOAT if like is None else like.dtype))


def _shape(out: Any) -> str:
    if isinstance(out, Tensor):
        return str(out.shape)
    if isinstance(out, list | tuple):
        return ", ".join(_shape(o) for o in out)
    return type(out).__name__


def _table(rows: list[tuple[str, ...]], right: tuple[int, ...]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [t.rjust(w) if i in right else t.ljust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _amount(nbytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes} bytes"
