"""Sketches of a linear system: which combinations of its equations a step looks at.

A step with sketch S projects onto the solutions of ``S'A x = S'b``. Rules of this file:

- a sketch is plain data; what it needs of a system (permutations, tables, factors) is kept by `bind`'s answer;
- what a sample holds is a pure function of the seed and the task's number.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tardigrad.core.plain import Plain
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array
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

    def expected(self, x: Array) -> Array:
        """The expectation of `gradient`."""


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
