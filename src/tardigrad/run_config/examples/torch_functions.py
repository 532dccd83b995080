"""A PyTorch module and its loss, which the example names where a user would name his own in a file."""

from __future__ import annotations

from typing import Any

from tardigrad.problems.torch_module import import_torch


def network() -> Any:
    """A small network for 64 pixels and 10 classes, the same at every call."""
    torch = import_torch()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))


def loss(prediction: Any, target: Any) -> Any:
    """The mean cross entropy."""
    torch = import_torch()

    return torch.nn.functional.cross_entropy(prediction, target)
