"""Kernel machines that interpolate: the coefficients alpha of ``f(z) = sum_j alpha_j k(x_j, z)`` with ``f(x_i) = y_i``.

What is minimised is ``1/(2n) sum_i |f(x_i) - y_i|^2`` over functions f of the kernel's space; a stochastic gradient of it
on rows b is ``1/m sum_{i in b} (f(x_i) - y_i) k(x_i, .)``, whose coefficients are the residuals of these rows.

Rules of this file:

- the kernel matrix is never held: products with it are made tile by tile (`kernel_blocks`, `torch_kernel_blocks`);
- X is used as it is given: an array, CSR, or a memory map larger than memory; all workers share it;
- iterates are flat, row after row: ``alpha = x.reshape(n_rows, n_outputs)``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem, fingerprint_of
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array
from tardigrad.core.validate import integer, optional_integer
from tardigrad.problems.kernel_blocks import KernelBlocks
from tardigrad.problems.kernel_functions import KernelFunction
from tardigrad.problems.kernel_rows import as_points
from tardigrad.problems.matrix_file import MatrixFile, by_path

if TYPE_CHECKING:
    from tardigrad.problems.torch_kernel_blocks import TorchKernelBlocks

#: rows whose predictions are made at once
AT_ONCE = 512


class KernelInterpolation(Problem):
    """The kernel machine through all points.

    Parameters
    ----------
    X : array, sparse matrix or numpy.memmap (n_rows, n_features)
        The points. A memory map may be larger than memory: it is read row by row, sent to worker processes and saved
        with a run by its path.
    y : array (n_rows,) or (n_rows, n_outputs)
        Targets.
    kernel : KernelFunction
        Such as ``Laplacian(bandwidth=10.0)``; a bandwidth of "auto" is chosen here, from X.
    n_clients : int
        Workers that share the data; also the number of partitions that `AsyncEigenPro` makes.
    batch : int, optional
        Rows of a stochastic gradient, for rules that ask for one; all rows by default. EigenPro's rules choose their own.
    dtype : {"float32", "float64"}
        In which kernel entries and coefficients are computed.
    device : str or sequence of str, optional
        PyTorch's name of the device that computes, such as "cuda" or "cuda:1"; a sequence gives client i
        ``device[i % len(device)]``. By default NumPy on the processor.

    Attributes
    ----------
    n_rows, n_features, n_outputs : int
        Sizes.
    dim : int
        ``n_rows * n_outputs``.

    Raises
    ------
    InvalidInputError
        If shapes do not fit together, or a value is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import tardigrad as td
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> problem = KernelInterpolation(X, X[:, 0], td.Laplacian(2.0), n_clients=2)
    >>> result = td.run(td.AsyncEigenPro(), problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(400))
    >>> bool(problem.measures(result.x)["loss"] < 1e-4)
    True
    """

    shared_data = True

    def __init__(
        self,
        X: Any,
        y: Any,
        kernel: KernelFunction,
        n_clients: int = 1,
        *,
        batch: int | None = None,
        dtype: Any = "float32",
        device: str | Sequence[str] | None = None,
    ) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise InvalidInputError(f"dtype must be 'float32' or 'float64', not {dtype!r}")
        self.X = X.open() if isinstance(X, MatrixFile) else as_points(X, "X")
        self.n_rows, self.n_features = (int(n) for n in self.X.shape)
        self.y = as_targets(y, self.n_rows, self.dtype)
        self.n_outputs = 1 if self.y.ndim == 1 else int(self.y.shape[1])
        self.dim = self.n_rows * self.n_outputs
        if not isinstance(kernel, KernelFunction):
            raise InvalidInputError(f"kernel must be a KernelFunction such as Laplacian(bandwidth=1.0), not {kernel!r}")
        self.kernel = kernel.fitted(self.X)
        self.n_clients = integer(n_clients, "n_clients", high=self.n_rows)
        self.batch = optional_integer(batch, "batch")
        integer(self.batch or 1, "batch", high=self.n_rows)
        self.device = device if device is None or isinstance(device, str) else tuple(device)
        self._made: dict[str | None, Any] = {}
        self._gathered: dict[str, Any] = {}
        self.blocks()  # what is wrong with X shows here

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "X": by_path(self.X), "_made": {}, "_gathered": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if isinstance(self.X, MatrixFile):
            self.X = self.X.open()

    def fields(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in ("X", "y", "kernel", "n_clients", "batch", "dtype", "device")}
        return {**values, "dtype": self.dtype.name, "X": by_path(self.X, marked=True)}

    def fingerprint(self) -> str:
        values = self.fields()
        if isinstance(values["X"], MatrixFile):
            values["X"] = values["X"].digest  # where the file lies does not matter
        return fingerprint_of({**values, "device": None})

    @property
    def targets(self) -> Array:
        """The array y as (n_rows, n_outputs)."""
        return self.y.reshape(self.n_rows, -1)

    def blocks(self, client: int = 0) -> KernelBlocks | TorchKernelBlocks:
        """What makes products with the kernel matrix for a client; made at the first use."""
        name = self.device_of(client)
        found: Any = self._made.get(name)
        if found is None:
            if name is None:
                found = KernelBlocks(self.X, self.kernel, self.dtype)
            else:
                from tardigrad.problems.torch_kernel_blocks import TorchKernelBlocks

                workers = sum(self.device_of(other) == name for other in range(self.n_clients))
                found = TorchKernelBlocks(self.X, self.kernel, self.dtype, device=name, n_workers=workers)
            found = self._made.setdefault(name, found)
        return found

    def device_of(self, client: int) -> str | None:
        """PyTorch's name of the device that computes for a client; None for NumPy."""
        return self.device if self.device is None or isinstance(self.device, str) else self.device[client % len(self.device)]

    def sample(self, client: int, rng: Rng) -> Any:
        return None if self.batch is None else rng.choice(self.n_rows, self.batch, replace=False, shuffle=False)

    def residual(self, x: Array, rows: Array, client: int = 0) -> Array:
        """``f(x_i) - y_i`` of some rows at x (..., dim): (..., len(rows), n_outputs)."""
        blocks = self.blocks(client)
        product, _ = blocks.product(blocks.rows(rows), self.coefficients(x), own=rows)
        return apart(product, x.shape[:-1], self.n_outputs) - self.targets[rows]

    def gradient(self, client: int, x: Array, sample: Any = None) -> Array:
        """Coefficients of the gradient on some rows: their residuals over their number, 0 for all others."""
        rows = np.arange(self.n_rows) if sample is None else sample
        gradient = np.zeros((*x.shape[:-1], self.n_rows, self.n_outputs), self.dtype)
        for some in _stretches(rows):
            gradient[..., some, :] = self.residual(x, some, client) / self.dtype.type(len(rows))
        return gradient.reshape(x.shape)

    def predict(self, x: Array, Z: Any) -> Array:
        """``f(z)`` for points Z (m, n_features) at x (..., dim): (..., m), or (..., m, n_outputs) where y has columns."""
        points, coefficients = as_points(Z, "Z"), self.coefficients(x)
        parts = [self.blocks().product(points[some], coefficients)[0] for some in _slices(points.shape[0])]
        values = apart(np.concatenate(parts), x.shape[:-1], self.n_outputs)
        return values[..., 0] if self.y.ndim == 1 else values

    def measures(self, x: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """``loss``, the mean squared residual of all rows and outputs, and ``residual``, its root over that of y.

        Both cost as much as an epoch of training.
        """
        wanted = [name for name in ("loss", "residual") if names is None or name in names]
        if not wanted:
            return {}
        total = np.zeros(x.shape[:-1])
        for rows in _stretches(np.arange(self.n_rows)):
            total += np.square(self.residual(x, rows), dtype=np.float64).sum(axis=(-1, -2))
        size = float(np.square(self.y, dtype=np.float64).sum())
        table = {"loss": total / self.dim, "residual": np.sqrt(total / size) if size else np.sqrt(total)}
        return {name: np.asarray(table[name]) for name in wanted}

    def gathered(self, blocks: Sequence[Array], order: Array, client: int) -> Any:
        """What `coefficients` gives, from blocks with the rows of `order`, one after another; on the client's device if any."""
        name = self.device_of(client)
        if name is None or blocks[0].ndim > 1:
            found = np.empty((*blocks[0].shape[:-1], self.n_rows, self.n_outputs), blocks[0].dtype)
            first = 0
            for block in blocks:
                rows = block.reshape(*block.shape[:-1], -1, self.n_outputs)
                found[..., order[first : first + rows.shape[-2]], :] = rows
                first += rows.shape[-2]
            return side_by_side(found)
        kept: Any = self._gathered.get(name)
        if kept is None:
            from tardigrad.problems.torch_coefficients import DeviceCoefficients

            kept = self._gathered.setdefault(name, DeviceCoefficients(self.n_outputs, self.dtype, name))
        return kept.read(blocks, order)

    def diagonal(self, rows: Array, client: int = 0) -> Array:
        """k(x, x) of some rows."""
        points = self.blocks(client).rows(rows)
        if self.kernel.diagonal is not None:
            return np.full(len(rows), self.kernel.diagonal, self.dtype)
        return np.diagonal(self.blocks(client).block(points, points)).copy()

    def coefficients(self, x: Array) -> Array:
        """Iterates (..., dim) as columns side by side: (n_rows, replicas * n_outputs)."""
        return side_by_side(x.reshape(*x.shape[:-1], self.n_rows, self.n_outputs))


def side_by_side(values: Array) -> Array:
    """Replicas' rows (..., m, c) as the columns of one matrix (m, replicas * c): products with it serve all at once."""
    if values.ndim == 2:
        return values
    return np.moveaxis(values.reshape(-1, *values.shape[-2:]), 0, 1).reshape(values.shape[-2], -1)


def apart(columns: Array, leading: tuple[int, ...], n_outputs: int) -> Array:
    """The inverse: (m, replicas * c) as (..., m, c)."""
    if not leading:
        return columns
    return np.moveaxis(columns.reshape(len(columns), -1, n_outputs), 1, 0).reshape(*leading, len(columns), n_outputs)


def as_targets(y: Any, n_rows: int, dtype: np.dtype[Any]) -> Array:
    """Targets (n_rows,) or (n_rows, n_outputs), finite."""
    targets = np.asarray(y)
    if targets.dtype.kind not in "biuf":
        raise InvalidInputError(f"y must hold real numbers, not {targets.dtype}: encode classes as numbers first")
    if targets.ndim not in (1, 2) or len(targets) != n_rows or not targets.size:
        raise InvalidInputError(f"y must have shape ({n_rows},) or ({n_rows}, n_outputs), not {targets.shape}")
    if not np.isfinite(targets).all():
        where = int(np.argwhere(~np.isfinite(targets))[0, 0])
        raise InvalidInputError(f"y[{where}] is not finite: remove such rows or fill them in")
    return np.ascontiguousarray(targets, dtype)


def _slices(n: int) -> Iterator[slice]:
    for low in range(0, n, AT_ONCE):
        yield slice(low, min(low + AT_ONCE, n))


def _stretches(rows: Array) -> Iterator[Array]:
    for some in _slices(len(rows)):
        yield rows[some]
