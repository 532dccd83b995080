"""Which worker does which job: the bookkeeping that all real engines share, with no process, thread or clock in it.

Rules of this file:

- a client's jobs are begun in order of submission, one at a time: client i belongs to worker ``i % n_workers``;
  where data are shared there is one line for all, and any worker takes its head; of several that are idle that one first;
- a lost job goes back to the head of its line and is parked there until the loop submits it again;
- points are kept, once a version, until every job that reads them is answered and no worker holds it;
- a worker that is late or gone may be stood in for: its line is then served by the others, one job at a
  time, until it answers. The first answer to a job counts, by task id.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tardigrad.core.task import Task


@dataclass(slots=True, eq=False)
class Kept:
    """A version's points, in the engine's own form, and how many jobs read them."""

    place: Any
    readers: int = 0


@dataclass(slots=True, eq=False)
class Job:
    """A task on its way: open until its reply is applied or it is cancelled. Holders are workers that have it."""

    task: Task
    version: int
    kept: Any
    submitted: float
    begun: float = 0.0
    open: bool = True
    answered: bool = False
    holders: int = 0
    lined: bool = True
    parked: bool = False
    stand_in: bool = False  # given to a worker in place of the one that it belongs to, or that has it already


class Dispatch:
    """The lines of jobs, and what each worker holds.

    Parameters
    ----------
    n_workers : int
        Workers are numbered from 0; `add_worker` makes more.
    shared : bool
        Whether any worker may take any job.
    drop : callable
        Called with points that nobody reads any more.
    """

    def __init__(self, n_workers: int, shared: bool, drop: Callable[[Kept], None]) -> None:
        self.shared = shared
        self._drop = drop
        self.jobs: dict[int, Job] = {}  # open ones, in order of submission
        self.held: list[deque[Job]] = [deque() for _ in range(n_workers)]
        # by task id, so that any job leaves its line at once, however many wait
        self._lines: list[OrderedDict[int, Job]] = [OrderedDict() for _ in range(1 if shared else n_workers)]
        self._versions: dict[int, Kept] = {}
        self._stood_in: set[int] = set()  # workers whose lines others serve
        self._lent: dict[int, Job] = {}  # by line: the job that another worker has
        self._told: dict[int, Job] = {}  # by worker: the job that it was said to be late with

    def add_worker(self) -> int:
        """A worker more, for data that are shared; its number."""
        self.held.append(deque())
        return len(self.held) - 1

    @property
    def lending(self) -> bool:
        """Whether a line is served by others than its own worker: an answer may then free it for one that is idle."""
        return bool(self._stood_in or self._lent)

    def kept(self, version: int) -> Kept | None:
        """The points of a version, if they are kept."""
        return self._versions.get(version)

    def submit(self, task: Task, version: int, kept: Kept, now: float) -> Job:
        """Put a new task at the end of its line."""
        self._versions[version] = kept
        kept.readers += 1
        job = self.jobs[task.id] = Job(task, version, kept, now)
        self._lines[self._number_of_line(task)][task.id] = job
        return job

    def workers_for(self, task: Task) -> Sequence[int]:
        """Workers that may take a task of this client; of shared data first the one that keeps what is prepared for it."""
        workers = range(len(self.held))
        if self.shared:
            first = task.client % len(workers)
            return workers if not first else [*workers[first:], *workers[:first]]
        if self._stood_in:
            return workers
        home = task.client % len(self._lines)
        return range(home, home + 1)

    def take(self, worker: int, now: float) -> Job | None:
        """The next job for a worker, which then holds it; None if there is none. One that is late gets no more."""
        if self._told and worker in self._told:
            return None
        job = self._pick(worker)
        if job is not None:
            job.lined = False
            job.stand_in = job.holders > 0 or (not self.shared and self._number_of_line(job.task) != worker)
            job.holders += 1
            job.begun = now
            self.held[worker].append(job)
        return job

    def _pick(self, worker: int) -> Job | None:
        if self.shared:
            line = self._lines[0]
            for job in line.values():
                if self._may_begin(worker, job):
                    del line[job.task.id]
                    return job
            return None
        for other in self._stood_in:
            if other != worker and other not in self._lent and (head := self._head(other, worker)) is not None:
                self._lent[other] = head
                return head
        return None if worker in self._lent else self._head(worker, worker)

    def _head(self, number: int, worker: int) -> Job | None:
        """The head of a line, taken from it, if a worker may begin it: it is not parked, and not one that it has already."""
        line = self._lines[number]
        job = next(iter(line.values()), None)
        if job is None or not self._may_begin(worker, job):
            return None
        del line[job.task.id]
        return job

    def _may_begin(self, worker: int, job: Job) -> bool:
        return not (job.parked or (job.holders and job in self.held[worker]))

    def answered(self, worker: int, task_id: int, now: float) -> Job | None:
        """A worker has answered a task; its job if that is the first answer, and the task was not cancelled."""
        job = self._put_down(worker, task_id, now)
        self._stood_in.discard(worker)
        line = self._number_of_line(job.task)
        if self._lent.get(line) is job:
            del self._lent[line]
        if job.answered or not job.open:
            self._release(job)
            return None
        job.answered = True
        if job.lined:  # it was about to be given to another
            del self._lines[line][task_id]
            job.lined = False
        return job

    def settle(self, job: Job) -> None:
        """The reply to a job was applied: its points may go."""
        if job.open:
            job.open = False
            del self.jobs[job.task.id]
            self._release(job)

    def lose(self, worker: int) -> Job | None:
        """A worker has lost all it held: it goes back to the heads of the lines; the job that it was at, parked."""
        self._stood_in.discard(worker)
        first = None
        for job in reversed(list(self.held[worker])):
            first = self.fail(worker, job.task.id, 0.0)
            if first is not None and self.held[worker]:
                first.parked = False  # it had not been begun
        return first

    def fail(self, worker: int, task_id: int, now: float) -> Job | None:
        """A worker could not do a task: it is parked at the head of its line. None if that does not matter any more."""
        job = self._put_down(worker, task_id, now)
        self._stood_in.discard(worker)
        line = self._number_of_line(job.task)
        if worker != line and self._lent.get(line) is job:
            del self._lent[line]
        if job.answered or not job.open:
            self._release(job)
            return None
        if not job.lined:
            self._put_first(job)
            job.parked = True
        return job

    def cancel(self, task_id: int) -> None:
        """Forget a task. A worker that has it goes on to read its points: they stay until it answers."""
        job = self.jobs.pop(task_id, None)
        if job is None:
            return
        job.open = False
        if job.lined:
            del self._lines[self._number_of_line(job.task)][task_id]
            job.lined = False
        self._release(job)

    def stand_in(self, worker: int) -> None:
        """Let the others do what a worker holds and what waits for it, until it answers."""
        for job in reversed(self.held[worker]):  # the others begin with the oldest
            line = self._number_of_line(job.task)
            if worker != line and self._lent.get(line) is job:  # it stood in itself
                del self._lent[line]
            if job.open and not job.answered and not job.lined:
                self._put_first(job)
        if not self.shared:
            self._stood_in.add(worker)

    def back(self, worker: int) -> None:
        """A worker that was gone is there again."""
        self._stood_in.discard(worker)

    def is_late(self, worker: int, now: float, deadline: float) -> Job | None:
        """The job at which a worker has been for longer than the deadline, told once for each worker."""
        held = self.held[worker]
        if not held or self._told.get(worker) is held[0] or now - held[0].begun <= deadline:
            return None
        job = self._told[worker] = held[0]
        return job

    def _put_first(self, job: Job) -> None:
        """Put a job at the head of its line."""
        line = self._lines[self._number_of_line(job.task)]
        line[job.task.id] = job
        line.move_to_end(job.task.id, last=False)
        job.lined = True

    def _number_of_line(self, task: Task) -> int:
        return 0 if self.shared else task.client % len(self._lines)

    def _put_down(self, worker: int, task_id: int, now: float) -> Job:
        held = self.held[worker]
        if held[0].task.id == task_id:
            job = held.popleft()
        else:
            job = next(job for job in held if job.task.id == task_id)
            held.remove(job)
        if self._told and self._told.get(worker) is job:
            del self._told[worker]
        if held:
            held[0].begun = now
        job.holders -= 1
        return job

    def _release(self, job: Job) -> None:
        if job.open or job.holders or job.kept is None:
            return
        kept, job.kept = job.kept, None
        kept.readers -= 1
        if not kept.readers:
            del self._versions[job.version]
            self._drop(kept)
