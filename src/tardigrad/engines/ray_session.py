"""Being connected to Ray: a cluster of one's own, or a place in one that runs.

Rules of this file:

- who has initialised Ray keeps it: then nothing is started, changed or shut down here;
- a cluster that runs is joined and left; one that was started here is gone when the session is closed;
- what `ray.init` changes in this process (environment, the handler of SIGTERM) is put back.

Ray is passed in as a module: only `ray_cluster` imports it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

from tardigrad.core.errors import InvalidInputError, WorkerError

#: seconds to wait for the head of a cluster; Ray itself would try for 20 s and more
REACHABLE = 3.0


class Session:
    """A connection to Ray, until it is closed.

    Parameters
    ----------
    ray : module
        Ray.
    address : str, optional
        As for `RayCluster`.
    n_cpus : int
        CPUs of a cluster that is started here: so many workers can run.

    Raises
    ------
    WorkerError
        If the cluster cannot be reached, or none can be started.
    """

    def __init__(self, ray: Any, address: str | None, n_cpus: int) -> None:
        self._ray = ray
        self._undo = contextlib.ExitStack()
        if ray.is_initialized():
            return
        found = find(address)
        options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
        if found is None:
            options |= {"address": "local", "num_cpus": n_cpus, "include_dashboard": False}
        else:
            options["address"] = found
        self._undo.callback(_restore_environment, dict(os.environ))
        if threading.current_thread() is threading.main_thread():
            self._undo.callback(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        self._undo.enter_context(_quiet(ray))
        self._undo.callback(ray.shutdown)
        try:
            ray.init(**options)
        except BaseException as error:
            self._undo.close()
            if not isinstance(error, Exception):
                raise
            what = "cannot start Ray on this machine" if found is None else f"cannot join the Ray cluster at {found}"
            raise WorkerError(f"{what}: {error}") from error

    def n_cpus(self) -> int:
        """CPUs of the cluster, busy or not."""
        return int(self._ray.cluster_resources().get("CPU", 0))

    def close(self) -> None:
        """Leave the cluster, or end it if it was started here."""
        self._undo.close()


def check_address(address: Any) -> str | None:
    """An address that `find` understands."""
    if address is None or address in ("auto", "local"):
        return address
    if not isinstance(address, str) or not address.rpartition(":")[0] or not address.rpartition(":")[2].isdigit():
        raise InvalidInputError(f"address must be 'host:port', 'auto', 'local' or None, not {address!r}")
    if "://" in address:
        raise InvalidInputError(
            f"address must be 'host:port', not {address!r}: run the script on a node of the cluster; Ray's client protocol"
            " has no object store"
        )
    return address


def find(address: str | None) -> str | None:
    """Where the cluster is that an address names, "host:port"; None for a new one on this machine."""
    if address in (None, "auto"):
        address = os.environ.get("RAY_ADDRESS") or address
    if address in (None, "local"):
        return None
    if address == "auto":
        file = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray", "ray_current_cluster")
        try:
            address = file.read_text().strip()
        except OSError:
            raise WorkerError(
                "no Ray cluster runs on this machine: start one with `ray start --head`, give its address as"
                " 'host:port', or leave the address out to start one for this run"
            ) from None
    assert address is not None
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACHABLE).close()
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"nothing answers at the Ray address {address!r} ({error}): give the 'host:port' of a running cluster, which"
            " `ray start --head` prints, or leave the address out to start a cluster on this machine"
        ) from error
    return address


def _restore_environment(before: dict[str, str]) -> None:
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@contextlib.contextmanager
def _quiet(ray: Any) -> Any:
    """Keep Ray's own notices of dead workers from standard output, where they would stand between results."""
    module = getattr(getattr(ray, "_private", None), "worker", None)
    printer = getattr(module, "print_to_stdstream", None)
    if module is None or printer is None:
        yield
        return
    module.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        module.print_to_stdstream = printer
