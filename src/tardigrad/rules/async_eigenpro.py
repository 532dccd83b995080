"""AsyncEigenPro: EigenPro by workers that own disjoint parts of the coefficients, and wait for nobody within an epoch.

Worker r reads all coefficients, takes a batch of its own rows, and changes its own coefficients alone, by the two parts of an
EigenPro update with a preconditioner of its own rows (Algorithm 1).

Rules of this file:

- what a worker reads are whole blocks, old or new: the two parts of an update cancel along the top directions, so who saw
  one without the other would diverge. A block is published by replacing its array object;
- a worker reads its own block as it left it: its next task is given out after its last was applied;
- each epoch has a new partition and new preconditioners. It ends when so many batches were applied as make n samples,
  whoever worked on them: the one moment at which all wait;
- the step is chosen for the batches in flight. Where replies were older on average than it was chosen for, the next epoch's
  is smaller, and a warning says so.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from tardigrad.core.errors import InvalidInputError, TheoryWarning
from tardigrad.core.in_place import InPlaceRule, InPlaceState
from tardigrad.core.problem import Problem
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Payload, Points, Task
from tardigrad.core.validate import number, optional_integer
from tardigrad.problems.kernel_interpolation import KernelInterpolation
from tardigrad.rules.kernel_rule import MEMORY, KernelRule, Prepared, epoch_order, seed_of

#: measured batches in flight may exceed those that the step was chosen for by this factor before it is reduced
SLACK = 1.05


@dataclass(frozen=True)
class AsyncEigenPro(KernelRule, InPlaceRule):
    """Asynchronous EigenPro: served, or lock-free on ``Threads(lock_free=True)``.

    With G workers, the problem's clients, and their batches of m rows, ``gamma = c / (beta + (G m - 1) lam')``.

    Parameters
    ----------
    batch_size : int or "auto"
        m; "auto": the critical batch over 1.5 G.
    n_subsample : int or "auto"
        Rows of each preconditioner, at most a worker's rows; "auto": 2000, from 100 thousand rows on 12000, less where memory
        asks for it.
    n_damped : int or "auto"
        Directions that are damped; "auto": from a subsample's spectrum, as EigenPro 2 does it.
    step_factor : float or array
        c. An array runs one replica for each entry, where a server applies the updates.
    memory : float
        Bytes that batches and preconditioners of all workers may take.
    concurrency : int, optional
        Tasks in flight: G.
    in_flight : float, optional
        Batches in flight that the first epoch's step is chosen for: G, or 1 + `max_staleness` of the run where that is given.
    n_rows, n_outputs : int
        Set when a run configures the rule.

    Notes
    -----
    Departures from the paper. Theorem 1's bound on the step knows neither G nor delays, and steps that it allows diverge:
    samples in flight count as one batch (see `theory.eigenpro.step`). Updates are published whole. Partition and
    preconditioners are made anew each epoch: with fixed ones slow modes between partitions stay, some ``(G-1) q`` of them, and
    the rows of slow workers lag behind.

    The state's `tallies` say for each epoch how stale its reads were, what its mean squared residual was, seen before each
    update, and how long workers waited for its end.

    Raises
    ------
    InvalidInputError
        If the problem is no `KernelInterpolation`, or a batch does not fit the memory.

    References
    ----------
    Giri, Belkin, Pandit, "Asynchronous kernel ridgeless regression", 2022, Algorithm 1, (9)-(12).

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> X = np.random.default_rng(0).normal(size=(400, 3))
    >>> problem = td.KernelInterpolation(X, X[:, 0], td.Laplacian(2.0), n_clients=2)
    >>> result = td.run(AsyncEigenPro(), problem, td.Threads(2, lock_free=True), stop=td.MaxUpdates(400))
    >>> bool(problem.measures(result.x)["loss"] < 1e-3)
    True
    """

    ownership: ClassVar[Literal["racy", "disjoint"]] = "disjoint"
    unsuited: ClassVar[Mapping[str, str]] = {
        "Prescribed": "a version of an earlier epoch has blocks of another partition: staleness cannot reach beyond an epoch"
    }

    sources: ClassVar[Mapping[str, str]] = {
        **KernelRule.sources,
        **InPlaceRule.sources,
        "in_flight": "run: one batch of each client, or 1 + max_staleness",
    }

    batch_size: int | Literal["auto"] = "auto"
    n_subsample: int | Literal["auto"] = "auto"
    n_damped: int | Literal["auto"] = "auto"
    step_factor: float | Array = 1.5
    memory: float = MEMORY
    concurrency: int | None = None
    in_flight: float | None = None
    n_rows: int = 0
    n_outputs: int = 0

    def __post_init__(self) -> None:
        self._check_sizes()
        object.__setattr__(self, "concurrency", optional_integer(self.concurrency, "concurrency"))
        if self.in_flight is not None:
            object.__setattr__(self, "in_flight", number(self.in_flight, "in_flight", low=1.0))

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> Self:
        workers = problem.n_clients
        if concurrency != workers:
            raise InvalidInputError(
                f"AsyncEigenPro keeps one task of each of its {workers} clients in flight, not {concurrency}: more would read a"
                " client's own coefficients before its last update; give the problem n_clients instead"
            )
        in_flight = self.in_flight or (workers if max_staleness is None else max_staleness + 1.0)
        sized = dataclasses.replace(self._sized(problem, in_flight), in_flight=float(in_flight))
        return InPlaceRule.configure(sized, problem, concurrency, max_staleness)

    def bounds(self, dim: int, n_clients: int) -> list[int]:
        return [self.n_rows * client // n_clients * self.n_outputs for client in range(n_clients + 1)]

    def tasks_per_setup(self) -> int:
        return -(-self.n_rows // int(self.batch_size))

    def begin_setup(self, state: InPlaceState, seed: int) -> None:
        state.unit = self.n_outputs
        state.order = epoch_order(seed, state.setup, self.n_rows)
        if not state.tallies:
            state.weight = float(self.in_flight or state.n_clients)
            return
        last = state.tallies[-1]
        measured = 1 + last.staleness / max(last.updates, 1)
        if measured > SLACK * state.weight:
            warnings.warn(
                f"replies of epoch {state.setup} were {measured - 1:.3g} updates old on average, the step was chosen for"
                f" {state.weight - 1:.3g}: it is reduced",
                TheoryWarning,
                stacklevel=2,
            )
            state.weight = measured

    def prepare(self, problem: Problem, client: int, setup: int, rng: Rng) -> Prepared:
        assert isinstance(problem, KernelInterpolation)
        low, high = self._own(client, problem.n_clients)
        places = rng.choice(high - low, min(int(self.n_subsample), high - low), replace=False)
        return self._prepared(problem, client, epoch_order(seed_of(rng), setup, self.n_rows)[low + places], places)

    def work(self, problem: Problem, task: Task, points: Points, rng: Rng, cache: Any) -> Payload:
        assert isinstance(problem, KernelInterpolation)
        m, order = int(self.batch_size), epoch_order(seed_of(rng), task.setup, self.n_rows)
        low, high = self._own(task.client, problem.n_clients)
        places = np.arange(task.part * m, task.part * m + m) % (high - low)
        coefficients = problem.gathered(points, order, task.client)
        rows, leading = order[low + places], points[0].shape[:-1]
        batch, correction, loss = self._update(problem, task.client, rows, coefficients, leading, cache, task.weight)
        return places, batch, cache.places, correction, loss

    def write(self, x: Array, payload: Any, task: Task) -> None:
        places, batch, sub, correction, _ = payload
        alpha = x.reshape(*x.shape[:-1], -1, self.n_outputs)
        alpha[..., places, :] += batch
        alpha[..., sub, :] += correction

    def reading(self, payload: Any) -> float:
        return float(np.mean(payload[4]))

    def _own(self, client: int, n_clients: int) -> tuple[int, int]:
        """The client's stretch of the epoch's order."""
        return self.n_rows * client // n_clients, self.n_rows * (client + 1) // n_clients
