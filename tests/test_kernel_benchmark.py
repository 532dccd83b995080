"""The benchmark of kernel machines measures what it says, on small data; how fast anything is, no test says."""

import dataclasses
import json

import numpy as np
import pytest

import tardigrad as td
from needs import needs_torch
from tardigrad.benchmarks import harness, kernel
from tardigrad.benchmarks.kernel import delayed, fashion, jobs, low_dimension, peers, products
from tardigrad.core.worker import single_threaded_blas
from tardigrad.papers.async_eigenpro_runs import Course, classes, train
from tardigrad.problems.kernel_blocks import KernelBlocks


@pytest.fixture(scope="module", autouse=True)
def one_thread_of_blas():
    """Small matrices: many threads would only wait for each other."""
    with single_threaded_blas():
        yield


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
    return classes(X[:500], y[:500], td.Laplacian(10.0), X[500:], y[500:])


def by_name(rows):
    found = {}
    for row in rows:
        json.dumps(dataclasses.asdict(row))
        found.setdefault(row.name, []).append(row)
    return found


def test_on_few_cores_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(kernel, "cores", lambda: 2)
    report = harness.run_benchmark("kernel")
    (row,) = report.to_json()["rows"]
    assert row["value"] is row["control_value"] is row["ratio"] is None
    assert row["control"] == "not measured: 2 cores, 4 are needed"


def test_all_parts_are_run_in_turn(monkeypatch):
    parts = (fashion, low_dimension, delayed, peers)
    for part in parts:
        row = harness.Row(part.__name__.rpartition(".")[2], 1.0, "s", "c", 2.0)
        monkeypatch.setattr(part, "rows", lambda row=row: iter([row]))
    monkeypatch.setattr(kernel, "cores", lambda: 4)
    assert [row.name for row in kernel.rows()] == ["fashion", "low_dimension", "delayed", "peers"]


@needs_torch
def test_accuracy_time_and_speed_up(case):
    found = by_name(fashion.rows(2, case, 0.05, 100))
    epoch, others = found["an epoch on 4 workers, 500 rows"], found["K a in an epoch"]
    assert [row.control_value == 52.0 for row in epoch] == [True, False]
    assert "in PyTorch" in epoch[1].control
    for row in others:
        assert row.value == pytest.approx(2e-9 * 500**2 * (4 + 3) / epoch[0].value)
        assert row.control_value > 0
    for k in (1, 2):
        after = f"after epoch {k}, 4 workers, asynchronous"
        (accuracy,), (less,) = found[f"test accuracy {after}"], found[f"test accuracy {after}: one worker's less it"]
        assert less.value == accuracy.control_value - accuracy.value
        assert 40 < accuracy.value <= 100
        (residual,) = found[f"relative training residual {after}"]
        assert 0 < residual.value < 100
    (speed_up,) = (row for name, (row, *_) in found.items() if name.startswith("speed-up"))
    (seconds,) = (row for name, (row, *_) in found.items() if name.startswith("seconds to a training loss"))
    assert speed_up.value == pytest.approx(seconds.control_value / seconds.value)
    assert speed_up.control_value == 4.0


def test_the_speed_up_is_to_the_larger_of_the_last_losses():
    def course(workers, seconds, loss):
        return Course("asynchronous", workers, 1, 1, 1, 0.0, seconds, [], [], 1.0, loss, [])

    four, one = course(4, [1.0, 1.0], [1e-1, 1e-3]), course(1, [3.0, 3.0], [1e-1, 1e-4])
    seconds, ratio = fashion.speed_up([four, one])
    assert (seconds.value, seconds.control_value) == (pytest.approx(2.0), pytest.approx(5.0))
    assert ratio.value == pytest.approx(2.5)
    assert ratio.name == "speed-up of 4 workers to a training loss of 0.001"


def test_without_pytorch_that_is_said(case, monkeypatch):
    monkeypatch.setattr(fashion, "find_spec", lambda name: None)
    row = fashion.plain_torch("an epoch", 1.0, case, None)
    assert row.control_value is row.ratio is None
    assert "not measured, PyTorch is not installed" in row.control


@needs_torch
def test_the_loop_in_pytorch_is_the_method(case):
    """An epoch of it is as good as one of the rule with the same sizes."""
    from tardigrad.benchmarks.kernel.torch_loop import laplacian, torch_epoch

    torch = pytest.importorskip("torch")
    X = torch.from_numpy(case.X)
    block = laplacian(X[:5], X, (X * X).sum(dim=1), 10.0).numpy()
    np.testing.assert_allclose(block, case.kernel(case.X[:5], case.X), atol=2e-4)
    one = train("one worker", case, 1, 1)
    threads = torch.get_num_threads()
    seconds, accuracy = torch_epoch(case, one.batch_size, one.n_subsample, one.n_damped)
    assert seconds > 0
    assert accuracy == pytest.approx(one.accuracy[0], abs=0.05)
    assert accuracy > 0.7
    assert torch.get_num_threads() == threads


def test_products_are_measured_in_tiles_and_large():
    assert products.tiles(8, 2, 0.02) > 0
    assert products.large(64, 2) > 0


def test_work_of_threads_is_added_up():
    calls = [0, 0]

    def job(k):
        def once():
            calls[k] += 1
            return 1.0

        return once

    rate = products.together([job(0), job(1)], 0.05)
    assert rate == pytest.approx((sum(calls) - 2) / 0.05, rel=0.5)


def test_low_dimension_has_rates_and_errors():
    found = list(low_dimension.rows(3000, 5, batch=16, rounds=1, seconds=0.02))
    assert [row.unit for row in found] == ["billion entries/s"] * 2 + ["ulp"] * 2
    assert all(row.value > 0 and row.control_value > 0 for row in found)
    assert found[-1].control_value == 4.0


def test_the_chain_is_the_kernel():
    rng = np.random.default_rng(0)
    X, Z = rng.normal(size=(5000, 3)).astype(np.float32), rng.normal(size=(300, 3)).astype(np.float32)
    alpha = rng.normal(size=(5000, 2)).astype(np.float32)
    kernel_function = td.Laplacian(1.5)
    found = low_dimension.chain(Z, X, (X * X).sum(axis=1), alpha, kernel_function)
    expected = kernel_function(Z.astype(np.float64), X.astype(np.float64)) @ alpha
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    low_dimension.check_same(found, expected)
    with pytest.raises(AssertionError, match="kernel blocks give"):
        low_dimension.check_same(found, 1.1 * expected)


def test_errors_are_in_units_in_the_last_place(monkeypatch):
    ours, numpy = low_dimension.errors()
    assert 0.3 < numpy < 4
    assert 0.3 < ours < 4
    exact = KernelBlocks.block
    monkeypatch.setattr(KernelBlocks, "block", lambda self, Z: exact(self, Z) * np.float32(1 + 10 * 2.0**-23))
    worse, _ = low_dimension.errors()
    assert 17 < worse < 23  # of a mantissa next to 2, 10 parts of 2^-23 are 20 units


def test_delays_stand_beside_what_was_drawn(case):
    found = list(delayed.rows(n_epochs=1, batch_size=20, n_subsample=50, case=case))
    assert len(found) == 4 + 2 * 3
    assert found[0].control == "synchronous"
    growth = [row for row in found if row.unit == "times"]
    assert all(row.control_value > 1 for row in growth)
    assert growth[1].control_value > growth[0].control_value  # a round is late where one of four is


@pytest.fixture(scope="module")
def files(tmp_path_factory, case):
    folder = tmp_path_factory.mktemp("data")
    for name, values in {"X": case.X, "Y": case.Y, "test_X": case.test_rows, "test_y": case.test_labels}.items():
        np.save(folder / f"{name}.npy", values)
    return folder


def test_jobs_are_the_methods_they_are_named_after(case, files):
    targets = case.Y.astype(np.float64)
    K, test = (case.kernel(Z.astype(np.float64), case.X.astype(np.float64)) for Z in (case.X, case.test_rows))

    def accuracy(values):
        return np.mean(values.argmax(axis=1) == case.test_labels)

    coefficients = np.linalg.solve(K + 1e-6 * np.eye(len(K)), targets)
    assert jobs.exact(files, 1000)["accuracy"] == pytest.approx(accuracy(test @ coefficients), abs=0.03)
    few = np.sort(np.random.default_rng(0).permutation(500)[:50])
    mean = targets.mean(axis=0)  # Ridge has an intercept
    small, centred = K[np.ix_(few, few)], K[:, few] - K[:, few].mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred + 1e-6 * small, centred.T @ (targets - mean))
    expected = accuracy((test[:, few] - K[:, few].mean(axis=0)) @ weights + mean)
    assert jobs.nystroem(files, 50)["accuracy"] == pytest.approx(expected, abs=0.03)
    ours = jobs.asynchronous(files, 2)
    assert ours["accuracy"] > 0.7
    assert ours["given"] == pytest.approx((500 * 4 + 2 * 500 * 3) * 4 / 1e6)


def test_a_part_of_an_epoch_is_as_many_batches(files, monkeypatch):
    asked = []
    monkeypatch.setattr(jobs, "MaxUpdates", lambda n: asked.append(n) or td.MaxUpdates(n))
    found = jobs.asynchronous(files, 0.5)
    assert asked == [max(1, -(-500 // found["batch"]) // 2)]


def test_the_peak_is_that_of_the_process():
    before = jobs.peak()
    held = np.ones(int(5e7) // 8)
    assert jobs.peak() >= before
    assert jobs.peak() > held.nbytes / 1e6


def test_memory_is_what_is_beside_the_data():
    found = {"peak": 500.0, "given": 200.0, "before": 60.0, "subsample": 5, "batch": 6, "seconds": 1.0}
    first, second, third = peers.memory("n rows", found)
    assert (first.value, first.control_value) == (300.0, 1000.0)
    assert (second.value, second.control_value) == (60.0, 300.0)
    assert (third.value, third.control_value) == (1.0, None)
    assert "subsamples of 5, batches of 6" in first.name


def test_peers_in_processes_of_their_own(case):
    found = list(peers.rows(case, 2, 400, 50, (400, 5), 0.5))
    names = [row.name for row in found if row.value is None]
    assert names == ["AsyncEigenPro beside EigenPro-pytorch", "AsyncEigenPro beside Falkon"]
    measured = [row for row in found if row.value is not None]
    assert all(row.value > 0 for row in measured)
    assert [row.unit for row in measured] == ["MB", "MB", "s"] + ["%", "s", "MB"] * 2 + ["MB", "MB", "s"]
    assert "400 random rows x 5, 0.5 of an epoch" in measured[-1].name


def test_a_job_that_fails_says_why(tmp_path):
    with pytest.raises(td.TardigradError, match=r"(?s)the benchmark's job 'nothing' failed:\n.*KeyError: 'nothing'"):
        peers.job("nothing", tmp_path, 10)
