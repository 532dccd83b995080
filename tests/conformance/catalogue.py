"""Every rule with settings that exercise its options, and every engine; the suite crosses them."""

import numpy as np
import pytest
import scipy.sparse as sp
from block_rule import BlockDescent
from odd_rule import OddRule

import tardigrad as td
from clients import make_weighted
from conftest import make_problem
from needs import needs_ray
from tardigrad.testing import AnyOrder


def make_system():
    """A consistent system whose data four clients share."""
    rng = np.random.default_rng(4)
    A = rng.normal(size=(20, 5))
    return td.LinearSystem(A, A @ rng.normal(size=5), rng.uniform(0.5, 2.0, 5), sketch=td.Rows("norms"), n_clients=4)


def make_sparse_system():
    """A consistent system with few entries a row, and a row without any."""
    rng = np.random.default_rng(5)
    A = rng.normal(size=(20, 5)) * (rng.random((20, 5)) < 0.5)
    A[7] = 0
    return td.LinearSystem(sp.csr_array(A), A @ rng.normal(size=5), n_clients=4)


def make_machine(n_clients=4):
    """Points and two targets for a kernel machine."""
    rng = np.random.default_rng(6)
    X = rng.normal(size=(24, 3))
    return td.KernelInterpolation(X, X[:, :2], td.Laplacian(2.0), n_clients, dtype="float64")


RULES = {
    "SyncSGD": lambda: td.SyncSGD(0.1),
    "SyncSGD, sample, momentum": lambda: td.SyncSGD(0.1, sample=3, momentum=0.5),
    "SyncSGD, sweep": lambda: td.SyncSGD(np.array([0.05, 0.1])),
    "AsyncSGD": lambda: td.AsyncSGD(0.1),
    "AsyncSGD, uniform, decreasing": lambda: td.AsyncSGD(td.PowerStep(0.2, 0.5), next_client="uniform"),
    "AsyncSGD, shuffled, momentum": lambda: td.AsyncSGD(0.05, next_client="shuffled", momentum=0.5),
    "AsyncSGD, delay-adaptive sweep": lambda: td.AsyncSGD([0.05, 0.1], delay_adaptive=True),
    "DASGD": lambda: td.DASGD(td.LogStep(2.0, 5.0)),
    "DASGD, ball, average": lambda: td.DASGD(td.LogStep(2.0, 5.0), td.Ball(0.5), average=True),
    "DASGD, box, uniform, sweep": lambda: td.DASGD(
        td.LogLogStep([1.0, 2.0], 5.0), td.Box(-0.1, 0.2), average=True, next_client="uniform"
    ),
    "DAGD, box": lambda: td.DAGD(0.1, td.Box(-0.1, 0.2)),
    "ProjectedSGD, ball": lambda: td.ProjectedSGD([0.05, 0.1], td.Ball(0.5), average=True),
    "IAG": lambda: td.IAG(0.05),
    "IAG, uniform, sweep": lambda: td.IAG([0.02, 0.05], next_client="uniform"),
    "SAGA": lambda: td.SAGA(0.05),
    "SAGA, answered, decreasing": lambda: td.SAGA(td.PowerStep(0.1, 0.5), next_client="answered"),
    "SAGA, shuffled, sweep": lambda: td.SAGA([0.02, 0.05], next_client="shuffled"),
    "FedBuff": lambda: td.FedBuff(0.1),
    "FedBuff, local steps, buffer, answered": lambda: td.FedBuff(
        0.5, local_steps=3, local_step=0.05, buffer=3, next_client="answered"
    ),
    "FedBuff, buffer, sweep": lambda: td.FedBuff([[0.5], [1.0]], local_steps=2, local_step=[0.02, 0.05], buffer=2),
    "Rennala": lambda: td.Rennala(0.2, batch=1),
    "Rennala, batch, uniform, sweep": lambda: td.Rennala([0.1, 0.2], batch=3, next_client="uniform"),
    "Ringmaster": lambda: td.Ringmaster(0.1),
    "Ringmaster, limit, sweep": lambda: td.Ringmaster([0.05, 0.1], max_delay=2),
    "Ringmaster, cancel": lambda: td.Ringmaster(td.PowerStep(0.2, 0.5), max_delay=3, cancel=True),
    "Ringmaster, cancel, uniform": lambda: td.Ringmaster(0.1, max_delay=1, cancel=True, next_client="uniform"),
    "SARAH": lambda: td.SARAH(0.05),
    "SARAH, sample, restarts, decreasing": lambda: td.SARAH(td.PowerStep(0.1, 0.5), sample=3, restart_every=4),
    "SARAH, sweep": lambda: td.SARAH([0.02, 0.05], sample=2, restart_every=10),
    "AsyncBC": lambda: td.AsyncBC(0.05),
    "AsyncBC, restarts": lambda: td.AsyncBC(0.05, restart_every=3),
    "AsyncBC, restarts, sweep": lambda: td.AsyncBC([0.02, 0.05], restart_every=4),
    "AsyncBC, compressed": lambda: td.AsyncBC(0.02, compression=td.RandomK(3)),
    "SketchProject": lambda: td.SketchProject(0.1),
    "SketchProject, sweep": lambda: td.SketchProject([0.05, 0.1]),
    "ParallelSketchProject": lambda: td.ParallelSketchProject(0.1, tau=3),
    "ParallelSketchProject, sweep, more steps than clients": lambda: td.ParallelSketchProject([0.05, 0.1], tau=6),
    "AcceleratedSketchProject": lambda: td.AcceleratedSketchProject(0.1, gamma=1.3),
    "AcceleratedSketchProject, sweep": lambda: td.AcceleratedSketchProject(0.1, gamma=[0.8, 1.0, 1.3]),
    "AveragedSketchProject": lambda: td.AveragedSketchProject(0.1, theta=0.5),
    "AveragedSketchProject, theta 1": lambda: td.AveragedSketchProject(0.1, theta=1.0),
    "AveragedSketchProject, sweep": lambda: td.AveragedSketchProject([[0.05], [0.1]], theta=[0.4, 1.0], concurrency=6),
    "Hogwild": lambda: td.Hogwild(0.1),
    "Hogwild, sweep": lambda: td.Hogwild([0.05, 0.1]),
    "blocks, in place": BlockDescent,
    "a rule of a user": OddRule,
}

ENGINES = {
    "Simulated": lambda: td.Simulated(td.PerClient([1.0, 1.0, 2.0, 7.5])),
    "Simulated, random": lambda: td.Simulated(td.RandomStragglers(0.2, 5.0, td.Exponential(1.0))),
    "Simulated, 2 workers": lambda: td.Simulated(td.Pareto(1.0), workers=2),
    "Threads": lambda: td.Threads(2),
    "Processes": lambda: td.Processes(2),
    "RayCluster": lambda: td.RayCluster(workers=2),
    "Prescribed": lambda: td.Prescribed(3),
    "Prescribed, random": lambda: td.Prescribed(td.UniformDelay(0.5)),
    "Prescribed, by a function": lambda: td.Prescribed(lambda n, rng: rng.integers(n // 2, n + 1), horizon=500),
    "AnyOrder": lambda: AnyOrder(seed=1),
}

#: the names of engines, for tests to be run with each
ENGINE_NAMES = [
    pytest.param(name, marks=(needs_ray, pytest.mark.ray)) if name == "RayCluster" else pytest.param(name) for name in ENGINES
]

PROBLEMS = {
    "noisy": make_problem,
    "exact, weighted": lambda: make_weighted(batch=None),
    "linear system": make_system,
}

#: rules for systems of equations alone, each with the system that it is run on
ROW_RULES = {
    "RowAction": (lambda: td.RowAction(0.3), make_system),
    "RowAction, sparse": (lambda: td.RowAction(0.3), make_sparse_system),
    "RowAction, several rows": (lambda: td.RowAction(0.3, rows=3), make_system),
    "RowAction, several sparse rows": (lambda: td.RowAction(0.3, rows=2), make_sparse_system),
    "RowAction, sweep": (lambda: td.RowAction([0.1, 0.3]), make_system),
}

#: rules for kernel machines alone
KERNEL_RULES = {
    "EigenPro": (td.EigenPro, lambda: make_machine(1)),
    "SyncEigenPro": (lambda: td.SyncEigenPro(batch_size=2), make_machine),
    "SyncEigenPro, refresh, sweep": (lambda: td.SyncEigenPro(batch_size=2, refresh=True, step_factor=[0.5, 1.0]), make_machine),
    "AsyncEigenPro": (lambda: td.AsyncEigenPro(batch_size=2), make_machine),
    "AsyncEigenPro, short epochs": (td.AsyncEigenPro, make_machine),
    "AsyncEigenPro, sweep": (lambda: td.AsyncEigenPro(batch_size=2, n_damped=2, step_factor=[0.5, 1.0]), make_machine),
}
OWN_PROBLEM = {**ROW_RULES, **KERNEL_RULES}

#: the names of all rules, and of what they are run on
ALL_RULES = [*RULES, *(name for name in OWN_PROBLEM if name != "EigenPro")]  # that one is for one client, engines have four
CASES = [*((rule, problem) for rule in RULES for problem in PROBLEMS), *((rule, "its own") for rule in OWN_PROBLEM)]

#: rules that are run on Ray, whose actors take most of a second to start: every class once, and all that is sent in other
#: shapes or taken back (sweeps, tuples, cancelled tasks)
_SENT_OTHERWISE = {"AsyncSGD, delay-adaptive sweep", "AsyncBC, compressed", "RowAction, sparse", "Ringmaster, cancel"}
_FIRST = {name.split(",")[0]: name for name in reversed(ALL_RULES)}
ON_RAY = _SENT_OTHERWISE | set(_FIRST.values())

#: every rule on every engine
RULES_AND_ENGINES = [
    pytest.param(rule, *engine.values, marks=engine.marks)
    for rule in ALL_RULES
    for engine in ENGINE_NAMES
    if engine.values != ("RayCluster",) or rule in ON_RAY
]


def rule_and_problem(rule, problem="noisy"):
    """The two by their names."""
    make_rule, make_problem = OWN_PROBLEM[rule] if rule in OWN_PROBLEM else (RULES[rule], PROBLEMS[problem])
    return make_rule(), make_problem()
