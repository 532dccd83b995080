"""The record of a run: one row a reply, in the order in which the server applied them.

Rules of this file:

- a trace and the seeds determine a run: `Replay` needs nothing else;
- staleness of a row is ``version_applied - version_read``: the updates that went by meanwhile;
- a row is 80 bytes; `Recorder` collects them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.delays import DelayFactor, delay_factor, occupancy
from tardigrad.core.errors import RunFileError
from tardigrad.core.files import FORMAT, pack_arrays, read_folder, unpack_arrays, write_atomic
from tardigrad.core.growth import Growth, growth
from tardigrad.core.plain import Plain
from tardigrad.core.task import Array
from tardigrad.core.trace_export import chrome_events, csv_lines, frame

#: the columns of a trace, in order; times are seconds since the start of the run
COLUMNS = {
    "task": np.int64,
    "client": np.int64,
    "worker": np.int64,
    "version_read": np.int64,
    "version_applied": np.int64,
    "in_flight": np.int64,
    "submitted": np.float64,
    "started": np.float64,
    "finished": np.float64,
    "received": np.float64,
}
ROW = np.dtype(list(COLUMNS.items()))


@dataclass(frozen=True)
class TraceSummary:
    """What `Trace.summary` measures.

    Attributes
    ----------
    replies, updates : int
        Rows, and versions that they led to.
    seconds : float
        Time of the last reply.
    updates_per_s : float
        Updates a second; nan for a run that took no time.
    staleness_mean, staleness_max : float, int
        Over all replies.
    staleness_quantiles : dict
        At 0.5, 0.9 and 0.99.
    in_flight_mean, in_flight_max : float, int
        Tasks open when a reply came, that reply included.
    utilisation : dict
        For each worker the share of the run's time in which it computed.
    """

    replies: int
    updates: int
    seconds: float
    updates_per_s: float
    staleness_mean: float
    staleness_max: int
    staleness_quantiles: dict[float, float]
    in_flight_mean: float
    in_flight_max: int
    utilisation: dict[int, float] = field(repr=False)

    @property
    def utilisation_mean(self) -> float:
        """Mean over the workers seen."""
        return float(np.mean(list(self.utilisation.values()))) if self.utilisation else float("nan")

    def __str__(self) -> str:
        quantiles = ", ".join(f"{q:g}: {value:g}" for q, value in self.staleness_quantiles.items())
        return (
            f"{self.replies} replies, {self.updates} updates in {self.seconds:.4g} s ({self.updates_per_s:.4g} updates/s)\n"
            f"staleness: mean {self.staleness_mean:.3g}, max {self.staleness_max}, quantiles {quantiles}\n"
            f"tasks in flight: mean {self.in_flight_mean:.3g}, max {self.in_flight_max}\n"
            f"utilisation of {len(self.utilisation)} workers: mean {100 * self.utilisation_mean:.1f} %"
        )


class Trace(Plain):
    """Columns of facts about the replies of a run; ``trace[name]`` is one, see `COLUMNS` for their names.

    Parameters
    ----------
    table : structured array (n_replies,)
        A row for each reply, with the fields of `COLUMNS`.
    updates : int
        Version of the state after the last row.

    Examples
    --------
    >>> trace = Trace.from_rows([(0, 0, 0, 0, 0, 2, 0.0, 0.0, 1.0, 1.0), (1, 1, 1, 0, 1, 2, 0.0, 0.0, 2.0, 2.0)], updates=2)
    >>> trace.staleness
    array([0, 1])
    """

    def __init__(self, table: Array, updates: int) -> None:
        self.table = table
        self.updates = updates

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[float, ...]], updates: int) -> Trace:
        """A trace of rows with the entries of `COLUMNS`."""
        return cls(np.array([tuple(row) for row in rows], ROW), updates)

    def fields(self) -> dict[str, Any]:
        return {"table": self.table, "updates": self.updates}

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, name: str) -> Array:
        if name not in COLUMNS:
            raise KeyError(f"a trace has no column {name!r}; it has {', '.join(COLUMNS)}")
        column: Array = self.table[name]
        return column

    def __repr__(self) -> str:
        return f"<Trace of {len(self)} replies, {self.updates} updates>"

    def rows(self, begin: int, end: int) -> Array:
        """Some of the rows."""
        return self.table[begin:end]

    @property
    def staleness(self) -> Array:
        """Versions that went by between each reply's read and its application."""
        staleness: Array = self["version_applied"] - self["version_read"]
        return staleness

    def summary(self) -> TraceSummary:
        """Staleness, tasks in flight, utilisation and rates."""
        if not len(self):
            nan = float("nan")
            return TraceSummary(0, self.updates, 0.0, nan, nan, 0, {}, nan, 0, {})
        staleness, in_flight = self.staleness, self["in_flight"]
        seconds = float(self["received"].max())
        workers, index = np.unique(self["worker"], return_inverse=True)
        busy = np.bincount(index, self["finished"] - self["started"])
        share = busy / seconds if seconds > 0 else np.full(len(workers), np.nan)
        levels = (0.5, 0.9, 0.99)
        return TraceSummary(
            replies=len(self),
            updates=self.updates,
            seconds=seconds,
            updates_per_s=self.updates / seconds if seconds > 0 else float("nan"),
            staleness_mean=float(staleness.mean()),
            staleness_max=int(staleness.max()),
            staleness_quantiles=dict(zip(levels, np.quantile(staleness, levels).tolist(), strict=True)),
            in_flight_mean=float(in_flight.mean()),
            in_flight_max=int(in_flight.max()),
            utilisation=dict(zip(workers.tolist(), share.tolist(), strict=True)),
        )

    def growth(self) -> Growth:
        """How staleness grows with the version read; see `tardigrad.core.growth.growth` for what it can tell."""
        return growth(self["version_read"], self.staleness, self["client"], self._unanswered())

    def _unanswered(self) -> Array:
        """Versions read by tasks that have no row though later ones have: at most so many as were in flight."""
        order = np.argsort(self["task"])
        tasks = self["task"][order]
        gaps = np.diff(tasks, prepend=-1) - 1
        if not len(self) or gaps.sum() >= self["in_flight"].max():
            return np.empty(0, np.int64)  # tasks were cancelled too: which ones is not recorded
        # the task issued next read the same version or a later one
        return np.repeat(self["version_read"][order], gaps)

    def delay_factor(self) -> DelayFactor:
        """How uneven the workers are, c = delta_a / tau; see `tardigrad.core.delays.delay_factor`."""
        return delay_factor(self["version_read"], self["version_applied"], self["worker"])

    def occupancy(self) -> Array:
        """Seconds that each job kept its worker; see `tardigrad.core.delays.occupancy`."""
        names = ("version_read", "version_applied", "worker", "submitted", "received")
        return occupancy(*(self[name] for name in names))

    def to_chrome(self, path: str | Path) -> None:
        """Write the Chrome trace format, which https://ui.perfetto.dev and chrome://tracing open.

        A track a worker, with a slice a job: from when the worker could have begun it to when its reply was received,
        the computation inside it; and counters of staleness and tasks in flight. A million replies make
        about 400 MB. Raises `RunFileError` if the file cannot be written.
        """
        write_atomic(Path(path), chrome_events(self))

    def to_csv(self, path: str | Path) -> None:
        """Write the columns and the staleness as comma-separated values, a line a reply."""
        write_atomic(Path(path), csv_lines(self))

    def to_pandas(self) -> Any:
        """A pandas frame of the columns and the staleness; pandas must be installed."""
        return frame(self)

    def to_bytes(self) -> bytes:
        """The content of the file that `save` writes."""
        header = json.dumps({"format": FORMAT, "updates": self.updates, "times": "seconds since the start of the run"})
        return pack_arrays({"header": np.array(header), **columns_of(self.table)})

    @classmethod
    def from_bytes(cls, content: bytes, path: Path) -> Trace:
        """Read what `to_bytes` made; `path` is for messages."""
        arrays = unpack_arrays(content, path)
        if "header" not in arrays:
            raise RunFileError(f"{path} is no trace: it lacks header")
        table = table_of(arrays, path)
        try:
            header = json.loads(arrays["header"].item())
            written, updates = int(header["format"]), int(header["updates"])
        except (KeyError, ValueError, TypeError) as error:
            raise RunFileError(f"{path} is no trace: its header is not readable ({error!r})") from error
        if written > FORMAT:
            raise RunFileError(f"{path} has format {written}, this version reads up to {FORMAT}: upgrade tardigrad")
        return cls(table, updates)

    @classmethod
    def from_parts(cls, header: Mapping[str, Any], parts: Mapping[str, Mapping[str, Array]], folder: Path) -> Trace:
        """Of the stretches in which a run's folder holds it."""
        tables = [table_of(parts[name], folder / name) for name in header["trace"]]
        return cls(np.concatenate(tables) if tables else np.empty(0, ROW), int(header["updates"]))

    def save(self, path: str | Path) -> None:
        """Write one npz file, atomically."""
        write_atomic(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a file that `save` wrote, or the trace in the folder of a saved run."""
        path = Path(path)
        if path.is_dir():
            return cls.from_parts(*read_folder(path, "trace"), path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RunFileError(f"cannot read {path}: {error.strerror or error}") from error
        return cls.from_bytes(content, path)


def columns_of(table: Array) -> dict[str, Array]:
    """The columns of rows, each an array of its own."""
    return {name: table[name] for name in COLUMNS}


def table_of(arrays: Mapping[str, Array], path: Path) -> Array:
    """The rows of columns that were read from a file; `path` is for messages."""
    missing = [name for name in COLUMNS if name not in arrays]
    if missing:
        raise RunFileError(f"{path} is no trace: it lacks {', '.join(missing)}")
    n_rows = arrays["task"].size
    table = np.empty(n_rows, ROW)
    for name, dtype in COLUMNS.items():
        found = arrays[name]
        if found.shape != (n_rows,) or found.dtype != dtype:
            expected = f"{np.dtype(dtype)}{(n_rows,)}"
            raise RunFileError(f"{path} is no trace: its {name} is {found.dtype}{found.shape}, not {expected}")
        table[name] = found
    return table
