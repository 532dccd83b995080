"""What rules for kernel machines share: sizes and preconditioners, the order of rows in an epoch, and the update.

On a batch b of m rows, ``g = K[b, :] alpha - y[b]``, a worker answers with the two parts of an update,

    alpha_b -= gamma g,    alpha_nys += gamma U diag[(1 - (lam_t/lam_i)^a) / sigma_i] U' K[nys, b] g,

nys a subsample and sigma_i, u_i the top eigenvalues and vectors of its kernel matrix: along these directions the second
part takes back most of the first, so that gamma can be as large as the rest of the spectrum allows.

Rules of this file:

- the arithmetic of an update stands once, in `KernelRule._update`;
- everything "auto" is chosen before the run, from a seeded subsample and the memory, and saved with the rule as numbers;
- an order of rows is a function of seed and epoch, so whoever asks gets the same one and none is sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal
from weakref import WeakKeyDictionary

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem
from tardigrad.core.steps import check_step, step_shape
from tardigrad.core.streams import Domain, Rng, Stream
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, number
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

    sources: ClassVar[Mapping[str, str]] = {
        "n_subsample": "theory: by rows and memory, at most the rows of a client (theory.eigenpro.n_subsample)",
        "n_damped": "measured: where the eigenvalues of a subsample allow the largest batch (theory.eigenpro.n_damped)",
        "batch_size": "measured: critical batch of a subsample's eigenvalues, shared by the batches in flight",
        "n_rows": "measured: rows of the data",
        "n_outputs": "measured: targets of the data",
    }

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
        beta = kept.made.beta_of(along, problem.diagonal(rows, client) if diagonal is None else diagonal)
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
