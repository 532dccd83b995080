"""Memory that processes of one machine share, without a name.

Rules of this file:

- a buffer is a file descriptor that children inherit; it is in no folder, so nothing is left behind
  however a process ends;
- a buffer grows by lengthening the file: whoever has the descriptor maps the new length at need;
- arrays begin at multiples of 64 bytes.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tardigrad.core.errors import WorkerError
from tardigrad.core.task import Array, Points

ALIGNMENT = 64

#: dtype and shape of each array of a sequence
Layout = tuple[tuple[str, tuple[int, ...]], ...]


def layout_of(arrays: Sequence[Array]) -> Layout:
    """What a reader must know to make arrays of bytes."""
    return tuple((array.dtype.str, array.shape) for array in arrays)


def size_of(layout: Layout) -> int:
    """Bytes that arrays of a layout take, each aligned."""
    return sum(_aligned(_n_bytes(dtype, shape)) for dtype, shape in layout)


def write(buffer: memoryview | mmap.mmap | bytearray, offset: int, arrays: Sequence[Array]) -> None:
    """Copy arrays into a buffer, one after another."""
    for array in arrays:
        target = np.ndarray(array.shape, array.dtype, buffer, offset)
        np.copyto(target, array)
        offset += _aligned(array.nbytes)


def read(buffer: memoryview | mmap.mmap | bytes | bytearray, offset: int, layout: Layout) -> Points:
    """Arrays that look into a buffer, without a copy."""
    arrays = []
    for dtype, shape in layout:
        arrays.append(np.ndarray(shape, dtype, buffer, offset))
        offset += _aligned(_n_bytes(dtype, shape))
    return tuple(arrays)


class SharedBuffer:
    """A stretch of memory behind a file descriptor.

    Parameters
    ----------
    fd : int, optional
        Descriptor of an existing buffer; a new one is made by default.
    writable : bool
        Whether this process writes.
    """

    def __init__(self, fd: int | None = None, writable: bool = True) -> None:
        self.fd = _anonymous_file() if fd is None else fd
        self._access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._map: mmap.mmap | None = None

    def mapped(self, n_bytes: int) -> mmap.mmap:
        """The memory, at least so many bytes of it; lengthened if this process writes."""
        if self._map is None or len(self._map) < n_bytes:
            if self._access == mmap.ACCESS_WRITE and os.fstat(self.fd).st_size < n_bytes:
                try:
                    self._lengthen(_aligned(n_bytes))
                except OSError as error:
                    raise WorkerError(
                        f"cannot get {n_bytes / 2**20:.0f} MiB of shared memory ({error.strerror}): use fewer workers or"
                        " tasks in flight, or a machine with more memory"
                    ) from error
            # arrays may still look into an older mapping: it goes when they do
            try:
                self._map = mmap.mmap(self.fd, 0, access=self._access)
            except OSError as error:
                raise WorkerError(f"cannot map {n_bytes / 2**20:.0f} MiB of shared memory: {error.strerror}") from error
        return self._map

    def _lengthen(self, n_bytes: int) -> None:
        if hasattr(os, "posix_fallocate"):  # memory that is not there is missed now, not by a bus error later
            os.posix_fallocate(self.fd, 0, n_bytes)
        else:
            os.ftruncate(self.fd, n_bytes)

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the last array that looks into it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._map = None


def place_in(buffer: SharedBuffer, array: Array) -> int | None:
    """Where in a buffer this process has mapped an array is; None if it is elsewhere or not in C order."""
    memory = buffer.mapped(0)
    if not len(memory) or not array.flags.c_contiguous:
        return None
    offset = array.ctypes.data - np.frombuffer(memory, np.uint8).ctypes.data
    return int(offset) if 0 <= offset <= len(memory) - array.nbytes else None


class Slots:
    """Places in a buffer that are taken and given back.

    Places come in four sizes an octave, so that arrays whose size changes find places again.
    """

    def __init__(self, buffer: SharedBuffer) -> None:
        self.buffer = buffer
        self._end = 0
        self._free: dict[int, list[int]] = {}

    def put(self, arrays: Sequence[Array], n_bytes: int) -> int:
        """Copy arrays to a free place; its offset."""
        size = _size_class(n_bytes)
        free = self._free.get(size)
        if free:
            offset = free.pop()
        else:
            offset, self._end = self._end, self._end + size
        write(self.buffer.mapped(self._end), offset, arrays)
        return offset

    def give_back(self, offset: int, n_bytes: int) -> None:
        """A place may be used again."""
        self._free.setdefault(_size_class(n_bytes), []).append(offset)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("tardigrad")
    # elsewhere: a file that has lost its name before anything is written to it
    folder = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.dup(file.fileno())


def _size_class(n_bytes: int) -> int:
    step = max(ALIGNMENT, 1 << max(n_bytes.bit_length() - 3, 0))
    return -(-n_bytes // step) * step


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def _n_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    size = np.dtype(dtype).itemsize
    for length in shape:
        size *= length
    return size
