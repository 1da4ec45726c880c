"""Functions of one float32 number, written so that a loop over them becomes vector instructions.

A library's exp is a call, and a loop with a call in it runs number by number. These are polynomials and choices: the
compiler inlines them and computes eight or sixteen numbers at once. They are plain Python as well, and the tests of
the generated kernels run them so.

Every function: reduce the argument to a short interval, evaluate a polynomial there (fitted for this file: least
squares reweighted towards equal error), undo the reduction. Errors are measured by tests/test_kernel_mathematics.py:
4 units in the last place or fewer, except where a docstring says otherwise. Infinities and NaN come out as they
should; a choice `a if x == x else x` at the end lets a NaN through that the polynomial would have lost.

The compiler may not reorder sums in here: ln 2 is subtracted in two pieces, and adding the pieces first would spoil it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

F = np.float32

LOG2_E = F(1.4426950408889634)
LN2_HIGH = F(0.693359375)  # few bits: a small integer times it is exact
LN2_LOW = F(-2.12194440e-4)
HALF = F(0.5)
ONE = F(1.0)
TWO = F(2.0)
ZERO = F(0.0)
INFINITY = F(np.inf)


def float_of_bits(bits: np.int32) -> np.float32:
    """The float32 that these 32 bits are."""
    return np.int32(bits).view(np.float32)


def bits_of_float(x: np.float32) -> np.int32:
    """The 32 bits of a float32."""
    return np.float32(x).view(np.int32)


def power_of_two(n: np.int32) -> np.float32:
    """2ⁿ for n in -126 … 127: the exponent, put where a float32 has it."""
    return float_of_bits(np.int32((n + np.int32(127)) << np.int32(23)))


def exp_polynomial(r: np.float32) -> np.float32:
    """eʳ - 1 for |r| ≤ ½ ln 2."""
    p = F(1.978926598e-4)
    p = p * r + F(1.394575289e-3)
    p = p * r + F(8.333503753e-3)
    p = p * r + F(4.166628031e-2)
    p = p * r + F(1.666666580e-1)
    p = p * r + F(5.000000072e-1)
    return p * (r * r) + r


def exp(x: np.float32) -> np.float32:
    """eˣ: x = n ln 2 + r, eˣ = 2ⁿ eʳ. The power of two comes in two factors, so that the ends are right too."""
    y = x if x < F(89.0) else F(89.0)
    y = y if y > F(-104.0) else F(-104.0)
    whole = F(np.floor(y * LOG2_E + HALF))
    r = (y - whole * LN2_HIGH) - whole * LN2_LOW
    n = np.int32(whole)
    half = n >> np.int32(1)
    e = (exp_polynomial(r) + ONE) * power_of_two(half) * power_of_two(np.int32(n - half))
    return e if x == x else x


def expm1(x: np.float32) -> np.float32:
    """eˣ - 1, exact to rounding near 0: 2ⁿ (eʳ - 1) + (2ⁿ - 1)."""
    y = x if x < F(80.0) else F(80.0)
    y = y if y > F(-80.0) else F(-80.0)
    whole = F(np.floor(y * LOG2_E + HALF))
    r = (y - whole * LN2_HIGH) - whole * LN2_LOW
    scale = power_of_two(np.int32(whole))
    e = exp_polynomial(r) * scale + (scale - ONE)
    e = e if x < F(80.0) else exp(x)
    return e if x == x else x


def log(x: np.float32) -> np.float32:
    """ln x: x = 2ⁿ (1 + f) with 1 + f in √½ … √2; -inf at 0, NaN below."""
    small = x < F(1.17549435e-38)  # denormal numbers have their exponent elsewhere
    y = x * F(33554432.0) if small else x
    bits = bits_of_float(y)
    n = (bits - np.int32(0x3F3504F3)) >> np.int32(23)
    f = float_of_bits(np.int32(bits - (n << np.int32(23)))) - ONE
    e = F(n) - (F(25.0) if small else ZERO)
    p = F(0.0674660053)
    p = p * f + F(-0.116756412)
    p = p * f + F(0.118881746)
    p = p * f + F(-0.124055910)
    p = p * f + F(0.142195511)
    p = p * f + F(-0.166679957)
    p = p * f + F(0.200021192)
    p = p * f + F(-0.250000097)
    p = p * f + F(0.333333131)
    square = f * f
    tail = p * (f * square) + e * LN2_LOW - HALF * square
    found = (tail + f) + e * LN2_HIGH
    found = found if x < INFINITY else x
    found = found if x != ZERO else -INFINITY
    return found if x >= ZERO else F(np.nan)


def log1p(x: np.float32) -> np.float32:
    """ln(1 + x), exact to rounding near 0: the logarithm of the rounded sum, and what the rounding lost."""
    total = ONE + x
    found = log(total)
    lost = (x - (total - ONE)) / total
    exact = found + lost
    return exact if lost == lost else found


def log2(x: np.float32) -> np.float32:
    """The logarithm to base 2."""
    return log(x) * LOG2_E


def log10(x: np.float32) -> np.float32:
    """The logarithm to base 10."""
    return log(x) * F(0.4342944819032518)


def tanh(x: np.float32) -> np.float32:
    """tanh x: an odd polynomial near 0, elsewhere 1 - 2 / (e²ˣ + 1)."""
    size = x if x > ZERO else -x
    z = x * x
    p = F(-0.00559102)
    p = p * z + F(0.02053882)
    p = p * z + F(-0.05370966)
    p = p * z + F(0.13331092)
    p = p * z + F(-0.3333327)
    near = p * (z * x) + x
    far = ONE - TWO / (exp(TWO * size) + ONE)
    far = far if x > ZERO else -far
    found = near if size < F(0.625) else far
    return found if x == x else x


def erf(x: np.float32) -> np.float32:
    """The error function by one rational approximation; absolute error below 5e-7."""
    y = x if x < F(3.92) else F(3.92)
    y = y if y > F(-3.92) else F(-3.92)
    z = y * y
    top = F(2.050117913472192e-6)
    top = top * z + F(2.848771691801931e-4)
    top = top * z + F(3.765400903643224e-3)
    top = top * z + F(5.27480650745722e-2)
    top = top * z + F(1.9040152614691555e-1)
    top = top * z + F(1.1283791463596016)
    bottom = F(3.8091737815779655e-5)
    bottom = bottom * z + F(1.162481573169111e-3)
    bottom = bottom * z + F(1.4968788680655886e-2)
    bottom = bottom * z + F(1.141070636305277e-1)
    bottom = bottom * z + F(5.020717020517864e-1)
    bottom = bottom * z + ONE
    found = y * (top / bottom)
    found = found if found < ONE else ONE
    found = found if found > -ONE else -ONE
    return found if x == x else x


def sine(x: np.float32, quarter: float) -> np.float32:
    """sin(x + quarter · π/2). The reduction is done in double precision: absolute error below 2e-7 up to |x| = 10⁶,
    growing with x beyond."""
    wide = np.float64(x)
    n = np.floor(wide * 0.6366197723675814 + 0.5)
    r = F((wide - n * 1.5707963267948966) - n * 6.123233995736766e-17)
    turned = n + quarter
    n4 = turned - 4.0 * np.floor(turned * 0.25)  # 0, 1, 2 or 3 quarters of a turn
    z = r * r
    s = F(2.71768030e-6)
    s = s * z + F(-1.98392659e-4)
    s = s * z + F(8.33332916e-3)
    s = s * z + F(-1.66666666e-1)
    of_sine = s * (z * r) + r
    c = F(2.44287857e-5)
    c = c * z + F(-1.38872785e-3)
    c = c * z + F(4.16666449e-2)
    of_cosine = c * (z * z) - HALF * z + ONE
    found = of_sine if n4 == 0.0 or n4 == 2.0 else of_cosine
    return found if n4 < 2.0 else -found


def sin(x: np.float32) -> np.float32:
    """The sine; see `sine` for its error."""
    return sine(x, 0.0)


def cos(x: np.float32) -> np.float32:
    """The cosine; see `sine` for its error."""
    return sine(x, 1.0)


def maximum(x: Any, y: Any) -> Any:
    """The larger, NaN where one is."""
    return x if x > y or x != x else y


def minimum(x: Any, y: Any) -> Any:
    """The smaller, NaN where one is."""
    return x if x < y or x != x else y


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where the condition holds, else y."""
    return x if condition else y


FLOAT32 = (exp, expm1, log, log1p, log2, log10, tanh, erf, sin, cos)
"""Functions whose float32 form is ours; in float64 a kernel calls the C library."""
