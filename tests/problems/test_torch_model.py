"""PyTorch modules as problems: against the library's own models and autograd written out; pure, and the same everywhere."""

import copy
import pickle
import sys
import threading
import warnings

import cloudpickle
import numpy as np
import pytest

import tardigrad as td
from needs import needs_torch
from tardigrad.core.errors import DataError, InvalidInputError, RunFileError, WorkerError
from tardigrad.core.plain import same_bits
from tardigrad.core.streams import Domain, Stream
from tardigrad.problems import torch_module, torch_oracles

N_CLIENTS, N_FEATURES, N_CLASSES = 4, 6, 3


def rows(seed=0, n_rows=60):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, N_FEATURES))
    return X, rng.permutation(np.arange(n_rows) % N_CLASSES)


def network(kind=None):
    """A small convolutional network on six pixels; `kind` is a layer to have in it."""
    import torch
    from torch import nn

    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = [nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3, padding=1), nn.ReLU()]
        layers += [] if kind is None else [kind]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, N_CLASSES))


def model(module=None, partition=None, **kwargs):
    import torch

    data = kwargs.pop("data", rows())
    loss = kwargs.pop("loss", None) or torch.nn.CrossEntropyLoss()
    partition = td.Iid(N_CLIENTS) if partition is None else partition
    return td.TorchModel(network() if module is None else module, loss, data, partition, **{"batch": 5, **kwargs})


def some_point(problem, *lead, seed=7):
    return (problem.x0() + 0.3 * np.random.default_rng(seed).normal(size=(*lead, problem.dim))).astype(problem.dtype)


def some_sample(problem, client=1, task=4, replicas=None):
    return problem.sample(client, Stream(0, Domain.TASK, replicas).at(task))


def linear(n_outputs):
    import torch

    module = torch.nn.Linear(N_FEATURES, n_outputs, bias=False)
    torch.nn.init.zeros_(module.weight)
    return module if n_outputs > 1 else torch.nn.Sequential(module, torch.nn.Flatten(0))


# gradients


@needs_torch
@pytest.mark.parametrize("weights", ["equal", "rows"])
@pytest.mark.parametrize(
    "partition", [td.Iid(4), td.Dirichlet(3, 0.5, seed=2), td.Shards(4, 2), td.Shared(3), td.Given([0, 1] * 30)]
)
def test_a_linear_module_is_the_library_s_softmax_regression(partition, weights):
    X, y = rows()
    reference = td.SoftmaxRegression((X, y), partition, batch=5, weights=weights, test=rows(1))
    problem = model(linear(N_CLASSES), partition, weights=weights, test=rows(1), dtype="float64")
    assert (problem.n_clients, problem.dim) == (reference.n_clients, reference.dim)
    assert problem.shared_data == reference.shared_data
    assert not problem.x0().any()
    x = np.random.default_rng(3).normal(size=problem.dim)
    for client in range(problem.n_clients):
        assert problem.weight(client) == pytest.approx(reference.weight(client))
        assert problem.n_rows_of(client) == reference.n_rows_of(client)
        np.testing.assert_allclose(problem.gradient(client, x), reference.gradient(client, x), rtol=1e-12, atol=1e-15)
        # the same rows are drawn, by their numbers in the client's data
        ours, theirs = some_sample(problem, client), some_sample(reference, client)
        np.testing.assert_allclose(
            problem.gradient(client, x, ours), reference.gradient(client, x, theirs), rtol=1e-12, atol=1e-15
        )
        assert problem.loss(x, client) == pytest.approx(float(reference.loss(x, client)), rel=1e-12)
    mine, expected = problem.measures(x), reference.measures(x)
    assert set(mine) == {"loss", "gradient_norm", "test_loss", "test_accuracy"}
    for name, value in mine.items():
        assert float(value) == pytest.approx(float(expected[name]), rel=1e-12), name


@needs_torch
def test_a_linear_module_is_the_library_s_logistic_regression():
    import torch

    X, y = rows()
    reference = td.LogisticRegression((X, y > 0), td.Iid(4), batch=7)
    data = X, (y > 0).astype(float)
    problem = model(linear(1), data=data, loss=torch.nn.functional.binary_cross_entropy_with_logits, batch=7, dtype="float64")
    x = np.random.default_rng(3).normal(size=problem.dim)
    for client in range(4):
        np.testing.assert_allclose(problem.gradient(client, x), reference.gradient(client, x), rtol=1e-12, atol=1e-15)
        sample = some_sample(problem, client), some_sample(reference, client)
        np.testing.assert_allclose(problem.gradient(client, x, sample[0]), reference.gradient(client, x, sample[1]), rtol=1e-12)
    assert "test_accuracy" not in problem.measures(x)


def by_autograd(problem, module, client, x, numbers):
    """The gradient with PyTorch alone: parameters set one by one, ``backward``."""
    import torch

    module = copy.deepcopy(module).to(problem.x0().dtype.name and getattr(torch, problem.dtype.name)).eval()
    torch.nn.utils.vector_to_parameters(torch.from_numpy(x.copy()), module.parameters())
    owned = problem.clients[client]
    here = np.arange(len(owned.y)) if owned.rows is None else owned.rows
    X, y = torch.from_numpy(owned.X[here[numbers]]), torch.from_numpy(owned.y[here[numbers]])
    torch.nn.functional.cross_entropy(module(X), y).backward()
    return torch.cat([p.grad.reshape(-1) for p in module.parameters()]).numpy()


@needs_torch
@pytest.mark.parametrize("kind", [None, "batch norm", "layer norm"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_are_those_of_autograd_written_out(kind, dtype):
    import torch

    layer = {"batch norm": torch.nn.BatchNorm1d(4), "layer norm": torch.nn.LayerNorm(6), None: None}[kind]
    if kind == "batch norm":
        layer.running_mean.uniform_(-1, 1)
        layer.running_var.uniform_(0.5, 2)
    module = network(layer)
    problem = model(module, dtype=dtype)
    exact = 1e-12 if dtype == "float64" else 1e-5
    for client, x in enumerate(some_point(problem, 4)):
        sample = some_sample(problem, client)
        expected = by_autograd(problem, module, client, x, sample)
        np.testing.assert_allclose(problem.gradient(client, x, sample), expected, rtol=exact, atol=exact)
        expected = by_autograd(problem, module, client, x, np.arange(problem.n_rows_of(client)))
        np.testing.assert_allclose(problem.gradient(client, x), expected, rtol=exact, atol=exact)
    assert problem.gradient(0, x).dtype == dtype
    start = torch.nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
    np.testing.assert_array_equal(problem.x0(), start.astype(dtype))


@needs_torch
@pytest.mark.parametrize("name", ["exp", "sqrt", "tanh", "log"])
def test_a_functions_first_call_is_on_one_number_and_made_once(name, monkeypatch):
    """MKL may give wrong values where several threads call it for the first time at once."""
    torch = torch_module.import_torch()
    seen, original = [], getattr(torch, name)
    monkeypatch.setattr(torch, name, lambda one: seen.append((one.dtype, one.numel())) or original(one))
    monkeypatch.setattr(torch_module, "_called", [])
    torch_module.import_torch()
    torch_module.import_torch()
    assert seen == [(torch.float32, 1), (torch.float64, 1)]


@needs_torch
def test_a_pass_takes_rows_in_pieces(monkeypatch):
    whole = model(dtype="float64", test=rows(1, 50))
    x = some_point(whole)
    gradient, measures = whole.gradient(0, x), whole.measures(x)
    longest = []
    original = torch_oracles.fetch
    monkeypatch.setattr(torch_oracles, "CHUNK", 4)
    monkeypatch.setattr(torch_oracles, "fetch", lambda *a: longest.append(len(a[2])) or original(*a))
    np.testing.assert_allclose(whole.gradient(0, x), gradient, rtol=1e-12)
    for name, value in whole.measures(x).items():
        assert float(value) == pytest.approx(float(measures[name]), rel=1e-12)
    assert max(longest) == 4
    assert sum(longest) == 15 + 1 + 60 + 60 + 50 + 50  # a client; the test's first label; loss, gradient_norm, test_...


@needs_torch
def test_gradients_of_one_sample_at_several_points_are_those_one_by_one(monkeypatch):
    problem = model()
    a, b, c = some_point(problem, 3)
    fetched = []
    original = torch_oracles.fetch
    monkeypatch.setattr(torch_oracles, "fetch", lambda *arguments: fetched.append(1) or original(*arguments))
    for sample in (some_sample(problem), None):
        fetched.clear()
        together = problem.gradients(1, (a, b, c), sample)
        assert len(fetched) == 1
        assert same_bits(together, tuple(problem.gradient(1, x, sample) for x in (a, b, c)))
    assert not np.allclose(together[0], together[1])


def test_problems_have_gradients_at_several_points_by_default():
    problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(2), batch=1)
    sample = problem.sample(1, Stream(0, Domain.TASK).at(3))
    xs = np.zeros(4), np.arange(4.0)
    assert same_bits(problem.gradients(1, xs, sample), tuple(problem.gradient(1, x, sample) for x in xs))
    assert same_bits(problem.gradients(1, xs), tuple(problem.gradient(1, x) for x in xs))


@needs_torch
def test_replicas_are_computed_row_by_row_each_with_its_own_sample():
    problem = model()
    points = some_point(problem, 3, 2)
    shared, own = some_sample(problem), some_sample(problem, replicas=3)
    assert own.shape == (3, 5)
    for sample in (None, shared, own):
        found = problem.gradient(1, points, sample)
        assert found.shape == points.shape
        for i, j in np.ndindex(3, 2):
            mine = own[i] if sample is own else sample
            assert same_bits(found[i, j], problem.gradient(1, points[i, j], mine))
    assert problem.measures(points, ["loss"])["loss"].shape == (3, 2)
    rule, engine = td.AsyncSGD([0.05, 0.1]), td.Simulated(td.Exponential(1.0))
    result = td.run(rule, problem, engine, stop=td.MaxUpdates(20), replicas=3)
    assert result.x.shape == (3, 2, problem.dim)
    assert td.replay(result).identical


@needs_torch
def test_batches_are_unbiased_and_repeat_rows_only_where_they_must():
    problem = model(batch=5, dtype="float64")
    x, stream = some_point(problem), Stream(0, Domain.TASK)
    samples = [problem.sample(0, stream.at(i)) for i in range(4000)]
    assert all(len(set(sample.tolist())) == 5 for sample in samples[:100])
    mean = np.mean([problem.gradient(0, x, sample) for sample in samples], axis=0)
    np.testing.assert_allclose(mean, problem.gradient(0, x), atol=0.02)
    many = model(batch=100)
    assert many.sample(0, stream.at(0)).shape == (100,)
    assert many.sample(0, stream.at(0)).max() < 15
    assert model(batch=None).sample(0, stream.at(0)) is None


# a gradient is a function of point, client and sample alone


@needs_torch
def test_a_gradient_is_pure():
    import torch

    module = network(torch.nn.BatchNorm1d(4))
    state = {name: value.clone() for name, value in module.state_dict().items()}
    problem = model(module)
    x, other = some_point(problem, 2)
    before, sample = x.copy(), some_sample(problem)
    first = problem.gradient(1, x, sample)
    problem.gradient(0, other)  # neither what was asked before ...
    problem.measures(other)
    assert same_bits(problem.gradient(1, x, sample), first)
    assert same_bits(x, before)
    assert module.training  # ... nor what is done with the module that was given
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name
    kept = first.copy()
    problem.gradient(1, other, sample)
    assert same_bits(first, kept)  # a reply is not a buffer
    start = problem.x0()
    start[:] = 0
    assert problem.x0().any()  # nor is the start
    with torch.no_grad():
        module[1].weight.zero_()
    assert same_bits(problem.gradient(1, x, sample), first)
    x.flags.writeable = False  # as points are in a worker process
    assert same_bits(problem.gradient(1, x, sample), first)


@needs_torch
def test_threads_and_processes_get_the_same_bits():
    problem = model(test=rows(1))
    points, found = some_point(problem, 8), {}
    expected = [problem.gradient(i % 4, x) for i, x in enumerate(points)]

    def work(number):
        found[number] = [problem.gradient(i % 4, x) for _ in range(20) for i, x in enumerate(points)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        for i, gradient in enumerate(found[number]):
            assert same_bits(gradient, expected[i % 8])
    again = pickle.loads(cloudpickle.dumps(problem))
    assert [same_bits(again.gradient(i % 4, x), expected[i]) for i, x in enumerate(points)] == [True] * 8
    assert again.fingerprint() == problem.fingerprint()


@needs_torch
def test_pytorch_computes_on_one_thread_and_gets_its_threads_back():
    import torch

    seen, before = [], torch.get_num_threads()

    class Looks(torch.nn.Linear):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return super().forward(x)

    torch.set_num_threads(3)
    try:
        problem = model(Looks(N_FEATURES, N_CLASSES))
        problem.gradient(0, problem.x0())
        problem.measures(problem.x0())
        for _ in range(4):
            td.run(td.AsyncSGD(0.1), problem, td.Threads(4), stop=td.MaxUpdates(30))
        assert set(seen) == {1}
        assert torch.get_num_threads() == 3
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [3]
        with pytest.raises(
            DataError, match="client 0 raised IndexError when rows 99 to 99 were fetched: there are rows 0 to 14"
        ):
            problem.gradient(0, problem.x0(), np.array([99]))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@needs_torch
@pytest.mark.parametrize("rule", [td.AsyncSGD(0.05), td.AsyncSGD(0.05, next_client="uniform"), td.SyncSGD(0.1)])
@pytest.mark.parametrize("payload", [None, "bfloat16"])
def test_rules_run_on_every_engine_and_replay(rule, payload):
    problem = model(payload=payload, test=rows(1))
    engines = [td.Simulated(td.Exponential(1.0)), td.Threads(2), td.Processes(2)]
    runs = [td.run(rule, problem, engine, stop=td.MaxUpdates(30)) for engine in engines]
    for run in runs:
        assert run.status is td.Status.MAX_UPDATES
        assert run.x.dtype == np.float32
        assert td.replay(run).identical
        assert float(problem.measures(run.x, ["loss"])["loss"]) < float(problem.measures(problem.x0(), ["loss"])["loss"])
    if isinstance(rule, td.SyncSGD):
        assert same_bits(runs[0].x, runs[1].x)
        assert same_bits(runs[0].x, runs[2].x)


@needs_torch
def test_bfloat16_rounds_what_is_answered_and_little_else():
    stop, engine = td.MaxUpdates(60), td.Simulated(td.Constant(1.0))
    full, short = (
        td.run(td.SyncSGD(0.1), model(payload=payload, batch=None), engine, stop=stop).x for payload in (None, "bfloat16")
    )
    start = model().x0()
    assert not same_bits(full, short)
    assert np.linalg.norm(full - short) < 2**-8 * np.linalg.norm(full - start)


# modules


@needs_torch
def test_parameters_that_are_frozen_tied_or_unused():
    import torch

    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(N_FEATURES, N_FEATURES, bias=False)
            self.b = torch.nn.Linear(N_FEATURES, N_FEATURES, bias=False)
            self.b.weight = self.a.weight
            self.frozen = torch.nn.Parameter(torch.full((N_CLASSES,), 2.0), requires_grad=False)
            self.unused = torch.nn.Parameter(torch.ones(2))
            self.out = torch.nn.Linear(N_FEATURES, N_CLASSES)

        def forward(self, x):
            return self.out(torch.tanh(self.b(torch.tanh(self.a(x))))) * self.frozen

    problem = model(Odd, dtype="float64")  # a function that makes the module
    assert problem.dim == 36 + 2 + 18 + 3
    x, step = some_point(problem), 1e-6 * np.eye(problem.dim)
    differences = [(problem.loss(x + h, 0) - problem.loss(x - h, 0)) / 2e-6 for h in step]
    gradient = problem.gradient(0, x)
    np.testing.assert_allclose(gradient, differences, atol=1e-8)
    assert np.count_nonzero(gradient == 0) == 2


@needs_torch
def test_embeddings_take_integers_and_sparse_gradients_become_dense():
    import torch

    rng = np.random.default_rng(0)
    data = rng.integers(0, 20, (40, 3), dtype=np.int32), rng.integers(0, 2, 40).astype(np.uint8)
    gradients = []
    for sparse in (True, False):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = torch.nn.Sequential(torch.nn.Embedding(20, 4, sparse=sparse), torch.nn.Flatten(), torch.nn.Linear(12, 2))
        problem = model(module, data=data)
        gradients.append(problem.gradient(0, problem.x0(), some_sample(problem)))
    assert same_bits(*gradients)


@needs_torch
def test_batch_norm_s_statistics_are_constants():
    import torch

    norm = torch.nn.BatchNorm1d(4)
    plain, normed = model(network()), model(network(norm))
    assert normed.dim == plain.dim + 8
    for problem in (plain, normed):
        problem.gradient(0, problem.x0())
    # with the mean 0 and variance 1 that it comes with, and epsilon, it is nearly the identity
    assert normed.loss(normed.x0()) == pytest.approx(plain.loss(plain.x0()), rel=1e-4)
    # the gradient of a batch is the mean of those of its rows: no row sees another
    x, sample = some_point(normed), some_sample(normed)
    one_by_one = np.mean([normed.gradient(1, x, sample[i : i + 1]) for i in range(5)], axis=0)
    np.testing.assert_allclose(normed.gradient(1, x, sample), one_by_one, atol=1e-6)


@needs_torch
def test_random_or_stateful_modules_are_refused():
    import torch
    from torch import nn

    class Noisy(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.randn(len(x), N_CLASSES)

    class Counts(nn.Linear):
        def __init__(self):
            super().__init__(N_FEATURES, N_CLASSES)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    refused = {
        r"3 \(Dropout\) drops out at random": network(nn.Dropout(0.5)),
        r"\(LSTM\) drops out at random": nn.Sequential(nn.LSTM(N_FEATURES, 3, 2, dropout=0.1)),
        "gave two values at one point": Noisy(N_FEATURES, N_CLASSES),
        "changes its buffer 'calls'": Counts(),
        "parameter 'weight' has no shape yet": nn.LazyLinear(3),
        "nothing to train": nn.Flatten(),
        "module must be a torch.nn.Module": 3,
    }
    for message, module in refused.items():
        with pytest.raises(InvalidInputError, match=message):
            model(module)
    assert model(network(nn.Dropout(0.0))).dim == model().dim


@needs_torch
@pytest.mark.parametrize("how", ["resizes", "replaces"])
def test_a_module_whose_parameters_change_in_a_run_is_named_with_the_client(how):
    import torch

    class Grows(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(N_FEATURES, N_CLASSES))

        def forward(self, x):
            if float(x.detach().abs().max()) > 50:  # rows of client 2 alone
                if how == "resizes":
                    self.w.data = torch.zeros(N_FEATURES, N_CLASSES + 1)
                else:
                    self.w = torch.nn.Parameter(torch.zeros(N_FEATURES, N_CLASSES))
            return x @ self.w

    clients = [rows(seed) for seed in range(4)]
    clients[2] = clients[2][0] * 100, clients[2][1]
    problem = td.TorchModel(Grows(), torch.nn.CrossEntropyLoss(), clients, batch=40)
    x = problem.x0()
    problem.gradient(1, x, some_sample(problem, 1))
    what = r"changed shape, from \(6, 3\) to \(6, 4\)" if how == "resizes" else "replaced its parameters"
    with pytest.raises(InvalidInputError, match=rf"on rows X .* of client 2: the module('s parameters)? {what}"):
        problem.gradient(2, x, some_sample(problem, 2))
    problem.gradient(1, x, some_sample(problem, 1))  # no other client is blamed


@needs_torch
def test_a_module_that_cannot_be_a_problem_is_refused_at_once():
    import torch

    class Clones(torch.nn.Linear):
        def forward(self, x):
            self.weight.data = self.weight.data.clone()
            return super().forward(x)

    with pytest.raises(InvalidInputError, match="replaced its parameters by others"):
        model(Clones(N_FEATURES, N_CLASSES))
    locked = network()
    locked.lock = threading.Lock()
    with pytest.raises(InvalidInputError, match=r"cannot be copied \(cannot pickle '_thread.lock' object\): keep open files"):
        model(locked)
    parametrised = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(N_FEATURES, N_CLASSES))
    assert model(parametrised).dim == 3 + 3 + 18


# losses


@needs_torch
def test_losses_that_are_no_mean_are_refused():
    import torch
    from torch.nn import functional

    refused = {
        r"must return one number.*not a tensor of shape \(2,\)": torch.nn.CrossEntropyLoss(reduction="none"),
        "the sum over rows: it must be their mean": torch.nn.CrossEntropyLoss(reduction="sum"),
        "must return one number.*not float": lambda p, t: float(functional.cross_entropy(p, t)),
        "loss must be a function": "cross entropy",
        "does not require grad|client 0: RuntimeError": lambda p, t: p[:, :1] @ t,
    }
    for message, loss in refused.items():
        with pytest.raises(InvalidInputError, match=message):
            model(loss=loss)
    cut = model(loss=lambda p, t: functional.cross_entropy(p.detach(), t))
    with pytest.raises(InvalidInputError, match=r"of client 3: RuntimeError: .*does not require grad"):
        cut.gradient(3, cut.x0())


# data


class Rows:
    """A data set as PyTorch's are, that may break."""

    def __init__(self, X, y, broken=None):
        self.X, self.y, self.broken = X, y, broken

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        if i == self.broken:
            raise OSError("the disk is gone")
        return self.X[i], int(self.y[i])


@needs_torch
def test_clients_bring_arrays_tensors_or_data_sets():
    import torch
    from torch.utils.data import TensorDataset

    parts = [rows(seed) for seed in range(5)]
    X, y = (torch.from_numpy(part) for part in parts[1])
    single = X.float()
    clients = [
        parts[0],
        (X, y),
        td.Dataset(*parts[2]),
        Rows(*parts[3]),
        TensorDataset(torch.from_numpy(parts[4][0]), torch.from_numpy(parts[4][1])),
    ]
    mixed = td.TorchModel(network(), torch.nn.CrossEntropyLoss(), clients, batch=5, dtype="float64", test=Rows(*rows(9)))
    plain = td.TorchModel(network(), torch.nn.CrossEntropyLoss(), parts, batch=5, dtype="float64", test=rows(9))
    x = some_point(plain)
    for client in range(5):
        sample = some_sample(plain, client)
        assert same_bits(mixed.gradient(client, x, sample), plain.gradient(client, x, sample))
    assert same_bits(mixed.measures(x), plain.measures(x))
    assert single.dtype == torch.float32
    again = td.TorchModel(network(), torch.nn.CrossEntropyLoss(), [(X.bfloat16(), y)])
    assert again.clients[0].X.dtype == np.float32
    assert td.TorchModel(network(), torch.nn.CrossEntropyLoss(), [(single, y)]).clients[0].X.base is not None  # no copy


@needs_torch
def test_a_data_set_that_raises_in_the_middle_names_the_client():
    import torch

    clients = [Rows(*rows(seed), broken=31 if seed == 2 else None) for seed in range(4)]
    problem = td.TorchModel(network(), torch.nn.CrossEntropyLoss(), clients, batch=5)
    with pytest.raises(
        DataError, match=r"the data of client 2 raised OSError when rows 0 to 59 were fetched: the disk is gone"
    ):
        problem.gradient(2, problem.x0())
    for engine in (td.Simulated(td.Constant(1.0)), td.Threads(2), td.Processes(2)):
        with pytest.raises((DataError, WorkerError)) as caught:
            td.run(td.AsyncSGD(0.01), problem, engine, stop=td.MaxUpdates(2000))
        assert "the data of client 2 raised OSError" in str(caught.value)
    clients[3] = Rows(rows()[0], np.full(60, 7))
    problem = td.TorchModel(network(), torch.nn.CrossEntropyLoss(), clients, batch=5)
    with pytest.raises(InvalidInputError, match=r"label 7 in row 0 of client 3 is not in 0..2"):
        problem.gradient(3, problem.x0(), np.arange(5))


@needs_torch
def test_bad_data_name_the_client():
    import torch

    good, loss = rows(), torch.nn.CrossEntropyLoss()
    X, y = good
    high, low, nan = y.copy(), y.copy(), X.copy()
    high[17], low[5], nan[3, 2] = 3, -1, np.nan
    refused = {
        "the data of client 1 has no rows": (X[:0], y[:0]),
        r"label 3 in row 17 of client 1 is not in 0\.\.2: the module predicts 3 classes": (X, high),
        "label -1 in row 5 of client 1": (X, low),
        "X of the data of client 1 holds values that are not finite": (nan, y),
        r"the data of client 1 must have as many rows as targets, not X \(60, 6\) and y \(59,\)": (X, y[1:]),
        "the data of client 1 must be a pair": (X, y, y),
        r"the data of client 1 must be a pair \(X, y\) or have len": 3,
        "y of the data of client 1 must hold numbers, not <U1: number classes from 0": (X, np.full(60, "a")),
    }
    for message, bad in refused.items():
        with pytest.raises(InvalidInputError, match=message):
            td.TorchModel(network(), loss, [good, bad])
    for empty in ([], ()):
        with pytest.raises(InvalidInputError, match=r"client_data must be a list .* without entries"):
            td.TorchModel(network(), loss, empty)
    with pytest.raises(InvalidInputError, match="is one pair"):
        td.TorchModel(network(), loss, good)
    with pytest.raises(InvalidInputError, match="label 3 in row 17 of the test data"):
        td.TorchModel(network(), loss, [good], test=(X, high))
    with pytest.raises(InvalidInputError, match=r"on rows X \(2, 5\), y \(2,\) of client 0: RuntimeError"):
        td.TorchModel(network(), loss, [(X[:, :5], y)])
    ignoring = torch.nn.CrossEntropyLoss(ignore_index=-1)
    assert td.TorchModel(network(), ignoring, [(X, low)]).n_clients == 1


@needs_torch
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float16"}, "dtype must be 'float32' or 'float64', not 'float16'"),
        ({"payload": "int8"}, "payload must be None or 'bfloat16', not 'int8'"),
        ({"payload": "bfloat16", "dtype": "float64"}, "this one is float64"),
        ({"weights": "size"}, "weights must be"),
        ({"batch": 0}, "batch must be"),
        ({"device": "abacus"}, "device must be one such as 'cpu'"),
        ({"partition": 4}, "partition must be a Partition"),
        ({"partition": td.Given([0, 1])}, "clients has 2 entries for 60 rows"),
        ({"data": [rows(), rows()]}, "X of client_data must be one array"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        model(**arguments)


def test_without_pytorch_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InvalidInputError, match=r'pip install "tardigrad\[torch\]"'):
        td.TorchModel(lambda: None, lambda p, t: p, [rows()])


# devices


@needs_torch
def test_clients_are_spread_over_the_devices_that_a_worker_sees(monkeypatch):
    import torch

    assert torch_module.device_of(3, "cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [torch_module.device_of(client, "cuda") for client in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert torch_module.device_of(0, "cuda:1") == "cuda:1"
    with pytest.raises(WorkerError, match="this process sees 2 CUDA devices"):
        torch_module.device_of(0, "cuda:2")


@needs_torch
def test_a_server_without_gpu_measures_on_its_cpu_and_a_worker_without_one_says_so(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    problem = model(device="cuda")
    assert same_bits(problem.measures(problem.x0()), model().measures(problem.x0()))
    with pytest.raises(WorkerError, match="device='cuda' was asked for, and this process sees 0 CUDA devices"):
        problem.gradient(0, problem.x0())


@needs_torch
def test_on_another_device_points_and_rows_are_sent_there():
    """On the device "meta", which has shapes and no numbers: what is not moved raises."""
    import torch

    flat = torch_module.FlatModule(network(), torch.nn.CrossEntropyLoss(), "float32", "meta")
    flat.load(np.zeros(flat.dim, np.float32))
    X, y = torch.zeros(5, N_FEATURES, device="meta"), torch.zeros(5, dtype=torch.int64, device="meta")
    value = flat.value(X, y)
    assert value.device.type == "meta"
    assert [part.shape for part in torch.autograd.grad(value, flat.parameters)] == [p.shape for p in flat.parameters]


# saved runs


@needs_torch
def test_a_saved_run_is_replayed_with_a_problem_of_the_same_fingerprint(tmp_path):
    import torch

    result = td.run(td.AsyncSGD(0.05), model(), td.Threads(2), stop=td.MaxUpdates(20))
    with pytest.warns(UserWarning, match="saved without the problem.*TorchModel holds a PyTorch module"):
        result.save(tmp_path / "run")
    with pytest.raises(RunFileError, match="TorchModel holds a PyTorch module"):
        result.save(tmp_path / "with", with_problem=True)
    with pytest.raises(RunFileError, match="saved without its problem"):
        td.replay(tmp_path / "run")
    assert td.replay(tmp_path / "run", problem=model()).identical
    other = network()
    with torch.no_grad():
        other[1].weight[0, 0, 0] += 1e-3
    with pytest.raises(RunFileError, match="made on another problem"):
        td.replay(tmp_path / "run", problem=model(other))


@needs_torch
def test_the_fingerprint_sees_all_that_decides_and_nothing_else():
    import torch

    X, y = rows()
    first = model().fingerprint()
    assert first == model().fingerprint()
    changed = y.copy()
    changed[0] = (y[0] + 1) % 3
    norm = torch.nn.BatchNorm1d(4)
    others = [
        model(batch=6),
        model(partition=td.Iid(5)),
        model(partition=td.Iid(4, seed=1)),
        model(data=(X, changed)),
        model(data=(X * 2, y)),
        model(test=rows()),
        model(payload="bfloat16"),
        model(dtype="float64"),
        model(loss=torch.nn.functional.cross_entropy),
        model(weights="rows"),
        model(network(norm)),
        model(network(torch.nn.Tanh())),
        model(partition=td.Shared(4)),
    ]
    norm.running_mean += 1
    others.append(model(network(norm)))
    found = [other.fingerprint() for other in others]
    assert len({first, *found}) == len(others) + 1
    assert model(device="cuda").fingerprint() == first
    with pytest.raises(TypeError, match="no fingerprint"):
        td.TorchModel(network(), torch.nn.CrossEntropyLoss(), [Rows(X, y)]).fingerprint()


@needs_torch
def test_no_warning_is_given_for_arrays_that_cannot_be_written():
    X, y = rows()
    X.flags.writeable = y.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem = model(data=(X, y), test=(X, y))
        x = problem.x0()
        x.flags.writeable = False
        problem.gradient(0, x)
        problem.measures(x)
