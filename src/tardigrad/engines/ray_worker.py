"""The part of `RayCluster` that runs in an actor, and what it and the server say to each other, without Ray itself.

Rules of this file:

- small arrays travel in one string of bytes with everything else: Ray passes that on three times faster than
  several arguments; large arrays are left to Ray's object store, which copies them once and shares them;
- exceptions come back as data: Ray's own errors need the exception's class on the other side.
"""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.bfloat16 import narrowed
from tardigrad.core.task import Array, Payload, Points, Task
from tardigrad.engines.shared_memory import ALIGNMENT, aligned
from tardigrad.engines.work import Done, at_work, doing

#: arrays of so many bytes in all go through the object store: Ray puts larger arguments there by itself, one by one
LARGE = 90_000

ANSWER, FAILED = 0, 1

#: type and shape of each array; None for arrays that come beside the message
Layout = list[tuple[Any, tuple[int, ...]]]


class Worker:
    """What an actor does.

    Parameters
    ----------
    main : bytes
        Pickle of the worker's half of a run and of the timing to inject.
    buffers : sequence of arrays
        The memory of their arrays, which is not copied.
    """

    def __init__(self, main: bytes, buffers: Sequence[Array]) -> None:
        half, timing = pickle.loads(main, buffers=buffers)
        self._at_work = ExitStack()  # for good: an actor does nothing else
        self._at_work.enter_context(at_work())
        self._do: Callable[[Task, Points, float, bool], Done] = doing(half, timing)
        self._narrow = half.problem.payload_type == "bfloat16"

    def work(self, message: bytes, arrays: Points = ()) -> bytes | tuple[bytes, Payload]:
        """Answer a task: a message, or one with large arrays beside it."""
        (fields, zero, stands_in), points = read(message)
        task = Task(*fields)
        try:
            payload, finite, started, finished = self._do(task, points if points is not None else arrays, zero, stands_in)
        except Exception:
            return parcel((FAILED, task.id, traceback.format_exc()))
        if self._narrow:
            payload = narrowed(payload)
        head = ANSWER, task.id, finite, started, finished, isinstance(payload, tuple)
        answer = payload if isinstance(payload, tuple) else (payload,)
        if sum(array.nbytes for array in answer) > LARGE:
            return parcel(head), answer
        return parcel(head, *packed(answer))


def packed(arrays: Points) -> tuple[Layout, bytes]:
    """Layout and content of small arrays."""
    layout = [(array.dtype if array.dtype.names else array.dtype.str, array.shape) for array in arrays]
    if len(arrays) == 1:
        return layout, arrays[0].tobytes()
    return layout, b"".join(_padded(array.tobytes()) for array in arrays)


def parcel(head: tuple[Any, ...], layout: Layout | None = None, content: bytes = b"") -> bytes:
    """A message: what it says, and small arrays."""
    front = pickle.dumps((head, layout), pickle.HIGHEST_PROTOCOL)
    return _padded(len(front).to_bytes(4, "little") + front) + content


def read(message: bytes | bytearray) -> tuple[tuple[Any, ...], Points | None]:
    """What a message says and the arrays in it, which look into it."""
    length = int.from_bytes(message[:4], "little")
    head, layout = pickle.loads(memoryview(message)[4 : 4 + length])
    if layout is None:
        return head, None
    offset, arrays = aligned(4 + length), []
    for dtype, shape in layout:
        array: Array = np.ndarray(shape, np.dtype(dtype), message, offset)
        arrays.append(array)
        offset = aligned(offset + array.nbytes)
    return head, tuple(arrays)


def host() -> str:
    """Names this machine since it was started: processes with the same name read the same monotonic clock."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def clock() -> float:
    """Seconds on this machine's monotonic clock."""
    return time.monotonic()


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % ALIGNMENT)


def fitted(started: float, finished: float, given: float, now: float) -> tuple[float, float]:
    """Times of another machine, whose clock is known only so well, moved to lie between giving a task and its reply."""
    late = max(0.0, finished - now)
    early = max(0.0, given - (started - late))
    return started - late + early, min(finished - late + early, now)


def in_brief(error: Exception) -> str:
    """What Ray says of a death, on one line."""
    lines = [line for line in str(error).splitlines() if line and not line[0].isspace()]
    text = " ".join(lines).partition(" Some common causes")[0].partition(" There are some potential root causes")[0]
    return f"died: {text.removeprefix('The actor died unexpectedly before finishing this task. ')}"[:400]
