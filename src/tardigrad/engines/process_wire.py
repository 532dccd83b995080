"""What the server and a worker process say to each other, and how arrays travel.

Rules of this file:

- control goes through a socket as short messages; arrays are never pickled;
- arrays of more than `INLINE` bytes in all go through shared memory, smaller ones behind the message;
- a worker keeps its last two payloads: it can work on its next task while the server still reads the
  last reply.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from typing import Any

from tardigrad.core.task import Array, Points
from tardigrad.engines.shared_memory import Layout, read, write

INLINE = 100_000

READY, REPLY, FAILED = 0, 1, 2

_HEAD = struct.Struct("<Q")


def pack(header: tuple[Any, ...], arrays: Sequence[Array] = (), n_bytes: int = 0) -> bytearray:
    """A message: a header of plain values, and arrays of so many bytes behind it."""
    head = pickle.dumps(header, pickle.HIGHEST_PROTOCOL)
    begin = _begin(len(head))
    message = bytearray(begin + n_bytes)
    _HEAD.pack_into(message, 0, len(head))
    message[_HEAD.size : _HEAD.size + len(head)] = head
    if n_bytes:
        write(message, begin, arrays)
    return message


def unpack(message: bytes) -> tuple[Any, ...]:
    """The header of a message."""
    (length,) = _HEAD.unpack_from(message)
    header: tuple[Any, ...] = pickle.loads(message[_HEAD.size : _HEAD.size + length])
    return header


def inline_arrays(message: bytes | bytearray, layout: Layout) -> Points:
    """The arrays behind the header; as writable as the message."""
    (length,) = _HEAD.unpack_from(message)
    return read(message, _begin(length), layout)


def _begin(head_length: int) -> int:
    return -(-(_HEAD.size + head_length) // 64) * 64
