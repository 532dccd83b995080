"""The data sets that have a name: their files, how these are read, and what must be in them.

Rules of this file:

- a set is a table entry: nothing else in the library knows its name;
- arrays as they are in the files (`read`) and as users get them (`finish`) are told apart: the first are what a download
  writes and what is compared with what results were made with.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tardigrad.core.errors import DataError
from tardigrad.core.streams import Domain, Stream
from tardigrad.core.task import Array
from tardigrad.datasets.places import locate, rows_digest
from tardigrad.datasets.readers import as_csv, as_idx, as_libsvm, read_csv, read_idx, read_libsvm

Part = Literal["train", "test"]
Rows = tuple[Any, Array]

HOUSING = ("MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude", "MedHouseVal")


@dataclass(frozen=True)
class Bundled:
    """A set that comes with scikit-learn, split into parts here."""

    load: Callable[[], Rows]

    def rows(self, part: Part) -> Rows:
        """Rows and targets of a part."""
        return split(*self.load(), part)


@dataclass(frozen=True)
class OnDisk:
    """A set whose files are looked for on disk.

    Attributes
    ----------
    files : mapping of tuples
        File names of each stored part: "train" and "test", or "all" where the set is split here.
    shapes : mapping of tuples
        Shape of the rows of each stored part.
    known : mapping of str
        What `digest` gives for each stored part of the set that results were made with.
    read : callable
        Rows and targets from paths of a part's files.
    write : callable
        The contents of a part's files from rows and targets, uncompressed.
    source : str
        Where `tardigrad.datasets.downloads` gets it from.
    finish : callable
        Rows and targets as users get them.
    digest : callable
        A text that tells whether rows and targets are the known ones.
    """

    name: str
    files: Mapping[str, tuple[str, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    known: Mapping[str, str]
    read: Callable[..., Rows]
    write: Callable[[Array, Array], list[bytes]]
    source: str
    finish: Callable[[Array, Array], Rows] = field(default=lambda X, y: (X, y))
    digest: Callable[[Array, Array], str] = rows_digest

    def all_files(self) -> list[str]:
        """Names of all files, with the folder."""
        return [f"{self.name}/{file}" for files in self.files.values() for file in files]

    def rows(self, part: Part) -> Rows:
        """Rows and targets of a part."""
        stored = "all" if "all" in self.files else part
        paths = [locate(f"{self.name}/{file}") for file in self.files[stored]]
        X, y = self.read(*paths)
        self.check_shape(stored, X, y)
        if self.digest(X, y) != self.known[stored]:
            warnings.warn(
                f"{paths[0]} is not the copy that published results were made with: rows were changed, lost or added",
                stacklevel=4,
            )
        X, y = self.finish(X, y)
        return split(X, y, part) if stored == "all" else (X, y)

    def check_shape(self, stored: str, X: Array, y: Array) -> None:
        """Refuse rows or targets of another shape than those of the stored part."""
        expected = self.shapes[stored]
        for what, found, needed in ((self.name, X.shape, expected), (f"targets of {self.name}", y.shape, expected[:1])):
            if found != needed:
                raise DataError(f"{what} have shape {found}, expected {needed}: they are another set or were cut short")


def split(X: Array, y: Array, part: Part) -> Rows:
    """Four fifths for training, one fifth for testing, in an order that never changes."""
    order = Stream(0, Domain.PARTITION).permutation(len(y))
    n_test = len(y) // 5
    rows = np.sort(order[n_test:] if part == "train" else order[:n_test])
    return X[rows], y[rows]


def _digits() -> Rows:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X / 16.0, y


def _breast_cancer() -> Rows:
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    return X, y


def _pixels(X: Array, y: Array) -> Rows:
    """Images as rows between 0 and 1."""
    pixels = X.reshape(len(X), -1).astype(np.float32)
    pixels /= 255
    return pixels, y.astype(np.int64)


def _images(name: str, known: Mapping[str, str], source: str, **given: Any) -> OnDisk:
    """70 000 images of 28 x 28 bytes in the four files of MNIST."""
    names = {"train": "train", "test": "t10k"}
    return OnDisk(
        name,
        {part: (f"{file}-images-idx3-ubyte.gz", f"{file}-labels-idx1-ubyte.gz") for part, file in names.items()},
        {"train": (60_000, 28, 28), "test": (10_000, 28, 28)},
        known,
        read=lambda images, labels: (read_idx(images), read_idx(labels)),
        write=lambda X, y: [as_idx(X), as_idx(y)],
        source=source,
        finish=_pixels,
        **given,
    )


def _read_a9a(path: Any) -> Rows:
    data = read_libsvm(path, n_features=123)
    return data.X.toarray(), data.y


def _read_housing(path: Any) -> Rows:
    data = read_csv(path, target=HOUSING[-1])
    return data.X, data.y


def _counts(_: Array, y: Array) -> str:
    return " ".join(map(str, np.bincount(y)))


_ON_DISK = (
    _images(
        "fashion-mnist",
        {"train": "e5e4927151b448fa9bb69b05fde8ae30", "test": "566d53ca99a3a49ccbecf64c8731c05d"},
        source="OpenML 40996",
    ),
    # no result of this project rests on it: it is known by the numbers of its digits
    _images(
        "mnist",
        {
            "train": "5923 6742 5958 6131 5842 5421 5918 6265 5851 5949",
            "test": "980 1135 1032 1010 982 892 958 1028 974 1009",
        },
        source="OpenML 554",
        digest=_counts,
    ),
    OnDisk(
        "a9a",
        {"train": ("a9a.gz",), "test": ("a9a.t.gz",)},
        {"train": (32_561, 123), "test": (16_281, 123)},
        {"train": "3efb0caf3fb3dc3ea916136878a00982", "test": "821590a7718b76780ff44edccf95c5e6"},
        read=_read_a9a,
        write=lambda X, y: [as_libsvm(X, y)],
        source="OpenML 1430",
        finish=lambda X, y: (X, y.astype(np.int64)),
    ),
    OnDisk(
        "california-housing",
        {"all": ("california_housing.csv.gz",)},
        {"all": (20_640, 8)},
        {"all": "882a294987c8ab876c03e94e527c2c27"},
        read=_read_housing,
        write=lambda X, y: [as_csv(X, y, HOUSING)],
        source="scikit-learn's fetch_california_housing",
    ),
)

SETS: dict[str, Bundled | OnDisk] = {
    "digits": Bundled(_digits),
    "breast-cancer": Bundled(_breast_cancer),
    **{known.name: known for known in _ON_DISK},
}
