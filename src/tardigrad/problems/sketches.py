"""Sketches of a linear system: which combinations of its equations a step looks at.

A step with sketch S projects onto the solutions of ``S'A x = S'b``. Rules of this file:

- a sketch is plain data; what it needs of a system (permutations, tables, factors) is kept by `bind`'s answer;
- what a sample holds is a pure function of the seed and the task's number.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain
from tardigrad.core.streams import Rng, check_seed
from tardigrad.core.task import Array
from tardigrad.core.validate import integer
from tardigrad.problems.row_order import check_order

if TYPE_CHECKING:
    from tardigrad.problems.linear_system import LinearSystem


class Steps(Protocol):
    """What a sketch does on one system."""

    def sample(self, rng: Rng) -> Any:
        """One sketch: a number, or an array with the replicas' axis first."""

    def rows_at(self, seed: int, start: int, stop: int) -> Array:
        """The samples of tasks ``start..stop-1``, one after another."""

    def gradient(self, x: Array, sample: Any) -> Array:
        """``B^-1 A'S (S'A B^-1 A'S)^+ S'(A x - b)``."""

    def expected(self, x: Array, homogeneous: bool = False) -> Array:
        """The expectation of `gradient`; `homogeneous`: for b = 0."""


class Sketch(Plain):
    """Base class of sketches."""

    @abstractmethod
    def bind(self, system: LinearSystem) -> Steps:
        """What the sketch does on a system; an error where it does not fit."""


@dataclass(frozen=True)
class Rows(Sketch):
    """One equation at a time: the method of Kaczmarz.

    Parameters
    ----------
    order : {"shuffled", "uniform", "norms"}
        "shuffled": every row once a pass, each pass in another order; of a matrix in a file, stretches of about 4 MB in
        another order, and the rows within each. "uniform": independent rows, all equally likely. "norms": independent
        rows with probability proportional to ``a_i' B^-1 a_i`` (Strohmer and Vershynin, 2009), which needs one pass over
        the matrix at the first draw.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> system = td.LinearSystem(np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([5.0, 2.0]), sketch=td.Rows("uniform"))
    >>> system.gradient(0, np.zeros(2), 0)
    array([-0.6, -0.8])
    """

    order: str = "shuffled"

    def __post_init__(self) -> None:
        check_order(self.order)

    def bind(self, system: LinearSystem) -> Steps:
        from tardigrad.problems.row_steps import RowSteps

        return RowSteps(system, self.order)


@dataclass(frozen=True)
class RowBlocks(Sketch):
    """Several equations at a time: block Kaczmarz.

    Parameters
    ----------
    size : int
        Equations of a block, at most the rows of the system.
    partition : {"random", "fixed"}
        "random": each block is a new random set of rows. "fixed": the rows are cut once, at random, into blocks of `size`
        rows or one fewer; factors (and rows, up to 1 GiB in all) are kept once computed, so that later passes are
        several times faster.
    order : {"shuffled", "uniform"}
        "shuffled": each pass uses every row (block) once, in another order; of random blocks, rows that do not fill
        one are left out, others in each pass. "uniform": independent blocks, as theory has them.
    seed : int
        Of the fixed partition.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> A = np.random.default_rng(0).normal(size=(6, 3))
    >>> system = td.LinearSystem(A, A @ np.ones(3), sketch=td.RowBlocks(3))
    >>> rows = system.rows_at(0, 0, 1)[0]
    >>> (-system.gradient(0, np.zeros(3), rows)).round(12)
    array([1., 1., 1.])
    """

    size: int
    partition: str = "random"
    order: str = "shuffled"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", integer(self.size, "size"))
        if not isinstance(self.partition, str) or self.partition not in ("random", "fixed"):
            raise InvalidInputError(f"partition must be 'random' or 'fixed', not {self.partition!r}")
        check_order(self.order, ("shuffled", "uniform"))
        object.__setattr__(self, "seed", check_seed(self.seed))

    def bind(self, system: LinearSystem) -> Steps:
        from tardigrad.problems.block_steps import FixedBlocks, RandomBlocks

        if self.size > system.n_rows:
            raise InvalidInputError(f"blocks of {self.size} rows need as many equations: the system has {system.n_rows}")
        return FixedBlocks(system, self) if self.partition == "fixed" else RandomBlocks(system, self)


@dataclass(frozen=True)
class GaussianSketch(Sketch):
    """Combinations of all equations with independent standard normal weights; each step reads the whole matrix.

    Parameters
    ----------
    size : int
        Combinations of a step.

    References
    ----------
    Gower, Richtarik, "Randomized iterative methods for linear systems", SIAM J. Matrix Anal. Appl. 36, 2015, whose Gaussian
    methods these are.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> A = np.random.default_rng(0).normal(size=(20, 3))
    >>> system = td.LinearSystem(A, A @ np.ones(3), sketch=td.GaussianSketch(3))
    >>> x = td.run(td.SketchProject(), system, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(1)).x
    >>> bool(np.allclose(x, 1.0))  # three combinations of equations in three unknowns
    True
    """

    size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", integer(self.size, "size"))

    def bind(self, system: LinearSystem) -> Steps:
        from tardigrad.problems.block_steps import GaussianSteps

        return GaussianSteps(system, self)


@dataclass(frozen=True)
class CountSketch(Sketch):
    """Each equation, with a random sign, is added to one of `size` sums; each step reads the whole matrix.

    Much cheaper to make than Gaussian combinations, and sparse matrices stay nearly as sparse (Clarkson and Woodruff,
    "Low rank approximation and regression in input sparsity time", STOC 2013).

    Parameters
    ----------
    size : int
        Sums.

    References
    ----------
    See above; as sketch-and-project takes any sketch: Gower, Richtarik, SIAM J. Matrix Anal. Appl. 36, 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> A = np.random.default_rng(0).normal(size=(20, 3))
    >>> system = td.LinearSystem(A, A @ np.ones(3), sketch=td.CountSketch(5))
    >>> x = td.run(td.SketchProject(), system, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(1)).x
    >>> bool(np.allclose(x, 1.0))
    True
    """

    size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", integer(self.size, "size"))

    def bind(self, system: LinearSystem) -> Steps:
        from tardigrad.problems.block_steps import CountSteps

        return CountSteps(system, self)
