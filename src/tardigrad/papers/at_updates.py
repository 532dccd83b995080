"""Values along a run of many updates, at those that a logarithmic axis shows.

Rules of this file:

- updates are looked at as they pass, so the run keeps no snapshots.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tardigrad.core.observers import Moment, Observer
from tardigrad.core.task import Array


class AtUpdates(Observer):
    """What functions of a moment give at the start and at chosen updates.

    Parameters
    ----------
    due : array of int
        The updates, rising.
    **functions
        Of a `Moment`; each is a name in ``values``.

    Attributes
    ----------
    updates : list of int
        Updates looked at, 0 first.
    values : dict of list
        What the functions gave there.

    Examples
    --------
    >>> import tardigrad as td
    >>> seen = AtUpdates(geometric(100, points=3), version=lambda moment: moment.version)
    >>> result = td.run(td.AsyncSGD(0.1), td.Quadratic([1.0]), td.Prescribed(0), stop=td.MaxUpdates(100), observers=seen)
    >>> seen.values["version"]
    [0, 1, 10, 100]
    """

    def __init__(self, due: Array, **functions: Callable[[Moment], Array]) -> None:
        self._due, self._functions = due, functions
        self.updates: list[int] = []
        self.values: dict[str, list[Array]] = {name: [] for name in functions}

    def observe(self, moment: Moment) -> None:
        later = self._due[self._due > moment.version]
        self.every = int(later[0]) - moment.version if len(later) else 1
        self.updates.append(moment.version)
        for name, function in self._functions.items():
            self.values[name].append(function(moment))


def geometric(n_updates: int, points: int) -> Array:
    """So many updates in geometric progression, 1 and the last among them; fewer where they are the same.

    Examples
    --------
    >>> geometric(1000, points=4).tolist()
    [1, 10, 100, 1000]
    """
    return np.unique(np.geomspace(1, n_updates, points).round().astype(int))
