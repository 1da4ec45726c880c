"""The graph: what an operation leaves behind so that the chain rule can pass through it later.

A node points to its inputs and never to its outputs. So there are no cycles, and memory goes with the last reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import Any

from .record import Record

# Counts down, so that the newest node has the smallest number: a heap of numbers pops nodes in an order in which every
# node comes before the inputs it was made from.
next_number = count(0, -1).__next__

NOTHING: Mapping[str, Any] = MappingProxyType({})
Spec = tuple[tuple[int, ...], Any]  # shape, dtype


class Node:
    """One application of a record.

    `edges`: for each input the node that made it, the leaf itself, or None where no gradient is wanted.
    `saved`: for each input what its rule reads (for a joint rule one tuple for all); None once a walk has used it up.
    `versions`: (cell, version) of saved memory that a user could change. `specs`: shape and dtype of each input, None
    where all are like the output. `inputs`: all input arrays, kept for fused records only, whose forward runs again for
    derivatives of higher order. `outputs`: the specs of the outputs of a record that has several.
    """

    __slots__ = (
        "__weakref__",
        "attributes",
        "edges",
        "hooks",
        "inputs",
        "line",
        "number",
        "outputs",
        "record",
        "saved",
        "specs",
        "versions",
    )

    def __init__(
        self,
        record: Record,
        edges: tuple[Any, ...],
        saved: tuple[Any, ...],
        versions: tuple[tuple[list[int], int], ...],
        specs: tuple[Spec | None, ...] | None = None,
        attributes: Mapping[str, Any] = NOTHING,
    ):
        self.record = record
        self.number = next_number()
        self.edges = edges
        self.saved: tuple[Any, ...] | None = saved
        self.versions = versions
        self.specs = specs
        self.attributes = attributes
        self.inputs: Sequence[Any] | None = None
        self.outputs: tuple[Spec, ...] | None = None
        self.hooks: dict[int, Any] | None = None
        self.line: str | None = None

    @property
    def name(self) -> str:
        return self.record.name


class Output:
    """One output of a node that has several: it hands its cotangent to the node as number `index`."""

    __slots__ = ("__weakref__", "hooks", "index", "number", "parent")

    def __init__(self, parent: Node, index: int):
        self.parent = parent
        self.index = index
        self.number = next_number()
        self.hooks = None

    @property
    def name(self) -> str:
        return f"{self.parent.name}[{self.index}]"
