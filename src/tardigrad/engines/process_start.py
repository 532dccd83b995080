"""A worker's process, from the server's side: how it begins, the line to it, and how it ends.

Rules of this file:

- a process inherits descriptors, and nothing else of this one: of the line, of a pipe whose other end is closed when this
  process ends, however that comes about, and of shared memory;
- whatever of a process could be begun is ended again where it fails.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from tardigrad.core.errors import WorkerError
from tardigrad.engines.process_wire import Words
from tardigrad.engines.shared_memory import SharedBuffer, Views

#: set in the environment of worker processes
IN_WORKER = "TARDIGRAD_IN_WORKER"

#: seconds in which a process whose line has ended may end by itself
_GRACE = 0.1


class WorkerProcess:
    """A process that was started, with the line to it and the memory of its payloads.

    Parameters
    ----------
    number : int
        Of the worker.
    setup, points, live : SharedBuffer
        What all workers read.

    Raises
    ------
    WorkerError
        If the system starts no process.
    """

    def __init__(self, number: int, setup: SharedBuffer, points: SharedBuffer, live: SharedBuffer) -> None:
        self.number = number
        self.born = time.monotonic()
        self.words = Words()
        self.heard: list[Any] = []
        self.line, there = socket.socketpair()
        life_read, self._life = os.pipe()
        self.payload = SharedBuffer()
        self.views = Views(self.payload)
        try:
            self.process = _start((there.fileno(), life_read, setup.fd, points.fd, self.payload.fd, live.fd))
        except OSError as error:
            self._disconnect()
            raise WorkerError(f"cannot start a worker process: {error}") from error
        finally:
            there.close()
            os.close(life_read)

    def end(self) -> int:
        """End the process and the connection, which may be done twice; its exit code."""
        self._disconnect()
        try:
            return self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _disconnect(self) -> None:
        self.line.close()
        if self._life >= 0:
            os.close(self._life)
            self._life = -1
        self.payload.close()


def how_it_ended(code: int) -> str:
    """An exit code in words; real-time signals have no name.

    Examples
    --------
    >>> how_it_ended(-9), how_it_ended(3)
    ('was killed by SIGKILL', 'ended with exit code 3')
    """
    if code >= 0:
        return f"ended with exit code {code}"
    number = -code
    return f"was killed by {signal.Signals(number).name if number in set(signal.Signals) else f'signal {number}'}"


def _start(descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    # one BLAS thread each; the same modules can be imported as here
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # -P: the current folder is no place to look for modules, unless it is one here
    command = [sys.executable, "-P", "-m", "tardigrad.engines.process_worker", *map(str, descriptors)]
    env = {**os.environ, **one, "PYTHONPATH": path, IN_WORKER: "1"}
    # a group of its own: Ctrl-C is for the server
    return subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL, env=env, process_group=0)
