"""`tardigrad.linsolve`: consistent linear systems by randomized row and block steps, with SciPy's habits.

Rules of this file:

- it checks arguments; how a system is solved is `linear_stages`'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tardigrad.core.engine import Engine
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.streams import check_seed
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, number
from tardigrad.core.worker import single_threaded_blas
from tardigrad.problems.linear_system import LinearSystem
from tardigrad.problems.sketches import Sketch
from tardigrad.solvers.linear_choice import relaxation
from tardigrad.solvers.linear_result import LinearResult
from tardigrad.solvers.linear_stages import Solve

#: limit of passes where the user gives none
MAX_PASSES = 200.0


def linsolve(
    A: Any,
    b: Any,
    *,
    method: str = "auto",
    sketch: Sketch | str = "auto",
    workers: int = 4,
    engine: Engine | str = "threads",
    omega: float | str = "auto",
    theta: float | str = "auto",
    B: Any = None,
    x0: Array | None = None,
    tol: float = 1e-6,
    max_passes: float | None = None,
    seed: int = 0,
    callback: Callable[[Array], object] | None = None,
) -> LinearResult:
    """Solve the consistent linear system ``A x = b`` by randomized projections on several workers.

    Of all solutions it finds the one nearest to x0 in the norm of B: for x0 = 0 and B = None that of least norm.

    Parameters
    ----------
    A : array, sparse matrix, numpy.memmap or path of a .npy file, (m, n)
        The matrix. A file may be larger than memory.
    b : array (m,)
        The right-hand side.
    method : {"auto", "basic", "parallel", "accelerated", "averaged", "row-action"}
        "row-action": delayed row steps (`RowAction`), lock-free on threads. "basic": one block after another
        (`SketchProject`). "parallel": rounds of one block for each worker. "averaged": the asynchronous method of Sahu et al.
        "accelerated": extrapolates. "auto" chooses from the shape, sparsity and a few rows.
    sketch : "auto" or Sketch
        Which equations a step looks at.
    workers : int
        Threads or processes; there may be more than rows. An engine that has a number of its own keeps it.
    engine : {"threads", "processes", "ray"} or Engine
        Where the workers are. "basic" and "accelerated" take one block at a time: with "threads" that is done by the calling
        thread, and the seconds in the result's trace are virtual, one a block.
    omega, theta : "auto" or float
        Relaxation and damping (of "averaged"); "auto" takes what theory gives.
    B : array (n,) or (n, n), optional
        Metric of the projections: a positive diagonal or a symmetric positive definite matrix.
    x0 : array (n,), optional
        The start, zero by default.
    tol : float
        Relative residual ``|b - A x| / |b|`` at which the system counts as solved. Below 20 units in the last place of A's
        type (2.4e-6 in float32, 4.4e-15 in float64) it is raised to that, and the message says so.
    max_passes : float, optional
        Limit of rows read by steps, in passes over A; 200 by default.
    seed : int
        All random numbers follow from it.
    callback : callable, optional
        Called with x now and then.

    Returns
    -------
    LinearResult
        With ``x``, ``status``, ``message``, ``residual_norm``, ``passes``, and what was chosen. The status is

        - CONVERGED: the residual at x is at most tol;
        - INCONSISTENT: no x solves it; x is the best that was seen, use `scipy.sparse.linalg.lsqr` for least squares;
        - PRECISION: A's number format allows no smaller residual;
        - MAX_PASSES: the limit was reached; the message says what else to try;
        - DIVERGED, INTERRUPTED: as for `tardigrad.run`.

    Raises
    ------
    InvalidInputError
        If an argument has a wrong shape or value, or an entry of A is not finite.

    Notes
    -----
    Where short sparse rows are more than the unknowns and yet leave several solutions, threads of "row-action" write to one x
    and may lose a write that another thread makes to the same entry at the same time: x still solves the system, but is the
    nearest solution only up to such writes, by up to 1 % of its length. With workers=1 nothing is lost, nor with other methods.

    Well-conditioned sparse systems, high accuracy on ill-conditioned ones, and systems small enough for Cholesky are better
    solved by SciPy: see the page on sketch-and-project methods.

    References
    ----------
    Sahu, Dutta, Tiwari, Richtarik, "On the convergence analysis of asynchronous SGD for solving consistent linear systems".

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> A = np.random.default_rng(0).normal(size=(2000, 50))
    >>> found = td.linsolve(A, A @ np.ones(50))
    >>> found.status.value, found.method, bool(np.allclose(found.x, 1.0, atol=1e-5))
    ('converged', 'row-action', True)
    """
    workers = integer(workers, "workers")
    tol = number(tol, "tol", above=0)
    most = MAX_PASSES if max_passes is None else number(max_passes, "max_passes", above=0)
    asked = relaxation(omega, "omega"), relaxation(theta, "theta")
    if callback is not None and not callable(callback):
        raise InvalidInputError(f"callback must be a function of x, not {callback!r}")
    if asked[1] is not None and method != "averaged":
        raise InvalidInputError(f"theta is a parameter of method='averaged', not of {method!r}: leave it out")
    if isinstance(engine, Engine):
        workers = getattr(engine, "workers", None) or workers
    seed = check_seed(seed)
    with single_threaded_blas():  # threads of BLAS spin on after a call, and would take the cores from the workers
        system = LinearSystem(A, b, B, n_clients=workers)
        return Solve(system, method, sketch, engine, tol, asked, seed, callback).go(x0, most)
