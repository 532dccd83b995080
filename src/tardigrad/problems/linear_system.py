"""Consistent linear systems as stochastic problems, for sketch-and-project methods.

``A x = b`` is the minimisation of ``E f_S(x)``, ``f_S(x) = 1/2 |A x - b|^2_H`` with ``H = S (S'A B^-1 A'S)^+ S'``
(Richtarik and Takac, "Stochastic reformulations of linear systems", SIMAX 2020). Rules of this file:

- making a system costs no pass over a dense matrix: solving one can take no more than 1.5 of them;
- the matrix is only read; what is computed from it on the way (permutations, factors) is not part of the problem;
- numbers are computed in the precision of A.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem, fingerprint_of
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, number
from tardigrad.problems.matrix_file import MatrixFile
from tardigrad.problems.metric import Metric
from tardigrad.problems.residuals import Residuals
from tardigrad.problems.sketches import Rows, Sketch, Steps
from tardigrad.problems.system_matrix import Passes, as_matrix, first_nonfinite, row_sizes

if TYPE_CHECKING:
    from tardigrad.problems.spectrum import RowCoherence, Spectrum


class LinearSystem(Problem):
    """The consistent system ``A x = b``; its stochastic gradients are projections onto some of its equations.

    Parameters
    ----------
    A : array, sparse matrix, numpy.memmap or path of a .npy file, (n_rows, dim)
        The matrix, dense or sparse (kept as CSR). float32 and float64 are computed in their own precision, integers
        become float64. A file is used where it lies, however large: it is sent to worker processes, and saved with a
        run, by its path.
    b : array (n_rows,)
        The right-hand side.
    B : array (dim,) or (dim, dim), optional
        The metric in which steps project: a positive diagonal, or a symmetric positive definite matrix; by default the
        identity.
    sketch : Sketch, optional
        Which equations a step looks at: `Rows` (the default), `RowBlocks`, `GaussianSketch` or `CountSketch`.
    n_clients : int
        Number of workers that share the system; there may be more of them than rows.
    solution : array (dim,), optional
        The solution, for the measure "error".
    tol : float
        Relative residual above which the measure "checked_residual" need not be exact.

    Attributes
    ----------
    n_rows, dim : int
        Equations and unknowns.
    is_file : bool
        Whether A is a memory-mapped file.

    Raises
    ------
    InvalidInputError
        If an argument has a wrong shape or type, b is not finite, or B not symmetric positive definite. Entries of A
        are not looked through: ask `explain_nonfinite` where something turned out not to be finite.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> A = np.random.default_rng(0).normal(size=(40, 3))
    >>> system = LinearSystem(A, A @ [1.0, 2.0, 3.0], n_clients=4)
    >>> result = td.run(td.AsyncSGD(step=1.0), system, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(1000))
    >>> result.x.round(6)
    array([1., 2., 3.])
    """

    shared_data = True

    def __init__(
        self,
        A: Any,
        b: Any,
        B: Any = None,
        *,
        sketch: Sketch | None = None,
        n_clients: int = 1,
        solution: Any = None,
        tol: float = 1e-6,
    ) -> None:
        self.A = as_matrix(A)
        self.is_file = isinstance(self.A, np.memmap)
        self.n_rows, self.dim = (int(n) for n in self.A.shape)
        self.dtype = self.A.dtype
        self.b = as_vector(b, "b", self.n_rows, "equation", self.dtype)
        self.metric = Metric(B, self.dim, self.dtype)
        self.B = self.metric.B
        self.sketch = Rows() if sketch is None else sketch
        if not isinstance(self.sketch, Sketch):
            raise InvalidInputError(f"sketch must be one such as Rows() or RowBlocks(64), not {sketch!r}")
        self.n_clients = integer(n_clients, "n_clients")
        self.solution = None if solution is None else as_vector(solution, "solution", self.dim, "unknown", self.dtype)
        self.tol = number(tol, "tol", above=0)
        self._set_up()

    def _set_up(self) -> None:
        """What is not part of the problem."""
        self.passes = Passes(self.A)
        this = weakref.proxy(self)  # no cycle: a file is closed as soon as nobody has the system any more
        self._residuals = Residuals(this)
        self._steps: Steps = self.sketch.bind(this)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name != "passes" and not name.startswith("_")}
        if self.is_file:
            state["A"] = MatrixFile.of(self.A)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if isinstance(self.A, MatrixFile):
            self.A = self.A.open()
        self._set_up()

    def fields(self) -> dict[str, Any]:
        names = ("A", "b", "B", "sketch", "n_clients", "solution", "tol")
        values = {name: getattr(self, name) for name in names}
        if self.is_file:  # saved by its path, with a hash of some places by which it is known again
            values["A"] = MatrixFile.of(self.A).marked()
        return values

    def fingerprint(self) -> str:
        if not self.is_file:
            return super().fingerprint()
        values = self.fields()
        return fingerprint_of({**values, "A": values["A"].digest})  # where the file lies does not matter

    def with_sketch(self, sketch: Sketch, tol: float) -> LinearSystem:
        """The same system with another sketch and tolerance; A is shared."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.sketch, other.tol = sketch, number(tol, "tol", above=0)
        other._set_up()
        return other

    def sample(self, client: int, rng: Rng) -> Any:
        return self._steps.sample(rng)

    def rows_at(self, seed: int, start: int, stop: int) -> Array:
        """What `sample` gives for the tasks ``start..stop-1`` of a run with this seed, at once."""
        return self._steps.rows_at(seed, start, stop)

    def gradient(self, client: int, x: Array, sample: Any = None) -> Array:
        """``B^-1 A'S (S'A B^-1 A'S)^+ S'(A x - b)`` at x (..., dim); its expectation where `sample` is None."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is the caller's to judge
            return self._steps.expected(x) if sample is None else self._steps.gradient(x, sample)

    def solve_B(self, v: Array) -> Array:  # noqa: N802 (the paper's letter)
        """``B^-1 v`` for v (..., dim); `v` itself where B is the identity."""
        return self.metric.solve(v)

    def measures(self, x: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """``residual``, ``checked_residual`` and, with a known solution, ``error``.

        ``residual`` is ``|b - A x| / |b|`` (``|A x|`` where b is zero). ``checked_residual`` is estimated from 128
        equations while that is above 1.5 `tol`, and exact below: for stopping at `tol`. ``error`` is
        ``|x - solution|_B / |solution|_B``.
        """
        table = {"residual": self.residual, "checked_residual": self.checked_residual}
        if self.solution is not None:
            table["error"] = self._error
        return {name: np.asarray(compute(x)) for name, compute in table.items() if names is None or name in names}

    def residual(self, x: Array) -> Array:
        """The relative residual at x (..., dim), one pass over A.

        In float32 it cannot come below about 1e-7 times ``|A| |x| / |b|``: ask for 1e-5 there, 1e-6 at best.
        """
        return self._residuals.exact(x)

    def estimated_residual(self, x: Array, n_sample: int, seed: int = 0) -> Array:
        """The relative residual at x (..., dim) from `n_sample` seeded equations; its square is unbiased."""
        return self._residuals.estimate(x, n_sample, seed)

    def checked_residual(self, x: Array) -> Array:
        """The relative residual, estimated where it is clearly above `tol` and exact elsewhere."""
        return self._residuals.checked(x, self.tol)

    def spectrum(self, exact: bool | None = None, *, seed: int = 0, steps: int = 100, n_sketches: int = 400) -> Spectrum:
        """The ends of the spectrum of ``W = B^-1/2 E[Z] B^-1/2`` (see `Spectrum` for what holds of them).

        Parameters
        ----------
        exact : bool, optional
            Compute all eigenvalues (by singular values, time of order ``n_rows dim min(n_rows, dim)``), or estimate the
            ends by Lanczos steps; by default the former for small systems. For rows and fixed partitions only.
        seed : int
            Of Lanczos' start vector, or of the sketches.
        steps : int
            Lanczos steps: twice as many passes over A.
        n_sketches : int
            Sketches averaged where all cannot be: random blocks, `GaussianSketch`, `CountSketch`.

        Examples
        --------
        >>> import numpy as np
        >>> system = LinearSystem(np.diag([1.0, 2.0, 3.0]), np.ones(3))
        >>> found = system.spectrum()
        >>> round(found.lambda_min, 12), round(found.lambda_max, 12), found.rank, found.exact
        (0.333333333333, 0.333333333333, 3, True)
        """
        from tardigrad.problems.spectrum import spectrum

        return spectrum(self, exact, seed=seed, steps=steps, n_sketches=n_sketches)

    def row_coherence(self, n_sample: int | None = None, seed: int = 0) -> RowCoherence:
        """How alike the rows are, from `n_sample` of them; by default from so few that it costs less than a tenth of a pass."""
        from tardigrad.problems.spectrum import row_coherence

        return row_coherence(self, n_sample, seed)

    def unsolvable_row(self) -> int | None:
        """The first row of zeros whose right-hand side is not zero, None if there is none. Reads A once."""
        suspects = np.flatnonzero(self.b)
        for row in suspects[np.concatenate(self.passes.each(lambda _, A: row_sizes(A)))[suspects] == 0]:
            return int(row)
        return None

    def explain_nonfinite(self) -> str | None:
        """Which entry of A is the first that is not finite, in words; None if all are. Reads A once, up to that entry."""
        found = first_nonfinite(self.A)
        if found is None:
            return None
        row, column, value = found
        return f"A[{row}, {column}] is {value}: remove that equation or fill it in"

    def _error(self, x: Array) -> Array:
        assert self.solution is not None
        start = float(self.metric.norm(self.solution)) or 1.0
        return self.metric.norm(x - self.solution) / start


def as_vector(v: Any, name: str, length: int, of: str, dtype: np.dtype[Any]) -> Array:
    """A finite vector in the system's precision."""
    if sp.issparse(v):
        raise InvalidInputError(f"{name} must be a dense vector: pass {name}.toarray().ravel()")
    try:
        given = np.asarray(v)
        if given.dtype.kind not in "biuf":
            raise TypeError
    except (TypeError, ValueError):
        raise InvalidInputError(f"{name} must hold real numbers, one for each {of}") from None
    if given.shape != (length,):
        column = given.ndim == 2 and given.size == length
        hint = f": pass {name}.ravel()" if column else ""
        raise InvalidInputError(f"{name} must have shape ({length},), a number for each {of}, not {given.shape}{hint}")
    with np.errstate(over="ignore"):
        vector = np.array(given, dtype)
    if not np.isfinite(vector).all():
        i = int(np.argmin(np.isfinite(vector)))
        raise InvalidInputError(f"{name}[{i}] is {given[i]}: {name} must be finite in {dtype}, the type of A")
    vector.flags.writeable = False
    return vector
