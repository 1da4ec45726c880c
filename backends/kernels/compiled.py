"""What a generated file imports: Numba's decorator with our options, and `mathematics` in a form that Numba compiles.

Fast-math flags let the compiler reorder sums and fuse products into them; NaN and infinity keep their meaning. Arrays
that a kernel is given do not overlap unless it reads both only, and the compiler is told so: it would otherwise test
every pair before each loop, or give up.
"""

# Numba makes its names at run time.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core.compiler import Compiler
from numba.extending import intrinsic, overload, register_jitable

from . import mathematics

FAST = {"reassoc", "contract", "arcp", "nsz", "afn"}
EXACT = {"contract", "nsz"}  # within our own polynomials the order of operations is kept


class _Apart(Compiler):
    """The usual compiler, told that arguments do not overlap."""

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        return super().define_pipelines()


def kernel(signature: str) -> Callable[[Callable], Any]:
    """Compile a function for one signature, or load it from the cache beside its file."""
    return numba.njit(signature, fastmath=FAST, error_model="numpy", nogil=True, cache=True, pipeline_class=_Apart)


@intrinsic
def _as_float(context, bits):
    return numba.float32(numba.int32), lambda c, builder, s, args: builder.bitcast(args[0], ir.FloatType())


@intrinsic
def _as_bits(context, x):
    return numba.int32(numba.float32), lambda c, builder, s, args: builder.bitcast(args[0], ir.IntType(32))


def _extreme(name: str) -> Any:
    @intrinsic
    def call(context, x, y):
        def generate(c, builder, s, args):
            kind = args[0].type
            function = builder.module.declare_intrinsic(f"llvm.{name}", [kind], ir.FunctionType(kind, [kind, kind]))
            return builder.call(function, args)

        return x(x, x), generate

    return call


_maximum, _minimum = _extreme("maximum"), _extreme("minimum")


@overload(mathematics.float_of_bits, inline="always")
def _float_of_bits(bits):
    return lambda bits: _as_float(bits)  # pyright: ignore[reportCallIssue]


@overload(mathematics.bits_of_float, inline="always")
def _bits_of_float(x):
    return lambda x: _as_bits(x)  # pyright: ignore[reportCallIssue]


@overload(mathematics.maximum, inline="always")
def _of_maximum(x, y):
    if isinstance(x, numba.types.Float) and x == y:
        return lambda x, y: _maximum(x, y)
    return lambda x, y: x if x > y else y


@overload(mathematics.minimum, inline="always")
def _of_minimum(x, y):
    if isinstance(x, numba.types.Float) and x == y:
        return lambda x, y: _minimum(x, y)
    return lambda x, y: x if x < y else y


_HELPERS = (mathematics.power_of_two, mathematics.exp_polynomial, mathematics.sine, mathematics.where)
for _function in (*_HELPERS, *mathematics.FLOAT32):
    register_jitable(fastmath=EXACT, error_model="numpy", forceinline=True)(_function)
