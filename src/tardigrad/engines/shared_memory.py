"""Memory that processes of one machine share, without a name.

Rules of this file:

- a buffer is a file descriptor that children inherit; it is in no folder, so nothing is left behind
  however a process ends;
- a buffer grows by lengthening the file: whoever has the descriptor maps the new length at need. The file doubles,
  memory is taken only for what is used: each mapping that arrays look into keeps a descriptor, so there must be few;
- arrays begin at multiples of 64 bytes.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.errors import WorkerError
from tardigrad.core.task import Array, Points

ALIGNMENT = 64

#: dtype and shape of each array of a sequence: what a reader must know to make arrays of bytes
Layout = tuple[tuple[str, tuple[int, ...]], ...]


class Layouts:
    """Layouts of sequences of arrays and their sizes in bytes, remembered: working them out costs 3 microseconds."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[Layout, int]] = {}

    def of(self, arrays: Points) -> tuple[Layout, int]:
        """The layout of arrays, and the bytes that they take, each aligned."""
        key: Any = (arrays[0].dtype, arrays[0].shape) if len(arrays) == 1 else tuple([(a.dtype, a.shape) for a in arrays])
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= 1000:  # shapes that change all the time
                self._known.clear()
            layout = tuple((array.dtype.str, array.shape) for array in arrays)
            known = self._known[key] = layout, size_of(layout)
        return known


def size_of(layout: Layout) -> int:
    """Bytes that arrays of a layout take, each aligned."""
    return sum(aligned(_n_bytes(dtype, shape)) for dtype, shape in layout)


def look_into(buffer: mmap.mmap, offset: int, layout: Layout) -> Points:
    """Arrays that look into a buffer, without a copy."""
    arrays = []
    for dtype, shape in layout:
        arrays.append(np.ndarray(shape, dtype, buffer, offset))
        offset += aligned(_n_bytes(dtype, shape))
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
        self._taken = 0

    def take(self, n_bytes: int) -> mmap.mmap:
        """The memory, its first bytes, so many, there to be written."""
        if n_bytes > self._taken:
            try:
                self._lengthen(aligned(n_bytes))
            except OSError as error:
                raise WorkerError(
                    f"cannot get {n_bytes / 2**20:.0f} MiB of shared memory ({error.strerror}): use fewer workers or"
                    " tasks in flight, or a machine with more memory"
                ) from error
            self._taken = aligned(n_bytes)
        return self.mapped(n_bytes)

    def mapped(self, n_bytes: int) -> mmap.mmap:
        """The memory, at least so many bytes of it."""
        if self._map is None or len(self._map) < n_bytes:
            # arrays may still look into an older mapping: it goes when they do
            try:
                self._map = mmap.mmap(self.fd, 0, access=self._access)
            except OSError as error:
                raise WorkerError(f"cannot map {n_bytes / 2**20:.0f} MiB of shared memory: {error.strerror}") from error
        return self._map

    def _lengthen(self, n_bytes: int) -> None:
        length = os.fstat(self.fd).st_size
        if length < n_bytes:
            os.ftruncate(self.fd, max(n_bytes, 2 * length))
        if hasattr(os, "posix_fallocate"):  # memory that is not there is missed now, not by a bus error later
            os.posix_fallocate(self.fd, self._taken, n_bytes - self._taken)

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the last array that looks into it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._map = None


def place_in(buffer: SharedBuffer, array: Array) -> int | None:
    """Where in a buffer this process has mapped an array is; None if it is elsewhere or not in C order."""
    if not os.fstat(buffer.fd).st_size or not array.flags.c_contiguous:
        return None
    memory = buffer.mapped(0)
    offset = array.ctypes.data - np.frombuffer(memory, np.uint8).ctypes.data
    return int(offset) if 0 <= offset <= len(memory) - array.nbytes else None


class Block:
    """A stretch of a buffer and the arrays that look into it."""

    __slots__ = ("arrays", "layout", "offset", "size")

    def __init__(self, offset: int, size: int) -> None:
        self.offset = offset
        self.size = size
        self.layout: Layout = ()
        self.arrays: Points = ()


class Blocks:
    """Stretches of a buffer that are taken and given back.

    They come in four sizes an octave, so that arrays whose size changes find places again.
    """

    def __init__(self, buffer: SharedBuffer) -> None:
        self.buffer = buffer
        self._end = 0
        self._free: dict[int, list[Block]] = {}

    def put(self, arrays: Points, layout: Layout, n_bytes: int) -> Block:
        """Copy arrays to a free block."""
        size = _size_class(n_bytes)
        free = self._free.get(size)
        if free:
            block = free.pop()
        else:
            self.buffer.take(self._end + size)
            block = Block(self._end, size)
            self._end += size
        if block.layout != layout:
            block.arrays = look_into(self.buffer.mapped(self._end), block.offset, layout)
            block.layout = layout
        for target, array in zip(block.arrays, arrays, strict=True):
            np.copyto(target, array)
        return block

    def give_back(self, block: Block) -> None:
        """A block may be used again."""
        self._free.setdefault(block.size, []).append(block)


class Views:
    """Arrays that look into blocks of a buffer that another process writes; they are made once a block and layout."""

    def __init__(self, buffer: SharedBuffer) -> None:
        self._buffer = buffer
        self._known: dict[int, tuple[Layout, Points]] = {}

    def at(self, offset: int, layout: Layout) -> Points:
        """The arrays at a place."""
        known = self._known.get(offset)
        if known is None or known[0] is not layout:
            memory = self._buffer.mapped(offset + size_of(layout))
            known = self._known[offset] = layout, look_into(memory, offset, layout)
        return known[1]


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("tardigrad")
    # elsewhere: a file that has lost its name before anything is written to it
    folder = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.dup(file.fileno())


def _size_class(n_bytes: int) -> int:
    step = max(ALIGNMENT, 1 << max(n_bytes.bit_length() - 3, 0))
    return -(-max(n_bytes, 1) // step) * step  # nothing takes a place, too: an empty file cannot be mapped


def aligned(n_bytes: int) -> int:
    """So many bytes, or the next number at which an array may begin."""
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def _n_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    size = np.dtype(dtype).itemsize
    for length in shape:
        size *= length
    return size
