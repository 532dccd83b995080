"""What estimators make of their arguments: kernels by name, workers by number of jobs.

Rules of this file:

- an argument is checked when `fit` is called, as scikit-learn wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.validate import number
from tardigrad.engines.real import cores
from tardigrad.problems.kernel_functions import KernelFunction, kernel_named

#: rows that a worker has at least: with fewer, its subsample is too small to tell the directions that are to be damped
ROWS_OF_A_WORKER = 2000

_NAMES: dict[str, tuple[str, dict[str, float]]] = {
    "laplacian": ("laplacian", {}),
    "gaussian": ("gaussian", {}),
    "matern-1/2": ("matern", {"nu": 0.5}),
    "matern-3/2": ("matern", {"nu": 1.5}),
    "matern-5/2": ("matern", {"nu": 2.5}),
    "dispersal": ("dispersal", {}),
}


def kernel_of(kernel: Any, bandwidth: Any) -> KernelFunction:
    """The kernel of an estimator's two arguments; "auto" is left to the data.

    Examples
    --------
    >>> kernel_of("matern-5/2", 2.0)
    Matern(bandwidth=2.0, nu=2.5)
    """
    if isinstance(kernel, KernelFunction):
        if isinstance(bandwidth, str) and bandwidth == "auto":
            return kernel
        raise InvalidInputError(
            f"bandwidth must be 'auto' where the kernel is an object, {kernel!r}, not {bandwidth!r}: give that object its"
            " bandwidth"
        )
    if not isinstance(kernel, str) or kernel not in _NAMES:
        hint = " (scikit-learn's 'rbf' is 'gaussian', with gamma = 1 / (2 bandwidth^2))" if kernel == "rbf" else ""
        raise InvalidInputError(
            f"kernel must be one of {', '.join(_NAMES)}, or a kernel such as tardigrad.Laplacian(10.0), not {kernel!r}{hint}; a"
            " function of one's own goes into tardigrad.UserKernel"
        )
    name, parameters = _NAMES[kernel]
    return kernel_named(name, bandwidth=bandwidth, **parameters)


def jobs_of(n_jobs: Any) -> int:
    """How many threads are meant: None and -1 are all cores that this process may use, -2 all but one."""
    if n_jobs is None:
        return cores()
    if not isinstance(n_jobs, bool) and isinstance(n_jobs, Integral) and n_jobs < 0:
        return max(1, cores() + 1 + int(n_jobs))
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, Integral) or n_jobs < 1:
        raise InvalidInputError(f"n_jobs must be an integer >= 1, or None or -1 for all cores, not {n_jobs!r}")
    return int(n_jobs)


def workers_for(n_rows: int, n_jobs: Any, device: Any) -> int:
    """Workers of a fit: threads on the processor, one for each device named, or one device shared by `n_jobs`.

    Fewer where a worker would have less than `ROWS_OF_A_WORKER` rows.
    """
    jobs = jobs_of(n_jobs)
    if isinstance(device, str):
        jobs = 1 if n_jobs is None and not device.startswith("cpu") else jobs
    elif device is not None:
        if not (isinstance(device, Sequence) and device and all(isinstance(name, str) for name in device)):
            raise InvalidInputError(f"device must be a name such as 'cuda', a list of names, or None, not {device!r}")
        jobs = len(device)
    return max(1, min(jobs, n_rows // ROWS_OF_A_WORKER))


def bytes_of(memory: Any, default: float) -> float:
    """The memory that batches and preconditioners may take, in bytes."""
    if isinstance(memory, str) and memory == "auto":
        return default
    return number(memory, "memory", above=0.0, what="'auto' or a number of bytes")
