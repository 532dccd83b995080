"""Where data come from: named sets, files, arrays, functions, made up."""

import gzip

import numpy as np
import pytest
import scipy.sparse as sp

import tardigrad as td
from tardigrad.core.errors import DataError
from tardigrad.core.plain import same_bits
from tardigrad.run_config.arrays import read_array
from tardigrad.run_config.builder import Builder
from tardigrad.run_config.kinds import Kinds
from tardigrad.run_config.place import Place
from tardigrad.run_config.sections import Sections
from tardigrad.run_config.text import RunFile

X = np.random.default_rng(0).normal(size=(6, 3))
Y = np.arange(6.0)


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", Y)
    np.savez(tmp_path / "both.npz", X=X, y=Y)
    np.savez(tmp_path / "one.npz", y=Y)
    for kind in ("csr", "coo", "bsr", "dia"):
        sp.save_npz(tmp_path / f"{kind}.npz", sp.coo_array(X).asformat(kind))
    np.savetxt(tmp_path / "y.txt", Y)
    np.savetxt(tmp_path / "X.csv", X, delimiter=",", header="a,b,c", comments="", fmt="%.17g")
    np.savetxt(tmp_path / "Xy.csv", np.column_stack([X, Y]), delimiter=",", header="a,b,c,y", comments="", fmt="%.17g")
    (tmp_path / "Xy.svm").write_text("".join(f"{y} 1:{x[0]!r} 3:{x[2]!r}\n" for x, y in zip(X.tolist(), Y, strict=True)))
    (tmp_path / "mine.py").write_text("import numpy as np\n\ndef load():\n    return np.eye(3), np.arange(3.0)\n")
    return tmp_path


def data(table, folder):
    return Builder(folder, Kinds()).data(table, Place("run.toml", ("data",)))


@pytest.mark.parametrize(
    ("x", "y"),
    [("X.npy", "y.npy"), ("both.npz:X", "both.npz:y"), ("X.csv", "y.txt"), ("X.npy", "one.npz"), (X.tolist(), Y.tolist())],
)
def test_arrays(folder, x, y):
    found = td.Dataset(*data({"X": x, "y": y}, folder))
    assert same_bits((found.X, found.y), (X, Y))


@pytest.mark.parametrize("kind", ["csr", "coo", "bsr", "dia"])
def test_sparse_rows_stay_sparse(folder, kind):
    found = td.Dataset(*data({"X": f"{kind}.npz", "y": "y.npy"}, folder))
    assert sp.issparse(found.X)
    assert same_bits(found.X.toarray(), X)


def test_files_of_rows_and_targets(folder):
    found = data({"csv": "Xy.csv", "target": "y"}, folder)
    assert same_bits((found.X, found.y), (X, Y))
    found = data({"libsvm": "Xy.svm", "n_features": 5}, folder)
    assert found.X.shape == (6, 5)
    assert same_bits(found.X.toarray()[:, [0, 2]], X[:, [0, 2]])


def test_named_sets_are_saved_by_name(folder):
    found = data({"name": "digits", "part": "test"}, folder)
    assert same_bits(found, td.datasets.load("digits", "test"))


def test_a_function_of_ones_own(folder):
    x, y = data({"function": "mine.py:load"}, folder)
    assert (x.tolist(), y.tolist()) == (np.eye(3).tolist(), [0.0, 1.0, 2.0])


def test_made_up_rows_are_linear_and_the_same_for_a_seed(folder):
    x, y = data({"rows": 50, "columns": 4}, folder)
    assert np.abs(x @ np.linalg.lstsq(x, y)[0] - y).max() < 1e-12
    assert same_bits((x, y), data({"rows": 50, "columns": 4, "seed": 0}, folder))
    noisy = data({"rows": 5000, "columns": 4, "noise": 0.5, "seed": 1}, folder)
    residual = noisy[1] - noisy[0] @ np.linalg.lstsq(*noisy)[0]
    assert abs(residual.std() - 0.5) < 0.03
    assert not same_bits(noisy[0][:50], x)


def test_a_matrix_in_a_file_is_mapped_and_a_vector_read(folder):
    assert isinstance(read_array(folder / "X.npy"), np.memmap)
    assert not isinstance(read_array(folder / "y.npy"), np.memmap)
    np.save(folder / "F.npy", np.asfortranarray(X))
    assert same_bits(read_array(folder / "F.npy").copy(order="C"), X)  # in the order of columns it is read


def test_text_may_be_gzipped(folder):
    with gzip.open(folder / "y.txt.gz", "wt") as file:
        file.write("\n".join(map(str, Y)))
    assert same_bits(read_array(folder / "y.txt.gz"), Y)


def test_text_without_numbers_is_an_error(folder):
    (folder / "no.txt").write_text("")
    with pytest.raises(DataError, match=r"no\.txt holds no numbers"):
        read_array(folder / "no.txt")


def test_nothing_in_a_file_is_run(folder):
    np.save(folder / "o.npy", np.array([print], object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read as an array"):
        read_array(folder / "o.npy")


def problem(text, folder):
    others = '[rule]\nkind = "AsyncSGD"\nstep = 0.1\n[engine]\nkind = "Threads"\n'
    return Sections(RunFile.of_text(others + text, "run.toml", folder)).problem()


def test_data_and_partition_are_handed_to_the_problem(folder):
    text = '[data]\nX = "X.npy"\ny = "y.npy"\n[partition]\nkind = "Iid"\nn_clients = 2\n'
    text += '[problem]\nkind = "LeastSquares"\nbatch = 1\n'
    assert same_bits(problem(text, folder), td.LeastSquares((X, Y), td.Iid(2), batch=1))


def test_data_of_a_kernel_machine_and_of_a_system(folder):
    text = '[data]\nX = "both.npz:X"\ny = "y.npy"\n[problem]\nkind = "KernelInterpolation"\nkernel = { kind = "Gaussian" }\n'
    assert same_bits(problem(text, folder), td.KernelInterpolation(X, Y, td.Gaussian()))
    text = '[data]\nX = "both.npz:X"\ny = "y.npy"\n[problem]\nkind = "LinearSystem"\n'
    assert same_bits(problem(text, folder), td.LinearSystem(X, Y))
    text = '[problem]\nkind = "LinearSystem"\nA = "X.npy"\nb = "y.npy"\n'
    found = problem(text, folder)
    assert found.is_file
    assert same_bits(np.array(found.A), X)
    text = '[data]\nname = "digits"\n[problem]\nkind = "LinearSystem"\nn_clients = 2\n'
    digits = td.datasets.load("digits")
    assert same_bits(problem(text, folder), td.LinearSystem(digits.X, digits.y, n_clients=2))


def test_test_data_come_from_anywhere_too(folder):
    text = '[data]\nX = "X.npy"\ny = "y.npy"\n[problem]\nkind = "LeastSquares"\ntest = { csv = "Xy.csv", target = "y" }\n'
    assert same_bits(problem(text, folder), td.LeastSquares((X, Y), test=(X, Y)))
