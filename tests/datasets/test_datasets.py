"""Data sets by name and readers of files: a broken or missing file is an error that names it."""

import gzip
import json
import struct

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import dump_svmlight_file, load_breast_cancer, load_digits

from needs import needs_data
from tardigrad import datasets
from tardigrad.core.errors import DataError, InvalidInputError
from tardigrad.core.plain import decode, encode
from tardigrad.datasets import load, read_csv, read_idx, read_libsvm

FILES = ["fashion-mnist", "a9a", "california-housing"]


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """Data are looked for in two empty folders only."""
    monkeypatch.setenv("TARDIGRAD_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def idx(array, code=8, n_axes=None):
    """The bytes of an IDX file."""
    n_axes = array.ndim if n_axes is None else n_axes
    return struct.pack(f">4B{n_axes}I", 0, 0, code, n_axes, *array.shape[:n_axes]) + array.tobytes()


def write(path, content):
    """Write bytes, gzipped where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


# --- by name ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "source", "scale"),
    [("digits", load_digits, 16.0), ("breast-cancer", load_breast_cancer, 1.0)],
    ids=["digits", "breast-cancer"],
)
def test_bundled_sets_are_split_into_four_fifths_and_one_fifth_without_loss(name, source, scale):
    X, y = source(return_X_y=True)
    train, test = load(name), load(name, "test")
    assert len(test) == len(y) // 5
    assert len(train) + len(test) == len(y)
    found = np.vstack([np.column_stack([part.X * scale, part.y]) for part in (train, test)])
    expected = np.column_stack([X, y])
    assert np.array_equal(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)])
    assert set(train.y) == set(test.y) == set(y)


def test_pixels_of_digits_are_between_0_and_1():
    X = load("digits").X
    assert (X.min(), X.max()) == (0, 1)


def test_the_split_never_changes():
    # results that were published or saved depend on it
    assert load("digits", "test").y[:16].tolist() == [1, 2, 4, 8, 2, 3, 5, 9, 0, 5, 7, 0, 0, 6, 1, 3]
    assert load("breast-cancer", "test").X[:6, 0].tolist() == [20.57, 11.42, 20.29, 12.46, 9.504, 15.34]


@needs_data("fashion-mnist")
@pytest.mark.parametrize(("part", "n_rows"), [("train", 60_000), ("test", 10_000)])
def test_fashion_mnist(part, n_rows):
    data = load("fashion-mnist", part)
    assert data.X.shape == (n_rows, 784)
    assert data.X.dtype == np.float32
    assert (data.X.min(), data.X.max()) == (0, 1)
    assert np.bincount(data.y).tolist() == [n_rows // 10] * 10
    # the classes are garments, not noise: their mean images are far apart and each image is near its own
    means = np.array([data.X[data.y == label].mean(0) for label in range(10)])
    sample = data.X[:2000]
    nearest = (((sample[:, None] - means) ** 2).sum(-1)).argmin(-1)
    assert (nearest == data.y[:2000]).mean() > 0.6


@needs_data("a9a")
@pytest.mark.parametrize(("part", "n_rows", "n_positive"), [("train", 32_561, 7_841), ("test", 16_281, 3_846)])
def test_a9a(part, n_rows, n_positive):
    data = load("a9a", part)
    assert data.X.shape == (n_rows, 123)
    assert set(np.unique(data.X)) == {0, 1}
    assert {int(label): int((data.y == label).sum()) for label in (-1, 1)} == {-1: n_rows - n_positive, 1: n_positive}
    assert data.X.sum(1).max() == 14


@needs_data("california-housing")
def test_california_housing():
    train, test = load("california-housing"), load("california-housing", "test")
    assert (train.X.shape, test.X.shape) == ((16_512, 8), (4_128, 8))
    y = np.concatenate([train.y, test.y])
    assert (y.min(), y.max()) == pytest.approx((0.14999, 5.00001))
    assert y.mean() == pytest.approx(2.0685581690891473)
    income = np.concatenate([train.X[:, 0], test.X[:, 0]])
    assert income.mean() == pytest.approx(3.8706710029069766)


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_data(name)) for name in FILES])
def test_the_files_on_disk_are_those_that_results_were_made_with(name):
    load(name), load(name, "test")  # which warns, an error here, about any others


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        pytest.param("fashion-mnist", "195d66a8433bad24", "6816cb968b6cb741", marks=needs_data("fashion-mnist")),
        pytest.param("a9a", "a5bc4028fb2d007e", "e450c3f67526a218", marks=needs_data("a9a")),
        pytest.param("california-housing", "b358bcd8c86b4d9d", "f227dbf37ea86a7a", marks=needs_data("california-housing")),
        ("digits", "72b5729a9b37b208", "f69b7a5d5af646df"),
    ],
)
def test_fingerprints_never_change(name, train, test):
    # saved runs are loaded by them
    assert [load(name, part).digest[:16] for part in ("train", "test")] == [train, test]


def test_names_are_those_that_load_knows():
    assert datasets.names() == sorted(["digits", "breast-cancer", "mnist", *FILES])


@pytest.mark.parametrize("name", ["cifar", "", "../digits"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(
        InvalidInputError,
        match=r"unknown data set .*: choose one of a9a, breast-cancer, california-housing, digits, fashion-mnist, mnist$",
    ):
        load(name)


def test_an_unknown_name_is_not_available():
    assert not datasets.available("no-such-set")


@pytest.mark.parametrize("part", ["validation", "", None])
def test_an_unknown_part_is_refused(part):
    with pytest.raises(InvalidInputError, match="part must be 'train' or 'test', not"):
        load("digits", part)


def test_repr_names_the_set():
    assert repr(load("breast-cancer", "test")) == "<breast-cancer, test part: 113 rows, 30 features, float64>"


# --- where files are looked for -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", ["train", "test"])
def test_missing_files_are_named_with_the_folders_and_the_variable(name, part, nowhere):
    with pytest.raises(DataError) as caught:
        load(name, part)
    message = str(caught.value)
    assert message.startswith(f"{name}/")
    assert str(nowhere / "data") in message
    assert str(nowhere / "cache" / "tardigrad") in message
    assert f"download it with 'tardigrad data {name}'" in message
    assert "set TARDIGRAD_DATA to the folder that holds " + name in message


def test_bundled_sets_are_available_everywhere_and_files_only_where_they_are(nowhere):
    assert datasets.available("digits")
    assert [datasets.available(name) for name in FILES] == [False] * 3
    write(nowhere / "data" / "a9a" / "a9a.gz", b"")
    assert not datasets.available("a9a")
    write(nowhere / "cache" / "tardigrad" / "a9a" / "a9a.t.gz", b"")
    assert datasets.available("a9a")


def test_folders_are_those_of_the_variable_then_of_the_cache(nowhere, monkeypatch):
    data, cache = nowhere / "data", nowhere / "cache" / "tardigrad"
    assert datasets.folders() == [data, cache]
    monkeypatch.setenv("TARDIGRAD_DATA", "")
    assert datasets.folders() == [cache]
    monkeypatch.delenv("TARDIGRAD_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(nowhere / "home"))
    assert datasets.folders() == [nowhere / "home" / ".cache" / "tardigrad"]


def housing(seed):
    """A file like that of california-housing, with other numbers."""
    table = np.random.default_rng(seed).integers(0, 10, (20_640, 9))
    names = ["MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude", "MedHouseVal"]
    return "\n".join([",".join(names), *(",".join(row) for row in table.astype(str).tolist())]).encode()


def test_a_file_other_than_the_known_one_is_read_with_a_warning(nowhere):
    write(nowhere / "data" / "california-housing" / "california_housing.csv.gz", housing(0))
    with pytest.warns(UserWarning, match=r"california_housing\.csv\.gz is not the copy that published results were made with"):
        data = load("california-housing", "test")
    assert data.X.shape == (4_128, 8)


def test_a_file_of_another_shape_is_refused(nowhere):
    write(nowhere / "data" / "a9a" / "a9a.gz", b"1 3:1\n-1 5:1\n")
    with pytest.raises(DataError, match=r"a9a have shape \(2, 123\), expected \(32561, 123\)"):
        load("a9a")


# --- saved with a run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_named_set_is_saved_by_name_and_comes_back(part):
    data, arrays = load("breast-cancer", part), {}
    tree = json.loads(json.dumps(encode(data, arrays)))
    assert arrays == {}
    assert len(json.dumps(tree)) < 300
    back = decode(tree, arrays)
    assert np.array_equal(back.X, data.X)
    assert np.array_equal(back.y, data.y)
    assert (back.name, back.part, back.digest) == ("breast-cancer", part, data.digest)


def test_parts_and_sets_have_different_fingerprints():
    digests = {load(name, part).digest for name in ("digits", "breast-cancer") for part in ("train", "test")}
    assert len(digests) == 4


def test_another_copy_than_that_of_the_run_is_refused():
    tree = encode(load("digits"), {}) | {"digest": "0123456789abcdef"}
    with pytest.raises(
        DataError,
        match=r"train part of digits found here differs .*not 0123456789ab; .*: put that copy under TARDIGRAD_DATA",
    ):
        decode(tree, {})


def test_a_file_that_changed_after_the_run_was_saved_is_noticed(nowhere):
    path = nowhere / "data" / "california-housing" / "california_housing.csv.gz"
    write(path, housing(0))
    with pytest.warns(UserWarning, match="is not the copy"):
        tree = encode(load("california-housing"), {})
    write(path, housing(1))
    with (
        pytest.warns(UserWarning, match="is not the copy"),
        pytest.raises(DataError, match="differs from the one the run was made with"),
    ):
        decode(tree, {})


# --- IDX ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["images.idx", "images.gz"])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (3, 2, 4)])
def test_an_idx_file_is_read(tmp_path, name, shape):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    found = read_idx(write(tmp_path / name, idx(array)))
    assert found.dtype == np.uint8
    assert np.array_equal(found, array)


ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file of bytes: it begins with , not 000008"),
        (b"\0\0\x08", "is not an IDX file"),
        (b"P5 28 28 255\n", "it begins with 50352032, not 000008"),
        (b"\x01" + idx(ARRAY)[1:], "is not an IDX file"),
        (idx(ARRAY, code=0x0D), "it begins with 00000d03, not 000008"),
        (idx(ARRAY)[:3] + b"\0", "is not an IDX file"),
        (idx(ARRAY)[:-1], "holds 23 values, its header says 2x3x4: it was cut short or changed"),
        (idx(ARRAY) + b"\0", "holds 25 values, its header says 2x3x4"),
        (struct.pack(">4B3I", 0, 0, 8, 3, 2, 3, 5) + ARRAY.tobytes(), "holds 24 values, its header says 2x3x5"),
        (idx(ARRAY)[:9], "cut short|header"),
        (idx(ARRAY)[:4], "cut short|header"),
        (struct.pack(">4B4I", 0, 0, 8, 4, *[2**16] * 4), "holds 0 values, its header says 65536x65536x65536x65536"),
    ],
    ids=[
        "empty",
        "three bytes",
        "another format",
        "first byte",
        "floats",
        "no axes",
        "one byte less",
        "one byte more",
        "larger shape",
        "cut in the header",
        "cut before the shape",
        "size that overflows",
    ],
)
def test_a_file_that_is_no_whole_idx_file_is_named(tmp_path, content, message):
    with pytest.raises(DataError, match=rf"odd\.idx.*({message})"):
        read_idx(write(tmp_path / "odd.idx", content))


# --- LIBSVM and CSV --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.txt", "rows.gz"])
def test_a_libsvm_file_is_read(tmp_path, name):
    content = b"+1 1:0.5 3:-2e-3  # a comment\n-1 2:7\n+1\n"
    data = read_libsvm(write(tmp_path / name, content))
    assert isinstance(data.X, sp.csr_array)
    assert data.X.dtype == np.float64
    assert data.X.toarray().tolist() == [[0.5, 0, -0.002], [0, 7, 0], [0, 0, 0]]
    assert data.y.tolist() == [1, -1, 1]


def test_a_libsvm_file_as_scikit_learn_writes_it_comes_back(tmp_path):
    X, y = load_breast_cancer(return_X_y=True)
    dump_svmlight_file(X, y, str(tmp_path / "rows.txt"), zero_based=False)
    data = read_libsvm(tmp_path / "rows.txt", n_features=30)
    assert np.allclose(data.X.toarray(), X, rtol=1e-14)
    assert np.array_equal(data.y, y)


def test_the_number_of_features_may_be_said(tmp_path):
    path = write(tmp_path / "rows.txt", b"1 1:1\n0 2:1\n")
    assert read_libsvm(path, n_features=9).X.shape == (2, 9)


@pytest.mark.parametrize(
    ("content", "n_features"),
    [
        (b"1 1:1 3:1\n", 2),
        (b"1 1:one\n", None),
        (b"label 1:1\n", None),
        (b"a,b,c\n1,2,3\n", None),
        (b"1 2:1 1:1\n", None),
        (b"\xff\xfe\x00", None),
        (b"", None),
        (b"1 1:nan\n", None),
        (b"nan 1:1\n", None),
    ],
    ids=["too many features", "word", "label", "csv", "unsorted", "binary", "empty", "nan", "nan label"],
)
def test_a_broken_libsvm_file_is_named(tmp_path, content, n_features):
    with pytest.raises(DataError, match=r"rows\.txt"):
        read_libsvm(write(tmp_path / "rows.txt", content), n_features)


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_csv_file_is_read(tmp_path, name, newline):
    text = newline.join(['"a", price ,b', "1,2.5,-3", "4,5e3,6", ""])
    data = read_csv(write(tmp_path / name, text.encode()), target="price")
    assert data.X.tolist() == [[1, -3], [4, 6]]
    assert data.y.tolist() == [2.5, 5000]


def test_another_delimiter_and_a_single_row_will_do(tmp_path):
    data = read_csv(write(tmp_path / "t.csv", b"y;x\n1;2\n"), target="y", delimiter=";")
    assert (data.X.tolist(), data.y.tolist()) == ([[2]], [1])


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    data = read_csv(write(tmp_path / "t.csv", "\ufeffy,x\n1,2\n".encode()), target="y")
    assert data.y.tolist() == [1]


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    with pytest.raises(DataError, match=r"t\.csv has no column 'z'; it has x, y"):
        read_csv(write(tmp_path / "t.csv", b"x,y\n1,2\n"), target="z")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x,y\n",
        b"x,y\n1,two\n",
        b"x,y\n1,2\n3\n",
        b"x,y\n1,2,3\n4,5,6\n",
        b"x,y,z\n1,2\n3,4\n",
        b"x,y\n1,\n",
        b"x,y\n1,nan\n",
        b"x,y\ninf,1\n",
        b"x,y\n\xff\xfe,1\n",
        b"y\n1\n",
    ],
    ids=[
        "empty",
        "header only",
        "word",
        "short row",
        "more than the header",
        "less than the header",
        "hole",
        "nan",
        "inf",
        "binary",
        "target only",
    ],
)
def test_a_broken_csv_file_is_named(tmp_path, content):
    with pytest.raises(DataError, match=r"t\.csv"):
        read_csv(write(tmp_path / "t.csv", content), target="y")


# --- files in general ---------------------------------------------------------------------------------------------


READERS = pytest.mark.parametrize(
    "read", [read_idx, read_libsvm, lambda path: read_csv(path, "y")], ids=["idx", "libsvm", "csv"]
)


@READERS
@pytest.mark.parametrize("cut", [1, 8, 12, 30])
def test_a_truncated_gzip_file_is_named(tmp_path, read, cut):
    path = write(tmp_path / "rows.gz", bytes(range(256)) * 20)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"rows\.gz is truncated or corrupt .*: get it again"):
        read(path)


@READERS
@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"plain text",
        lambda b: b[:12] + bytes([b[12] ^ 0xFF]) + b[13:],
        lambda b: b[:-6] + bytes([b[-6] ^ 1]) + b[-5:],
    ],
)
def test_a_corrupt_gzip_file_is_named(tmp_path, read, damage):
    content = gzip.compress(np.random.default_rng(0).bytes(4000))
    (tmp_path / "rows.gz").write_bytes(damage(content))
    with pytest.raises(DataError, match=r"rows\.gz is truncated or corrupt"):
        read(tmp_path / "rows.gz")


@READERS
@pytest.mark.parametrize("name", ["none.txt", "none.gz"])
def test_a_missing_file_is_named(tmp_path, read, name):
    with pytest.raises(DataError, match=rf"cannot read .*{name}: No such file"):
        read(tmp_path / name)


@READERS
def test_a_folder_is_no_file(tmp_path, read):
    with pytest.raises(DataError, match=r"cannot read .*: Is a directory"):
        read(tmp_path)
