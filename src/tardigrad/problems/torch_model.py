"""Any PyTorch module, with a loss and one data set a client, as a problem.

``f_i(x) = (1/m_i) sum_r loss(module_x(X_r), y_r)`` over the m_i rows of client i, and ``f = sum_i w_i f_i``; x holds the
module's trainable parameters, one after another, in the order of ``module.parameters()``.

Rules of this file:

- a gradient is a function of point, client and sample alone: the module is in evaluation mode;
- what is asked of the module at one point stands in `torch_oracles`; here are clients, samples and the batch axis;
- each thread has its own copy of the module; the problem itself is never written to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.problem import Problem, fingerprint_of
from tardigrad.core.streams import Rng
from tardigrad.core.task import Array, Points
from tardigrad.core.validate import integer, optional_integer
from tardigrad.problems.data import draw_rows
from tardigrad.problems.partition import Partition, Shared
from tardigrad.problems.torch_data import MapRows, as_rows, clients_of
from tardigrad.problems.torch_module import FlatModules, check_module, copy_of, import_torch, one_thread
from tardigrad.problems.torch_oracles import ModuleOracles


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
        self._oracles = ModuleOracles(self._modules, self.clients, self.test, self.shared_data, self.device)

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
        return None if self.batch is None else draw_rows(self._rows[client], self.batch, rng)

    def gradient(self, client: int, x: Array, sample: Any = None) -> Array:
        return self.gradients(client, (x,), sample)[0]

    def gradients(self, client: int, xs: Points, sample: Any = None) -> Points:
        """Gradients at several points, the rows of the sample fetched once."""
        lead = xs[0].shape[:-1]
        with one_thread(import_torch()):
            if not lead:
                return self._oracles.gradients(client, xs, sample)
            found = [np.empty(x.shape, self.dtype) for x in xs]
            for place in np.ndindex(lead):
                own = sample[place[0]] if sample is not None and sample.ndim == 2 else sample
                for array, row in zip(found, self._oracles.gradients(client, tuple(x[place] for x in xs), own), strict=True):
                    array[place] = row
        return tuple(found)

    def measures(self, x: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """``loss``, ``gradient_norm``; with test data ``test_loss`` and, for class numbers, ``test_accuracy``."""
        table: dict[str, Callable[[Array], float]] = {"loss": self._loss, "gradient_norm": self._gradient_norm}
        if self.test is not None:
            table["test_loss"] = lambda row: self._oracles.mean(row, None)[0]
            if self._oracles.classifies():
                table["test_accuracy"] = lambda row: self._oracles.mean(row, None)[1]
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
            return self._oracles.mean(x, integer(client, "client", low=0, high=self.n_clients - 1))[0]
        return self._loss(x)

    def _loss(self, x: Array) -> float:
        clients = range(1 if self.shared_data else self.n_clients)
        weight = 1.0 if self.shared_data else None
        return float(sum((weight or self.weight(client)) * self._oracles.mean(x, client)[0] for client in clients))

    def _gradient_norm(self, x: Array) -> float:
        total = np.zeros(self.dim)
        with one_thread(import_torch()):
            for client in range(1 if self.shared_data else self.n_clients):
                weight = 1.0 if self.shared_data else self.weight(client)
                total += weight * self._oracles.gradients(client, (x,), None, self._oracles.at_server())[0]
        return float(np.linalg.norm(total))


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
