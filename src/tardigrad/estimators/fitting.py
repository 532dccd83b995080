"""The run that fits a kernel machine: one, with a look at the end of each epoch, and again with smaller steps if it diverges.

Rules of this file:

- whatever ends a fit says so in its message; Ctrl-C leaves what was found so far.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from tardigrad.core.drive import run
from tardigrad.core.errors import TardigradError
from tardigrad.core.stopping import MaxUpdates, Status
from tardigrad.core.task import Array
from tardigrad.engines.threads import Threads
from tardigrad.estimators.epochs import EpochBar, Epochs
from tardigrad.problems.kernel_interpolation import KernelInterpolation
from tardigrad.rules.async_eigenpro import AsyncEigenPro

#: runs until a fit is given up, and the steps of each beside those of the one before
ATTEMPTS, _SHORTER = 3, 0.25


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
    interrupted : bool
        Whether that was Ctrl-C.
    """

    coefficients: Array
    epochs: Epochs
    message: str
    interrupted: bool


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
        If a run diverged and was begun again with a quarter of the step.

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
            observers=[epochs, *([] if label is None else [EpochBar(label, every, problem.n_clients)])],
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
    interrupted = result.status is Status.INTERRUPTED
    if interrupted:
        message = f"interrupted in epoch {len(epochs.table) + 1}"
    best = epochs.best
    return Fit(result.x.reshape(shape) if best is None else best, epochs, message, interrupted)
