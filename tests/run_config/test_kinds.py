"""Every public class can be given in a run file, as the same object that Python makes."""

import inspect
import math
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tardigrad as td
from needs import needs_torch
from tardigrad.core.observers import Observer
from tardigrad.core.plain import Plain, same_bits
from tardigrad.core.stopping import Stop
from tardigrad.problems.kernel_functions import KernelFunction
from tardigrad.problems.partition import Partition
from tardigrad.problems.regularizers import Regularizer
from tardigrad.problems.sketches import Sketch
from tardigrad.run_config.builder import Builder
from tardigrad.run_config.kinds import Kinds
from tardigrad.run_config.place import Place
from tardigrad.run_config.signatures import parameters
from tardigrad.run_config.stops import STOPS, stop_of

X, Y = [[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]], [1.0, 0.0, 2.0]
DATA = "data = { X = [[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]], y = [1.0, 0.0, 2.0] }"
ROWS = "X = [[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]]\ny = [1.0, 0.0, 2.0]"
AB = "A = [[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]]\nb = [1.0, 0.0, 2.0]"
FUNCTIONS = "tardigrad.run_config.examples.functions"

#: by the name of the class: the keys of its table, and the object that it is to be
CASES = {
    "AcceleratedSketchProject": ("omega = 0.1\ngamma = [0.8, 1.3]", lambda: td.AcceleratedSketchProject(0.1, [0.8, 1.3])),
    "AsyncBC": (
        'step = "theory"\ncompression = { kind = "RandomK", k = 3 }',
        lambda: td.AsyncBC("theory", compression=td.RandomK(3)),
    ),
    "AsyncEigenPro": ("batch_size = 2", lambda: td.AsyncEigenPro(batch_size=2)),
    "AsyncSGD": ("step = [0.1, 0.2]\nmomentum = 0.5", lambda: td.AsyncSGD([0.1, 0.2], momentum=0.5)),
    "AveragedSketchProject": ("omega = 0.1\ntheta = 0.5", lambda: td.AveragedSketchProject(0.1, 0.5)),
    "DAGD": ('step = 0.1\nconstraint = { kind = "Simplex" }', lambda: td.DAGD(0.1, td.Simplex())),
    "DASGD": ('step = { kind = "LogStep", scale = 2.0 }\naverage = true', lambda: td.DASGD(td.LogStep(2.0), average=True)),
    "EigenPro": ("", td.EigenPro),
    "FedBuff": ("step = 0.5\nlocal_steps = 3\nlocal_step = 0.05\nbuffer = 2", lambda: td.FedBuff(0.5, 3, 0.05, 2)),
    "Hogwild": ("step = 0.1", lambda: td.Hogwild(0.1)),
    "IAG": ('step = 0.1\nnext_client = "uniform"', lambda: td.IAG(0.1, "uniform")),
    "ParallelSketchProject": ("omega = 0.1\ntau = 3", lambda: td.ParallelSketchProject(0.1, 3)),
    "ProjectedSGD": (
        'step = 1\nconstraint = { kind = "Box", low = 0, high = [1, 2] }',
        lambda: td.ProjectedSGD(1, td.Box(0, [1, 2])),
    ),
    "Rennala": ("step = 0.1\nbatch = 3", lambda: td.Rennala(0.1, 3)),
    "Ringmaster": ("step = 0.1\nmax_delay = 2\ncancel = true", lambda: td.Ringmaster(0.1, 2, cancel=True)),
    "RowAction": ("omega = 0.3\nrows = 2", lambda: td.RowAction(0.3, 2)),
    "SAGA": ("step = 0.1", lambda: td.SAGA(0.1)),
    "SARAH": ("step = 0.1\nsample = 2", lambda: td.SARAH(0.1, 2)),
    "SketchProject": ("omega = 0.5", lambda: td.SketchProject(0.5)),
    "SyncEigenPro": ("refresh = true", lambda: td.SyncEigenPro(refresh=True)),
    "SyncSGD": ("step = 0.1\nsample = 3", lambda: td.SyncSGD(0.1, 3)),
    "ClientQuadratics": ("curvatures = [1, 3]\ncentres = [[4], [0]]", lambda: td.ClientQuadratics([1, 3], [[4], [0]])),
    "DoubleWell": ("dim = 3\nnoise = 0", lambda: td.DoubleWell(3, 0)),
    "KernelInterpolation": (f'{ROWS}\nkernel = {{ kind = "Gaussian" }}', lambda: td.KernelInterpolation(X, Y, td.Gaussian())),
    "LeastSquares": (f"{DATA}\nbatch = 2", lambda: td.LeastSquares((X, Y), batch=2)),
    "LinearSystem": (
        f'{AB}\nsketch = {{ kind = "RowBlocks", size = 2 }}',
        lambda: td.LinearSystem(X, Y, sketch=td.RowBlocks(2)),
    ),
    "LogisticRegression": (
        f"{DATA.replace('2.0] }', '0.0] }')}\nregularizer = {{ kind = 'L2', rho = 0.1 }}",
        lambda: td.LogisticRegression((X, [1.0, 0.0, 0.0]), regularizer=td.L2(0.1)),
    ),
    "Quadratic": ("eigenvalues = [1, 4]\nminimiser = [0, 0.5]", lambda: td.Quadratic([1, 4], [0, 0.5])),
    "Ridges": ("", td.Ridges),
    "Rosenbrock": ("dim = 4\nn_clients = 3", lambda: td.Rosenbrock(4, n_clients=3)),
    "SigmoidRegression": (
        f'{DATA}\npartition = {{ kind = "Iid", n_clients = 3 }}\nminimiser = [1, 2]',
        lambda: td.SigmoidRegression((X, Y), td.Iid(3), minimiser=[1, 2]),
    ),
    "SoftmaxRegression": (f'{DATA}\nweights = "rows"', lambda: td.SoftmaxRegression((X, Y), weights="rows")),
    "UserGradient": (f'gradient = "{FUNCTIONS}:gradient"\ndim = 10', None),
    "TorchModel": (
        'module = "tardigrad.run_config.examples.torch_functions:network"\n'
        'loss = "tardigrad.run_config.examples.torch_functions:loss"\n'
        'client_data = { name = "digits" }\npartition = { kind = "Iid", n_clients = 2 }',
        None,
    ),
    "Prescribed": ('read = { kind = "UniformDelay", c = 0.5 }', lambda: td.Prescribed(td.UniformDelay(0.5))),
    "Processes": ('workers = 2\npoints = "live"', lambda: td.Processes(2, points="live")),
    "RayCluster": ("workers = 2", lambda: td.RayCluster(workers=2)),
    "Replay": ('trace = "run"', lambda: td.Replay(td.Trace.load("run"))),
    "Simulated": ('timing = { kind = "Constant" }', lambda: td.Simulated(td.Constant())),
    "Threads": ("workers = 2\nlock_free = true", lambda: td.Threads(2, lock_free=True)),
    "Constant": ("seconds = 2", lambda: td.Constant(2)),
    "Exponential": ("mean = [1, 2]", lambda: td.Exponential([1, 2])),
    "FromTrace": ('trace = "run"\nmeasure = "occupancy"', lambda: td.FromTrace(td.Trace.load("run"))),
    "Growing": ("clients = [0, 1]\nrate = 2", lambda: td.Growing(clients=[0, 1], rate=2)),
    "LogNormal": ("sigma = 2", lambda: td.LogNormal(sigma=2)),
    "OnOff": ('on = { kind = "Constant" }\noff = { kind = "Pareto" }', lambda: td.OnOff(td.Constant(), td.Pareto())),
    "OnOffTrace": ('rows = "rows.csv"', lambda: td.OnOffTrace([[0, 0, 5], [1, 2, 4]])),
    "Pareto": ("tail = 2", lambda: td.Pareto(tail=2)),
    "PerClient": ("seconds = [1, 8]", lambda: td.PerClient([1, 8])),
    "RandomStragglers": ("p = 0.1\ndelay = 5", lambda: td.RandomStragglers(0.1, 5)),
    "Dirichlet": ("n_clients = 3\nalpha = 0.3", lambda: td.Dirichlet(3, 0.3)),
    "Given": ("clients = [0, 1, 1]", lambda: td.Given([0, 1, 1])),
    "HsuDirichlet": ("n_clients = 3\nalpha = 0.3", lambda: td.HsuDirichlet(3, 0.3)),
    "Iid": ("n_clients = 3\nseed = 4", lambda: td.Iid(3, 4)),
    "Shards": ("n_clients = 3", lambda: td.Shards(3)),
    "Shared": ("n_clients = 3", lambda: td.Shared(3)),
    "AffineSubspace": ('A = "A.npy"\nb = [1.0]', lambda: td.AffineSubspace(np.ones((1, 2)), np.ones(1))),
    "Ball": ("radius = 2\ncenter = [1, 1]", lambda: td.Ball(2, [1, 1])),
    "Box": ("low = 0\nhigh = 1", lambda: td.Box(0, 1)),
    "L1Ball": ("radius = 2", lambda: td.L1Ball(2)),
    "NuclearNormBall": ("shape = [2, 3]\nradius = 1", lambda: td.NuclearNormBall((2, 3), 1)),
    "ProductSet": (
        'sets = [{ kind = "Simplex" }, { kind = "WholeSpace" }]\ndims = [3, 2]',
        lambda: td.ProductSet([td.Simplex(), td.WholeSpace()], [3, 2]),
    ),
    "Simplex": ("total = 2", lambda: td.Simplex(2)),
    "UserSet": (f'project = "{FUNCTIONS}:objective"', None),
    "WholeSpace": ("", td.WholeSpace),
    "Dispersal": ("gamma = 0.5", lambda: td.Dispersal(gamma=0.5)),
    "Gaussian": ("bandwidth = 2", lambda: td.Gaussian(2)),
    "Laplacian": ('bandwidth = "auto"', td.Laplacian),
    "Matern": ("nu = 2.5", lambda: td.Matern(nu=2.5)),
    "UserKernel": ('function = "numpy:cos"\nof = "inner products"', lambda: td.UserKernel(np.cos, "inner products")),
    "L2": ("rho = 0.1", lambda: td.L2(0.1)),
    "SmoothNonconvex": ("rho = 0.1", lambda: td.SmoothNonconvex(0.1)),
    "CountSketch": ("size = 3", lambda: td.CountSketch(3)),
    "GaussianSketch": ("size = 3", lambda: td.GaussianSketch(3)),
    "RowBlocks": ('size = 3\norder = "shuffled"', lambda: td.RowBlocks(3)),
    "Rows": ('order = "norms"', lambda: td.Rows("norms")),
    "ConstantDelay": ("d = 3", lambda: td.ConstantDelay(3)),
    "PowerDelay": ("q = 2", lambda: td.PowerDelay(2)),
    "UniformDelay": ("c = [0.25, 0.5]", lambda: td.UniformDelay([0.25, 0.5])),
    "PowerStep": ("scale = 0.1\npower = 0.5", lambda: td.PowerStep(0.1, 0.5)),
    "LogStep": ("scale = 0.1\noffset = 3", lambda: td.LogStep(0.1, 3)),
    "LogLogStep": ("scale = [0.1, 0.2]", lambda: td.LogLogStep([0.1, 0.2])),
    "Quantization": ("levels = 4", lambda: td.Quantization(4)),
    "RandomK": ("k = 3", lambda: td.RandomK(3)),
}
BASES = (
    *(td.Rule, td.Problem, td.Engine, td.Timing, Partition, td.ConvexSet, KernelFunction, Regularizer, Sketch, td.ReadSequence),
    *(td.StepSequence, td.Compressor),
)


def public(*bases):
    """Names of the public classes of these kinds that objects are made of."""
    values = {name: getattr(td, name) for name in td.__all__}
    return {n for n, v in values.items() if inspect.isclass(v) and issubclass(v, bases) and not inspect.isabstract(v)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the tables name."""
    td.run(td.AsyncSGD(0.1), td.Ridges(), td.Simulated(td.Constant()), stop=td.MaxUpdates(3)).save(tmp_path / "run")
    np.save(tmp_path / "A.npy", np.ones((1, 2)))
    (tmp_path / "rows.csv").write_text("client,on,off\n0,0,5\n1,2,4\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(text, folder, base=Plain):
    return Builder(folder, Kinds()).object(tomllib.loads(text), (base,), Place("run.toml", ("here",)))


def test_the_cases_are_all_public_classes():
    assert set(CASES) == public(*BASES)


@pytest.mark.parametrize("name", [pytest.param(n, marks=needs_torch if n == "TorchModel" else ()) for n in sorted(CASES)])
def test_every_public_class_can_be_given(name, folder):
    text, expected = CASES[name]
    base = next(base for base in BASES if issubclass(getattr(td, name), base))
    found = made(f'kind = "{name}"\n{text}', folder, base)
    assert type(found) is getattr(td, name)
    if expected is not None:
        assert same_bits(found, expected())


def test_no_public_plain_class_is_forgotten():
    """What is plain and no part of a run file is written by tardigrad, not by people, or has a section of its own."""
    others = {"Checkpoint", "Dataset", "InPlaceState", "SmoothnessConstants", "State", "Trace"}
    assert public(Plain) - public(*BASES) - public(Stop) == others


def test_the_keys_of_stop_are_the_public_conditions():
    assert {kind.__name__ for kind in STOPS.values()} == public(Stop) - {"Stop"}
    assert list(STOPS) == ["max_updates", "max_seconds", "max_oracle_calls", "tolerance"]


def test_stop_joins_its_keys(tmp_path):
    text = """
    max_updates = 5
    max_seconds = 2
    max_oracle_calls = 9
    tolerance = [{measure = "a", at_most = 1}, {measure = "b", at_least = 2, every = 3}]
    """
    found = stop_of(tomllib.loads(text), Builder(tmp_path, Kinds()), Place("run.toml", ("stop",)))
    both = td.Tolerance("a", at_most=1) | td.Tolerance("b", at_least=2, every=3)
    assert same_bits(found, td.MaxUpdates(5) | td.MaxSeconds(2) | td.MaxOracleCalls(9) | both)
    assert stop_of({"max_updates": 5}, Builder(tmp_path, Kinds()), Place("run.toml", ("stop",))) == td.MaxUpdates(5)


def test_class_methods_are_kinds_too(folder):
    found = made('kind = "ClientQuadratics.of_paper"\nzeta = 3.0\nn = 2', folder, td.Problem)
    assert same_bits(found, td.ClientQuadratics.of_paper(3.0, n=2))
    assert made('kind = "PerClient.linear"\nn_clients = 4\nslowest = 8.0', folder) == td.PerClient([2.0, 4.0, 6.0, 8.0])
    assert same_bits(made('kind = "OnOffTrace.from_csv"\npath = "rows.csv"', folder), td.OnOffTrace([[0, 0, 5], [1, 2, 4]]))


def test_observers_are_found_by_class(tmp_path):
    names = Kinds().names((Observer,))
    assert {"JSONLines", "Progress", "GrowthWatch", "History"} <= set(names)
    assert "Observer" not in names
    builder = Builder(tmp_path, Kinds())
    table = {"kind": "JSONLines", "path": "log.jsonl", "every": 5}
    found = builder.object(table, (Observer,), Place("run.toml", ("observers", 0)), folder=Path("/the/run"))
    assert (found.path, found.every, found.measures) == (Path("/the/run/log.jsonl"), 5, False)
    assert builder.paths == {}  # it is the run's, not the run file's


def test_own_classes_go_before_those_of_tardigrad(tmp_path, monkeypatch):
    import types

    class Constant(td.Timing):
        def __init__(self, mine=1):
            self.mine = mine

        def duration(self, client, start, u):
            return 1.0

    module = types.ModuleType("mine")
    module.Constant = Constant
    builder = Builder(tmp_path, Kinds([module]))
    found = builder.object({"kind": "Constant", "mine": 3}, (td.Timing,), Place("run.toml"))
    assert (type(found), found.mine) == (Constant, 3)


def test_what_a_text_stands_for_is_said_by_annotations(tmp_path):
    """Without one it is a text; with one that is not known at run time too."""

    class Mine(td.Timing):
        def __init__(self, plain, unknown: "Nobody", anything: Any, where: Path, rows: np.ndarray, call: Callable):  # noqa: F821
            self.given = (plain, unknown, anything, where, rows, call)

        def duration(self, client, start, u):
            return 1.0

    np.save(tmp_path / "a.npy", np.arange(3.0))
    table = dict.fromkeys(("plain", "unknown", "anything", "where", "rows"), "a.npy") | {"call": "math:sqrt"}
    builder = Builder(tmp_path, Kinds())
    found = builder.call(Mine, "Mine", table, Place("run.toml", ("timing",)), {}).given
    assert found[:2] == ("a.npy", "a.npy")
    assert found[2].tolist() == found[4].tolist() == [0.0, 1.0, 2.0]
    assert found[3] == tmp_path / "a.npy"
    assert found[5] is math.sqrt
    assert set(builder.paths) == {("timing", name) for name in ("anything", "where", "rows", "call")}


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_annotation_of_the_library_is_understood(name):
    assert not [taken.name for taken in parameters(getattr(td, name)).values() if taken.takes.unknown]


def test_nothing_heavy_is_imported_for_a_run_that_does_not_need_it(tmp_path):
    (tmp_path / "run.toml").write_text(
        '[problem]\nkind = "Ridges"\n[rule]\nkind = "AsyncSGD"\nstep = 0.1\n[engine]\nkind = "Simulated"\n'
        '[timing]\nkind = "Constant"\n[stop]\nmax_updates = 3\n'
    )
    code = (
        "import sys; from tardigrad.run_config.running import run_file; run_file('run.toml');"
        "print(sorted({name.partition('.')[0] for name in sys.modules}));"
        "from tardigrad.run_config.kinds import Kinds; Kinds().names(());"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    before, after = done.stdout.splitlines()
    for name in ("torch", "ray", "matplotlib", "mlflow"):
        assert f"'{name}'" not in before
        assert f"'{name}'" not in after
    assert "'sklearn'" not in before
