"""Blocks of a kernel matrix, and their products with coefficients, by PyTorch: on a GPU, or on a CPU.

Rules of this file:

- NumPy in and out, and the results of `KernelBlocks` up to rounding; coefficients may also be a tensor that lies there;
- X stays on the device where it takes no more than its share of the memory (`torch_kernel_rows`);
- tiles are as large as the memory allows that is each worker's; where it runs out, they are halved;
- between upload and answer the host waits for one bit a tile (are points near?), and tiles are worked on where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isqrt
from typing import Any, TypeVar

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.core.validate import integer
from tardigrad.problems.kernel_blocks import KernelBlocks
from tardigrad.problems.kernel_functions import KernelFunction
from tardigrad.problems.kernel_loops import NEAR
from tardigrad.problems.kernel_rows import as_points
from tardigrad.problems.torch_device import TorchDevice
from tardigrad.problems.torch_kernel_functions import in_place
from tardigrad.problems.torch_kernel_rows import RowsOnDevice

#: share of the free memory of a CUDA device that is used, and what is used of a host's
_SHARE, _HOST_MEMORY = 0.8, 2**29
#: share of that which X may take
_RESIDENT = 0.75
#: entries of a tile at most, and its rows: what a CPU's cache holds, and what keeps a GPU busy
_ENTRIES = {False: 2**20, True: 2**27}
_ROWS = {False: 512, True: 4096}
#: below this a smaller tile would not help
_FEWEST = 2**10

T = TypeVar("T")


class TorchKernelBlocks(KernelBlocks):
    """The kernel matrix of n rows, as far as it is asked for, computed by PyTorch.

    Parameters
    ----------
    X : array, memory map or sparse matrix (n_rows, n_features)
        The rows.
    kernel : KernelFunction
        The kernel; a bandwidth "auto" is fitted to X. The function of a `UserKernel` is given tensors on the device if a
        trial shows that it takes them and gives for them what it gives for arrays; else arrays, which costs two copies of
        every tile on a GPU.
    dtype : {float32, float64}
        Precision of the values.
    device : str
        "cpu", "cuda" (the first CUDA device) or "cuda:1".
    memory : int, optional
        Bytes of the device that X and tiles may take; by default 80 % of what is free on a CUDA device, and 512 MB on a CPU.
    n_workers : int
        Threads that use these blocks at once; they share the memory. On a CPU each computes on one thread if there are
        several, else on as many as PyTorch is set to.

    Attributes
    ----------
    resident : bool
        Whether X lies on the device.

    Raises
    ------
    InvalidInputError
        Without PyTorch; for a device that is not there, for float32 where PyTorch is set to use TF32, for what
        `KernelBlocks` refuses, and later where memory runs out even for small tiles.

    Notes
    -----
    On CUDA every thread works on a stream of its own. Full float32 is used in products: TF32 keeps 10 bits, and distances of
    points near each other are small differences of products. Sparse rows are made dense tile by tile; where they are so wide
    or empty that `KernelBlocks` keeps them sparse, their products are computed by SciPy on the host, and only the kernel and
    the product with coefficients on the device.

    Where one process computes, several threads share one object. Several processes on one device each see the memory that
    is free when they begin: give them `memory`.

    Examples
    --------
    >>> from tardigrad.problems.kernel_functions import Laplacian
    >>> blocks = TorchKernelBlocks(np.array([[0.0], [1.0], [2.0]]), Laplacian(1.0), np.float64)
    >>> product, kept = blocks.product(np.array([[1.0]]), np.ones((3, 1)), columns=[0])
    >>> product.round(4).tolist(), kept.round(4).tolist()
    ([[1.7358]], [[0.3679]])
    """

    def __init__(
        self,
        X: Any,
        kernel: KernelFunction,
        dtype: Any = np.float32,
        device: str = "cpu",
        *,
        memory: int | None = None,
        n_workers: int = 1,
    ) -> None:
        self.device = TorchDevice(device, f"device={device!r}")
        self.n_workers = integer(n_workers, "n_workers")
        super().__init__(X, kernel, dtype)
        if self.dtype == np.float32:
            self.device.check_precision()
        self.memory = memory if memory is None else integer(memory, "memory")
        free = self.device.free_memory()
        budget = self.memory or (_HOST_MEMORY if free is None else int(_SHARE * free))
        self._entries = _ENTRIES[self.device.is_cuda]
        if not self.device.is_cuda and self.n_workers == 1:
            self._entries *= 4  # threads that share a tile meet at its end: they need more of it
        self._diagonal = self.kernel.diagonal
        with self.device.at_work(1):
            self._function, self._needs_scratch = in_place(self.kernel, self.device, self.dtype)
            self._rows = RowsOnDevice(self.source, self.norms, self.device, int(_RESIDENT * budget))
        self.resident = self._rows.resident
        self._budget = (budget - (self._rows.n_bytes if self.resident else 0)) // self.n_workers

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.source.X, self.kernel, self.dtype.name, self.device.name, self.memory, self.n_workers)

    def product(self, Z: Any, coefficients: Any, columns: Any = None, own: Any = None) -> tuple[Array, Array | None]:
        """``P_i = sum_j k(z_i, x_j) a_j`` for each row z_i of Z, and the entries of some columns.

        Parameters
        ----------
        Z : array or CSR array (m, n_features)
            Points.
        coefficients : array or tensor (n_rows, c)
            The a_j; a tensor must lie on the device and be made by the thread that calls, as `DeviceCoefficients` does.
        columns : array of int (q,), optional
            Positions j, ascending, whose entries k(z_i, x_j) are wanted too.
        own : array of int (m,), optional
            Where the rows of Z are rows of X: their positions. Then k(x_i, x_i) is exact, and rows that lie on the device
            are taken there.

        Returns
        -------
        P : array (m, c)
        C : array (m, q) or None

        Raises
        ------
        InvalidInputError
            For shapes that do not fit; if memory runs out.
        """
        Z = as_points(Z, "Z")
        columns = None if columns is None else self._positions(columns, "columns")
        own = None if own is None else self._positions(own, "own")
        if own is not None and len(own) != Z.shape[0]:
            raise InvalidInputError(f"own must hold the position of each of the {Z.shape[0]} rows of Z, not of {len(own)}")
        torch = self.device.torch

        def compute() -> tuple[Array, Array | None]:
            a = self._coefficient_tensor(coefficients)
            like = {"dtype": a.dtype, "device": a.device}
            P = torch.zeros((Z.shape[0], a.shape[1]), **like)
            C = None if columns is None else torch.empty((Z.shape[0], len(columns)), **like)
            wanted = self.device.upload(np.empty(0, np.int64) if columns is None else columns)
            for low, first, values in self._tiles(Z, own):
                some, high = slice(first, first + len(values)), low + values.shape[1]
                P[some].addmm_(values, a[low:high])
                if C is not None:
                    begin, end = np.searchsorted(columns, (low, high))
                    C[some, begin:end] = values.index_select(1, wanted[begin:end] - low)
            return P.cpu().numpy(), None if C is None else C.cpu().numpy()

        return self._in_memory(compute, Z.shape[0])

    def block(self, Z: Any, W: Any = None) -> Array:
        if W is not None:
            return _again(W, self.kernel, self.dtype.name, self.device.name, self.memory, self.n_workers).block(Z)
        Z = as_points(Z, "Z")
        found = np.empty((Z.shape[0], self.n_rows), self.dtype)

        def compute() -> Array:
            for low, first, values in self._tiles(Z, None):
                found[first : first + len(values), low : low + values.shape[1]] = values.cpu().numpy()
            return found

        return self._in_memory(compute, Z.shape[0])

    def _tiles(self, Z: Any, own: Array | None) -> Iterator[tuple[int, int, Any]]:
        """``(low, first, values)``: kernel values of some points from `first` on with rows of X from `low` on."""
        torch, n_points = self.device.torch, Z.shape[0]
        n_rows, n_columns = self._tile_shape(n_points)
        buffer = torch.empty(n_rows * n_columns, dtype=self._rows.norms.dtype, device=self.device.name)
        scratch = torch.empty_like(buffer) if self._needs_scratch else None
        points, norms = self._rows.points(Z, own)
        for low, high, X in self._rows.tiles(n_columns):
            for first in range(0, n_points, n_rows):
                some = slice(first, min(first + n_rows, n_points))
                shape = some.stop - first, high - low
                values = buffer[: shape[0] * shape[1]].view(shape)
                mine = None if own is None else self._own_entries(own[some], low, high)
                self._products(points[some], X, norms[some], self._rows.norms[low:high], values, mine)
                self._function(values, None if scratch is None else scratch[: values.numel()].view(shape))
                if mine is not None and self._diagonal is not None:
                    values[mine] = self._diagonal
                yield low, first, values

    def _products(self, points: Any, X: Any, norms: Any, others: Any, values: Any, mine: Any) -> None:
        """Inner products, or squared distances, into `values`."""
        torch, distances = self.device.torch, self.kernel.of == "squared distances"
        if self._rows.wide:
            host = np.empty(tuple(values.shape), self.dtype)
            self.source.products(points, X, host)
            values.copy_(self.device.upload(host))
            if distances:  # these rows answer with -1/2 of the squared distances
                values.mul_(-2)
        elif not distances:
            torch.mm(points, X.T, out=values)
        else:
            torch.add(norms[:, None], others, out=values).addmm_(points, X.T, alpha=-2)
            if mine is not None:
                values[mine] = others[mine[1]]  # 0 in truth, and set at the end: they are not to count as near
            if (values.amin(1) < NEAR * (norms + others.max())).any():
                self._again(points, X, norms, others, values)

    def _again(self, points: Any, X: Any, norms: Any, others: Any, values: Any) -> None:
        """Squared distances of points near to each other once more, from the points: as differences they are rounding only."""
        near = (values < NEAR * (norms[:, None] + others)).nonzero()
        for part in near.split(max(1, _ENTRIES[False] // self.n_features)):
            i, j = part.unbind(1)
            values[i, j] = points.index_select(0, i).sub_(X.index_select(0, j)).square_().sum(1)

    def _own_entries(self, own: Array, low: int, high: int) -> Any:
        """Where rows meet themselves in a tile: places on the device, or None."""
        rows = np.flatnonzero((own >= low) & (own < high))
        return (self.device.upload(rows), self.device.upload(own[rows] - low)) if len(rows) else None

    def _tile_shape(self, n_points: int) -> tuple[int, int]:
        """Rows and columns of a tile: two of them, and rows of X that are sent twice ahead, fit a worker's memory."""
        size = self.dtype.itemsize
        entries = max(_FEWEST, min(self._entries, self._budget // (4 * size)))
        n_rows = min(n_points, _ROWS[self.device.is_cuda], isqrt(entries))
        n_columns = min(entries // n_rows, self.n_rows)
        if not self.resident and not self._rows.wide:
            n_columns = max(1, min(n_columns, self._budget // (6 * size * self.n_features)))
        return n_rows, n_columns

    def _coefficient_tensor(self, given: Any) -> Any:
        if not isinstance(given, self.device.torch.Tensor):
            return self.device.upload(self._coefficients(given))
        if given.ndim != 2 or len(given) != self.n_rows or str(given.device) != self.device.name:
            raise InvalidInputError(
                f"coefficients must have shape ({self.n_rows}, c) and lie on {self.device.name}, not {tuple(given.shape)} on"
                f" {given.device}"
            )
        return given.to(self._rows.norms.dtype)

    def _in_memory(self, compute: Callable[[], T], n_points: int) -> T:
        """What `compute` returns, with smaller tiles where memory runs out."""
        while True:
            tried = self._entries
            try:
                with self.device.at_work(self.n_workers):
                    return compute()
            except RuntimeError as error:
                if not self.device.is_out_of_memory(error):
                    raise
                reason = str(error).split("\n")[0]
            # here, where the error no longer holds the tensors of the try
            n_rows, n_columns = self._tile_shape(n_points)
            if tried <= _FEWEST:
                raise InvalidInputError(
                    f"memory ran out on {self.device.name} with {n_points} points of {self.n_features} features, {self.n_rows}"
                    f" rows of X and tiles of only {n_rows} x {n_columns} {self.dtype} ({reason}): give fewer points at once,"
                    " or leave more of the device's memory free"
                )
            self._entries = min(self._entries, max(_FEWEST, min(tried, n_rows * n_columns) // 2))


def _again(X: Any, kernel: KernelFunction, dtype: str, device: str, memory: int | None, n_workers: int) -> TorchKernelBlocks:
    return TorchKernelBlocks(X, kernel, dtype, device, memory=memory, n_workers=n_workers)
