"""Files to start from: they keep the contracts, run as they are, and CONTRIBUTING.md links them."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tardigrad as td
from conftest import make_problem

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "examples" / "templates"
NAMES = ["rule", "engine", "problem"]


def template(name):
    """A template as a module."""
    spec = importlib.util.spec_from_file_location(f"template_{name}", TEMPLATES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("batch", [None, 3])
def test_the_rule_keeps_its_contract(batch):
    rule = template("rule").ClippedSGD
    td.testing.check_rule(rule(0.05), make_problem(batch=batch))
    td.testing.check_rule(rule(0.05, radius=0.1), make_problem(batch=batch), concurrency=2)


def test_the_rule_is_gradient_descent_where_nothing_is_clipped():
    problem, engine = make_problem(), td.Simulated(td.PerClient([1.0, 1.0, 2.0, 7.5]))
    rules = template("rule").ClippedSGD(0.05, radius=np.inf), td.AsyncSGD(0.05)
    xs = [td.run(rule, problem, engine, stop=td.MaxUpdates(100)).x for rule in rules]
    assert xs[0].tobytes() == xs[1].tobytes()


def test_the_rule_makes_no_step_longer_than_its_radius():
    problem = make_problem()
    run = td.run(
        template("rule").ClippedSGD(0.5, radius=0.01), problem, td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(50),
        snapshot_every=1, replicas=3,
    )  # fmt: skip
    steps = np.linalg.norm(np.diff(run.history.x, axis=0), axis=-1)
    assert steps.shape == (50, 3)
    assert steps.max() <= 0.005 * (1 + 1e-9)
    assert steps.max() > 0.004


@pytest.mark.parametrize("workers", [1, 3])
def test_the_engine_keeps_its_contract(workers):
    td.testing.check_engine(lambda: template("engine").Pool(workers))


@pytest.mark.parametrize(
    "rule",
    [td.AsyncBC(0.05), td.Ringmaster(0.1, max_delay=1, cancel=True), td.SyncSGD(0.1, sample=2), td.FedBuff(0.1, buffer=3)],
)
def test_the_engine_runs_rules_that_ask_for_more(rule):
    result = td.run(rule, make_problem(), template("engine").Pool(2), stop=td.MaxUpdates(60), snapshot_every=7)
    assert result.status is td.Status.MAX_UPDATES
    assert td.replay(result).identical


def test_the_engine_ends_at_its_time(small_problem):
    result = td.run(td.AsyncSGD(0.05), small_problem, template("engine").Pool(2), stop=td.MaxSeconds(0.2))
    assert result.status is td.Status.MAX_SECONDS


def test_the_problem_keeps_its_contract():
    for seed in range(5):
        td.testing.check_problem(template("problem").make_problem(seed=seed), seed=seed)
    td.testing.check_problem(template("problem").make_problem(n_clients=1, n_rows=2, dim=1))


def test_the_problem_saves_with_a_run_and_replays(tmp_path):
    problem = template("problem").make_problem()
    result = td.run(td.AsyncSGD(0.1), problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(500), replicas=2)
    result.save(tmp_path)
    back = td.Result.load(tmp_path)
    assert back.problem.fingerprint() == problem.fingerprint()
    assert td.replay(back).identical
    assert (problem.measures(result.x)["loss"] < problem.measures(problem.x0())["loss"]).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_template_runs_as_it_is(name):
    done = subprocess.run([sys.executable, TEMPLATES / f"{name}.py"], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "replayed in every bit: True" in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_template_is_short_says_where_to_change_and_is_linked(name):
    text = (TEMPLATES / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 130
    assert text.count("# CHANGE: ") >= 3
    assert f"(examples/templates/{name}.py)" in (ROOT / "CONTRIBUTING.md").read_text()
