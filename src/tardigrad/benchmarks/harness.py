"""What all benchmarks share: the machine's name, rows with a control, the best of alternating rounds.

Rules of this file:

- a figure and its control are measured in turn in the same process, after a warm-up that is left out;
- the best round of each is quoted: everything else is the machine's noise;
- nothing here judges: tests assert no times.
"""

from __future__ import annotations

import importlib
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError

BENCHMARKS = ("simulator",)


@dataclass
class Row:
    """One figure beside its control; ``ratio = value / control_value``."""

    name: str
    value: float
    unit: str
    control: str
    control_value: float

    @property
    def ratio(self) -> float:
        """Value over control."""
        return self.value / self.control_value


@dataclass
class Report:
    """The rows of a benchmark."""

    rows: list[Row]

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {"machine": machine(), "rows": [{**asdict(row), "ratio": row.ratio} for row in self.rows]}

    def table(self) -> str:
        """The same for people."""
        lines = [", ".join(f"{name} {value}" for name, value in machine().items())]
        for row in self.rows:
            lines.append(f"{row.name}: {row.value:,.4g} {row.unit}")
            lines.append(f"    {row.control}: {row.control_value:,.4g} {row.unit}; ratio {row.ratio:.3g}")
        return "\n".join(lines)


def run_benchmark(name: str) -> Report:
    """Run a benchmark by name."""
    if name not in BENCHMARKS:
        raise InvalidInputError(f"unknown benchmark {name!r}: choose one of {', '.join(BENCHMARKS)}")
    rows: Iterable[Row] = importlib.import_module(f"tardigrad.benchmarks.{name}").rows()
    return Report(list(rows))


def in_turn(*jobs: Callable[[], object], rounds: int = 5) -> list[float]:
    """Shortest wall time of each job, run A B A B ... after one warm-up each."""
    best = [float("inf")] * len(jobs)
    for turn in range(rounds + 1):
        for i, job in enumerate(jobs):
            began = time.perf_counter()
            job()
            seconds = time.perf_counter() - began
            if turn:
                best[i] = min(best[i], seconds)
    return best


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()} | {
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
