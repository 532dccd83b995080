"""Ctrl-C while a run goes on, however long it takes to begin."""

import os
import signal
import sys
import threading

import tardigrad as td


def press_soon():
    """Ctrl-C in a moment, from another thread: while the run waits, as at a terminal."""
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()


class PressSoon(td.Observer):
    """Ctrl-C a moment after the first updates; the run is to have no other end."""

    def __init__(self, every=4):
        self.every = every

    def observe(self, moment):
        if moment.version and self.every < sys.maxsize:  # the end of a run is shown, too
            self.every = sys.maxsize  # workers of a lock-free run would meet for it
            press_soon()
