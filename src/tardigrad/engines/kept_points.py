"""The points of those versions that updates to come will read, and of no others.

Rules of this file:

- an update's number is the newest version that was offered, so a version in the future cannot be read;
- for every block of updates the versions to be read are drawn as far ahead as `ReadSequence.last_update` says: then it is
  known of each version of the block by which update it is read last. A version that nobody reads is not copied, the
  others go when their last reader has been;
- drawn versions are not stored but drawn again when their block comes: what stays is one number a version.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.streams import Domain, Stream
from tardigrad.core.task import Array, Points
from tardigrad.engines.read_checks import check_versions
from tardigrad.engines.reads import BLOCK, ReadSequence


class KeptPoints:
    """Points by version, each kept until its last reader has been.

    Parameters
    ----------
    read : ReadSequence
        Which version each update reads.
    horizon : int or None
        Updates after which nothing is read; needed where `read` has no bound on a version's last reader.
    seed : int
        Of the run.

    Attributes
    ----------
    newest : int
        The newest version offered, which is the number of the next update; -1 before there is one.
    end : int or inf
        The first update that has no version to read.
    replicas : int or None
        Replicas that read a version each.
    """

    def __init__(self, read: ReadSequence, horizon: int | None, seed: int) -> None:
        self.newest = -1
        self.end: float = min((n for n in (read.length, horizon) if n is not None), default=inf)
        self.replicas = read.replicas
        self._read = read
        self._stream = Stream(seed, Domain.TIMING)
        self._kept: dict[int, Points] = {}
        self._last = np.full(BLOCK, -1, np.int64)  # by version, its last reader among the updates below _scanned
        self._scanned = 0
        # of the current block: its first update, the versions read, which of its versions anybody reads, and, by update,
        # those of which it is the last reader
        self._first = -BLOCK
        self._reads: Any = []
        self._wanted: list[bool] = []
        self._leaving: list[tuple[int, ...]] = [()] * BLOCK

    def __len__(self) -> int:
        return len(self._kept)

    def points(self) -> dict[int, Points]:
        """What is kept, by version."""
        return dict(self._kept)

    def take_up(self, newest: int, kept: Mapping[int, Points]) -> None:
        """Go on from what `points` gave when `newest` was the newest version."""
        if newest >= 0:
            self._enter(newest - newest % BLOCK)
            self.newest, self._kept = newest, dict(kept)

    def offer(self, version: int, points: Points, fresh: bool) -> None:
        """The rule's points at a version later than the newest; copied if they are to be read, unless fresh."""
        place = version - self._first
        if version == self.newest + 1:  # nearly always
            for old in self._leaving[place - 1]:
                self._kept.pop(old, None)
        if place >= BLOCK:
            self._enter(version - version % BLOCK)
            place = version - self._first
        if version > self.newest + 1:
            for old in [old for old in self._kept if self._last[old] < version]:
                del self._kept[old]
        self.newest = version
        if self._wanted[place]:
            self._check_shapes(points)
            self._kept[version] = points if fresh else tuple([point.copy() for point in points])

    def next(self) -> tuple[int, Points]:
        """The version that the next update reads, the smallest where replicas read their own, and its points."""
        if self.newest >= self.end:
            raise InvalidInputError(
                f"no version is prescribed for update {self.newest}: the last one is that of {self.end - 1}"
            )
        reads = self._reads[self.newest - self._first]
        if type(reads) is int:
            try:
                return reads, self._kept[reads]
            except KeyError:
                raise self._missing(reads) from None
        versions: list[int] = reads.tolist()
        oldest = min(versions)
        try:
            sources = [self._kept[version] for version in versions]
        except KeyError as error:
            raise self._missing(error.args[0]) from None
        if oldest == max(versions):
            return oldest, sources[0]
        points = tuple([np.empty_like(point) for point in sources[0]])
        for i, point in enumerate(points):
            for replica, source in enumerate(sources):
                point[replica] = source[i][replica]
        return oldest, points

    def _enter(self, first: int) -> None:
        """Make the block that begins at update `first` the current one."""
        self._first = first
        stop = int(min(first + BLOCK, max(self.end, first)))
        n_past = first + BLOCK - stop  # updates that nothing is to be read for
        self._wanted, self._leaving = [False] * BLOCK, [()] * BLOCK
        if stop == first:
            return
        bound = self._read.last_update(stop - 1)
        self._scan(min(self.end, inf if bound is None else bound + 1))
        updates, reads = self._draw(first, stop)
        self._wanted = (self._last[first:stop] >= 0).tolist() + [False] * n_past
        last_reader = self._last[reads] == (updates if reads.ndim == 1 else updates[:, np.newaxis])
        if reads.ndim == 1:
            self._reads = reads.tolist()
            self._leaving = [(read,) if last else () for read, last in zip(self._reads, last_reader.tolist(), strict=True)]
        else:
            self._reads = reads
            self._leaving = [tuple(row[last].tolist()) for row, last in zip(reads, last_reader, strict=True)]
        self._leaving += [()] * n_past

    def _scan(self, stop: float) -> None:
        """Note the last readers of versions among the updates below `stop`, and up to the end of its block."""
        while self._scanned < stop:
            updates, reads = self._draw(self._scanned, int(min(self._scanned + BLOCK, self.end)))
            self._scanned += len(updates)
            if self._scanned > len(self._last):
                self._last = np.concatenate([self._last, np.full(len(self._last), -1, np.int64)])
            # updates ascend, and of several values for one place the last one stays
            self._last[reads.ravel()] = updates if reads.ndim == 1 else np.repeat(updates, reads.shape[1])

    def _draw(self, first: int, stop: int) -> tuple[Array, Array]:
        updates = np.arange(first, stop)
        versions = self._read.versions(updates, self._stream.at(first // BLOCK))
        return updates, check_versions(versions, updates, self.replicas)

    def _check_shapes(self, points: Points) -> None:
        replicas = self.replicas
        for point in points if replicas is not None else ():
            if point.ndim < 2 or point.shape[0] != replicas:
                raise InvalidInputError(
                    f"{self._read!r} has versions for {replicas} replicas, but the points to be read have shape {point.shape}:"
                    f" their first axis must count {replicas} replicas, as with run(..., replicas={replicas})"
                )

    def _missing(self, version: int) -> InvalidInputError:
        return InvalidInputError(
            f"update {self.newest} is to read version {version}, but no task was issued at that version, so its points were"
            " never sent out: only rules that issue a task after every update can read prescribed versions"
        )
