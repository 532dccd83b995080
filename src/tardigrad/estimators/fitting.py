"""The run that fits a kernel machine: one, with a look at the end of each epoch, and again with smaller steps if it diverges.

Rules of this file:

- an epoch's loss is the mean squared residual of its batches, each seen before its update, over that of the targets: 1 is
  what the start leaves, 0 is interpolation;
- whatever ends a fit says so in its message;
- workers meet at the ends of epochs only, and a few times in between where progress is shown.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from tardigrad.core.drive import run
from tardigrad.core.errors import TardigradError
from tardigrad.core.in_place import InPlaceState
from tardigrad.core.observers import Moment, Observer, Progress
from tardigrad.core.stopping import MaxUpdates, Status
from tardigrad.core.task import Array
from tardigrad.engines.threads import Threads
from tardigrad.problems.kernel_interpolation import KernelInterpolation
from tardigrad.rules.async_eigenpro import AsyncEigenPro

#: runs until a fit is given up, and the steps of each beside those of the one before
ATTEMPTS, _SHORTER = 3, 0.25
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


@dataclass(frozen=True)
class Fit:
    """What a fit came to.

    Attributes
    ----------
    coefficients : array (n_rows, n_outputs)
        The last ones, or the best where there is a validation score.
    epochs : Epochs
        What each epoch was like.
    message : str
        Why it ended.
    """

    coefficients: Array
    epochs: Epochs
    message: str


def fit(
    problem: KernelInterpolation,
    rule: AsyncEigenPro,
    n_epochs: int,
    *,
    start: Array | None,
    seed: int,
    tol: float,
    patience: int,
    score: Callable[[Array], float] | None,
    label: str | None,
) -> Fit:
    """Fit coefficients by `AsyncEigenPro` on a thread for each of the problem's clients, in one lock-free run.

    Parameters
    ----------
    problem : KernelInterpolation
        Rows, targets, kernel, workers.
    rule : AsyncEigenPro
        Not configured yet.
    n_epochs : int
        At most.
    start : array (n_rows, n_outputs), optional
        Coefficients to go on with.
    seed : int
        Of partitions and subsamples.
    tol, patience, score
        See `Epochs`.
    label : str, optional
        Text of a progress bar.

    Warns
    -----
    ConvergenceWarning
        If a run diverged and was begun again with a quarter of the step, or Ctrl-C ended it.

    Raises
    ------
    TardigradError
        If it still diverges with a sixteenth of the step.
    """
    rule = rule.configure(problem, problem.n_clients, None)
    every = rule.tasks_per_setup()
    size = float(np.mean(np.square(problem.y, dtype=np.float64)))
    shape = (problem.n_rows, problem.n_outputs)
    for attempt in range(ATTEMPTS):
        epochs = Epochs(every=every, size=size, tol=tol, patience=patience, score=score, shape=shape)
        if start is not None:
            epochs.begin_with(start)
        result = run(
            rule,
            problem,
            Threads(problem.n_clients, lock_free=True),
            stop=MaxUpdates(n_epochs * every),
            x0=None if start is None else start.ravel(),
            seed=seed,
            observers=[epochs, *_progress(label, every, problem.n_clients)],
        )
        if result.status is not Status.DIVERGED and not epochs.diverged:
            break
        if attempt + 1 == ATTEMPTS:
            raise TardigradError(
                f"the fit diverges, also with {_SHORTER**attempt:g} of the step that the spectrum allows ({result.message}). A"
                " kernel much wider than the data has values that differ by less than its precision: give a smaller bandwidth"
                " or dtype='float64'. A UserKernel must be positive definite"
            )
        warnings.warn(
            f"the fit diverged ({result.message}): it is begun again with a quarter of the step",
            ConvergenceWarning,
            stacklevel=4,
        )
        rule = dataclasses.replace(rule, step_factor=np.multiply(rule.step_factor, _SHORTER))
    message = result.message
    if result.status is Status.MAX_UPDATES:
        message = f"all {n_epochs} epochs were made"
    if result.status is Status.INTERRUPTED:
        message = f"interrupted in epoch {len(epochs.table) + 1}"
        warnings.warn(f"fit was {message}: the coefficients found so far are kept", ConvergenceWarning, stacklevel=4)
    best = epochs.best
    return Fit(result.x.reshape(shape) if best is None else best, epochs, message)


def _progress(label: str | None, every: int, n_workers: int) -> list[Any]:
    """A bar on standard error, if it is to have a label."""
    if label is None:
        return []
    bar = Progress(label)
    bar.every = min(every, max(every // _LOOKS, _BETWEEN * n_workers))
    return [bar]
