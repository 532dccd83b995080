"""What kernel regressors and classifiers share: fitting coefficients to rows, values at other rows, copies and files.

Rules of this file:

- arguments are checked in `fit`; what an earlier fit found stays until this one has ended;
- rows in a file stay there: they are not copied when fitted to, copied, pickled or saved.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, number, yes_or_no
from tardigrad.estimators.choices import bytes_of, jobs_of, kernel_of, workers_for
from tardigrad.estimators.fitting import Fit, fit
from tardigrad.estimators.kernel_files import load_into, save_model
from tardigrad.estimators.prediction import blocks_for, evaluate
from tardigrad.estimators.refusals import check_goes_on, check_last_rows, check_scale, check_share
from tardigrad.estimators.rows import Contradiction, as_kept, contradiction, held_out, in_file
from tardigrad.problems.kernel_functions import KernelFunction
from tardigrad.problems.kernel_interpolation import KernelInterpolation
from tardigrad.problems.matrix_file import MatrixFile, by_path
from tardigrad.rules.async_eigenpro import AsyncEigenPro
from tardigrad.rules.kernel_rule import MEMORY

#: what contradicting rows cost is told where it makes up this share of the loss: until then more epochs help
_TOLD = 0.25
#: what `fit` sets
FITTED = (
    *("X_fit_", "dual_coef_", "intercept_", "kernel_", "history_", "n_iter_", "message_", "held_out_"),
    "n_features_in_",
)
#: what it sets where X has names of columns, and for regressors or classifiers only
FITTED_TOO = ("feature_names_in_", "classes_", "_flat")


class KernelMachine(BaseEstimator):
    """Base class of `KernelRegressor` and `KernelClassifier`, which describe the parameters."""

    X_fit_: Any
    dual_coef_: Array
    intercept_: Array
    kernel_: KernelFunction
    history_: dict[str, Array]
    n_iter_: int
    message_: str
    held_out_: Any
    classes_: Array
    _blocks: list[Any]

    def __init__(
        self,
        kernel: str | KernelFunction = "laplacian",
        bandwidth: float | str = "auto",
        *,
        epochs: int = 10,
        tol: float | None = 1e-4,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 3,
        warm_start: bool = False,
        batch_size: int | str = "auto",
        memory: float | str = "auto",
        dtype: str = "float32",
        n_jobs: int | None = None,
        device: str | list[str] | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.kernel = kernel
        self.bandwidth = bandwidth
        self.epochs = epochs
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.batch_size = batch_size
        self.memory = memory
        self.dtype = dtype
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # -- fitting

    def _checked(self, X: Any, y: Any, **options: Any) -> tuple[Any, Any]:
        """X as it is kept and y, checked by scikit-learn."""
        if not any(self.dtype in (kind, kind.__name__, np.dtype(kind)) for kind in (np.float32, np.float64)):
            raise InvalidInputError(f"dtype must be 'float32' or 'float64', not {self.dtype!r}")
        new = not self._goes_on()
        checked, y = validate_data(self, X, y, accept_sparse="csr", ensure_min_samples=2, reset=new, **options)
        return as_kept(X, checked, self.dtype), y

    def _fit(self, X: Any, y: Array, labels: Array | None, encode: Callable[[Any], tuple[Array, Array, Array]]) -> Fit:
        """Fit to rows X and y, numbers of classes with these labels where there are labels.

        ``encode(rows)`` gives the targets (n, c) of some rows, and their offset and scale (c,).
        """
        n_epochs, seed = integer(self.epochs, "epochs"), int(check_random_state(self.random_state).randint(2**31 - 1))
        tol = 0.0 if self.tol is None else number(self.tol, "tol", low=0.0)
        patience = integer(self.n_iter_no_change, "n_iter_no_change")
        kernel = kernel_of(self.kernel, self.bandwidth)
        earlier = self._goes_on()
        fitted, held = self._parts(X, y, labels, seed, earlier)
        rows = X if fitted is None else X[fitted]
        targets, offset, scale = encode(slice(None) if fitted is None else fitted)
        check_scale(scale, self.dtype)
        kernel = kernel.fitted(rows)
        start, done = self._start(rows, targets, scale, kernel) if earlier else (None, 0)
        problem = KernelInterpolation(
            rows,
            (targets - offset) / scale,
            kernel,
            workers_for(rows.shape[0], self.n_jobs, self.device),
            dtype=self.dtype,
            device=self.device,
        )
        blocks = [problem.blocks(client) for client in range(problem.n_clients)]
        score = None
        if held is not None:
            others, true = X[held], y[held]
            if labels is None and others.shape[0] < 2:
                raise InvalidInputError(
                    f"validation_fraction={self.validation_fraction} holds out 1 of {X.shape[0]} rows, which has no score:"
                    " give a larger share"
                )

            def score(coefficients: Array) -> float:
                return self._score(true, evaluate(blocks, coefficients, others) * scale + offset)

        batch: Any = self.batch_size
        rule = AsyncEigenPro(batch_size=batch, memory=bytes_of(self.memory, MEMORY))
        label = type(self).__name__ if self.verbose else None
        found = fit(
            problem, rule, n_epochs, start=start, seed=seed + done, tol=tol, patience=patience, score=score, label=label
        )
        if (
            score is None and found.epochs.loss > tol and not found.interrupted
        ):  # else fitting all points was not the aim, or is achieved
            self._complain(found, contradiction(rows, problem.targets))
        self.X_fit_, self.kernel_, self.held_out_, self.message_ = problem.X, problem.kernel, held, found.message
        self.dual_coef_ = found.coefficients * scale.astype(found.coefficients.dtype)
        self.intercept_, self._blocks = offset, blocks
        self.history_ = found.epochs.history(self.history_ if earlier else None, done)
        self.n_iter_ = done + len(found.epochs.table)
        return found

    def _ended(self, found: Fit) -> Self:
        """The estimator with all that was found; after Ctrl-C not returned, so that a search or a script ends too."""
        if found.interrupted:
            raise KeyboardInterrupt(
                f"the fit was {found.message}: the coefficients found so far are kept, and warm_start=True goes on with them"
            )
        return self

    def _goes_on(self) -> bool:
        """Whether there is an earlier fit to go on with."""
        return yes_or_no(self.warm_start, "warm_start") and hasattr(self, "dual_coef_")

    def _parts(self, X: Any, y: Array, labels: Array | None, seed: int, earlier: bool) -> tuple[Any, Any]:
        """Rows that are fitted to and rows held out, or None for all and none; the same ones again in a warm start."""
        if not yes_or_no(self.early_stopping, "early_stopping"):
            return None, None
        fraction = number(self.validation_fraction, "validation_fraction", above=0.0, below=1.0)
        held = self.held_out_ if earlier else None
        if held is None:
            codes = None if labels is None else y
            if not in_file(X):
                check_share(X.shape[0], fraction, codes, labels)
            parts = held_out(X, fraction, seed, codes)
            if labels is not None and isinstance(parts[1], slice):
                check_last_rows(parts[1], y, labels)
            return parts
        if isinstance(held, slice):
            return slice(0, held.start), held
        if held.max() >= X.shape[0]:
            return None, None  # other rows, which `_start` refuses
        return np.setdiff1d(np.arange(X.shape[0]), held), held

    def _start(self, rows: Any, targets: Array, scale: Array, kernel: KernelFunction) -> tuple[Array, int]:
        """Coefficients of an earlier fit, and its number of epochs."""
        check_goes_on(self, rows, targets, kernel)
        return (self.dual_coef_ / scale).astype(self.dtype), self.n_iter_

    def _complain(self, found: Fit, why: Contradiction | None) -> None:
        """Say why the loss does not come near 0, where that is known, or that it does not fall."""
        loss, size = found.epochs.loss, found.epochs.size
        if why is not None and why.floor / size >= _TOLD * loss:
            a, b = why.example
            text = (
                f"{why.n_rows} rows of X are equal to others whose targets differ (rows {a} and {b} of those fitted to, for"
                f" one), so no function goes through all points: the training loss, {loss:.3g} in the last epoch, cannot fall"
                f" below {why.floor / size:.3g}. More epochs fit the noise: merge such rows, or set early_stopping"
            )
        elif found.epochs.plateau:
            text = f"{found.message}: a smaller bandwidth brings more targets within reach"
            if np.dtype(self.dtype) == np.float32:
                text += ", and dtype='float64' helps where rounding is the limit"
        else:
            return
        warnings.warn(text, ConvergenceWarning, stacklevel=4)

    def _score(self, true: Array, values: Array) -> float:
        raise NotImplementedError

    # -- values

    def _values(self, X: Any) -> Array:
        """Values (n_points, n_outputs) in float64."""
        check_is_fitted(self)
        checked = validate_data(self, X, accept_sparse="csr", reset=False)
        if not hasattr(self, "_blocks"):  # copied, or read from a file
            workers = workers_for(self.X_fit_.shape[0], self.n_jobs, self.device)
            self._blocks = blocks_for(self.X_fit_, self.kernel_, self.dtype, self.device, workers)
        points = sp.csr_array(checked) if sp.issparse(checked) else checked
        blocks = self._blocks if self.device is not None else self._blocks[:1] * jobs_of(self.n_jobs)
        values: Array = evaluate(blocks, self.dual_coef_, points).astype(np.float64) + self.intercept_
        return values

    # -- copies and files

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {name: value for name, value in super().__getstate__().items() if name != "_blocks"}
        if "X_fit_" in state:
            state["X_fit_"] = by_path(state["X_fit_"], marked=True)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        rows = vars(self).get("X_fit_")
        if isinstance(rows, MatrixFile):
            self.X_fit_ = rows.open()

    def save(self, path: str | Path) -> Path:
        """Write the fitted estimator to a folder, as plain data: ``run.json`` and npz files, no pickle.

        Rows that lie in a file (`numpy.memmap`) are saved as its path, with a hash of some places. The folder is replaced
        atomically: whoever reads it meanwhile sees the old estimator or the new one.

        Parameters
        ----------
        path : path
            Created if needed.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        RunFileError
            If it cannot be written, or a parameter is not plain data, such as a function that has no name.
        """
        check_is_fitted(self)
        return save_model(self, Path(path), FITTED, FITTED_TOO)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an estimator that `save` wrote.

        Raises
        ------
        RunFileError
            If the folder holds something else, another estimator, files that were cut short or changed, or was written by a
            newer version.
        DataError
            If the file that the rows lie in is gone or another one.
        """
        estimator: Self = load_into(cls, Path(path), FITTED, FITTED_TOO)
        return estimator
