"""What all benchmarks share: the machine's name, rows with a control, the best of alternating rounds.

Rules of this file:

- a figure and its control are measured in turn in the same process, after a warm-up that is left out;
- the best round of each is quoted: everything else is the machine's noise;
- nothing here judges: tests assert no times.
"""

from __future__ import annotations

import importlib
import logging
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.engines.real import cores

BENCHMARKS = ("simulator", "engines", "linear", "dasgd", "clients", "kernel", "crash", "soak")


@dataclass
class Row:
    """One figure beside its control; ``ratio = value / control_value``. None: not measured, the control says why."""

    name: str
    value: float | None
    unit: str
    control: str
    control_value: float | None

    @property
    def ratio(self) -> float | None:
        """Value over control."""
        return self.value / self.control_value if self.value is not None and self.control_value else None


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
            value, control, ratio = (_number(number) for number in (row.value, row.control_value, row.ratio))
            lines.append(f"{row.name}: {value} {row.unit}")
            lines.append(f"    {row.control}: {control} {row.unit}; ratio {ratio}")
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


def rates_in_turn(*jobs: Callable[[], float], rounds: int = 5) -> list[float]:
    """Highest rate of each job, run A B A B ... after one round that is left out; a job measures its own rate."""
    best = [0.0] * len(jobs)
    for turn in range(rounds + 1):
        for i, job in enumerate(jobs):
            rate = job()
            if turn:
                best[i] = max(best[i], rate)
    return best


@contextmanager
def quiet() -> Iterator[None]:
    """Say nothing of workers that are killed on purpose."""
    logger = logging.getLogger("tardigrad")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"cpu": _cpu(), "cores": cores()} | {
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
