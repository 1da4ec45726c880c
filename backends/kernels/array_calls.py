"""A description as a list of array operations: what NumPy can do of it, one whole-array call after the other.

A kernel generator writes `y = max(x * w + b, 0)` as one line of a loop. NumPy has a function for each sign in it:

    multiply(x, w) → a        add(a, b) → c        maximum(c, 0) → y

This file only says which operations on which values; `numpy_generator.py` gives the values places and binds the calls.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import NamedTuple

from .description import Description, Reduction, Statement
from .expressions import Unsupported


class Number(NamedTuple):
    """A constant of a dtype."""

    value: float
    dtype: str


class Call(NamedTuple):
    """`function` of operands (names of values and numbers) gives the value `target`: one per row, or per element."""

    function: str
    operands: tuple[str | Number, ...]
    target: str
    dtype: str
    per_row: bool


BINARY = {
    ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide",
    ast.Gt: "greater", ast.GtE: "greater_equal", ast.Lt: "less", ast.LtE: "less_equal", ast.Eq: "equal",
    ast.NotEq: "not_equal", ast.And: "logical_and", ast.Or: "logical_or",
}  # fmt: skip
SAME_NAME = {"sqrt", "floor", "sign", "exp", "expm1", "log", "log1p", "log2", "log10", "tanh", "sin", "cos"}
RENAMED = {"abs": "absolute", "max": "maximum", "min": "minimum", "maximum": "maximum", "minimum": "minimum"}

# erf(x)/x as a quotient of polynomials of x², highest power first: those of the record `erf`, in float32.
_TOP = (2.050117913472192e-6, 2.848771691801931e-4, 3.765400903643224e-3, 5.27480650745722e-2, 1.9040152614691555e-1,
        1.1283791463596016)  # fmt: skip
_BOTTOM = (3.8091737815779655e-5, 1.162481573169111e-3, 1.4968788680655886e-2, 1.141070636305277e-1,
           5.020717020517864e-1, 1.0)  # fmt: skip


def array_calls(description: Description) -> tuple[list[Call], dict[str, str]]:
    """The calls, and which value each operand or target of the description is. Raises Unsupported."""
    lister = _Lister(description)
    for step in description.body:
        lister.step(step)
    return lister.calls, lister.names


class _Lister:
    def __init__(self, description: Description):
        self.calls: list[Call] = []
        self.names = {o.name: o.name for o in description.operands}
        self.dtypes = {o.name: o.dtype for o in description.operands}
        self.numbers, self.per_row = "", False

    def step(self, step: Statement | Reduction) -> None:
        if isinstance(step, Reduction):
            found = self._new(step.kind, self.names[step.source], dtype=step.dtype, per_row=True)
        else:
            self.numbers, self.per_row = step.numbers, step.per_row
            found = self._value(ast.parse(step.expression, mode="eval").body)
            if isinstance(found, Number) or self.dtypes[found] != step.dtype:
                found = self._new("cast", found, dtype=step.dtype)
        self.names[step.target] = found

    def _new(self, function: str, *operands: str | Number, dtype: str = "", per_row: bool | None = None) -> str:
        target = f"a{len(self.calls)}"
        dtype = dtype or self.numbers
        self.dtypes[target] = dtype
        self.calls.append(Call(function, operands, target, dtype, self.per_row if per_row is None else per_row))
        return target

    def _value(self, node: ast.AST) -> str | Number:
        match node:
            case ast.Constant(value=int() | float() as value):
                return Number(value, self.numbers)
            case ast.Name(id="inf" | "nan"):
                return Number(float(node.id), self.numbers)
            case ast.Name():
                return "count" if node.id == "count" else self.names[node.id]
            case ast.UnaryOp(op=ast.USub()):
                inner = self._value(node.operand)
                return inner._replace(value=-inner.value) if isinstance(inner, Number) else self._new("negative", inner)
            case ast.UnaryOp(op=ast.Not()):
                return self._new("logical_not", self._value(node.operand), dtype="bool")
            case ast.BinOp(op=ast.Pow()):
                return self._power(self._value(node.left), ast.literal_eval(node.right))
            case ast.BinOp():
                if self.numbers == "bool":
                    raise Unsupported("arithmetic of truth values")
                return self._new(BINARY[type(node.op)], self._value(node.left), self._value(node.right))
            case ast.Compare(ops=[sign], comparators=[right]):
                return self._new(BINARY[type(sign)], self._value(node.left), self._value(right), dtype="bool")
            case ast.BoolOp():
                found, *others = [self._value(v) for v in node.values]
                for other in others:
                    found = self._new(BINARY[type(node.op)], found, other, dtype="bool")
                return found
            case ast.IfExp():
                return self._choice(*[self._value(n) for n in (node.test, node.body, node.orelse)])
            case ast.Call(func=ast.Name(id=name)):
                return self._function(name, node)
        raise Unsupported(ast.unparse(node))

    def _power(self, base: str | Number, exponent: float) -> str:
        if exponent == 0.5:
            return self._new("sqrt", base)
        if exponent == -1:
            return self._new("divide", Number(1.0, self.numbers), base)
        found = self._new("square", base)
        for _ in range(int(exponent) - 2):
            found = self._new("multiply", found, base)
        return found

    def _function(self, name: str, node: ast.Call) -> str:
        if name == "log1p" and isinstance(node.args[0], ast.Call) and node.args[0].func.id == "exp":  # type: ignore[attr-defined]
            return self._log_one_plus_exp(self._value(node.args[0].args[0]))
        arguments = [self._value(a) for a in node.args]
        if name == "erf":
            return self._erf(arguments[0])
        return self._new(name if name in SAME_NAME else RENAMED[name], *arguments)

    def _log_one_plus_exp(self, x: str | Number) -> str:
        """log(1 + eˣ) = max(x, 0) + log(1 + e), e = exp(-|x|), and the logarithm with what its sum lost to rounding:
        six times quicker than NumPy's log1p, which is not vectorised."""
        new, one = self._new, Number(1.0, self.numbers)
        e = new("exp", new("negative", new("absolute", x)))
        total = new("add", one, e)
        lost = new("divide", new("subtract", e, new("subtract", total, one)), total)
        return new("add", new("maximum", x, Number(0.0, self.numbers)), new("add", new("log", total), lost))

    def _erf(self, x: str | Number) -> str:
        if self.numbers != "float32":
            raise Unsupported(f"erf of {self.numbers}")

        def number(value: float) -> Number:
            return Number(value, "float32")

        new = self._new
        bounded = new("minimum", new("maximum", x, number(-4.0)), number(4.0))
        square = new("multiply", bounded, bounded)
        top, bottom = (self._polynomial(square, c) for c in (_TOP, _BOTTOM))
        found = new("multiply", bounded, new("divide", top, bottom))
        return new("minimum", new("maximum", found, number(-1.0)), number(1.0))

    def _polynomial(self, z: str, coefficients: Sequence[float]) -> str:
        first, *others = [Number(c, "float32") for c in coefficients]
        total = self._new("multiply", z, first)
        for c in others[:-1]:
            total = self._new("multiply", self._new("add", total, c), z)
        return self._new("add", total, others[-1])

    def _choice(self, condition: str | Number, x: str | Number, y: str | Number) -> str:
        """x where the condition holds, else y. NumPy's `where` on a mask without order guesses wrong at each element;
        on whole bits it is y ^ ((x ^ y) & mask), with a mask of ones and zeros."""
        if isinstance(condition, Number) or self.numbers not in _BITS:
            raise Unsupported(f"a choice of {self.numbers}")
        mask = self._new("cast", self._new("mask", condition, dtype="int8"), dtype=_BITS[self.numbers])
        differ = self._new("bitwise_xor", x, y)
        return self._new("bitwise_xor", self._new("bitwise_and", differ, mask), y)


_BITS = {"float32": "int32", "int32": "int32", "float64": "int64", "int64": "int64"}
"""The integers that a number's bits are."""
