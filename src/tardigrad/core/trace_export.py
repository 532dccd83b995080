"""Traces for other programs: the Chrome trace format, comma-separated values, a pandas frame.

Rules of this file:

- files are written in pieces of `PIECE` rows, so a long trace needs no memory, and atomically;
- times of the Chrome format are rounded to whole nanoseconds first: slices that nest or follow each other
  still do so after rounding (viewers drop slices that cross another one of their track);
- pandas is no dependency: it is imported when a frame is asked for.

The format: "Trace Event Format" of the Chromium project, in its JSON object form. Events used: "M" (names of tracks),
"X" (complete events), "C" (counters).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tardigrad.core.trace import Trace

#: rows turned into text at a time
PIECE = 10_000


def chrome_events(trace: Trace) -> Iterator[bytes]:
    """The content of a file in the Chrome trace format, piece by piece.

    A worker is a track. The outer slice of a job lasts from when the worker could have begun it (it was submitted, and
    the reply before it was received) to when its reply was received; the inner one is the computation. Where both
    are the same, as on the virtual clock, there is one. A job that began before its worker's last one was
    received gets a second track of the worker.
    """
    yield b'{"displayTimeUnit":"ms","otherData":{"program":"tardigrad"},"traceEvents":[\n'
    yield b'{"name":"process_name","ph":"M","pid":1,"args":{"name":"workers"}}'
    workers = int(trace["worker"].max(initial=0)) + 1
    ends: dict[int, list[int]] = {}
    counters: dict[str, int] = {}
    for begin in range(0, len(trace), PIECE):
        lines: list[str] = []
        for row in _rows(trace, begin):
            _add_job(lines, row, workers, ends)
            received = _nanoseconds(row["received"])
            for name, value in (("staleness", row["staleness"]), ("tasks in flight", row["in_flight"])):
                if counters.get(name) != value:  # a counter keeps its value until the next event
                    counters[name] = value
                    lines.append(f'"name":"{name}","ph":"C","pid":1,"ts":{_micro(received)},"args":{{"{name}":{value}}}')
        yield "".join(f",\n{{{line}}}" for line in lines).encode()
    yield b"\n]}\n"


def _add_job(lines: list[str], row: dict[str, Any], workers: int, ends: dict[int, list[int]]) -> None:
    """The slices of one row, and the name of its track where that is new."""
    times = (_nanoseconds(row[name]) for name in ("submitted", "started", "finished", "received"))
    submitted, started, finished, received = times
    worker = row["worker"]
    lanes = ends.setdefault(worker, [])
    lane = next((lane for lane, end in enumerate(lanes) if end <= started), len(lanes))
    track = 2 + worker + lane * workers  # 0 is the idle thread for viewers, the process's own number its main thread
    if lane == len(lanes):
        lanes.append(submitted)
        lines.extend(_track(track, worker, lane))
    place = f'"ph":"X","pid":1,"tid":{track}'
    opened = min(max(submitted, lanes[lane]), started)
    closed = lanes[lane] = max(finished, received)
    facts = ",".join(f'"{name}":{row[name]}' for name in ("task", "client", "version_read", "version_applied", "staleness"))
    facts += f',"wait_us":{_micro(started - submitted)}'
    span = f'"ts":{_micro(opened)},"dur":{_micro(closed - opened)}'
    lines.append(f'"name":"client {row["client"]}","cat":"job",{place},{span},"args":{{{facts}}}')
    if (opened, closed) != (started, finished):
        span = f'"ts":{_micro(started)},"dur":{_micro(finished - started)}'
        lines.append(f'"name":"compute","cat":"compute",{place},{span},"args":{{"task":{row["task"]}}}')


def _track(track: int, worker: int, lane: int) -> list[str]:
    """Name and place of a track; they are listed by worker, not by who answered first."""
    place = f'"ph":"M","pid":1,"tid":{track}'
    name = f"worker {worker}" + (f" ({lane + 1})" if lane else "")
    return [
        f'"name":"thread_name",{place},"args":{{"name":"{name}"}}',
        f'"name":"thread_sort_index",{place},"args":{{"sort_index":{worker}}}',
    ]


def _rows(trace: Trace, begin: int) -> Iterator[dict[str, Any]]:
    """The rows of one piece, as plain numbers by name of the column."""
    table = trace.table[begin : begin + PIECE]
    names = _names(trace)
    for row in table.tolist():
        fields = dict(zip(names, row, strict=True))
        yield fields | {"staleness": fields["version_applied"] - fields["version_read"]}


def _names(trace: Trace) -> tuple[str, ...]:
    return trace.table.dtype.names or ()


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _micro(nanoseconds: int) -> str:
    whole, rest = divmod(nanoseconds, 1000)
    return f"{whole}.{rest:03d}" if rest else f"{whole}"


def csv_lines(trace: Trace) -> Iterator[bytes]:
    """A header and a line a reply: the columns and the staleness; floats with all their digits."""
    names = (*_names(trace), "staleness")
    yield (",".join(names) + "\n").encode()
    for begin in range(0, len(trace), PIECE):
        yield "".join(",".join(map(repr, row.values())) + "\n" for row in _rows(trace, begin)).encode()


def frame(trace: Trace) -> Any:
    """A pandas frame of the columns and the staleness."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("Trace.to_pandas needs pandas, which is not installed: pip install pandas") from error
    columns = {name: np.ascontiguousarray(trace[name]) for name in _names(trace)}
    return pd.DataFrame({**columns, "staleness": trace.staleness})
