"""Collects the rows of a trace while a run goes on.

Rules of this file:

- a row costs 0.1 microseconds: ``recorder.extend(recorder.pack(*row))``;
- memory does not grow with the length of a run: from `IN_MEMORY` rows on they go to a file without a name,
  which vanishes with the process; where that is not possible (a full disk) they stay in memory;
- nothing can be added after the trace was taken.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from typing import IO, Any

import numpy as np

from tardigrad.core.task import Array
from tardigrad.core.trace import COLUMNS, ROW, Trace

#: rows that are kept in memory (80 bytes each)
IN_MEMORY = 2**18


class Recorder:
    """The rows of a run so far.

    Parameters
    ----------
    earlier : structured array (n,), optional
        Rows of a run that goes on.
    """

    def __init__(self, earlier: Array | None = None) -> None:
        self._rows = bytearray() if earlier is None else bytearray(np.ascontiguousarray(earlier).data)
        self._file: IO[bytes] | None = None
        self._on_disk = 0
        self._full = False
        self.extend = self._rows.extend
        self.pack = struct.Struct("".join(np.dtype(dtype).char for dtype in COLUMNS.values())).pack

    def __len__(self) -> int:
        return self._on_disk + len(self._rows) // ROW.itemsize

    def tidy(self) -> None:
        """Move rows to disk if there are too many; for a call now and then."""
        if len(self._rows) < IN_MEMORY * ROW.itemsize or self._full:
            return
        try:
            self._write()
        except OSError:
            self._full = True
            return
        self._on_disk += len(self._rows) // ROW.itemsize
        self._rows.clear()

    def _write(self) -> None:
        """Append the rows in memory to the file."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (it lives as long as the trace)
        place = self._on_disk * ROW.itemsize
        with memoryview(self._rows) as rows:
            done = 0
            while done < len(rows):
                done += os.pwrite(self._file.fileno(), rows[done:], place + done)

    def rows(self, begin: int, end: int) -> Array:
        """A copy of some rows."""
        parts = []
        if begin < self._on_disk and self._file is not None:
            size = min(end, self._on_disk) - begin
            parts.append(np.frombuffer(_read(self._file.fileno(), size * ROW.itemsize, begin * ROW.itemsize), ROW))
        if end > self._on_disk:
            low = max(begin - self._on_disk, 0) * ROW.itemsize
            parts.append(np.frombuffer(bytes(memoryview(self._rows)[low : (end - self._on_disk) * ROW.itemsize]), ROW))
        return np.concatenate(parts) if parts else np.empty(0, ROW)

    def trace(self, updates: int) -> Trace:
        """All rows, as a trace."""
        if self._file is None:
            return Trace(np.frombuffer(self._rows, ROW), updates)
        n_rows = len(self)
        table: Any
        try:
            self._write()
            memory = mmap.mmap(self._file.fileno(), n_rows * ROW.itemsize, access=mmap.ACCESS_COPY)
        except OSError:
            table = self.rows(0, n_rows)
        else:
            table = np.frombuffer(memory, ROW)
        self._file.close()  # what is mapped stays
        return Trace(table, updates)

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()


def _read(descriptor: int, n_bytes: int, place: int) -> bytearray:
    """So many bytes of a file; one call of the system gives at most 2 GB."""
    content = bytearray()
    while len(content) < n_bytes:
        more = os.pread(descriptor, n_bytes - len(content), place + len(content))
        if not more:
            raise OSError(f"the trace's file ends after {place + len(content)} bytes: it was cut short")
        content += more
    return content
