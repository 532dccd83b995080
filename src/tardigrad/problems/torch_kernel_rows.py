"""Rows of a kernel matrix on a device: they lie there, or are sent tile by tile.

Rules of this file:

- X stays on the device where it takes no more than it may; else it is sent anew each time it is looked at;
- a tile is sent while the one before is worked on, never further ahead: the host waits for the tile before that;
- rows so wide or empty that the host multiplies them (`WideRows`) stay there; only their norms are sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from tardigrad.core.task import Array
from tardigrad.problems.kernel_rows import KernelRows, WideRows, squared_norms
from tardigrad.problems.torch_device import TorchDevice

#: rows that are sent together where all of them stay
_AT_ONCE = 4096


class RowsOnDevice:
    """The rows X of a kernel matrix, as a device sees them.

    Parameters
    ----------
    source : KernelRows
        The rows, as `kernel_rows.rows_of` gives them.
    norms : array (n_rows,)
        Their squared norms, in the precision of the blocks.
    device : TorchDevice
        Where they are wanted.
    limit : int
        Bytes that X may take there.

    Attributes
    ----------
    norms : tensor (n_rows,)
        On the device.
    resident : bool
        Whether X lies on the device.
    n_bytes : int
        What X takes there, if it does.
    wide : bool
        Whether the host multiplies these rows.
    """

    def __init__(self, source: KernelRows, norms: Array, device: TorchDevice, limit: int) -> None:
        self.source, self.device = source, device
        self.wide = isinstance(source, WideRows)
        self.n_bytes = source.n_rows * source.n_features * norms.itemsize
        self._dtype = norms.dtype
        self.norms = device.upload(norms)
        self._resident = self._upload(limit)
        self.resident = self._resident is not None
        device.wait()

    def points(self, Z: Any, own: Array | None) -> tuple[Any, Any]:
        """Points on the device (of wide rows: here), and their squared norms."""
        if own is not None and self._resident is not None:
            where = self.device.upload(own)
            return self._resident.index_select(0, where), self.norms.index_select(0, where)
        Z = self.source.points(Z)
        norms = self.device.upload(squared_norms(Z).astype(self._dtype))
        return Z if self.wide else self.device.upload(Z), norms

    def tiles(self, size: int) -> Iterator[tuple[int, int, Any]]:
        """Tiles of X on the device; those that must be sent are sent while the one before is worked on, never further ahead."""
        sent: deque[Any] = deque()
        room = self.source.room(size) if self._resident is None else None
        for low in range(0, self.source.n_rows, size):
            high = min(low + size, self.source.n_rows)
            if self._resident is not None:
                yield low, high, self._resident[low:high]
                continue
            if len(sent) == 2:
                sent.popleft().synchronize()
            tile = self.source.tile(low, high, room)
            yield low, high, tile if self.wide else self.device.upload(tile)
            if self.device.is_cuda:
                sent.append(self.device.event())

    def _upload(self, limit: int) -> Any:
        """All rows on the device, or None where they need more than `limit` bytes or than there is."""
        if self.wide or self.n_bytes > limit:
            return None
        torch, part = self.device.torch, min(_AT_ONCE, self.source.n_rows)
        room = self.source.room(part)
        if room is None and not self.device.is_cuda and type(self.source.X) is np.ndarray:
            return self.device.upload(self.source.X)
        try:
            rows = torch.empty((self.source.n_rows, self.source.n_features), dtype=self.norms.dtype, device=self.device.name)
        except RuntimeError as error:
            if not self.device.is_out_of_memory(error):
                raise
            return None
        for low in range(0, self.source.n_rows, part):
            high = min(low + part, self.source.n_rows)
            rows[low:high].copy_(self.device.upload(self.source.tile(low, high, room)))
        return rows
