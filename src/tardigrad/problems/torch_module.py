"""A PyTorch module whose parameters lie in one vector, with its loss.

Rules of this file:

- PyTorch is imported when a module is first used, never with the library; functions are first called on one number, by one
  thread;
- parameters are views of one tensor: a point is loaded by one copy, whatever the number of layers;
- the module is in evaluation mode, so its buffers stand still and a gradient is a function of point and rows alone;
- PyTorch computes on one thread here, as BLAS does while workers work: the same kernels everywhere, the same bits.
"""

from __future__ import annotations

import copy
import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError, WorkerError
from tardigrad.core.task import Array

#: functions that PyTorch's wheels take from MKL
_BY_MKL = ["acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "log", "log2", "log10", "sin", "sqrt", "tan", "tanh"]
#: held by the first call of these: where several threads make it at once, MKL may give one of them values that are right to 3
#: digits only, silently (pytorch issue 188792); later calls are right
_first, _called = threading.Lock(), list[str]()


def import_torch(what: str = "TorchModel") -> Any:
    """PyTorch, or an error that says how to get it, and what needs it."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise InvalidInputError(
            f'{what} needs PyTorch, which cannot be imported ({error}): pip install "tardigrad[torch]"'
        ) from error
    if len(_called) < len(_BY_MKL):
        with _first:
            for name in _BY_MKL[len(_called) :]:
                for dtype in (torch.float32, torch.float64):
                    getattr(torch, name)(torch.full((1,), 0.5, dtype=dtype))
                _called.append(name)
    return torch


class _Threads:
    """How many threads PyTorch had before anybody here set them to one, and how many blocks ask for that now."""

    lock = threading.Lock()
    users = 0
    before = 1


@contextmanager
def one_thread(torch: Any) -> Iterator[None]:
    """Let PyTorch compute on one thread in this block.

    The number is one of each thread, and new threads begin with the one that was set last: whoever leaves sets what was
    there before the first came.
    """
    now = torch.get_num_threads()  # a thread asks for the first time: without this it would take the last number later
    with _Threads.lock:
        if not _Threads.users:
            _Threads.before = now
        _Threads.users += 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(_Threads.before)
        with _Threads.lock:
            _Threads.users -= 1


class FlatModule:
    """A copy of a module on a device, its trainable parameters in one vector, in the order of ``module.parameters()``.

    Parameters
    ----------
    module : torch.nn.Module
        Is copied. Parameters that need no gradient stay as they are and are no part of the vector.
    loss : callable
        ``loss(prediction, target)``, a scalar: the mean over rows.
    dtype : str
        "float32" or "float64", of parameters and buffers.
    device : str
        Where to compute.
    """

    def __init__(self, module: Any, loss: Any, dtype: str, device: str) -> None:
        torch = self._torch = import_torch()
        kind = getattr(torch, dtype)
        self.module = copy.deepcopy(module).to(device=device, dtype=kind).eval()
        is_module = isinstance(loss, torch.nn.Module)
        self.loss = copy.deepcopy(loss).to(device=device, dtype=kind).eval() if is_module else loss
        self.device = device
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.shapes = [tuple(p.shape) for p in self.parameters]
        self.dim = sum(p.numel() for p in self.parameters)
        self._vector = torch.empty(self.dim, dtype=kind, device=device)
        # what is copied to: on the CPU the parameters themselves
        self._staging = self._vector if device == "cpu" else torch.empty(self.dim, dtype=kind)
        self._entry = self._staging.numpy()
        offset = 0
        for parameter in self.parameters:
            view = self._vector[offset : offset + parameter.numel()].view(parameter.shape)
            view.copy_(parameter.detach())
            parameter.data = view
            offset += parameter.numel()
        self._places = [p.data_ptr() for p in self.parameters]

    def vector(self) -> Array:
        """The parameters as they are, a copy."""
        found: Array = self._vector.detach().cpu().numpy().copy()
        return found

    def load(self, x: Array) -> None:
        """Take x as the parameters."""
        np.copyto(self._entry, x)
        if self._staging is not self._vector:
            self._vector.copy_(self._staging)

    def gradient(self, X: Any, y: Any) -> Array:
        """The gradient of the loss on rows, a new array."""
        torch = self._torch
        with torch.enable_grad():
            value = self.value(X, y)
            found = torch.autograd.grad(value, self.parameters, allow_unused=True)
        flat = []
        for parameter, shape, part in zip(self.parameters, self.shapes, found, strict=True):
            if part is None or part.shape != shape or parameter.shape != shape:
                self.check_shapes()
            dense = torch.zeros_like(parameter) if part is None else part.to_dense() if part.is_sparse else part
            flat.append(dense.reshape(-1))
        gradient: Array = torch.cat(flat).cpu().numpy()
        return gradient

    def value(self, X: Any, y: Any) -> Any:
        """The loss on rows, a tensor without axes."""
        value = self.loss(self.module(X), y)
        if not isinstance(value, self._torch.Tensor) or value.numel() != 1:
            what = f"a tensor of shape {tuple(value.shape)}" if hasattr(value, "shape") else type(value).__name__
            raise InvalidInputError(f"the loss must return one number, the mean over rows, as a tensor, not {what}")
        return value.reshape(())

    def check_shapes(self) -> None:
        """An error where the module's parameters are other ones than at the start."""
        now = [p for p in self.module.parameters() if p.requires_grad]
        if [tuple(p.shape) for p in now] != self.shapes:
            was, shapes = ", ".join(map(str, self.shapes)), ", ".join(str(tuple(p.shape)) for p in now)
            raise InvalidInputError(
                f"the module's parameters changed shape, from {was} to {shapes}: its forward must leave them as they are"
            )
        same = all(a is b for a, b in zip(now, self.parameters, strict=True))
        if not same or [p.data_ptr() for p in now] != self._places:
            raise InvalidInputError("the module replaced its parameters by others: its forward must leave them as they are")


class FlatModules:
    """Copies of a module, one for each thread and device, made when they are first asked for."""

    def __init__(self, module: Any, loss: Any, dtype: str) -> None:
        self.arguments = module, loss, dtype
        self._local = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return FlatModules, self.arguments

    def on(self, device: str) -> FlatModule:
        """The copy of this thread on a device."""
        mine: dict[str, FlatModule] = self._local.__dict__
        found = mine.get(device)
        if found is None:
            found = mine[device] = FlatModule(*self.arguments, device)
        return found

    def forget(self) -> None:
        """Make this thread's copies anew: after an error nobody knows what state they are in."""
        self._local.__dict__.clear()


def copy_of(module: Any, loss: Any) -> tuple[Any, Any]:
    """Module and loss as they are now."""
    try:
        copies: tuple[Any, Any] = copy.deepcopy((module, loss))
    except Exception as error:  # copying runs the user's code
        raise InvalidInputError(
            f"the module or the loss cannot be copied ({error}): keep open files, locks and computed tensors out of them (in"
            " place of torch.nn.utils.weight_norm take torch.nn.utils.parametrizations.weight_norm)"
        ) from error
    return copies


def device_of(client: int, device: str) -> str:
    """Where a client's gradients are computed: "cuda" without a number spreads clients over the devices that there are."""
    if not device.startswith("cuda"):
        return device
    torch = import_torch()
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(device.partition(":")[2]) if ":" in device else client % max(there, 1)
    if number >= there:
        raise WorkerError(
            f"device={device!r} was asked for, and this process sees {there} CUDA devices: give it more, or device='cpu'"
        )
    return f"cuda:{number}"


def check_module(module: Any) -> None:
    """Refuse what cannot be a function of point and rows alone."""
    torch = import_torch()
    if not isinstance(module, torch.nn.Module):
        raise InvalidInputError(f"module must be a torch.nn.Module or a function that makes one, not {module!r}")
    lazy = [name for name, p in module.named_parameters() if isinstance(p, torch.nn.parameter.UninitializedParameter)]
    if lazy:
        raise InvalidInputError(f"parameter {lazy[0]!r} has no shape yet: call the module on a batch of rows first")
    for name, part in module.named_modules():
        rate = part.p if isinstance(part, torch.nn.modules.dropout._DropoutNd) else getattr(part, "dropout", 0)
        if isinstance(rate, (int, float)) and rate > 0:
            raise InvalidInputError(
                f"{name or 'the module'} ({type(part).__name__}) drops out at random, which no replay could repeat: set its"
                " rate to 0, and regularise by weight decay in the loss"
            )
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not sum(p.numel() for p in trainable):
        raise InvalidInputError("the module has no parameters that need a gradient: there is nothing to train")
    odd = [p.dtype for p in trainable if not p.is_floating_point()]
    if odd:
        raise InvalidInputError(f"parameters must be real numbers, not {odd[0]}")


def probe(flat: FlatModule, X: Any, y: Any) -> Any:
    """The predictions on a few rows; an error where module or loss are not what a problem can be made of."""
    torch = import_torch()
    buffers = {name: buffer.clone() for name, buffer in flat.module.named_buffers()}
    with torch.no_grad():
        predictions = flat.module(X)
        first, second = flat.value(X, y), flat.value(X, y)
        twice = flat.value(torch.cat([X[:1]] * 2), torch.cat([y[:1]] * 2))
        once = flat.value(X[:1], y[:1])
    flat.check_shapes()
    if not torch.equal(first, second) and bool(torch.isfinite(first)):
        raise InvalidInputError(
            "module or loss gave two values at one point: they must not draw random numbers nor keep a state"
        )
    for name, buffer in flat.module.named_buffers():
        if name not in buffers or not torch.equal(buffer, buffers[name]):
            raise InvalidInputError(
                f"the module changes its buffer {name!r} in evaluation mode: a gradient must leave no trace"
            )
    if float(once) and abs(float(twice) / float(once) - 2) < 1e-3:
        raise InvalidInputError("the loss is the sum over rows: it must be their mean (reduction='mean')")
    return predictions
