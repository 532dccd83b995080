"""What a fit refuses before it begins, or warns of: targets, rows that are held out, and what a warm start finds changed.

Rules of this file:

- a message speaks of the estimator's own parameters and of the user's classes, not of what they are passed on to.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.estimators.rows import same_rows
from tardigrad.problems.kernel_functions import KernelFunction

#: a class of which so many rows would be held out in a random order is missing there by no accident: its chance is exp(-10)
_EXPECTED = 10


def check_scale(scale: Array, dtype: Any) -> None:
    """Refuse targets in whose unit coefficients would be infinite, or 0."""
    limits = np.finfo(dtype)
    bad = np.flatnonzero(~((scale >= limits.tiny) & (scale <= limits.max)))
    if len(bad):
        raise InvalidInputError(
            f"targets with a standard deviation of {scale[bad[0]]:.3g} cannot be fitted in {limits.dtype}: give them in another"
            " unit, or dtype='float64'"
        )


def check_share(n_rows: int, fraction: float, codes: Array | None, labels: Array | None) -> None:
    """Refuse to hold out a share of rows, of each class alike, that leaves none of one: in either part.

    Parameters
    ----------
    n_rows : int
        Of which rows are drawn.
    fraction : float
        In (0, 1).
    codes : array of int (n_rows,) or None
        Numbers of the classes, where there are some.
    labels : array (n_classes,) or None
        The user's names of them.
    """
    held = math.ceil(fraction * n_rows)
    what = f"early_stopping with validation_fraction={fraction:g} holds out {held} of {n_rows} rows"
    if labels is None or codes is None:
        if held == n_rows:
            raise InvalidInputError(f"{what}, which leaves none to fit to: give a smaller share")
        return
    counts = np.bincount(codes, minlength=len(labels))
    rare = labels[counts < 2].tolist()
    if rare:
        raise InvalidInputError(
            f"early_stopping holds out rows of each class, but {len(rare)} of {len(labels)} classes have 1 row only, such as"
            f" {rare[0]!r}: give more of them, leave them out, or set early_stopping=False"
        )
    if min(held, n_rows - held) < len(labels):
        larger = held < n_rows - held
        raise InvalidInputError(
            f"{what}{'' if larger else f' and leaves {n_rows - held}'}, fewer than the {len(labels)} classes: give a"
            f" {'larger' if larger else 'smaller'} share"
        )


def check_last_rows(held: slice, codes: Array, labels: Array) -> None:
    """Refuse rows in a file of which the last, held out, have a class that no other has; warn where they lack one.

    Parameters
    ----------
    held : slice
        Of the rows.
    codes, labels
        As above.
    """
    inside = np.bincount(codes[held], minlength=len(labels))
    outside = np.bincount(codes, minlength=len(labels)) - inside
    order = f"early_stopping holds out the last {codes[held].size} rows of a memory map,"
    cure = "write the file in a random order of rows"
    if not outside.all():
        only = labels.tolist()[int(np.argmin(outside))]
        raise InvalidInputError(f"{order} and class {only!r} has no other rows: {cure}, or set early_stopping=False")
    share = len(codes[held]) / len(codes)
    lacking = labels[(inside == 0) & (outside * share > _EXPECTED)].tolist()
    if lacking:
        warnings.warn(
            f"{order} and there is none of {len(lacking)} classes among them, such as {lacking[0]!r}: the score says nothing of"
            f" these. Sorted by class? Then {cure}",
            UserWarning,
            stacklevel=5,
        )


def check_goes_on(earlier: Any, rows: Any, targets: Array, kernel: KernelFunction) -> None:
    """Refuse a warm start of a fitted estimator with other rows, another kernel or another number of outputs."""
    if not same_rows(rows, earlier.X_fit_):
        raise InvalidInputError(
            f"warm_start goes on with the rows that were fitted to, of shape {earlier.X_fit_.shape}; these, of shape"
            f" {rows.shape}, are others (early_stopping and dtype must be as they were, too): fit with warm_start=False"
        )
    if kernel != earlier.kernel_:
        raise InvalidInputError(
            f"warm_start goes on with the kernel {earlier.kernel_!r}, it is {kernel!r} now: fit with warm_start=False"
        )
    if earlier.dual_coef_.shape != targets.shape:
        raise InvalidInputError(
            f"warm_start goes on with {earlier.dual_coef_.shape[1]} outputs, y has {targets.shape[1]} now: fit with"
            " warm_start=False"
        )
