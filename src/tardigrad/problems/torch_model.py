"""Any PyTorch module, with a loss and one data set a client, as a problem.

``f_i(x) = (1/m_i) sum_r loss(module_x(X_r), y_r)`` over the m_i rows of client i, and ``f = sum_i w_i f_i``; x holds the
module's trainable parameters, one after another, in the order of ``module.parameters()``.

Rules of this file:

- a gradient is a function of point, client and sample alone: the module is in evaluation mode;
- everything that is wrong with a client's data, and everything that module and loss raise on it, names the client;
- each thread has its own copy of the module; the problem itself is never written to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

import numpy as np

from tardigrad.core.errors import InvalidInputError, TardigradError, WorkerError
from tardigrad.core.problem import Problem, fingerprint_of
from tardigrad.core.streams import Rng, noise_shape
from tardigrad.core.task import Array, Points
from tardigrad.core.validate import integer, optional_integer
from tardigrad.problems.partition import Partition, Shared
from tardigrad.problems.torch_data import MapRows, Rows, as_rows, check_labels, clients_of, fetch, is_classification
from tardigrad.problems.torch_module import (
    FlatModule,
    FlatModules,
    check_module,
    copy_of,
    device_of,
    import_torch,
    one_thread,
    probe,
)

#: rows that a pass over a data set takes at a time
CHUNK = 256


class TorchModel(Problem):
    """A PyTorch module, a loss and the data of each client, as a problem with a flat vector of parameters.

    Parameters
    ----------
    module : torch.nn.Module or callable
        The model, or a function without arguments that makes it. It is copied. Parameters with
        ``requires_grad=False`` stay as they are and are no part of x.
    loss : callable
        ``loss(prediction, target)``, the mean over the rows that it is given: a loss of ``torch.nn`` with its default
        ``reduction="mean"``, or a function.
    client_data : list, or one data set
        For each client a pair (X, y) of arrays or tensors, a `Dataset`, or a data set as PyTorch's are, with
        ``len(data)`` and ``data[i] = (x, y)``. With a `partition`: one pair or `Dataset`, which is cut up.
        Floats are taken in `dtype`, integers as int64 (class numbers from 0, or indices of embeddings).
    partition : Partition, optional
        Which client owns which rows: `Iid`, `Dirichlet`, `Shards`, `Given`, `Shared`.
    batch : int, optional
        Rows of a stochastic gradient, drawn without replacement, or with replacement where the client has fewer rows. By
        default gradients are exact.
    weights : {"equal", "rows"}
        Client weights: 1/n each, or in proportion to the rows they own.
    test : (X, y), Dataset or data set, optional
        For the measures whose names begin with ``test_``.
    dtype : {"float32", "float64"}
        Of x, and of what is computed.
    payload : {"bfloat16"}, optional
        Round what workers answer to bfloat16 (8 bits of precision, to the nearest), which halves what they send; the server
        adds in float32. By default nothing is rounded.
    device : str
        Where workers compute: "cpu", or "cuda" for client i on device ``i mod k`` of the k that its worker sees, or "cuda:1"
        for one of them. Actors of `RayCluster` are given CPUs alone, and Ray may hide the devices from them. Measures are
        taken on the server's CPU where it has no such device.

    Attributes
    ----------
    dim : int
        Number of trainable parameters.

    Raises
    ------
    InvalidInputError
        Without PyTorch; for modules that are random or keep a state, losses that are no mean, labels out of range,
        clients without rows.
    DataError
        If a client's data set raises, also in the middle of a run.

    Notes
    -----
    Gradients must not depend on who asked before. So the module is in evaluation mode throughout: batch norm normalises
    by its running statistics, which are constants of the problem, those that the module comes with. Its scale and shift
    are trained. For normalisation by the batch itself take group or layer norm, which need no statistics; or run the module
    over some rows in training mode before it is given. Modules with dropout are refused.

    On a CPU the same run gives the same bits on every engine and in a replay: PyTorch is set to one thread while it computes
    here, and back. On CUDA the same holds only where all kernels are deterministic
    (``torch.use_deterministic_algorithms``) and all devices of one kind.

    Computing two gradients of a sample in one pass (``torch.func.vmap``) took 1.1 to 7 times as long as two passes, so
    `gradients` makes two, and fetches the rows once.

    A module is not plain data: a run is saved without its problem, and a replay of the saved run must be given one with
    the same fingerprint (parameters, buffers, layers, loss by name, data).

    Functions of a script reach worker processes by value; the module is sent once a worker, the data not at all where
    memory is shared.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> import tardigrad as td
    >>> rng = np.random.default_rng(0)
    >>> clients = [(rng.normal(size=(20, 3)), rng.normal(size=20)) for _ in range(4)]
    >>> module = torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Flatten(0))
    >>> problem = TorchModel(module, torch.nn.MSELoss(), clients, batch=5)
    >>> problem.dim, problem.n_clients, problem.gradient(0, problem.x0()).dtype
    (4, 4, dtype('float32'))
    >>> result = td.run(td.AsyncSGD(0.05), problem, td.Simulated(td.Exponential(1.0)), stop=td.MaxUpdates(50))
    >>> td.replay(result).identical
    True
    """

    def __init__(
        self,
        module: Any,
        loss: Callable[[Any, Any], Any],
        client_data: Any,
        partition: Partition | None = None,
        *,
        batch: int | None = None,
        weights: Literal["equal", "rows"] = "equal",
        test: Any = None,
        dtype: Literal["float32", "float64"] = "float32",
        payload: Literal["bfloat16"] | None = None,
        device: str = "cpu",
    ) -> None:
        torch = import_torch()
        _check(loss, weights, dtype, payload)
        try:
            self.device = str(torch.device(device))
        except (RuntimeError, TypeError) as error:
            raise InvalidInputError(f"device must be one such as 'cpu', 'cuda' or 'cuda:1', not {device!r} ({error})") from None
        self.batch = optional_integer(batch, "batch")
        self.weights = weights
        self.dtype = np.dtype(dtype)
        self.payload_type = payload
        self.shared_data = isinstance(partition, Shared)
        self.equal_weights = weights == "equal" or self.shared_data
        self.clients = clients_of(client_data, partition, dtype)
        self.n_clients = len(self.clients)
        self.test = None if test is None else as_rows(test, dtype, "test")
        self._rows = [len(rows) for rows in self.clients]
        if not isinstance(module, torch.nn.Module) and callable(module):
            module = module()
        check_module(module)
        # copies: what the user does with them later must not reach threads that begin later
        self._modules = FlatModules(*copy_of(module, loss), dtype)
        flat = self._modules.on("cpu")
        self.dim, self._x0 = flat.dim, flat.vector()
        with one_thread(torch):
            self._probe(flat, loss)

    def fields(self) -> dict[str, Any]:
        raise TypeError("TorchModel holds a PyTorch module, which is not plain data")

    def fingerprint(self) -> str:
        """A hash of parameters, buffers, layers, loss (by name) and data; TypeError for data sets that are not arrays."""
        module, loss, dtype = self._modules.arguments
        state = {name: value.detach().cpu().float().numpy() for name, value in module.state_dict().items()}
        name = getattr(loss, "__qualname__", None) or repr(loss)
        data: list[Any] = []
        for rows in [*self.clients, *([] if self.test is None else [self.test])]:
            if isinstance(rows, MapRows):
                raise TypeError("a data set that is not an array has no fingerprint")
            whole = not data or rows.rows is None or rows.X is not self.clients[0].__dict__["X"]
            data.append((rows.X, rows.y, rows.rows) if whole else rows.rows)  # a data set that is cut up is hashed once
        what = (type(self).__name__, repr(module), name, state, data, self.shared_data)
        return fingerprint_of([*what, self.batch, self.weights, dtype, self.payload_type])

    def x0(self) -> Array:
        """The parameters that the module came with."""
        return self._x0.copy()

    def n_rows_of(self, client: int) -> int:
        """How many rows a client owns."""
        return self._rows[integer(client, "client", low=0, high=self.n_clients - 1)]

    def scale(self, client: int) -> float:
        return 1.0 if self.equal_weights else self.n_clients * self._rows[client] / sum(self._rows)

    def sample(self, client: int, rng: Rng) -> Array | None:
        """Row numbers within the client's data, (batch,) or (replicas, batch)."""
        if self.batch is None:
            return None
        n_rows, shape = self._rows[client], noise_shape(rng)
        if self.batch > n_rows:
            drawn: Array = rng.integers(0, n_rows, (*shape, self.batch))
        elif shape:
            drawn = np.stack([rng.choice(n_rows, self.batch, replace=False) for _ in range(shape[0])])
        else:
            drawn = rng.choice(n_rows, self.batch, replace=False)
        return drawn

    def gradient(self, client: int, x: Array, sample: Any = None) -> Array:
        return self.gradients(client, (x,), sample)[0]

    def gradients(self, client: int, xs: Points, sample: Any = None) -> Points:
        """Gradients at several points, the rows of the sample fetched once."""
        lead = xs[0].shape[:-1]
        with one_thread(import_torch()):
            flat = self._modules.on(device_of(client, self.device))
            if not lead:
                return self._gradients(flat, client, xs, sample)
            found = [np.empty(x.shape, self.dtype) for x in xs]
            for place in np.ndindex(lead):
                own = sample[place[0]] if sample is not None and sample.ndim == 2 else sample
                for array, row in zip(found, self._gradients(flat, client, tuple(x[place] for x in xs), own), strict=True):
                    array[place] = row
        return tuple(found)

    def _gradients(self, flat: FlatModule, client: int, xs: Points, sample: Array | None) -> Points:
        if sample is not None:
            X, y = self._fetch(flat, client, sample)
            return tuple(self._gradient(flat, client, x, X, y) for x in xs)
        totals = tuple(np.zeros(self.dim, self.dtype) for _ in xs)
        for numbers in _chunks(self._rows[client]):
            X, y = self._fetch(flat, client, numbers)
            share = len(numbers) / self._rows[client]
            for i, x in enumerate(xs):
                totals[i][...] += self._gradient(flat, client, x, X, y) * self.dtype.type(share)
        return totals

    def _gradient(self, flat: FlatModule, client: int, x: Array, X: Any, y: Any) -> Array:
        flat.load(x)
        try:
            return flat.gradient(X, y)
        except Exception as error:
            self._modules.forget()
            raise _naming(error, f"client {client}", X, y) from error

    def _fetch(self, flat: FlatModule, client: int | None, numbers: Array) -> tuple[Any, Any]:
        rows = self._rows_of(client)
        X, y = fetch(rows, client, numbers)
        if isinstance(rows, MapRows):  # labels of arrays were checked before the run
            self._check_labels(y.numpy(), client)
        return (X, y) if flat.device == "cpu" else (X.to(flat.device), y.to(flat.device))

    def _rows_of(self, client: int | None) -> Rows:
        found = self.test if client is None else self.clients[client]
        assert found is not None
        return found

    def _check_labels(self, labels: Array, client: int | None) -> None:
        whose = "the test data" if client is None else f"client {client}"
        check_labels(labels, (len(labels), *self._outputs), self._modules.arguments[1], whose)

    def _probe(self, flat: FlatModule, loss: Any) -> None:
        """Try the module on a few rows, and check all labels against what it predicts."""
        X, y = fetch(self.clients[0], 0, np.arange(min(2, self._rows[0])))
        try:
            self._outputs = tuple(probe(flat, X, y).shape[1:])
        except Exception as error:
            raise _naming(error, "client 0", X, y) from error
        everybody: list[int | None] = [0] if self.shared_data else list(range(self.n_clients))
        for client in [*everybody, *([] if self.test is None else [None])]:
            labels = self._rows_of(client).labels()
            if labels is not None:
                self._check_labels(labels, client)

    def measures(self, x: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """``loss``, ``gradient_norm``; with test data ``test_loss`` and, for class numbers, ``test_accuracy``."""
        table: dict[str, Callable[[Array], float]] = {"loss": self._loss, "gradient_norm": self._gradient_norm}
        if self.test is not None:
            table["test_loss"] = lambda row: self._mean(row, None)[0]
            labels = fetch(self.test, None, np.arange(1))[1].numpy()
            if is_classification(labels, (1, *self._outputs)):
                table["test_accuracy"] = lambda row: self._mean(row, None)[1]
        x = np.asarray(x)
        found = {}
        for name, measure in table.items():
            if names is None or name in names:
                values = [measure(row) for row in x.reshape(-1, self.dim)]
                found[name] = np.array(values).reshape(x.shape[:-1])
        return found

    def loss(self, x: Array, client: int | None = None) -> float:
        """``f(x)``, or ``f_client(x)``, at one point."""
        if client is not None:
            return self._mean(x, integer(client, "client", low=0, high=self.n_clients - 1))[0]
        return self._loss(x)

    def _loss(self, x: Array) -> float:
        clients = range(1 if self.shared_data else self.n_clients)
        weight = 1.0 if self.shared_data else None
        return float(sum((weight or self.weight(client)) * self._mean(x, client)[0] for client in clients))

    def _gradient_norm(self, x: Array) -> float:
        total = np.zeros(self.dim)
        with one_thread(import_torch()):
            for client in range(1 if self.shared_data else self.n_clients):
                weight = 1.0 if self.shared_data else self.weight(client)
                total += weight * self._gradients(self._at_server(), client, (x,), None)[0]
        return float(np.linalg.norm(total))

    def _at_server(self) -> FlatModule:
        """The module where measures are taken: a server may have no device of those that its workers have."""
        try:
            return self._modules.on(device_of(0, self.device))
        except WorkerError:
            return self._modules.on("cpu")

    def _mean(self, x: Array, client: int | None) -> tuple[float, float]:
        """Loss and share of right classes on a client's rows, or on the test rows."""
        torch = import_torch()
        n_rows, loss, right = len(self._rows_of(client)), 0.0, 0
        with one_thread(torch), torch.no_grad():
            flat = self._at_server()
            flat.load(x)
            for numbers in _chunks(n_rows):
                X, y = self._fetch(flat, client, numbers)
                predictions = flat.module(X)
                loss += float(flat.loss(predictions, y)) * len(numbers) / n_rows
                if is_classification(y.cpu().numpy(), tuple(predictions.shape)):
                    right += int((predictions.argmax(1) == y).sum())
        return loss, right / n_rows


def _chunks(n_rows: int) -> Iterator[Array]:
    for low in range(0, n_rows, CHUNK):
        yield np.arange(low, min(low + CHUNK, n_rows))


def _check(loss: Any, weights: Any, dtype: Any, payload: Any) -> None:
    if not callable(loss):
        raise InvalidInputError(
            f"loss must be a function loss(prediction, target), such as torch.nn.CrossEntropyLoss(), not {loss!r}"
        )
    if weights not in ("equal", "rows"):
        raise InvalidInputError(f"weights must be 'equal' or 'rows', not {weights!r}")
    if dtype not in ("float32", "float64"):
        raise InvalidInputError(f"dtype must be 'float32' or 'float64', not {dtype!r}")
    if payload not in (None, "bfloat16"):
        raise InvalidInputError(f"payload must be None or 'bfloat16', not {payload!r}")
    if payload is not None and dtype != "float32":
        raise InvalidInputError(f"payload='bfloat16' is for float32 models; this one is {dtype}")


def _naming(error: Exception, whose: str, X: Any, y: Any) -> InvalidInputError:
    """An error that says on whose rows it came."""
    what = str(error) if isinstance(error, TardigradError) else f"{type(error).__name__}: {error}"
    return InvalidInputError(f"on rows X {tuple(X.shape)}, y {tuple(y.shape)} of {whose}: {what}")
