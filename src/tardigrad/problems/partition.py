"""Who owns which rows: partitions of a data set over clients.

Rules of this file:

- a partition is plain and seeded: the same one always gives the same clients;
- clients that get no row are left out of n and the number is said in a warning;
- no row is given twice, and none is lost but where the partition says so (`NOBODY`).
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain
from tardigrad.core.streams import Domain, Stream
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, number

#: owner of rows that are not used
NOBODY = -1


class Partition(Plain):
    """Base class: `owners` says for each row which client owns it."""

    @abstractmethod
    def owners(self, labels: Array) -> Array:
        """Client of each row, integers (n_rows,); `NOBODY` for rows that are not used."""

    def split(self, labels: Array) -> tuple[Array, Array]:
        """Rows ordered by client, and where each client's rows begin.

        Returns
        -------
        order : int array (n_rows,)
            Row numbers, client by client, in their old order within a client; without rows that nobody owns.
        offsets : int array (n_clients + 1,)
            Client i owns ``order[offsets[i]:offsets[i + 1]]``.
        """
        owners = self.owners(labels)
        owned = np.flatnonzero(owners != NOBODY)
        owners = owners[owned]
        asked = int(owners.max()) + 1
        kept, numbers = np.unique(owners, return_inverse=True)
        n_asked = max(asked, getattr(self, "n_clients", asked))
        if len(kept) < n_asked:
            empty = n_asked - len(kept)
            warnings.warn(f"{empty} of {n_asked} clients got no rows and are left out: n is {len(kept)}", stacklevel=3)
        order = owned[np.argsort(numbers, kind="stable")]
        offsets = np.concatenate([[0], np.cumsum(np.bincount(numbers))])
        return order, offsets


@dataclass(frozen=True)
class Iid(Partition):
    """Rows dealt at random, the same number to each client up to one.

    Parameters
    ----------
    n_clients : int
        Number of clients.
    seed : int
        Seed of the deal.

    Examples
    --------
    >>> import numpy as np
    >>> np.bincount(Iid(3).owners(np.zeros(10))).tolist()
    [4, 3, 3]
    """

    n_clients: int
    seed: int = 0

    def __post_init__(self) -> None:
        _set_clients(self)

    def owners(self, labels: Array) -> Array:
        owners = np.arange(len(labels)) % self.n_clients
        return Stream(self.seed, Domain.PARTITION).permutation(owners)


@dataclass(frozen=True)
class Dirichlet(Partition):
    """Label skew: the rows of each class are shared out in proportions drawn from Dirichlet(alpha).

    Small alpha gives clients that hold few classes. Clients can come out empty: they are left out.

    Parameters
    ----------
    n_clients : int
        Number of clients.
    alpha : float
        Concentration, ``> 0``.
    seed : int
        Seed of the proportions.

    References
    ----------
    The class-wise form of the partition of Hsu, Qi, Brown, "Measuring the effects of non-identical data
    distribution for federated visual classification", 2019, which draws a class mixture for each client instead:
    `HsuDirichlet`.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.repeat([0, 1], 100)
    >>> owners = Dirichlet(2, alpha=1e-3).owners(labels)  # hardly a class is shared
    >>> [np.unique(owners[labels == label]).size for label in (0, 1)]
    [1, 1]
    """

    n_clients: int
    alpha: float
    seed: int = 0

    def __post_init__(self) -> None:
        _set_clients(self)
        object.__setattr__(self, "alpha", number(self.alpha, "alpha", above=0))

    def owners(self, labels: Array) -> Array:
        check_labels(labels, "Dirichlet")
        owners = np.empty(len(labels), np.int64)
        stream = Stream(self.seed, Domain.PARTITION)
        for i, label in enumerate(np.unique(labels)):
            rng = stream.at(i)
            rows = rng.permutation(np.flatnonzero(labels == label))
            shares = rng.dirichlet(np.full(self.n_clients, self.alpha))
            if not abs(shares.sum() - 1) < 0.5:  # the sampler underflows for a tiny alpha and overflows for a huge one
                one = np.eye(self.n_clients)[rng.integers(self.n_clients)]
                shares = one if self.alpha < 1 else np.full(self.n_clients, 1 / self.n_clients)
            ends = np.round(np.cumsum(shares) * len(rows)).astype(np.int64)
            ends[-1] = len(rows)
            owners[rows] = np.searchsorted(ends, np.arange(len(rows)), side="right")
        return owners


@dataclass(frozen=True)
class Shards(Partition):
    """Rows sorted by label and cut into equal shards; each client is dealt `per_client` of them.

    Parameters
    ----------
    n_clients : int
        Number of clients.
    per_client : int
        Shards a client holds; at most so many classes, about.
    seed : int
        Seed of the deal.

    References
    ----------
    McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.arange(12) // 2
    >>> owners = Shards(3, per_client=2).owners(labels)
    >>> [np.unique(labels[owners == client]).size for client in range(3)]
    [2, 2, 2]
    """

    n_clients: int
    per_client: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        _set_clients(self)
        object.__setattr__(self, "per_client", integer(self.per_client, "per_client"))

    def owners(self, labels: Array) -> Array:
        n_shards = self.n_clients * self.per_client
        order = np.argsort(labels, kind="stable")
        client_of = Stream(self.seed, Domain.PARTITION).permutation(np.arange(n_shards) % self.n_clients)
        owners = np.empty(len(labels), np.int64)
        owners[order] = client_of[np.arange(len(labels)) * n_shards // len(labels)]
        return owners


@dataclass(frozen=True)
class Shared(Partition):
    """Every client may use every row: clients only number the workers of one machine.

    Parameters
    ----------
    n_clients : int
        Number of clients, normally that of the workers.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), Shared(3))
    >>> problem.n_clients, problem.n_rows_of(0), problem.shared_data
    (3, 4, True)
    """

    n_clients: int

    def __post_init__(self) -> None:
        _set_clients(self)

    def owners(self, labels: Array) -> Array:
        raise TypeError("rows of a Shared partition have no single owner")


class Given(Partition):
    """A partition that the user has: the client of each row.

    Parameters
    ----------
    clients : int array (n_rows,)
        Client numbers from 0; -1 for rows that nobody owns, which are not used.

    Notes
    -----
    It serves to partition by other labels than those of the problem: ``Given(HsuDirichlet(64, 0.1).owners(classes))``.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> problem = td.LeastSquares((np.eye(4), np.ones(4)), Given([0, 1, 1, -1]), weights="rows")
    >>> problem.n_rows_of(1), problem.weight(1)
    (2, 0.6666666666666666)
    """

    def __init__(self, clients: Array) -> None:
        try:
            values = np.asarray(clients)
        except ValueError:
            raise InvalidInputError(
                "clients must be a 1-d array with the client of each row, not lists of different lengths: of lists of rows"
                " make it by clients = np.full(n_rows, -1) and clients[rows_of_client_i] = i"
            ) from None
        if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer) or not values.size:
            raise InvalidInputError(f"clients must be a 1-d array of integers >= 0, not {values.dtype} of shape {values.shape}")
        if values.min() < NOBODY:
            raise InvalidInputError(f"clients must be integers >= 0, or -1 for rows that nobody owns, not {values.min()}")
        if values.max() == NOBODY:
            raise InvalidInputError("clients are all -1: at least one row needs an owner")
        self.clients = values

    def fields(self) -> dict[str, Array]:
        return {"clients": self.clients}

    def owners(self, labels: Array) -> Array:
        if len(self.clients) != len(labels):
            raise InvalidInputError(f"clients has {len(self.clients)} entries for {len(labels)} rows")
        return self.clients


def _set_clients(partition: Any) -> None:
    object.__setattr__(partition, "n_clients", integer(partition.n_clients, "n_clients"))
    if hasattr(partition, "seed"):
        object.__setattr__(partition, "seed", integer(partition.seed, "seed", low=0))


def check_labels(labels: Array, name: str) -> None:
    """Labels that are classes, for the partition of this name."""
    if np.issubdtype(labels.dtype, np.floating) and not (labels == np.round(labels)).all():
        raise InvalidInputError(f"{name} shares out classes, but the labels are real numbers: use Iid, Shards or Given")
