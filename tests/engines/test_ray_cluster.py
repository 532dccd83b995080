"""Ray actors: deaths, exceptions, large payloads, clusters that change, nothing left behind."""

import json
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
from needs import needs_ray
from presses import PressSoon
from tardigrad.engines import ray_cluster
from tardigrad.testing import CheckedRule

pytestmark = [needs_ray, pytest.mark.ray]


def run(problem=None, engine=None, stop=None, rule=None, **kwargs):
    engine = engine or td.RayCluster(workers=2)
    return td.run(rule or td.AsyncSGD(0.05), problem or make_problem(), engine, stop=stop or td.MaxUpdates(50), **kwargs)


@pytest.mark.parametrize(("shared", "depth"), [(False, 2), (True, 1)])
def test_killed_actors_are_replaced_and_nothing_is_lost_or_doubled(tmp_path, shared, depth):
    engine = td.RayCluster(workers=2, depth=depth)
    problem, rule = Murderous(tmp_path, 12, shared), td.AsyncSGD(0.05, "uniform")
    result = run(problem, engine, td.MaxUpdates(120), rule, concurrency=6)
    deaths = len(list(tmp_path.iterdir()))
    assert deaths >= 3
    assert {incident["kind"] for incident in result.incidents} == {"died", "replaced"}
    died = [incident for incident in result.incidents if incident["kind"] == "died"]
    assert deaths - 4 <= len(died) <= deaths  # some may die when the run has ended
    assert sorted(result.trace["task"].tolist()) == sorted(set(result.trace["task"].tolist()))
    assert len(result.trace) == 120
    replayed = td.replay(result, problem=Murderous(tmp_path, 0, shared))
    assert replayed.identical, replayed.difference


def test_actors_killed_from_outside_again_and_again(caplog):
    class Kill(td.Observer):
        every = 150

        def observe(self, moment):
            if moment.version:
                os.kill(worker_processes()[0], signal.SIGKILL)

    engine = td.RayCluster(workers=2, timing=td.Constant(0.001))
    result = run(engine=engine, stop=td.MaxUpdates(700), rule=td.AsyncSGD(0.05, "shuffled"), observers=Kill())
    died = [i["text"] for i in result.incidents if i["kind"] == "died"]
    assert len(died) >= 3
    assert died[0].startswith("worker ")
    assert " died: " in died[0]
    assert "\n" not in died[0]
    assert died[0] in [record.getMessage() for record in caplog.records]
    assert len(set(result.trace["task"].tolist())) == len(result.trace) == 700
    assert td.replay(result).identical


def worker_processes():
    from conftest import _actors

    return sorted(map(int, _actors()))


def test_a_task_that_kills_every_actor_ends_the_run():
    with pytest.raises(td.WorkerError, match=r"task \d of client \d failed 3 times: worker \d died: .* while it worked on it"):
        run(Poisonous())


def test_an_exception_three_times_shows_the_worker_s_traceback():
    with pytest.raises(td.WorkerError) as caught:
        run(Raising())
    text = str(caught.value)
    assert "failed 3 times: it raised an exception on worker" in text
    assert "return x / [][client]" in text
    assert "IndexError: list index out of range" in text
    assert "raised while a worker computed task" in text
    assert {i["kind"] for i in caught.value.result.incidents} == {"raised"}


class Unfamiliar(Raising):
    """Raises what cannot be pickled."""

    def gradient(self, client, x, sample=None):
        class Strange(Exception):
            def __init__(self):
                super().__init__("quite strange")
                self.lock = threading.Lock()

        raise Strange


def test_an_exception_that_cannot_be_pickled_shows_all_the_same():
    with pytest.raises(td.WorkerError, match="Strange: quite strange"):
        run(Unfamiliar())


@dataclass(frozen=True)
class Five(td.AsyncSGD):
    """Begins with five tasks for client 0."""

    def start(self, x0, n_clients, rng):
        state, _ = super().start(x0, n_clients, rng)
        state.issued = 0
        return state, [state.task(0) for _ in range(5)]


class FailsOnce(Murderous):
    def gradient(self, client, x, sample=None):
        if self.first_time("raised"):
            raise RuntimeError("just once")
        return x - client


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("make", [FailsOnce, DiesOnce])
def test_a_failed_task_keeps_its_place_whatever_the_actor_was_given_beside_it(tmp_path, make, depth):
    result = run(make(tmp_path, 1), td.RayCluster(workers=2, depth=depth), td.MaxUpdates(5), Five(0.1))
    assert result.trace["task"].tolist() == [0, 1, 2, 3, 4]
    assert len(result.incidents) == 1
    assert td.replay(result, problem=make(tmp_path, 1)).identical


class Slow(Murderous):
    """Takes long once, in the first task of client 1."""

    def gradient(self, client, x, sample=None):
        if client == 1 and self.kill_every and self.first_time("slow"):
            time.sleep(1.0)
        return x - client + 1e-3 * (sample % 7)


def test_a_slow_worker_is_reported(tmp_path):
    result = run(Slow(tmp_path, 1), td.RayCluster(workers=2, deadline=0.2), td.MaxUpdates(10), td.SyncSGD(0.1))
    (incident,) = result.incidents
    assert (incident["kind"], incident["task"]) == ("slow", 1)
    assert td.replay(result).identical


@pytest.mark.parametrize("shared", [False, True])
def test_others_stand_in_for_a_slow_worker_and_its_late_answer_is_dropped(tmp_path, shared):
    engine = td.RayCluster(workers=3, deadline=0.1, reassign=True)
    result = run(Slow(tmp_path, 1, shared), engine, td.MaxUpdates(300), td.SyncSGD(0.1))
    assert "others stand in for it" in result.incidents[0]["text"]
    trace = result.trace
    assert len(set(trace["task"].tolist())) == len(trace) == 1200
    first = trace.table[trace["task"] == 1]
    assert first["worker"] != result.incidents[0]["worker"]
    assert td.replay(result).identical


class Hangs(Murderous):
    """Hangs once, in the first task of client 1."""

    def gradient(self, client, x, sample=None):
        if client == 1 and self.first_time("hangs"):
            time.sleep(1e4)
        return x - client


def test_an_actor_that_hangs_ends_with_the_run(tmp_path):
    engine = td.RayCluster(workers=2, deadline=0.2, reassign=True)
    result = run(Hangs(tmp_path, 1), engine, td.MaxUpdates(30), td.SyncSGD(0.1))
    assert result.status is td.Status.MAX_UPDATES
    assert len(result.trace) == 120


class DiesThenSlow(Murderous):
    """In the first task of client 1 the worker dies; whoever stands in for it takes long."""

    def gradient(self, client, x, sample=None):
        if client == 1:
            if self.first_time("died"):
                os.kill(os.getpid(), signal.SIGKILL)
            if self.first_time("slow"):
                time.sleep(2.0)
        return x - client


@pytest.mark.parametrize("depth", [1, 2])
def test_a_line_goes_on_when_its_worker_was_back_before_the_one_that_stood_in_had_answered(tmp_path, depth):
    engine = td.RayCluster(workers=2, depth=depth)
    result = run(DiesThenSlow(tmp_path, 1), engine, td.MaxUpdates(5), td.SyncSGD(0.1))
    assert result.trace["worker"][result.trace["task"] == 1] == 0
    assert result.trace["worker"].max() == 1
    assert len(result.trace) == 20


def test_injected_durations():
    timing = td.PerClient([0.01, 0.01, 0.01, 0.05])
    trace = run(engine=td.RayCluster(workers=4, timing=timing), stop=td.MaxUpdates(40)).trace
    for client in range(4):
        mine = trace["client"] == client
        assert (trace["finished"][mine] - trace["started"][mine] >= timing.seconds[client] - 1e-6).all()
    assert trace.staleness.max() > 4


def test_no_task_waits_behind_another_while_a_worker_is_idle():
    problem = make_problem()
    problem = td.LeastSquares((problem.data.X, problem.data.y), td.Shared(4), batch=3)
    result = run(problem, td.RayCluster(workers=4, timing=td.Constant(0.02), depth=2), td.MaxUpdates(80), concurrency=4)
    first = result.trace.table[np.isin(result.trace["task"], range(4))]
    assert set(first["worker"].tolist()) == {0, 1, 2, 3}


def test_large_points_and_payloads_go_through_the_object_store_and_replay():
    X = np.random.default_rng(0).normal(size=(8, 20_000))
    problem = td.LeastSquares((X, np.ones(8)), td.Iid(4), batch=1)
    for rule, kwargs in ((td.SyncSGD(1e-5, momentum=0.5), {}), (td.AsyncSGD(1e-5, "shuffled"), {"concurrency": 9})):
        result = run(problem, rule=rule, stop=td.MaxUpdates(40), **kwargs)
        assert td.replay(result).identical


@pytest.mark.parametrize("size", [2_001, 11_251, 60_000])  # bytes, objects of less and more than Ray's own limits
def test_payloads_of_all_sizes_replay(size):
    result = run(rule=Constantly(np.random.default_rng(1).normal(size=size)), stop=td.MaxUpdates(6))
    assert td.replay(result).identical


class Constantly(td.Rule):
    def __init__(self, payload):
        self.payload = payload

    def fields(self):
        return {"payload": self.payload}

    def start(self, x0, n_clients, rng):
        state = td.State(x0)
        return state, [state.task(0), state.task(1)]

    def receive(self, state, reply, rng):
        state.x[:2] += np.dot(reply.payload, reply.payload)
        state.version += 1
        return state, [state.task(state.version % 4)]

    def work(self, problem, task, points, rng, cache):
        return self.payload.copy()


def test_a_rule_with_all_parts_keeps_its_contract_on_actors():
    result = run(rule=CheckedRule(OddRule(cancel_every=2)), stop=td.MaxUpdates(100))
    assert result.state.version == 100


def test_points_go_when_they_are_read():
    engine, seen = td.RayCluster(workers=2), []
    close = engine.close
    engine.close = lambda: (seen.append((len(engine._dispatch.jobs), len(engine._dispatch._versions))), close())
    run(rule=OddRule(cancel_every=2), engine=engine, stop=td.MaxUpdates(300))
    jobs, versions = seen[0]
    assert jobs <= 4 + 4  # those open, and cancelled ones that actors still compute
    assert versions <= jobs + 4


class ThreadsOfBlas(td.Problem):
    """Its gradient is how many threads BLAS uses, and 9 if an overflow would warn."""

    n_clients, dim = 2, 1

    def fields(self):
        return {}

    def gradient(self, client, x, sample=None):
        from threadpoolctl import threadpool_info

        threads = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        return np.full(1, -float(max(threads) if np.geterr()["over"] == "ignore" else 9))


def test_blas_has_one_thread_in_actors_and_overflows_do_not_warn():
    assert run(ThreadsOfBlas(), rule=td.AsyncSGD(1.0), stop=td.MaxUpdates(4)).x.tolist() == [4.0]


def test_a_checkpoint_is_resumed(tmp_path):
    X = np.random.default_rng(0).normal(size=(8, 20_000))
    large = td.LeastSquares((X, np.ones(8)), td.Iid(4), batch=1)
    for problem in (make_problem(), large):
        rule = td.AsyncSGD(1e-5, "shuffled")
        folder = tmp_path / str(problem.dim)
        first = run(problem, rule=rule, stop=td.MaxUpdates(30), concurrency=7, checkpoint=folder)
        assert len(first.in_flight.jobs) == 7
        both = td.resume(folder, problem=problem, stop=td.MaxUpdates(60))
        assert len(set(both.trace["task"].tolist())) == len(both.trace) == 60
        assert td.replay(both).identical


def test_a_saved_run_is_replayed_without_ray(tmp_path, monkeypatch):
    result = run(engine=td.RayCluster(workers=2, timing=td.Constant(0.001), depth=3))
    result.save(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "ray", None)
    replayed = td.replay(tmp_path / "run")
    assert replayed.identical
    with pytest.raises(td.WorkerError, match=r'RayCluster needs Ray.*pip install "tardigrad\[ray\]"'):
        run()
    with pytest.raises(td.WorkerError, match="RayCluster needs Ray"):
        run(engine=td.RayCluster())


def test_interrupt_while_actors_are_busy():
    engine = td.RayCluster(workers=2, timing=td.Constant(0.05))
    result = run(engine=engine, stop=td.MaxSeconds(1e6), observers=PressSoon())
    assert result.status is td.Status.INTERRUPTED
    assert td.replay(result).identical


def test_limit_of_seconds():
    result = run(engine=td.RayCluster(workers=2, timing=td.Constant(0.02)), stop=td.MaxSeconds(0.3))
    assert result.status is td.Status.MAX_SECONDS
    assert td.replay(result).identical


def test_one_engine_object_serves_one_run_after_another_and_leaves_ray_as_it_was():
    import ray

    engine, handler, environment = td.RayCluster(), signal.getsignal(signal.SIGTERM), dict(os.environ)
    for _ in range(2):
        result = run(engine=engine)
        assert td.replay(result).identical
        assert set(result.trace["worker"].tolist()) <= set(range(4))
    assert ray.is_initialized()
    assert (signal.getsignal(signal.SIGTERM), dict(os.environ)) == (handler, environment)
    engine.close()


@pytest.mark.parametrize("shared", [False, True])
def test_more_workers_than_cpus_are_waited_for_by_nobody(shared):
    problem = make_problem()
    if shared:
        problem = td.LeastSquares((problem.data.X, problem.data.y), td.Shared(8), batch=3)
    else:
        problem = td.LeastSquares((problem.data.X, problem.data.y), td.Iid(8), batch=3)
    result = run(problem, td.RayCluster(workers=8), td.MaxUpdates(100))
    assert set(result.trace["client"].tolist()) == set(range(8))
    assert len(set(result.trace["worker"].tolist())) <= 4
    assert result.incidents == []
    assert td.replay(result).identical


@pytest.mark.parametrize(("ahead", "error"), [(-1e3, 0.0), (1e6, 0.0), (0.0, 0.2), (0.0, -0.2)])
def test_times_of_other_machines_are_put_on_the_server_s_clock(monkeypatch, ahead, error):
    monkeypatch.setattr(ray_cluster, "host", lambda: "elsewhere")
    begin, found = ray_cluster.RayCluster._begin, []

    def measured(self, actor):
        found.append(actor.ahead)
        actor.ahead += error  # what a slow network would do
        begin(self, actor)

    monkeypatch.setattr(ray_cluster.RayCluster, "_begin", measured)
    trace = run(ClockAhead(ahead), rule=td.AsyncSGD(0.1), stop=td.MaxUpdates(30)).trace
    assert len(found) == 2
    assert all(abs(value - ahead) < 1.0 for value in found)
    for earlier, later in (("submitted", "started"), ("started", "finished"), ("finished", "received")):
        assert (trace[earlier] <= trace[later]).all()
    if not error:
        assert (trace["finished"] - trace["started"] >= 0.009).mean() > 0.5


def test_times_are_moved_by_as_little_as_needed_and_keep_their_length_where_it_fits():
    fitted = ray_cluster.fitted
    assert fitted(2.0, 3.0, 1.0, 4.0) == (2.0, 3.0)
    assert fitted(0.5, 1.5, 1.0, 4.0) == (1.0, 2.0)
    assert fitted(3.5, 4.5, 1.0, 4.0) == (3.0, 4.0)
    assert fitted(0.0, 9.0, 1.0, 4.0) == fitted(-9.0, 0.0, 1.0, 4.0) == (1.0, 4.0)
    assert fitted(7.0, 16.0, 1.0, 4.0) == (1.0, 4.0)


class ClockAhead(Raising):
    """Sets its worker's monotonic clock when it arrives there."""

    def __init__(self, ahead):
        self.ahead = ahead

    def __setstate__(self, state):
        from tardigrad.engines import ray_worker, work

        self.ahead = state["ahead"]
        real = time.monotonic

        class Shifted:
            monotonic = staticmethod(lambda: real() + self.ahead)
            sleep = staticmethod(time.sleep)

        ray_worker.time = work.time = Shifted

    def gradient(self, client, x, sample=None):
        time.sleep(0.01)
        return x - client


def test_a_problem_that_cannot_be_sent_says_so():
    with pytest.raises(td.InvalidInputError, match="cannot be sent to Ray actors"):
        run(Unpicklable())


def test_an_actor_that_cannot_start_shows_why():
    with pytest.raises(td.WorkerError, match=r"(?s)worker \d could not start.*ZeroDivisionError"):
        run(Unloadable())


def test_actors_that_die_while_starting_end_the_run():
    with pytest.raises(td.WorkerError, match="ended 5 times before it was ready; the last one died"):
        run(Deadly())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"workers": 0}, "workers must be"),
        ({"depth": 0}, "depth must be"),
        ({"timing": 0.5}, "timing must be"),
        ({"reassign": True}, "needs a deadline"),
        ({"address": 6379}, "address must be"),
        ({"address": "head"}, "address must be 'host:port'"),
        ({"address": "ray://head:10001"}, "run the script on a node of the cluster"),
    ],
)
def test_bad_arguments(options, text):
    with pytest.raises(td.InvalidInputError, match=text):
        td.RayCluster(**options)


def script(tmp_path, code, timeout=100):
    """Run a program of its own; what it printed as JSON."""
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(HEAD) + textwrap.dedent(code))
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=timeout, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


HEAD = """
import json, os, signal, sys, time
import numpy as np, tardigrad as td

class Mine(td.Problem):
    n_clients, dim = 4, 3
    def __init__(self, shared=False):
        self.shared_data = shared
    def fields(self):
        return {"shared": self.shared_data}
    def gradient(self, client, x, sample=None):
        return x - helper(client)

def helper(client):
    return client + 1.0

def children():
    return open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()
"""


def test_a_cluster_of_its_own_is_gone_after_the_run(tmp_path):
    found = script(
        tmp_path,
        """
        import ray, sklearn  # both set variables when they are imported
        before = signal.getsignal(signal.SIGTERM), dict(os.environ)
        runs = [td.run(td.AsyncSGD(0.1), Mine(), td.RayCluster(workers=2), stop=td.MaxUpdates(50)) for _ in range(2)]
        same = (signal.getsignal(signal.SIGTERM), dict(os.environ)) == before
        try:
            td.RayCluster("127.0.0.1:1").open(None, td.Placement(1, True))
        except td.WorkerError as error:
            text = str(error)
        print(json.dumps([[td.replay(r).identical for r in runs], children(), ray.is_initialized(), same, text]))
        """,
    )
    assert found[:4] == [[True, True], [], False, True]
    assert found[4].startswith("nothing answers at the Ray address '127.0.0.1:1'")


@pytest.fixture(scope="module")
def clusters_that_change(tmp_path_factory):
    """A run that uses nodes which join, then one of whose nodes one is taken away; both end when that has been seen."""
    return script(
        tmp_path_factory.mktemp("nodes"),
        """
        from ray.cluster_utils import Cluster

        class Once(td.Observer):
            "Acts when so many workers have taken part; the run ends when what it waits for has come."
            every = 20
            def __init__(self, workers, act, comes):
                self.workers, self.act, self.comes = workers, act, comes
            def observe(self, moment):
                workers = set(moment.rows(0, moment.replies)["worker"].tolist())
                if self.act and len(workers) == self.workers:
                    act, self.act = self.act, None
                    act()
                elif not self.act and self.comes(workers, moment.version):
                    return "it has come"

        def told(result):
            tasks = result.trace["task"].tolist()
            workers = sorted(set(result.trace["worker"].tolist()))
            doubled = len(tasks) - len(set(tasks))
            return result.message, workers, [i["kind"] for i in result.incidents], doubled, td.replay(result).identical

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        os.environ["RAY_ADDRESS"] = cluster.address
        engine = td.RayCluster(timing=td.Constant(0.005))
        assert engine.n_workers(td.Placement(4, True)) == 1
        joins = Once(1, lambda: cluster.add_node(num_cpus=2), lambda workers, version: len(workers) == 3)
        stop = td.MaxSeconds(60)
        joined = td.run(td.AsyncSGD(0.1), Mine(shared=True), engine, stop=stop, concurrency=6, observers=joins)

        del os.environ["RAY_ADDRESS"]
        node, after = cluster.add_node(num_cpus=1), []
        engine = td.RayCluster(cluster.address, timing=td.Constant(0.002))
        def goes_on(workers, version):
            after.extend([version] if any(i["kind"] == "died" for i in engine.incidents) else [])
            return after and version > after[0] + 300
        leaves = Once(4, lambda: cluster.remove_node(node, allow_graceful=False), goes_on)
        left = td.run(td.AsyncSGD(0.1, "shuffled"), Mine(), engine, stop=stop, observers=leaves)
        import ray
        cluster.shutdown()
        print(json.dumps([told(joined), told(left), ray.is_initialized()]))
        """,
    )


def test_a_node_that_joins_is_used_where_data_are_shared(clusters_that_change):
    assert clusters_that_change[0] == ["it has come", [0, 1, 2], [], 0, True]


def test_a_node_that_leaves_is_tolerated_and_its_cluster_is_left_running(clusters_that_change):
    """The run joins a cluster by its address; of the nodes with the actors one is taken away."""
    message, workers, kinds, doubled, identical = clusters_that_change[1]
    assert "died" in kinds
    assert (message, workers, doubled, identical) == ("it has come", [0, 1, 2, 3], 0, True)
    assert not clusters_that_change[2]
