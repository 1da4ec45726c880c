"""Where the project's figures must get to: one table, which the report holds every row against."""

from __future__ import annotations

from typing import Any

RIVAL = "torch"

EAGER = 1.5
STEPS: dict[str, dict[str, float]] = {
    "mlp-64-64-64-10": {"retrograd": EAGER, "retrograd-numpy": 0.45, "retrograd-jit": 0.35},
    "mlp-784-128-10": {"retrograd": EAGER, "retrograd-numpy": 0.75, "retrograd-jit": 0.6},
    "mlp-784-512-512-10": {"retrograd": EAGER, "retrograd-numpy": 1.3, "retrograd-jit": 1.0},
    "cnn-32-64-128": {"retrograd": EAGER, "retrograd-numpy": 1.0, "retrograd-jit": 1.0},
    "gpt-128": {"retrograd": EAGER, "retrograd-numpy": 1.3, "retrograd-jit": 0.95},
    "gpt-256": {"retrograd": EAGER, "retrograd-numpy": 1.3, "retrograd-jit": 0.95},
    "bert-384": {"retrograd": EAGER, "retrograd-numpy": 1.3, "retrograd-jit": 1.05},
    "penalty-tanh": {"retrograd": EAGER, "retrograd-numpy": 0.9, "retrograd-jit": 0.8},
    "penalty-softplus": {"retrograd": EAGER, "retrograd-numpy": 0.9, "retrograd-jit": 0.8},
    "finetune-lora": {"retrograd": EAGER, "retrograd-jit": 1.05},
    "finetune-full": {"retrograd": EAGER, "retrograd-jit": 1.05},
    "decode-gpt2": {"retrograd": EAGER, "retrograd-jit": 1.05},
}
"""Our step over PyTorch eager's, for each of our variants. Where our BLAS is the slower one (the ratio r of the rates
on the workload's own products is below 1), the bound is divided by r."""

OPERATIONS = 1.0
"""The same for every chain of small operations, eager."""

FIRST_REPLAY: dict[str, dict[str, float]] = {"bert-384": {"cold": 12.0, "warm": 2.0}}
"""Seconds from the first call to the first replay, eager steps subtracted, of the jit variant."""

MEMORY, MEMORY_FROM = 1.1, 100e6
"""Our growth over PyTorch's, judged where PyTorch's is at least so many bytes."""

NOISE = 1.05
"""A figure is not missed as long as it is this close."""


def step_bound(row: dict[str, Any]) -> float | None:
    """The bound of a row, or None where none is set or the row is no result."""
    known = row["settings"]
    if known["peer"] != RIVAL or row["status"] != "timed" or not known["block"]:  # a smoke run is no measurement
        return None
    if known["workload"].startswith("ops-"):
        return OPERATIONS if known["ours"] == "retrograd" else None
    bound = STEPS.get(known["workload"], {}).get(known["ours"])
    return None if bound is None else bound / min(1.0, row.get("gemm", {}).get("ratio", 1.0))


def verdict(figure: float, bound: float | None) -> str:
    """How a figure stands to its bound.

    >>> verdict(0.5, 0.6), verdict(0.62, 0.6), verdict(0.9, 0.6), verdict(0.9, None)
    ('met (0.60)', 'met within noise (0.60)', 'missed by 50 % (0.60)', '')
    """
    if bound is None:
        return ""
    if figure <= bound:
        return f"met ({bound:.2f})"
    if figure <= bound * NOISE:
        return f"met within noise ({bound:.2f})"
    return f"missed by {figure / bound - 1:.0%} ({bound:.2f})".replace("%", " %")
