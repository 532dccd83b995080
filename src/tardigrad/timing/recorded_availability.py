"""On and off stretches of clients that were recorded, from a table or a CSV file.

Rules of this file:

- the recording repeats, all clients together, so that whoever was seen once comes back;
- a file is read whole and checked line by line before anything is made of it.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.errors import DataError, InvalidInputError
from tardigrad.core.task import Array
from tardigrad.core.timing import Timing
from tardigrad.timing.availability import MOST_CLIENTS, Availability
from tardigrad.timing.models import ONE_SECOND

COLUMNS = ("client", "on", "off")


class OnOffTrace(Availability):
    """On and off stretches that were recorded.

    Parameters
    ----------
    rows : array (n, 3)
        Client, and the seconds at which it came on and went off, in any order. Every client of the run must have a row;
        further clients do no harm. Those of one client must not overlap; they may touch.
    base : Timing
        Seconds of work of a job.

    Raises
    ------
    InvalidInputError
        For rows that are not as described; where a client of the run has none, when it starts.

    Notes
    -----
    Time 0 is the beginning of the run and of the recording; nobody is on before a first row says so. The recording ends
    with the last `off` of all clients, and then begins anew for all of them, again and again: so whoever is seen once comes
    back, durations stay finite, and clients keep in step with each other. Cut a recording to whole days if days matter. For
    times of a calendar subtract the beginning of the recording.

    Examples
    --------
    Client 1 is off from 60 to 80 s; the recording ends at 100 s:

    >>> import tardigrad as td
    >>> timing = OnOffTrace([[0, 0, 100], [1, 0, 60], [1, 80, 100]], base=td.Constant(10.0))
    >>> timing.duration(client=0, start=55.0, u=0.5), timing.duration(client=1, start=55.0, u=0.5)
    (10.0, 30.0)
    >>> timing.duration(client=1, start=155.0, u=0.5), timing.shares(n_clients=2, seconds=1000.0).tolist()
    (30.0, [1.0, 0.8])
    """

    def __init__(self, rows: Array | Sequence[Sequence[float]], base: Timing = ONE_SECOND) -> None:
        super().__init__(base)
        try:
            table = np.array(rows, float)
        except (TypeError, ValueError):
            raise InvalidInputError(f"OnOffTrace needs rows of client, on, off, in seconds, not {rows!r}") from None
        if table.ndim != 2 or table.shape[1] != 3 or not len(table):
            raise InvalidInputError(
                f"OnOffTrace needs rows of client, on, off, at least one, not an array of shape {table.shape}"
            )
        problem = _wrong(table, lambda i: f"row {i}")
        if problem:
            raise InvalidInputError(f"OnOffTrace, {problem}")
        self.rows = table
        #: when the recording begins anew, in seconds
        self.period = float(table[:, 2].max())
        self._recorded = {client: _merged(table, client) for client in np.unique(table[:, 0]).astype(int).tolist()}
        self._on = {client: sum(end - begin for begin, end in mine) for client, mine in self._recorded.items()}

    @classmethod
    def from_csv(cls, path: str | Path, base: Timing = ONE_SECOND) -> OnOffTrace:
        """Read a file with a header line that names the columns client, on and off, in any order; others are ignored.

        Raises
        ------
        DataError
            For a file that is missing, empty or not as described; the message names file and line.
        """
        path = Path(path)
        table, lines = _read(path)
        problem = _wrong(table, lambda i: f"line {lines[i]}")
        if problem:
            raise DataError(f"{path}, {problem}")
        return cls(table, base)

    def fields(self) -> dict[str, Any]:
        return {"rows": self.rows, "base": self.base}

    def __repr__(self) -> str:
        stretches = f"<{len(self.rows)} stretches of {len(self._recorded)} clients in {self.period:g} s>"
        return f"OnOffTrace({stretches}, base={self.base!r})"

    def check(self, n_clients: int) -> None:
        super().check(n_clients)
        for client in range(n_clients):
            self._of_client(client)

    def _of_client(self, client: int) -> list[tuple[float, float]]:
        if client not in self._recorded:
            raise InvalidInputError(
                f"OnOffTrace has no row for client {client}: give each client of the run at least one, or use fewer clients"
            )
        return self._recorded[client]

    def duration(self, client: int, start: float, u: float) -> float:
        self._of_client(client)
        work, on = self.base.duration(client, start, u), self._on[client]
        # the recording repeats, so that one of it, and what the work runs over into, is all that is laid out
        repeats = max(math.ceil(work / on) - 1, 0) if on < self.period else 0
        rest = min(max(work - repeats * on, 0.0), on) if repeats else work  # of enormous work the difference is round-off
        return repeats * self.period + self._line(client).seconds(math.fmod(start, self.period), rest)

    def _stretches(self, client: int) -> Iterator[tuple[float, float]]:
        recorded = self._of_client(client)
        if recorded == [(0.0, self.period)]:
            yield 0.0, math.inf
        for again in count():
            for begin, end in recorded:
                yield again * self.period + begin, end - begin


def _merged(table: Array, client: int) -> list[tuple[float, float]]:
    """A client's stretches in order, those that touch as one."""
    mine = table[table[:, 0] == client, 1:]
    found: list[tuple[float, float]] = []
    for begin, end in mine[np.argsort(mine[:, 0])].tolist():
        touches = bool(found) and found[-1][1] == begin
        found[-1:] = [(found[-1][0], end)] if touches else [*found[-1:], (begin, end)]
    return found


def _wrong(table: Array, place: Callable[[int], str]) -> str | None:
    """What is wrong with rows of client, on, off, and where; None if nothing."""
    for i, (client, on, off) in enumerate(table.tolist()):
        if not (0 <= client < MOST_CLIENTS and client % 1 == 0):
            return f"{place(i)}: a client is an integer from 0, not {client:g}"
        if not 0 <= on < math.inf:
            return f"{place(i)}: on must be seconds >= 0, from the beginning of the run, not {on:g}"
        if not on < off < math.inf:
            return f"{place(i)}: off must be later than on, {on:g}, not {off:g}"
    order = np.lexsort((table[:, 1], table[:, 0])).tolist()
    for i, j in pairwise(order):
        if table[i, 0] == table[j, 0] and table[j, 1] < table[i, 2]:
            where = f"{place(j)}: client {table[j, 0]:g} comes on at {table[j, 1]:g}"
            return f"{where}, but by {place(i)} it is on until {table[i, 2]:g}: stretches must not overlap"
    return None


def _read(path: Path) -> tuple[Array, list[int]]:
    """The rows of a file, and the lines that they are on."""
    try:
        reader = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig")), skipinitialspace=True)
        header = [name.strip() for name in next(reader, [])]
        found = [(reader.line_num, row) for row in reader if any(row)]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8 ({error})") from error
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise DataError(
            f"{path}, line 1: it must name the columns client, on and off, and has no {missing[0]!r} among {header}"
        )
    if not found:
        raise DataError(f"{path} has no lines after its header: each says when a client came on and went off")
    table = np.empty((len(found), len(COLUMNS)))
    for i, (line, row) in enumerate(found):
        for j, name in enumerate(COLUMNS):
            place = header.index(name)
            try:
                table[i, j] = float(row[place])
            except (ValueError, IndexError):
                value = repr(row[place]) if place < len(row) else "nothing"
                raise DataError(f"{path}, line {line}: {name} must be a number, not {value}") from None
    return table, [line for line, _ in found]
