"""What all tests share: nothing is left behind by any of them."""

import os
import signal
import sys
import time
import warnings
from pathlib import Path

# before NumPy is imported: matrices here are small, and threads of BLAS that wait for work take the cores from other threads
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest

import tardigrad as td
from needs import CHROMIUM

BROWSER_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--no-first-run",
]
_ray_processes = set()  # children that are the shared Ray cluster's
_browser_processes = set()  # and those of a shared browser


@pytest.fixture(scope="session")
def ray_cluster():
    """A Ray cluster of four CPUs, for all tests marked `ray`: it takes seconds to start."""
    import ray

    before = _children()
    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    _ray_processes.update(_children() - before)
    yield
    ray.shutdown()
    _ray_processes.clear()


@pytest.fixture(scope="module")
def browser():
    """A browser for all tests of a file, each page in a window of its own; while it is open, a loop of asyncio runs here."""
    from playwright.sync_api import sync_playwright

    before = _children()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=BROWSER_FLAGS)
        _browser_processes.update(_children() - before)
        yield chromium
        chromium.close()
    left = _children() & _browser_processes
    _browser_processes.clear()
    assert not left, f"processes left behind: {left}"


@pytest.fixture(scope="session", autouse=True)
def _disks_are_not_waited_for():
    """Files are written as ever, but nobody waits for the disk: only a machine that fails would see the difference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which fails for what is no open file
        yield


@pytest.fixture(autouse=True)
def _nothing_left_behind(request):
    """No test leaves a child process or an open descriptor, nor an actor in the shared Ray cluster."""
    with_ray = request.node.get_closest_marker("ray") is not None
    if with_ray:
        request.getfixturevalue("ray_cluster")
    descriptors, path = _open_descriptors(), list(sys.path)
    yield
    sys.path[:] = path  # workers look where this process looks, and folders of tests hold modules of any name
    left = _children() - _ray_processes - _browser_processes
    assert not left, f"processes left behind: {left}"
    if with_ray:  # Ray ends actors, and closes its connections to them, a moment later
        assert _becomes_true(lambda: not _actors()), f"actors left behind: {_actors()}"
    assert _becomes_true(lambda: _open_descriptors() <= descriptors + (RAY_KEEPS if with_ray else 4)), "descriptors left open"


#: descriptors by which a test may leave more: Ray keeps connections to processes that it will use again
RAY_KEEPS = 40


def _becomes_true(condition, seconds=15.0):
    deadline = time.monotonic() + (seconds if _ray_processes else 0.0)
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def ctrl_c():
    """Ctrl-C as at a terminal: in the background the signal may be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def small_problem():
    """Least squares over four clients with noise in the gradients."""
    return make_problem()


def make_problem(**kwargs):
    """Least squares over four clients; keyword arguments as for LeastSquares."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(48, 5))
    y = X @ rng.normal(size=5) + 0.1 * rng.normal(size=48)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return td.LeastSquares((X, y), td.Iid(4), **{"batch": 3, **kwargs})


def _children():
    """Process numbers of this process's children that are not its own forks (pytest has none)."""
    try:
        return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())
    except OSError:
        return set()


def _actors():
    """Actors of RayCluster among this process's descendants."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[folder.name] = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            names[folder.name] = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue

    def is_mine(number):
        while number in parents:
            number = parents[number]
            if number == str(os.getpid()):
                return True
        return False

    return [number for number, name in names.items() if name.startswith("ray::TardigradWorker") and is_mine(number)]


def _open_descriptors():
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
