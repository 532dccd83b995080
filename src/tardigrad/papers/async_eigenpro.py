"""Tables 3 and 4 and figure 1 of the AsyncEigenPro paper, on this machine's workers.

Giri, Belkin, Pandit, "Asynchronous kernel ridgeless regression", 2022, section 5: time and speed-up to the same training loss
on several GPUs, and an epoch's time where iterations are delayed at random. Rules of this file:

- its data (three million images like CIFAR-10's, nine classes of ImageNet) are not to be had: Fashion-MNIST stands in, as it
  is, and its GPUs (NVIDIA A100) are threads of this machine here. Speed-ups compare, minutes do not;
- what it leaves open (batch, subsample, length of a delay) is ours, and named in rows;
- what a machine has too few cores for is not measured, and said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.engines.real import cores
from tardigrad.papers import Reproduction
from tardigrad.papers.async_eigenpro_delays import DELAY, Delays, on_a_virtual_clock, on_threads
from tardigrad.papers.async_eigenpro_runs import Case, Course, fashion, to_same_loss, train, warm_up

#: published: data -> workers -> minutes and speed-up; other lines of table 3 are empty in the paper
TABLE_3 = {
    "CIFAR10-3M": {1: (27.58, 1.0), 3: (9.47, 2.91), 7: (4.23, 6.52)},
    "ImageNet9": {1: (10.73, 1.0), 3: (3.71, 2.89), 7: (1.57, 6.83)},
}
TABLE_4 = {
    "CIFAR10-3M": {1: (27.58, 1.0), 4: (7.04, 3.92), 8: (3.715, 7.42)},
    "ImageNet9": {1: (10.73, 1.0), 4: (2.74, 3.91), 8: (1.39, 7.71)},
    "ImageNet": {1: (8.241, 1.0), 4: (2.76, 2.98), 8: (1.30, 6.33)},
    "HIGGS": {1: (88.16, 1.0), 4: (22.20, 3.97), 8: (11.51, 7.65)},
    "TAXI": {1: (74.87, 1.0), 4: (18.80, 3.98), 8: (9.42, 7.95)},
}
HARDWARE = "NVIDIA A100"
Published = dict[str, dict[int, tuple[float, float]]]


def table3(n_epochs: int = 3, workers: Sequence[int] = (1, 2, 3, 4), case: Case | None = None) -> Reproduction:
    """Table 3: the asynchronous method on several workers, to the same training loss.

    Rows of ours come first: ``reproduced`` is the speed-up over one worker (EigenPro), ``published`` that of CIFAR10-3M on as
    many GPUs, where the paper has it. The paper's rows follow.
    """
    return _table("async-eigenpro-table3", "asynchronous", TABLE_3, n_epochs, workers, case)


def table4(n_epochs: int = 3, workers: Sequence[int] = (1, 2, 4), case: Case | None = None) -> Reproduction:
    """Table 4: the same for the synchronous method."""
    return _table("async-eigenpro-table4", "synchronous", TABLE_4, n_epochs, workers, case)


def _table(
    name: str, method: str, published: Published, n_epochs: int, workers: Sequence[int], case: Case | None
) -> Reproduction:
    case = fashion() if case is None else case
    warm_up(case)
    courses = {count: train(method, case, count, n_epochs) for count in workers if count <= cores()}
    loss, seconds = to_same_loss(list(courses.values()))
    times = dict(zip(courses, seconds, strict=True))
    rows = [_ours(count, case, published, courses.get(count), times.get(count), times.get(1)) for count in workers]
    rows += [
        _row(data, HARDWARE, count, speed_up, minutes)
        for data, line in published.items()
        for count, (minutes, speed_up) in line.items()
    ]
    notes = [_sizes(course) for course in courses.values()]
    missing = [count for count in workers if count > cores()]
    if missing:
        notes.append(f"not measured: {', '.join(map(str, missing))} workers on {cores()} cores")
    comment = (
        f"{method} method, seconds until the mean squared residual of the same training rows is {loss:.3g}, which all reach\n"
        f"within {n_epochs} epochs. Our rows: the first {len(case.X)} of Fashion-MNIST, which stand in for the paper's data, on"
        " threads\nof this machine; one worker is EigenPro, on one thread. The paper's minutes are of other data on GPUs."
    )
    return Reproduction(name, rows, comment, notes)


def _ours(
    count: int, case: Case, published: Published, course: Course | None, seconds: float | None, alone: float | None
) -> dict[str, Any]:
    _, speed_up = published["CIFAR10-3M"].get(count, (None, None))
    row = _row(f"Fashion-MNIST, {len(case.X)} rows", "this machine's cores", count, speed_up, None)
    if course is None:
        return row
    ratio = alone / seconds if alone is not None and seconds else None
    more = {"reproduced": ratio, "seconds": seconds, "loss": course.loss[-1], "seconds_an_epoch": course.seconds}
    return row | more | ({"accuracy": course.accuracy[-1]} if course.accuracy else {})


def _row(data: str, hardware: str, count: int, speed_up: float | None, minutes: float | None) -> dict[str, Any]:
    known = {"data": data, "hardware": hardware, "workers": count, "published": speed_up, "published_minutes": minutes}
    return known | {"reproduced": None, "seconds": None, "loss": None, "accuracy": None, "seconds_an_epoch": []}


def _sizes(course: Course) -> str:
    waited = f", workers waited {np.mean(course.waited):.2g} s an epoch" if course.waited else ""
    stale = f", replies were {np.mean(course.staleness):.2g} updates old" if course.staleness else ""
    return (
        f"{course.workers} workers: batches of {course.batch_size}, {course.n_damped} of {course.n_subsample} directions"
        f" damped, {np.mean(course.seconds):.3g} s an epoch{waited}{stale}"
    )


def figure1(
    n_rows: int = 20_000,
    n_epochs: int = 2,
    workers: int = 4,
    batch_size: int = 128,
    n_subsample: int = 500,
    case: Case | None = None,
    simulated: tuple[int, int, int] = (7, 2100, 5),
) -> Reproduction:
    """Figure 1: an epoch's time against the probability that an iteration is delayed, both methods.

    On threads with injected durations: an iteration takes what it took without (the median of a run before), a delayed one
    `DELAY` times as much more. Then on a virtual clock, where 7 workers need no cores. A row is a curve.

    Parameters
    ----------
    n_rows, n_epochs, workers, batch_size, n_subsample : int
        Of the run on threads. Small batches and subsamples: many iterations an epoch, so that few delays are not luck.
    case : Case, optional
        Fashion-MNIST by default.
    simulated : (int, int, int)
        Workers, random rows and epochs of the simulation; batches are of 3 rows.
    """
    found: list[Delays] = []
    notes = []
    if cores() < workers:
        notes.append(f"on threads: not measured: {cores()} cores, {workers} are needed")
    else:
        case = fashion(n_rows) if case is None else case
        curves, usual = on_threads(case, workers, n_epochs, batch_size, n_subsample)
        found += curves
        notes.append(
            f"on threads: an iteration, {batch_size} of {len(case.X)} rows, takes {1000 * usual:.3g} ms, a delay {DELAY:g}"
            " times as long"
        )
    found += on_a_virtual_clock(*simulated)
    rows = [_curve(one) for one in found]
    worst = max(one.relative[i] / one.drawn[i] for one in found if one.method == "asynchronous" for i in range(len(one.drawn)))
    comment = (
        "published: a picture without numbers, 7 GPUs; with more delays the synchronous method falls far behind. Reproduced:\n"
        + "; ".join(f"{one.engine}, {one.method}: {one.relative[-1]:.2f} times at p = {one.probability[-1]:g}" for one in found)
        + f".\nAn asynchronous epoch is at most {worst:.2f} times what its mean iteration says, delays as they were drawn."
    )

    def draw(path: Path) -> object:
        from tardigrad.report.delays_figure import draw_delays

        return draw_delays(rows, f"An epoch where iterations are delayed at random by {DELAY:g} iterations", path)

    return Reproduction("async-eigenpro-figure1", rows, comment, notes, draw)


def _curve(one: Delays) -> dict[str, Any]:
    """A row of the figure: what is drawn, and the same for people."""
    named = {f"at_{p:g}": value for p, value in zip(one.probability, one.relative, strict=True)}
    drawn = {"probability": one.probability, "seconds": one.seconds, "relative": one.relative}
    given = {"engine": one.engine, "method": one.method, "workers": one.workers, "published": None}
    return {**given, **named, **drawn, "drawn": one.drawn, "expected": one.expected}
