"""Blocks with more rows than unknowns: one solution, by the columns; the same as other ways give."""

import numpy as np
import pytest

import tardigrad as td
from linear_systems import METRICS, make_metric
from tardigrad.problems.block import Block, gram
from tardigrad.problems.metric import Metric


def block(M, c, B=None):
    return Block(M.copy(), c, Metric(B, M.shape[1], M.dtype))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_tall_block_steps_to_its_one_solution_whatever_the_metric(metric, dtype):
    rng = np.random.default_rng(0)
    M, solution, x = (
        rng.normal(size=(30, 8)).astype(dtype),
        rng.normal(size=8).astype(dtype),
        rng.normal(size=(3, 8)).astype(dtype),
    )
    found = block(M, M @ solution, make_metric(metric, 8))
    assert found.factor.kind == "columns"
    assert np.allclose(x - found.step(x), solution, atol=1e-4 if dtype == np.float32 else 1e-12)
    assert np.allclose(found.step(x, homogeneous=True), x, atol=1e-4 if dtype == np.float32 else 1e-12)


def test_dependent_columns_are_left_to_singular_values():
    rng = np.random.default_rng(1)
    M = rng.normal(size=(30, 8))
    M[:, 7] = M[:, 0]
    found = block(M, M @ np.ones(8))
    assert found.factor.kind == "basis"
    x = np.zeros((1, 8)) - found.step(np.zeros((1, 8)))
    assert np.allclose(x[0], np.linalg.lstsq(M, M @ np.ones(8), rcond=None)[0])


def test_badly_conditioned_columns_are_solved_to_the_last_digits_by_the_refinement():
    rng = np.random.default_rng(2)
    U, V = np.linalg.qr(rng.normal(size=(60, 20)))[0], np.linalg.qr(rng.normal(size=(20, 20)))[0]
    M = (U * np.geomspace(1, 1e-4, 20)) @ V.T
    solution = rng.normal(size=20)
    found = block(M, M @ solution)
    assert found.factor.kind == "columns"
    assert np.allclose(-found.step(np.zeros((1, 20)))[0], solution, atol=1e-9)


def test_a_tall_block_that_holds_nan_gives_nan():
    M = np.ones((5, 2))
    M[3, 1] = np.nan
    assert np.isnan(block(M, np.ones(5)).step(np.zeros((1, 2)))).all()


@pytest.mark.parametrize("shape", [(3, 1), (40, 7), (40, 8), (100, 37)])
def test_panels_are_the_lower_half_of_all_products(shape):
    M = np.random.default_rng(3).normal(size=shape)
    assert np.allclose(np.tril(gram(M)), np.tril(M.T @ M))


def test_one_tall_block_solves_a_system_with_outlying_singular_values():
    rng = np.random.default_rng(4)
    U, V = np.linalg.qr(rng.normal(size=(1200, 200)))[0], np.linalg.qr(rng.normal(size=(200, 200)))[0]
    A = np.ascontiguousarray((U * np.concatenate([np.geomspace(1e4, 10, 10), np.linspace(2, 1, 190)])) @ V.T)
    found = td.linsolve(A, A @ np.ones(200))
    assert (found.method, found.state.version, found.status) == ("basic", 1, td.Status.CONVERGED)
    assert np.allclose(found.x, 1.0, atol=1e-7)
