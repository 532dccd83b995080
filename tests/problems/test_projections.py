"""Projections: each is the nearest point, by certificates and by general-purpose solvers, in every layout and size."""

import json
import pickle
from dataclasses import FrozenInstanceError

import cloudpickle
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tardigrad as td
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.plain import decode, encode, same_bits
from tardigrad.problems.projections import (
    AffineSubspace,
    Ball,
    Box,
    L1Ball,
    NuclearNormBall,
    ProductSet,
    Simplex,
    WholeSpace,
    as_constraint,
    check_projection,
)

DIM = 6
RNG = np.random.default_rng(11)
CENTER = RNG.normal(size=DIM)
A = RNG.normal(size=(2, DIM))
DEPENDENT = np.vstack([A, A[0] + A[1], np.zeros(DIM)])
POINT = RNG.normal(size=DIM)

BOUNDED = {
    "box": Box(-1.0, 2.0),
    "box of vectors": Box(-np.arange(6.0), np.array([0.0, 1, 0, 3, 4, 0.5])),
    "ball": Ball(1.5),
    "ball off the origin": Ball(0.7, CENTER),
    "simplex": Simplex(),
    "simplex of total 3": Simplex(3.0),
    "L1 ball": L1Ball(1.5),
    "L1 ball off the origin": L1Ball(0.7, CENTER),
    "nuclear norm ball": NuclearNormBall((2, 3), 1.5),
    "tall nuclear norm ball": NuclearNormBall((3, 2), 0.7),
    "product": ProductSet([Ball(1.0), Simplex(), Box(0.0, 1.0)], [2, 3, 1]),
    "nested product": ProductSet([L1Ball(1.0), ProductSet([Ball(1.0), Simplex(2.0)], [1, 2])], [3, 3]),
    "point": AffineSubspace(np.eye(DIM)[::-1] * 2, 2 * POINT[::-1]),
}
UNBOUNDED = {
    "whole space": WholeSpace(),
    "half-open box": Box([0.0, -np.inf, -np.inf, -1, 2, -np.inf], [np.inf, 0.0, np.inf, 1, 2, -3]),
    "affine subspace": AffineSubspace(A, [1.0, -2.0]),
    "affine subspace of dependent rows": AffineSubspace(DEPENDENT, DEPENDENT @ POINT),
    "affine subspace of no rows": AffineSubspace(np.zeros((0, DIM)), np.zeros(0)),
    "open product": ProductSet([WholeSpace(), Ball(1.0)], [2, 4]),
}
DEGENERATE = {
    "box of a point": Box(0.5, 0.5),
    "ball of radius 0": Ball(0.0),
    "ball of radius 0 off the origin": Ball(0.0, CENTER),
    "L1 ball of radius 0": L1Ball(0.0, 2.0),
    "simplex of total 0": Simplex(0.0),
    "nuclear norm ball of radius 0": NuclearNormBall((2, 3), 0.0),
    "tiny ball": Ball(1e-200),
    "tiny simplex": Simplex(1e-310),
    "tiny L1 ball": L1Ball(1e-250),
    "huge ball": Ball(1e200),
    "huge simplex": Simplex(1e250),
    "huge L1 ball": L1Ball(1e250),
}
SETS = BOUNDED | UNBOUNDED
ALL = SETS | DEGENERATE

each_set = pytest.mark.parametrize("constraint", SETS.values(), ids=SETS)
each_bounded = pytest.mark.parametrize("constraint", BOUNDED.values(), ids=BOUNDED)
every_set = pytest.mark.parametrize("constraint", ALL.values(), ids=ALL)


def points(n=200, dtype=np.float64, dim=DIM, seed=3):
    """Points near and far."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, dim)) * 10.0 ** rng.uniform(-2, 4, (n, 1))).astype(dtype)


def norms(v):
    return np.linalg.norm(v, axis=-1)


def support(constraint, g):
    """The supremum of <g, z> over the set: the other description of a closed convex set, by its formula."""
    if isinstance(constraint, ProductSet):
        parts = np.split(g, np.cumsum(constraint.dims)[:-1], axis=-1)
        return sum(support(factor, part) for factor, part in zip(constraint.sets, parts, strict=True))
    if isinstance(constraint, Box):
        with np.errstate(invalid="ignore"):
            return np.where(g == 0, 0, np.maximum(g * constraint.low, g * constraint.high)).sum(axis=-1)
    if isinstance(constraint, Ball):
        return constraint.radius * norms(g) + (g * constraint.center).sum(axis=-1)
    if isinstance(constraint, Simplex):
        return constraint.total * g.max(axis=-1)
    if isinstance(constraint, L1Ball):
        return constraint.radius * np.abs(g).max(axis=-1) + (g * constraint.center).sum(axis=-1)
    if isinstance(constraint, NuclearNormBall):
        return constraint.radius * np.linalg.norm(g.reshape(*g.shape[:-1], *constraint.shape), 2, axis=(-2, -1))
    if isinstance(constraint, AffineSubspace):
        inverse = np.linalg.pinv(constraint.A, rcond=1e-12) if len(constraint.A) else np.zeros((g.shape[-1], 0))
        along = g - g @ constraint.A.T @ inverse.T
        return np.where(norms(along) <= 1e-12 * norms(g), g @ (inverse @ constraint.b), np.inf)
    assert isinstance(constraint, WholeSpace)
    return np.where(norms(g) == 0, 0, np.inf)


def violation(constraint, x):
    """By how much points (k, dim) break the definition of the set."""
    if isinstance(constraint, ProductSet):
        parts = np.split(x, np.cumsum(constraint.dims)[:-1], axis=-1)
        return np.max([violation(factor, part) for factor, part in zip(constraint.sets, parts, strict=True)], axis=0)
    if isinstance(constraint, Box):
        return np.maximum(constraint.low - x, x - constraint.high).max(axis=-1)
    if isinstance(constraint, Ball):
        return norms(x - constraint.center) - constraint.radius
    if isinstance(constraint, Simplex):
        return np.maximum(np.abs(x.sum(axis=-1) - constraint.total), -x.min(axis=-1))
    if isinstance(constraint, L1Ball):
        return np.abs(x - constraint.center).sum(axis=-1) - constraint.radius
    if isinstance(constraint, NuclearNormBall):
        return np.linalg.norm(x.reshape(*x.shape[:-1], *constraint.shape), "nuc", axis=(-2, -1)) - constraint.radius
    if isinstance(constraint, AffineSubspace):
        return np.abs(x @ constraint.A.T - constraint.b).max(axis=-1, initial=0)
    return np.zeros(len(x))


# --- nearest points


@each_set
@pytest.mark.parametrize(("dtype", "rounding"), [(np.float64, 1e-13), (np.float32, 2e-5)])
def test_the_residual_supports_the_set_at_the_projection(constraint, dtype, rounding):
    """x = P(y) exactly where <y - x, z> over the set is largest at z = x."""
    y = points(dtype=dtype)
    x = constraint.project(y)
    assert x.dtype == dtype
    g = y.astype(float) - x
    g[norms(g) <= rounding * norms(y)] = 0  # what is left of points of the set
    if isinstance(constraint, AffineSubspace):  # a residual that is orthogonal up to rounding only supports no plane
        along = g - g @ constraint.A.T @ np.linalg.pinv(constraint.A, rcond=1e-12).T if len(constraint.A) else g
        assert (norms(along) <= rounding * (1 + norms(y))).all()
        g -= along
    assert (support(constraint, g) - (g * x).sum(axis=-1) <= rounding * norms(g) * (1 + norms(x) + norms(y))).all()
    assert (violation(constraint, x.astype(float)) <= rounding * (1 + norms(x) + norms(y))).all()


@each_set
def test_the_variational_inequality_holds_against_points_of_the_set(constraint):
    y = points()
    x = constraint.project(y)
    z = constraint.sample(np.random.default_rng(5), (300,), DIM)
    products = (y - x) @ z.T - ((y - x) * x).sum(axis=-1)[:, None]
    sizes = norms(y - x)[:, None] * norms(z[None] - x[:, None])
    assert (products <= 1e-9 * sizes + 1e-13 * norms(y)[:, None] * (norms(z) + norms(x)[:, None])).all()


@each_set
def test_it_is_non_expansive(constraint):
    y = points()
    x = constraint.project(y)
    for shift in range(1, 40, 3):
        apart, kept = norms(y - np.roll(y, shift, axis=0)), norms(x - np.roll(x, shift, axis=0))
        assert (kept <= apart * (1 + 1e-12) + 1e-14 * (norms(y) + norms(np.roll(y, shift, axis=0)))).all()


@each_set
@pytest.mark.parametrize(("dtype", "rounding"), [(np.float64, 2e-15), (np.float32, 1e-6)])
def test_it_is_idempotent(constraint, dtype, rounding):
    x = constraint.project(points(dtype=dtype))
    again = constraint.project(x)
    assert (norms(again - x) <= rounding * (norms(x) + np.sqrt(DIM) * np.abs(getattr(constraint, "center", 0)).max())).all()


@every_set
def test_its_own_check_lets_it_pass(constraint):
    check_projection(constraint, DIM, np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["ball off the origin", "simplex", "L1 ball", "affine subspace", "product", "half-open box"])
def test_a_general_solver_finds_no_nearer_point(name, seed):
    """SLSQP on smooth forms of the constraints: |x|_1 <= r as x = p - q with p, q >= 0."""
    y = 2 * np.random.default_rng(seed).normal(size=DIM)
    constraint = SETS[name]
    conditions, bounds, to_x, n = [], None, lambda v: v, DIM
    if name == "ball off the origin":
        conditions = [{"type": "ineq", "fun": lambda v: 0.7**2 - ((v - CENTER) ** 2).sum()}]
    elif name == "simplex":
        conditions, bounds = [{"type": "eq", "fun": lambda v: v.sum() - 1}], [(0, None)] * DIM
    elif name == "L1 ball":
        n, to_x, bounds = 2 * DIM, lambda v: v[:DIM] - v[DIM:], [(0, None)] * (2 * DIM)
        conditions = [{"type": "ineq", "fun": lambda v: 1.5 - v.sum()}]
    elif name == "affine subspace":
        conditions = [{"type": "eq", "fun": lambda v: A @ v - [1.0, -2.0]}]
    elif name == "product":
        conditions = [
            {"type": "ineq", "fun": lambda v: 1 - v[0] ** 2 - v[1] ** 2},
            {"type": "eq", "fun": lambda v: v[2:5].sum() - 1},
        ]
        bounds = [(None, None)] * 2 + [(0, None)] * 3 + [(0, 1)]
    else:
        bounds = list(zip(constraint.low, constraint.high, strict=True))
    found = scipy.optimize.minimize(
        lambda v: ((to_x(v) - y) ** 2).sum(), np.full(n, 0.1), method="SLSQP", bounds=bounds, constraints=conditions, tol=1e-13
    )
    assert np.allclose(constraint.project(y), to_x(found.x), atol=2e-5)


@pytest.mark.parametrize("seed", range(5))
def test_a_box_is_bounded_least_squares(seed):
    y = 3 * np.random.default_rng(seed).normal(size=DIM)
    box = BOUNDED["box of vectors"]
    expected = scipy.optimize.lsq_linear(np.eye(DIM), y, (box.low - 1e-300, box.high), method="bvls").x
    assert np.allclose(box.project(y), expected, atol=1e-12)


def test_affine_projection_is_the_least_correction():
    y = points()
    for matrix in (A, DEPENDENT, A * 1e150, A * 1e-150, np.diag([1e8, 1, 1e-4, 1, 1, 0])):
        constraint = AffineSubspace(matrix, matrix @ POINT)
        scaled = matrix / np.abs(matrix).max()
        expected = np.stack([row - np.linalg.lstsq(scaled, scaled @ (row - POINT), rcond=1e-13)[0] for row in y])
        assert (norms(constraint.project(y) - expected) <= 1e-13 * (1 + norms(y))).all()


def bisected(y, total):
    """The simplex's threshold by bisection, slowly and in extended precision."""
    y = y.astype(np.longdouble)
    low, high = y.max() - total, y.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(y - middle, 0).sum() > total else (low, middle)
    return np.maximum(y - low, 0)


@pytest.mark.parametrize("dim", [1, 2, 3, 101, 5000])
@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 1e6])
def test_the_simplex_agrees_with_bisection(dim, scale):
    for y in scale * np.random.default_rng(dim).normal(size=(4, dim)):
        assert np.abs(Simplex(2.0).project(y) - bisected(y, 2)).max() <= 1e-15 * 4


def test_ties_share_alike():
    assert Simplex().project(np.full(8, 3.0)).tolist() == [1 / 8] * 8
    assert Simplex().project(np.array([5.0, 5.0, -1.0, 5.0])) == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3], rel=1e-15)
    assert L1Ball(2.0).project(np.array([3.0, -3.0])).tolist() == [1.0, -1.0]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_long_simplex_point_adds_up(dtype):
    """The threshold from running sums alone leaves a sum that is off by 16 roundings and more."""
    y = (np.random.default_rng(0).random(200_000) * 1e-4).astype(dtype)
    assert abs(Simplex().project(y).sum(dtype=float) - 1) <= 4 * np.finfo(dtype).eps


def test_nuclear_norm_ball_of_vectors_is_a_euclidean_ball():
    y = points()
    for shape in ((1, DIM), (DIM, 1)):
        assert np.allclose(NuclearNormBall(shape, 1.5).project(y), Ball(1.5).project(y), rtol=1e-13, atol=1e-15)


def test_nuclear_norm_ball_of_diagonals_is_an_l1_ball():
    y = np.zeros((200, 9))
    y[:, ::4] = points(dim=3)
    expected = L1Ball(1.2).project(y[:, ::4])
    assert np.allclose(NuclearNormBall((3, 3), 1.2).project(y)[:, ::4], expected, rtol=1e-12, atol=1e-14)


def test_a_product_projects_each_part():
    y = points()
    x = SETS["product"].project(y)
    parts = Ball(1.0).project(y[:, :2]), Simplex().project(y[:, 2:5]), Box(0.0, 1.0).project(y[:, 5:])
    assert same_bits(x, np.concatenate(parts, axis=1))


# --- points of the set


@every_set
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_corners_and_inner_points_come_back_with_the_same_bits(constraint, dtype):
    x = inner_points(constraint)
    x = x[(np.abs(x) < np.finfo(dtype).max).all(axis=-1)].astype(dtype)
    kept = x.copy()
    back = constraint.project(x)
    assert back.tobytes() == x.tobytes() == kept.tobytes()
    assert not np.shares_memory(back, x)
    assert constraint.contains(x).all()


def inner_points(constraint):
    """Points of the set that stay in it under rounding: of whole numbers, or well inside."""
    if isinstance(constraint, ProductSet):
        return np.concatenate(
            [inner_points(factor)[:1, :d] for factor, d in zip(constraint.sets, constraint.dims, strict=True)], 1
        )
    if isinstance(constraint, Simplex):
        # at all sizes, of what remains when a product takes the first coordinates only: a corner
        return np.eye(DIM)[:1] * constraint.total if constraint.total != 1e-310 else np.zeros((0, DIM))
    if isinstance(constraint, AffineSubspace):
        return POINT[None] if len(constraint.b) != 2 and len(constraint.A) else np.linalg.pinv(A)[None] @ [1.0, -2.0]
    if isinstance(constraint, Box):
        low, high = np.broadcast_to(constraint.low, DIM), np.broadcast_to(constraint.high, DIM)
        corners = np.array([low, high, np.where(np.arange(DIM) % 2, low, high)])
        return np.clip(np.where(np.isfinite(corners), corners, 1e30), low, high).astype(np.float32).astype(float)
    center = np.broadcast_to(getattr(constraint, "center", 0.0), DIM)
    size = getattr(constraint, "radius", 1.0)
    inner = center + 0.4 * size * np.random.default_rng(0).normal(size=(20, DIM)) / DIM
    extreme = center + size * np.eye(DIM)[:1]
    return np.concatenate([inner, [center], extreme if not center.any() else [center]])


def test_signs_of_zero_stay():
    zeros = np.where(np.arange(40) % 3, -0.0, 0.0)
    for constraint in (Box(0.0, 1.0), Box(-0.0, 1.0), Box(-1.0, 0.0), Box(-1.0, -0.0), Ball(1.0), L1Ball(1.0), Ball(0.0)):
        assert same_bits(constraint.project(zeros), zeros)


def test_points_of_the_simplex_within_rounding_stay():
    x = np.random.default_rng(0).dirichlet(np.ones(101), size=1000)
    assert (x.sum(axis=1) != 1).any()
    assert same_bits(Simplex().project(x), x)
    off = x * (1 + 1e-14)
    assert not (Simplex().project(off) == off).all(axis=1).any()
    assert not (Simplex().project(x - 2 * x.min())[0] == x[0]).all()


def test_a_sum_that_is_right_makes_no_member():
    assert Simplex().project(np.array([[1.5, -0.5], [0.5, 0.5]])).tolist() == [[1, 0], [0.5, 0.5]]


def test_points_of_an_affine_subspace_within_rounding_stay():
    constraint = AffineSubspace(A, [1.0, -2.0])
    x = constraint.project(points())
    assert same_bits(constraint.project(x)[0], x[0])
    off = x + 1e-13 * norms(x)[:, None] * A[0] / norms(A[0])
    assert (norms(constraint.project(off) - off) > 0.5e-13 * norms(x)).all()


@each_set
def test_samples_are_points_of_the_set(constraint):
    x = constraint.sample(np.random.default_rng(1), (50, 4), DIM)
    assert x.shape == (50, 4, DIM)
    assert constraint.contains(x).all()
    flat = x.reshape(-1, DIM)
    assert (violation(constraint, flat) <= 1e-13 * (1 + norms(flat))).all()
    assert same_bits(x, constraint.sample(np.random.default_rng(1), (50, 4), DIM))
    assert constraint.sample(np.random.default_rng(1), (), DIM).shape == (DIM,)


@pytest.mark.parametrize(
    ("constraint", "on_face", "least", "most"),
    [
        (Box(-1.0, 2.0), lambda x: np.isin(x, [-1, 2]).all(1), 40, 400),
        (Box(-1.0, 2.0), lambda x: ~np.isin(x, [-1, 2]).any(1), 40, 400),
        (Box(-np.inf, 2.0), lambda x: (x == 2).all(1), 40, 400),
        (Ball(1.5), lambda x: np.isclose(norms(x), 1.5, rtol=1e-12), 300, 700),
        (Ball(1.5), lambda x: (x != 0).sum(1) == 1, 50, 350),
        (Simplex(), lambda x: (x == 0).any(1), 200, 990),
        (Simplex(), lambda x: (x > 0).sum(1) == 1, 40, 600),
        (Simplex(), lambda x: (x > 0).all(1), 40, 600),
        (L1Ball(1.5), lambda x: np.isclose(np.abs(x).sum(1), 1.5, rtol=1e-12), 300, 700),
        (L1Ball(1.5), lambda x: (x != 0).sum(1) == 1, 40, 600),
        (NuclearNormBall((2, 3), 1.0), lambda x: np.linalg.matrix_rank(x.reshape(-1, 2, 3), tol=1e-12) == 1, 100, 900),
    ],
)
def test_samples_reach_inner_points_faces_and_corners(constraint, on_face, least, most):
    x = constraint.sample(np.random.default_rng(2), (1000,), DIM)
    assert least <= on_face(x).sum() <= most


# --- rows, layouts, precision, size


@every_set
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_have_the_same_bits_alone_and_in_a_batch(constraint, dtype):
    y = points(40, dtype)
    y[3], y[4], y[5] = 0, y[5] * (1e30 if dtype == np.float32 else 1e300), np.nan
    y[6, 1], y[7, 2], y[8] = np.nan, np.inf, y[8] * (1e-35 if dtype == np.float32 else 1e-290)
    x = with_one_nan(constraint.project(y))
    assert x.dtype == dtype
    for row, projected in zip(y, x, strict=True):
        assert same_bits(with_one_nan(constraint.project(row)), projected)
    shaped = constraint.project(y.reshape(4, 5, 2, DIM))
    assert same_bits(with_one_nan(shaped.reshape(-1, DIM)), x)
    for layout in (np.asfortranarray(y), np.repeat(y, 2, axis=1)[:, ::2], y[:, ::-1].copy()[:, ::-1]):
        assert same_bits(with_one_nan(constraint.project(layout)), x)
    assert constraint.project(y[:0]).shape == (0, DIM)


def with_one_nan(x):
    """NaN has a sign, which means nothing and depends on the instruction."""
    return np.where(np.isnan(x), x.dtype.type(np.nan), np.ascontiguousarray(x))


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 16, 101, 1000, 9001])
@pytest.mark.parametrize("make", [Ball, Simplex, L1Ball, lambda r: AffineSubspace(np.ones((1, 1)), r)], ids="BSLA")
def test_rows_have_the_same_bits_in_every_dimension(make, dim):
    constraint = make(1.5)
    if isinstance(constraint, AffineSubspace):
        constraint = AffineSubspace(np.random.default_rng(1).normal(size=(3, dim)), 0.0)
    y = points(9, dim=dim)
    x = constraint.project(y)
    assert same_bits(x, np.stack([constraint.project(row) for row in y]))
    for layout in (np.asfortranarray(y), np.repeat(y, 2, axis=1)[:, ::2]):
        assert same_bits(np.ascontiguousarray(constraint.project(layout)), x)


@every_set
def test_the_argument_is_left_alone_unless_it_is_the_output(constraint):
    y = points()
    y[3] = np.nan
    kept = y.copy()
    x = constraint.project(y)
    assert same_bits(y, kept)
    assert not np.shares_memory(x, y)
    out = np.full_like(y, 7)
    assert constraint.project(y, out=out) is out
    assert same_bits(out, x)
    assert same_bits(y, kept)
    strided = np.full((len(y), 2 * DIM), 7.0)[:, ::2]
    constraint.project(y, out=strided)
    assert same_bits(np.ascontiguousarray(strided), x)
    assert constraint.project(y, out=y) is y
    assert same_bits(y, x)
    vector = kept[5].copy()
    assert constraint.project(vector, out=vector) is vector
    assert same_bits(vector, x[5])


@every_set
def test_a_row_that_is_not_finite_is_not_hidden_and_disturbs_no_other(constraint):
    y = points(20)
    x = constraint.project(y)
    y[7] = np.nan
    found = constraint.project(y)
    assert np.isnan(found[7]).all()
    assert same_bits(np.delete(found, 7, axis=0), np.delete(x, 7, axis=0))


def test_a_matrix_with_an_infinite_entry_has_no_projection():
    y = np.ones((3, DIM))
    y[1, 2] = np.inf
    assert np.isnan(SETS["nuclear norm ball"].project(y)).all(axis=1).tolist() == [False, True, False]


@every_set
def test_whole_numbers_are_projected_as_floats(constraint):
    y = np.random.default_rng(0).integers(-9, 9, size=(20, DIM))
    assert same_bits(constraint.project(y), constraint.project(y.astype(float)))
    assert same_bits(constraint.project(y[0].tolist()), constraint.project(y[0].astype(float)))


HUGE = hnp.arrays(np.float64, st.integers(1, 7), elements=st.floats(-1e300, 1e300))
SIZES = st.sampled_from([0.0, 1e-320, 1e-200, 1e-8, 1.0, 3.7, 1e100, 1e290])


@settings(deadline=None, derandomize=True, max_examples=300)
@given(HUGE, SIZES)
def test_balls_and_simplices_of_any_size_project_points_of_any_size(y, size):
    """Certificates on numbers divided by the largest: neither overflow nor the loss of everything small."""
    for constraint in (Ball(size), L1Ball(size), Simplex(size), Box(-size, size)):
        x = constraint.project(y)
        assert np.isfinite(x).all()
        unit = max(np.abs(y).max(), size, 1e-300)
        scaled = type(constraint)(*(value / unit for value in constraint.fields().values() if value)) if size / unit else None
        if scaled is not None and not isinstance(constraint, Box):
            g, z = y / unit - x / unit, x / unit
            assert support(scaled, g) - g @ z <= 1e-14 * np.linalg.norm(g)
        if size > 1e-300 and not isinstance(constraint, Box):  # of the set's own size, whatever the point's
            relative = type(constraint)(1.0)
            assert violation(relative, (x / size)[None])[0] <= 1e-14
        assert (np.abs(x) <= max(size, 0) * (1 + 1e-15)).all()


@settings(deadline=None, derandomize=True, max_examples=200)
@given(hnp.arrays(np.float64, (2, 5), elements=st.floats(-100, 100)), st.sampled_from(sorted(set(BOUNDED) - {"point"})))
def test_any_two_points_come_no_further_apart(y, name):
    y = np.concatenate([y, y[:, :1]], axis=1)
    x = BOUNDED[name].project(y)
    assert norms(x[0] - x[1]) <= norms(y[0] - y[1]) * (1 + 1e-12) + 1e-13


def test_directions_of_far_points_are_kept():
    """A square that overflows must not turn a far point into the centre."""
    y = np.array([3.0, -4.0])
    for factor in (1e-200, 1e-100, 1.0, 1e100, 1e300):
        assert Ball(1.0).project(factor * y) == pytest.approx(y / 5 if factor >= 1 else factor * y, rel=1e-15)
        assert Ball(1e-250).project(factor * y) == pytest.approx(1e-250 * y / 5, rel=1e-15)
        assert Ball(1e306).project(factor * y) == pytest.approx(factor * y, rel=1e-15)
        assert Simplex().project(factor * y)[1] == pytest.approx(0 if factor >= 1 else 0.5)
    assert Ball(1.0, 1e10).project(np.array([1e300, 1e10])) == pytest.approx([1e10 + 1, 1e10], rel=1e-16)
    far32 = np.array([3e30, -4e30], np.float32)
    assert Ball(1.0).project(far32) == pytest.approx([0.6, -0.8], rel=1e-6)
    assert Ball(1e300).project(far32).tolist() == far32.tolist()
    assert Ball(1e-60).project(far32).tolist() == [0, 0]


def test_opposite_ends_of_the_numbers():
    ends = np.array([1.7e308, -1.7e308, 0.0])
    assert Simplex().project(ends).tolist() == [1, 0, 0]
    assert L1Ball(1.0).project(ends).tolist() == [0.5, -0.5, 0]
    assert Ball(1.0).project(ends) == pytest.approx([0.5**0.5, -(0.5**0.5), 0], rel=1e-15)
    assert Box(0.0, 1.0).project(np.array([np.inf, -np.inf])).tolist() == [1, 0]


# --- sizes and distances


@each_bounded
def test_a_bounded_set_has_a_diameter(constraint):
    assert constraint.bounded
    x = constraint.sample(np.random.default_rng(4), (500,), DIM)
    assert norms(x[:, None] - x[None]).max() <= constraint.diameter(DIM) * (1 + 1e-12)


@pytest.mark.parametrize("constraint", UNBOUNDED.values(), ids=UNBOUNDED)
def test_an_unbounded_set_has_none(constraint):
    assert not constraint.bounded
    assert constraint.diameter(DIM) == np.inf


@pytest.mark.parametrize(
    ("constraint", "diameter"),
    [
        (Box(0.0, 2.0), 2 * 6**0.5),
        (Box(np.zeros(6), np.arange(6.0)), 55**0.5),
        (Ball(3.0, CENTER), 6.0),
        (Simplex(3.0), 3 * 2**0.5),
        (L1Ball(3.0), 6.0),
        (NuclearNormBall((2, 3), 3.0), 6.0),
        (ProductSet([Ball(1.5), Ball(2.0)], [3, 3]), 5.0),
        (BOUNDED["point"], 0.0),
    ],
)
def test_the_diameter_is_that_of_the_formula(constraint, diameter):
    assert constraint.diameter(DIM) == pytest.approx(diameter, rel=1e-15)


def test_a_simplex_of_one_coordinate_is_a_point():
    assert Simplex(2.0).diameter(1) == 0
    assert Simplex(2.0).project(np.array([[7.0], [-7.0]])).tolist() == [[2], [2]]


def test_distances():
    assert Ball(1.0).distance(np.array([[3.0, 4.0], [0.0, 0.5]])).tolist() == [4, 0]
    assert Box(0.0, 1.0).distance(np.array([4.0, -4.0])) == 5
    assert Ball(1.0).distance(np.array([3e200, 4e200])) == pytest.approx(5e200)
    assert Box(0.0, 1.0).contains(np.array([[0.5, 1.0], [0.5, 1 + 1e-9]])).tolist() == [True, False]
    assert Box(0.0, 1.0).contains(np.array([0.5, 1 + 1e-9]), tol=1e-8)
    assert not Box(0.0, 1.0).contains(np.array([0.5, 1 + 1e-9]), tol=0)
    assert not Ball(1.0).contains(np.array([0.5, np.nan]))
    assert Ball(1.0).contains(Ball(1.0).project(points(dtype=np.float32))).all()
    with pytest.raises(InvalidInputError, match=r"tol must be a finite number >= 0, not -1"):
        Ball(1.0).contains(np.zeros(2), tol=-1)


# --- plain data


@every_set
def test_a_set_comes_back_from_plain_data_and_from_a_pickle(constraint):
    constraint.project(points())  # what is kept for speed is not saved
    assert "_cache" not in pickle.loads(pickle.dumps(constraint)).__dict__
    arrays = {}
    tree = json.loads(json.dumps(encode(constraint, arrays)))
    for back in (
        decode(tree, arrays),
        pickle.loads(pickle.dumps(constraint)),
        cloudpickle.loads(cloudpickle.dumps(constraint)),
    ):
        assert back == constraint
        assert hash(back) == hash(constraint)
        assert repr(back) == repr(constraint)
        assert same_bits(back.project(points()), constraint.project(points()))


def test_sets_are_equal_where_their_numbers_are():
    different = [*ALL.values(), Box(np.full(DIM, -1.0), 2.0)]
    for i, one in enumerate(different):
        assert [one == other for other in different] == [i == j for j in range(len(different))]
    assert Ball(1) == Ball(1.0)
    assert Ball(1.0) != 1.0


def test_numbers_of_a_set_cannot_be_changed():
    low = np.zeros(3)
    box = Box(low, 1.0)
    low[:] = -5
    assert box.low.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="read-only"):
        box.low[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        SETS["affine subspace"].A[0] = 1
    with pytest.raises(FrozenInstanceError):
        box.high = 3.0


def test_sets_are_public():
    for name in (
        "Box",
        "Ball",
        "Simplex",
        "L1Ball",
        "AffineSubspace",
        "NuclearNormBall",
        "ProductSet",
        "UserSet",
        "WholeSpace",
    ):
        assert issubclass(getattr(td, name), td.ConvexSet)


# --- errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box(1.0, 0.0), r"^the box is empty: low = 1, high = 0; swap them\?$"),
        (lambda: Box([0.0, 3.0], 2.0), r"^the box is empty: low\[1\] = 3, high\[1\] = 2"),
        (lambda: Box(np.inf, np.inf), "the box is empty: low = inf, high = inf"),
        (lambda: Box(-np.inf, -np.inf), "the box is empty"),
        (lambda: Box(np.nan, 1.0), r"^low is nan: low must be a number or a vector \(dim,\) of numbers$"),
        (lambda: Box(0.0, [1.0, np.nan]), r"^high\[1\] is nan"),
        (lambda: Box([0.0, 0.0], [1.0, 1.0, 1.0]), "^low has 2 entries and high 3: give as many, or a number$"),
        (lambda: Box("0", 1.0), r"low must be a number or a vector \(dim,\) of numbers, not '0'"),
        (lambda: Box(None, 1.0), "low must be a number or a vector .* not None"),
        (lambda: Box([[0.0]], 1.0), r"low must be .* not float64 of shape \(1, 1\)"),
        (lambda: Box([], 1.0), r"low must be .* not float64 of shape \(0,\)"),
        (lambda: Box([[0], [1, 2]], 1.0), r"low must be .* not \[\[0\], \[1, 2\]\]"),
        (lambda: Box(True, 2.0), "low must be .* not True"),
        (lambda: Ball(-1.0), "^radius must be a finite number >= 0, not -1.0$"),
        (lambda: Ball(np.inf), "^radius must be a finite number >= 0, not inf$"),
        (lambda: Ball([1.0, 2.0]), "radius must be a finite number >= 0"),
        (lambda: Ball(1.0, np.inf), r"^center is inf: center must be a number or a vector \(dim,\) of finite numbers$"),
        (lambda: Ball(1.0, [0.0, np.nan]), r"center\[1\] is nan"),
        (lambda: Simplex(-1), "^total must be a finite number >= 0, not -1$"),
        (lambda: L1Ball(-2.0), "radius must be a finite number >= 0, not -2.0"),
        (lambda: L1Ball(2.0, "x"), "center must be a number or a vector .* not 'x'"),
        (
            lambda: AffineSubspace([[1.0, 1.0], [2.0, 2.0]], [1.0, 3.0]),
            r"the set is empty: no x solves A x = b; at the best one row 0 of A x is 1\.4 where b has 1 "
            r"\(A is 2 x 2 of rank 1\): leave out rows that contradict others",
        ),
        (lambda: AffineSubspace(np.zeros((1, 3)), [1.0]), "the set is empty: .* of rank 0"),
        (lambda: AffineSubspace(A * 1e-200, [1e-200, np.nan]), r"^b\[1\] is nan: b must be finite$"),
        (lambda: AffineSubspace([[1.0, np.inf]], [1.0]), r"^A\[0, 1\] is inf: A must be finite$"),
        (lambda: AffineSubspace([1.0, 2.0], [1.0]), r"A must be a matrix \(m, dim\) of numbers, not float64 of shape \(2,\)"),
        (lambda: AffineSubspace([["a"]], [1.0]), "A must be a matrix"),
        (lambda: AffineSubspace([[1.0], [1.0, 2.0]], [1.0]), r"A must be a matrix .* not \[\[1.0\], \[1.0, 2.0\]\]"),
        (lambda: AffineSubspace(A, [1.0, 2.0, 3.0]), r"b must have shape \(2,\), one number a row of A, not \(3,\)"),
        (lambda: AffineSubspace(A, None), "b must be a vector .* not None"),
        (lambda: AffineSubspace(scipy.sparse.csr_array(A), [1.0, 2.0]), r"A must be a dense array .* pass A.toarray\(\)"),
        (lambda: NuclearNormBall(6, 1.0), r"^shape must be two integers, \(rows, columns\), not 6$"),
        (lambda: NuclearNormBall((2, 3, 4), 1.0), "shape must be two integers"),
        (lambda: NuclearNormBall((2, 0), 1.0), r"shape\[1\] must be an integer >= 1, not 0"),
        (lambda: NuclearNormBall((2, 2), -1.0), "radius must be a finite number >= 0"),
        (lambda: ProductSet([], []), r"sets must be a list of sets, at least one, not \[\]"),
        (lambda: ProductSet(Ball(1.0), [2]), r"sets must be a list of sets, at least one, not Ball"),
        (lambda: ProductSet([Ball(1.0)], 2), "dims must be a list of integers, at least one, not 2"),
        (lambda: ProductSet([Ball(1.0)], [2, 3]), "there are 1 sets and 2 dims: give each set its number of coordinates"),
        (lambda: ProductSet([Ball(1.0)], [0]), r"dims\[0\] must be an integer >= 1, not 0"),
        (lambda: ProductSet([Ball(1.0), np.ones], [1, 2]), r"sets\[1\] must be a set, such as Box or Ball or UserSet, not"),
        (
            lambda: ProductSet([Ball(1.0), Box([0.0, 0.0], 1.0)], [1, 3]),
            r"sets\[1\] does not fit dims\[1\] = 3: Box is a set of R\^2, for its low has 2 entries, but the iterates have 3",
        ),
    ],
)
def test_sets_that_are_none_are_refused_when_they_are_made(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (
            Box([0.0, 0.0], 1.0),
            r"Box is a set of R\^2, for its low has 2 entries, but the iterates have 6: give a number, or 6",
        ),
        (Box(0.0, [1.0]), "its high has 1 entries"),
        (Ball(1.0, [0.0, 0.0]), "Ball .* its center has 2 entries"),
        (L1Ball(1.0, [0.0, 0.0]), "L1Ball .* its center has 2 entries"),
        (AffineSubspace([[1.0, 1.0]], 1.0), r"A has 2 columns, but the iterates have 6 coordinates: A must be \(m, 6\)"),
        (NuclearNormBall((2, 2), 1.0), r"matrices of shape \(2, 2\) have 4 entries, but the iterates have 6 coordinates"),
        (ProductSet([Ball(1.0), Ball(1.0)], [1, 3]), r"dims add up to 4, but the iterates have 6 coordinates: \(1, 3\)"),
    ],
)
def test_sets_of_another_space_are_refused(constraint, message):
    with pytest.raises(InvalidInputError, match=message):
        as_constraint(constraint, DIM)


@every_set
def test_sets_of_this_space_are_taken_as_they_are(constraint):
    assert as_constraint(constraint, DIM) is constraint


def test_what_stands_for_a_set():
    assert as_constraint(None, 3) == WholeSpace()
    assert as_constraint(scipy.optimize.Bounds(0, 2), 3) == Box(0.0, 2.0)
    assert as_constraint(scipy.optimize.Bounds([0, -np.inf], 2), 2) == Box([0.0, -np.inf], [2.0, 2.0])
    assert as_constraint(scipy.optimize.Bounds(), 2) == Box(-np.inf, np.inf)


@pytest.mark.parametrize("value", [3.0, (0.0, 1.0), "box", np.zeros((2, 2)), [Ball(1.0)]])
def test_anything_else_is_refused_with_what_is_possible(value):
    with pytest.raises(
        InvalidInputError,
        match=r"constraint must be None, a set \(Box, Ball, Simplex, .* scipy.optimize.Bounds, or a function .* not ",
    ):
        as_constraint(value, 3)


def test_a_class_is_not_a_set():
    with pytest.raises(InvalidInputError, match=r"^Simplex is a class: call it with its parameters; constraint must be"):
        as_constraint(Simplex, 3)


@pytest.mark.parametrize("bounds", [scipy.optimize.Bounds([0, 0], [1, 1]), scipy.optimize.Bounds(2, 1)])
def test_bounds_that_do_not_fit_are_refused(bounds):
    with pytest.raises(InvalidInputError, match=r"Box is a set of R\^2|the box is empty"):
        as_constraint(bounds, 3)
