"""Gradients and losses of a PyTorch module over the rows of clients.

Rules of this file:

- a pass over all rows takes a bounded number of them at a time;
- everything that is wrong with a client's data, and everything that module and loss raise on it, names the client;
- after an error a thread's copy of the module is made anew: nobody knows what state it is in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tardigrad.core.errors import InvalidInputError, TardigradError, WorkerError
from tardigrad.core.task import Array, Points
from tardigrad.problems.torch_data import MapRows, Rows, check_labels, fetch, is_classification
from tardigrad.problems.torch_module import FlatModule, FlatModules, device_of, import_torch, one_thread, probe

#: rows that a pass over a data set takes at a time
CHUNK = 256


class ModuleOracles:
    """What can be asked of a module, a loss and the rows of clients, one point at a time.

    Parameters
    ----------
    modules : FlatModules
        Copies of module and loss.
    clients : list of Rows
        What each client owns.
    test : Rows or None
        For measures.
    shared : bool
        Whether all clients own the same rows, whose labels are checked once.
    device : str
        Where clients compute (`device_of`).
    """

    def __init__(self, modules: FlatModules, clients: list[Rows], test: Rows | None, shared: bool, device: str) -> None:
        self.modules, self.clients, self.test, self.device = modules, clients, test, device
        self._dtype = np.dtype(modules.arguments[2])
        with one_thread(import_torch()):
            self._probe(shared)

    def gradients(self, client: int, xs: Points, sample: Array | None, flat: FlatModule | None = None) -> Points:
        """A client's gradients at points (dim,), the rows of a sample fetched once; without a sample over all its rows."""
        flat = self.modules.on(device_of(client, self.device)) if flat is None else flat
        if sample is not None:
            X, y = self._fetch(flat, client, sample)
            return tuple(self._gradient(flat, client, x, X, y) for x in xs)
        totals = tuple(np.zeros_like(x, self._dtype) for x in xs)
        for numbers in _chunks(len(self.rows_of(client))):
            X, y = self._fetch(flat, client, numbers)
            share = self._dtype.type(len(numbers) / len(self.rows_of(client)))
            for i, x in enumerate(xs):
                totals[i][...] += self._gradient(flat, client, x, X, y) * share
        return totals

    def _gradient(self, flat: FlatModule, client: int, x: Array, X: Any, y: Any) -> Array:
        flat.load(x)
        try:
            return flat.gradient(X, y)
        except Exception as error:
            self.modules.forget()
            raise _naming(error, f"client {client}", X, y) from error

    def mean(self, x: Array, client: int | None) -> tuple[float, float]:
        """Loss and share of right classes on a client's rows, or on the test rows."""
        torch = import_torch()
        n_rows, loss, right = len(self.rows_of(client)), 0.0, 0
        with one_thread(torch), torch.no_grad():
            flat = self.at_server()
            flat.load(x)
            for numbers in _chunks(n_rows):
                X, y = self._fetch(flat, client, numbers)
                predictions = flat.module(X)
                loss += float(flat.loss(predictions, y)) * len(numbers) / n_rows
                if is_classification(y.cpu().numpy(), tuple(predictions.shape)):
                    right += int((predictions.argmax(1) == y).sum())
        return loss, right / n_rows

    def classifies(self) -> bool:
        """Whether test labels are class numbers."""
        return is_classification(fetch(self.rows_of(None), None, np.arange(1))[1].numpy(), (1, *self._outputs))

    def at_server(self) -> FlatModule:
        """The module where measures are taken: a server may have no device of those that its workers have."""
        try:
            return self.modules.on(device_of(0, self.device))
        except WorkerError:
            return self.modules.on("cpu")

    def _fetch(self, flat: FlatModule, client: int | None, numbers: Array) -> tuple[Any, Any]:
        rows = self.rows_of(client)
        X, y = fetch(rows, client, numbers)
        if isinstance(rows, MapRows):  # labels of arrays were checked before the run
            self._check_labels(y.numpy(), client)
        return (X, y) if flat.device == "cpu" else (X.to(flat.device), y.to(flat.device))

    def rows_of(self, client: int | None) -> Rows:
        """What a client owns; None: the test rows."""
        found = self.test if client is None else self.clients[client]
        assert found is not None
        return found

    def _check_labels(self, labels: Array, client: int | None) -> None:
        whose = "the test data" if client is None else f"client {client}"
        check_labels(labels, (len(labels), *self._outputs), self.modules.arguments[1], whose)

    def _probe(self, shared: bool) -> None:
        """Try the module on a few rows, and check all labels against what it predicts."""
        flat = self.modules.on("cpu")
        X, y = fetch(self.clients[0], 0, np.arange(min(2, len(self.clients[0]))))
        try:
            self._outputs = tuple(probe(flat, X, y).shape[1:])
        except Exception as error:
            raise _naming(error, "client 0", X, y) from error
        everybody: list[int | None] = [0] if shared else list(range(len(self.clients)))
        for client in [*everybody, *([] if self.test is None else [None])]:
            labels = self.rows_of(client).labels()
            if labels is not None:
                self._check_labels(labels, client)


def _chunks(n_rows: int) -> Iterator[Array]:
    for low in range(0, n_rows, CHUNK):
        yield np.arange(low, min(low + CHUNK, n_rows))


def _naming(error: Exception, whose: str, X: Any, y: Any) -> InvalidInputError:
    """An error that says on whose rows it came."""
    what = str(error) if isinstance(error, TardigradError) else f"{type(error).__name__}: {error}"
    return InvalidInputError(f"on rows X {tuple(X.shape)}, y {tuple(y.shape)} of {whose}: {what}")
