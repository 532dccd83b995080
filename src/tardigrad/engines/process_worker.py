"""The program of a worker process: reads a task, answers it, until the server goes away.

Rules of this file:

- a worker holds nothing that cannot be rebuilt: it may be killed at any moment;
- Ctrl-C is the server's: workers ignore it;
- a worker ends when the server does, however that ended, also in the middle of a task.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections import deque
from typing import Any, NamedTuple

from tardigrad.core.bfloat16 import narrowed
from tardigrad.core.task import Task
from tardigrad.core.timing import Timing
from tardigrad.core.worker import WorkerHalf
from tardigrad.engines.process_wire import ANSWER, FAILED, READY, REPLY, TASK, Words, read_setup, receive, send, stay_awake
from tardigrad.engines.shared_memory import Block, Blocks, Layouts, SharedBuffer, Views
from tardigrad.engines.work import at_work, doing


class Memory(NamedTuple):
    """What a worker shares with the server."""

    points: SharedBuffer
    payload: SharedBuffer
    live: SharedBuffer


def main(arguments: list[str]) -> None:
    """Run with the descriptors: line to the server, life line, setup, points, payload, live point."""
    line_fd, life_fd, setup_fd, points_fd, payload_fd, live_fd = map(int, arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_server, args=(life_fd,), daemon=True).start()
    line = socket.socket(fileno=line_fd)
    try:
        half, timing = read_setup(SharedBuffer(setup_fd, writable=False))
        send(line, REPLY, (READY, 0, 0, 0, 0, 0.0, 0.0))
        points, live = SharedBuffer(points_fd, writable=False), SharedBuffer(live_fd, writable=False)
        with at_work():
            _serve(line, half, timing, Memory(points, SharedBuffer(payload_fd), live))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the server has closed the connection
    except Exception:
        send(line, REPLY, (FAILED, -1, 0, 0, 0, 0.0, 0.0), traceback.format_exc())


def _serve(line: socket.socket, half: WorkerHalf, timing: Timing | None, memory: Memory) -> None:
    do, narrow = doing(half, timing), half.problem.payload_type == "bfloat16"
    heard: list[Any] = []  # the server's words by number
    words, layouts = Words(), Layouts()
    points, live = Views(memory.points), Views(memory.live)
    blocks, taken = Blocks(memory.payload), deque[Block]()
    news_of = select.poll()
    news_of.register(line, select.POLLIN)
    while True:
        stay_awake(news_of)
        (number, client, kind, setup, layout, place, stands_in, weight, part, zero), news = receive(line, TASK)
        if news:
            heard += news
        task = Task(number, client, heard[kind], setup, weight, part)
        try:
            views, offset = (points, place) if place >= 0 else (live, -1 - place)
            payload, finite, started, finished = do(task, views.at(offset, heard[layout]), zero, bool(stands_in))
            if narrow:
                payload = narrowed(payload)
            is_tuple = isinstance(payload, tuple)
            arrays = payload if isinstance(payload, tuple) else (payload,)
            shape, n_bytes = layouts.of(arrays)
            if len(taken) == 2:  # the server has done with the last but one: it has sent a task since
                blocks.give_back(taken.popleft())
            block = blocks.put(arrays, shape, n_bytes)
            taken.append(block)
        except (Exception, SystemExit):  # also sys.exit in a user's code: it is to be shown where
            send(line, REPLY, (FAILED, task.id, 0, 0, 0, 0.0, 0.0), traceback.format_exc())
            continue
        fields = (ANSWER, task.id, finite, words.number((is_tuple, shape)), block.offset, started, finished)
        send(line, REPLY, fields, words.news)
        words.news = []


def _end_with_server(life_fd: int) -> None:
    """Wait for the end of the server: its end of the pipe is closed with it."""
    while os.read(life_fd, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
