"""How staleness grows with the version read, as a power of it.

Rules of this file:

- plain arrays in, so that an observer can ask during a run;
- a trend is told apart from records: the maximum of a stationary tail grows too, because more is seen of it;
- where too little is known the answer is nan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array

#: fewer rows than this have no trend
FEWEST = 8
#: replies whose largest staleness makes a point of the envelope
BLOCK = 10
#: a client is said to grow by itself if chance would show that in so small a share of the runs
DOUBT = 0.01


@dataclass(frozen=True)
class Growth:
    """``staleness <= scale * version_read ** max(exponent, 0)``, from version `first` on.

    Attributes
    ----------
    exponent : float
        Trend of the large delays: 0 bounded or stationary, 1 linear, q polynomial. nan where too little is known.
    error : float
        Its standard error.
    scale : float
        The smallest number with which no reply seen, and no task known to be unanswered, is above the envelope.
    record_exponent : float
        Growth of the largest staleness so far. A stationary heavy tail has records without a trend.
    client : int or None
        The client whose own trend this is, where one grows faster than all together; else None.
    first : int
        Version at which the start was over: nine in ten of the first tasks were answered.
    replies : int
        Replies that the exponent was found from.
    """

    exponent: float
    error: float
    scale: float
    record_exponent: float
    client: int | None
    first: int
    replies: int

    def __str__(self) -> str:
        whose = "" if self.client is None else f" (client {self.client})"
        # the envelope does not fall, whatever the trend
        below = f"{self.scale:.3g} n^{max(self.exponent, 0.0):.3g}"
        return (
            f"growth of staleness with the version n: exponent {self.exponent:.3g} +- {self.error:.2g}{whose}, at most {below};"
            f" the largest so far grows like n^{self.record_exponent:.3g}; from {self.replies} replies"
        )


def growth(version_read: Array, staleness: Array, client: Array | None = None, unanswered: Array | None = None) -> Growth:
    """Fit the upper envelope of staleness d against the version read v, ``d <= scale * v ** exponent``.

    The replies are put in order of v and cut into blocks of up to 10; the logarithm of a block's largest d is regressed
    on log v. Blocks of one size keep a stationary tail flat: the maximum of geometric bins would grow by the size of
    the bins alone. With K tasks in flight the mean of d is below K, so if only one client slows down, its replies
    become too rare to move the blocks: each client is fitted by itself too, and the one that surely grows fastest
    is taken if it grows faster than all together.

    Parameters
    ----------
    version_read, staleness : array of int (n_replies,)
        v and d, counted from the request.
    client : array of int (n_replies,), optional
        Who answered; without it no client is looked at by itself.
    unanswered : array of int, optional
        Versions read by tasks that are still in flight: their d is at least their age, which moves `scale`.

    Returns
    -------
    Growth
        With exponent nan below 8 usable replies, or if all of them read one version.

    Raises
    ------
    InvalidInputError
        If the arrays differ in length or hold negative numbers.

    Notes
    -----
    Left out: replies to tasks that read a version before the first tasks were answered (the start), and those that
    read one so late that 1 in 100 delays would have outlasted the run (the late ones among them are missing).

    What it cannot tell: whether delays are bounded. Independent durations with a tail P(T > t) ~ t^-a show
    exponent 0 and record_exponent near 1/a (exponential ones: log n, about 0.1), though no bound holds for ever. A
    growth that began near the end of the run, or one of rare replies of a client whose others are fresh, shows in
    `record_exponent` alone. The error takes blocks for independent.

    References
    ----------
    Zhou, Mertikopoulos, Bambos, Glynn, Ye, Li, Fei-Fei, "Distributed asynchronous optimization with unbounded delays:
    how slow can you go?", ICML 2018, Assumption 3 (bounded, O(n), O(n^q)).

    Examples
    --------
    >>> read = np.arange(1, 5000)
    >>> found = growth(read, read // 2)
    >>> round(found.exponent, 2), round(found.scale, 2)
    (0.99, 0.56)
    """
    read, late = np.asarray(version_read), np.asarray(staleness)
    owner = np.zeros(len(read), int) if client is None else np.asarray(client)
    open_tasks = np.asarray([] if unanswered is None else unanswered, float)
    if read.ndim != 1 or not read.shape == late.shape == owner.shape:
        shapes = ", ".join(str(array.shape) for array in (read, late, owner))
        raise InvalidInputError(f"growth needs columns of one length, not of shapes {shapes}")
    if len(read) and min(read.min(), late.min()) < 0:
        raise InvalidInputError("growth needs versions and staleness >= 0")
    nan = float("nan")
    if not len(read):
        return Growth(nan, nan, nan, nan, None, 0, 0)
    order = np.argsort(read, kind="stable")
    read, late, owner = read[order].astype(float), late[order].astype(float), owner[order]
    now = (read + late).max()
    first = max(1, int(np.ceil(np.quantile(late[read == read[0]], 0.9))))
    used = (read >= first) & (read + np.quantile(late, 0.99) <= now)
    exponent, error = _trend(read[used], late[used])
    who = None
    if client is not None and used.any():
        exponent, error, who = _steepest(read[used], late[used], owner[used], exponent, error)
    open_tasks = np.maximum(open_tasks, first)  # whoever has been silent since the start counts
    seen = np.concatenate([read[read >= first], open_tasks])
    at_least = np.concatenate([late[read >= first], now - open_tasks])
    known = len(seen) and not np.isnan(exponent)
    scale = float((at_least / seen ** max(exponent, 0.0)).max()) if known else nan
    return Growth(exponent, error, scale, _records(read, late, used), who, first, int(used.sum()))


def _trend(read: Array, late: Array) -> tuple[float, float]:
    """Slope of log(staleness) of blocks against log(version), and its standard error."""
    if len(read) < FEWEST or read[0] == read[-1]:
        return float("nan"), float("nan")
    size = min(max(len(read) // 20, 1), BLOCK)
    n_blocks = len(read) // size
    kept = slice(len(read) - n_blocks * size, None)
    # half a version more: staleness is a whole number, and may be 0
    y = np.log(late[kept].reshape(n_blocks, size).max(1) + 0.5)
    return _line(np.log(read[kept]).reshape(n_blocks, size).mean(1), y)


def _line(x: Array, y: Array) -> tuple[float, float]:
    """Slope of a least-squares line and its standard error; nan where all x are equal."""
    x, y = x - x.mean(), y - y.mean()
    spread = x @ x
    if len(x) < 3 or spread <= 0:
        return float("nan"), float("nan")
    slope = x @ y / spread
    rest = y - slope * x
    return float(slope), float(np.sqrt(rest @ rest / (len(x) - 2) / spread))


def _steepest(read: Array, late: Array, owner: Array, exponent: float, error: float) -> tuple[float, float, int | None]:
    """The trend of the client whose delays surely grow fastest, or the one given, of all together."""
    from scipy.special import stdtrit

    order = np.argsort(owner, kind="stable")
    clients, begins = np.unique(owner[order], return_index=True)
    best, who, bound = (exponent, error), None, max(exponent + 2 * error, 0.05)
    for client, rows in zip(clients.tolist(), np.split(order, begins[1:]), strict=True):
        slope, doubt = _trend(read[rows], late[rows])
        if not slope > bound:  # also where it is nan
            continue
        freedom = len(rows) // min(max(len(rows) // 20, 1), BLOCK) - 2
        surely = slope - doubt * float(stdtrit(freedom, 1 - DOUBT / len(clients)))
        if surely > bound:
            best, who, bound = (slope, doubt), client, surely
    return *best, who


def _records(read: Array, late: Array, used: Array) -> float:
    """Slope of log(largest staleness so far) against log(version), at versions in geometric progression."""
    places = np.flatnonzero(used)
    if len(places) < FEWEST:
        return float("nan")
    low, high = read[places[0]], read[places[-1]]
    at = np.searchsorted(read, np.geomspace(low, high, 33), "right") - 1
    return _line(np.log(read[at]), np.log(np.maximum.accumulate(late)[at] + 0.5))[0]
