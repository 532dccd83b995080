"""Fashion-MNIST: accuracy, residual and time of asynchronous EigenPro on 4 workers, beside one worker and beside PyTorch.

Rules of this file:

- an epoch is everything between its ends: partition, preconditioners, steps and the wait for the slowest; losses and
  accuracies are looked at afterwards (`papers.async_eigenpro_runs`);
- an epoch's operations are those of ``K a`` alone, ``2 n^2 (d + c)``: n rows, d features, c outputs; exponentials,
  corrections and preconditioners count as nothing, so that the share of the machine's rate is a lower bound;
- the product's rate is the best of before and after, in tiles and large.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import numpy as np

from tardigrad.benchmarks.harness import Row
from tardigrad.benchmarks.kernel.products import large, tiles
from tardigrad.papers.async_eigenpro_runs import Case, Course, fashion, to_same_loss, train, warm_up

WORKERS = 4
#: EigenPro-pytorch on 4 cores of the machine that this project was planned on, its eigensolver replaced; not of this run
PUBLISHED = 52.0


def rows(n_epochs: int = 3, case: Case | None = None, rate_seconds: float = 1.0, large_size: int = 6000) -> Iterator[Row]:
    """All rows of this part."""
    case = fashion() if case is None else case
    warm_up(case)
    n, d = case.X.shape
    in_tiles, in_large = tiles(d, WORKERS, rate_seconds), large(large_size)
    four = train("asynchronous", case, WORKERS, n_epochs)
    in_tiles, in_large = max(in_tiles, tiles(d, WORKERS, rate_seconds)), max(in_large, large(large_size))
    one = train("one worker", case, 1, n_epochs)
    yield from quality(four, one)
    epoch = float(np.mean(four.seconds))
    what = f"an epoch on {WORKERS} workers, {n} rows"
    yield Row(what, epoch, "s", "EigenPro-pytorch on 4 cores of another machine, measured earlier, not in this run", PUBLISHED)
    yield plain_torch(what, epoch, case, one)
    yield Row(f"{what}: of it, waiting for the last", float(np.mean(four.waited)), "s", "the epoch", epoch)
    yield Row("before the first epoch: sizes from a subsample", four.chosen_in, "s", "an epoch", epoch)
    rate = 2e-9 * n**2 * (d + case.Y.shape[1]) / epoch
    shape = "tiles of 512 x 2048, 4 threads of one-thread BLAS"
    yield Row("K a in an epoch", rate, "GFLOP/s", f"float32 matrix product, {shape}", in_tiles)
    yield Row(
        "K a in an epoch", rate, "GFLOP/s", f"float32 matrix product, {large_size}^2, NumPy with BLAS's threads", in_large
    )
    yield from speed_up([four, one])


def quality(four: Course, one: Course) -> Iterator[Row]:
    """Accuracy and residual after each epoch."""
    for k in range(1, len(four.seconds) + 1):
        after = f"after epoch {k}, {four.workers} workers, asynchronous"
        ours, theirs = 100 * four.accuracy[k - 1], 100 * one.accuracy[k - 1]
        yield Row(f"test accuracy {after}", ours, "%", "one worker, EigenPro", theirs)
        yield Row(f"test accuracy {after}: one worker's less it", theirs - ours, "points", "allowed", 0.2)
        residuals = 100 * four.residual(k), 100 * one.residual(k)
        yield Row(f"relative training residual {after}", residuals[0], "%", "one worker, EigenPro", residuals[1])


def speed_up(courses: Sequence[Course]) -> Iterator[Row]:
    """One worker's seconds over those of several, both to the larger of their last training losses."""
    loss, (ours, theirs) = to_same_loss(courses)
    workers = courses[0].workers
    what = f"speed-up of {workers} workers to a training loss of {loss:.3g}"
    yield Row(f"seconds to a training loss of {loss:.3g}, {workers} workers", ours, "s", "one worker, EigenPro", theirs)
    yield Row(what, theirs / ours, "times", "workers", float(workers))


def plain_torch(what: str, epoch: float, case: Case, one: Course) -> Row:
    """An epoch beside one of the same method written out in PyTorch, on all cores."""
    if find_spec("torch") is None:
        return Row(what, epoch, "s", "EigenPro 2 written out in PyTorch: not measured, PyTorch is not installed", None)
    from tardigrad.benchmarks.kernel.torch_loop import torch_epoch

    seconds, accuracy = torch_epoch(case, one.batch_size, one.n_subsample, one.n_damped)
    control = f"EigenPro 2 written out in PyTorch, its threads on all cores; test accuracy {100 * accuracy:.2f} %"
    return Row(what, epoch, "s", control, seconds)
