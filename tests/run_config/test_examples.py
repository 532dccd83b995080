"""The printed examples: there is one for each kind of problem, and each runs as it is printed."""

import tomllib

import pytest

import tardigrad as td
from needs import needs_torch
from tardigrad.run_config.examples import as_table, names, text_of
from tardigrad.run_config.running import problem_of, run_file

EXAMPLES = [pytest.param(name, marks=needs_torch if name == "torch" else ()) for name in names()]

#: by name: what the answer is to be
REACHED = {
    "softmax": lambda m: m["test_accuracy"] > 0.93,
    "linear-system": lambda m: m["residual"] <= 1e-8,
    "constrained": lambda m: m["objective"] < 0.1,
    "kernel": lambda m: m["loss"] < 0.05,
    "silos": lambda m: m["accuracy"] > 0.95 and m["gradient_norm"] < 1e-3,
    "quadratics": lambda m: m["distance"] <= 1e-6,
    "torch": lambda m: m["test_accuracy"] > 0.85,
    "own-gradient": lambda m: abs(m["objective"] - 0.1344) < 1e-3,
    "volunteer-grid": lambda m: m["objective"] < 1e-3,
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_as_it_is_printed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text(text_of(name))
    ran = run_file("my.toml")
    assert ran.exit_code == 0
    assert ran.result.status in (td.Status.MAX_UPDATES, td.Status.CONVERGED)
    assert REACHED[name](ran.measures), ran.measures
    problem = (
        problem_of(ran.folder / "config.toml") if ran.result.problem is None or name in ("torch", "own-gradient") else None
    )
    assert td.replay(str(ran.folder), problem).identical
    again = run_file(ran.folder / "config.toml")
    assert again.compared.identical is True


def test_every_kind_of_problem_has_one():
    kinds = {tomllib.loads(text_of(name))["problem"]["kind"].partition(".")[0] for name in names()}
    assert kinds >= {
        "SoftmaxRegression",
        "LinearSystem",
        "KernelInterpolation",
        "ClientQuadratics",
        "TorchModel",
        "UserGradient",
    }
    assert set(REACHED) == set(names())


@pytest.mark.parametrize("name", names())
def test_an_example_is_commented_and_fits_a_screen(name):
    lines = text_of(name).splitlines()
    assert lines[0].startswith("# ")
    assert lines[0].endswith(".")
    assert max(map(len, lines)) <= 128
    assert sum("#" in line for line in lines) >= 5
    assert f"{name:<16}{lines[0][2:]}" in as_table()
