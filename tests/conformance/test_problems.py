"""Every problem of the library keeps its contract."""

import importlib
import inspect
import pkgutil

import catalogue
import numpy as np
import pytest

import tardigrad as td
import tardigrad.problems
from conftest import make_problem
from needs import needs_torch
from tardigrad.testing import check_problem

rng = np.random.default_rng(2)
X, CLASSES, TARGETS = rng.normal(size=(48, 5)), rng.integers(0, 3, 48), rng.normal(size=48)
SIGNS = np.where(CLASSES > 0, 1, -1)


def torch_model(**given):
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    return td.TorchModel(module, torch.nn.CrossEntropyLoss(), (X, CLASSES), td.Iid(4), **given)


#: each problem, and the measure that its gradients are those of, where that is not called "loss"
PROBLEMS = {
    "least squares": (make_problem, "loss"),
    "least squares, exact, weighted": (lambda: make_problem(batch=None, weights="rows"), "loss"),
    "least squares, shared": (lambda: td.LeastSquares((X, TARGETS), td.Shared(3), batch=4), "loss"),
    "least squares, small parts": (lambda: td.LeastSquares((X, TARGETS), td.Iid(40), batch=3), "loss"),
    "least squares, L2, float32": (
        lambda: td.LeastSquares((X.astype("f4"), TARGETS), td.Iid(3), batch=4, regularizer=td.L2(0.1)),
        "loss",
    ),
    "logistic": (lambda: td.LogisticRegression((X, SIGNS), td.Iid(4), batch=2), "loss"),
    "logistic, not convex": (
        lambda: td.LogisticRegression((X, SIGNS), td.Iid(4), regularizer=td.SmoothNonconvex(0.1), weights="rows"),
        "loss",
    ),
    "softmax": (lambda: td.SoftmaxRegression((X, CLASSES), td.Shards(4), batch=2), "loss"),
    "softmax, float32": (lambda: td.SoftmaxRegression((X.astype("f4"), CLASSES), td.Iid(4), batch=5), "loss"),
    "linear system": (catalogue.make_system, None),
    "linear system, sparse": (catalogue.make_sparse_system, None),
    "linear system, blocks": (
        lambda: td.LinearSystem(X, X @ np.ones(5), sketch=td.RowBlocks(6), n_clients=2),
        None,
    ),
    "kernel machine": (catalogue.make_machine, None),
    "kernel machine, batch": (lambda: td.KernelInterpolation(X, TARGETS, td.Gaussian(2.0), 2, batch=9), None),
    "Rosenbrock": (lambda: td.Rosenbrock(7, n_clients=3), "objective"),
    "Quadratic": (lambda: td.Quadratic([0.5, 1.0, 8.0]), "objective"),
    "Ridges": (td.Ridges, "objective"),
    "DoubleWell": (td.DoubleWell, "objective"),
    "SigmoidRegression": (lambda: td.SigmoidRegression((X, CLASSES > 0), td.Iid(3), batch=4), "loss"),
    "client quadratics": (lambda: td.ClientQuadratics.of_paper(1.0), "loss"),
    "a user's gradient": (lambda: td.UserGradient(lambda x, rng: x - rng.normal(size=2), 2, 2), None),
}
TORCH = {
    "torch": lambda: torch_model(batch=4, test=(X, CLASSES)),
    "torch, exact, float64": lambda: torch_model(dtype="float64", weights="rows"),
    "torch, bfloat16": lambda: torch_model(batch=60, payload="bfloat16"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_problem_keeps_its_contract(name):
    make, objective = PROBLEMS[name]
    check_problem(make(), objective=objective)


@needs_torch
@pytest.mark.parametrize("name", TORCH)
def test_problem_of_torch_keeps_its_contract(name):
    check_problem(TORCH[name]())


def test_every_class_of_problems_is_checked():
    classes = set()
    for found in pkgutil.iter_modules(tardigrad.problems.__path__):
        if found.name == "conftest":
            continue
        module = importlib.import_module(f"tardigrad.problems.{found.name}")
        members = vars(module).values()
        classes |= {each for each in members if isinstance(each, type) and issubclass(each, td.Problem)}
    concrete = {each.__name__ for each in classes if not inspect.isabstract(each)}
    assert concrete - {type(make()).__name__ for make, _ in PROBLEMS.values()} == {"TorchModel"}
