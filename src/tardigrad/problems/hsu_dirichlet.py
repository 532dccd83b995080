"""The partition of Hsu, Qi, Brown: every client draws its own mixture of classes, and as many rows as the others.

Rules of this file:

- mixtures are kept as logarithms: for a small alpha the numbers themselves underflow, and what is left of a mixture when its
  class is used up would be lost;
- rows that no client draws are left out of the problem.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.streams import Domain, Rng, Stream
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, number, optional_integer
from tardigrad.problems.partition import NOBODY, Partition, check_labels


@dataclass(frozen=True)
class HsuDirichlet(Partition):
    """Label skew by client: each draws a mixture of classes from Dirichlet(alpha prior) and its rows from what is left.

    Clients draw in turn: the classes of their rows from their mixture, the rows of a class at random among those that nobody
    has. When a class is used up, the mixture is renormalised over the others. All clients hold the same number of rows, and
    none is empty; no row has two owners.

    Parameters
    ----------
    n_clients : int
        Number of clients.
    alpha : float
        Concentration, ``> 0``: small alpha gives clients of one class, as long as there are rows of it; large alpha gives
        every client the mixture of the whole.
    rows_per_client : int, optional
        Rows of a client; by default as many as there are for all, n_rows // n_clients. Other rows are not used.
    seed : int
        Seed of mixtures and rows.

    Raises
    ------
    InvalidInputError
        If a number is out of its range, the labels are no classes, or there are too few rows.

    Notes
    -----
    The prior is the share of each class in the data. `Dirichlet` is the class-wise form in common use: there every class is
    shared out in proportions drawn from Dirichlet(alpha), so that clients differ in size, and some are empty and left out
    where alpha is small. Here sizes are equal, and a client that uses up a class goes on with others: of 64 clients of 750
    Fashion-MNIST rows (a class serves eight) each holds one class at alpha = 0.001; of 64 with 937 rows, one in seven two.

    References
    ----------
    Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution for federated visual classification", 2019,
    arXiv:1909.06335.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.arange(1000) % 10
    >>> order, offsets = HsuDirichlet(5, alpha=0.001, rows_per_client=100).split(labels)
    >>> np.diff(offsets).tolist(), [len(set(labels[order[i : i + 100]])) for i in range(0, 500, 100)]
    ([100, 100, 100, 100, 100], [1, 1, 1, 1, 1])
    """

    n_clients: int
    alpha: float
    rows_per_client: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_clients", integer(self.n_clients, "n_clients"))
        object.__setattr__(self, "alpha", number(self.alpha, "alpha", above=0))
        object.__setattr__(self, "rows_per_client", optional_integer(self.rows_per_client, "rows_per_client"))
        object.__setattr__(self, "seed", integer(self.seed, "seed", low=0))

    def owners(self, labels: Array) -> Array:
        check_labels(labels, "HsuDirichlet")
        n_rows = self._rows_of_each(len(labels))
        classes, codes = np.unique(labels, return_inverse=True)
        stream = Stream(self.seed, Domain.PARTITION)
        pools = [stream.at(i).permutation(np.flatnonzero(codes == i)) for i in range(len(classes))]
        sizes = np.array([len(pool) for pool in pools])
        given = np.zeros(len(classes), np.int64)
        owners = np.full(len(labels), NOBODY, np.int64)
        for client in range(self.n_clients):
            rng = stream.at(len(classes) + client)
            mixture = log_dirichlet(self.alpha, sizes / len(labels), rng)
            counts = draw_classes(n_rows, mixture, min(self.alpha, 1.0), sizes - given, rng)
            for i in np.flatnonzero(counts).tolist():
                owners[pools[i][given[i] : given[i] + counts[i]]] = client
            given += counts
        return owners

    def _rows_of_each(self, n_rows: int) -> int:
        wanted = n_rows // self.n_clients if self.rows_per_client is None else self.rows_per_client
        if wanted * self.n_clients > n_rows or not wanted:
            raise InvalidInputError(
                f"{self.n_clients} clients with {max(wanted, 1)} rows each need more than the {n_rows} rows there are:"
                " ask for fewer"
            )
        return wanted


def log_dirichlet(alpha: float, prior: Array, rng: Rng) -> Array:
    """``min(alpha, 1) log q``, up to a constant, for a draw q from Dirichlet(alpha prior): finite, however small q is.

    ``gamma(a) = gamma(a + 1) u^(1/a)`` in distribution, u uniform, so that ``log u / a`` does what underflows.
    """
    shapes = alpha * prior
    bulk = np.log(rng.standard_gamma(shapes + 1))
    waiting = rng.standard_exponential(len(prior))  # -log u
    return np.asarray(alpha * bulk - waiting / prior if alpha < 1 else bulk - waiting / shapes)


def draw_classes(n_rows: int, mixture: Array, power: float, left: Array, rng: Rng) -> Array:
    """How many rows of each class: drawn one by one in proportion to ``exp(mixture / power)``, used-up classes no more.

    They are drawn at once, and those that find their class used up again: that is the same in distribution, as drawing
    from the renormalised mixture is drawing again until the class is another one.
    """
    counts = np.zeros(len(left), np.int64)
    while n_rows:
        open_classes = np.flatnonzero(counts < left)
        logs = mixture[open_classes]
        with np.errstate(over="ignore"):  # then the share is 0
            shares = np.exp((logs - logs.max()) / power)
        drawn = rng.multinomial(n_rows, shares / shares.sum())
        taken = np.minimum(drawn, (left - counts)[open_classes])
        counts[open_classes] += taken
        n_rows -= int(taken.sum())
    return counts
