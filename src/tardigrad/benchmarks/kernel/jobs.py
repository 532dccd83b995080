"""What the benchmark does in processes of its own, so that its memory can be told: ``python -m ...jobs NAME FOLDER``.

Rules of this file:

- the folder holds X.npy and Y.npy (and test_X.npy, test_y.npy), which are loaded whole: the data are part of the peak;
- time begins when what is compiled is compiled and the data are in memory; kernel blocks for scikit-learn are ours, on all
  cores, and their time counts;
- the peak is that of this process alone (VmHWM): getrusage would tell the parent's where that was larger.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.drive import run
from tardigrad.core.stopping import MaxUpdates
from tardigrad.core.task import Array
from tardigrad.engines.threads import Threads
from tardigrad.papers.async_eigenpro_runs import classes, in_parts, warm_up
from tardigrad.problems.kernel_blocks import KernelBlocks
from tardigrad.problems.kernel_functions import Laplacian
from tardigrad.problems.kernel_interpolation import KernelInterpolation
from tardigrad.rules.async_eigenpro import AsyncEigenPro

BANDWIDTH, WORKERS = 10.0, 4
#: regularisation of the peers, small enough to interpolate
ALPHA = 1e-6


def asynchronous(folder: Path, n_epochs: float) -> dict[str, Any]:
    """AsyncEigenPro on 4 threads, for so many epochs or a part of one, and its test accuracy if there is a test."""
    X, Y = np.load(folder / "X.npy"), np.load(folder / "Y.npy")
    began = time.perf_counter()
    problem = KernelInterpolation(X, Y, Laplacian(BANDWIDTH), n_clients=WORKERS)
    rule = AsyncEigenPro().configure(problem, WORKERS, None)
    n_updates = max(1, int(rule.tasks_per_setup() * n_epochs))
    result = run(rule, problem, Threads(WORKERS, lock_free=True), stop=MaxUpdates(n_updates))
    seconds = time.perf_counter() - began
    given = X.nbytes + Y.nbytes + result.x.nbytes
    found = {"seconds": seconds, "peak": peak(), "given": given / 1e6, "subsample": rule.n_subsample, "batch": rule.batch_size}
    if (folder / "test_X.npy").exists():
        test_X, test_y = np.load(folder / "test_X.npy"), np.load(folder / "test_y.npy")
        values = in_parts(lambda some: problem.predict(result.x, test_X[some]), np.arange(len(test_X)))
        found["accuracy"] = float(np.mean(values.argmax(axis=-1) == test_y))
    return found


def exact(folder: Path, n_rows: int) -> dict[str, Any]:
    """scikit-learn's KernelRidge on the first rows: one Cholesky decomposition of the whole matrix."""
    from sklearn.kernel_ridge import KernelRidge

    X, Y = np.load(folder / "X.npy", mmap_mode="r")[:n_rows].copy(), np.load(folder / "Y.npy")[:n_rows]
    test_X, test_y = np.load(folder / "test_X.npy"), np.load(folder / "test_y.npy")
    began = time.perf_counter()
    blocks = KernelBlocks(X, Laplacian(BANDWIDTH))
    model = KernelRidge(alpha=ALPHA, kernel="precomputed").fit(_matrix(blocks, X), Y)
    seconds = time.perf_counter() - began
    values = model.predict(_matrix(blocks, test_X))
    accuracy = float(np.mean(values.argmax(axis=-1) == test_y))
    return {"seconds": seconds, "peak": peak(), "given": (X.nbytes + Y.nbytes) / 1e6, "accuracy": accuracy}


def nystroem(folder: Path, n_components: int) -> dict[str, Any]:
    """scikit-learn's Nystroem features of the same kernel, and Ridge on them.

    A callable kernel would be called for each pair. With "precomputed" the matrix of the components is what is fitted, and
    rows of entries with them are what is transformed: features of the same inner products.
    """
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import Ridge

    X, Y = np.load(folder / "X.npy"), np.load(folder / "Y.npy")
    test_X, test_y = np.load(folder / "test_X.npy"), np.load(folder / "test_y.npy")
    began = time.perf_counter()
    centres = X[np.sort(np.random.default_rng(0).permutation(len(X))[:n_components])]
    blocks = KernelBlocks(centres, Laplacian(BANDWIDTH))
    features = Nystroem(kernel="precomputed", n_components=n_components, random_state=0).fit(_matrix(blocks, centres))
    model = Ridge(alpha=ALPHA).fit(features.transform(_matrix(blocks, X)), Y)
    seconds = time.perf_counter() - began
    values = model.predict(features.transform(_matrix(blocks, test_X)))
    accuracy = float(np.mean(values.argmax(axis=-1) == test_y))
    return {"seconds": seconds, "peak": peak(), "given": (X.nbytes + Y.nbytes) / 1e6, "accuracy": accuracy}


def _matrix(blocks: KernelBlocks, Z: Array) -> Array:
    """Kernel entries of points with all rows, on all cores."""
    values = np.empty((len(Z), blocks.n_rows), blocks.dtype)

    def fill(some: Array) -> Array:
        values[some] = blocks.block(Z[some])
        return np.empty((len(some), 0))

    in_parts(fill, np.arange(len(Z)))
    return values


def peak() -> float:
    """The most resident memory that this process has had, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return float(line.split()[1]) * 1024 / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6


JOBS = {"asynchronous": (asynchronous, float), "exact": (exact, int), "nystroem": (nystroem, int)}


def main(name: str, folder: str, size: str) -> None:
    """Do a job and print what it found, with the peak before the data, libraries loaded and compiled, as ``before``."""
    job, number = JOBS[name]
    X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    warm_up(classes(X, np.arange(300) % 2, Laplacian(BANDWIDTH), X[:0], np.empty(0)))
    before = peak()
    sys.stdout.write(json.dumps({"before": before, **job(Path(folder), number(size))}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
