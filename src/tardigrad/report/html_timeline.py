"""Who worked when: the tasks of each worker, as a script draws them.

Rules of this file:

- a page holds at most `BUDGET` tasks: of a longer run those around its start, its incidents and its end, and for the rest
  how busy each worker was; the page says what it leaves out;
- times are whole ticks, a small part of a usual task; columns are differences, so that they compress.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from tardigrad.core.result import Result
from tardigrad.core.task import Array
from tardigrad.core.trace import Trace
from tardigrad.report.html_head import clock
from tardigrad.report.html_run import ReportedRun, Section, figure, notes, number, swatch, table

#: tasks in a page at most, and of a run at least
BUDGET, FEWEST = 100_000, 5_000
#: workers in a picture at most
MAX_WORKERS = 64
#: stretches of time over which it is told how busy a worker was, where its tasks are left out
BINS = 1000
#: incidents that have a window of their own, at most
MAX_INCIDENTS = 8
#: the columns of a task, in the order in which the script reads them
COLUMNS = ("received", "held", "busy", "waited", "task", "client", "worker", "applied", "staleness")


def section(runs: Sequence[ReportedRun]) -> Section:
    """A timeline a run, or why there is none."""
    budget = max(BUDGET // len(runs), FEWEST)
    parts, data = [], {}
    explained = (
        "<p>A row a worker, a bar a task, from when it was begun to when it was computed, in the colour of its client. A thin"
        " line: the reply waits for the server; empty: the worker waits. To zoom click and turn the wheel, or press + and -;"
        " drag, or press the arrow keys, to move; a double click or 0 shows everything.</p>"
    )
    for place, run in enumerate(runs):
        html, drawn = _of_run(place, run, budget)
        parts.append(f"<h3>{swatch(place, run.name)}</h3>{html}" if len(runs) > 1 else html)
        if drawn is not None:
            data[str(place)] = drawn
    return Section(
        "timeline", "Who worked when", (explained if data else "") + "".join(parts), {"timeline": data} if data else {}
    )


def _of_run(place: int, run: ReportedRun, budget: int) -> tuple[str, dict[str, Any] | None]:
    result, trace = run.result, run.result.trace
    counts = getattr(result.state, "counts", None)
    if not len(trace):
        if not counts:
            return "<p>No reply was received, so nobody is known to have worked.</p>", None
        rows = [(worker, number(n), f"{100 * n / max(sum(counts), 1):.1f} %") for worker, n in enumerate(counts)]
        said = "<p>This run had no server (lock-free): workers changed the iterate themselves, and no task was recorded.</p>"
        return said + table(["worker", "updates", "share"], rows, f"Updates by worker of {run.name}", "nnn"), None
    if int(trace["worker"][0]) < 0:
        return "<p>Staleness was prescribed in this run: no worker computed, and times mean nothing.</p>", None
    drawn, remarks = timeline_data(result, budget)
    words = f"Tasks of the workers of {run.name}, in {clock(result)}."
    label = f"Timeline of {run.name}: who worked when; the table below has the workers' shares"
    return notes(remarks) + figure("timeline", label, words, str(place)) + _workers(run), drawn


def timeline_data(result: Result, budget: int) -> tuple[dict[str, Any], list[str]]:
    """What the script is given of a run, and what is left out."""
    trace, remarks = result.trace, []
    workers = np.unique(trace["worker"])
    shown = _chosen(workers, result)
    if len(shown) < len(workers):
        remarks.append(f"{len(shown)} of {len(workers)} workers are drawn, those with incidents among them")
    mine = np.isin(trace["worker"], shown)
    table = trace.table[mine] if len(shown) < len(workers) else trace.table
    end = float(max(trace["received"].max(), trace["finished"].max()))
    tick = tick_of(table, end)
    data: dict[str, Any] = {"seconds": end, "tick": tick, "workers": shown.tolist(), "whole": len(table) <= budget}
    data["incidents"] = [
        {"at": float(i["seconds"]), "worker": i["worker"], "kind": i["kind"], "text": i["text"]}
        for i in result.incidents[:1000]
    ]
    if data["whole"]:
        data["windows"] = [[0.0, end]]
    else:
        windows = windows_of(table, [float(i["seconds"]) for i in result.incidents], budget)
        inside = np.zeros(len(table), bool)
        for low, high in windows:
            inside |= (table["started"] <= high) & (table["received"] >= low)
        data |= {"windows": windows, "busy": _packed(busy_shares(table, shown, end))}
        remarks.append(
            f"of {len(table):,} tasks {int(inside.sum()):,} are here one by one, around the start, incidents and the end; in"
            f" between, shades tell how busy a worker was in each {number(end / BINS, 2)} s"
        )
        table = table[inside]
    data |= {"n": len(table), "tasks": _packed(columns(table, shown, tick))}
    return data, remarks


def _chosen(workers: Array, result: Result) -> Array:
    """The workers that are drawn: all, or the first ones, and before them those with incidents."""
    if len(workers) <= MAX_WORKERS:
        return workers
    marked = [w for w in dict.fromkeys(i["worker"] for i in result.incidents) if w in workers][:MAX_WORKERS]
    rest = [w for w in workers.tolist() if w not in marked]
    return np.array(sorted([*marked, *rest[: MAX_WORKERS - len(marked)]]))


def tick_of(table: Array, end: float) -> float:
    """Seconds that times are rounded to: far below a short task, and such that a run's length is 2^30 of them at most."""
    busy = table["finished"] - table["started"]
    short = float(np.quantile(busy, 0.05)) if len(busy) else 0.0
    return max(short / 1024, end / 2**30) or 1.0


def columns(table: Array, workers: Array, tick: float) -> Array:
    """`COLUMNS` of the tasks, in the order of the trace; times are in ticks, some columns differences to the row before.

    ``received`` (difference), ``held`` = received - finished, ``busy`` = finished - started, ``waited`` = started - submitted,
    ``task`` (difference), ``client``, ``worker`` (its place among those drawn), ``applied`` (difference), ``staleness``.
    """
    ticks = {name: np.rint(table[name] / tick).astype(np.int64) for name in ("received", "finished", "started", "submitted")}
    return np.stack(
        [
            np.diff(ticks["received"], prepend=0),
            ticks["received"] - ticks["finished"],
            ticks["finished"] - ticks["started"],
            ticks["started"] - ticks["submitted"],
            np.diff(table["task"], prepend=0),
            table["client"],
            np.searchsorted(workers, table["worker"]),
            np.diff(table["version_applied"], prepend=0),
            table["version_applied"] - table["version_read"],
        ]
    ).astype("<i4")


def windows_of(table: Array, incidents: Sequence[float], budget: int) -> list[list[float]]:
    """Seconds from and to which tasks are told one by one: around the start, incidents and the end."""
    n, received = len(table), table["received"]
    at = [int(np.searchsorted(received, second)) for second in incidents[:MAX_INCIDENTS]]
    share = max(1, int(0.8 * budget) // (2 + len(at)))  # tasks that reach into a window come on top of those received in it
    spans = [(0, share), (n - share, n)] + [(max(i - share // 2, 0), min(i + share // 2 + 1, n)) for i in at]
    joined: list[list[int]] = []
    for low, high in sorted(spans):
        if joined and low <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], high)
        else:
            joined.append([low, high])
    return [[float(received[low]) if low else 0.0, float(received[high - 1])] for low, high in joined]


def busy_shares(table: Array, workers: Array, end: float) -> Array:
    """How busy each worker was in each of `BINS` stretches of time: 0 to 255, (workers, bins)."""
    edges = np.linspace(0.0, end, BINS + 1)
    shares = np.zeros((len(workers), BINS), np.uint8)
    for row, worker in enumerate(workers):
        mine = table[table["worker"] == worker]
        mine = mine[np.argsort(mine["started"], kind="stable")]
        if not len(mine):
            continue
        # busy seconds up to a time: they grow within tasks, and stay what they are between them
        times = np.maximum.accumulate(np.column_stack([mine["started"], mine["finished"]]).ravel())
        lengths = np.diff(times, prepend=times[0])
        lengths[::2] = 0.0
        share = np.diff(np.interp(edges, times, np.cumsum(lengths))) * BINS / end
        shares[row] = np.rint(255 * np.clip(share, 0, 1))
    return shares


def _packed(values: Array) -> str:
    """Bytes of an array, compressed, as text: of each row the lowest bytes first, since the high ones are mostly 0."""
    rows = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1, values.itemsize)
    return base64.b64encode(zlib.compress(rows.transpose(0, 2, 1).tobytes(), 9)).decode()


def _workers(run: ReportedRun) -> str:
    """The workers' shares as a table."""
    trace: Trace = run.result.trace
    summary = trace.summary()
    workers, index, counts = np.unique(trace["worker"], return_inverse=True, return_counts=True)
    busy = np.bincount(index, trace["finished"] - trace["started"])
    bad = [sum(i["worker"] == worker for i in run.result.incidents) for worker in workers.tolist()]
    rows = [
        (worker, number(int(counts[i])), number(float(busy[i])), f"{100 * summary.utilisation[worker]:.1f} %", bad[i])
        for i, worker in enumerate(workers.tolist())
    ]
    caption = f"Workers of {run.name}"
    if len(rows) > 4 * MAX_WORKERS:
        caption += f": the first {4 * MAX_WORKERS} of {len(rows)}"
    heads = ["worker", "tasks", "busy seconds", "utilisation", "incidents"]
    shown = table(heads, rows[: 4 * MAX_WORKERS], caption, "nnnnn")
    return f"<details><summary>{escape(caption)}</summary>{shown}</details>"
