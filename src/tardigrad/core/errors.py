"""The errors and warnings that users see.

Rules of this file:

- every message names the value, what was expected, and what to do;
- errors about arguments are also ``ValueError``, so that ``except ValueError`` works as everywhere else.
"""

from __future__ import annotations

from typing import Any


class TardigradError(Exception):
    """Base of every error that this library raises on purpose."""


class InvalidInputError(TardigradError, ValueError):
    """An argument has a wrong value, shape or type."""


class DataError(TardigradError):
    """A data set is missing, truncated or not what it claims to be."""


class RunFileError(TardigradError):
    """A saved run cannot be read or written.

    Attributes
    ----------
    result : Result or None
        The run, where its last checkpoint could not be written: it can be saved elsewhere.
    """

    result: Any = None


class ReplayError(TardigradError):
    """A recorded trace does not fit the rule or the problem it is replayed with."""


class WorkerError(TardigradError):
    """Workers cannot be started, or a task keeps failing on them.

    Attributes
    ----------
    result : Result or None
        The run up to there, where it had begun: it can be saved and resumed.
    """

    result: Any = None


class TrackerError(TardigradError):
    """A tracker of runs cannot be reached, or takes no run."""


class TheoryWarning(UserWarning):
    """A run goes on under conditions for which nothing is proven; the message names the assumption."""
