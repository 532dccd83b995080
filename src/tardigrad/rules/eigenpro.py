"""EigenPro: preconditioned stochastic gradient descent for kernel machines, on one worker or in rounds of several.

Rules of this file:

- what a worker does with a batch, and how sizes are chosen, stands in `kernel_rule`, for `AsyncEigenPro` too;
- an epoch visits the rows in an order drawn for it, each once; at its end a batch that is not full begins anew;
- a round's parts are added in the order of the clients, so runs are the same in every bit on every engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, Rule, State
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Payload, Points, Reply, Task
from tardigrad.core.validate import yes_or_no
from tardigrad.problems.kernel_interpolation import KernelInterpolation
from tardigrad.rules.kernel_rule import MEMORY, KernelRule, Prepared, epoch_order, seed_of
from tardigrad.theory import eigenpro


@dataclass(slots=True, kw_only=True)
class RoundState(State):
    """State of `SyncEigenPro`: replies that came before their turn are kept.

    Attributes
    ----------
    n_clients : int
        Batches of a round.
    turn : int
        The task that is applied next.
    early : dict
        Payloads by task.
    losses : list of float
        Mean squared residual of each round's batches, before their update.
    """

    n_clients: int
    turn: int = 0
    early: dict[int, tuple[Array, ...]] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class SyncEigenPro(KernelRule, Rule[RoundState]):
    """EigenPro in rounds: each of G workers has a batch and a preconditioner of its own, and the slowest is waited for.

    ``alpha_b -= gamma g`` for the G batches, ``alpha_nys_r += gamma M_r K[nys_r, b_r] g_r`` for each worker r.

    Parameters
    ----------
    batch_size : int or "auto"
        Rows of a worker's batch; "auto": the critical batch over 1.5 G.
    n_subsample : int or "auto"
        Rows of each preconditioner; "auto": 2000, from 100 thousand rows on 12000, less where memory asks for it.
    n_damped : int or "auto"
        Directions that are damped; "auto": from the subsample's spectrum, as EigenPro 2 does it.
    step_factor : float or array
        c of ``gamma = c / (beta + (G m - 1) lam')`` (`theory.eigenpro.step`). An array runs one replica for each entry.
    refresh : bool
        Draw subsamples and make preconditioners anew each epoch; by default they are those of the first.
    memory : float
        Bytes that batches and preconditioners of all workers may take.
    n_rows, n_outputs : int
        Set when a run configures the rule.

    Notes
    -----
    Departures from section 2.2, which diverges as printed: each worker's correction goes to the rows of its own subsample,
    and the 1/m of the gradient is the whole round's. EigenPro 2's own step, c = 2 at the critical batch, is at the limit of
    stability; a subsample smaller than the data makes lam' too small, by up to 1.7 times.

    Raises
    ------
    InvalidInputError
        If the problem is no `KernelInterpolation`, or a batch does not fit the memory.

    References
    ----------
    Giri, Belkin, Pandit, "Asynchronous kernel ridgeless regression", 2022, section 2.2; steps and sizes: Ma, Belkin, "Kernel
    machines that adapt to GPUs for effective large batch training", MLSys 2019.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> problem = td.KernelInterpolation(X, X[:, 0], td.Laplacian(2.0), n_clients=2)
    >>> result = td.run(SyncEigenPro(), problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(200))
    >>> bool(problem.measures(result.x)["loss"] < 1e-4)
    True
    """

    unsuited: ClassVar[Mapping[str, str]] = {
        "Prescribed": "a round waits for its slowest reply, so nothing is left to prescribe"
    }

    batch_size: int | Literal["auto"] = "auto"
    n_subsample: int | Literal["auto"] = "auto"
    n_damped: int | Literal["auto"] = "auto"
    step_factor: float | Array = 1.5
    refresh: bool = False
    memory: float = MEMORY
    n_rows: int = 0
    n_outputs: int = 0

    def __post_init__(self) -> None:
        self._check_sizes()
        yes_or_no(self.refresh, "refresh")

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> Self:
        return self._sized(problem, problem.n_clients)

    def default_concurrency(self, problem: Problem, n_workers: int) -> int:
        return problem.n_clients

    def rounds_per_epoch(self, n_clients: int) -> int:
        """Rounds after which each row was visited."""
        return -(-self.n_rows // (int(self.batch_size) * n_clients))

    def start(self, x0: Array, n_clients: int, rng: Rng) -> tuple[RoundState, Orders]:
        state = RoundState(x=x0, n_clients=n_clients)
        return state, self._round(state)

    def _round(self, state: RoundState) -> Orders:
        epoch, part = divmod(state.version, self.rounds_per_epoch(state.n_clients))
        setup = epoch if self.refresh else 0
        # the weight carries the epoch: the setup is that of the preconditioner
        return [state.task(client, setup=setup, weight=float(epoch), part=part) for client in range(state.n_clients)]

    def prepare(self, problem: Problem, client: int, setup: int, rng: Rng) -> Prepared:
        assert isinstance(problem, KernelInterpolation)
        rows = epoch_order(seed_of(rng), setup, self.n_rows)[rng.choice(self.n_rows, int(self.n_subsample), replace=False)]
        return self._prepared(problem, client, rows, rows)

    def work(self, problem: Problem, task: Task, points: Points, rng: Rng, cache: Any) -> Payload:
        assert isinstance(problem, KernelInterpolation)
        m, workers = int(self.batch_size), problem.n_clients
        first = (task.part * workers + task.client) * m
        places = np.arange(first, first + m) % self.n_rows
        rows = epoch_order(seed_of(rng), int(task.weight), self.n_rows)[places]
        x = points[0]
        batch, correction, loss = self._update(
            problem, task.client, rows, problem.coefficients(x), x.shape[:-1], cache, workers
        )
        return rows, batch, cache.places, correction, loss

    def receive(self, state: RoundState, reply: Reply, rng: Rng) -> tuple[RoundState, Orders]:
        payload: Any = reply.payload
        if reply.task.id != state.turn:
            state.early[reply.task.id] = tuple(np.array(part) for part in payload)
            return state, []
        alpha = state.x.reshape(*state.x.shape[:-1], self.n_rows, self.n_outputs)
        while payload is not None:
            rows, batch, places, correction, loss = payload
            alpha[..., rows, :] += batch
            alpha[..., places, :] += correction
            if state.turn % state.n_clients == 0:
                state.losses.append(0.0)
            state.losses[-1] += float(np.mean(loss)) / state.n_clients
            state.turn += 1
            payload = state.early.pop(state.turn, None)
        if state.turn < state.issued:
            return state, []
        state.version += 1
        return state, self._round(state)


@dataclass(frozen=True)
class EigenPro(SyncEigenPro):
    """EigenPro 2 on one worker: the method that the others are measured by.

    Parameters
    ----------
    batch_size, n_subsample, n_damped, refresh, memory
        As for `SyncEigenPro`, with G = 1.
    step_factor : float or array
        Multiplies the automatic step of EigenPro 2 (`theory.eigenpro.one_worker_step`).
    n_rows, n_outputs : int
        Set when a run configures the rule.

    Raises
    ------
    InvalidInputError
        If the problem is no `KernelInterpolation` of one client.

    References
    ----------
    Ma, Belkin, "Kernel machines that adapt to GPUs for effective large batch training", MLSys 2019. Giri, Belkin, Pandit,
    "Asynchronous kernel ridgeless regression", 2022, (5)-(8), where (8) holds for eigenvalues that are not normalised.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> problem = td.KernelInterpolation(X, X[:, 0], td.Laplacian(2.0))
    >>> result = td.run(EigenPro(), problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(200))
    >>> bool(problem.measures(result.x)["loss"] < 1e-4)
    True
    """

    step_factor: float | Array = 1.0

    def _step(self, beta: float, top: float, in_flight: float) -> float:
        return eigenpro.one_worker_step(beta, top, int(self.batch_size))

    def configure(self, problem: Problem, concurrency: int, max_staleness: int | None) -> Self:
        if problem.n_clients != 1:
            raise InvalidInputError(
                f"EigenPro is for one worker, the problem has {problem.n_clients} clients: use SyncEigenPro or AsyncEigenPro"
            )
        return super().configure(problem, concurrency, max_staleness)
