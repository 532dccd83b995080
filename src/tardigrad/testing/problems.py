"""Checks for problems, ours and yours: `check_problem`.

Rules of this file:

- oracles are called as the worker's half calls them: with samples drawn from streams, under one BLAS thread;
- a failure is an `AssertionError` that names the contract, the client, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cloudpickle
import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import Plain, same_bits
from tardigrad.core.problem import Problem
from tardigrad.core.streams import Domain, Stream
from tardigrad.core.task import Array
from tardigrad.core.worker import single_threaded_blas
from tardigrad.testing.plain_copies import round_trip

#: clients that are tried, samples that are averaged, directions of finite differences
_CLIENTS, _SAMPLES, _DIRECTIONS = 4, 200, 5


def check_problem(problem: Problem, *, objective: str | None = "loss", spread: float = 1.0, seed: int = 0) -> None:
    """Check that a problem keeps its contract.

    It checks that: sizes, types and weights are as they must be; gradients have the shape and type of the iterates, also for
    iterates with leading axes, whose rows are what each would be alone; oracles are pure: the same sample gives the same
    bits, at several points and again, points are left alone, and a gradient that the caller overwrites harms nothing; a
    sample depends on its stream alone; the mean of many stochastic gradients is the exact one; measures have a value
    for each iterate, and come by name; gradients are those of the objective, by central differences; the constants hold between
    random points; and a copy, as workers get it and as it is read back from a file, is the same problem.

    Parameters
    ----------
    problem : Problem
        A small problem with a few clients. One without exact gradients, or that is not plain data, is spared the checks
        that need them.
    objective : str, optional
        The measure whose gradient the weighted sum of the clients' gradients is; not compared where the problem has
        no such measure, or for None.
    spread : float
        Points are normal around ``problem.x0()`` with this standard deviation.
    seed : int
        Of points, directions and samples.

    Raises
    ------
    AssertionError
        Naming the contract that is broken.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> check_problem(td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4), batch=1))
    """
    with single_threaded_blas():
        _check_sizes(problem)
        check = _Check(problem, spread, seed)
        for client in check.clients:
            check.purity(client)
            check.batches(client)
            check.unbiased(client)
        check.measures()
        if objective is not None and check.exact:
            check.slopes(objective)
        if type(problem).constants is not Problem.constants and check.exact:
            check.constants()
        check.copies()


def _check_sizes(problem: Problem) -> None:
    for name in ("n_clients", "dim"):
        value = getattr(problem, name, None)
        good = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 1
        assert good, f"{name} must be an integer >= 1, not {value!r}: set it in __init__"
    dtype = problem.dtype
    assert isinstance(dtype, np.dtype), f"dtype must be a numpy.dtype, not {dtype!r}: np.dtype(...) makes one"
    assert dtype.kind == "f", f"dtype must be a type of floating-point numbers, not {dtype}"
    start = problem.x0()
    shape = (problem.dim,)
    assert start.shape == shape, f"x0() must have shape {shape}, (dim,), not {start.shape}"
    assert start.dtype == dtype, f"x0() is of {start.dtype}, iterates are of {dtype} by the attribute dtype"
    assert np.isfinite(start).all(), "x0() must be finite"
    kept = start.copy()
    start[...] = np.nan
    assert same_bits(kept, problem.x0()), "x0() must return a new array every time: a run writes to it"
    weights = [problem.weight(client) for client in range(problem.n_clients)]
    assert min(weights) >= 0, f"weights must not be negative; client {int(np.argmin(weights))} has {min(weights):g}"
    total = float(np.sum(weights))
    assert abs(total - 1) < 1e-6, f"the clients' weights must add up to 1, not {total:g}: scale(client) is n_clients * weight"
    equal = np.ptp(weights) < 1e-9
    assert equal or not problem.equal_weights, "weights differ: set equal_weights = False"


class _Check:
    """The checks of one problem, and the points that they are made at."""

    def __init__(self, problem: Problem, spread: float, seed: int) -> None:
        self.problem = problem
        self.clients = sorted({round(i) for i in np.linspace(0, problem.n_clients - 1, min(problem.n_clients, _CLIENTS))})
        self.seed = seed
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(6, problem.dim)) * spread
        self.points = (problem.x0() + noise).astype(problem.dtype)
        self.directions = rng.normal(size=(_DIRECTIONS, problem.dim))
        self.eps = float(np.finfo(problem.dtype).eps)
        self.exact = self._has_exact()

    def _has_exact(self) -> bool:
        try:
            self.problem.gradient(0, self.points[0], None)
        except InvalidInputError:
            return False
        return True

    def sample(self, client: int, index: int, replicas: int | None = None) -> Any:
        """A sample as a worker draws it for a task."""
        return self.problem.sample(client, Stream(self.seed, Domain.TASK, replicas).at(index))

    def samples(self, client: int) -> Iterator[tuple[str, Any]]:
        """A stochastic sample and, where there is one, the exact one."""
        yield f"gradient of client {client} on a sample", self.sample(client, 3)
        if self.exact:
            yield f"exact gradient of client {client}", None

    def purity(self, client: int) -> None:
        problem, (x, y) = self.problem, self.points[:2]
        for what, sample in self.samples(client):
            kept = x.copy()
            found = problem.gradient(client, x, sample)
            good = isinstance(found, np.ndarray) and found.shape == x.shape
            assert good, f"{what} must be an array {x.shape}, as x is, not {getattr(found, 'shape', found)!r}"
            assert found.dtype == x.dtype, f"{what} is of {found.dtype}, the problem's dtype is {x.dtype}: use .astype(x.dtype)"
            assert np.isfinite(found).all(), f"{what} is not finite at a point near x0"
            assert same_bits(x, kept), f"{what} changed the point x: write to arrays of your own"
            first = found.copy()
            found[...] = np.nan
            assert same_bits(x, kept), f"{what} is the memory of x itself: return a new array"
            problem.gradient(client, y, sample)
            again = problem.gradient(client, x, sample)
            assert same_bits(again, first), (
                f"{what} is not pure: the same point gave other bits the second time, after the first answer was overwritten"
                " and another point was asked for"
            )
            several = problem.gradients(client, (x, y), sample)
            alone = tuple(problem.gradient(client, point, sample).copy() for point in (x, y))
            assert same_bits(tuple(several), alone), f"gradients() must give what gradient() gives at each point ({what})"
        redrawn = problem.gradient(client, x, self.sample(client, 3))
        self.sample(client, 4)
        drawn = problem.gradient(client, x, self.sample(client, 3))
        assert same_bits(redrawn, drawn), (
            f"two samples of client {client} from the same stream give different gradients: draw from the rng that sample() is"
            " given, and from nothing else"
        )

    def batches(self, client: int) -> None:
        for what, sample in self.samples(client):
            rows = [self.problem.gradient(client, x, sample) for x in self.points]
            for lead in ((6,), (2, 3), (1, 6, 1)):
                x = self.points.reshape(*lead, -1)
                found = self.problem.gradient(client, x, sample)
                self._compare(found, np.stack(rows).reshape(x.shape), f"{what} at iterates with leading axes {lead}")
        stream = self.sample(client, 3, replicas=3)
        for lead in ((3,), (3, 2)):
            x = self.points[: int(np.prod(lead))].reshape(*lead, -1)
            found = self.problem.gradient(client, x, stream)
            what = f"gradient of client {client} at iterates {x.shape} on a sample of 3 replicas"
            good = found.shape == x.shape and np.isfinite(found).all()
            assert good, f"{what} must be finite, of the shape of x, not {found.shape}: see tardigrad.core.streams.noise_shape"

    def _compare(self, found: Array, expected: Array, what: str) -> None:
        assert found.shape == expected.shape, f"{what} must have shape {expected.shape}, not {found.shape}: write (..., dim)"
        apart = float(np.abs(found - expected).max())
        bound = np.sqrt(self.eps) * float(np.abs(expected).max()) + np.sqrt(np.finfo(float).tiny)
        assert apart <= bound, f"{what} differs by {apart:.3g} from what each iterate gives alone: write to (..., dim)"

    def unbiased(self, client: int) -> None:
        if not self.exact or self.sample(client, 0) is None:
            return
        x = self.points[0]
        drawn = np.stack([self.problem.gradient(client, x, self.sample(client, i)) for i in range(_SAMPLES)]).astype(float)
        exact = self.problem.gradient(client, x, None).astype(float)
        apart = float(np.linalg.norm(drawn.mean(0) - exact))
        # six standard deviations of the mean
        bound = 6 * float(np.sqrt(drawn.var(0).sum() / _SAMPLES)) + np.sqrt(self.eps) * float(np.linalg.norm(exact))
        assert apart <= bound, (
            f"the mean of {_SAMPLES} stochastic gradients of client {client} is {apart:.3g} away from its exact gradient,"
            f" chance allows {bound:.3g}: gradient(client, x, sample) must be right in the mean"
        )

    def measures(self) -> None:
        problem, x = self.problem, self.points.reshape(2, 3, -1)
        kept = x.copy()
        found = problem.measures(x)
        assert same_bits(x, kept), "measures() changed the iterates"
        for name, values in found.items():
            alone = np.array([problem.measures(row)[name] for row in self.points], float).reshape(2, 3)
            self._compare(np.asarray(values, float), alone, f"measure {name!r}")
            asked = problem.measures(x, (name,))
            assert list(asked) == [name], f"measures(x, ({name!r},)) must give this one alone, not {list(asked)}"

    def full_gradient(self, x: Array) -> Array:
        """The weighted sum over all clients."""
        total = np.zeros(self.problem.dim)
        for client in range(self.problem.n_clients):
            total += self.problem.weight(client) * self.problem.gradient(client, x, None).astype(float)
        return total

    def slopes(self, objective: str) -> None:
        """The gradient beside central differences, whose error is of order step^2 and eps / step."""
        problem, x = self.problem, self.points[0]
        if objective not in problem.measures(x):
            return
        gradient = self.full_gradient(x)
        step, tolerance = self.eps ** (1 / 3), 1000 * self.eps ** (2 / 3)
        for direction in self.directions / np.linalg.norm(self.directions, axis=1, keepdims=True):
            ahead, behind = ((x + sign * step * direction).astype(problem.dtype) for sign in (1, -1))
            apart = float((ahead.astype(float) - behind.astype(float)) @ direction)
            values = [float(problem.measures(point, (objective,))[objective]) for point in (ahead, behind)]
            slope, expected = (values[0] - values[1]) / apart, float(gradient @ direction)
            bound = tolerance * (float(np.linalg.norm(gradient)) + abs(values[0]))
            assert abs(slope - expected) <= bound, (
                f"the weighted sum of the clients' gradients is not that of the measure {objective!r}: along a random"
                f" direction it says {expected:.6g}, central differences {slope:.6g}. If the measure is another function,"
                " pass objective=None"
            )

    def constants(self) -> None:
        """L, delta and ell between random points."""
        problem = self.problem
        try:
            known = problem.constants()
        except InvalidInputError:
            return
        for x, y in zip(self.points[:-1], self.points[1:], strict=True):
            distance = float(np.linalg.norm(x - y))
            change = self.full_gradient(x) - self.full_gradient(y)
            seen = {"L": float(np.linalg.norm(change)), "delta": 0.0, "ell": 0.0}
            for client in self.clients:
                at_x, at_y = (problem.scale(client) * problem.gradient(client, at, None).astype(float) for at in (x, y))
                seen["delta"] = max(seen["delta"], float(np.linalg.norm(change - (at_x - at_y))))
                seen["ell"] = max(seen["ell"], float(np.linalg.norm(at_x - at_y)))
            for name, value in seen.items():
                allowed = getattr(known, name) * distance
                slack = 1e3 * self.eps * (1 + float(np.abs(x).max())) * max(known.L, known.ell)
                assert value <= allowed * (1 + 1e-6) + slack, (
                    f"constants().{name} is {getattr(known, name):.6g}, but between two random points it is at least"
                    f" {value / distance:.6g}: see SmoothnessConstants for what it bounds"
                )

    def copies(self) -> None:
        """What workers get, and what is read back from a file."""
        problem = self.problem
        copies = {"sent to workers (by cloudpickle)": cloudpickle.loads(cloudpickle.dumps(problem))}
        try:
            assert problem.fingerprint() == problem.fingerprint(), "fingerprint() must be the same every time"
            copies["saved and read back"] = round_trip(problem)
        except TypeError as error:
            if type(problem).fields is Plain.fields:
                raise AssertionError(f"{error}. Of a problem that cannot be saved, fields() raises a TypeError") from error
        for what, copy in copies.items():
            for client in self.clients:
                pairs = (each.gradient(client, self.points[0], each.sample(client, self._stream())) for each in (problem, copy))
                assert same_bits(*pairs), f"a copy that was {what} has another gradient of client {client}: look at fields()"
        saved = copies.get("saved and read back")
        same = saved is None or saved.fingerprint() == problem.fingerprint()
        assert same, "a copy that was saved and read back has another fingerprint: look at fields()"

    def _stream(self) -> Stream:
        return Stream(self.seed, Domain.TASK).at(5)
