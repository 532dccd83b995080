"""What the server and a worker process say to each other.

Rules of this file:

- arrays go through shared memory, whatever their size: at dim 1000 that is half the cost of sending
  them through the socket, and arrays are never pickled;
- a message is a record of fixed size: one system call to send it, one to receive it. Words that have no
  fixed size (kinds of tasks, layouts of arrays) are numbered, and told with the first message that uses
  them;
- a worker keeps its last two payloads: it can work on its next task while the server still reads the
  last reply.
"""

from __future__ import annotations

import os
import pickle
import select
import socket
import struct
import time
from collections.abc import Hashable, Sequence
from typing import Any

from tardigrad.core.task import Array
from tardigrad.engines.shared_memory import ALIGNMENT, SharedBuffer, aligned

#: id, client, kind, setup, layout and place of the points (below -1: in the live buffer), whether the worker stands in,
#: weight, part, start of the run
TASK = struct.Struct("<qqqqqqqdqdq")
#: what, id of the task, whether it is finite, layout and place of the payload, times of start and end
REPLY = struct.Struct("<qqqqqddq")

READY, ANSWER, FAILED = 0, 1, 2

#: seconds to look for news before going to sleep
AWAKE = 100e-6


class Words:
    """Numbers for words, on the side that uses them; `news` are those that the other side was not told yet."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self.news: list[Any] = []

    def number(self, word: Hashable) -> int:
        """The number of a word."""
        number = self._numbers.get(word)
        if number is None:
            number = self._numbers[word] = len(self._numbers)
            self.news.append(word)
        return number


def send(line: socket.socket, record: struct.Struct, fields: tuple[Any, ...], news: Any = None) -> None:
    """Send a record, and news behind it if there are any."""
    if news:
        more = pickle.dumps(news, pickle.HIGHEST_PROTOCOL)
        line.sendall(record.pack(*fields, len(more)) + more)
    else:
        line.sendall(record.pack(*fields, 0))


def receive(line: socket.socket, record: struct.Struct) -> tuple[tuple[Any, ...], Any]:
    """A record and the news behind it; EOFError where the other side is gone."""
    *fields, n_more = record.unpack(_exactly(line, record.size))
    return tuple(fields), pickle.loads(_exactly(line, n_more)) if n_more else None


def write_setup(buffer: SharedBuffer, main: bytes, arrays: Sequence[Array]) -> None:
    """What a run's workers are told first: a pickle, and behind it the memory of its arrays."""
    # where each array ends up depends on the length of the head, which holds these places: leave ample room
    begin = aligned(8 + len(main) + ALIGNMENT * (len(arrays) + 2))
    offsets = []
    for array in arrays:
        offsets.append((begin, begin + array.nbytes))
        begin = aligned(begin + array.nbytes)
    head = pickle.dumps((offsets, main), pickle.HIGHEST_PROTOCOL)
    memory = buffer.take(begin)
    memory[:8] = len(head).to_bytes(8, "little")
    memory[8 : 8 + len(head)] = head
    for (low, high), array in zip(offsets, arrays, strict=True):
        memory[low:high] = array.data


def read_setup(buffer: SharedBuffer) -> Any:
    """The object of which `write_setup` wrote the pickle, its arrays without a copy."""
    memory = buffer.mapped(8)
    head_length = int.from_bytes(memory[:8], "little")
    offsets, main = pickle.loads(memory[8 : 8 + head_length])
    view = memoryview(memory)
    return pickle.loads(main, buffers=[view[begin:end] for begin, end in offsets])


_give_way = os.sched_yield if hasattr(os, "sched_yield") else lambda: time.sleep(0)


def stay_awake(news: select.poll) -> bool:
    """Wait for news without going to sleep, for a moment; whether there are any.

    To wake a sleeping process costs the one that writes to it some 10 microseconds, and the sleeper more. So whoever
    has just sent something looks for the answer for a while first, giving way to any other that could run.
    """
    end = time.monotonic() + AWAKE
    while not news.poll(0):
        if time.monotonic() > end:
            return False
        _give_way()
    return True


def _exactly(line: socket.socket, size: int) -> bytes:
    message = line.recv(size)
    while len(message) < size:
        part = line.recv(size - len(message)) if message else b""
        if not part:
            raise EOFError
        message += part
    return message
