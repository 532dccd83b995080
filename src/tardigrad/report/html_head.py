"""The head of a report: what each run was and how it ended; what went wrong on the way; its run file.

Rules of this file:

- how a run ended is said in words, and plainly where it did not end well.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from tardigrad.core.result import Result
from tardigrad.core.stopping import Status
from tardigrad.report.html_run import NOTHING, Html, ReportedRun, Section, number, swatch, table

#: incidents that a table lists of a run at most
MAX_INCIDENTS = 50

#: what the statuses that are no ordinary end mean, and how serious they are
_PLAINLY = {
    Status.INTERRUPTED: ("warn", "interrupted before its end; tardigrad resume goes on with it"),
    Status.UNFINISHED: ("warn", "a checkpoint: the run went on, or was cut off; tardigrad resume goes on with it"),
    Status.DIVERGED: ("bad", "diverged: the iterates are no longer finite; the last finite ones are kept"),
    Status.STALLED: ("bad", "stalled: no task was in flight and none was issued"),
    Status.INCONSISTENT: ("bad", "no x solves the system"),
    Status.PRECISION: ("warn", "the number format allows no better"),
    Status.CONVERGED: ("good", "converged"),
}


def section(runs: Sequence[ReportedRun]) -> Section:
    """A card for each run, and a table of what it cost."""
    cards = "".join(_card(place, run) for place, run in enumerate(runs))
    names = [swatch(place, run.name) for place, run in enumerate(runs)]
    facts = [_costs(run.result) for run in runs]
    rows = [(what, *(fact[what] for fact in facts)) for what in facts[0]]
    costs = table(["", *names], rows, "What the runs did, and what it cost", "t" + "n" * len(runs))
    return Section("runs", "Run" if len(runs) == 1 else "Runs", f'<div class="cards">{cards}</div>{costs}')


def seconds_of(result: Result) -> float:
    """Seconds on the engine's clock."""
    return float(result.history.seconds[-1]) if len(result.history) else 0.0


def clock(result: Result) -> str:
    """Whose seconds these are."""
    virtual = type(result.engine).__name__ in ("Simulated", "Prescribed")
    return "virtual seconds" if virtual else "seconds"


def _card(place: int, run: ReportedRun) -> str:
    result = run.result
    kind, words = _PLAINLY.get(result.status, ("good", "came to its end"))
    lost = int(np.count_nonzero(result.diverged))
    if lost and result.status is not Status.DIVERGED:
        kind, words = "warn", f"{words}; {lost} of {result.diverged.size} replicas diverged"
    updates, seconds = int(result.state.version), seconds_of(result)
    rate = updates / seconds if seconds > 0 else float("nan")
    numbers = (
        (number(updates), "updates"),
        (number(seconds), clock(result)),
        (number(rate), "updates/s"),
    )
    big = "".join(f"<div><dt>{what}</dt><dd>{value}</dd></div>" for value, what in numbers)
    problem = "not saved" if result.problem is None else type(result.problem).__name__
    rule, engine = escape(type(result.rule).__name__), escape(type(result.engine).__name__)
    solver = f", set up by {escape(str(result.solver))}" if result.solver else ""
    made = f"<b>{rule}</b> on <b>{engine}</b>, problem {escape(problem)}{solver}"
    return (
        f'<article class="card"><h3>{swatch(place, run.name)}</h3><p>{made}</p><dl class="big">{big}</dl>'
        f'<p class="status {kind}"><span class="badge">{escape(result.status.value)}</span> {escape(words)}</p>'
        f'<p class="message">{escape(result.message)}</p></article>'
    )


def _costs(result: Result) -> dict[str, str]:
    summary = result.trace.summary()
    has_trace = len(result.trace) > 0
    nobody = has_trace and int(result.trace["worker"][0]) < 0
    share = NOTHING if not has_trace or nobody else f"{100 * summary.utilisation_mean:.1f} %"
    return {
        "gradients applied (oracle calls)": number(int(result.oracle_calls)),
        "replies": number(len(result.trace)) if has_trace else NOTHING,
        "workers seen": "none (prescribed)" if nobody else number(len(summary.utilisation)) if has_trace else NOTHING,
        "utilisation of workers, mean": share,
        "tasks in flight, mean": number(summary.in_flight_mean, 3),
        "staleness, mean": number(summary.staleness_mean, 3),
        "staleness, largest": number(summary.staleness_max) if has_trace else NOTHING,
        "trajectories (replicas, sweeps)": number(int(result.diverged.size)),
        "incidents": number(len(result.incidents)),
        "real seconds": number(float(result.wall_seconds)),
        "of these on measures for stopping": number(float(result.measure_seconds)),
    }


def incidents(runs: Sequence[ReportedRun]) -> Section:
    """What went wrong: deaths, errors, stragglers."""
    parts = []
    for run in runs:
        found = run.result.incidents
        if not found:
            continue
        rows = [
            (number(float(i["seconds"]), 6), i["kind"], i["worker"], NOTHING if i["task"] is None else i["task"], i["text"])
            for i in found[:MAX_INCIDENTS]
        ]
        heads = ["seconds", "kind", "worker", "task", "what happened"]
        caption = f"Incidents of {run.name}"
        if len(found) > MAX_INCIDENTS:
            caption += f": the first {MAX_INCIDENTS} of {len(found)}"
        parts.append(table(heads, rows, caption, "ntnnt"))
    return Section("incidents", "Incidents", "".join(parts) or "<p>No worker died, raised or was reported as slow.</p>")


def run_files(runs: Sequence[ReportedRun]) -> Section:
    """The run files, as they lie in the folders."""
    parts = [
        f"<details><summary>{Html(swatch(place, run.name))}: config.toml</summary><pre>{escape(run.config)}</pre></details>"
        for place, run in enumerate(runs)
        if run.config is not None
    ]
    return Section("files", "Run file" if len(runs) == 1 else "Run files", "".join(parts))
