"""The program of a worker process: reads a task, answers it, until the server goes away.

Rules of this file:

- a worker holds nothing that cannot be rebuilt: it may be killed at any moment;
- Ctrl-C is the server's: workers ignore it;
- a worker ends when the server does, however that ended, also in the middle of a task.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from multiprocessing.connection import Connection
from typing import NamedTuple

from tardigrad.core.task import Task
from tardigrad.core.timing import Timing
from tardigrad.core.worker import WorkerHalf
from tardigrad.engines.process_wire import FAILED, INLINE, READY, REPLY, inline_arrays, pack, unpack
from tardigrad.engines.shared_memory import Layout, SharedBuffer, Slots, layout_of, read, size_of
from tardigrad.engines.work import at_work, doing


class Memory(NamedTuple):
    """What a worker shares with the server."""

    points: SharedBuffer
    payload: SharedBuffer
    live: SharedBuffer


def main(arguments: list[str]) -> None:
    """Run with the descriptors: control, life line, setup, points, payload, live point."""
    control_fd, life_fd, setup_fd, points_fd, payload_fd, live_fd = map(int, arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_server, args=(life_fd,), daemon=True).start()
    control = Connection(control_fd)
    try:
        half, timing = load_setup(SharedBuffer(setup_fd, writable=False))
        control.send_bytes(pack((READY,)))
        points, live = SharedBuffer(points_fd, writable=False), SharedBuffer(live_fd, writable=False)
        with at_work():
            _serve(control, half, timing, Memory(points, SharedBuffer(payload_fd), live))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the server has closed the connection
    except Exception:
        control.send_bytes(pack((FAILED, -1, traceback.format_exc())))


def load_setup(buffer: SharedBuffer) -> tuple[WorkerHalf, Timing | None]:
    """The worker's half and the timing, their arrays without a copy."""
    memory = buffer.mapped(8)
    head_length = int.from_bytes(memory[:8], "little")
    offsets, main = pickle.loads(memory[8 : 8 + head_length])
    view = memoryview(memory)
    half, timing = pickle.loads(main, buffers=[view[begin:end] for begin, end in offsets])
    return half, timing


def _serve(control: Connection, half: WorkerHalf, timing: Timing | None, memory: Memory) -> None:
    do = doing(half, timing)
    layout: Layout = ()
    told: tuple[bool, Layout] | None = None
    slots, places = Slots(memory.payload), deque[tuple[int, int]]()
    while True:
        message = control.recv_bytes()
        fields, zero, new_layout, offset = unpack(message)
        layout = new_layout or layout
        task = Task(*fields)
        try:
            if offset is None:
                points = inline_arrays(message, layout)
            else:
                buffer, offset = (memory.points, offset) if offset >= 0 else (memory.live, -1 - offset)
                points = read(buffer.mapped(offset + size_of(layout)), offset, layout)
            payload, finite, started, finished = do(task, points, zero)
            arrays = payload if isinstance(payload, tuple) else (payload,)
            this = isinstance(payload, tuple), layout_of(arrays)
            n_bytes, place = size_of(this[1]), None
            if n_bytes > INLINE:
                if len(places) == 2:  # the server has done with the last but one: it has sent a task since
                    slots.give_back(*places.popleft())
                place = slots.put(arrays, n_bytes)
                places.append((place, n_bytes))
        except Exception:
            control.send_bytes(pack((FAILED, task.id, traceback.format_exc())))
            continue
        header = (REPLY, task.id, finite, started, finished, None if this == told else this, place)
        told = this
        control.send_bytes(pack(header) if place is not None else pack(header, arrays, n_bytes))


def _end_with_server(life_fd: int) -> None:
    """Wait for the end of the server: its end of the pipe is closed with it."""
    while os.read(life_fd, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
