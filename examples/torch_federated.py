"""A small convolutional network over clients that hold different pictures and answer at their own pace.

``python examples/torch_federated.py [--engine processes|ray] [--seconds 20] [--out FOLDER] [--quick]``

Eight clients share out pictures of clothes (Fashion-MNIST; scikit-learn's digits where that is not on disk): each has some
classes only (Dirichlet, 0.2). Every client is a process. Two of them are slow: a gradient takes them four times as long, in
the mean. Durations are drawn, and waited for where computing takes less. A task of several gradients takes as many.

Three rules train the same PyTorch network for the same time:

1. asynchronous SGD, which asks whoever answered: as many gradients as there can be, and fast clients count more;
2. FedBuff: clients drawn uniformly take some steps of their own, the server adds up their replies;
3. AsyncBC: clients drawn uniformly send differences of gradients, in which what is peculiar to them cancels;
   every ten updates they are asked for full gradients, since the noise of the differences adds up.

The table says what came of it; the picture draws the accuracy on test pictures along the runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import tardigrad as td
from tardigrad.report.style import COLOURS, new_figure, save_figure, tidy

CLIENTS, SLOW, SKEW = 8, 2, 0.2
#: mean seconds of a gradient at a fast client, and by how much the slow ones are slower
GRADIENT, SLOWER = 0.02, 4.0
LOCAL_STEPS = 4
#: rows of a stochastic gradient, of all clients together, and for testing
BATCH, ROWS, TEST_ROWS = 64, 6000, 2000


@dataclass
class Method:
    """A rule, and the gradients that a task of it takes a client."""

    name: str
    rule: td.Rule
    gradients: int


def methods() -> list[Method]:
    """What is compared. Steps are the best of a few that were tried in simulations."""
    return [
        Method("AsyncSGD", td.AsyncSGD(step=0.02), 1),
        Method(
            "FedBuff",
            td.FedBuff(step=1.0, local_steps=LOCAL_STEPS, local_step=0.05, buffer=4, concurrency=CLIENTS),
            LOCAL_STEPS,
        ),
        Method("AsyncBC", td.AsyncBC(step=0.015, restart_every=10, concurrency=CLIENTS // 2), 2),
    ]


def engine_of(name: str, gradients: int) -> td.Engine:
    """Where clients work. The choice between processes and a Ray cluster is this line's."""
    pace = td.Exponential(gradients * GRADIENT * np.repeat([1.0, SLOWER], [CLIENTS - SLOW, SLOW]))
    return td.RayCluster(timing=pace) if name == "ray" else td.Processes(CLIENTS, timing=pace)


class Network(nn.Module):
    """Two convolutions and a linear layer, for square pictures given as rows of pixels."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.last = nn.Linear(16 * (side // 4) ** 2, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scores of the ten classes."""
        pictures = pixels.view(-1, 1, self.side, self.side)
        for layer in (self.first, self.second):
            pictures = nn.functional.max_pool2d(torch.relu(layer(pictures)), 2)
        return self.last(pictures.flatten(1))


def make_problem(data: str, rows: int, test_rows: int) -> td.TorchModel:
    """The network, and who has which pictures."""
    train, test = td.datasets.load(data, "train"), td.datasets.load(data, "test")
    torch.manual_seed(0)
    network = Network(round(train.X.shape[1] ** 0.5))
    return td.TorchModel(
        network,
        nn.CrossEntropyLoss(),
        (train.X[:rows], train.y[:rows]),
        td.Dirichlet(CLIENTS, SKEW, seed=4),
        batch=BATCH,
        test=(test.X[:test_rows], test.y[:test_rows]),
    )


class Snapshots(td.Observer):
    """Iterates of a run, about `count` of them, evenly in time."""

    every = 1

    def __init__(self, seconds: float, count: int = 40) -> None:
        self.interval = seconds / count
        self.kept: list[tuple[float, np.ndarray]] = []

    def observe(self, moment: Any) -> None:
        if not self.kept or moment.seconds >= self.kept[-1][0] + self.interval:
            self.kept.append((moment.seconds, moment.x.copy()))


@dataclass
class Run:
    """A run, and the accuracies along it."""

    name: str
    result: td.Result
    seconds: np.ndarray
    accuracy: np.ndarray

    @property
    def late(self) -> np.ndarray:
        """Accuracies in the last third of the time."""
        return self.accuracy[self.seconds >= 2 / 3 * self.seconds[-1]]


def train(method: Method, problem: td.TorchModel, engine: str, seconds: float) -> Run:
    """Run one method; the accuracies are computed when it is over."""
    say(f"{method.name}: {seconds:g} s on {engine}")
    snapshots = Snapshots(seconds)
    result = td.run(method.rule, problem, engine_of(engine, method.gradients), stop=td.MaxSeconds(seconds), observers=snapshots)
    times, iterates = zip(*snapshots.kept, (max(seconds, snapshots.kept[-1][0]), result.x), strict=True)
    accuracy = problem.measures(np.stack(iterates), ["test_accuracy"])["test_accuracy"]
    return Run(method.name, result, np.array(times), accuracy)


def table(runs: Sequence[Run]) -> str:
    """A line a run."""
    lines = [
        [
            "rule",
            "updates",
            "gradients",
            "tasks of slow clients",
            "staleness, mean",
            "last accuracy",
            "last third: mean",
            "spread",
        ]
    ]
    for run in runs:
        late, share = run.late, np.mean(run.result.trace["client"] >= CLIENTS - SLOW)
        numbers = [f"{share:.0%}", f"{run.result.trace.staleness.mean():.1f}", f"{run.accuracy[-1]:.3f}"]
        counts = [f"{run.result.trace.updates}", f"{run.result.oracle_calls}"]
        lines.append([run.name, *counts, *numbers, f"{late.mean():.3f}", f"{late.std():.3f}"])
    widths = [max(len(line[j]) for line in lines) for j in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(f"{text:<{n}}" for text, n in zip(line, widths, strict=True)) + " |" for line in lines)


def draw(runs: Sequence[Run], problem: td.TorchModel, path: Path) -> None:
    """Accuracy against seconds, and who has which classes."""
    figure = new_figure(11, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    tidy(left, "accuracy on test pictures", "seconds", "")
    for run, colour in zip(runs, (COLOURS[4], COLOURS[2], COLOURS[0]), strict=False):
        left.plot(run.seconds, run.accuracy, color=colour, linewidth=1.3, label=run.name)
    left.legend(frameon=False)
    tidy(right, f"pictures by class; {SLOW} clients are slow", "", "client")
    counts = [np.bincount(problem.clients[i].labels(), minlength=10) for i in range(problem.n_clients)]
    begin = np.zeros(problem.n_clients)
    names = [str(i) for i in range(problem.n_clients - SLOW)] + [f"{i}, slow" for i in range(CLIENTS - SLOW, problem.n_clients)]
    for number, count in enumerate(np.array(counts).T):
        right.barh(names, count, left=begin, color=COLOURS[number % len(COLOURS)], alpha=1.0 if number < len(COLOURS) else 0.5)
        begin += count
    save_figure(figure, path)


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run, print and draw; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engine", choices=("processes", "ray"), default="processes", help="where clients work (processes)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run (20)")
    parser.add_argument("--out", type=Path, default=Path("torch-federated"), help="folder for the picture (torch-federated)")
    parser.add_argument("--quick", action="store_true", help="2 s a run, fewer pictures")
    options: Any = parser.parse_args(arguments)
    if not 0.5 <= options.seconds < 1e6:
        parser.error("--seconds must be at least 0.5")
    rows, test_rows = (ROWS // 3, TEST_ROWS // 4) if options.quick else (ROWS, TEST_ROWS)
    data = "fashion-mnist" if td.datasets.available("fashion-mnist") else "digits"
    problem, runs = make_problem(data, rows, test_rows), []
    say(f"{data}: clients have {', '.join(str(problem.n_rows_of(i)) for i in range(problem.n_clients))} pictures")
    for method in methods():
        runs.append(train(method, problem, options.engine, 2.0 if options.quick else options.seconds))
        if runs[-1].result.status is td.Status.INTERRUPTED:
            say("interrupted: what there is until here follows")
            break
    print(table(runs))
    if runs[-1].result.status is td.Status.INTERRUPTED:
        return 130
    options.out.mkdir(parents=True, exist_ok=True)
    draw(runs, problem, options.out / "torch-federated.png")
    say(f"picture: {options.out / 'torch-federated.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
