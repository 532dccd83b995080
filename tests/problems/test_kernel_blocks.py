"""Blocks of kernel matrices beside dense ones in float64, for rows of every kind, cut into tiles anywhere."""

import pickle
import threading
import tracemalloc

import cloudpickle
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

import tardigrad as td
from needs import needs_data
from tardigrad.core.errors import InvalidInputError
from tardigrad.core.worker import single_threaded_blas
from tardigrad.problems.kernel_blocks import KernelBlocks
from tardigrad.problems.kernel_rows import KernelRows, SparseRows, WideRows

PRECISIONS = (np.float32, np.float64)
#: of kernel values, which are at most 1
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-13}


def sparse(n, d, density, seed=0):
    return sp.random_array((n, d), density=density, rng=np.random.default_rng(seed), format="csr")


def in_file(folder, X):
    path = folder / "rows.npy"
    np.save(path, X)
    return np.load(path, mmap_mode="r")


def rows_of_kind(kind, folder, n=700, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6))
    return {
        "float32": lambda: X.astype(np.float32),
        "float64": lambda: X,
        "big endian": lambda: X.astype(">f8"),
        "fortran": lambda: np.asfortranarray(X),
        "every second": lambda: np.repeat(X, 2, axis=0)[::2],
        "far away": lambda: X + 1e6,
        "bytes": lambda: rng.integers(0, 255, X.shape).astype(np.uint8),
        "integers": lambda: rng.integers(-9, 9, X.shape),
        "bits": lambda: rng.random(X.shape) < 0.5,
        "file float32": lambda: in_file(folder, X.astype(np.float32)),
        "file float64": lambda: in_file(folder, X),
        "file bytes": lambda: in_file(folder, rng.integers(0, 255, X.shape).astype(np.uint8)),
        "csr": lambda: sparse(n, 40, 0.2),
        "csr float32": lambda: sparse(n, 40, 0.2).astype(np.float32),
        "csc": lambda: sparse(n, 40, 0.2).tocsc(),
        "csr far away": lambda: sp.csr_array(X + 1e3),
        "wide": lambda: sparse(n, 5000, 0.003),
        "very wide": lambda: sparse(n, 20000, 0.006),
    }[kind]()


KINDS = (
    *("float32", "float64", "big endian", "fortran", "every second", "far away", "bytes", "integers", "bits"),
    *("file float32", "file float64", "file bytes", "csr", "csr float32", "csc", "csr far away", "wide", "very wide"),
)


def dense(X):
    return (X.toarray() if sp.issparse(X) else np.asarray(X)).astype(np.float64)


def laplacian(Z, X, bandwidth):
    return np.exp(-cdist(dense(Z), dense(X)) / bandwidth)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_the_dense_matrix(kind, dtype, tmp_path):
    X = rows_of_kind(kind, tmp_path)
    rng = np.random.default_rng(1)
    own = rng.choice(len(dense(X)), 50, replace=False)
    columns = np.sort(rng.choice(len(dense(X)), 40, replace=False))
    a = rng.normal(size=(700, 3)).astype(dtype)
    kernel = td.Laplacian("auto").fitted(X)
    K = laplacian(dense(X)[own], X, kernel.bandwidth)
    for tile in (None, 64, 699, 700):
        blocks = KernelBlocks(X, kernel, dtype, tile)
        for Z in (blocks.rows(own), X[own] if kind != "csc" else X.tocsr()[own]):
            P, C = blocks.product(Z, a, columns, own)
            assert P.dtype == C.dtype == dtype
            np.testing.assert_allclose(P, K @ a, atol=TOLERANCE[dtype] * 100)
            np.testing.assert_allclose(C, K[:, columns], atol=TOLERANCE[dtype])
            every = np.arange(700)
            assert (blocks.product(Z, a, every, own)[1][np.arange(50), own] == 1).all()
        some = X.tocsr()[:5] if kind == "csc" else X[:5]
        np.testing.assert_allclose(blocks.block(some), laplacian(some, X, kernel.bandwidth), atol=TOLERANCE[dtype])


def test_rows_of_every_kind_take_the_way_meant_for_them(tmp_path):
    ways = {"float32": KernelRows, "file bytes": KernelRows, "csr": SparseRows, "wide": WideRows, "very wide": WideRows}
    for kind, way in ways.items():
        assert type(KernelBlocks(rows_of_kind(kind, tmp_path), td.Laplacian(1.0)).source) is way
    for kind in ("far away", "csr far away", "bytes"):
        assert KernelBlocks(rows_of_kind(kind, tmp_path), td.Laplacian(1.0)).source.centre is not None
    products = td.UserKernel(np.square, of="inner products")
    assert KernelBlocks(rows_of_kind("far away", tmp_path), products).source.centre is None
    assert KernelBlocks(rows_of_kind("float32", tmp_path), td.Laplacian(1.0)).source.centre is None


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 40),
    m=st.integers(1, 12),
    d=st.integers(1, 9),
    c=st.integers(1, 3),
    tile=st.integers(1, 50),
    data=st.data(),
)
def test_tiles_may_end_anywhere(n, m, d, c, tile, data):
    rng = np.random.default_rng(n + 100 * m)
    X, Z, a = rng.normal(size=(n, d)), rng.normal(size=(m, d)), rng.normal(size=(n, c))
    columns = sorted(data.draw(st.sets(st.integers(0, n - 1))))
    blocks = KernelBlocks(X, td.Laplacian(2.0), np.float64, tile)
    P, C = blocks.product(Z, a, columns)
    K = laplacian(Z, X, 2.0)
    np.testing.assert_allclose(P, K @ a, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(C, K[:, columns], rtol=1e-12)
    np.testing.assert_allclose(blocks.block(Z), K, rtol=1e-12)


def test_more_points_than_rows_of_a_tile():
    rng = np.random.default_rng(0)
    X, Z, a = rng.normal(size=(1500, 3)), rng.normal(size=(1100, 3)), rng.normal(size=(1500, 2))
    own = np.arange(1100)
    X[:1100] = Z
    blocks = KernelBlocks(X, td.Gaussian(1.0), np.float64)
    P, C = blocks.product(Z, a, [0, 511, 512, 1023, 1024, 1499], own)
    K = np.exp(-(cdist(Z, X) ** 2) / 2)
    np.testing.assert_allclose(P, K @ a, atol=1e-11)
    np.testing.assert_allclose(C, K[:, [0, 511, 512, 1023, 1024, 1499]], atol=1e-14)


def test_entries_of_a_row_with_itself_are_exact():
    """Even where only `own` says so: rows that were rounded on their way are not quite themselves."""
    X = sparse(300, 3000, 0.004)
    kernel = td.UserKernel(lambda s: np.where(s == 0, 2.0, 7.0))
    for rows in (X, X.toarray()):
        blocks = KernelBlocks(rows, kernel, np.float64, 70)
        own, every = np.arange(299, -1, -1), np.arange(300)
        Z = rows[own].astype(np.float32)
        P, C = blocks.product(Z, np.eye(300), every, own)
        assert (C[every, own] == 2).all()
        assert np.array_equal(P, C)
        without = blocks.product(Z, np.ones((300, 1)), every)[1]
        assert (without[every, own] == 2).mean() < 0.1


def test_duplicates_are_as_near_as_a_row_to_itself():
    rng = np.random.default_rng(0)
    X = rng.random((200, 300)).astype(np.float32) * rng.random(300).astype(np.float32) ** 4
    X[100:] = X[:100]
    wide = sparse(100, 4000, 0.004)
    for rows in (X, sp.csr_array(sp.vstack([wide, wide]))):
        for dtype in PRECISIONS:
            K = KernelBlocks(rows, td.Laplacian(0.01), dtype).block(rows)
            assert (np.diag(K) == 1).all()
            assert (np.diag(K[:, 100:]) == 1).all()
            assert K.sum() < 400 + 1e-3


def test_rows_far_away_lose_nothing():
    """A million away, float32 has steps of 0.06; in float64 rows are shifted before they are rounded."""
    X = np.random.default_rng(0).normal(size=(300, 4))
    near, far = (KernelBlocks(rows, td.Laplacian(1.0)) for rows in (X, X + 2.0**20))
    shifted = far.block(far.rows(np.arange(300)))
    np.testing.assert_allclose(shifted, near.block(X), atol=1e-5)
    assert (np.diag(shifted) == 1).all()


def test_block_of_two_sets_of_points():
    rng = np.random.default_rng(0)
    X, Z, W = (rng.normal(size=(n, 4)).astype(np.float32) for n in (50, 7, 9))
    for dtype, tolerance in ((np.float32, 1e-6), (np.float64, 1e-12)):
        blocks = KernelBlocks(X, td.Laplacian(1.0), dtype)
        found = blocks.block(Z, W)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, laplacian(Z, W, 1.0), rtol=tolerance)


@pytest.mark.parametrize("kind", ["float32", "bytes", "csr", "wide"])
def test_many_threads_get_the_same_bits(kind, tmp_path):
    X = rows_of_kind(kind, tmp_path, n=3000)
    blocks = KernelBlocks(X, td.Matern("auto", nu=1.5))
    a = np.random.default_rng(0).normal(size=(3000, 2)).astype(np.float32)
    index = [np.arange(i, 3000, 11) for i in range(8)]
    columns = np.arange(0, 3000, 7)
    found = [None] * 8

    def work(i):
        for _ in range(3):
            found[i] = blocks.product(blocks.rows(index[i]), a, columns, index[i])

    with single_threaded_blas():
        alone = [blocks.product(blocks.rows(rows), a, columns, rows) for rows in index]
        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for (P, C), (Q, D) in zip(alone, found, strict=True):
        assert P.tobytes() == Q.tobytes()
        assert C.tobytes() == D.tobytes()


def peak_of(function):
    """Bytes that are held while a function runs, beyond those before."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["file float32", "file float64", "file bytes", "csr", "wide", "float64"])
def test_neither_rows_nor_matrix_are_copied_as_a_whole(kind, tmp_path):
    n = 60_000
    X = sparse(n, 5000, 0.0004) if kind == "wide" else rows_of_kind(kind, tmp_path, n=n)
    blocks = KernelBlocks(X, td.Laplacian(1.0), tile=1000)
    a, Z = np.ones((n, 1), np.float32), blocks.rows(np.arange(8))
    peak = peak_of(lambda: blocks.product(Z, a, np.arange(10)))
    assert peak < 600_000, "the rows take 1.4 MB at least in float32"


def test_norms_in_a_file_are_read_part_by_part(tmp_path):
    X = in_file(tmp_path, np.random.default_rng(0).random((50_000, 8)))
    KernelBlocks(X[:100], td.Laplacian(1.0))
    peak = peak_of(lambda: KernelBlocks(X, td.Laplacian(1.0)))
    assert peak < 1_000_000, "the file has 3.2 MB, the norms 0.2"
    assert isinstance(X, np.memmap)


def test_blocks_go_to_other_processes(tmp_path):
    X = in_file(tmp_path, np.random.default_rng(0).random((20_000, 8)))
    blocks = KernelBlocks(X, td.Laplacian(1.0), np.float32, 100)
    for module in (pickle, cloudpickle):
        sent = module.dumps(blocks)
        assert len(sent) < 10_000, "a file stays where it is"
        again = module.loads(sent)
        assert again.tile == 100
        assert again.block(X[:3]).tobytes() == blocks.block(X[:3]).tobytes()
    kept = pickle.loads(pickle.dumps(KernelBlocks(np.array(X[:9]), td.Gaussian("auto"), np.float64)))
    assert kept.n_rows == 9
    assert kept.dtype == np.float64
    assert isinstance(kept.kernel.bandwidth, float)


def test_points_in_disorder_are_left_alone():
    points = sp.csr_array((np.array([1, 2]), np.array([30000, 7]), np.array([0, 2])), shape=(1, 40000))
    rows = sp.csr_array(([3.0, 2.0], ([0, 0], [7, 30000])), shape=(1, 40000))
    assert KernelBlocks(rows, td.Laplacian(1.0)).block(points)[0, 0] == pytest.approx(np.exp(-np.sqrt(2)))
    assert (points.indices.tolist(), points.data.tolist()) == ([30000, 7], [1, 2])


class TestBadInput:
    X = np.random.default_rng(0).normal(size=(20, 3))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
    @pytest.mark.parametrize("as_csr", [False, True])
    def test_a_row_that_is_not_finite_is_named(self, bad, as_csr):
        X = self.X.copy()
        X[13, 1] = bad
        with pytest.raises(InvalidInputError, match=r"row 13 of X has a value that is not finite, or too large.*float32"):
            KernelBlocks(sp.csr_array(X) if as_csr else X, td.Laplacian(1.0))

    def test_points_that_are_not_finite_are_seen_in_their_rows_alone(self):
        Z = self.X[:4].copy()
        Z[2, 0] = np.nan
        P, _ = KernelBlocks(self.X, td.Laplacian(1.0)).product(Z, np.ones((20, 1)))
        assert np.isnan(P).ravel().tolist() == [False, False, True, False]

    def test_shapes_and_types(self):
        blocks = KernelBlocks(self.X, td.Laplacian(1.0))
        with pytest.raises(InvalidInputError, match="Z has 2 features, X has 3"):
            blocks.product(self.X[:, :2], np.ones((20, 1)))
        with pytest.raises(InvalidInputError, match=r"Z must have shape .* not \(3,\); a single row is Z\[None, :\]"):
            blocks.product(self.X[0], np.ones((20, 1)))
        for wrong in (np.ones(20), np.ones((19, 1))):
            with pytest.raises(InvalidInputError, match=r"coefficients must have shape \(20, c\), not "):
                blocks.product(self.X, wrong)
        with pytest.raises(InvalidInputError, match="columns must lie between 0 and 19, not 3 to 20"):
            blocks.product(self.X, np.ones((20, 1)), [3, 20])
        with pytest.raises(InvalidInputError, match="columns must be ascending"):
            blocks.product(self.X, np.ones((20, 1)), [3, 2])
        with pytest.raises(InvalidInputError, match="own must be a list of positions of rows, not float64"):
            blocks.product(self.X, np.ones((20, 1)), own=[0.5] * 20)
        with pytest.raises(InvalidInputError, match="own must have 20 positions, one for each row of Z, not 2"):
            blocks.product(self.X, np.ones((20, 1)), own=[0, 1])
        with pytest.raises(InvalidInputError, match="dtype must be float32 or float64, not float16"):
            KernelBlocks(self.X, td.Laplacian(1.0), np.float16)
        with pytest.raises(InvalidInputError, match="kernel must be a kernel such as"):
            KernelBlocks(self.X, "laplacian")

    @pytest.mark.parametrize(
        ("X", "message"),
        [([[1.0], [1.0, 2.0]], "different lengths"), ([["a"]], "real numbers"), (np.ones((0, 2)), "at least one")],
    )
    def test_what_is_no_matrix(self, X, message):
        with pytest.raises(InvalidInputError, match=message):
            KernelBlocks(X, td.Laplacian(1.0))


@needs_data("fashion-mnist")
def test_values_of_images_are_right_to_single_precision():
    X = td.datasets.load("fashion-mnist").X[:3000]
    exact = laplacian(X[:100], X, 10.0)
    found = KernelBlocks(X, td.Laplacian(10.0)).block(X[:100])
    error = np.abs(found - exact) / exact
    assert np.median(error) < 1.5e-7
    assert error.max() < 2e-5
    assert (np.diag(found) == 1).all()
