import numpy as np
import pytest
import scipy.sparse as sp

import tardigrad as td
from linear_systems import make_system
from tardigrad.problems import spectrum
from tardigrad.problems.system_matrix import Passes
from tardigrad.solvers.linear_choice import block_size, choose, passes_of_update, relaxation, rows_of_a_task, rule_for


def gaussian(n_rows, dim, **kwargs):
    A = np.random.default_rng(0).normal(size=(n_rows, dim))
    return td.LinearSystem(A, A @ np.ones(dim), **kwargs)


def outlying(n_rows=2000, dim=400, n_large=20):
    rng = np.random.default_rng(0)
    U, V = np.linalg.qr(rng.normal(size=(n_rows, dim)))[0], np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    A = (U * np.r_[np.geomspace(1e2, 1e4, n_large), np.linspace(1, 2, dim - n_large)]) @ V.T
    return td.LinearSystem(A, A @ np.ones(dim))


def sparse():
    A = sp.random_array((5000, 500), density=0.02, rng=np.random.default_rng(0), format="csr")
    return td.LinearSystem(A, A @ np.ones(500))


SYSTEMS = {
    "flat": (lambda: gaussian(2000, 50), "row-action", "spread evenly"),
    "wide": (lambda: gaussian(300, 2000), "row-action", "spread evenly"),
    "sparse": (sparse, "row-action", "rows are sparse"),
    "outlying singular values": (outlying, "basic", "lean to a few directions"),
    "tiny": (lambda: gaussian(256, 300), "basic", "256 rows are one block"),
    "just above": (lambda: gaussian(257, 50), "row-action", "spread evenly"),
    "full B": (lambda: gaussian(2000, 50, B=2 * np.eye(50)), "basic", "B is a full matrix"),
    "diagonal B": (lambda: gaussian(2000, 50, B=np.full(50, 2.0)), "row-action", "spread evenly"),
    "zero": (lambda: td.LinearSystem(np.zeros((500, 30)), np.zeros(500)), "basic", "lean to a few directions"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_is_chosen_and_why(name):
    make, method, why = SYSTEMS[name]
    choice = choose(make(), "auto", "auto")
    assert choice.method == method
    assert why in choice.why
    assert f"method {method} with" in str(choice)
    assert isinstance(choice.sketch, td.Rows if method == "row-action" else td.RowBlocks)
    assert 0 < choice.largest <= 1


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_the_choice_does_not_depend_on_the_size_of_numbers(kind, scale):
    A = np.random.default_rng(0).normal(size=(2000, 50))
    make = sp.csr_array if kind == "csr" else np.array
    plain, scaled = (choose(td.LinearSystem(make(A * by), np.ones(2000)), "auto", "auto") for by in (1.0, scale))
    assert (plain.method, plain.sketch) == (scaled.method, scaled.sketch)
    assert scaled.largest == pytest.approx(plain.largest, rel=1e-12)


@pytest.mark.parametrize("name", ["flat", "wide", "sparse", "outlying singular values"])
def test_choosing_reads_less_than_a_tenth_of_the_matrix(name, monkeypatch):
    system = SYSTEMS[name][0]()
    read = []
    whole = spectrum.rows_of

    def rows_of(matrix, rows):
        read.append(len(rows))
        return whole(matrix, rows)

    def no_pass(*_, **__):
        raise AssertionError("a pass over the matrix")

    monkeypatch.setattr(spectrum, "rows_of", rows_of)
    monkeypatch.setattr(Passes, "each", no_pass)
    choose(system, "auto", "auto")
    assert len(read) == 1
    assert read[0] <= max(32, 0.1 * system.n_rows)
    products, entries = read[0] ** 2 * system.dim, system.n_rows * system.dim
    assert name == "sparse" or products <= max(32**2 * system.dim, 0.1 * entries)


def test_what_was_asked_for_is_kept():
    system = gaussian(2000, 50)
    for method in ("basic", "parallel", "accelerated", "averaged", "row-action"):
        choice = choose(system, method, "auto")
        assert (choice.method, choice.why) == (method, "as asked for")
    assert choose(system, "auto", td.Rows()).method == "row-action"
    assert choose(system, "auto", td.RowBlocks(7)).method == "basic"
    assert choose(gaussian(2000, 50, B=2 * np.eye(50)), "auto", td.Rows()).method == "basic"
    with pytest.raises(td.InvalidInputError, match="takes single rows"):
        choose(system, "row-action", td.RowBlocks(7))


def test_the_bound_of_the_largest_eigenvalue_holds():
    for make in (lambda: gaussian(2000, 50), lambda: outlying(600, 60, 5)):
        for method in ("basic", "row-action"):
            choice = choose(make(), method, "auto")
            system = make().with_sketch(choice.sketch, 1e-6)
            assert choice.largest >= 0.9 * system.spectrum(exact=True).lambda_max


def test_sizes():
    for method in ("basic", "averaged"):
        shapes = ((1, 5), (256, 5), (257, 5), (2000, 40), (3000, 8))
        assert [block_size(gaussian(n, d), method) for n, d in shapes] == [1, 256, 64, 64, 64]
    assert block_size(gaussian(2000, 400), "averaged") == 100
    assert block_size(gaussian(2000, 400), "basic") == 600  # determines all unknowns
    assert block_size(gaussian(500, 400), "basic") == 100
    assert block_size(make_system(2000, 3), "basic") == 64
    assert rows_of_a_task(sparse(), 4, lock_free=True) == 1
    assert rows_of_a_task(gaussian(2000, 30), 4, lock_free=True) == 1
    assert rows_of_a_task(gaussian(2000, 640), 4, lock_free=True) == 40
    assert rows_of_a_task(gaussian(2000, 640), 4, lock_free=False) == 20


def test_passes_of_an_update_and_rules():
    system = gaussian(2000, 50)
    for method, passes in {"basic": 64, "parallel": 256, "accelerated": 64, "averaged": 64}.items():
        choice = choose(system, method, "auto")
        bound = system.with_sketch(choice.sketch, 1e-6)
        rule = rule_for(choice, bound, 4, False, None, None)
        assert passes_of_update(rule, bound) == passes / 2000
        assert rule_for(choice, bound, 4, False, 0.7, 0.3).omega == 0.7
    rule = rule_for(choose(system, "row-action", "auto"), system, 4, True, None, None)
    assert passes_of_update(rule, system) == rule.rows / 2000
    assert rule.omega == 1.0


def test_relaxation():
    assert relaxation("auto", "omega") is None
    assert relaxation(1, "omega") == 1.0
    for bad in ("Auto", -1, 0, np.nan, [1.0], True):
        with pytest.raises(td.InvalidInputError, match="omega must be"):
            relaxation(bad, "omega")
