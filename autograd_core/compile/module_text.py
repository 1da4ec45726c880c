"""Modules as text: where a name is defined, where a function stands, and its words without annotations.

Places are counted in bytes, as `ast` counts them.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from types import ModuleType
from typing import Any


class Unwritable(TypeError):
    """Something that no source text stands for."""

    explained = True


class Source:
    """A module's text, with places counted in bytes as `ast` counts them."""

    def __init__(self, module: ModuleType):
        self.bytes, self.starts = _bytes_of(module)

    def at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def span(self, node: Any) -> tuple[int, int]:
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)

    def of(self, node: Any) -> str:
        start, end = self.span(node)
        return self.bytes[start:end].decode()

    def lines(self, node: Any) -> tuple[int, int]:
        """The whole lines of a statement, and a blank one behind it."""
        end = self.starts[node.end_lineno]
        blank = re.match(rb"[ \t]*\n", self.bytes[end:])
        return self.starts[node.lineno - 1], end + (blank.end() if blank else 0)

    def find(self, node: Any, word: str) -> int:
        return self.bytes.index(f" {word}".encode(), self.span(node)[0]) + 1

    def edited(self, start: int, end: int, edits: Iterable[tuple[int, int, str]]) -> str:
        """The text of a range with those edits made that lie in it."""
        parts, at = [], start
        for first, last, text in sorted(set(edits)):
            if at <= first and last <= end:
                parts += [self.bytes[at:first], text.encode()]
                at = last
        return b"".join([*parts, self.bytes[at:end]]).decode()

    def plain(self, node: Any, keep: Sequence[Any]) -> Iterator[tuple[int, int, str]]:
        """Edits that take away annotations and all of a docstring but its first line."""
        if isinstance(node, ast.arg) and node.annotation is not None:
            start, end = self.span(node)
            default = re.match(rb"\s*=\s*", self.bytes[end:])
            yield start + len(node.arg.encode()), end + (default.end() if default else 0), "=" if default else ""
        statement: Any = node
        if _is_annotated(statement) and statement not in keep:
            yield self.span(statement.target)[1], self.span(statement.value)[0], " = "
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            start, end = self.span(node.returns)
            yield self.bytes.rindex(b"->", 0, start) - 1, end, ""
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            start, end = self.span(node.body[0])
            first = self.bytes[start:end].splitlines()[0].decode()
            if b"\n" in self.bytes[start:end]:
                yield start, end, first.rstrip() + '"""'


@cache
def _bytes_of(module: ModuleType) -> tuple[bytes, list[int]]:
    text = inspect.getsource(module).encode()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return text, starts


@cache
def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


@cache
def definitions(module: ModuleType) -> dict[str, Any]:
    """Name → the statement of a module that defines it."""
    found: dict[str, Any] = {}
    pending = list(_tree(module).body)
    for node in pending:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {a.asname or a.name.split(".")[0]: node for a in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {n.id: node for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        elif isinstance(node, (ast.If, ast.Try)):
            pending += node.body
    return found


def node_of(function: Any) -> Any:
    """The definition of a function in its module's tree."""
    code = function.__code__
    lines = [(line, column) for line, _, column, _ in code.co_positions() if line and column is not None]
    best: Any = None
    for node in ast.walk(_tree(sys.modules[function.__module__])):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            if min([node.lineno, *[d.lineno for d in node.decorator_list]]) == code.co_firstlineno:
                return node
        elif isinstance(node, ast.Lambda) and code.co_name == "<lambda>" and node.lineno == code.co_firstlineno:
            start, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
            if all(start <= place <= end for place in lines if place != (code.co_firstlineno, 0)):
                best = node if best is None or (node.lineno, node.col_offset) > (best.lineno, best.col_offset) else best
    if best is None:
        raise Unwritable(f"no source text was found of {function.__module__}.{function.__qualname__}")
    return best


def _is_annotated(node: Any) -> bool:
    """Whether a node is `name: type = value`."""
    return isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name)


def walk(node: Any, field_of: Any = None) -> Iterator[Any]:
    """All nodes below a definition but decorators, and annotations other than those of a class's fields."""
    yield node
    for field, value in ast.iter_fields(node):
        annotation = field in ("annotation", "returns") and not isinstance(field_of, ast.ClassDef)
        if annotation or field == "decorator_list":
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from walk(child, node)


def bound_names(node: Any) -> Iterator[str]:
    """The names that a definition gives values to inside."""
    for inner in walk(node):
        if isinstance(inner, ast.arg):
            yield inner.arg
        elif isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load) and not isinstance(node, ast.Assign):
            yield inner.id
        elif isinstance(inner, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)) and inner is not node and inner.name:
            yield inner.name


def module_of(module: ModuleType, node: ast.ImportFrom) -> ModuleType:
    """The module that `from … import` names."""
    package = module.__name__ if hasattr(module, "__path__") else module.__name__.rpartition(".")[0]
    return importlib.import_module("." * node.level + (node.module or ""), package)


def imported_value(module: ModuleType, node: ast.ImportFrom, name: str) -> Any:
    """What `from … import name` gave."""
    alias = next(a for a in node.names if (a.asname or a.name) == name)
    return getattr(module_of(module, node), alias.name, None)
