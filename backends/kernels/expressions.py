"""A record's scalar expression ("x * y", "max(x, 0)", "x if condition else y") as code of a kernel.

Numbers get the dtype of the computation, or the compiler would widen everything to float64. Both arms of a choice are
evaluated: a loop with a branch in it does not become vector instructions.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache

FUNCTIONS: dict[str, int] = {
    "abs": 1, "sqrt": 1, "floor": 1, "sign": 1, "exp": 1, "expm1": 1, "log": 1, "log1p": 1, "log2": 1, "log10": 1,
    "tanh": 1, "erf": 1, "sin": 1, "cos": 1, "max": 2, "maximum": 2, "min": 2, "minimum": 2,
}  # fmt: skip
"""Every function an expression may call, and how many arguments it takes."""

HEAVY = {"exp", "expm1", "log", "log1p", "log2", "log10", "tanh", "erf", "sin", "cos"}
_LIBRARY = {"float32": {}, "float64": dict.fromkeys(HEAVY, "np.") | {"erf": "math."}}


class Unsupported(ValueError):
    """An expression that no kernel can hold."""


@cache
def cost(expression: str) -> int:
    """About how many additions an expression takes."""
    total = 0
    for node in ast.walk(ast.parse(expression, mode="eval")):
        if isinstance(node, ast.Call):
            total += 12 if getattr(node.func, "id", "") in HEAVY else 2
        elif isinstance(node, ast.BinOp):
            total += 4 if isinstance(node.op, ast.Div) else 1
        elif isinstance(node, (ast.Compare, ast.IfExp, ast.BoolOp, ast.UnaryOp)):
            total += 1
    return total


@cache
def names(expression: str) -> tuple[str, ...]:
    """The names an expression reads, in order, without the functions it calls."""
    tree = ast.parse(expression, mode="eval")
    called = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    found = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in called]
    return tuple(dict.fromkeys(found))


def substitute(expression: str, replacements: Mapping[str, str]) -> str:
    """The expression with other names, or numbers, in the places of some."""
    return _substituted(expression, tuple(replacements.items()))


@cache
def _substituted(expression: str, replacements: tuple[tuple[str, str], ...]) -> str:
    return ast.unparse(_Renamer(dict(replacements)).visit(ast.parse(expression, mode="eval")))


class _Renamer(ast.NodeTransformer):
    def __init__(self, replacements: Mapping[str, str]) -> None:
        self.replacements = replacements

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.args = [self.visit(a) for a in node.args]
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.parse(f"({self.replacements[node.id]})", mode="eval").body if node.id in self.replacements else node


@cache
def translate(expression: str, dtype: str) -> str:
    """The expression as a kernel writes it, its numbers of `dtype`. Raises Unsupported."""
    return ast.unparse(ast.fix_missing_locations(_Translator(dtype).visit(ast.parse(expression, mode="eval"))))


class _Translator(ast.NodeTransformer):
    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not isinstance(node.value, (int, float)):
            raise Unsupported(f"a constant {node.value!r}")
        if self.dtype == "bool":
            return ast.Constant(bool(node.value))
        if self.dtype.startswith("float"):
            return _parse(f"np.{self.dtype}({float(node.value)!r})")
        if node.value != int(node.value):
            raise Unsupported("a fraction among integers")
        return ast.Constant(int(node.value))

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return _parse(f"np.{self.dtype}(np.{node.id})") if node.id in ("inf", "nan") else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = getattr(node.func, "id", "")
        if FUNCTIONS.get(name) != len(node.args) or node.keywords:
            raise Unsupported(f"a call of {name!r}")
        args = [self.visit(a) for a in node.args]
        if name in HEAVY | {"sqrt", "floor"} and not self.dtype.startswith("float"):
            raise Unsupported(f"{name} of {self.dtype}")
        if name == "sign":
            one, zero = (ast.unparse(self.visit(ast.Constant(v))) for v in (1, 0))
            x = ast.unparse(args[0])
            return _parse(f"where({x} > {zero}, {one}, where({x} < {zero}, -{one}, {x}))")
        if name in ("max", "min"):
            name += "imum"
        prefix = "np." if name in ("sqrt", "floor") else _LIBRARY.get(self.dtype, {}).get(name, "")
        return _parse(f"{prefix}{name}({', '.join(ast.unparse(a) for a in args)})")

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        parts = [ast.unparse(self.visit(n)) for n in (node.test, node.body, node.orelse)]
        return _parse(f"where({', '.join(parts)})")

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        sign = " & " if isinstance(node.op, ast.And) else " | "
        return _parse(sign.join(f"({ast.unparse(self.visit(v))})" for v in node.values))

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if isinstance(node.op, ast.Pow):
            return self._power(node)
        if isinstance(node.op, ast.Div) and not self.dtype.startswith("float"):
            raise Unsupported("a quotient of integers")
        if not isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div)):
            raise Unsupported(type(node.op).__name__)
        return ast.BinOp(self.visit(node.left), node.op, self.visit(node.right))

    def _power(self, node: ast.BinOp) -> ast.AST:
        try:
            exponent = ast.literal_eval(node.right)
        except ValueError:
            exponent = None
        base = f"({ast.unparse(self.visit(node.left))})"
        if exponent in (2, 3, 4):
            return _parse(" * ".join([base] * int(exponent)))
        if exponent in (0.5, -1) and self.dtype.startswith("float"):
            return _parse(f"np.sqrt({base})" if exponent == 0.5 else f"np.{self.dtype}(1.0) / {base}")
        raise Unsupported("a power that is no small product")


def _parse(text: str) -> ast.AST:
    return ast.parse(text, mode="eval").body
