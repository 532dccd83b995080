"""BLAS is limited to one thread while workers work, whenever its library was loaded, and let go afterwards."""

import os
import subprocess
import sys

import pytest

import tardigrad

SCRIPT = """
import ctypes, shutil, sys
from pathlib import Path

import numpy as np
import tardigrad as td
from threadpoolctl import threadpool_info


def threads():
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


class Looks(td.Problem):
    shared_data, n_clients, dim = True, 2, 3
    seen = []

    def gradient(self, client, x, sample=None):
        if len(self.seen) < 4:
            self.seen.append(threads())
        return x


def go():
    Looks.seen.clear()
    td.run(td.Hogwild(0.1), Looks(), ENGINE, stop=td.MaxUpdates(20))
    assert all(set(seen.values()) == {1} for seen in Looks.seen), Looks.seen
    return Looks.seen[0]


ENGINES = {"Simulated": td.Simulated(td.Constant(1.0)), "Threads": td.Threads(2), "free": td.Threads(2, lock_free=True)}
ENGINE = ENGINES[sys.argv[1]]
assert "scipy.linalg" not in sys.modules
before = threads()
go()
assert threads().items() >= before.items()
assert set(before.values()) == {2}, before
here = Path(sys.argv[2])
copy = here / Path(next(iter(before))).name
shutil.copy(next(iter(before)), copy)
(here / "brings_blas.py").write_text(f"import ctypes; library = ctypes.CDLL({str(copy)!r})")
sys.path.insert(0, str(here))
import brings_blas

assert threads()[str(copy)] == 2
assert str(copy) in go()
assert set(threads().values()) == {2}, threads()
go()
assert set(threads().values()) == {2}, threads()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the copy of a library finds those beside it on Linux alone")
@pytest.mark.parametrize("engine", ["Simulated", "Threads", "free"])
def test_blas_is_limited_whenever_it_was_loaded_and_let_go(engine, tmp_path):
    paths = [os.path.dirname(os.path.dirname(tardigrad.__file__)), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-W", "error", "-c", SCRIPT, engine, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
