"""More points on a run's curves, by replaying it.

Rules of this file:

- a replay whose bits differ is not shown; the page says so.
"""

from __future__ import annotations

import dataclasses

from tardigrad.core.errors import TardigradError
from tardigrad.core.observers import History
from tardigrad.core.validate import integer
from tardigrad.engines.replay import replay
from tardigrad.report.html_run import ReportedRun


def with_snapshots(run: ReportedRun, snapshots: int) -> ReportedRun:
    """The run with at least about `snapshots` of them: as it is where it has so many, else those of a replay.

    Raises
    ------
    InvalidInputError
        If `snapshots` is below 2.
    """
    wanted = integer(snapshots, "snapshots", low=2)
    result = run.result
    if len(result.history) >= min(wanted, result.trace.updates + 1):
        return run
    history = History(max(1, -(-result.trace.updates // (wanted - 1))))
    try:
        again = replay(result, observers=[history])
    except TardigradError as error:
        return _noted(run, f"could not be replayed for more snapshots: {error}")
    if not again.identical:
        return _noted(run, f"a replay for more snapshots differs, so they are left out: {again.difference}")
    noted = _noted(run, f"its {len(history)} snapshots were computed by a replay of the run, every bit of which is the same")
    return dataclasses.replace(noted, result=dataclasses.replace(result, history=history))


def _noted(run: ReportedRun, note: str) -> ReportedRun:
    return dataclasses.replace(run, notes=(*run.notes, note))
