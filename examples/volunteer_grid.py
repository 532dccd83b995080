"""A volunteer grid on one machine: worker processes that are stopped and resumed, for longer and longer.

``python examples/volunteer_grid.py [--out FOLDER] [--seconds 12] [--volunteers 4] [--share 0.03] [--quick]``

One worker is your own and always there. The others are volunteers: a thread of this script stops them (SIGSTOP) in the middle
of their work and lets them go on (SIGCONT). At time t a stop lasts ``share * t`` seconds, so that the gradient that a
volunteer was at comes back when about 3 in 100 of all updates before it were made meanwhile: delays O(n), without a bound.

What they solve is a portfolio: shares x of 30 assets, ``x >= 0, sum x = 1``, that minimise ``x' S x / 2 - m' x`` with
covariances S and returns m, from stochastic gradients out of simulated scenarios. Its solution is known.

Three runs, of so many seconds each:

1. nobody is stopped, ``tardigrad.minimize`` chooses the steps;
2. the grid, with the same choice: it is meant for delays that do not grow, and a warning says so;
3. the grid, with the steps that `tardigrad.steps_for` proposes for delays of ``share * n``.

Ctrl-C ends it; no process stays behind, stopped or not.

Rules of this file:

- who is on when is drawn before (`tardigrad.OnOff`), the same in runs 2 and 3; what really happened is noted and drawn;
- the last signal that a worker gets here is SIGCONT.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import tardigrad as td
from tardigrad.report.style import COLOURS, new_figure, save_figure, tidy

ASSETS, FACTORS = 30, 5
#: scenarios of a stochastic gradient: two milliseconds of work
SCENARIOS = 4000
#: seconds that a volunteer is on at a time, in the mean; shortest seconds of a stop
ON, SHORTEST = 0.002, 0.01


@dataclass
class Portfolio:
    """A market with known returns and covariances, and the portfolio that is best on it."""

    returns: np.ndarray
    root: np.ndarray  # S = root root'
    best: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.covariance = self.root @ self.root.T
        self.lipschitz = float(np.linalg.eigvalsh(self.covariance)[-1])
        x = np.full(len(self.returns), 1 / len(self.returns))
        for _ in range(20_000):
            x = td.Simplex().project(x - (self.covariance @ x - self.returns) / self.lipschitz)
        self.best = x

    @classmethod
    def random(cls, seed: int) -> Portfolio:
        """Assets that a few factors drive, and something of their own."""
        rng = np.random.default_rng(seed)
        factors = rng.normal(size=(ASSETS, FACTORS)) / 2
        own = np.diag(rng.uniform(0.3, 1.0, ASSETS))
        return cls(rng.normal(scale=0.3, size=ASSETS), np.linalg.cholesky(factors @ factors.T + own @ own))

    def objective(self, x: np.ndarray) -> float:
        """``x' S x / 2 - m' x``."""
        return float(x @ self.covariance @ x / 2 - self.returns @ x)

    def gap(self, x: np.ndarray) -> float:
        """How far the objective is above its minimum."""
        return self.objective(x) - self.objective(self.best)

    def gradient(self) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
        """The function that workers are sent: `SCENARIOS` scenarios R, ``mean of r (r - m)' x - m``."""
        returns, root = self.returns, self.root

        def gradient(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            shocks = rng.standard_normal((SCENARIOS, len(x))) @ root.T
            return shocks.T @ (shocks @ x) / len(shocks) - (returns + shocks.mean(axis=0))

        return gradient


class Curve(td.Observer):
    """Seconds and objective along a run."""

    every = 20

    def __init__(self, objective: Callable[[np.ndarray], float]) -> None:
        self.objective = objective
        self.points: list[tuple[float, float]] = []

    def observe(self, moment: Any) -> None:
        self.points.append((moment.seconds, self.objective(moment.x)))


class Grid(td.Observer):
    """Stops and resumes the processes of an engine while a run goes on.

    Parameters
    ----------
    engine : Processes
        Whose workers are volunteers, except number 0.
    timing : OnOff
        When they are on: client i is worker i.
    seconds : float
        How long.
    """

    every = 10

    def __init__(self, engine: td.Processes, timing: td.OnOff, seconds: float) -> None:
        self.engine = engine
        #: seconds of the run, worker, whether it goes on: what was done
        self.done: list[tuple[float, int, bool]] = []
        self._events = sorted(_events(timing, engine.workers or 1, seconds))
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def observe(self, moment: Any) -> None:
        if self._thread is None:  # all workers are ready, and have begun
            self._thread = threading.Thread(target=self._play, args=(moment.seconds,), daemon=True)
            self._thread.start()

    def close(self, status: Any, message: str) -> None:
        self.end()

    def end(self) -> None:
        """Stop nobody any more, and let everybody go on."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _play(self, now: float) -> None:
        zero = time.monotonic() - now
        try:
            for seconds, worker, goes_on in self._events:
                if self._over.wait(max(0.0, zero + seconds - time.monotonic())):
                    break
                self._signal(worker, signal.SIGCONT if goes_on else signal.SIGSTOP)
                self.done.append((time.monotonic() - zero, worker, goes_on))
            self._over.wait()
        finally:
            for worker in range(1, len(self.engine.pids)):
                self._signal(worker, signal.SIGCONT)

    def _signal(self, worker: int, number: signal.Signals) -> None:
        pids = self.engine.pids  # a worker that died was replaced, by another process
        if worker < len(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[worker], number)


def volunteers(workers: int, share: float) -> td.OnOff:
    """When workers are on: number 0 always, the others for a moment between stops that grow."""
    on = td.Exponential([1e9, *[ON] * (workers - 1)])
    return td.OnOff(on, off=td.Growing(1.0, share, clients=range(1, workers), base=td.Exponential(SHORTEST)), seed=1)


def _events(timing: td.OnOff, workers: int, seconds: float) -> Iterator[tuple[float, int, bool]]:
    for worker in range(1, workers):
        for begin, end in timing.stretches(worker, seconds).tolist():
            if begin:
                yield begin, worker, True
            if end < seconds:
                yield end, worker, False


@dataclass
class Run:
    """One run and what was seen of it."""

    name: str
    result: td.Result
    gaps: np.ndarray
    done: list[tuple[float, int, bool]]
    warning: str

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.result.status is td.Status.INTERRUPTED


def solve(name: str, market: Portfolio, steps: Any, workers: int, seconds: float, timing: td.OnOff | None) -> Run:
    """Minimise for so many seconds, with or without the grid."""
    engine = td.Processes(workers)
    grid, curve = None if timing is None else Grid(engine, timing, seconds), Curve(market.gap)
    say(f"{name}: {seconds:g} s on {workers} processes")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = td.minimize(
                market.gradient(),
                np.full(ASSETS, 1 / ASSETS),
                constraint=td.Simplex(),
                steps=steps,
                engine=engine,
                stop=td.MaxSeconds(seconds),
                objective=market.objective,
                observers=[curve] if grid is None else [curve, grid],
            )
        finally:
            if grid is not None:
                grid.end()
            engine.close()
    done = [] if grid is None else grid.done
    return Run(name, result, np.array(curve.points), done, "; ".join(str(one.message) for one in caught))


def table(runs: list[Run], market: Portfolio) -> str:
    """A line a run."""
    lines = [["run", "steps", "updates", "staleness: mean", "largest", "exponent", "objective - minimum", "warned"]]
    for run in runs:
        trace, grown = run.result.trace, run.result.trace.growth()
        staleness = trace.staleness
        numbers = [f"{trace.updates}", f"{staleness.mean():.2f}", f"{staleness.max()}", f"{grown.exponent:.2f}"]
        steps = type(run.result.rule.step).__name__
        lines.append([run.name, steps, *numbers, f"{market.gap(run.result.x):.2e}", "yes" if run.warning else "no"])
    widths = [max(len(line[j]) for line in lines) for j in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(f"{text:<{n}}" for text, n in zip(line, widths, strict=True)) + " |" for line in lines)


def draw(runs: list[Run], share: float, path: Path) -> None:
    """Staleness against version, objective against seconds, and who worked when."""
    figure = new_figure(15, 4.6)
    axes = figure.subplots(1, 3)
    grid = runs[-1]
    trace = grid.result.trace
    left = tidy(axes[0], "staleness of the last run", "version read", "staleness")
    own = trace["worker"] == 0
    for mine, colour, label, size in ((own, "0.7", "your own worker", 3), (~own, COLOURS[1], "volunteers", 10)):
        read, late = trace["version_read"][mine] + 1, trace.staleness[mine]
        left.scatter(read, np.maximum(late, 0.7), s=size, color=colour, linewidths=0, label=label, rasterized=True)
    versions = np.array([10 / share, max(trace.updates, 20 / share)])
    left.plot(versions, share * versions, color="black", linewidth=1, label=f"{share:g} n")
    left.set(xscale="log", yscale="log")
    left.legend(frameon=False, fontsize="small", loc="upper left")
    middle = tidy(axes[1], "objective - minimum", "seconds", "")
    for run, colour in zip(runs, (COLOURS[6], COLOURS[4], COLOURS[0]), strict=False):
        label = f"{run.name} ({type(run.result.rule.step).__name__})"
        middle.plot(*run.gaps.T, color=colour, linewidth=1.2, label=label)
    middle.set(yscale="log")
    middle.legend(frameon=False, fontsize="small")
    right = tidy(axes[2], "who worked when, in the last run", "seconds", "worker")
    workers = grid.result.engine.workers
    right.barh(range(workers), [trace["received"][-1]] * workers, height=0.7, color=COLOURS[2])
    for worker in range(1, workers):
        stops = _stops(grid.done, worker, float(trace["received"][-1]))
        right.broken_barh(stops, (worker - 0.35, 0.7), facecolors="0.88")
        # a moment of work would be too thin to see
        moments = [seconds for seconds, number, goes_on in grid.done if number == worker and goes_on]
        right.vlines(moments, worker - 0.35, worker + 0.35, color=COLOURS[2], linewidth=0.6)
    right.set_yticks(range(workers), ["0, your own", *map(str, range(1, workers))])
    save_figure(figure, path)


def _stops(done: list[tuple[float, int, bool]], worker: int, last: float) -> list[tuple[float, float]]:
    """Begin and length of a worker's stops."""
    mine = [(seconds, goes_on) for seconds, number, goes_on in done if number == worker]
    ends = [*mine[1:], (last, True)]
    return [(begin, end - begin) for (begin, goes_on), (end, _) in zip(mine, ends, strict=False) if not goes_on]


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def runs_of(market: Portfolio, workers: int, seconds: float, share: float) -> Iterator[Run]:
    """The three runs, one after another."""
    timing = volunteers(workers, share)
    yield solve("nobody stopped", market, "auto", workers, seconds, None)
    second = solve("grid", market, "auto", workers, seconds, timing)
    yield second
    horizon = max(second.result.trace.updates, 1)
    proposed = td.steps_for(1.0, market.lipschitz, delay=share, horizon=horizon)
    yield solve("grid, steps that fit", market, proposed, workers, seconds, timing)


def main(arguments: list[str] | None = None) -> int:
    """Run, print and draw; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("volunteer-grid"), help="folder for the picture (volunteer-grid)")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each run (12)")
    parser.add_argument("--volunteers", type=int, default=4, help="workers that are stopped, beside one that is not (4)")
    parser.add_argument("--share", type=float, default=0.03, help="length of a stop by the time at which it begins (0.03)")
    parser.add_argument("--quick", action="store_true", help="2 s and 2 volunteers")
    options = parser.parse_args(arguments)
    if not 0.5 <= options.seconds < 1e6 or options.volunteers < 1 or not 0 < options.share <= 10:
        parser.error("--seconds must be at least 0.5, --volunteers at least 1, --share above 0 and at most 10")
    if options.quick:
        options.seconds, options.volunteers = 2.0, 2
    market, runs = Portfolio.random(seed=3), []
    for run in runs_of(market, 1 + options.volunteers, options.seconds, options.share):
        runs.append(run)
        if run.warning:
            say(f"TheoryWarning: {run.warning}")
        if run.interrupted:
            say("interrupted: what there is until here follows")
            break
    print(table(runs, market))
    for run in runs:
        if run.warning:
            print(f"\n{run.name}: {run.warning}")
    if runs[-1].interrupted:
        return 130
    options.out.mkdir(parents=True, exist_ok=True)
    draw(runs, options.share, options.out / "volunteer-grid.png")
    say(f"picture: {options.out / 'volunteer-grid.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
