"""What a trace tells about uneven workers and the time their jobs take.

- `delay_factor`: updates while the slowest worker makes one, for each worker;
- `occupancy`: seconds from when a worker could have begun a job to when the server had its reply.

Rules of this file:

- plain arrays in, their rows in the order in which the server applied the replies;
- what the server sees counts: its own time and transport belong to a job, waiting for others does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array


@dataclass(frozen=True)
class DelayFactor:
    """How uneven workers are: ``c = delta_a / tau``.

    Attributes
    ----------
    c : float
        1 for workers that are equally fast.
    delta_a : int
        Replies applied while the slowest worker made one, its own included.
    tau : int
        Workers seen.
    updates : dict
        For each worker its part S_i of `delta_a`.
    c_mean : float
        The same for the mean delay of the worker that is slowest on average: c without rare hiccups.
    """

    c: float
    delta_a: int
    tau: int
    updates: dict[int, int]
    c_mean: float

    def __str__(self) -> str:
        return (
            f"delay factor: c = {self.c:.3g} ({self.delta_a} updates in the slowest delay, {self.tau} workers),"
            f" {self.c_mean:.3g} for the mean delay of the slowest worker"
        )


def delay_factor(version_read: Array, version_applied: Array, worker: Array) -> DelayFactor:
    """The factor c = delta_a / tau by which the fastest workers' updates exceed the slowest one's.

    The unit interval is the largest delay of a reply: from the version its task read until it was applied. delta_a
    counts the replies applied in it, its own last, and S_i those of worker i, so delta_a = sum_i S_i. Where each reply
    makes an update, delta_a is the largest staleness + 1. tau workers in turn see staleness tau - 1, hence c = 1; so
    do rounds that wait for all workers.

    Parameters
    ----------
    version_read, version_applied : array of int (n_replies,)
        In order of application.
    worker : array of int (n_replies,)
        Who answered.

    Notes
    -----
    The largest delay is what the rates with delay ask for, but on a real machine one hiccup makes it: compare
    `c_mean`. A worker that never answered is not in the trace. With more tasks in flight than workers, the time
    that tasks wait in line counts as delay. A rule that makes one update of several replies and issues tasks in
    between overstates c, by fewer replies than an update takes.

    References
    ----------
    Sahu, Dutta, Tiwari, Richtarik, "On the convergence analysis of asynchronous SGD for solving consistent linear
    systems", section 4: delta_a = c tau, c >= 1.

    Examples
    --------
    >>> delay_factor([0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2]).c
    1.0
    """
    read, applied, who = np.asarray(version_read), np.asarray(version_applied), np.asarray(worker)
    if read.ndim != 1 or not read.shape == applied.shape == who.shape:
        raise InvalidInputError(f"delay_factor needs columns of one length, not {read.shape}, {applied.shape}, {who.shape}")
    if not len(read):
        return DelayFactor(float("nan"), 0, 0, {}, float("nan"))
    # the first reply that found the version which this task read
    begin = np.searchsorted(applied, read)
    during = np.arange(1, len(read) + 1) - begin
    slowest = len(during) - 1 - int(np.argmax(during[::-1]))
    workers, index = np.unique(who, return_inverse=True)
    updates = np.bincount(index[begin[slowest] : slowest + 1], minlength=len(workers))
    mean = (np.bincount(index, during) / np.bincount(index)).max()
    tau, delta = len(workers), int(during[slowest])
    return DelayFactor(delta / tau, delta, tau, dict(zip(workers.tolist(), updates.tolist(), strict=True)), float(mean / tau))


def occupancy(version_read: Array, version_applied: Array, worker: Array, submitted: Array, received: Array) -> Array:
    """Seconds that each job kept its worker, as the server sees it.

    ``received_i - max(issued_i, received_p)``: p is the last job before i on the same worker, ``issued_i`` the time at
    which the server received the reply in answer to which it issued task i (``submitted_i`` for the tasks of the start).
    It holds the computation, both ways of transport and the server's own time, but neither the wait in a
    worker's line nor that at a barrier. The jobs of a worker do not overlap, and those of one that is always asked
    again at once fill the time without a gap: their mean gives the rate of the run.

    Parameters
    ----------
    version_read, version_applied, worker : array of int (n_replies,)
        In order of application.
    submitted, received : array (n_replies,)
        Seconds.

    Examples
    --------
    >>> occupancy([0, 1], [0, 1], [0, 0], [0.0, 1.25], [1.0, 3.0])
    array([1., 2.])
    """
    read, applied, who = np.asarray(version_read), np.asarray(version_applied), np.asarray(worker)
    sent, got = np.asarray(submitted, float), np.maximum.accumulate(np.asarray(received, float))
    # row q answered with task i: the version after it is the one that i read, and it came before i was submitted
    earliest = np.searchsorted(applied, read) - 1
    latest = np.searchsorted(applied, read, "right") - 2
    issuing = np.clip(np.searchsorted(got, sent, "right") - 1, earliest, np.maximum(latest, earliest))
    issued = np.where(issuing >= 0, got[np.maximum(issuing, 0)], sent)
    order = np.argsort(who, kind="stable")
    same = np.flatnonzero(who[order][1:] == who[order][:-1])
    previous = np.full(len(read), -np.inf)
    previous[order[same + 1]] = got[order[same]]
    seconds: Array = got - np.maximum(issued, previous)
    return seconds
