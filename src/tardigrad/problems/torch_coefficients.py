"""Coefficients that workers publish block by block, kept on the device that their readers compute on.

In a lock-free run a worker publishes by putting a new array in place of its block, and readers take the list of blocks. From
one read to the next most blocks are the same objects: only new ones are sent.

Rules of this file:

- a block is known by its identity, and held as long as it is known, so that no other array can be taken for it. One that is a
  view of other memory, as points of worker processes are, may have new content at any time, and is sent each time;
- what was sent is never written to: a reader gets a tensor of its own, made of whole blocks;
- blocks are forgotten when they have not been read for longest.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.core.validate import integer
from tardigrad.problems.torch_device import TorchDevice

#: blocks that are kept, for each block of a list: the one that is read, and the one that others may still read
_KEPT = 2


class DeviceCoefficients:
    """The coefficients of kernel machines on one device; one object for all workers on it.

    Parameters
    ----------
    n_outputs : int
        Columns of the coefficients.
    dtype : {float32, float64}
        Their precision.
    device : str
        "cpu", "cuda" or "cuda:1", as for `TorchKernelBlocks`.

    Attributes
    ----------
    uploads : int
        Blocks that were sent so far.

    Raises
    ------
    InvalidInputError
        Without PyTorch; for a device that is not there; for blocks and orders that do not fit.

    Notes
    -----
    An array that owns its memory must not be changed once it was read here: put another in its place. A thread may use a
    tensor that it read itself; no other thread may while it is being made.

    Examples
    --------
    >>> import numpy as np
    >>> shared = DeviceCoefficients(1, np.float64)
    >>> blocks = [np.array([1.0, 2.0]), np.array([3.0])]
    >>> shared.read(blocks, order=np.array([2, 0, 1])).tolist()
    [[2.0], [3.0], [1.0]]
    >>> blocks[1] = np.array([4.0])
    >>> shared.read(blocks, order=np.array([2, 0, 1])).tolist(), shared.uploads
    ([[2.0], [4.0], [1.0]], 3)
    """

    def __init__(self, n_outputs: int, dtype: Any = np.float32, device: str = "cpu") -> None:
        self.device = TorchDevice(device, f"device={device!r}")
        self.n_outputs = integer(n_outputs, "n_outputs")
        self.dtype = np.dtype(dtype)
        self.uploads = 0
        self._lock = threading.Lock()
        self._sent: OrderedDict[int, tuple[Array, Any]] = OrderedDict()
        self._order: tuple[Array | None, Any] = None, None

    def __reduce__(self) -> tuple[Any, ...]:
        return DeviceCoefficients, (self.n_outputs, self.dtype.name, self.device.name)

    def read(self, blocks: Sequence[Array], order: Array | None = None) -> Any:
        """The coefficients on the device, a new tensor (n_rows, n_outputs) of the reading thread's own.

        Parameters
        ----------
        blocks : list of arrays (n_r * n_outputs,) or (n_r, n_outputs)
            What is published: one array a block, row by row.
        order : array of int (n_rows,), optional
            Row ``order[k]`` belongs to the k-th row of all blocks one after another: a permutation. By default blocks are
            in the order of rows. Like a block, the array must not be changed.
        """
        with self.device.at_work(n_workers=2):  # it only copies
            tensors = self._tensors(blocks)
            for tensor in tensors:
                self.device.hold(tensor)
            together = self.device.torch.cat(tensors)
            if order is None:
                return together
            return together.index_select(0, self._inverse(order, len(together)))

    def _tensors(self, blocks: Sequence[Array]) -> list[Any]:
        found = []
        with self._lock:
            for block in blocks:
                if block.base is not None:
                    found.append(self._upload(block))
                    continue
                known = self._sent.get(id(block))
                if known is None:
                    known = block, self._upload(block)
                    self._sent[id(block)] = known
                self._sent.move_to_end(id(block))
                found.append(known[1])
            while len(self._sent) > _KEPT * len(blocks):
                self._sent.popitem(last=False)
        return found

    def _upload(self, block: Array) -> Any:
        if block.ndim not in (1, 2) or block.size % self.n_outputs or (block.ndim == 2 and block.shape[1] != self.n_outputs):
            raise InvalidInputError(
                f"a block must have shape (n, {self.n_outputs}), or (n * {self.n_outputs},), not {block.shape}"
            )
        tensor = self.device.upload(np.asarray(block, self.dtype).reshape(-1, self.n_outputs))
        self.device.wait()
        self.uploads += 1
        return tensor

    def _inverse(self, order: Array, n_rows: int) -> Any:
        """For each row its place in the blocks, on the device."""
        with self._lock:
            if self._order[0] is not order or len(self._order[1]) != n_rows:
                inverse = np.full(n_rows, -1)
                if order.shape == (n_rows,) and n_rows and 0 <= order.min() <= order.max() < n_rows:
                    inverse[order] = np.arange(n_rows)
                if (inverse < 0).any():
                    raise InvalidInputError(
                        f"order must hold each of the {n_rows} rows of the blocks once, not an array of shape {order.shape}"
                    )
                tensor = self.device.upload(inverse)
                self.device.wait()
                self._order = order, tensor
            tensor = self._order[1]
        self.device.hold(tensor)
        return tensor
