"""What stands around each command: how it tells errors and warnings, and how it is ended from outside.

Rules of this file:

- an error of the library becomes one message, without a traceback, and exit code 2; a warning becomes one line;
- a polite request to end is taken as Ctrl-C, which saves what there is.
"""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from tardigrad.core.errors import TardigradError

_with_its_line = warnings.formatwarning


@contextmanager
def as_command() -> Iterator[None]:
    """Run what is within as a command line does."""
    shown, warnings.formatwarning = warnings.formatwarning, _as_line
    try:
        with _requests_to_end_as_ctrl_c():
            yield
    except TardigradError as error:
        typer.echo("\n".join([f"tardigrad: {error}", *getattr(error, "__notes__", ())]), err=True)
        sys.exit(2)
    finally:
        warnings.formatwarning = shown


def _as_line(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """A warning that is meant for the user: without the line of the library that gave it."""
    if issubclass(category, UserWarning):
        return f"tardigrad: warning: {message}\n"
    return _with_its_line(message, category, filename, lineno, line)


@contextmanager
def _requests_to_end_as_ctrl_c() -> Iterator[None]:
    """Let `kill`, a batch system and a terminal that is closed end a run as Ctrl-C does: it is saved, and can be resumed."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]  # nohup ignores one
    for number in taken:
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
