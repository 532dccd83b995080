"""EigenPro: preconditioned stochastic gradient descent for kernel machines, on one worker or in rounds of several.

On a batch b of m rows, ``g = K[b, :] alpha - y[b]``, a worker answers with the two parts of an update,

    alpha_b -= gamma g,    alpha_nys += gamma U diag[(1 - (lam_t/lam_i)^a) / sigma_i] U' K[nys, b] g,

nys a subsample and sigma_i, u_i the top eigenvalues and vectors of its kernel matrix: along these directions the second
part takes back most of the first, so that gamma can be as large as the rest of the spectrum allows.

Rules of this file:

- the arithmetic of an update stands once, in `KernelWorker.update`, for `AsyncEigenPro` too;
- everything "auto" is chosen before the run, from a seeded subsample and the memory, and saved with the rule as numbers;
- an epoch visits the rows in an order drawn for it, each once; at its end a batch that is not full begins anew;
- a round's parts are added in the order of the clients, so runs are the same in every bit on every engine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self
from weakref import WeakKeyDictionary

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Orders, Rule, State
from tardigrad.core.steps import check_step, step_shape
from tardigrad.core.streams import Domain, Rng, Stream
from tardigrad.core.task import Array, Payload, Points, Reply, Task
from tardigrad.core.validate import integer, number, yes_or_no
from tardigrad.core.worker import single_threaded_blas
from tardigrad.problems.kernel_interpolation import KernelInterpolation, apart, side_by_side
from tardigrad.rules.nystrom_preconditioner import NystromPreconditioner, preconditioner
from tardigrad.theory import eigenpro

#: columns of a kernel block that count to a batch's memory beside the subsample's: tiles have more, but never all of its rows
TILE = 2048
#: batches are so much smaller than the critical batch allows: steps are longer then, products a little slower. On
#: Fashion-MNIST a loss is reached in 9 % less time than with 1, and as soon as with 3 (4 cores)
SMALLER = 1.5
#: rows of a batch on which products run at full speed
LEAST = 32
#: memory for batches and preconditioners of all workers together, unless told otherwise: with the interpreter and compiled
#: code, some 250 MB, it stays below a gigabyte
MEMORY = 6e8


@dataclass
class Prepared:
    """What a worker keeps for a client and setup.

    Attributes
    ----------
    sub : array of int (s,)
        Rows of the subsample, ascending.
    places : array of int (s,)
        Where they are in what the update is written to: the client's block, or all rows.
    made : NystromPreconditioner
        Of these rows.
    """

    sub: Array
    places: Array
    made: NystromPreconditioner


class KernelRule:
    """What rules for kernel machines share: sizes, preconditioners, and the update. A mixin for frozen dataclasses."""

    batch_size: int | Literal["auto"]
    n_subsample: int | Literal["auto"]
    n_damped: int | Literal["auto"]
    step_factor: float | Array
    memory: float
    n_rows: int
    n_outputs: int

    def _check_sizes(self) -> None:
        for name, low in (("batch_size", 1), ("n_subsample", 1), ("n_damped", 0)):
            value = getattr(self, name)
            if not (isinstance(value, str) and value == "auto"):
                object.__setattr__(self, name, integer(value, name, low))
        object.__setattr__(self, "step_factor", check_step(self.step_factor, "step_factor", sequence=False))
        object.__setattr__(self, "memory", number(self.memory, "memory", above=0))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return step_shape(self.step_factor)

    def _sized(self, problem: Problem, in_flight: float) -> Any:
        """The rule with numbers for "auto", where so many batches are in flight."""
        name = type(self).__name__
        if not isinstance(problem, KernelInterpolation):
            raise InvalidInputError(
                f"{name} is for kernel machines: give it a KernelInterpolation, not {type(problem).__name__}"
            )
        if self.n_rows and (self.n_rows, self.n_outputs) != (problem.n_rows, problem.n_outputs):
            raise InvalidInputError(
                f"this {name} was configured for {self.n_rows} rows and {self.n_outputs} outputs, not for {problem.n_rows} and"
                f" {problem.n_outputs}: make a new one"
            )
        if self.n_rows:
            return self
        workers, itemsize = problem.n_clients, problem.dtype.itemsize
        asked = eigenpro.n_subsample(problem.n_rows, self.memory, workers) if self.n_subsample == "auto" else self.n_subsample
        rows = problem.n_rows // workers
        s = min(int(asked), rows)
        q = None if self.n_damped == "auto" else int(self.n_damped)
        m = None if self.batch_size == "auto" else int(self.batch_size)
        try:
            most = eigenpro.largest_batch(TILE + s, problem.n_features, problem.n_outputs, self.memory, workers, itemsize)
        except InvalidInputError as error:
            raise InvalidInputError(
                f"memory={self.memory:g} bytes hold not even a row of a batch for each of {workers} workers: give more, 6e8 by"
                " default"
            ) from error
        if q is None or m is None:
            sub = Stream(0, Domain.PREPARE).at(s).choice(problem.n_rows, s, replace=False)
            with single_threaded_blas():  # as workers compute; several threads take longer where others work
                made = _preconditioner(problem, 0, sub, q)
            q, m = made.n_damped, m or eigenpro.shared_batch(made.beta, made.top, SMALLER * in_flight, rows, most, LEAST)
        m = min(m, rows)
        if m > most:
            raise InvalidInputError(
                f"a batch of {m} rows does not fit the memory: {self.memory:g} bytes for {workers} workers hold {most} rows;"
                " give more memory or a smaller batch_size"
            )
        this: Any = self
        return dataclasses.replace(
            this, n_subsample=s, batch_size=m, n_damped=q, n_rows=problem.n_rows, n_outputs=problem.n_outputs
        )

    def _step(self, beta: float, top: float, in_flight: float) -> float:
        """The step a sample before `step_factor`, from the largest diagonal entry and eigenvalue, and batches in flight."""
        return eigenpro.step(beta, top, int(self.batch_size), in_flight)

    def _prepared(self, problem: KernelInterpolation, client: int, sub: Array, places: Array) -> Prepared:
        ascending = np.argsort(sub)
        sub, places, q = sub[ascending], places[ascending], int(self.n_damped)
        if len(sub) < problem.n_rows:
            return Prepared(sub, places, _preconditioner(problem, client, sub, q))
        made = _of_all_rows.setdefault(problem, {}).get(q)  # the same in every epoch
        if made is None:
            made = _of_all_rows[problem][q] = _preconditioner(problem, client, sub, q)
        return Prepared(sub, places, made)

    def _update(
        self,
        problem: KernelInterpolation,
        client: int,
        rows: Array,
        coefficients: Any,
        leading: tuple[int, ...],
        kept: Prepared,
        in_flight: float,
    ) -> tuple[Array, Array, Array]:
        """The two parts of an update, (..., m, c) and (..., s, c), and the loss, (...), from coefficients side by side."""
        blocks = problem.blocks(client)
        product, entries = blocks.product(blocks.rows(rows), coefficients, columns=kept.sub, own=rows)
        c = problem.n_outputs
        assert entries is not None
        residual = apart(product, leading, c) - problem.targets[rows]
        along = kept.made.along(entries)
        correction = apart(kept.made.correction(along, side_by_side(residual)), leading, c)
        diagonal = problem.kernel.diagonal
        beta = kept.made.beta_of(along, problem.diagonal(rows) if diagonal is None else diagonal)
        step = self._step(beta, kept.made.top, in_flight)
        gamma = np.multiply(step, self.step_factor).astype(product.dtype)[..., None, None]
        loss = np.square(residual, dtype=np.float64).mean(axis=(-1, -2))
        return -gamma * residual, gamma * correction, np.asarray(loss)


_of_all_rows: WeakKeyDictionary[KernelInterpolation, dict[int, NystromPreconditioner]] = WeakKeyDictionary()


def _preconditioner(problem: KernelInterpolation, client: int, sub: Array, q: int | None) -> NystromPreconditioner:
    """Of some rows."""
    blocks = problem.blocks(client)
    rows = blocks.rows(sub)
    matrix = blocks.block(rows, rows).astype(np.float64, copy=False)  # float32 errs by no more than what is never damped
    diagonal = problem.kernel.diagonal
    if diagonal is not None:
        np.fill_diagonal(matrix, diagonal)
    return preconditioner(matrix, None, q, largest_batch=len(sub))


@lru_cache(2)  # one run's: 8 bytes a row each
def epoch_order(seed: int, epoch: int, n_rows: int) -> Array:
    """The order of the rows in an epoch: whoever asks gets the same one."""
    order = Stream(seed, Domain.PARTITION).at(epoch).permutation(n_rows)
    order.flags.writeable = False
    return order


def seed_of(rng: Rng) -> int:
    """The seed of a run, from any of its streams."""
    if not isinstance(rng, Stream):
        raise InvalidInputError(f"rules for kernel machines take their numbers from a Stream, not {type(rng).__name__}")
    return rng.seed


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
