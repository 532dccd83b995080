"""The command line in this process, where a process of its own is not what is tested: starting one takes a second or more."""

import contextlib
import io
import os
import subprocess
import sys

import pytest

from tardigrad.cli import main


def tardigrad(*arguments, cwd=None, width=120):
    """Run a command: its exit code and what it wrote. Other exceptions than its exit come through, and warnings are errors."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(os.curdir if cwd is None else cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["tardigrad", *map(str, arguments)])
        patch.setenv("COLUMNS", str(width))
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(sys.argv, code, out.getvalue(), err.getvalue())


def process(*arguments, cwd=None):
    """The same in a process of its own, as a user starts it."""
    command = [sys.executable, "-m", "tardigrad", *map(str, arguments)]
    env = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(command, capture_output=True, text=True, timeout=110, env=env, cwd=cwd)
