"""`tardigrad bench crash`: the driver of a run is killed with SIGKILL at random moments, and the run resumed.

Rules of this file:

- each time the run's folder must load, and the run resumed from it end in the bits of the uninterrupted one;
- moments are spread over the whole life of the driver, its start and the writing of checkpoints included: a driver that is
  killed before its first checkpoint leaves nothing, which is counted apart.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.benchmarks.harness import Row
from tardigrad.core.checkpoint import Checkpoint
from tardigrad.core.drive import run
from tardigrad.core.plain import same_bits
from tardigrad.core.result import Result
from tardigrad.core.resume import resume
from tardigrad.core.stopping import MaxUpdates
from tardigrad.engines.simulated import Simulated
from tardigrad.problems.least_squares import LeastSquares
from tardigrad.problems.partition import Iid
from tardigrad.rules.gradient_descent import AsyncSGD
from tardigrad.timing.models import Pareto

UPDATES = 20_000


def rows(kills: int = 50, seed: int = 0) -> Iterator[Row]:
    """All rows of the benchmark."""
    rng = np.random.default_rng(seed)
    whole = start(None)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        drive(Path(folder) / "whole").wait()
        life = time.perf_counter() - began
        loaded = same = partial = early = 0
        while loaded < kills:
            place = Path(folder) / f"run-{loaded + early}"
            driver = drive(place)
            time.sleep(float(rng.uniform(0.2, 1.0)) * life)
            driver.kill()
            driver.wait()
            if not (place / "run.json").exists():
                early += 1
                continue
            found = Result.load(place)
            loaded += 1
            partial += 0 < found.trace.updates < UPDATES
            again = resume(place)
            same += same_bits(again.state, whole.state) and same_bits(again.trace, whole.trace)
    yield Row("killed drivers whose folder loads", loaded, "runs", "killed after the first checkpoint", kills)
    yield Row("of these, killed in the middle of the run", partial, "runs", "killed after the first checkpoint", kills)
    yield Row("resumed runs that end in the same bits", same, "runs", "killed after the first checkpoint", kills)
    yield Row("killed before the first checkpoint", early, "runs", "killed in all", kills + early)


def start(folder: Path | None) -> Result:
    """The run that is killed: stochastic gradients, heavy-tailed durations, snapshots, a checkpoint every 100 updates."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(400, 20))
    problem = LeastSquares((X, X @ rng.normal(size=20)), Iid(8), batch=4)
    given: dict[str, Any] = {"stop": MaxUpdates(UPDATES), "seed": 3, "snapshot_every": 500}
    kept = None if folder is None else Checkpoint(str(folder), every_updates=100)
    return run(AsyncSGD(0.01, "shuffled", momentum=0.5), problem, Simulated(Pareto(1.0)), checkpoint=kept, **given)


def drive(folder: Path) -> subprocess.Popen[bytes]:
    """A driver of its own process."""
    return subprocess.Popen([sys.executable, "-m", "tardigrad.benchmarks.crash", str(folder)])


if __name__ == "__main__":
    start(Path(sys.argv[1]))
