"""The federated example with PyTorch: it runs on processes, and what its table says is what was run."""

import gc
import importlib.util
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

import tardigrad as td
from needs import needs_ray, needs_torch

EXAMPLE = Path(__file__).parents[1] / "examples" / "torch_federated.py"

pytestmark = needs_torch


@pytest.fixture
def example(monkeypatch):
    """The example as a module, with short durations."""
    spec = importlib.util.spec_from_file_location("torch_federated", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "torch_federated", module)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "GRADIENT", 0.002)
    cloudpickle.register_pickle_by_value(module)  # workers cannot import it
    yield module
    cloudpickle.unregister_pickle_by_value(module)
    gc.collect()


@pytest.fixture
def on_digits(monkeypatch):
    monkeypatch.setattr(td.datasets, "available", lambda name: False)


def cells(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_the_script_runs_each_rule_on_processes_prints_a_table_and_draws(example, on_digits, tmp_path, capsys, monkeypatch):
    """All in one test and with three of the clients: starting workers that import PyTorch takes most of the time."""
    monkeypatch.setattr(example, "CLIENTS", 3)
    train, runs = example.train, []

    def briefly(method, problem, engine, seconds):
        assert (engine, seconds) == ("processes", 2.0)
        runs.append((method, problem, train(method, problem, engine, 1.0)))
        return runs[-1][-1]

    monkeypatch.setattr(example, "train", briefly)
    assert example.main(["--quick", "--out", str(tmp_path / "new")]) == 0
    out, err = capsys.readouterr()
    head, _, *rows = cells(out)
    assert [row[0] for row in rows] == [method.name for method, *_ in runs] == ["AsyncSGD", "FedBuff", "AsyncBC"]
    assert all(len(row) == len(head) for row in rows)
    for row in rows:
        assert int(row[1]) > 5
        assert int(row[2]) > int(row[1]) or row[0] == "AsyncSGD"
        assert 0 <= float(row[5]) <= 1
    assert "digits: clients have" in err
    picture = tmp_path / "new" / "torch-federated.png"
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for method, problem, run in runs:
        check_run(method, problem, run, example.CLIENTS)
    runs.clear()  # the memory that workers shared is open as long as one of them is there


def check_run(method, problem, run, n_clients):
    """A run is the rule's on processes, and replays; its accuracies are those of its iterates."""
    assert run.result.status is td.Status.MAX_SECONDS
    assert isinstance(run.result.engine, td.Processes)
    assert td.replay(run.result).identical
    assert run.accuracy[0] == problem.measures(problem.x0(), ["test_accuracy"])["test_accuracy"]
    assert run.accuracy[-1] == problem.measures(run.result.x, ["test_accuracy"])["test_accuracy"]
    assert (np.diff(run.seconds) >= 0).all()
    # a task takes as many durations as it computes gradients, but for AsyncBC's full gradients
    tasks = len(run.result.trace)
    assert run.result.oracle_calls <= method.gradients * (tasks + 2 * n_clients)


def test_clients_hold_some_classes_and_all_of_them_have_pictures(example):
    problem = example.make_problem("digits", 2000, 100)
    assert problem.n_clients == example.CLIENTS
    assert sum(problem.n_rows_of(i) for i in range(example.CLIENTS)) == 1438
    held = [np.bincount(problem.clients[i].labels(), minlength=10) for i in range(example.CLIENTS)]
    assert min((counts > 0.05 * counts.sum()).sum() for counts in held) <= 4


def test_slow_clients_are_slower_and_tasks_of_several_gradients_longer(example):
    one, two = (example.engine_of("processes", gradients).timing for gradients in (1, 2))
    means = [
        np.mean([timing.duration(client, 0.0, u) for u in (np.arange(2000) + 0.5) / 2000])
        for timing in (one, two)
        for client in (0, 7)
    ]
    np.testing.assert_allclose(means, 0.002 * np.array([1, 4, 2, 8]), rtol=0.01)
    assert isinstance(example.engine_of("ray", 1), td.RayCluster)


@needs_ray
@pytest.mark.ray
def test_the_same_script_runs_on_ray(example):
    problem = example.make_problem("digits", 600, 100)
    run = example.train(example.methods()[0], problem, "ray", 1.0)
    assert run.result.trace.updates > 5
    assert td.replay(run.result).identical


def test_bad_options_are_refused(example, capsys):
    with pytest.raises(SystemExit):
        example.main(["--seconds", "0"])
    assert "at least 0.5" in capsys.readouterr().err
