"""Worker processes: deaths, exceptions, large payloads, nothing left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
from odd_rule import OddRule

import tardigrad as td
from conftest import make_problem
from failing_problems import Deadly, DiesOnce, Murderous, Poisonous, Raising, Unloadable, Unpicklable
from presses import PressSoon
from tardigrad.engines.shared_memory import Blocks, Layouts, SharedBuffer


def run(problem=None, engine=None, stop=None, rule=None, **kwargs):
    engine = engine or td.Processes(2)
    return td.run(rule or td.AsyncSGD(0.05), problem or make_problem(), engine, stop=stop or td.MaxUpdates(50), **kwargs)


def test_killed_workers_are_replaced_and_nothing_is_lost_or_doubled(tmp_path):
    result = run(Murderous(tmp_path, 10), stop=td.MaxUpdates(200), rule=td.AsyncSGD(0.05, "uniform"))
    deaths = len(list(tmp_path.iterdir()))
    assert deaths > 5
    assert len(set(result.trace["task"].tolist())) == len(result.trace) == 200
    calm = Murderous(tmp_path, 0)
    replayed = td.replay(result, problem=calm)
    assert replayed.identical, replayed.difference


def test_a_task_that_kills_every_worker_ends_the_run():
    with pytest.raises(td.WorkerError, match=r"task \d of client \d failed 3 times: worker \d ended with exit code 3"):
        run(Poisonous())


def test_an_exception_at_a_worker_shows_its_traceback():
    with pytest.raises(td.WorkerError, match=r"(?s)raised an exception on worker.*return x / \[\]\[client\].*IndexError"):
        run(Raising())


class Exiting(Raising):
    def gradient(self, client, x, sample=None):
        sys.exit("an oracle that ends its program")


@pytest.mark.parametrize("engine", [td.Processes, td.Threads])
def test_a_task_that_ends_its_program_shows_where(engine):
    with pytest.raises(td.WorkerError, match=r"(?s)failed 3 times.*in gradient.*SystemExit: an oracle that ends its program"):
        run(Exiting(), engine(2))


def test_a_problem_that_cannot_be_sent_says_so():
    with pytest.raises(td.InvalidInputError, match="cannot be sent to worker processes"):
        run(Unpicklable())


def test_a_worker_that_cannot_start_shows_why():
    with pytest.raises(td.WorkerError, match=r"(?s)worker 0 could not start.*ZeroDivisionError|worker 1 could not start"):
        run(Unloadable())


def test_large_payloads_and_points_go_through_shared_memory_and_replay():
    X = np.random.default_rng(0).normal(size=(8, 20_000))
    problem = td.LeastSquares((X, np.ones(8)), td.Iid(4), batch=1)
    result = run(problem, rule=td.SyncSGD(1e-5, momentum=0.5), stop=td.MaxUpdates(30))
    assert td.replay(result).identical
    result = run(problem, rule=td.AsyncSGD(1e-5, "shuffled"), stop=td.MaxUpdates(60), concurrency=9)
    assert td.replay(result).identical


def test_injected_durations_are_those_of_the_simulation():
    timing = td.PerClient([0.01, 0.01, 0.01, 0.05])
    result = run(engine=td.Processes(4, timing), stop=td.MaxUpdates(40))
    trace = result.trace
    for client in range(4):
        mine = trace["client"] == client
        assert (trace["finished"][mine] - trace["started"][mine] >= timing.seconds[client] - 1e-6).all()
    assert trace.staleness.max() > 4


def test_limit_of_seconds():
    result = run(engine=td.Processes(2, td.Constant(0.02)), stop=td.MaxSeconds(0.3))
    assert result.status is td.Status.MAX_SECONDS
    assert result.state.version > 0
    assert td.replay(result).identical


def test_interrupt_while_workers_are_busy():
    result = run(engine=td.Processes(2, td.Constant(0.05)), stop=td.MaxSeconds(1e6), observers=PressSoon())
    assert result.status is td.Status.INTERRUPTED
    assert td.replay(result).identical


def test_a_script_without_a_main_guard_and_with_its_own_classes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import numpy as np, tardigrad as td
        class Mine(td.Problem):
            n_clients, dim = 2, 3
            def fields(self): return {}
            def gradient(self, client, x, sample=None): return x - helper(client)
        def helper(client): return client + 1.0
        result = td.run(td.AsyncSGD(0.1), Mine(), td.Processes(2), stop=td.MaxUpdates(50))
        print(result.status.value, td.replay(result).identical)
        """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("max_updates True\n", "")


def test_workers_end_when_the_driver_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import os, sys, time
        import numpy as np, tardigrad as td
        class Slow(td.Problem):
            n_clients, dim = 2, 3
            def fields(self): return {}
            def gradient(self, client, x, sample=None):
                with open(sys.argv[1], "a") as file:
                    file.write(f"{os.getpid()}\\n")
                time.sleep(1000)
        td.run(td.AsyncSGD(0.1), Slow(), td.Processes(2), stop=td.MaxUpdates(50))
        """).replace("sys.argv[1]", repr(str(tmp_path / "pids")))
    )
    driver = subprocess.Popen([sys.executable, str(script)])
    pids = []
    while len(pids) < 2:
        time.sleep(0.05)
        if (tmp_path / "pids").exists():
            pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 30
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers outlived their driver"
        time.sleep(0.05)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [0, -2, 1.5, True])
def test_bad_number_of_workers(workers):
    with pytest.raises(td.InvalidInputError, match="workers must be"):
        td.Processes(workers)


def test_bad_timing():
    with pytest.raises(td.InvalidInputError, match="timing must be"):
        td.Processes(2, timing=0.5)


def test_cancelled_tasks_leave_nothing_behind_whatever_state_they_were_in():
    engine = td.Processes(3)
    seen = []
    close = engine.close
    engine.close = lambda: (seen.append((len(engine._dispatch.jobs), len(engine._dispatch._versions))), close())
    result = run(rule=OddRule(cancel_every=2), engine=engine, stop=td.MaxUpdates(400))
    assert td.replay(result).identical
    jobs, versions = seen[0]
    assert jobs <= 4 + 3  # those open, and cancelled ones that workers still compute
    assert versions <= jobs


@dataclass(frozen=True)
class Sizes(td.Rule):
    """Payloads of another size in every task, read slowly: the worker has gone on to the next by then."""

    def start(self, x0, n_clients, rng):
        state = td.State(x0)
        return state, [state.task(int(rng.integers(n_clients))) for _ in range(6)]

    def receive(self, state, reply, rng):
        before = reply.payload.copy()
        time.sleep(0.002)
        assert (reply.payload == before).all(), "the payload changed while the server read it"
        assert (before == reply.task.id).all()
        state.x += reply.payload.sum()
        state.version += 1
        return state, [state.task(int(rng.integers(state.x.size)))]

    def work(self, problem, task, points, rng, cache):
        return np.full(15_000 * (1 + task.id % 5), float(task.id))


def test_payloads_of_different_sizes_do_not_overwrite_each_other():
    result = run(rule=Sizes(), engine=td.Processes(1), stop=td.MaxUpdates(100))
    assert td.replay(result).identical


@dataclass(frozen=True)
class Growing(Sizes):
    """Points of another size in every version."""

    def points(self, state):
        return (np.resize(state.x, 15_000 + 5_000 * (state.version % 7)),)

    def receive(self, state, reply, rng):
        state.x += reply.payload
        state.version += 1
        return state, [state.task(0)]

    def work(self, problem, task, points, rng, cache):
        return np.full(5, points[0].sum() % 7)


def test_points_of_different_sizes_use_memory_again():
    engine = td.Processes(2)
    sizes = []
    close = engine.close
    engine.close = lambda: (sizes.append(os.fstat(engine._blocks.buffer.fd).st_size) if engine._buffers else None, close())
    result = run(rule=Growing(), engine=engine, stop=td.MaxUpdates(300))
    assert td.replay(result).identical
    assert sizes[0] < 30e6


NOT_ARRAYS = [None, 3.0, [1.0, 2.0], (np.ones(2), "text"), np.array([[1, None]])]


@pytest.mark.parametrize("payload", NOT_ARRAYS, ids=repr)
@pytest.mark.parametrize("engine", [lambda: td.Simulated(td.Constant(1.0)), lambda: td.Processes(1)], ids=["sim", "proc"])
def test_a_payload_that_is_no_array_of_numbers_is_named(payload, engine):
    with pytest.raises(
        (td.InvalidInputError, td.WorkerError), match=r"reply to task 0 of client 0 holds .* must return a NumPy array"
    ):
        run(rule=Constantly(payload), engine=engine())


class Constantly(td.Rule):
    def __init__(self, payload):
        self.payload = payload

    def fields(self):
        return {"payload": self.payload}

    def start(self, x0, n_clients, rng):
        state = td.State(x0)
        return state, [state.task(0)]

    def receive(self, state, reply, rng):
        reply.payload[...] *= 0.5  # its own to change while it is here
        state.x[:2] += np.dot(reply.payload, reply.payload)
        state.version += 1
        return state, [state.task(0)]

    def work(self, problem, task, points, rng, cache):
        return self.payload.copy(order="K")[::2] if isinstance(self.payload, np.ndarray) and self.payload.ndim else self.payload


@pytest.mark.parametrize("engine", [lambda: td.Simulated(td.Constant(1.0)), lambda: td.Processes(1)], ids=["sim", "proc"])
def test_a_strided_payload_replays_and_may_be_changed(engine):
    payload = np.random.default_rng(1).normal(size=2001)
    result = run(rule=Constantly(payload), engine=engine(), stop=td.MaxUpdates(5))
    assert td.replay(result).identical


def test_rows_that_are_a_view_with_strides_replay():
    big = np.random.default_rng(1).normal(size=(64, 200))
    problem = td.LeastSquares((big[::-1, ::2], np.ones(64)), batch=7)
    assert td.replay(run(problem, stop=td.MaxUpdates(20))).identical


def test_files_of_the_current_folder_do_not_shadow_modules_of_workers(tmp_path):
    (tmp_path / "random.py").write_text("1 / 0")
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "run.py"
    script.write_text(
        "import numpy as np, tardigrad as td\n"
        "problem = td.LeastSquares((np.eye(2), np.ones(2)), td.Iid(2))\n"
        "print(td.run(td.AsyncSGD(0.1), problem, td.Processes(2), stop=td.MaxUpdates(9)).status.value)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("max_updates\n", "")


def test_workers_that_die_while_starting_end_the_run_with_that_message(capfd):
    for _ in range(3):  # and leave no descriptors, which the fixture of all tests checks
        with pytest.raises(td.WorkerError, match="ended 3 times before it was ready"):
            run(Deadly())


def test_a_problem_that_cannot_be_sent_leaves_no_descriptors():
    for _ in range(10):
        with pytest.raises(td.InvalidInputError):
            run(Unpicklable())


def test_interrupts_of_the_whole_group_while_workers_start(tmp_path):
    script = (
        "import numpy as np, tardigrad as td\n"
        "problem = td.LeastSquares((np.eye(2), np.ones(2)), td.Iid(2))\n"
        "run, arguments, stop = td.run, (td.AsyncSGD(0.1), problem, td.Processes(2)), td.MaxSeconds(100)\n"
        "print('go', flush=True)\n"  # not before all modules are imported, which takes long on a busy machine
        "print(run(*arguments, stop=stop).status.value)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    process.stdout.readline()
    time.sleep(0.15)
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (out, errors) == ("interrupted\n", "")


def test_a_lost_task_keeps_its_place_in_its_client_s_line(tmp_path):
    @dataclass(frozen=True)
    class Five(td.AsyncSGD):
        def start(self, x0, n_clients, rng):
            state, _ = super().start(x0, n_clients, rng)
            state.issued = 0
            return state, [state.task(0) for _ in range(5)]

    result = run(DiesOnce(tmp_path, 1), td.Processes(2), td.MaxUpdates(5), Five(0.1))
    assert result.trace["task"].tolist() == [0, 1, 2, 3, 4]


def test_a_module_that_starts_a_run_when_it_is_imported_is_no_fork_bomb(tmp_path):
    (tmp_path / "unguarded.py").write_text(
        "import tardigrad as td\n"
        "class Mine(td.Problem):\n"
        "    n_clients, dim = 2, 3\n"
        "    def fields(self): return {}\n"
        "    def gradient(self, client, x, sample=None): return x - client\n"
        "td.run(td.AsyncSGD(0.1), Mine(), td.Processes(2), stop=td.MaxUpdates(20))\n"
    )
    done = subprocess.run([sys.executable, "-c", "import unguarded"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 1
    assert "starts a run when it is imported. Put that run under `if __name__ == '__main__':`" in done.stderr


def test_workers_read_the_live_point_where_the_rule_updates_it_in_place():
    """With one worker and one task in flight nothing is written while it reads: the same bits as with snapshots."""
    problem = Wide(1, 40_000)
    results = [
        td.run(td.AsyncSGD(0.1), problem, td.Processes(1, points=points), stop=td.MaxUpdates(30))
        for points in ("snapshot", "live")
    ]
    assert results[0].x.tobytes() == results[1].x.tobytes()
    assert td.replay(results[0]).identical
    with pytest.raises(td.ReplayError, match=r"cannot be replayed: .*points='live'"):
        td.replay(results[1])


def test_small_points_are_snapshots_also_where_live_ones_are_asked_for():
    result = run(engine=td.Processes(2, points="live"))
    assert result.x.shape == (5,)
    assert np.isfinite(result.x).all()


def test_a_live_run_goes_on_from_its_checkpoint(tmp_path):
    engine, problem = td.Processes(2, points="live"), Wide(2, 40_000)
    td.run(td.AsyncSGD(0.1), problem, engine, stop=td.MaxUpdates(20), checkpoint=tmp_path)
    result = td.resume(tmp_path, stop=td.MaxUpdates(200))
    assert result.trace.updates == len(result.trace) == 200
    assert np.abs(result.x - 1).max() < 0.1


@pytest.mark.parametrize("points", ["alive", None])
def test_bad_kind_of_points(points):
    with pytest.raises(td.InvalidInputError, match="points must be 'snapshot' or 'live'"):
        td.Processes(2, points=points)


class Wide(td.Problem):
    """Exact gradients of |x - 1|^2 / 2 in many variables."""

    def __init__(self, n_clients, dim):
        self.n_clients, self.dim = n_clients, dim

    def fields(self):
        return {"n_clients": self.n_clients, "dim": self.dim}

    def gradient(self, client, x, sample=None):
        return x - 1.0


class Stops(Murderous):
    """Stops its own process (SIGSTOP) in the first task of a client, once; its number is in the folder."""

    def __init__(self, folder, client, shared=False):
        super().__init__(folder, 0)
        self.client, self.shared_data = client, shared

    def fields(self):
        return {"folder": self.folder, "client": self.client, "shared": self.shared_data}

    def gradient(self, client, x, sample=None):
        mark = os.path.join(self.folder, "pid")
        if client == self.client and self.first_time("stopped"):
            with open(mark + ".new", "w") as file:
                file.write(str(os.getpid()))
            os.rename(mark + ".new", mark)
            os.kill(os.getpid(), signal.SIGSTOP)
        return x - client + 1e-3 * (sample % 7)

    def pid(self):
        """Of the process that has stopped; a worker may be late and not have done so yet."""
        mark = os.path.join(self.folder, "pid")
        while not os.path.exists(mark):
            time.sleep(0.01)
        with open(mark) as file:
            pid = int(file.read())
        while state_of(pid) != "T":  # it has said who it is and is about to stop
            time.sleep(0.01)
        return pid

    def let_go(self):
        pid = self.pid()
        os.kill(pid, signal.SIGCONT)
        return pid


def state_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0]


class LetGo(td.Observer):
    """Wakes the stopped worker after so many updates."""

    def __init__(self, problem, after):
        self.problem, self.every = problem, after
        self.pid = None

    def observe(self, moment):
        if moment.version and self.pid is None:
            self.pid = self.problem.let_go()


def test_a_worker_that_was_stopped_is_reported(tmp_path, caplog):
    problem, engine = Stops(tmp_path, 1), td.Processes(2, deadline=0.1)

    def let_go_once_it_is_reported():
        while not any(i["task"] == 1 for i in list(engine.incidents)):
            time.sleep(0.01)
        problem.let_go()

    watching = threading.Thread(target=let_go_once_it_is_reported)
    watching.start()
    result = run(problem, engine, td.MaxUpdates(50), td.SyncSGD(0.1))
    watching.join()
    (slow,) = [i for i in result.incidents if i["task"] == 1]
    assert (slow["kind"], slow["worker"], result.status) == ("slow", 1, td.Status.MAX_UPDATES)
    assert slow["text"] in [record.getMessage() for record in caplog.records]
    assert td.replay(result).identical


@pytest.mark.parametrize("shared", [False, True])
def test_others_stand_in_for_a_stopped_worker_and_its_late_answer_is_dropped(tmp_path, shared):
    """Rounds need all clients: without others in its place the run would never end."""
    problem = Stops(tmp_path, 1, shared)
    engine = td.Processes(3, deadline=0.1, reassign=True)
    pids, let_go = [], LetGo(problem, 20)

    class Pids(td.Observer):
        def observe(self, moment):
            pids[:] = pids or engine.pids

    result = run(problem, engine, td.MaxUpdates(60), td.SyncSGD(0.1), observers=[Pids(), let_go])
    assert result.status is td.Status.MAX_UPDATES
    assert len(set(result.trace["task"].tolist())) == len(result.trace) == result.oracle_calls == 240
    # on a busy machine another worker may have been the first to begin the task, and have stopped
    assert pids[result.trace["worker"][result.trace["task"] == 1].item()] != let_go.pid
    assert "others stand in for it" in next(i["text"] for i in result.incidents if i["task"] == 1)
    assert td.replay(result).identical


@pytest.mark.parametrize("shared", [False, True])
def test_a_stopped_worker_that_is_killed_is_replaced(tmp_path, shared):
    problem = Stops(tmp_path, 1, shared)

    class Kill(LetGo):
        def observe(self, moment):
            if moment.version and self.pid is None:
                self.pid = self.problem.pid()
                os.kill(self.pid, signal.SIGKILL)

    engine = td.Processes(3, deadline=0.1, reassign=True)
    result = run(problem, engine, td.MaxUpdates(200), td.SyncSGD(0.1), observers=Kill(problem, 20))
    assert "died" in [i["kind"] for i in result.incidents]
    assert len(set(result.trace["task"].tolist())) == len(result.trace) == 800
    assert td.replay(result).identical


def test_a_task_that_fails_three_times_leaves_a_run_that_goes_on(tmp_path):
    class Once(Murderous):
        def gradient(self, client, x, sample=None):
            if client == 1 and not os.path.exists(self.folder):
                raise IndexError("out of cheese")
            return x - client

    folder = tmp_path / "mended"
    with pytest.raises(td.WorkerError, match=r"(?s)task 1 of client 1 failed 3 times.*IndexError: out of cheese") as caught:
        run(Once(folder, 0), rule=td.SyncSGD(0.1), checkpoint=tmp_path / "run")
    result = caught.value.result
    assert [i["kind"] for i in result.incidents] == ["raised"] * 3
    assert 1 in {task.id for task, _ in result.in_flight.tasks()}
    folder.mkdir()
    for given in (result, tmp_path / "run"):
        both = td.resume(given, stop=td.MaxUpdates(100))
        assert 1 in both.trace["task"]
        assert td.replay(both).identical


def test_large_points_in_shared_memory_are_in_a_checkpoint(tmp_path):
    X = np.random.default_rng(0).normal(size=(8, 20_000))
    problem = td.LeastSquares((X, np.ones(8)), td.Iid(4), batch=1)
    run(problem, td.Processes(2), td.MaxUpdates(30), td.AsyncSGD(1e-5, "shuffled"), concurrency=7, checkpoint=tmp_path)
    both = td.resume(tmp_path, stop=td.MaxUpdates(60))
    assert len(set(both.trace["task"].tolist())) == 60
    assert td.replay(tmp_path).identical


class ManyBlocks(td.Observer):
    """The most descriptors that this process had open, and a worker of it, while a run went on."""

    every = 50

    def __init__(self, engine):
        self.engine, self.most = engine, 0

    def observe(self, moment):
        for pid in ("self", *self.engine.pids):
            self.most = max(self.most, len(os.listdir(f"/proc/{pid}/fd")))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")
def test_many_versions_in_use_need_few_descriptors():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 50))  # a client each: as many versions wait in the lines of two workers
    engine = td.Processes(2)
    seen = ManyBlocks(engine)
    problem = td.LeastSquares((X, X[:, 0]), td.Iid(400))
    result = td.run(td.AsyncSGD(1e-4), problem, engine, stop=td.MaxUpdates(1000), observers=[seen])
    assert seen.most < len(os.listdir("/proc/self/fd")) + 40
    assert td.replay(result).identical


def test_memory_is_taken_for_what_is_used_and_mapped_a_few_times():
    buffer = SharedBuffer()
    mappings = {}
    try:
        blocks, layouts = Blocks(buffer), Layouts()
        point = (np.ones(512),)
        for _ in range(500):
            look = blocks.put(point, *layouts.of(point)).arrays[0]
            mappings[id(look.base)] = look.base
        taken = os.fstat(buffer.fd).st_blocks * 512
    finally:
        buffer.close()
    assert len(mappings) < 12
    assert taken <= 500 * 4096 + 4096


class Says(Constantly):
    """Counts replies of one kind."""

    def receive(self, state, reply, rng):
        got, sent = (p if isinstance(p, tuple) else (p,) for p in (reply.payload, self.payload))
        assert [(a.shape, a.dtype) for a in got] == [(a.shape, a.dtype) for a in sent]
        state.version += 1
        return state, [state.task(0)]

    def work(self, problem, task, points, rng, cache):
        return self.payload


@pytest.mark.parametrize("payload", [(), (np.empty(0),), np.empty((0, 3))], ids=["nothing", "no entry", "no row"])
def test_a_payload_without_a_number_arrives(payload):
    result = run(rule=Says(payload), engine=td.Processes(1), stop=td.MaxUpdates(20))
    assert result.status is td.Status.MAX_UPDATES


@pytest.mark.parametrize("number", [signal.SIGTERM, *([signal.SIGRTMIN + 6] if hasattr(signal, "SIGRTMIN") else [])])
def test_a_worker_killed_by_any_signal_is_replaced(tmp_path, number):
    class Once(td.Observer):
        every = 20

        def observe(self, moment):
            if moment.version == 20:
                os.kill(engine.pids[1], number)

    engine = td.Processes(2)
    result = run(engine=engine, rule=td.SyncSGD(0.05), observers=[Once()])
    assert result.status is td.Status.MAX_UPDATES
    name = "SIGTERM" if number == signal.SIGTERM else f"signal {int(number)}"
    assert result.incidents[0]["text"] == f"worker 1 was killed by {name}"


def test_a_worker_that_hangs_while_it_is_started_again_is_replaced(monkeypatch, caplog):
    spawn, spawned = td.Processes._spawn, []

    def stopped(self, number):
        worker = spawn(self, number)
        spawned.append(number)
        hangs = len(spawned) == 3  # the first that is started again
        monkeypatch.setattr("tardigrad.engines.processes.START_TIMEOUT", 1.0 if hangs else 60.0)
        if hangs:
            os.kill(worker.process.pid, signal.SIGSTOP)
        return worker

    class Once(td.Observer):
        every = 20

        def observe(self, moment):
            if moment.version == 20:
                os.kill(engine.pids[1], signal.SIGKILL)

    monkeypatch.setattr(td.Processes, "_spawn", stopped)
    engine = td.Processes(2)
    result = run(engine=engine, rule=td.SyncSGD(0.05), observers=[Once()])
    assert result.status is td.Status.MAX_UPDATES
    assert [incident["kind"] for incident in result.incidents] == ["died", "slow", "died", "replaced"]
    assert "worker 1 was not ready after 1 s" in caplog.text


class Forks(Murderous):
    """The first worker forks a process, which keeps the line to the server open until it is told, and is killed."""

    def gradient(self, client, x, sample=None):
        forked, over = os.path.join(self.folder, "forked"), os.path.join(self.folder, "over")
        if client == 0 and not os.path.exists(forked):
            open(forked, "w").close()
            if os.fork():
                os.kill(os.getpid(), signal.SIGKILL)
            end = time.monotonic() + 10.0
            while not os.path.exists(over) and time.monotonic() < end:
                time.sleep(0.05)
            open(os.path.join(self.folder, "gone"), "w").close()
            os._exit(0)
        return super().gradient(client, x, sample)


def test_a_dead_worker_is_noticed_although_its_line_is_kept_open(tmp_path):
    result = run(Forks(tmp_path, 0), rule=td.SyncSGD(0.05))
    assert not (tmp_path / "gone").exists()
    (tmp_path / "over").touch()
    assert [incident["kind"] for incident in result.incidents] == ["died", "replaced"]
    assert len(set(result.trace["task"].tolist())) == len(result.trace) == 200


class PressOnce(td.Observer):
    """Ctrl-C: the run is to end."""

    every = 10

    def observe(self, moment):
        if moment.version == 10:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_while_workers_are_ended_leaves_none_behind(monkeypatch):
    engine, discard, processes = td.Processes(2), td.Processes._discard, []

    def pressed(self, worker):
        processes.append(worker.process)
        signal.raise_signal(signal.SIGINT)
        return discard(self, worker)

    monkeypatch.setattr(td.Processes, "_discard", pressed)
    with pytest.raises(KeyboardInterrupt):
        run(engine=engine, observers=PressOnce())
    assert len(processes) == 2
    assert None not in [process.poll() for process in processes]
    assert not engine.pids


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_while_workers_are_started_leaves_none_behind(monkeypatch):
    engine, spawn, processes = td.Processes(2), td.Processes._spawn, []

    def pressed(self, number):
        worker = spawn(self, number)
        processes.append(worker.process)
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        return worker

    monkeypatch.setattr(td.Processes, "_spawn", pressed)
    with pytest.raises(KeyboardInterrupt):
        run(engine=engine)
    [process] = processes
    assert process.poll() is not None


def test_an_engine_whose_close_was_interrupted_runs_again(monkeypatch):
    engine, discard = td.Processes(2), td.Processes._discard

    def interrupted(self, worker):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(td.Processes, "_discard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(engine=engine)
    assert td.Processes._discard is discard
    assert len(engine.pids) == 2
    assert run(engine=engine).status is td.Status.MAX_UPDATES
    assert not engine.pids
