"""A user's own projection: what it may return, how it is called, and how one that does not project is refused."""

import os
import pickle
import warnings
from dataclasses import dataclass

import cloudpickle
import numpy as np
import pytest

import tardigrad as td
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import encode, same_bits
from tardigrad.problems.convex_set import ConvexSet
from tardigrad.problems.projections import Ball, Box, ProductSet, Simplex, UserSet, as_constraint, check_projection

DIM = 3
Y = np.random.default_rng(1).normal(size=(40, DIM)) * 10.0 ** np.random.default_rng(2).uniform(-2, 3, (40, 1))


def onto_box(y):
    return np.clip(y, 0, 1)


def onto_ball(y):
    """Of vectors alone: of a matrix the norm is one number."""
    norm = np.linalg.norm(y)
    return y if norm <= 1 else y / norm


def onto_halfspace(y):
    """Branches on a number, so it raises for a matrix."""
    excess = y.sum(axis=-1) - 1
    return y - excess / len(y) if excess > 0 else y


class Counting:
    """Remembers the shapes that it is called with."""

    def __init__(self, function):
        self.function, self.shapes = function, []

    def __call__(self, y):
        self.shapes.append(y.shape)
        return self.function(y)


@pytest.mark.parametrize(
    ("function", "same"),
    [
        (onto_box, Box(0.0, 1.0)),
        (onto_ball, Ball(1.0)),
        (lambda y: [min(max(entry, 0.0), 1.0) for entry in y], Box(0.0, 1.0)),
        (lambda y: tuple(onto_box(y)), Box(0.0, 1.0)),
        (lambda y: onto_ball(y)[:], Ball(1.0)),
        (lambda y: np.zeros(y.shape, int), Box(0.0, 0.0)),
        (lambda y: y, Box(-np.inf, np.inf)),
        (Simplex().project, Simplex()),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_function_is_a_set_whatever_it_returns(function, same, dtype):
    constraint = as_constraint(function, DIM)
    y = Y.astype(dtype)
    x = constraint.project(y)
    assert x.dtype == dtype
    assert np.allclose(x, same.project(y), rtol=1e-6 if dtype == np.float32 else 1e-14)
    assert same_bits(constraint.project(y[0]), x[0])
    assert not np.shares_memory(x, y)
    assert not np.shares_memory(constraint.project(y[0]), y)
    out = y.copy()
    assert constraint.project(out, out=out) is out
    assert same_bits(out, x)
    assert constraint.project(y.reshape(4, 5, 2, DIM)).shape == (4, 5, 2, DIM)


def test_a_function_of_less_precision_passes():
    constraint = as_constraint(lambda y: np.clip(y.astype(np.float32), 0, 1), DIM)
    assert constraint.project(Y).dtype == np.float64
    assert np.allclose(constraint.project(Y), np.clip(Y, 0, 1), rtol=1e-6)


@pytest.mark.parametrize("constraint", [Ball(1.0), Simplex(), Box(0.0, 1.0), Ball(0.1, 5.0)])
def test_a_projection_of_five_digits_passes(constraint):
    rng = np.random.default_rng(0)
    as_constraint(lambda y: constraint.project(y) * (1 + 1e-5 * rng.uniform(-1, 1, y.shape)), DIM)


def test_an_iterative_projection_passes():
    """Dykstra's method for a ball and a halfspace, 100 rounds."""

    def project(y):
        x, p, q = y, np.zeros_like(y), np.zeros_like(y)
        for _ in range(100):
            z = onto_ball(x + p)
            p, x = x + p - z, onto_halfspace(z + q)
            q = z + q - x
        return x

    as_constraint(project, DIM)


def test_a_buffer_that_is_used_again_is_copied():
    buffer = np.empty(DIM)
    constraint = as_constraint(lambda y: np.clip(y, 0, 1, out=buffer) if y.ndim == 1 else [], DIM)
    first = constraint.project(Y[0])
    kept = first.copy()
    constraint.project(Y[1])
    assert same_bits(first, kept)
    assert np.array_equal(constraint.project(Y), np.clip(Y, 0, 1))


def test_a_function_of_rows_is_called_once_for_all():
    function = Counting(onto_box)
    constraint = as_constraint(function, DIM)
    function.shapes.clear()
    constraint.project(Y)
    constraint.project(Y.reshape(5, 8, DIM))
    constraint.project(Y[0])
    assert function.shapes == [(40, DIM), (40, DIM), (DIM,)]


@pytest.mark.parametrize("function", [onto_ball, onto_halfspace, lambda y: np.clip(y, 0, 1) if y.ndim == 1 else y * np.nan])
def test_a_function_of_vectors_is_called_for_each_row(function):
    counting = Counting(function)
    constraint = as_constraint(counting, DIM)
    counting.shapes.clear()
    x = constraint.project(Y)
    assert counting.shapes == [(DIM,)] * 40
    assert same_bits(x, np.stack([function(y) for y in Y]))


def test_a_function_that_changes_rows_in_place_is_given_vectors():
    def project(y):
        x = np.clip(y, 0, 1)
        if y.ndim > 1:
            y *= 2
        return x

    constraint, y = as_constraint(project, DIM), Y.copy()
    assert np.array_equal(constraint.project(y), np.clip(Y, 0, 1))
    assert same_bits(y, Y)


@pytest.mark.parametrize("dim", [2, 3, 5, 13])
def test_a_matrix_product_from_the_left_is_not_taken_for_one_of_rows(dim):
    """P y of a matrix of points is another thing than P of each, and has the same shape where they are as many."""
    projector = np.eye(dim) - np.outer(*2 * [np.arange(1.0, dim + 1)]) / np.sum(np.arange(1.0, dim + 1) ** 2)
    constraint = as_constraint(lambda y: projector @ y, dim)
    y = np.random.default_rng(0).normal(size=(dim, dim))
    assert np.allclose(constraint.project(y), y @ projector, atol=1e-14)


def test_an_unchecked_function_is_called_row_by_row():
    assert np.allclose(UserSet(onto_ball).project(Y), Ball(1.0).project(Y), rtol=1e-14)


def test_it_is_checked_once_for_each_dimension():
    function = Counting(onto_box)
    constraint = UserSet(function)
    constraint.check(3)
    calls = len(function.shapes)
    assert 20 < calls < 120
    constraint.check(3)
    as_constraint(constraint, 3)
    assert len(function.shapes) == calls
    constraint.check(5)
    assert len(function.shapes) == 2 * calls


def test_rows_that_are_not_finite_are_not_shown_to_it():
    def project(y):
        assert np.isfinite(y).all()
        return np.clip(y, 0, 1)

    constraint = as_constraint(project, DIM)
    y = Y.copy()
    y[3, 1], y[5] = np.nan, np.inf
    x = constraint.project(y)
    assert np.isnan(x[[3, 5]]).all()
    good = np.delete(np.arange(40), [3, 5])
    assert same_bits(x[good], np.clip(Y[good], 0, 1))
    assert np.isnan(constraint.project(y[3])).all()
    assert np.isnan(constraint.project(y[[3, 5]])).all()
    assert constraint.project(y, out=y) is y
    assert same_bits(y, x)


def test_whether_it_is_bounded_is_told():
    assert not UserSet(onto_box).bounded
    assert UserSet(onto_box, bounded=True).bounded
    assert UserSet(onto_box, bounded=True).diameter(3) == np.inf
    with pytest.raises(InvalidInputError, match="bounded must be True or False, not None"):
        UserSet(onto_box, bounded=None)


def test_samples_are_projected_points():
    x = as_constraint(onto_ball, DIM).sample(np.random.default_rng(0), (200,), DIM)
    assert Ball(1.0).contains(x).all()
    lengths = np.linalg.norm(x, axis=1)
    assert 50 < (lengths > 1 - 1e-12).sum() < 190


def test_it_is_known_by_its_function():
    assert UserSet(onto_box) == UserSet(onto_box)
    assert hash(UserSet(onto_box)) == hash(UserSet(onto_box))
    assert UserSet(onto_box) != UserSet(onto_ball)
    assert UserSet(onto_box) != UserSet(onto_box, bounded=True)
    assert UserSet(onto_box) != Box(0.0, 1.0)
    assert Box(0.0, 1.0) != UserSet(onto_box)
    assert repr(UserSet(onto_box)) == "UserSet(onto_box)"
    assert repr(UserSet(Counting(onto_box))).startswith("UserSet(<")


@pytest.mark.parametrize("function", [onto_ball, lambda y: np.clip(y, 0, 1)])
def test_it_goes_to_other_processes(function):
    constraint = as_constraint(function, DIM)
    back = cloudpickle.loads(cloudpickle.dumps(constraint))
    assert same_bits(back.project(Y), constraint.project(Y))
    product = ProductSet([UserSet(function), Ball(1.0)], [DIM, 1])
    assert cloudpickle.loads(cloudpickle.dumps(product)).project(np.ones(4)).shape == (4,)
    assert pickle.loads(pickle.dumps(UserSet(onto_ball))) == UserSet(onto_ball)


@pytest.mark.parametrize("constraint", [UserSet(onto_box), ProductSet([UserSet(onto_box), Ball(1.0)], [2, 1])])
def test_it_cannot_be_saved_and_says_what_can(constraint):
    with pytest.raises(
        TypeError, match=r"^UserSet\(onto_box\) holds a function, which is not plain data: write the set as a subclass of"
    ):
        encode(constraint, {})


def test_a_run_with_it_says_when_it_cannot_be_saved(small_problem, tmp_path):
    @dataclass(frozen=True)
    class Constrained(td.AsyncSGD):
        constraint: object = None

    result = td.run(
        Constrained(0.1, constraint=UserSet(onto_box)), small_problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(3)
    )
    with pytest.raises(td.RunFileError, match=r"this run cannot be saved: UserSet\(onto_box\) holds a function"):
        result.save(tmp_path / "run")
    assert not os.path.exists(tmp_path / "run" / "run.json")


# --- functions that do not project


def in_place(y):
    np.clip(y, 0, 1, out=y)
    return y


def in_place_rarely(y):
    if np.abs(y).max() > 1e3:
        y[0] = 0
        return np.clip(y, 0, 1)
    return np.clip(y, 0, 1)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda y: y / 2,
            r"^UserSet\(<lambda>\) is not a projection: it is not idempotent: y = \[.*\] is projected to x = \[.*\],",
        ),
        (lambda y: y + 1, r"not idempotent: .* and x again to \[.*\], 1.7 away: a point of the set must be returned as it is$"),
        (
            lambda y: np.where(np.arange(3) < 1, y[0] + 3 * y[1], 0 * y),
            r"not non-expansive: two points .* apart, y = \[.*\] and \[.*\], are projected to points .*: is the set convex",
        ),
        (np.round, "is not non-expansive"),
        (lambda y: y / np.linalg.norm(y) if y.any() else np.eye(3)[0], "is not non-expansive|does not give the nearest point"),
        (
            np.abs,
            r"it does not give the nearest point: y = \[.*\] is projected to x = \[.*\], but points between x and \[.*\], which"
            r" is projected to itself, are nearer to y: is the set convex, and is distance measured in the Euclidean norm\?",
        ),
        (in_place, r"it changed its argument in place, y = \[.*\] to \[.*\]: work on a copy: y = y.copy\(\)$"),
        (in_place_rarely, "it changed its argument in place"),
        (lambda y: y * np.nan, r"it gave \[nan, nan, nan\] for y = \[0, 0, 0\]: a projection is finite everywhere"),
        (lambda y: np.where(y > 5, np.inf, y), r"it gave \[.*inf.*\] for y = "),
        (
            lambda y: y[:2],
            r"must return the projected point, real numbers of shape \(3,\) like .* not float64 of shape \(2,\)$",
        ),
        (lambda y: y[:, None], r"not float64 of shape \(3, 1\)"),
        (lambda y: float(y.sum()), r"not float64 of shape \(\)"),
        (lambda y: y + 0j, r"not complex128 of shape \(3,\)"),
        (lambda y: None, r"not None$"),
        (lambda y: "x", r"not <U1 of shape \(\)"),
        (lambda y: [[1], [1, 2]], r"not list \[\[1\], \[1, 2\]\]"),
        (lambda y: {"x": y}, r"not dict \{'x'"),
        (lambda y: 1 // 0, r"it raised ZeroDivisionError: .*, for y = \[0, 0, 0\]$"),
        (lambda x, y: x, r"it raised TypeError: .* missing 1 required positional argument"),
        (lambda y: y / np.linalg.norm(y), r"is not a projection: it (gave \[nan, nan, nan\]|raised RuntimeWarning)"),
    ],
)
def test_a_function_that_does_not_project_is_refused(function, message):
    with pytest.raises(InvalidInputError, match=message):
        as_constraint(function, 3)
    with pytest.raises(InvalidInputError, match=message):
        check_projection(UserSet(function), 3, np.random.default_rng(7))


def test_a_cause_is_kept():
    with pytest.raises(InvalidInputError) as caught:
        as_constraint(lambda y: 1 // 0, 3)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_later_wrong_shape_is_seen():
    constraint = as_constraint(lambda y: y if np.abs(y).max() < 1e8 else y[:1], 3)
    with pytest.raises(
        InvalidInputError, match=r"real numbers of shape \(3,\) like the point given, not float64 of shape \(1,\)"
    ):
        constraint.project(np.full(3, 1e9))


@pytest.mark.parametrize("dim", [1, 2, 101, 1000])
@pytest.mark.parametrize("size", [1e-12, 1e-3, 1.0, 1e3, 1e9])
def test_proper_projections_of_any_size_pass(dim, size):
    center = size * 10 * np.random.default_rng(3).normal(size=dim)
    for constraint in (Ball(size, center), Box(center - size, center + size), Simplex(size)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            as_constraint(lambda y, constraint=constraint: constraint.project(y), dim)


@pytest.mark.parametrize("value", [3, None, "x"])
def test_what_is_no_function_is_no_user_set(value):
    with pytest.raises(InvalidInputError, match=f"project must be a function that takes a point .*, not {value!r}"):
        UserSet(value)


# --- sets that users derive from ConvexSet


@dataclass(frozen=True, eq=False)
class Own(ConvexSet):
    """A set whose projection has a fault, where one is named."""

    fault: str = ""

    def project(self, y, out=None):
        x = np.clip(y, 0, 1)
        if y.ndim > 1 and self.fault == "rows":
            x[0] = x[-1]
        if y.ndim > 1 and self.fault == "shape":
            x = x[:1]
        if y.ndim > 1 and self.fault == "in place":
            y[1] = 0
        if y.ndim == 1 and self.fault == "vector":
            return x[None]
        return x

    def check(self, dim):
        pass

    def sample(self, rng, shape, dim):
        return rng.random((*shape, dim))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "rows",
            r"Own\(fault='rows'\) is not .*: points in an array \(5, 3\) are not projected as each of them alone: work on",
        ),
        ("shape", r"it gave shape \(1, 3\) for y of shape \(5, 3\): work on the last axis"),
        ("in place", r"it changed its argument in place, one of shape \(5, 3\): work on a copy"),
        ("vector", r"it gave shape \(1, 3\) for y of shape \(3,\): return the projected point"),
    ],
)
def test_faults_of_rows_are_seen(fault, message):
    check_projection(Own(), 3, np.random.default_rng(0))
    with pytest.raises(InvalidInputError, match=message):
        check_projection(Own(fault), 3, np.random.default_rng(0))


def test_an_own_set_has_neither_bound_nor_diameter_unless_it_says_so():
    assert not Own().bounded
    assert Own().diameter(3) == np.inf
    assert Own("rows") == Own("rows") != Own()


def test_a_long_description_is_cut():
    with pytest.raises(InvalidInputError, match=r"^Long\(fault='x+\.\.\. is not a projection"):
        check_projection(Long("x" * 200), 3, np.random.default_rng(0))


class Long(Own):
    def project(self, y, out=None):
        return y / 2
