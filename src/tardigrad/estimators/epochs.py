"""A fit of a kernel machine, epoch by epoch: what each was like, whether it was the last one needed, and a bar for people.

Rules of this file:

- an epoch's loss is the mean squared residual of its batches, each seen before its update, over that of the targets: 1 is
  what the start leaves, 0 is interpolation;
- workers meet at the ends of epochs only, and a few times in between where progress is shown.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tardigrad.core.in_place import InPlaceState
from tardigrad.core.observers import Moment, Observer, Progress
from tardigrad.core.task import Array

#: a loss this many times that of the start is no bad epoch any more
_DIVERGED = 100.0
#: an epoch whose loss is not smaller than the best by this share has not improved it
_IMPROVEMENT = 0.01
#: looks of the progress bar in an epoch, at most, and each worker's updates between two of them, at least: who has no update
#: left waits there for the others
_LOOKS, _BETWEEN = 10, 8


@dataclass(kw_only=True)
class Epochs(Observer):
    """Looks at a run at the end of each epoch, and ends it where nothing more is to be gained.

    Parameters
    ----------
    every : int
        Updates of an epoch.
    size : float
        Mean square of the targets.
    tol : float
        Loss that is small enough; 0: none is, and a loss that does not fall goes on.
    patience : int
        Epochs without improvement that are borne.
    score : callable, optional
        Of the coefficients (n_rows, n_outputs), on points that were held out: the higher the better. The best are kept.
    shape : (int, int)
        Rows and outputs.

    Attributes
    ----------
    table : list of dict
        A row an epoch, with what `history_` has.
    best : array or None
        The coefficients with the best score.
    diverged, plateau : bool
        Why the run was ended.
    """

    every: int
    size: float
    tol: float
    patience: int
    score: Callable[[Array], float] | None
    shape: tuple[int, int]
    table: list[dict[str, float]] = field(default_factory=list)
    best: Array | None = None
    diverged: bool = False
    plateau: bool = False
    _best_score: float = -math.inf
    _best_loss: float = math.inf
    _waited_for: int = 0
    _began: float = 0.0

    @property
    def loss(self) -> float:
        """Of the last epoch; infinite before its end."""
        return self.table[-1]["loss"] if self.table else math.inf

    def history(self, earlier: Mapping[str, Array] | None, done: int) -> dict[str, Array]:
        """`history_`: an array a column, those of an earlier fit of so many epochs before."""
        rows = [{**row, "epoch": row["epoch"] + done} for row in self.table]
        names = ["epoch", "loss", *(["score"] if self.score else []), "staleness", "staleness_max", "seconds", "waited"]
        whole = ("epoch", "staleness_max")
        table = {name: np.array([row[name] for row in rows], int if name in whole else float) for name in names}
        if earlier is None:
            return table
        lacking = np.full(len(earlier["epoch"]), np.nan)
        return {name: np.concatenate([earlier.get(name, lacking), column]) for name, column in table.items()}

    def begin_with(self, coefficients: Array) -> None:
        """Coefficients of an earlier fit: where there is a score, they are the best so far."""
        if self.score is not None:
            self._best_score, self.best = self.score(coefficients), coefficients

    def observe(self, moment: Moment) -> str | None:
        epoch, rest = divmod(moment.version, self.every)
        if rest:
            return None  # the end of a run that was interrupted
        ended = time.perf_counter()
        text = self._end(epoch, moment, ended - self._began) if epoch else None
        self._began = time.perf_counter()
        return text

    def _end(self, epoch: int, moment: Moment, seconds: float) -> str | None:
        """Record an epoch; the reason to end the run, if there is one."""
        assert isinstance(moment.state, InPlaceState)
        tally = moment.state.tallies[epoch - 1]
        updates = max(tally.updates, 1)
        loss = tally.reading / updates / self.size if self.size else 0.0
        row = {"epoch": epoch, "loss": loss}
        coefficients = moment.x.reshape(self.shape)
        self.diverged = not loss <= _DIVERGED
        if self.score is not None:
            row["score"] = -math.inf if self.diverged else self.score(coefficients)
        row |= {"staleness": tally.staleness / updates, "staleness_max": tally.staleness_max}
        self.table.append(row | {"seconds": seconds, "waited": tally.waited})
        if self.diverged:
            return f"the loss grew to {loss:.3g} times that of the start in epoch {epoch}"
        return self._judge(epoch, loss, row.get("score"), coefficients)

    def _judge(self, epoch: int, loss: float, score: float | None, coefficients: Array) -> str | None:
        """Whether this epoch was the last one needed."""
        self._waited_for += 1
        if score is None and loss < (1 - _IMPROVEMENT) * self._best_loss:
            self._best_loss, self._waited_for = loss, 0
        if score is not None and score > self._best_score:
            self._best_score, self.best, self._waited_for = score, coefficients.copy(), 0
        if loss <= self.tol:
            return f"the training loss is {loss:.3g}, at most tol={self.tol:g}, after {epoch} epochs"
        if self._waited_for < self.patience:
            return None
        if score is not None:
            return f"the validation score has not risen above {self._best_score:.4g} for {self.patience} epochs"
        if not self.tol:
            return None
        self.plateau = True
        return f"the training loss has not fallen below {self._best_loss:.3g} for {self.patience} epochs"


class EpochBar(Progress):
    """A progress bar in epochs, looked at by updates: each look makes the workers meet.

    Parameters
    ----------
    label : str
        Text before the bar.
    length : int
        Updates of an epoch.
    n_workers : int
        Who would wait for each other.
    """

    every_seconds = None

    def __init__(self, label: str, length: int, n_workers: int) -> None:
        super().__init__(label)
        self.length = length
        self.every = min(length, max(length // _LOOKS, _BETWEEN * n_workers))

    def text(self, version: int, most: float, seconds: float, first: int = 0) -> str:
        return f"{version / self.length:.1f}/{most / self.length:.0f} epochs"
