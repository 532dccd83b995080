"""A device that PyTorch computes on: does it exist, what is free on it, and how arrays get there.

Rules of this file:

- on CUDA each thread of this process has a stream of its own: what one thread asks for runs beside what others do;
- a copy to the device waits for nothing: it leaves from pinned memory, which PyTorch keeps until the copy is done;
- precision is PyTorch's setting for the whole process: it is looked at, never changed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.problems.torch_module import import_torch, one_thread

_streams = threading.local()


class TorchDevice:
    """One device, by name.

    Parameters
    ----------
    name : str
        "cpu", "cuda" (the first CUDA device) or "cuda:1".
    what : str
        Who needs it, for messages.

    Attributes
    ----------
    name : str
        With its number, where it is a CUDA device.
    is_cuda : bool
        Whether it is one.

    Raises
    ------
    InvalidInputError
        Without PyTorch; for a device that this process does not see.

    Examples
    --------
    >>> import numpy as np
    >>> device = TorchDevice("cpu")
    >>> device.is_cuda, device.upload(np.ones(2)).tolist()
    (False, [1.0, 1.0])
    """

    def __init__(self, name: str, what: str = "TorchDevice") -> None:
        self.torch = import_torch(what)
        there = ["cpu"]
        if self.torch.cuda.is_available():
            there += [f"cuda:{number}" for number in range(self.torch.cuda.device_count())]
        self.name = "cuda:0" if name == "cuda" else name
        if self.name not in there:
            raise InvalidInputError(f"device={name!r} was asked for, and this process sees {', '.join(there)}: choose of these")
        self.is_cuda = self.name != "cpu"

    @contextmanager
    def at_work(self, n_workers: int) -> Iterator[None]:
        """Compute in this block: on this thread's stream; on one thread of a CPU that several workers share."""
        torch = self.torch
        with torch.no_grad():
            if self.is_cuda:
                with torch.cuda.stream(self._stream()):
                    yield
            elif n_workers > 1:
                with one_thread(torch):
                    yield
            else:
                yield

    def _stream(self) -> Any:
        mine: dict[str, Any] = _streams.__dict__
        if self.name not in mine:
            mine[self.name] = self.torch.cuda.Stream(self.name)
        return mine[self.name]

    def upload(self, array: Array) -> Any:
        """An array on the device; on a CPU the tensor may share its memory."""
        contiguous = np.ascontiguousarray(array)
        host = self.torch.from_numpy(contiguous if contiguous.flags.writeable else contiguous.copy())
        if not self.is_cuda:
            return host
        return (host.pin_memory() if host.numel() else host).to(self.name, non_blocking=True)

    def event(self) -> Any:
        """Something to wait for until all is done that this thread asked for so far: ``event.synchronize()``; None on a CPU."""
        return self.torch.cuda.current_stream(self.name).record_event() if self.is_cuda else None

    def wait(self) -> None:
        """Until all is done that this thread asked for."""
        if self.is_cuda:
            self.torch.cuda.current_stream(self.name).synchronize()

    def hold(self, tensor: Any) -> None:
        """Keep the memory of another thread's tensor until what this thread asks for now is done."""
        if self.is_cuda:
            tensor.record_stream(self.torch.cuda.current_stream(self.name))

    def free_memory(self) -> int | None:
        """Bytes that are free on a CUDA device; None for a CPU."""
        return int(self.torch.cuda.mem_get_info(self.name)[0]) if self.is_cuda else None

    def check_precision(self) -> None:
        """Refuse TF32 and bfloat16 in place of float32.

        TensorFloat32 keeps 10 of 23 bits in products. Squared distances are differences of such products: those of points
        that are near each other would be wrong by a thousandth of the points' squared norm. PyTorch uses full float32 unless
        it is told otherwise.

        Raises
        ------
        InvalidInputError
            If it was told otherwise.
        """
        try:
            setting = self.torch.get_float32_matmul_precision()
        except RuntimeError:  # set by the new way (fp32_precision), to something that the old one cannot say
            setting = "mixed"
        if setting != "highest":
            raise InvalidInputError(
                f"PyTorch is set to multiply float32 matrices at precision {setting!r}, which is too coarse for distances: call"
                " torch.set_float32_matmul_precision('highest') (and leave fp32_precision alone), or take dtype='float64'"
            )

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error of PyTorch's says that memory ran out."""
        return isinstance(error, self.torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)
