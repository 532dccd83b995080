"""`KernelRegressor` and `KernelClassifier`: kernel machines that interpolate, with scikit-learn's interface.

Rules of this file:

- they differ in their targets only: how these are encoded, and what is made of values;
- what is minimised is the squared loss, for classes too: interpolation makes all losses 0 alike.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.multiclass import check_classification_targets

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.estimators.machine import KernelMachine


class KernelRegressor(RegressorMixin, KernelMachine):
    """Regression by the kernel machine through all points, ``f(z) = intercept + sum_j a_j k(x_j, z)``, fitted on all cores.

    Parameters
    ----------
    kernel : str or KernelFunction
        "laplacian", "gaussian", "matern-1/2", "matern-3/2", "matern-5/2", "dispersal", or an object such as
        ``Dispersal(10.0, gamma=0.7)`` or a `UserKernel`, with its own bandwidth.
    bandwidth : float or "auto"
        Length in the unit of X; "auto": the median distance of rows.
    epochs : int
        Passes over the data, at most. Each costs ``n_rows^2`` kernel entries.
    tol : float or None
        The fit ends when the training loss, as a share of the targets' variance, is at most this; also when it has not fallen
        for `n_iter_no_change` epochs, which is a `ConvergenceWarning`. 0 or None: neither.
    early_stopping : bool
        Hold rows out, end when the score on them has not risen for `n_iter_no_change` epochs, and keep the coefficients with
        the best score. A memory map is not copied: its last rows are held out, so they must be in random order.
    validation_fraction : float
        Share of the rows that is held out then.
    n_iter_no_change : int
        Epochs without improvement that are borne.
    warm_start : bool
        Go on with the coefficients of an earlier `fit` to the same rows: epochs with other partitions.
    batch_size : int or "auto"
        Rows of a worker's step; "auto": two thirds of the critical batch, from the spectrum of a subsample, over the workers.
    memory : float or "auto"
        Bytes that the workers may use beside data and coefficients; "auto": 6e8, which is less than a gigabyte with the
        interpreter and its libraries. Batch and subsample are chosen to fit.
    dtype : {"float32", "float64"}
        Precision of kernel entries and coefficients, whatever that of X.
    n_jobs : int or None
        Threads. None and -1: all cores that this process may use; -2: all but one. A fit takes fewer where one would have less
        than 2000 rows.
    device : str, list of str or None
        PyTorch's name of the device that computes, such as "cuda"; a list has a worker each. None: NumPy on the processor.
        On one device that is not the processor, n_jobs=None is one worker.
    random_state : int, RandomState or None
        Draws partitions, subsamples, and what is held out. A fit by one worker then repeats in every bit; by several, who run
        free, up to the order of their updates.
    verbose : bool
        Show a progress bar on standard error; workers meet up to ten times an epoch for that.

    Attributes
    ----------
    dual_coef_ : array (n_rows, n_outputs)
        The a_j.
    intercept_ : array (n_outputs,)
        Mean of the targets, which is what the machine is far from all data.
    X_fit_ : array, memory map or sparse matrix (n_rows, n_features)
        The rows that were fitted to, in `dtype`; a memory map as it was given, and rows far from the origin, which are shifted
        where they are used.
    kernel_ : KernelFunction
        With a number for its bandwidth.
    history_ : dict of arrays
        An entry an epoch: ``epoch``; ``loss``, the mean squared residual of its batches, seen before their updates, over the
        variance of the targets; ``score`` (with early stopping); ``staleness``, the mean number of updates between a worker's
        read and its write, and ``staleness_max``; ``seconds``; ``waited``, seconds that workers waited for its end, summed up.
    n_iter_ : int
        Epochs made.
    message_ : str
        Why the fit ended.
    held_out_ : array of int, slice or None
        Rows that were held out.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Warns
    -----
    ConvergenceWarning
        If equal rows with different targets keep the loss from falling, if it does not fall otherwise, or if the fit diverged
        and was begun again with smaller steps.

    Raises
    ------
    ValueError
        From `fit`, if an argument has a wrong value, X or y are not finite, a batch does not fit the memory, or all rows are
        the same where the bandwidth is "auto".
    TardigradError
        If the fit diverges also with a sixteenth of the step.
    KeyboardInterrupt
        After Ctrl-C, so that a search or a script ends too. The estimator holds the coefficients found so far: it predicts,
        and ``warm_start`` goes on with them.

    References
    ----------
    Giri, Belkin, Pandit, "Asynchronous kernel ridgeless regression", 2022; departures are told in `AsyncEigenPro`. Ma, Belkin,
    "Kernel machines that adapt to GPUs for effective large batch training", MLSys 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from tardigrad import KernelRegressor
    >>> X = np.random.default_rng(0).uniform(-1, 1, (500, 2))
    >>> y = np.sin(3 * X[:, 0]) + X[:, 1]
    >>> model = KernelRegressor(kernel="matern-3/2", random_state=0).fit(X[:400], y[:400])
    >>> model.score(X[400:], y[400:]) > 0.99
    True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to rows X (n_rows, n_features) and targets y, (n_rows,) or (n_rows, n_outputs)."""
        X, y = self._checked(X, y, multi_output=True, y_numeric=True)
        columns = np.asarray(y, np.float64).reshape(len(y), -1)

        def encode(some: Any) -> tuple[Array, Array, Array]:
            targets = columns[some]
            scale = targets.std(axis=0)
            return targets, targets.mean(axis=0), np.where(scale > 0, scale, 1.0)

        found = self._fit(X, columns, None, encode)
        self._flat = y.ndim == 1
        return self._ended(found)

    def predict(self, X: Any) -> Array:
        """Values at rows X (n_points, n_features): (n_points,) or (n_points, n_outputs), as y was."""
        values = self._values(X)
        return values[:, 0] if self._flat else values

    def _score(self, true: Array, values: Array) -> float:
        return float(r2_score(true, values))


class KernelClassifier(ClassifierMixin, KernelMachine):
    """Classification by the kernel machine through all points, fitted on all cores: the class with the largest value wins.

    Targets are 1 for a row's class and 0 for the others, less the class's share; with two classes -1 and 1. Values are no
    probabilities, so there is no ``predict_proba``: scikit-learn's ``CalibratedClassifierCV`` makes some.

    Parameters
    ----------
    kernel, bandwidth, epochs, tol, early_stopping, validation_fraction, n_iter_no_change, warm_start, batch_size, memory, dtype
        As for `KernelRegressor`; the score on rows that are held out is the accuracy, and each class is held out alike.
    n_jobs, device, random_state, verbose
        As for `KernelRegressor`.

    Attributes
    ----------
    classes_ : array (n_classes,)
        Sorted.
    dual_coef_, intercept_, X_fit_, kernel_, history_, n_iter_, message_, held_out_, n_features_in_, feature_names_in_
        As for `KernelRegressor`, with a column a class, or one where there are two.

    Warns
    -----
    ConvergenceWarning
        As for `KernelRegressor`.
    UserWarning
        If the last rows of a memory map, which early stopping holds out, lack classes: the file is sorted by class.

    Raises
    ------
    ValueError
        As for `KernelRegressor`, if y has one class only, or if early stopping cannot hold out rows of each class.
    TardigradError, KeyboardInterrupt
        As for `KernelRegressor`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from tardigrad import KernelClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = KernelClassifier(epochs=3, random_state=0).fit(X[:1500], y[:1500])
    >>> model.score(X[1500:], y[1500:]) > 0.95
    True
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to rows X (n_rows, n_features) and their classes y (n_rows,): numbers or strings."""
        X, y = self._checked(X, y)
        check_classification_targets(y)
        classes, codes = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise InvalidInputError(
                f"y has one class only, {classes.tolist()[0]!r}: a classifier needs rows of 2 classes at least"
            )
        if self._goes_on() and not np.array_equal(classes, self.classes_):
            raise InvalidInputError(
                f"warm_start goes on with the classes {self.classes_.tolist()}, y has {classes.tolist()}: fit with"
                " warm_start=False"
            )

        def encode(some: Any) -> tuple[Array, Array, Array]:
            targets = _indicators(codes[some], len(classes), self.dtype)
            return targets, targets.mean(axis=0, dtype=np.float64), np.ones(targets.shape[1])

        found = self._fit(X, codes, classes, encode)
        self.classes_ = classes
        return self._ended(found)

    def decision_function(self, X: Any) -> Array:
        """Values at rows X (n_points, n_features): (n_points, n_classes); with two classes (n_points,), > 0 for the second."""
        values = self._values(X)
        return values[:, 0] if values.shape[1] == 1 else values

    def predict(self, X: Any) -> Array:
        """Classes of rows X (n_points, n_features): (n_points,)."""
        codes = _codes(self._values(X))
        found: Array = self.classes_[codes]
        return found

    def _score(self, true: Array, values: Array) -> float:
        return float(accuracy_score(true, _codes(values)))


def _indicators(codes: Array, n_classes: int, dtype: Any) -> Array:
    """Classes by number as rows of 0 and 1; of two classes as -1 and 1."""
    if n_classes == 2:
        return (2 * codes[:, None] - 1).astype(dtype)
    table = np.zeros((len(codes), n_classes), dtype)
    table[np.arange(len(codes)), codes] = 1
    return table


def _codes(values: Array) -> Array:
    """The class that each row of values means."""
    return (values[:, 0] > 0).astype(np.int64) if values.shape[1] == 1 else values.argmax(axis=1)
