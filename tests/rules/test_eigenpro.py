"""EigenPro's rules: the methods written out, limiting cases in every bit, epochs, deaths, and bad input."""

import dataclasses
import os
import signal
import time
import warnings
import weakref

import numpy as np
import pytest

import tardigrad as td
from needs import needs_torch
from same_runs import assert_same_runs
from tardigrad.core.plain import same_bits
from tardigrad.core.streams import Domain, Stream
from tardigrad.rules import kernel_rule
from tardigrad.rules.kernel_rule import epoch_order
from tardigrad.theory import eigenpro as theory


def make_machine(n=60, n_clients=1, n_outputs=2, **kwargs):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3))
    y = np.sin(X[:, :1] * np.arange(1, n_outputs + 1)) if n_outputs else np.sin(X[:, 0])
    return td.KernelInterpolation(X, y, td.Laplacian(2.0), n_clients, **{"dtype": "float64", **kwargs})


def matrix_of(problem):
    return problem.kernel(problem.X)


def solution_of(problem):
    return np.linalg.solve(matrix_of(problem), problem.targets)


def virtual(rule, problem, n, timing=None, **kwargs):
    engine = td.Simulated(timing or td.Exponential(1.0))
    return td.run(rule, problem, engine, stop=td.MaxUpdates(n), **{"seed": 4, **kwargs})


def written_out(K, y, alpha, alpha_read, rows, sub, gamma_of, n_damped, power=0.95):
    """One update by the formulas of the notes, with dense matrices; the new alpha."""
    sigma, U = np.linalg.eigh(K[np.ix_(sub, sub)])
    sigma, U = sigma[::-1], U[:, ::-1]
    s = len(sub)
    lam, tail = sigma[:n_damped] / s, sigma[n_damped] / s
    damping = 1 - (tail / lam) ** power
    M = U[:, :n_damped] @ np.diag(damping / sigma[:n_damped]) @ U[:, :n_damped].T
    beta = max(1 - K[i, sub] @ M @ K[sub, i] for i in [*sub, *rows])
    g = K[rows] @ alpha_read - y[rows]
    gamma = gamma_of(beta, (sigma[0] / s) ** (1 - power) * tail**power)
    alpha = alpha.copy()
    np.subtract.at(alpha, rows, gamma * g)
    np.add.at(alpha, sub, gamma * M @ K[np.ix_(sub, rows)] @ g)
    return alpha


def test_the_asynchronous_method_is_the_one_written_out_with_its_stale_reads():
    problem = make_machine(n_clients=3)
    rule = td.AsyncEigenPro(batch_size=5, n_subsample=12, n_damped=3, step_factor=1.25)
    result = virtual(rule, problem, 60, snapshot_every=1)
    K, y, n, trace = matrix_of(problem), problem.targets, problem.n_rows, result.trace
    states, parts = [np.zeros_like(y)], {}
    assert trace.staleness.max() >= 4
    for client, read in zip(trace["client"].tolist(), trace["version_read"].tolist(), strict=True):
        epoch = len(states[1:]) // 12  # 60 rows in batches of 5
        assert read >= 12 * epoch, "nothing is read across the end of an epoch"
        order, low, high = epoch_order(4, epoch, n), client * 20, client * 20 + 20
        places = Stream(4, Domain.PREPARE).at(epoch << 32 | int(client)).choice(20, 12, replace=False)
        part = parts[epoch, client] = parts.get((epoch, client), -1) + 1
        rows = order[low + np.arange(5 * part, 5 * part + 5) % 20]
        gamma_of = lambda beta, top: 1.25 / (beta + (3 * 5 - 1) * top)  # noqa: E731
        states.append(written_out(K, y, states[-1], states[read], rows, order[low + places], gamma_of, 3))
        assert high <= n
    np.testing.assert_allclose(result.history.x, np.reshape(states, (61, -1)), rtol=0, atol=1e-11)


def test_the_rounds_are_those_written_out():
    problem = make_machine(n_clients=2)
    result = virtual(td.SyncEigenPro(batch_size=5, n_subsample=15, n_damped=4), problem, 15, snapshot_every=1)
    K, y, alpha = matrix_of(problem), problem.targets, np.zeros_like(problem.targets)
    subs = [epoch_order(4, 0, 60)[Stream(4, Domain.PREPARE).at(client).choice(60, 15, replace=False)] for client in range(2)]
    for version in range(15):
        epoch, part = divmod(version, 6)
        rows = epoch_order(4, epoch, 60)[10 * part : 10 * part + 10]
        change = 0
        for client in range(2):
            gamma_of = lambda beta, top: 1.5 / (beta + (2 * 5 - 1) * top)  # noqa: E731
            mine = written_out(K, y, alpha, alpha, rows[5 * client : 5 * client + 5], subs[client], gamma_of, 4)
            change = change + mine - alpha
        alpha = alpha + change
        np.testing.assert_allclose(result.history.x[version + 1], alpha.ravel(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("n_outputs", [0, 1, 3])
def test_alone_with_batches_of_one_row_all_methods_have_the_same_bits(n_outputs):
    problem = make_machine(40, n_outputs=n_outputs)
    sizes = {"batch_size": 1, "n_subsample": 20, "n_damped": 4}
    one = virtual(td.EigenPro(**sizes, refresh=True), problem, 120, snapshot_every=20)
    rounds = virtual(td.SyncEigenPro(**sizes, refresh=True, step_factor=1.0), problem, 120, snapshot_every=20)
    owners = virtual(td.AsyncEigenPro(**sizes, step_factor=1.0), problem, 120, snapshot_every=20)
    assert same_bits(one.history.x, rounds.history.x)
    assert same_bits(one.history.x, owners.history.x)


def test_without_damped_directions_it_is_stochastic_gradient_descent():
    problem = make_machine(40, n_outputs=0)
    result = virtual(td.EigenPro(batch_size=4, n_subsample=10, n_damped=0), problem, 30)
    K, alpha = matrix_of(problem), np.zeros(40)
    tail = np.linalg.eigvalsh(
        K[np.ix_(*2 * [epoch_order(4, 0, 40)[Stream(4, Domain.PREPARE).at(0).choice(40, 10, replace=False)]])]
    )
    gamma = theory.one_worker_step(1.0, tail[-1] / 10, 4)
    for version in range(30):
        rows = epoch_order(4, version // 10, 40)[version % 10 * 4 :][:4]
        alpha[rows] -= gamma * (K[rows] @ alpha - problem.y[rows])
    np.testing.assert_allclose(result.x, alpha, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_clients", [1, 2, 4])
@pytest.mark.parametrize("rule", [td.AsyncEigenPro, td.SyncEigenPro])
def test_they_end_at_the_interpolant(rule, n_clients):
    problem = make_machine(n_clients=n_clients)
    result = virtual(rule(), problem, 3000)
    np.testing.assert_allclose(result.x.reshape(60, 2), solution_of(problem), atol=2e-3)
    z = np.random.default_rng(1).normal(size=(7, 3))
    np.testing.assert_allclose(problem.predict(result.x, z), problem.kernel(z, problem.X) @ solution_of(problem), atol=1e-3)


def test_one_lock_free_worker_equals_the_served_run_in_every_bit():
    problem = make_machine()
    rule = td.AsyncEigenPro(batch_size=7)
    engines = td.Simulated(td.Constant(1.0)), td.Threads(1), td.Threads(1, lock_free=True)
    runs = [td.run(rule, problem, engine, stop=td.MaxUpdates(40), snapshot_every=5, seed=2) for engine in engines]
    for run in runs[1:]:
        assert same_bits(run.history.x, runs[0].history.x)
        assert same_bits([t.updates for t in run.state.tallies], [t.updates for t in runs[0].state.tallies])
        # of a lock-free run summed up slice by slice
        assert [t.reading for t in run.state.tallies] == pytest.approx([t.reading for t in runs[0].state.tallies], rel=1e-12)


def test_an_epoch_visits_every_row_once_and_the_next_partition_is_another():
    problem = make_machine(n_clients=3)
    visited = []

    class Watched(td.AsyncEigenPro):
        def work(self, problem, task, points, rng, cache):
            payload = super().work(problem, task, points, rng, cache)
            order, low = epoch_order(rng.seed, task.setup, self.n_rows), self._own(task.client, 3)[0]
            visited.append((task.setup, task.client, order[low + payload[0]]))
            return payload

    virtual(Watched(batch_size=5), problem, 24, timing=td.Constant(1.0))
    for epoch in (0, 1):
        rows = np.concatenate([rows for setup, _, rows in visited if setup == epoch])
        assert np.array_equal(np.sort(rows), np.arange(60))
    owners = [{client: set(rows) for setup, client, rows in visited if setup == epoch} for epoch in (0, 1)]
    assert owners[0] != owners[1]


def test_a_slow_worker_does_less_and_its_rows_change_hands():
    problem = make_machine(n_clients=3)
    result = virtual(td.AsyncEigenPro(batch_size=2), problem, 300, timing=td.PerClient([1.0, 1.0, 10.0]))
    shares = np.bincount(result.trace["client"]) / 300
    assert shares[2] < 0.1
    assert shares[0] > 0.4
    assert problem.measures(result.x)["residual"] < 0.02
    assert [tally.updates for tally in result.state.tallies] == [30] * 10 + [0]


def test_lock_free_epochs_count_updates_staleness_and_waiting():
    problem = make_machine(200, n_clients=4)
    engine = td.Threads(4, td.PerClient([0.001, 0.001, 0.001, 0.004]), lock_free=True)
    result = td.run(td.AsyncEigenPro(batch_size=5), problem, engine, stop=td.MaxUpdates(120), seed=1)
    first = result.state.tallies[:3]
    assert [tally.updates for tally in first] == [40] * 3
    assert all(0 < tally.staleness <= 40 * 3 + 12 for tally in first)
    assert all(tally.staleness_max >= 3 for tally in first)
    assert all(tally.waited > 0 for tally in first)
    assert first[2].reading < first[0].reading
    assert sum(result.state.counts) == 120
    assert result.state.counts[3] < 60


class Unhurried(td.AsyncEigenPro):
    def prepare(self, problem, client, setup, rng):
        time.sleep(0.3 * client)
        return super().prepare(problem, client, setup, rng)


def test_a_lock_free_worker_reads_when_it_has_prepared():
    problem = make_machine(100, n_clients=2)
    engine = td.Threads(2, lock_free=True)
    result = td.run(Unhurried(batch_size=5), problem, engine, stop=td.MaxUpdates(20))
    assert result.state.counts[0] > 10
    assert result.state.tallies[0].staleness_max <= 5


def test_a_served_run_tallies_the_staleness_of_its_trace():
    result = virtual(td.AsyncEigenPro(batch_size=5), make_machine(n_clients=4), 36)
    tallies, staleness = result.state.tallies, result.trace.staleness
    for epoch in range(3):
        part = staleness[12 * epoch : 12 * epoch + 12]
        assert (tallies[epoch].staleness, tallies[epoch].staleness_max) == (part.sum(), part.max())


def test_where_replies_are_older_than_the_step_was_chosen_for_the_next_epoch_has_a_smaller_one():
    problem = make_machine(200, n_clients=4)
    rule = td.AsyncEigenPro(batch_size=5)
    with pytest.warns(td.TheoryWarning, match=r"replies of epoch 1 were 2\.\d+ updates old on average, .* chosen for 0: it is"):
        result = virtual(rule, problem, 90, max_staleness=0)
    assert result.rule.in_flight == 1
    assert 3.5 < result.state.weight <= 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert virtual(rule, problem, 90).state.weight == 4


def test_a_sweep_of_step_factors_is_the_runs_by_themselves():
    problem = make_machine(n_clients=2)
    for rule in (td.AsyncEigenPro, td.SyncEigenPro):
        sizes = {"batch_size": 5, "n_subsample": 15, "n_damped": 3}
        swept = virtual(rule(step_factor=[0.5, 1.0], **sizes), problem, 40)
        assert swept.x.shape == (2, 120)
        for factor, x in zip((0.5, 1.0), swept.x, strict=True):
            np.testing.assert_allclose(virtual(rule(step_factor=factor, **sizes), problem, 40).x, x, rtol=0, atol=1e-11)


def test_a_resumed_run_goes_on_in_the_middle_of_an_epoch(tmp_path):
    problem, rule = make_machine(n_clients=3), td.AsyncEigenPro(batch_size=5)
    whole = virtual(rule, problem, 50)
    virtual(rule, problem, 29, checkpoint=tmp_path / "run")
    assert_same_runs(td.resume(tmp_path / "run", stop=td.MaxUpdates(50)), dataclasses.replace(whole), in_flight=False)
    engine = td.Threads(1, lock_free=True)
    one = make_machine()
    whole = td.run(rule, one, engine, stop=td.MaxUpdates(50), seed=4)
    td.run(rule, one, td.Threads(1, lock_free=True), stop=td.MaxUpdates(29), seed=4, checkpoint=tmp_path / "free")
    again = td.resume(tmp_path / "free", stop=td.MaxUpdates(50))
    assert same_bits(again.x, whole.x)


class Killing(td.KernelInterpolation):
    """Kills each client's worker once."""

    def __init__(self, X, y, kernel, n_clients=1, *, folder, **kwargs):
        self.folder, self.driver = str(folder), os.getpid()
        super().__init__(X, y, kernel, n_clients, **kwargs)

    def blocks(self, client=0):
        mark = os.path.join(self.folder, f"killed {client}")
        if os.getppid() == self.driver and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().blocks(client)


def test_killed_workers_leave_the_same_bits(tmp_path):
    plain = make_machine(n_clients=2)
    problem = Killing(plain.X, plain.y, plain.kernel, 2, dtype="float64", folder=tmp_path)
    result = td.run(td.AsyncEigenPro(batch_size=5), problem, td.Processes(2), stop=td.MaxUpdates(40), seed=3)
    assert len(list(tmp_path.glob("killed *"))) == 2
    assert len(result.incidents) >= 2
    replayed = td.replay(result, problem=plain)
    assert replayed.identical, replayed.difference


def run(rule, problem, **kwargs):
    return lambda: virtual(rule, problem, 5, **kwargs)


BAD = {
    "is for kernel machines: give": run(td.AsyncEigenPro(), td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))),
    "EigenPro is for one worker, the problem has 2 clients": run(td.EigenPro(), make_machine(n_clients=2)),
    "one task of each of its 2 clients in flight, not 3": run(td.AsyncEigenPro(), make_machine(n_clients=2), concurrency=3),
    "a batch of 50 rows does not fit the memory: 30000 bytes": run(
        td.AsyncEigenPro(memory=3e4, batch_size=50, n_subsample=5), make_machine()
    ),
    "batch_size must be": lambda: td.AsyncEigenPro(batch_size=0),
    "step_factor must be": lambda: td.AsyncEigenPro(step_factor=-1.0),
    "in_flight must be a finite number >= 1": lambda: td.AsyncEigenPro(in_flight=0),
    "memory must be": lambda: td.SyncEigenPro(memory=0),
    "n_damped must be": lambda: td.SyncEigenPro(n_damped="all"),
    "n_clients must be": lambda: make_machine(n_clients=61),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    with pytest.raises(td.InvalidInputError, match=message):
        BAD[message]()


def test_orders_of_epochs_that_are_over_are_let_go():
    kept = [weakref.ref(epoch_order(3, epoch, 1000)) for epoch in range(6)]
    assert sum(order() is not None for order in kept) == 2
    assert epoch_order(3, 5, 1000) is kept[-1]()


@pytest.mark.parametrize("engine", [td.Threads, td.Processes])
def test_each_client_has_its_worker_which_alone_prepares_for_it(engine):
    result = td.run(td.AsyncEigenPro(batch_size=5), make_machine(200, n_clients=3), engine(3), stop=td.MaxUpdates(200))
    assert (result.trace["client"] == result.trace["worker"]).all()


def test_a_configured_rule_is_for_machines_of_its_size():
    rule = td.AsyncEigenPro().configure(make_machine(), 1, None)
    with pytest.raises(td.InvalidInputError, match="configured for 60 rows and 2 outputs, not for 50 and 2"):
        rule.configure(make_machine(50), 1, None)


def test_staleness_cannot_be_prescribed():
    with pytest.raises(td.InvalidInputError, match="blocks of another partition"):
        td.run(td.AsyncEigenPro(), make_machine(n_clients=2), td.Prescribed(2), stop=td.MaxUpdates(5))


@pytest.mark.parametrize("device", ["cpu", ("cpu", "cpu")], ids=["a device", "a device each"])
@pytest.mark.parametrize("engine", [td.Threads, td.Processes])
@needs_torch
def test_pytorch_computes_what_numpy_does(engine, device):
    rule = td.AsyncEigenPro(batch_size=5, n_subsample=12, n_damped=3)
    ours = make_machine(n_clients=2, device=device)
    result = td.run(rule, ours, engine(2), stop=td.MaxUpdates(40), seed=4)
    assert td.replay(result).identical
    by_numpy = td.run(rule, make_machine(n_clients=2), td.Replay(result.trace), stop=None, seed=4)
    np.testing.assert_allclose(result.x, by_numpy.x, rtol=0, atol=1e-11)


@needs_torch
def test_lock_free_workers_share_what_they_sent_to_a_device():
    problem = make_machine(n_clients=2, device="cpu")
    result = td.run(td.AsyncEigenPro(batch_size=5), problem, td.Threads(2, lock_free=True), stop=td.MaxUpdates(300))
    assert problem.measures(result.x)["residual"] < 0.05
    assert problem._gathered["cpu"].uploads <= 300 + 2 * 26, "each block is sent once"


def test_replicas_with_noise_of_their_own_draw_the_same_batches():
    result = virtual(td.AsyncEigenPro(batch_size=5), make_machine(n_clients=2), 20, replicas=2)
    assert result.x.shape == (2, 120)
    assert same_bits(result.x[0], result.x[1])


def test_the_preconditioner_of_all_rows_is_made_once(monkeypatch):
    made = []
    make = kernel_rule._preconditioner
    monkeypatch.setattr(kernel_rule, "_preconditioner", lambda *args: made.append(len(args[2])) or make(*args))
    virtual(td.AsyncEigenPro(batch_size=20), make_machine(), 12)
    assert made == [60, 60], "to choose sizes, and for all four epochs"
    made.clear()
    virtual(td.AsyncEigenPro(batch_size=20, n_subsample=30), make_machine(), 12)
    assert made == [30] * 5
