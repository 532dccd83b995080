"""Memory, and what users would take instead: scikit-learn's exact solution, and its Nystroem features with Ridge.

Rules of this file:

- same data, same kernel, same cores; each method in a process of its own (`jobs`), one after another;
- memory is the peak of the process less data and coefficients: the interpreter and its libraries are in it;
- peers that the package index does not have are named, not measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.benchmarks.harness import Row
from tardigrad.core.errors import TardigradError
from tardigrad.papers.async_eigenpro_runs import Case, fashion

#: MB beside data and coefficients
ALLOWED = 1000.0
#: peers without a distribution on the package index
ABSENT = ("EigenPro-pytorch", "Falkon")


def rows(
    case: Case | None = None,
    n_epochs: int = 2,
    n_exact: int = 20_000,
    n_components: int = 2000,
    random: tuple[int, int] = (1_000_000, 30),
    share: float = 0.1,
) -> Iterator[Row]:
    """All rows of this part."""
    case = fashion() if case is None else case
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, values in {"X": case.X, "Y": case.Y, "test_X": case.test_rows, "test_y": case.test_labels}.items():
            np.save(folder / f"{what}.npy", values)
        ours = job("asynchronous", folder, n_epochs)
        yield from memory(f"{len(case.X)} rows, {n_epochs} epochs", ours)
        rivals = {
            f"KernelRidge, {min(n_exact, len(case.X))} rows": job("exact", folder, n_exact),
            f"Nystroem ({n_components}) and Ridge": job("nystroem", folder, n_components),
        }
        for rival, theirs in rivals.items():
            control = f"scikit-learn's {rival}"
            mine = f"AsyncEigenPro, {len(case.X)} rows, {n_epochs} epochs"
            yield Row(f"{mine}: test accuracy", 100 * ours["accuracy"], "%", control, 100 * theirs["accuracy"])
            yield Row(f"{mine}: seconds to fit", ours["seconds"], "s", control, theirs["seconds"])
            yield Row(f"{mine}: peak memory", ours["peak"], "MB", control, theirs["peak"])
    for absent in ABSENT:
        yield Row(f"AsyncEigenPro beside {absent}", None, "s", "not measured: it is not on the package index", None)
    with tempfile.TemporaryDirectory() as name:
        yield from memory(
            f"{random[0]} random rows x {random[1]}, {share:g} of an epoch", on_random_rows(Path(name), random, share)
        )


def on_random_rows(folder: Path, shape: tuple[int, int], share: float) -> dict[str, Any]:
    """A part of an epoch on random rows."""
    X = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    np.save(folder / "X.npy", X)
    np.save(folder / "Y.npy", np.sin(X[:, 0]))
    return job("asynchronous", folder, share)


def memory(what: str, found: dict[str, Any]) -> Iterator[Row]:
    """Memory beside data and coefficients, and how much of it there was before the data."""
    more = found["peak"] - found["given"]
    sizes = f"subsamples of {found['subsample']}, batches of {found['batch']}"
    name = f"memory beside data and coefficients, 4 workers, {what}"
    yield Row(f"{name} ({sizes})", more, "MB", "allowed", ALLOWED)
    yield Row(
        f"{name}: of it, before the data: interpreter, libraries, what is compiled", found["before"], "MB", "all of it", more
    )
    yield Row(f"seconds, 4 workers, {what}", found["seconds"], "s", "not compared", None)


def job(name: str, folder: Path, size: float) -> dict[str, Any]:
    """Do one of the `jobs` in a new process."""
    command = [sys.executable, "-m", "tardigrad.benchmarks.kernel.jobs", name, str(folder), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TardigradError(f"the benchmark's job {name!r} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
