"""Further spellings of one operation: the short words of PyTorch, the old ones of NumPy."""

from __future__ import annotations

from ..define import PUBLIC
from ..dispatch import FUNCTIONS
from ..tensor import Tensor
from . import arithmetic, comparison, contraction, joining, reduction  # noqa: F401  they define what is named here

SPELLINGS = {
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div true_divide",
    "remainder": "mod",
    "power": "pow",
    "negative": "neg",
    "abs": "absolute",
    "equal": "eq",
    "not_equal": "ne",
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
    "bitwise_invert": "bitwise_not invert",
    "clip": "clamp",
    "max": "amax",
    "min": "amin",
    "matmul": "mm bmm",
    "concat": "cat",
}

for _name, _others in SPELLINGS.items():
    for _other in _others.split():
        PUBLIC[_other] = PUBLIC.get(_name) or FUNCTIONS[_name]
        if _name in vars(Tensor):
            setattr(Tensor, _other, vars(Tensor)[_name])
