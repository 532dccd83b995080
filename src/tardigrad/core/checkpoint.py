"""Checkpoints: a run saved while it goes on, so that whatever happens to it, it can be resumed.

Rules of this file:

- a checkpoint is a saved run like any other, with the tasks in flight: it can be loaded, drawn, replayed;
- it is taken between two replies, when the state is whole;
- at the end of a run, also by Ctrl-C or because a task keeps failing, the last one is written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tardigrad.core.errors import InvalidInputError, RunFileError
from tardigrad.core.files import HEADER
from tardigrad.core.plain import Plain
from tardigrad.core.run_files import RunWriter
from tardigrad.core.validate import number, optional_integer

if TYPE_CHECKING:
    from tardigrad.core.result import Result

LOG = logging.getLogger("tardigrad")

#: seconds between checkpoints where nothing is said
USUAL = 60.0


@dataclass(frozen=True)
class Checkpoint(Plain):
    """Where and how often a run is saved while it goes on.

    Parameters
    ----------
    folder : path
        The run's folder; it always holds one whole run.
    every_updates : int, optional
        Updates between two checkpoints.
    every_seconds : float, optional
        Real seconds between two; 60 where neither is given. With both, whichever comes first.
    with_problem : bool, optional
        Whether the problem's data are saved too, as for `Result.save`.
    overwrite : bool
        Whether a run that is in the folder may be replaced. By default a new run is refused there: it would destroy what
        an earlier checkpoint was for.

    Examples
    --------
    >>> Checkpoint("my-run", every_seconds=10.0).folder
    'my-run'
    """

    folder: str
    every_updates: int | None = None
    every_seconds: float | None = None
    with_problem: bool | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.folder, (str, Path)) or not str(self.folder):
            raise InvalidInputError(f"Checkpoint needs the folder to write to, not {self.folder!r}")
        object.__setattr__(self, "folder", str(self.folder))
        object.__setattr__(self, "every_updates", optional_integer(self.every_updates, "Checkpoint.every_updates"))
        seconds = self.every_seconds
        if seconds is None and self.every_updates is None:
            seconds = USUAL
        if seconds is not None:
            what = "a number of seconds"
            object.__setattr__(self, "every_seconds", number(seconds, "Checkpoint.every_seconds", above=0, what=what))

    @classmethod
    def of(cls, given: object) -> Checkpoint | None:
        """A checkpoint from what a user may give: one, a folder, or None."""
        if given is None or isinstance(given, Checkpoint):
            return given
        if isinstance(given, (str, Path)):
            return cls(str(given))
        raise InvalidInputError(f"checkpoint must be a folder, or one such as Checkpoint('my-run'), not {given!r}")


def check_new(checkpoint: Checkpoint | None) -> None:
    """Refuse to begin a new run in the folder of another one."""
    if checkpoint is not None and not checkpoint.overwrite and (Path(checkpoint.folder) / HEADER).exists():
        raise RunFileError(
            f"{checkpoint.folder} holds a run already: go on with it (tardigrad.resume), choose another folder, or replace it"
            f" with Checkpoint({checkpoint.folder!r}, overwrite=True)"
        )


class Keeper:
    """Writes the checkpoints of one run.

    Attributes
    ----------
    tick : float or None
        Seconds after which the loop should look, whatever the version; None where only updates count.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._every_updates = checkpoint.every_updates or inf
        self._every_seconds = checkpoint.every_seconds or inf
        self.tick = None if checkpoint.every_seconds is None else checkpoint.every_seconds / 10
        self._writer = RunWriter(Path(checkpoint.folder), checkpoint.with_problem)
        self.folder = checkpoint.folder
        self._saved: float | None = None
        self._saved_at = 0.0

    def look(self, version: int, save: Callable[[], tuple[Result, Any]]) -> float:
        """Write a checkpoint if it is time for one; the version at which to look again."""
        now = time.monotonic()
        if self._saved is None:
            self._saved, self._saved_at = version, now
        if version - self._saved >= self._every_updates or now - self._saved_at >= self._every_seconds:
            try:
                self.write(*save())
            except RunFileError as error:  # the run itself is well: the next checkpoint may succeed
                LOG.warning("no checkpoint after %d updates: %s", version, error)
            self._saved, self._saved_at = version, time.monotonic()
        return self._saved + self._every_updates

    def close(self) -> None:
        """Let others write to the folder."""
        self._writer.close()

    def write(self, run: Result, rows: Any) -> None:
        """Write a checkpoint now."""
        self._writer.write(run, rows)
