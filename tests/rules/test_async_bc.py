"""AsyncBC against SARAH and the algorithm written out, its exact accounting, restarts, buffers."""

import os
import signal

import numpy as np
import pytest
import scipy.stats

import tardigrad as td
from conftest import make_problem
from tardigrad.core.streams import Domain, Stream
from tardigrad.rules.asking import distinct_clients
from tardigrad.testing import AnyOrder
from tardigrad.theory.async_bc import full_gradient_step, stochastic_step

#: more than iterates that are made anew at each update
LARGE = 20_000


class Quadratics(td.Problem):
    """f_i = a_i |x - c_i|^2 / 2, as the paper's: a_i = i^2 / n, and what is observed has deviation zeta / i."""

    def __init__(self, a, c):
        self.a, self.c = np.asarray(a, float), np.asarray(c, float)
        self.n_clients, self.dim = self.c.shape
        self.minimiser = self.a @ self.c / self.a.sum()

    @classmethod
    def of_paper(cls, zeta, n=4, dim=10, seed=0):
        i = np.arange(1, n + 1)
        b = np.random.default_rng(seed).normal(size=(n, dim)) * (zeta / i)[:, None]
        return cls(i**2 / n, b * (np.sqrt(n) / i)[:, None])

    def fields(self):
        return {"a": self.a, "c": self.c}

    def gradient(self, client, x, sample=None):
        return self.a[client] * (x - self.c[client])

    def full_gradient(self, x):
        return self.a.mean() * (x - self.minimiser)


FROM = np.random.default_rng(9).normal(size=10)


def of_paper(rule, zeta, n, **options):
    """A run from a start whose place beside the minimiser is fixed, clients i = 1, ..., 4 taking i 10/4 seconds."""
    problem = Quadratics.of_paper(zeta)
    engine = td.Simulated(td.PerClient.linear(4, 10.0))
    return td.run(rule, problem, engine, stop=td.MaxUpdates(n), x0=problem.minimiser + FROM, concurrency=4, **options)


def test_the_trajectory_does_not_depend_on_how_much_clients_differ():
    paths = []
    for zeta in (0, 1, 10, 1000):
        result = of_paper(td.AsyncBC(0.01), zeta, 10_000, snapshot_every=50)
        paths.append(result.history.x - result.problem.minimiser)
    for path in paths[1:]:
        assert np.abs(path - paths[0]).max() < 1e-9 * np.linalg.norm(FROM)


@pytest.mark.parametrize("zeta", [0.0, 1.0])
def test_asking_whoever_answered_ends_where_the_notes_say(zeta):
    """|grad f| / |m_0| tends to |1 - L / sum of w_i A_i^2| = 0.5625, w_i the share of client i's answers."""
    problem = Quadratics.of_paper(zeta)
    rates = 1 / np.arange(1, 5)
    constant = abs(1 - problem.a.mean() / (rates / rates.sum() @ problem.a))
    assert constant == pytest.approx(0.5625)
    result = of_paper(td.AsyncBC(1e-3, "answered"), zeta, 60_000)
    ratio = np.linalg.norm(problem.full_gradient(result.x)) / np.linalg.norm(problem.full_gradient(result.x0))
    assert ratio == pytest.approx(constant, abs=2e-3)
    uniform = of_paper(td.AsyncBC(1e-3), zeta, 60_000)
    assert np.linalg.norm(problem.full_gradient(uniform.x)) < 0.2 * np.linalg.norm(problem.full_gradient(result.x0))


def sarah(problem, step, n_updates, seed=0):
    """The textbook: a full gradient, then one client at a time; clients and samples as a run of AsyncBC draws them."""
    n = problem.n_clients
    tasks, server = Stream(seed, Domain.TASK), Stream(seed, Domain.SERVER)
    x = problem.x0()
    m = np.zeros_like(x)
    for client in range(n):
        m = m + problem.gradient(client, x) * problem.weight(client)
    previous, x = x, x - step * m
    task = n
    client = int(server.at(n - 1).integers(n))
    for t in range(1, n_updates):
        sample = problem.sample(client, tasks.at(task))
        g = problem.gradient(client, x, sample) - problem.gradient(client, previous, sample)
        if not problem.equal_weights:
            g = g * problem.scale(client)
        m = m + g
        previous, x = x, x - step * m
        task += 1
        client = int(server.at(n - 1 + t).integers(n))
    return x


@pytest.mark.parametrize("weights", ["equal", "rows"])
@pytest.mark.parametrize("batch", [None, 3])
def test_concurrency_1_is_sarah_bit_for_bit(batch, weights):
    problem = make_problem(batch=batch, weights=weights)
    for engine in (td.Simulated(td.Exponential(1.0)), td.Threads(2)):
        result = td.run(td.AsyncBC(0.05), problem, engine, stop=td.MaxUpdates(60), concurrency=1)
        assert result.x.tobytes() == sarah(problem, 0.05, 60).tobytes()


def written_out(result):
    """Algorithm 2 from what the trace says: every m, and the payloads by task."""
    problem, step, n = result.problem, result.rule.step, result.problem.n_clients
    tasks = Stream(result.seed, Domain.TASK)
    xs = [result.x0]
    m = sum(problem.gradient(client, xs[0]) * problem.weight(client) for client in range(n))
    ms, payloads = [m], {}
    xs.append(xs[0] - step * m)
    for row in result.trace.table[n:]:
        s, client, task = int(row["version_read"]), int(row["client"]), int(row["task"])
        sample = problem.sample(client, tasks.at(task))
        g = problem.gradient(client, xs[s], sample) - problem.gradient(client, xs[s - 1], sample)
        g = g / result.concurrency if s == 1 else g
        payloads[task] = g
        ms.append(ms[-1] + g)
        xs.append(xs[-1] - step * ms[-1])
    return xs, ms, payloads


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("engine", [lambda: td.Simulated(td.Exponential(1.0)), lambda: AnyOrder(seed=1), lambda: td.Threads(3)])
def test_it_is_algorithm_2(engine, seed):
    result = td.run(td.AsyncBC(0.05), make_problem(), engine(), stop=td.MaxUpdates(80), concurrency=3, seed=seed)
    xs, ms, _ = written_out(result)
    np.testing.assert_allclose(result.x, xs[-1], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(result.state.m, ms[-1], rtol=1e-11, atol=1e-12)


def test_the_accounting_of_m_is_exact():
    """What was applied is every difference that was answered, once; the virtual m adds those in flight (Lemma 2)."""
    problem = Quadratics.of_paper(3.0)
    result = td.run(
        td.AsyncBC(0.02), problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(500), concurrency=4, snapshot_every=1
    )
    x = result.history.x
    trace = result.trace.table[4:]
    applied = np.zeros(10)
    for row in trace:
        s, weight = row["version_read"], 0.25 if row["version_read"] == 1 else 1.0
        applied += weight * problem.a[row["client"]] * (x[s] - x[s - 1])
    np.testing.assert_allclose(result.state.m, problem.full_gradient(x[0]) + applied, rtol=1e-10, atol=1e-13)
    assert sorted(trace["task"]) == sorted(set(trace["task"]))


def test_the_first_replies_are_of_different_clients_and_weigh_one_together():
    result = of_paper(td.AsyncBC(0.01), 1.0, 40)
    first = result.trace.table[(result.trace["version_read"] == 1) & (result.trace["task"] >= 4)]
    assert sorted(first["client"]) == [0, 1, 2, 3]
    for n, k in ((7, 1), (7, 3), (7, 7)):
        chosen = distinct_clients(n, k, np.random.default_rng(0))
        assert len(set(chosen)) == k


def test_clients_are_drawn_uniformly_though_busy_ones_queue():
    problem = Quadratics(np.ones(10), np.zeros((10, 1)))
    engine = td.Simulated(td.PerClient([1.0] * 9 + [30.0]))
    result = td.run(td.AsyncBC(1e-3), problem, engine, stop=td.MaxUpdates(6000), concurrency=10)
    trace = result.trace.table[10:]
    # what was issued, answered or not: the slow client's tasks wait in its line
    issued = result.state.issued
    answered = np.bincount(trace["client"], minlength=10)
    missing = issued - 10 - len(trace)
    answered[9] += missing
    assert scipy.stats.chisquare(answered).pvalue > 1e-3
    assert missing <= 10


class Names(td.Problem):
    """Each client's gradient is its own number times x, in its own coordinate."""

    def __init__(self, n_clients):
        self.n_clients = self.dim = n_clients

    def fields(self):
        return {"n_clients": self.n_clients}

    def gradient(self, client, x, sample=None):
        return np.eye(self.n_clients)[client] * x

    def x0(self):
        return np.ones(self.dim)


@pytest.mark.parametrize("engine", [lambda: td.Simulated(td.Exponential(1.0)), lambda: td.Threads(2), lambda: td.Processes(2)])
def test_every_gradient_is_of_the_client_whose_id_the_task_carries(engine):
    seen = []

    class Rule(td.AsyncBC):
        def receive(self, state, reply, rng):
            seen.append((reply.task.client, np.flatnonzero(reply.payload).tolist()))
            return super().receive(state, reply, rng)

    td.run(Rule(0.1), Names(5), engine(), stop=td.MaxUpdates(60), concurrency=3)
    assert len(seen) >= 60
    assert all(found in ([client], []) for client, found in seen)
    assert sum(found == [client] for client, found in seen) > 50


def test_full_gradients_that_come_out_of_order_give_the_same_bits():
    problem = make_problem(batch=None)
    ms = set()
    for seed in range(6):
        result = td.run(td.AsyncBC(0.05), problem, AnyOrder(seed=seed), stop=td.MaxUpdates(1), concurrency=2)
        ms.add(result.state.m.tobytes())
    assert len(ms) == 1


@pytest.mark.parametrize("step", [0.05, [0.02, 0.05], td.PowerStep(0.1, 0.5)], ids=["one", "sweep", "decreasing"])
@pytest.mark.parametrize("replicas", [None, 3])
def test_sweeps_and_replicas(step, replicas):
    result = td.run(
        td.AsyncBC(step, restart_every=10),
        make_problem(),
        td.Simulated(td.Exponential(1.0)),
        stop=td.MaxUpdates(60),
        concurrency=3,
        replicas=replicas,
    )
    lead = (() if replicas is None else (replicas,)) + ((2,) if isinstance(step, list) else ())
    assert result.x.shape == (*lead, 5)
    assert np.isfinite(result.x).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_large_iterates_are_updated_in_place_and_alike(dtype):
    rng = np.random.default_rng(0)
    a, c = np.array([1.0, 2.0, 4.0]), rng.normal(size=(3, 2 * LARGE))

    class Typed(Quadratics):
        def gradient(self, client, x, sample=None):
            return (self.a[client] * (x - self.c[client])).astype(self.dtype)

    big, small = Typed(a, c), Typed(a, c[:, :50])
    big.dtype = small.dtype = np.dtype(dtype)
    runs = [
        td.run(td.AsyncBC(0.05, restart_every=7), p, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(40), concurrency=2)
        for p in (big, small)
    ]
    assert runs[0].x.dtype == dtype
    assert not runs[0].state.fresh
    assert runs[1].state.fresh
    np.testing.assert_allclose(runs[0].x[:50], runs[1].x, rtol=1e-12 if dtype == "float64" else 1e-5, atol=1e-6)


def restarted(result, every):
    """The method with restarts, written out from the trace: x after every update."""
    problem, step, n = result.problem, result.rule.step, result.problem.n_clients
    xs = [result.x0]
    m = problem.full_gradient(xs[0])
    xs.append(xs[0] - step * m)
    kinds = {}  # what a task is follows from the order of issue
    anchor, gathered, total, epoch_of, epoch = 0, n, None, {}, 0
    for task in range(n):
        kinds[task] = "full"
    issued = n
    for _ in range(result.concurrency):
        epoch_of[issued] = 0
        issued += 1
    for row in result.trace.table[n:]:
        task, s, client = int(row["task"]), int(row["version_read"]), int(row["client"])
        if kinds.get(task) == "full":
            gathered += 1
            total = total + problem.gradient(client, xs[anchor]) / n
            if gathered == n:
                m = total
            continue
        g = problem.a[client] * (xs[s] - xs[s - 1]) * (1 / result.concurrency if s == 1 else 1.0)
        if gathered < n:
            m = m + g
            if epoch_of[task] == epoch:
                total = total + g
        elif epoch_of[task] == epoch:
            m = m + g
        xs.append(xs[-1] - step * m)
        epoch_of[issued] = epoch
        issued += 1
        if gathered == n and len(xs) - 1 - anchor >= every:
            epoch, anchor, gathered, total = epoch + 1, len(xs) - 1, 0, 0.0
            for _ in range(n):
                kinds[issued] = "full"
                issued += 1
    return xs


@pytest.mark.parametrize("every", [1, 6, 25])
@pytest.mark.parametrize("timing", [td.Exponential(1.0), td.PerClient([1.0, 2.0, 5.0, 20.0])], ids=lambda t: type(t).__name__)
def test_restarts_are_what_they_are_said_to_be(every, timing):
    problem = Quadratics.of_paper(5.0)
    result = td.run(
        td.AsyncBC(0.02, restart_every=every), problem, td.Simulated(timing), stop=td.MaxUpdates(120), concurrency=3
    )
    xs = restarted(result, every)
    assert len(xs) == 121
    np.testing.assert_allclose(result.x, xs[-1], rtol=1e-9, atol=1e-12)
    assert result.state.epoch > 0


def test_restarts_take_the_error_floor_away():
    ends = {every: of_paper(td.AsyncBC(0.1, restart_every=every), 10.0, 1500) for every in (None, 6)}
    lengths = {every: np.linalg.norm(run.x - run.problem.minimiser) for every, run in ends.items()}
    assert lengths[6] < 1e-12
    assert lengths[None] > 1e-6


def test_a_buffer_makes_an_update_of_several_replies():
    problem = Quadratics.of_paper(5.0)
    result = td.run(
        td.AsyncBC(0.02, buffer=3),
        problem,
        td.Simulated(td.Exponential(1.0)),
        stop=td.MaxUpdates(200),
        concurrency=4,
        snapshot_every=1,
    )
    x, trace = result.history.x, result.trace.table[4:]
    assert len(trace) == 3 * 199
    applied = problem.full_gradient(x[0])
    for row in trace:
        s = row["version_read"]
        applied = applied + problem.a[row["client"]] * (x[s] - x[s - 1]) / (4 if s == 1 else 3)
    np.testing.assert_allclose(result.state.m, applied, rtol=1e-9, atol=1e-12)
    assert np.bincount(trace["version_applied"])[1:].tolist() == [3] * 199


def test_buffer_1_is_no_buffer():
    runs = [
        td.run(rule, make_problem(), td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(50), concurrency=3)
        for rule in (td.AsyncBC(0.05), td.AsyncBC(0.05, buffer=1))
    ]
    assert runs[0].x.tobytes() == runs[1].x.tobytes()


def test_oracle_calls_are_counted():
    calls = []

    class Counting(Quadratics):
        def gradient(self, client, x, sample=None):
            calls.append(client)
            return super().gradient(client, x, sample)

    problem = Counting(np.ones(4), np.eye(4))
    rule = td.AsyncBC(0.05, restart_every=10)
    result = td.run(rule, problem, td.Simulated(td.Constant(1.0)), stop=td.MaxOracleCalls(200), concurrency=2)
    assert 200 <= result.oracle_calls == len(calls) <= 201


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: td.AsyncBC(0.0), "step must be a positive number"),
        (lambda: td.AsyncBC(0.1, restart_every=0), "restart_every must be an integer >= 1"),
        (lambda: td.AsyncBC(0.1, buffer=0), "buffer must be an integer >= 1"),
        (lambda: td.AsyncBC(0.1, compression="random"), "compression must be a Compressor such as RandomK"),
        (lambda: td.AsyncBC(0.1, "fastest"), "next_client must be one of answered"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(td.InvalidInputError, match=message):
        make()


@pytest.mark.parametrize(
    ("rule", "concurrency", "message"),
    [
        (lambda: td.AsyncBC(0.1), 5, "concurrency=5 must be at most the number of clients, 4"),
        (lambda: td.AsyncBC(0.1, buffer=3), 2, "buffer=3 replies are never there with 2 tasks in flight"),
    ],
)
def test_what_does_not_fit_the_problem(rule, concurrency, message):
    with pytest.raises(td.InvalidInputError, match=message):
        td.run(rule(), make_problem(), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(1), concurrency=concurrency)


@pytest.mark.parametrize("batch", [None, 3])
def test_steps_of_theory_are_those_of_the_theorems(batch):
    problem = make_problem(batch=batch)
    rule = td.AsyncBC("theory", horizon=500)
    result = td.run(
        rule, problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(500), concurrency=3, max_staleness=9, snapshot_every=1
    )
    known = problem.constants()
    if batch is None:
        expected = full_gradient_step(known.L, known.delta, 3, 9, 500)
    else:
        expected = stochastic_step(known.L, known.ell, 3, 9, 500)
    assert result.rule.step == expected
    assert result.trace.staleness.max() <= 9
    gradients = [problem.full_gradient(x) for x in result.history.x[:500]]
    gap = problem.loss(problem.x0()) - problem.loss(np.linalg.lstsq(problem.data.X, problem.data.y, rcond=None)[0])
    assert np.mean([g @ g for g in gradients]) <= 2 * gap / (expected * 500)
    assert td.replay(result).identical


@pytest.mark.parametrize(("options", "horizon"), [({}, 100), ({"max_staleness": 5}, None)])
def test_steps_of_theory_need_a_horizon_and_a_largest_delay(options, horizon):
    rule = td.AsyncBC("theory", horizon=horizon)
    with pytest.raises(td.InvalidInputError, match="is for a number of updates and a largest delay"):
        td.run(rule, make_problem(), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(5), concurrency=2, **options)


@pytest.mark.parametrize("step", [0.05, [0.02, 0.05], td.PowerStep(0.1, 0.5)])
def test_iterates_keep_the_type_of_the_data(step):
    data = np.eye(4, dtype=np.float32), np.arange(4, dtype=np.float32)
    result = td.run(
        td.AsyncBC(step), td.LeastSquares(data, td.Iid(4)), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(9), concurrency=2
    )
    assert result.x.dtype == np.float32


def test_theory_is_silent_of_options_beyond_the_paper():
    for rule in (td.AsyncBC("theory", restart_every=5, horizon=9), td.AsyncBC("theory", "answered", horizon=9)):
        with pytest.warns(td.TheoryWarning, match="without restarts, buffers, compression"):
            rule.configure(make_problem(), 4, 8)


@pytest.mark.parametrize("dim", [10, LARGE])
@pytest.mark.parametrize("step", [0.05, td.PowerStep(0.1, 0.5)], ids=["constant", "decreasing"])
def test_sarah_is_the_same_rule_where_one_difference_is_in_flight(dim, step):
    problem = td.ClientQuadratics.of_paper(5.0, dim=dim)
    runs = [
        td.run(rule, problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(40), concurrency=1)
        for rule in (td.AsyncBC(step), td.SARAH(step))
    ]
    assert runs[0].x.tobytes() == runs[1].x.tobytes()
    assert runs[0].state.m.tobytes() == runs[1].state.m.tobytes()
    assert runs[0].trace["client"].tolist() == runs[1].trace["client"].tolist()


@pytest.mark.parametrize("compression", [td.RandomK(3), td.Quantization(4)], ids=repr)
@pytest.mark.parametrize("replicas", [None, 2])
def test_compressed_differences_are_applied_as_they_are_expanded(compression, replicas):
    problem = td.ClientQuadratics.of_paper(5.0)
    payloads = []

    class Listening(td.AsyncBC):
        def receive(self, state, reply, rng):
            if reply.task.kind == "difference":
                payloads.append(tuple(part.copy() for part in reply.payload))
            return super().receive(state, reply, rng)

    rule = Listening(0.02, compression=compression)
    result = td.run(
        rule, problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(50), concurrency=1, replicas=replicas, x0=FROM
    )
    m = problem.full_gradient(result.x0)
    for payload in payloads:
        m = m + compression.expand(payload, 10, np.dtype(float))
    np.testing.assert_allclose(result.state.m, m, rtol=1e-12, atol=1e-12)


def test_compression_of_everything_changes_nothing_but_rounding():
    runs = [of_paper(td.AsyncBC(0.02, compression=c), 3.0, 300) for c in (None, td.RandomK(10))]
    np.testing.assert_allclose(runs[0].x, runs[1].x, rtol=1e-9)


def test_compressed_runs_with_restarts_converge():
    result = of_paper(td.AsyncBC(0.02, restart_every=10, compression=td.RandomK(5)), 10.0, 3000)
    assert np.linalg.norm(result.x - result.problem.minimiser) < 1e-6


def test_workers_killed_twenty_times_leave_no_trace_in_the_answer():
    """m is a telescoping sum: a reply that was lost or applied twice would stay in it for ever."""
    problem = make_problem(batch=2)
    engine = td.Processes(3, timing=td.Constant(0.002))
    killed = []

    class Killer(td.Observer):
        every = 20

        def observe(self, moment):
            if moment.version > 0 and len(killed) < 20:
                os.kill(engine.pids[len(killed) % 3], signal.SIGKILL)
                killed.append(moment.version)

    result = td.run(
        td.AsyncBC(0.02, restart_every=90), problem, engine, stop=td.MaxUpdates(600), concurrency=3, observers=Killer()
    )
    assert len(killed) == 20
    assert sum(incident["kind"] == "died" for incident in result.incidents) >= 15  # one may die before it had begun
    assert td.replay(result).identical
    assert sorted(result.trace["task"]) == sorted(set(result.trace["task"]))
