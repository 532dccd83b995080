"""Kernels on tensors: the same formulas as in `kernel_functions`, in place, on the device.

Rules of this file:

- a tile of squared distances becomes a tile of kernel values where it lies; at most one other tile is written to;
- formulas are those of `kernel_loops.formula`; a kernel that has none goes through NumPy: right, and slower on a GPU by two
  copies of each tile;
- a user's function is given tensors where a trial shows that it takes them and agrees with what it gives for arrays.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.problems.kernel_functions import KernelFunction, UserKernel
from tardigrad.problems.torch_device import TorchDevice

#: exp(-s) is 0 beyond this in both precisions, and s^2 is finite up to it
_FAR = 1e4

#: squared distances (or inner products) to kernel values, in place; the second tensor is scratch of the same shape, or None
InPlace = Callable[[Any, Any], Any]


def in_place(kernel: KernelFunction, device: TorchDevice, dtype: np.dtype[Any]) -> tuple[InPlace, bool]:
    """What turns a tile of squared distances (or inner products) into kernel values, and whether it needs scratch.

    Parameters
    ----------
    kernel : KernelFunction
        With a number for its bandwidth.
    device : TorchDevice
        Where tiles lie.
    dtype : dtype
        Their precision.

    Returns
    -------
    function : callable
        ``function(values, scratch)``, for tensors of one shape; scratch may be None where none is needed.
    needs_scratch : bool

    Examples
    --------
    >>> import torch
    >>> from tardigrad.problems.kernel_functions import Laplacian
    >>> function, needs_scratch = in_place(Laplacian(2.0), TorchDevice("cpu"), np.dtype("float64"))
    >>> values = torch.tensor([4.0, 16.0], dtype=torch.float64)
    >>> _ = function(values, None)
    >>> values.numpy().round(4).tolist()
    [0.3679, 0.1353]
    """
    if type(kernel) is UserKernel and _takes_tensors(kernel, device, dtype):
        return lambda values, _: values.copy_(_checked(kernel.function(values), values)), False  # type: ignore[operator]
    found = _formula(kernel, device)
    if found is None:
        return lambda values, _: _through_numpy(kernel, values), False
    return found


def _formula(kernel: KernelFunction, device: TorchDevice) -> tuple[InPlace, bool] | None:
    kind, scale, power = kernel.fused or (None, 1.0, 1.0)
    if kind in ("matern 3/2", "matern 5/2"):
        return _matern(device, scale, smooth=kind == "matern 5/2"), True
    if kind == "exp(-r)":
        return lambda values, _: values.sqrt_().mul_(-scale).exp_(), False
    if kind == "exp(-r^2)":
        return lambda values, _: values.mul_(-scale).exp_(), False
    if kind == "exp(-r^gamma)":
        scale = 2 ** min(scale / 2, 127)
        return lambda values, _: values.sqrt_().mul_(scale).pow_(2 * power).neg_().exp_(), False
    return None


def _matern(device: TorchDevice, scale: float, smooth: bool) -> InPlace:
    negative = device.torch.neg

    def function(values: Any, scratch: Any) -> Any:
        values.sqrt_().mul_(scale).clamp_(max=_FAR)
        negative(values, out=scratch).exp_()
        if smooth:
            values.addcmul_(values, values, value=1 / 3)
        return values.add_(1).mul_(scratch)

    return function


def _through_numpy(kernel: KernelFunction, values: Any) -> None:
    host = values.cpu()  # of a CPU's tile the tile itself
    kernel.apply(host.numpy())
    if host is not values:
        values.copy_(host)


def _takes_tensors(kernel: UserKernel, device: TorchDevice, dtype: np.dtype[Any]) -> bool:
    """Whether the function makes of a tensor the tensor that belongs to what it makes of an array."""
    trial = np.array([[0.0, 0.25, 1.0], [2.0, 5.0, 30.0]], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy's functions take a CPU's tensors, and warn
        try:
            found = kernel.function(device.upload(trial.copy()))  # type: ignore[operator]
            wanted = np.asarray(kernel.function(trial.copy()))  # type: ignore[operator]
            same = isinstance(found, device.torch.Tensor) and str(found.device) == device.name and found.shape == wanted.shape
            return bool(same and np.allclose(found.cpu().numpy(), wanted, rtol=1e-3, equal_nan=True))
        except Exception:  # whatever the user's code raises on a tensor, it is given arrays then
            return False


def _checked(found: Any, values: Any) -> Any:
    if getattr(found, "shape", None) != values.shape:
        raise InvalidInputError(
            f"the function of a UserKernel must return a tensor of the shape that it was given, {tuple(values.shape)}, not"
            f" {type(found).__name__} of shape {tuple(getattr(found, 'shape', ()))}"
        )
    return found
