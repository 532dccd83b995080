"""`tardigrad demo`: synchronous against asynchronous training under a straggler, on real processes and data.

Clients own different mixtures of the labels, and one is slow. Synchronous SGD waits for it; asynchronous SGD does not, and
leans to the data of the others; AsyncBC corrects that bias. Rules of this file:

- all methods spend the same number of gradients on the same data with the same injected durations;
- all steps are chosen alike: of one grid the one that is soonest at the target accuracy and stays there
  (median of several trials), on held-out training rows, in a simulation with the same
  durations; the test rows are seen only at the end.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad import datasets
from tardigrad.core.drive import run
from tardigrad.core.errors import DataError, InvalidInputError
from tardigrad.core.files import make_folder
from tardigrad.core.observers import Progress
from tardigrad.core.result import Result
from tardigrad.core.rule import Rule
from tardigrad.core.stopping import MaxOracleCalls, Status
from tardigrad.engines.processes import Processes
from tardigrad.engines.replay import replay
from tardigrad.engines.simulated import Simulated
from tardigrad.problems.data import Dataset
from tardigrad.problems.hsu_dirichlet import HsuDirichlet
from tardigrad.problems.logistic import SoftmaxRegression
from tardigrad.rules.async_bc import AsyncBC
from tardigrad.rules.gradient_descent import AsyncSGD, SyncSGD
from tardigrad.timing.models import PerClient

N_WORKERS = 4
SLOWDOWN = 8
N_TRIALS = 3
GRID = 2.0 ** np.arange(-6, 2)
METHODS: dict[str, Callable[[Any], Rule[Any]]] = {"SyncSGD": SyncSGD, "AsyncSGD": AsyncSGD, "AsyncBC": AsyncBC}
#: how unevenly labels are spread over clients: each draws a mixture of them from a Dirichlet distribution
ALPHA = 0.02


@dataclass(frozen=True)
class Setting:
    """What the demo trains on, and how long."""

    data: str
    target: float
    n_gradients: int
    batch: int
    seconds: float  # of a job on a fast worker


SETTINGS = {
    "fashion-mnist": Setting("fashion-mnist", target=0.75, n_gradients=1600, batch=128, seconds=0.004),
    "digits": Setting("digits", target=0.90, n_gradients=1600, batch=32, seconds=0.004),
}


@dataclass
class Demo:
    """What the demo found: the setting, and for each method its run, step and numbers."""

    setting: Setting
    results: dict[str, Result]
    steps: dict[str, float]
    numbers: dict[str, dict[str, float | None]]
    replay_identical: bool | None
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The numbers, as `tardigrad demo --json` prints them."""
        return {
            "data": self.setting.data,
            "target": self.setting.target,
            "methods": {name: {**self.numbers[name], "step": self.steps[name]} for name in self.numbers},
            "replay_identical": self.replay_identical,
            "notes": self.notes,
        }

    def show(self, folder: Path) -> None:
        """Print a table, and what it means, for people."""
        from rich.console import Console
        from rich.table import Table

        rows = {
            "step size": [f"{step:g}" for step in self.steps.values()],
            "gradients": [f"{result.oracle_calls}" for result in self.results.values()],
            "updates": self._row("updates", "{:.0f}"),
            "seconds": self._row("seconds", "{:.2f}"),
            f"seconds to {self.setting.target:.0%} test accuracy": self._row("seconds_to_target", "{:.2f}"),
            "test accuracy at the end": self._row("accuracy", "{:.3f}"),
            "updates/s": self._row("updates_per_s", "{:.0f}"),
            "workers idle": [
                "-" if (busy := row["utilisation"]) is None else f"{1 - busy:.0%}" for row in self.numbers.values()
            ],
            "staleness, mean": self._row("staleness_mean", "{:.2f}"),
            "staleness, max": self._row("staleness_max", "{:.0f}"),
        }
        what = f"{self.setting.data}, {N_WORKERS} processes, one {SLOWDOWN} times slower, each with labels of its own mixture"
        table = Table(title=what, title_justify="left")
        table.add_column()
        for name in self.numbers:
            table.add_column(name, justify="right")
        for label, cells in rows.items():
            table.add_row(label, *cells)
        console = Console()
        console.print(table)
        for line in [*self.notes, *self._conclusions(folder)]:
            console.print(line, soft_wrap=True, highlight=False)

    def _row(self, key: str, form: str) -> list[str]:
        values = [row[key] for row in self.numbers.values()]
        missing = "never" if key == "seconds_to_target" else "-"
        return [missing if value is None else form.format(value) for value in values]

    def _conclusions(self, folder: Path) -> list[str]:
        if self.replay_identical is None:
            return [f"what was done until the interruption is in {folder}/"]
        times = {name: row["seconds_to_target"] for name, row in self.numbers.items()}
        lines = []
        for name, seconds in times.items():
            if name != "SyncSGD" and times["SyncSGD"]:
                how = (
                    "never reached the target"
                    if seconds is None
                    else f"took {seconds / times['SyncSGD']:.2f} of SyncSGD's time"
                )
                lines.append(f"{name} {how}{'' if seconds is None else ' to the target'}.")
        same = "the same in every bit" if self.replay_identical else "NOT the same: please report this"
        lines.append(f"The run of AsyncSGD was replayed from its trace: {same}.")
        command = "tardigrad" if shutil.which("tardigrad") else f"{sys.executable} -m tardigrad"
        lines.append(f"See {folder}/demo.png; `{command} replay {folder}/AsyncSGD` replays it again.")
        return lines


def run_demo(folder: Path, seed: int = 0, data: str | None = None, progress: bool = True) -> Demo:
    """Choose steps, run all methods on processes, replay the asynchronous run, and save everything.

    Parameters
    ----------
    folder : path
        Gets ``demo.png`` and a saved run for each method.
    seed : int
        Seed of everything.
    data : {"fashion-mnist", "digits"}, optional
        Fashion-MNIST where its files are found, else digits.
    progress : bool
        Show progress bars on standard error.
    """
    make_folder(folder)
    setting, train, test, notes = _load(data)
    timing = PerClient([setting.seconds] * (N_WORKERS - 1) + [SLOWDOWN * setting.seconds])
    n_held = len(train) // 10
    held_out, rest = (Dataset(train.X[rows], train.y[rows]) for rows in (slice(n_held), slice(n_held, None)))
    trial = _problem(rest, held_out, setting)
    problem = _problem(train, test, setting)
    results, steps, numbers = {}, {}, {}
    for name, method in METHODS.items():
        steps[name] = choose_step(name, trial, Simulated(timing), setting, seed)
        observers = [Progress(f"{name}, step {steps[name]:g}")] if progress else []
        engine = Processes(N_WORKERS, timing)
        result = run(
            method(steps[name]),
            problem,
            engine,
            stop=MaxOracleCalls(setting.n_gradients),
            seed=seed,
            snapshot_every=_snapshot_every(name, setting),
            observers=observers,
        )
        numbers[name] = _measure(result, setting)
        results[name] = result
        result.save(folder / name)
        if result.status is Status.INTERRUPTED:
            notes.append(f"{name} was interrupted: its numbers are those of a part of the run")
            return Demo(setting, results, steps, numbers, None, notes)
    identical = replay(results["AsyncSGD"]).identical
    demo = Demo(setting, results, steps, numbers, identical, notes)
    from tardigrad.report.demo_figure import draw_demo

    what = (
        f"softmax regression on {setting.data}: {setting.n_gradients} gradients on {N_WORKERS} worker processes, label-skewed"
    )
    title = f"{what}; worker {N_WORKERS - 1} is {SLOWDOWN} times slower"
    draw_demo(results, title, setting.target, window=6 * SLOWDOWN * setting.seconds, path=folder / "demo.png")
    return demo


def choose_step(name: str, problem: SoftmaxRegression, engine: Simulated, setting: Setting, seed: int) -> float:
    """The step of `GRID` that is soonest at the target on the virtual clock and stays there; else the one that ends best."""
    every = _snapshot_every(name, setting)
    result = run(
        METHODS[name](GRID),
        problem,
        engine,
        stop=MaxOracleCalls(setting.n_gradients),
        seed=seed + 1,
        replicas=N_TRIALS,
        snapshot_every=every,
    )
    if result.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    accuracy = result.evaluate(("test_accuracy",))["test_accuracy"]  # (snapshots, trials, steps)
    accuracy[:, result.diverged] = 0
    reached = accuracy >= setting.target
    first = np.where(reached.any(axis=0), reached.argmax(axis=0), len(accuracy))
    late = accuracy[-(len(accuracy) // 4) :]
    first[late.min(axis=0) < setting.target] = len(accuracy)  # it touches the target and falls back
    late = late.mean(axis=0)
    ranks = zip(np.median(first, axis=0), -np.median(late, axis=0), range(len(GRID)), strict=True)
    return float(GRID[min(ranks)[-1]])


def _load(data: str | None) -> tuple[Setting, Dataset, Dataset, list[str]]:
    notes = []
    if data is not None and data not in SETTINGS:
        raise InvalidInputError(f"the demo knows the data sets {' and '.join(SETTINGS)}, not {data!r}")
    asked = data is not None
    if data is None:
        data = "fashion-mnist" if datasets.available("fashion-mnist") else "digits"
        if data == "digits":
            notes.append("Fashion-MNIST was not found (set TARDIGRAD_DATA): digits instead, which scikit-learn brings")
    try:
        train, test = datasets.load(data), datasets.load(data, "test")
    except DataError as error:
        if asked or data == "digits":
            raise
        notes.append(f"{error}. Digits instead")
        data, train, test = "digits", datasets.load("digits"), datasets.load("digits", "test")
    return SETTINGS[data], train, test, notes


def _problem(train: Dataset, test: Dataset, setting: Setting) -> SoftmaxRegression:
    return SoftmaxRegression(train, HsuDirichlet(N_WORKERS, ALPHA), batch=setting.batch, test=test)


def _snapshot_every(name: str, setting: Setting) -> int:
    per_update = {"SyncSGD": N_WORKERS, "AsyncSGD": 1, "AsyncBC": 2}[name]
    return max(1, setting.n_gradients // per_update // 60)


def _measure(result: Result, setting: Setting) -> dict[str, float | None]:
    accuracy = result.evaluate(("test_accuracy",))["test_accuracy"]
    reached = np.flatnonzero(accuracy >= setting.target)
    summary = result.trace.summary()
    numbers: dict[str, float | None] = {
        "seconds": summary.seconds,
        "updates": summary.updates,
        "updates_per_s": summary.updates_per_s,
        "accuracy": float(accuracy[-1]),
        "seconds_to_target": float(result.history.seconds[reached[0]]) if len(reached) else None,
        "utilisation": summary.utilisation_mean,
        "staleness_mean": summary.staleness_mean,
        "staleness_max": summary.staleness_max,
    }
    # what an interrupted run has not measured is null, which JSON knows, and not NaN
    return {name: value if value is not None and np.isfinite(value) else None for name, value in numbers.items()}
