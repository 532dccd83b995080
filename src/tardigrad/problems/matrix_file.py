"""A matrix in a file: known by its path, and known again by a hash of some places.

Rules of this file:

- the content is never read as a whole;
- what is opened is read only.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np

from tardigrad.core.errors import DataError
from tardigrad.core.plain import Plain
from tardigrad.core.task import Array

#: bytes at the ends and in between that identify a file, and how many places are looked at
_LOOK, _PLACES = 4096, 64


def is_rows_of_file(matrix: Any) -> bool:
    """Whether a matrix is a memory map that a `MatrixFile` can describe: row after row, of a file that has a name."""
    return isinstance(matrix, np.memmap) and matrix.flags.c_contiguous and getattr(matrix, "filename", None) is not None


def by_path(matrix: Any, marked: bool = False) -> Any:
    """What is sent or saved of a matrix: the file that it lies in, with a hash where it is to be `marked`; else itself."""
    if not is_rows_of_file(matrix):
        return matrix
    file = MatrixFile.of(matrix)
    return file.marked() if marked else file


class MatrixFile(Plain):
    """A dense matrix in a file, in C order: what is sent to workers and saved with a run instead of its entries.

    Parameters
    ----------
    path : str
        The file; made absolute.
    offset : int
        Bytes before the first entry.
    shape : (int, int)
        Rows and columns.
    dtype : str
        Type of the entries, as NumPy spells it ("<f8").
    digest : str, optional
        Hash of some places of the file; where given, the file must still have it.
    """

    def __init__(self, path: str, offset: int, shape: tuple[int, int], dtype: str, digest: str | None = None) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.offset, self.shape, self.dtype = int(offset), (int(shape[0]), int(shape[1])), str(np.dtype(dtype).str)
        self.digest = digest

    def fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("path", "offset", "shape", "dtype", "digest")}

    @classmethod
    def of(cls, matrix: np.memmap) -> MatrixFile:
        """The file behind a memory map, or behind some of its rows."""
        base: Any = matrix
        while isinstance(base.base, np.memmap):
            base = base.base
        offset = base.offset + matrix.ctypes.data - base.ctypes.data
        return cls(str(matrix.filename), offset, matrix.shape, matrix.dtype.str)

    def marked(self) -> MatrixFile:
        """The same, with a digest."""
        return MatrixFile(self.path, self.offset, self.shape, self.dtype, digest_of(self.open()))

    def open(self) -> np.memmap:
        """The memory map, read only; a DataError where the file is gone, too short, or another one."""
        needed = self.offset + self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize
        try:
            size = os.stat(self.path).st_size
            if size < needed:
                raise DataError(
                    f"{self.path} has {size} bytes, but the matrix {self.shape} needs {needed}: it was cut short or changed"
                )
            opened = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, "C")
        except OSError as error:
            raise DataError(
                f"cannot open {self.path}, the file of the matrix ({error.strerror or error}): put it back, or pass a problem"
                " made of the file where it is now"
            ) from error
        if self.digest is not None and self.digest != (found := digest_of(opened)):
            raise DataError(
                f"{self.path} is not the file that the matrix was in (hash {self.digest[:12]}, now {found[:12]}): restore it"
            )
        return opened


def digest_of(matrix: Array) -> str:
    """A hash of shape, type and about 64 places of a matrix in a file: its content is never read as a whole."""
    data = matrix.reshape(-1).view(np.uint8)
    digest = hashlib.sha256(f"{matrix.shape}{matrix.dtype.str}".encode())
    for start in np.linspace(0, max(0, len(data) - _LOOK), _PLACES).astype(np.int64):
        digest.update(data[start : start + _LOOK].tobytes())
    return digest.hexdigest()
