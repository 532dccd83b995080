"""Downloads of known data sets into the user's cache, through scikit-learn.

What arrives is compared with what the set is known to be, then written in the format of the published files, so that
`load` reads a download as it reads any other copy.

Rules of this file:

- nothing is written before everything has arrived and was checked; each file is written whole or not at all;
- scikit-learn keeps no second copy;
- whatever goes wrong between here and the server is one `DataError` that says what failed and what else can be done.
"""

from __future__ import annotations

import gzip
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import DataError, InvalidInputError, RunFileError
from tardigrad.core.files import make_folder, write_atomic
from tardigrad.core.task import Array
from tardigrad.datasets.places import find, folders
from tardigrad.datasets.sets import SETS, OnDisk

#: seconds without a byte after which a connection is given up
SILENCE = 60.0
Parts = dict[str, tuple[Array, Array]]


@dataclass(frozen=True)
class Downloaded:
    """A known data set and where it is.

    Attributes
    ----------
    name : str
        Of the set.
    state : {"bundled", "here", "downloaded", "missing"}
        With scikit-learn, on disk before, on disk since now, nowhere.
    folder : str or None
        Where its files are.
    size : int
        Bytes of these files.
    source : str
        Where it comes from.
    """

    name: str
    state: str
    folder: str | None
    size: int
    source: str

    def __str__(self) -> str:
        size = f"{self.size / 1e6:.1f} MB in " if self.size else ""
        return {
            "bundled": f"{self.name}: comes with scikit-learn, there is nothing to download",
            "here": f"{self.name}: here, {size}{self.folder}",
            "downloaded": f"{self.name}: downloaded from {self.source}, {size}{self.folder}",
            "missing": f"{self.name}: not here; tardigrad data {self.name} gets it from {self.source}",
        }[self.state]


def listing() -> list[Downloaded]:
    """The data sets that `load` knows: which are here, where, and where the others come from."""
    return [_look(name) for name in sorted(SETS)]


def download(name: str) -> Downloaded:
    """Download a known data set into the cache, unless it is here.

    Parameters
    ----------
    name : str
        One of `names`.

    Returns
    -------
    Downloaded
        What was done, and where the files are. `load` finds them from now on.

    Raises
    ------
    DataError
        If it cannot be downloaded, or what arrives is not the set; nothing is written then.
    RunFileError
        If the cache cannot be written.

    Examples
    --------
    >>> print(download("digits"))
    digits: comes with scikit-learn, there is nothing to download
    """
    name = str(name).replace("_", "-")
    if name not in SETS:
        raise InvalidInputError(f"unknown data set {name!r}: choose one of {', '.join(sorted(SETS))}")
    found, known = _look(name), SETS[name]
    if found.state != "missing" or not isinstance(known, OnDisk):
        return found
    try:
        folder = make_folder(folders()[-1]) / name  # before anybody waits for a download that cannot be kept
        parts = _fetch(known, folder)
        contents = {
            folder / file: gzip.compress(content, compresslevel=6, mtime=0)
            for stored, (X, y) in parts.items()
            for file, content in zip(known.files[stored], known.write(X, y), strict=True)
        }
        _write(contents)
    except RunFileError as error:
        raise RunFileError(f"{error}: XDG_CACHE_HOME names the cache's folder") from error
    size = sum(map(len, contents.values()))
    return Downloaded(name, "downloaded", str(folder), size, known.source)


def _look(name: str) -> Downloaded:
    known = SETS[name]
    if not isinstance(known, OnDisk):
        return Downloaded(name, "bundled", None, 0, "scikit-learn")
    paths = [find(file) for file in known.all_files()]
    here = [path for path in paths if path is not None]
    if len(here) < len(paths):
        return Downloaded(name, "missing", None, 0, known.source)
    return Downloaded(name, "here", str(here[0].parent), sum(path.stat().st_size for path in here), known.source)


def _write(contents: dict[Path, bytes]) -> None:
    """Write all files or none."""
    written: list[Path] = []
    try:
        for path, content in contents.items():
            make_folder(path.parent)
            written.append(path)
            write_atomic(path, content)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _fetch(known: OnDisk, folder: Path) -> Parts:
    """The stored parts of a set as it is published, checked."""
    try:
        with _patience():
            parts = _FETCH[known.name]()
        for stored, (X, y) in parts.items():
            known.check_shape(stored, X, y)
    except DataError as error:
        raise DataError(f"what {known.source} sent is not {known.name}: {error}") from error
    except Exception as error:  # of the network, of scikit-learn and of its parsers
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise DataError(
            f"cannot download {known.name} from {known.source}: {reason}. Try again where there is a network; or put"
            f" {', '.join(file for files in known.files.values() for file in files)} into {folder}, or into"
            f" {known.name}/ under the folder that TARDIGRAD_DATA names"
        ) from error
    changed = [stored for stored, (X, y) in parts.items() if known.digest(X, y) != known.known[stored]]
    if changed:
        raise DataError(
            f"what {known.source} sent is not {known.name}: other rows in {', '.join(changed)}. Nothing was written; put"
            f" a copy of the set into {folder}"
        )
    return parts


@contextmanager
def _patience() -> Iterator[None]:
    """Give up silent connections, which scikit-learn waits for; and keep its warnings that it tries again to itself."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        socket.setdefaulttimeout(before)


def _openml(number: int) -> tuple[Any, Array]:
    """Rows and targets of a set at OpenML; labels, which are texts there, as numbers."""
    from sklearn.datasets import fetch_openml

    parser = "auto" if find_spec("pandas") else "liac-arff"  # that of pandas is ten times as fast
    X, y = fetch_openml(data_id=number, as_frame=False, return_X_y=True, cache=False, parser=parser)
    return X, np.asarray(y).astype(float)


def _images(number: int) -> Parts:
    X, y = _openml(number)
    small = X.astype(np.uint8), y.astype(np.uint8)
    if X.ndim != 2 or X.shape[1] != 784 or (small[0] != X).any() or (small[1] != y).any():
        raise DataError(f"rows of shape {X.shape} are not 784 bytes each, or labels no bytes")
    X, y = small[0].reshape(-1, 28, 28), small[1]
    return {"train": (X[:60_000], y[:60_000]), "test": (X[60_000:], y[60_000:])}


def _a9a() -> Parts:
    X, y = _openml(1430)
    X = X.toarray() if sp.issparse(X) else X
    return {"train": (X[:32_561], y[:32_561]), "test": (X[32_561:], y[32_561:])}


def _housing() -> Parts:
    from sklearn.datasets import fetch_california_housing

    with tempfile.TemporaryDirectory() as folder:
        X, y = fetch_california_housing(data_home=folder, return_X_y=True)
    return {"all": (X, y)}


_FETCH: dict[str, Callable[[], Parts]] = {
    "fashion-mnist": lambda: _images(40996),
    "mnist": lambda: _images(554),
    "a9a": _a9a,
    "california-housing": _housing,
}
