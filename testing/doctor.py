"""The command `retrograd doctor`: what there is on this machine, and which tier of kernels serves which operation."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from ..backends import TIERS, doctor, get_backend, kernel_tier
from ..backends.base import Backend


def main(argv: Sequence[str] = ()) -> int:
    """`retrograd doctor [--json] [--out FILE]`, or with `--gpu` the examination of a real device (`gpu_doctor`).

    Gives 0; 1 where RETROGRAD_BACKEND or RETROGRAD_KERNELS asks for what is not usable, or FILE cannot be written.
    """
    parser = argparse.ArgumentParser(
        prog="retrograd doctor",
        description="Print which backends there are, what is unusable and why, versions, BLAS, threads, kernel tiers.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", metavar="FILE", help="write the report to FILE, as JSON")
    parser.add_argument("--gpu", action="store_true", help="check a real GPU: conformance, open questions, timings")
    parser.add_argument("--backend", metavar="NAME", default="cupy", help="with --gpu: which device (default cupy)")
    asked = parser.parse_args(argv)
    if asked.gpu:
        from . import gpu_doctor

        return gpu_doctor.run(asked.backend, asked.out or gpu_doctor.REPORT)
    found = report()
    if asked.out and not write(found, asked.out):
        return 1
    sys.stdout.write(doctor.as_json(found) if asked.json else text(found))
    return int(any(isinstance(x, dict) for x in (found["default_backend"], found["kernels"]["highest_allowed"])))


def report() -> dict[str, Any]:
    """The report of `backends.doctor`, with the operations that each tier serves on each usable backend."""
    found = doctor.report()
    if isinstance(found["kernels"]["highest_allowed"], str):
        for name, facts in found["backends"].items():
            if facts["usable"]:
                backend = get_backend(name)
                facts["operations"] = served(backend)
                without = min(kernel_tier(backend), "array", key=TIERS.index)
                facts["compiled"] = "jit" if backend.generates() else without
    return found


def served(backend: Backend) -> dict[str, list[str]]:
    """The operations that each tier serves on a backend, by name of the tier."""
    from ..autograd_core.record import REGISTRY

    tiers: dict[str, list[str]] = {}
    for name, record in REGISTRY.items():
        faster = name in backend.kernels or record.fast is not None
        tier = "array" if faster and kernel_tier(backend) != "reference" else "reference"
        tiers.setdefault(tier, []).append(name)
    return tiers


def text(found: dict[str, Any]) -> str:
    """The report as lines for a reader."""
    lines = ["operations"]
    for name, facts in found["backends"].items():
        if facts.get("operations"):
            counts = [f"{len(names)} by tier {tier}" for tier, names in facts["operations"].items()]
            lines.append(f"  {name:<10} {', '.join(counts)}; compiled programs by tier {facts['compiled']}")
    return doctor.text(found) + ("\n".join(lines) + "\n" if len(lines) > 1 else "")


def write(value: Any, path: str) -> bool:
    """Write a report to a file; False, with one line on stderr, where that is not possible."""
    try:
        doctor.write_json(value, path)
    except OSError as error:
        sys.stderr.write(f"retrograd doctor: cannot write {path}: {error.strerror or error}\n")
        return False
    return True
