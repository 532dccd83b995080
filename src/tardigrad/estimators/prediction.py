"""Values of a kernel machine at many points, on all workers, in bounded memory.

Rules of this file:

- points are taken in stretches, whatever their number;
- by NumPy a point's value does not depend on which others are asked for: stretches are filled up to whole groups of rows,
  which a matrix product computes alike, and all have tiles of one width.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tardigrad.core.task import Array
from tardigrad.core.worker import single_threaded_blas
from tardigrad.problems.kernel_functions import KernelFunction
from tardigrad.problems.kernel_interpolation import KernelInterpolation

#: points of a stretch, at least and at most. With more of them `KernelBlocks` takes tiles of fewer rows of X, whose sums are
#: added up differently
_LEAST, _MOST = 64, 256
#: rows that are computed together, whatever rows they are
_GROUP = 16


def blocks_for(X: Any, kernel: KernelFunction, dtype: Any, device: Any, n_workers: int) -> list[Any]:
    """What makes products with the rows X, for each worker; those of one device are the same object."""
    problem = KernelInterpolation(X, np.zeros(X.shape[0], dtype), kernel, n_workers, dtype=dtype, device=device)
    return [problem.blocks(client) for client in range(n_workers)]


def evaluate(blocks: Sequence[Any], coefficients: Array, points: Any) -> Array:
    """``sum_j a_j k(x_j, z_i)`` of points: (n_points, n_outputs), in the blocks' precision.

    Parameters
    ----------
    blocks : sequence of KernelBlocks
        One for each thread.
    coefficients : array (n_rows, n_outputs)
        The a_j.
    points : array, memory map or sparse matrix (n_points, n_features)
        The z_i.

    Examples
    --------
    >>> from tardigrad import Laplacian
    >>> blocks = blocks_for(np.array([[0.0], [1.0]]), Laplacian(1.0), "float64", None, n_workers=1)
    >>> evaluate(blocks, np.array([[1.0], [0.0]]), np.array([[0.0], [2.0]])).round(4).tolist()
    [[1.0], [0.1353]]
    """
    n_points, threads = points.shape[0], len(blocks)
    length = min(max(-(-n_points // threads), _LEAST), _MOST)
    values = np.empty((n_points, coefficients.shape[1]), coefficients.dtype)

    def compute(number: int) -> None:
        low = number * length
        high = min(low + length, n_points)
        rows = np.minimum(np.arange(low, low + -(-(high - low) // _GROUP) * _GROUP), high - 1)
        product, _ = blocks[number % threads].product(points[rows], coefficients)
        values[low:high] = product[: high - low]

    numbers = range(-(-n_points // length))
    with single_threaded_blas():
        if threads == 1 or len(numbers) == 1:
            for number in numbers:
                compute(number)
        else:
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(compute, numbers):
                    pass
    return values
