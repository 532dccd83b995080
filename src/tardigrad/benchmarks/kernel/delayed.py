"""Iterations that are delayed at random by five iterations: what becomes of an epoch, on threads.

Rules of this file:

- what is injected and how it is averaged: `papers.async_eigenpro_delays.on_threads`, which the paper's figure 1 is drawn from;
- growth stands beside what the very delays that were drawn make of the mean iteration (of the mean of a round's slowest for
  rounds): a few hundred draws are not their expectation.
"""

from __future__ import annotations

from collections.abc import Iterator

from tardigrad.benchmarks.harness import Row
from tardigrad.papers.async_eigenpro_delays import on_threads
from tardigrad.papers.async_eigenpro_runs import Case, fashion


def rows(
    n_rows: int = 20_000, n_epochs: int = 2, batch_size: int = 128, n_subsample: int = 500, case: Case | None = None
) -> Iterator[Row]:
    """For each probability the seconds of an epoch beside those of rounds, and the growth of both."""
    case = fashion(n_rows) if case is None else case
    (free, rounds), _ = on_threads(case, 4, n_epochs, batch_size, n_subsample)
    for i, p in enumerate(free.probability):
        what = f"an epoch of {len(case.X)} rows, delay probability {p:g}"
        yield Row(f"{what}, asynchronous", free.seconds[i], "s", "synchronous", rounds.seconds[i])
        if p:
            yield Row(
                f"{what}, asynchronous: growth", free.relative[i], "times", "the mean iteration's, as drawn", free.drawn[i]
            )
            control = "the mean of the rounds' slowest, as drawn"
            yield Row(f"{what}, synchronous: growth", rounds.relative[i], "times", control, rounds.drawn[i])
