"""Downloads: what arrives is what is read afterwards, or nothing is written and the message says why."""

import functools
import gzip
import http.client
import json
import os
from pathlib import Path
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.datasets

from command_line import tardigrad
from needs import needs_data
from tardigrad import datasets
from tardigrad.core.errors import DataError, InvalidInputError, RunFileError
from tardigrad.datasets import download, downloads, load
from tardigrad.datasets.places import locate, rows_digest
from tardigrad.datasets.readers import as_csv, as_idx, as_libsvm, read_csv, read_idx, read_libsvm
from tardigrad.datasets.sets import HOUSING, SETS

FETCHED = ["fashion-mnist", "mnist", "a9a", "california-housing"]
OPENML = {"fashion-mnist": 40996, "mnist": 554, "a9a": 1430}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no other folder to look in."""
    monkeypatch.setenv("TARDIGRAD_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tardigrad"


def published(name):
    """Rows and targets of a set, all parts one after another, as they are in the files on this disk."""
    known = SETS[name]
    parts = [known.read(*(locate(f"{name}/{file}") for file in files)) for files in known.files.values()]
    return np.concatenate([X for X, _ in parts]), np.concatenate([y for _, y in parts])


@functools.cache
def small_images():
    """Images with the numbers of digits that MNIST has, all pixels but one black; as bytes, for floats fill half a gigabyte."""
    counts = [list(map(int, text.split())) for text in SETS["mnist"].known.values()]
    rng = np.random.default_rng(0)
    labels = np.concatenate([rng.permutation(np.repeat(np.arange(10), part)) for part in counts])
    X = np.zeros((70_000, 784), np.uint8)
    X[:, 300] = labels * 20 + 1
    X.flags.writeable = False
    return X, labels


def stands_in(monkeypatch, answer, calls=None):
    """Let scikit-learn's two functions give `answer`, or raise it."""

    def fetch(*args, **kwargs):
        if calls is not None:
            calls.append(kwargs)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    monkeypatch.setattr(sklearn.datasets, "fetch_california_housing", fetch)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


# --- what arrives is what is read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_data(name)) for name in FETCHED if name != "mnist"])
def test_a_download_is_the_set_in_every_bit_and_raises_no_warning(name, cache, monkeypatch):
    monkeypatch.undo()
    expected = {part: load(name, part) for part in ("train", "test")}
    X, y = published(name)
    with monkeypatch.context() as patch:
        patch.setenv("TARDIGRAD_DATA", "")
        patch.setenv("XDG_CACHE_HOME", str(cache.parent))
        labels = y if name == "california-housing" else np.array([str(int(label)) for label in y], object)
        calls = []
        stands_in(patch, (sp.csr_matrix(X) if name == "a9a" else X.reshape(len(X), -1).astype(float), labels), calls)
        assert not datasets.available(name)
        found = download(name)
        assert (found.state, found.folder) == ("downloaded", str(cache / name))
        assert found.size == sum(path.stat().st_size for path in (cache / name).iterdir())
        assert datasets.available(name)
        for part, known in expected.items():
            data = load(name, part)
            assert data.digest == known.digest
            assert (data.X.dtype, data.y.dtype) == (known.X.dtype, known.y.dtype)
        again = download(name)
        assert (again.state, again.folder, again.size) == ("here", str(cache / name), found.size)
    assert len(calls) == 1
    if name in OPENML:
        assert calls[0]["data_id"] == OPENML[name]
        assert (calls[0]["as_frame"], calls[0]["cache"]) == (False, False)


def test_mnist_is_known_by_the_numbers_of_its_digits(cache, monkeypatch):
    X, labels = small_images()
    stands_in(monkeypatch, (X, labels.astype(str).astype(object)))
    assert download("mnist").state == "downloaded"
    train, test = load("mnist"), load("mnist", "test")
    assert (train.X.shape, test.X.shape) == ((60_000, 784), (10_000, 784))
    assert np.array_equal(np.concatenate([train.y, test.y]), labels)
    assert np.array_equal(np.round(train.X[:, 300] * 255), train.y * 20 + 1)


@needs_data("a9a")
def test_rows_in_another_order_are_the_same_set(cache, monkeypatch):
    monkeypatch.setenv("TARDIGRAD_DATA", os.environ.get("TARDIGRAD_DATA", ""))
    monkeypatch.undo()
    X, y = published("a9a")
    order = np.random.default_rng(0).permutation(32_561)
    order = np.concatenate([order, np.arange(32_561, 48_842)])
    monkeypatch.setenv("TARDIGRAD_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    stands_in(monkeypatch, (sp.csr_matrix(X[order]), y[order]))
    download("a9a")
    assert np.array_equal(load("a9a").X, X[order[:32_561]])


def test_a_set_of_scikit_learn_is_not_downloaded(cache, monkeypatch):
    stands_in(monkeypatch, AssertionError("fetched"))
    for name in ("digits", "breast-cancer", "breast_cancer"):
        assert download(name).state == "bundled"
    assert files_in(cache) == []


def test_an_unknown_name_is_refused_before_anything(cache):
    with pytest.raises(InvalidInputError, match="unknown data set 'cifar': choose one of a9a, breast-cancer"):
        download("cifar")
    assert not cache.exists()


def test_the_listing_says_what_is_where(cache, monkeypatch):
    found = {each.name: each for each in datasets.listing()}
    assert list(found) == datasets.names()
    assert {name for name, each in found.items() if each.state == "missing"} == set(FETCHED)
    assert found["mnist"].source == "OpenML 554"
    assert str(found["mnist"]) == "mnist: not here; tardigrad data mnist gets it from OpenML 554"
    X, labels = small_images()
    stands_in(monkeypatch, (X, labels.astype(float)))
    download("mnist")
    here = {each.name: each for each in datasets.listing()}["mnist"]
    assert (here.state, here.folder) == ("here", str(cache / "mnist"))
    assert str(here).startswith("mnist: here, ")


# --- what does not arrive, or is something else --------------------------------------------------------------------------


@pytest.mark.parametrize("name", FETCHED)
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (URLError(OSError("Name or service not known")), "Name or service not known"),
        (HTTPError("https://openml.org", 503, "Service Unavailable", {}, None), "Service Unavailable"),
        (TimeoutError("timed out"), "timed out"),
        (TimeoutError(), "TimeoutError"),
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
        (http.client.IncompleteRead(b"123"), "IncompleteRead"),
        (ValueError("md5 checksum of local file does not match"), "md5 checksum"),
        (EOFError("Compressed file ended"), "Compressed file ended"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_failed_download_says_what_failed_and_the_other_way(name, error, reason, cache, monkeypatch):
    stands_in(monkeypatch, error)
    with pytest.raises(DataError) as caught:
        download(name)
    message = str(caught.value)
    assert message.startswith(f"cannot download {name} from ")
    assert reason in message
    assert str(cache / name) in message
    assert "TARDIGRAD_DATA" in message
    assert all(Path(file).name in message for file in SETS[name].all_files())
    assert files_in(cache) == []
    assert not (cache / name).exists()


def images_but(change):
    X, labels = small_images()
    return change(X, labels.astype(float))


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("mnist", lambda: images_but(lambda X, y: (X[:-1], y[:-1])), r"shape \(9999, 28, 28\), expected \(10000"),
        ("mnist", lambda: images_but(lambda X, y: (X, y[:-1])), "targets of mnist have shape"),
        ("mnist", lambda: images_but(lambda X, y: (X[:, :-1], y)), "are not 784 bytes each"),
        ("mnist", lambda: images_but(lambda X, y: (X[0], y)), "are not 784 bytes each"),
        ("mnist", lambda: images_but(lambda X, y: (X * np.uint16(2), y)), "are not 784 bytes each"),
        ("mnist", lambda: images_but(lambda X, y: (X / np.float32(2), y)), "are not 784 bytes each"),
        ("mnist", lambda: images_but(lambda X, y: (np.where(X > 100, np.float32(np.nan), X), y)), "are not 784 bytes each"),
        ("mnist", lambda: images_but(lambda X, y: (X, y[::-1].copy())), "other rows in train, test"),
        ("mnist", lambda: images_but(lambda X, y: (X, y - 1)), "not 784 bytes each"),
        ("mnist", lambda: images_but(lambda X, y: (X, np.full(70_000, "boot", object))), "could not convert"),
        ("fashion-mnist", lambda: images_but(lambda X, y: (X, y)), "other rows in train, test"),
        ("a9a", lambda: (sp.csr_matrix((48_842, 123)), np.ones(48_842)), "other rows in train, test"),
        ("a9a", lambda: (sp.csr_matrix((48_842, 122)), np.ones(48_842)), r"\(32561, 122\), expected \(32561, 123\)"),
        ("a9a", lambda: (sp.csr_matrix((10, 123)), np.ones(10)), r"\(10, 123\), expected \(32561, 123\)"),
        ("california-housing", lambda: (np.ones((20_640, 8)), np.ones(20_640)), "other rows in all"),
        ("california-housing", lambda: (np.ones((20_640, 9)), np.ones(20_640)), r"\(20640, 9\), expected \(20640, 8\)"),
        ("california-housing", lambda: "no rows", "too many values"),
    ],
)
def test_what_is_not_the_set_is_not_written(name, answer, message, cache, monkeypatch):
    stands_in(monkeypatch, answer())
    with pytest.raises(DataError, match=message):
        download(name)
    assert files_in(cache) == []


def test_an_interrupted_download_leaves_nothing(cache, monkeypatch):
    stands_in(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        download("mnist")
    assert files_in(cache) == []
    assert not datasets.available("mnist")


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "Ctrl-C"])
def test_files_that_cannot_all_be_written_are_removed(failure, cache, monkeypatch):
    stands_in(monkeypatch, images_but(lambda X, y: (X, y)))
    places = []

    def full(path, content):
        places.append(path)
        if len(places) == 3:
            raise RunFileError(f"cannot write {path}: {failure.strerror}.") if isinstance(failure, OSError) else failure
        Path(path).write_bytes(content)

    monkeypatch.setattr(downloads, "write_atomic", full)
    expected = RunFileError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        download("mnist")
    if isinstance(failure, OSError):
        assert "No space left on device" in str(caught.value)
        assert "XDG_CACHE_HOME" in str(caught.value)
    assert len(places) == 3
    assert files_in(cache) == []


def test_a_cache_that_cannot_be_written_is_noticed_before_the_download(cache, monkeypatch):
    stands_in(monkeypatch, AssertionError("fetched"))
    cache.parent.write_text("a file, not a folder")
    with pytest.raises(RunFileError, match=r"cannot write .*XDG_CACHE_HOME names the cache"):
        download("mnist")


def test_silent_connections_are_given_up_and_the_limit_is_put_back(cache, monkeypatch):
    import socket

    limits = []
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda **_: limits.append(socket.getdefaulttimeout()))
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(7.0)
    try:
        with pytest.raises(DataError):
            download("a9a")
        assert socket.getdefaulttimeout() == 7.0
    finally:
        socket.setdefaulttimeout(before)
    assert limits == [60.0]


def test_without_pandas_the_other_parser_is_asked_for(cache, monkeypatch):
    calls = []
    stands_in(monkeypatch, URLError("none"), calls)
    for found, parser in ((None, "liac-arff"), ("a spec", "auto")):
        monkeypatch.setattr(downloads, "find_spec", lambda name, found=found: found)
        with pytest.raises(DataError):
            download("mnist")
        assert calls[-1]["parser"] == parser


# --- writers --------------------------------------------------------------------------------------------------------------


def test_writers_give_what_readers_give_back(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 3, 2)).astype(np.uint8)
    (tmp_path / "i.gz").write_bytes(gzip.compress(as_idx(images)))
    assert np.array_equal(read_idx(tmp_path / "i.gz"), images)
    X, y = (rng.random((20, 6)) < 0.3).astype(float), rng.choice([-1.0, 1.0], 20)
    X[4] = 0
    (tmp_path / "l").write_bytes(as_libsvm(X, y))
    data = read_libsvm(tmp_path / "l", n_features=6)
    assert np.array_equal(data.X.toarray(), X)
    assert np.array_equal(data.y, y)
    X, y = rng.normal(size=(20, 8)) * 10.0 ** rng.integers(-12, 12, (20, 8)), rng.normal(size=20)
    (tmp_path / "c.csv").write_bytes(as_csv(X, y, HOUSING))
    data = read_csv(tmp_path / "c.csv", HOUSING[-1])
    assert np.array_equal(data.X, X)
    assert np.array_equal(data.y, y)


def test_a_digest_of_rows_notices_all_but_their_order():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
    order = rng.permutation(30)
    assert rows_digest(X, y) == rows_digest(X[order], y[order])
    twice = X.copy()
    twice[3] = twice[4]
    nudged = X.copy()
    nudged[7, 2] = np.nextafter(nudged[7, 2], 9)
    for other in (twice, nudged, X[:, ::-1], np.vstack([X[1:], X[1:2]])):
        assert rows_digest(other, y) != rows_digest(X, y)
    assert rows_digest(X[:-1], y[:-1]) != rows_digest(X, y)


# --- the command ----------------------------------------------------------------------------------------------------------


def test_the_command_lists_and_downloads(cache, tmp_path):
    done = tardigrad("data", cwd=tmp_path, width=200)
    assert done.returncode == 0
    assert "digits: comes with scikit-learn" in done.stdout
    assert "a9a: not here; tardigrad data a9a gets it from OpenML 1430" in done.stdout
    listed = json.loads(tardigrad("data", "--json", cwd=tmp_path).stdout)
    assert [each["name"] for each in listed] == datasets.names()
    done = tardigrad("data", "digits", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["state"] == "bundled"


def test_the_command_without_a_network_is_one_message(cache, tmp_path, monkeypatch):
    stands_in(monkeypatch, URLError("no route to host"))
    done = tardigrad("data", "a9a", cwd=tmp_path, width=200)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "tardigrad: cannot download a9a from OpenML 1430: no route to host" in done.stderr


def test_ctrl_c_ends_the_command_with_130(cache, tmp_path, monkeypatch):
    stands_in(monkeypatch, KeyboardInterrupt())
    done = tardigrad("data", "a9a", cwd=tmp_path, width=200)
    assert done.returncode == 130
    assert done.stdout == ""
    assert done.stderr.endswith("tardigrad: interrupted, nothing of a9a was written\n")
