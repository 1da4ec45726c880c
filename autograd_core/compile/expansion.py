"""Fused records written out: softmax, layer norm, cross-entropy, gelu and their gradients as the operations they mean.

A generated kernel holds elementwise steps and reductions over rows, so where kernels are generated a fused record is
more use written out. Nothing is written for that: the record's forward, and the walk back through it, run once on
stand-ins while a recorder listens. What was recorded takes the step's place.

A record whose operations no kernel could hold (convolution, recurrent cells) stays one step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backward import gradients_of
from ..context import switched
from ..record import REGISTRY, Record, tensor_ops
from ..recorder import Recorder, Step, Value
from ..tensor import Tensor
from ..vjp import fill
from .scalar_form import expressed, reduced
from .tape import Tape


def _linear(ops: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    """One product of two matrices whatever the number of axes, then the bias, so that what follows fuses with it."""
    rows = ops.reshape(x, shape=(math.prod(x.shape[:-1]), x.shape[-1])) if len(x.shape) != 2 else x
    out = ops.matmul(rows, ops.transpose(weight))
    out = out if bias is None else ops.add(out, bias)
    return out if len(x.shape) == 2 else ops.reshape(out, shape=(*x.shape[:-1], weight.shape[0]))


WRITTEN: dict[str, Callable[..., Any]] = {"linear": _linear}
"""Records that are better written out otherwise than in their forward."""


class _NotHeld(RuntimeError):
    """A record does something that no kernel could hold."""

    explained = True


class _Listening(Tape):
    """A tape that stops at the first step that no kernel could hold: what follows may be large."""

    def record(self, rec: Any, operands: Any, attributes: Any, results: Any, residuals: Any) -> None:
        super().record(rec, operands, attributes, results, residuals)
        if rec.kind != "fused" and not _holds(self.steps[-1], self):
            raise _NotHeld


class Written(NamedTuple):
    """A record on inputs of certain shapes: what was recorded, and which numbers there are the inputs and results."""

    tape: Tape
    inputs: list[int]
    outputs: list[int]


def expand(tape: Tape) -> list[Step]:
    """The steps of a tape with fused records written out. New values get numbers and specs in the tape, new constants
    become storages of it."""
    known: dict[Any, Written | None] = {}
    placed: dict[int, dict[int, int]] = {}  # id of what was recorded → its constants' numbers in the tape
    written = [_written(step, tape, known) for step in tape.steps]
    whole = [step for step, w in zip(tape.steps, written, strict=True) if w is None]
    read = {v.number for step in whole for v in step.inputs if isinstance(v, Value)}
    result: list[Step] = []
    for step, w in zip(tape.steps, written, strict=True):
        if w is None or any(n in read for n in step.outputs[len(w.outputs) :]):  # a residual that somebody needs
            result.append(step)
        else:
            result += _instance(step, w, tape, placed.setdefault(id(w), {}))
    return result


def _written(step: Step, tape: Tape, known: dict[Any, Written | None]) -> Written | None:
    rec = step.record
    if rec is None or rec.kind != "fused" or any(not isinstance(v, Value) and v is not None for v in step.inputs):
        return None
    specs = tuple(None if v is None else tape.specs[v.number] for v in step.inputs)
    outs = tuple(tape.specs[n] for n in step.outputs)
    key = (rec.name, repr(specs), repr(outs), repr(sorted(step.attributes.items())))
    if key not in known:
        known[key] = written_out(step, specs, outs)
    return known[key]


def written_out(step: Step, specs: Sequence[Any], outs: Sequence[Any]) -> Written | None:
    """Run a step's record on stand-ins for inputs of these specs and look at what it did; None where kernels could not
    hold it."""
    rec = step.record
    assert rec is not None
    if REGISTRY[rec.name.removesuffix(".vjp")].multiple:
        return None
    if all(np.dtype(s[1]).itemsize < 4 for s in specs if s is not None and np.dtype(s[1]).kind == "f"):
        return None  # half precision: no kernel takes it
    tape = _Listening({})
    given = [None if s is None else Tensor(np.zeros(*s)) for s in specs]
    inputs = [tape.number(t, known=True) for t in given if t is not None]
    try:
        with np.errstate(all="ignore"), switched(recorder=tape, grad=rec.name.endswith(".vjp")):
            if rec.name.endswith(".vjp"):
                results = _gradients(rec, step, given, outs)
            else:
                results = [_forward(rec)(tensor_ops, *given, **step.attributes)]
    except (RuntimeError, TypeError, ValueError):
        return None
    if any(r is None for r in results):
        return None
    numbers = [tape.number(r) for r in results]
    tape.steps = expand(tape)
    return Written(tape, inputs, numbers) if all(_holds(s, tape) for s in tape.steps) else None


def _forward(rec: Record) -> Callable[..., Any]:
    return WRITTEN.get(rec.name, rec.forward)


def _gradients(vjp: Record, step: Step, given: Sequence[Any], outs: Sequence[Any]) -> list[Any]:
    """Walk back through the forward of the record whose rule this is, or run the rule where it is exact. An input that
    the rule does not read gets a stand-in: the gradient does not depend on its value."""
    rec = REGISTRY[vjp.name.removesuffix(".vjp")]
    layout, needs = step.attributes["layout"], step.attributes["needs"]
    seed, *values = list(fill(layout, iter(given)))
    if rec.exact:
        rule: Any = rec.joint
        return [g for g, need in zip(rule(tensor_ops, needs, seed, *values), needs, strict=True) if need]
    found: dict[str, Any] = {}
    attributes = dict(rec.defaults)
    for value, (origin, key) in zip(values, rec.joint_reads, strict=True):
        if origin == "input":
            found[rec.inputs[key]] = value
        elif origin == "attribute":
            attributes[key] = value
    shapes = iter(outs)
    inputs, targets = [], []
    for name, need in zip(rec.inputs, needs, strict=False):
        value = found.get(name)
        if need:
            spec = next(shapes)
            value = Tensor(np.zeros(*spec) if value is None else value.array)
            value.requires_grad = True
            targets.append(value)
        inputs.append(value)
    out = _forward(rec)(tensor_ops, *inputs, **attributes)
    return [g for _, g in gradients_of([out], [seed], targets, True, False)]


def _holds(step: Step, tape: Recorder) -> bool:
    """Whether a step can be part of a kernel, or costs what it always did."""
    rec = step.record
    if rec is None:
        return False
    if rec.kind == "movement":
        return not _enlarges(step, tape)
    if rec.name == "matmul":
        return True
    return expressed(step, tape.specs) is not None or reduced(step, tape.specs) is not None


def _enlarges(step: Step, tape: Recorder) -> bool:
    """Whether a step copies its input more than once, as the windows of a convolution do: a fused record has a way
    without all the copies in memory at a time."""
    source = step.inputs[0]
    if step.record.name == "broadcast_to" or not isinstance(source, Value):  # type: ignore[union-attr]
        return False
    return math.prod(tape.specs[step.outputs[0]][0]) > math.prod(tape.specs[source.number][0])


def _instance(step: Step, written: Written, tape: Tape, constants: dict[int, int]) -> list[Step]:
    """What was recorded, with the numbers that its values have in this tape."""
    inner = written.tape
    numbers = dict(zip(written.inputs, [v.number for v in step.inputs if v is not None], strict=True)) | constants
    taken = set(numbers)
    for own, number in zip(written.outputs, step.outputs, strict=False):
        if own not in taken and own not in numbers:
            numbers[own] = number
    for own, spec in enumerate(inner.specs):
        if own not in numbers:
            numbers[own] = len(tape.specs)
            tape.specs.append(spec)
            if own in inner.storages:
                numbers[own] = constants[own] = _constant(tape, numbers[own], inner.storages[own])
    steps = [
        s._replace(
            inputs=tuple(Value(numbers[v.number]) if isinstance(v, Value) else v for v in s.inputs),
            outputs=tuple(numbers[n] for n in s.outputs),
            line=step.line,
        )
        for s in inner.steps
    ]
    module = tape.made_in.get(step.outputs[0])
    tape.made_in.update((s.outputs[0], module) for s in steps if module is not None and s.outputs)
    for own, number in zip(written.outputs, step.outputs, strict=False):
        if numbers[own] != number:  # a result that is an input, or another result
            steps.append(Step(REGISTRY["positive"], (Value(numbers[own]),), {}, (number,), step.line))
    return steps


def _constant(tape: Tape, number: int, tensor: Tensor) -> int:
    """Enter a constant that an expansion made; one of equal values serves for both, so that what is made of them is
    equal too."""
    values = (tensor.shape, str(tensor.dtype), tensor.backend.to_numpy(tensor.array).tobytes())
    number = tape.constants.setdefault(values, number)
    tape.storages.setdefault(number, tensor)
    return number
