"""One file a paper: every table and figure of it as a function, with the published numbers beside.

Rules of this file:

- `reproduce` calls them by name; `PAPERS` says where each is, so that listing them imports none;
- a reproduction is plain rows, and what to draw; nothing is asserted.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tardigrad.core.errors import InvalidInputError

# name -> (module, function, what it is)
PAPERS: dict[str, tuple[str, str, str]] = {
    "apsgd-table1": ("tardigrad.papers.apsgd", "table1", "complexities of asynchronous sketch-and-project, as formulas"),
    "apsgd-table2": ("tardigrad.papers.apsgd", "table2", "workers from which asynchronous beats synchronous, k >= 1"),
    "apsgd-table3": ("tardigrad.papers.apsgd", "table3", "workers from which asynchronous beats synchronous, k <= 1"),
    "apsgd-bound": ("tardigrad.papers.apsgd_simulation", "bound", "the averaged method simulated, beside Theorem 5's bound"),
    "async-bc-figure1": ("tardigrad.papers.async_bc", "figure1", "AsyncBC and Async-GD on quadratics of clients that differ"),
    "async-bc-figure2": ("tardigrad.papers.async_bc_images", "figure2", "AsyncBC, Async-SGD and Sync-SGD on Fashion-MNIST"),
    "async-bc-figure3": ("tardigrad.papers.async_bc_noise", "figure3", "SARAH under noise of its own in each difference"),
    "async-bc-table1": ("tardigrad.papers.async_bc_rates", "table1", "growth of the work with 1/eps and with zeta"),
    "async-eigenpro-table3": (
        "tardigrad.papers.async_eigenpro",
        "table3",
        "asynchronous EigenPro on several workers to the same training loss (8 minutes)",
    ),
    "async-eigenpro-table4": (
        "tardigrad.papers.async_eigenpro",
        "table4",
        "the same for the synchronous method (7 minutes)",
    ),
    "async-eigenpro-figure1": (
        "tardigrad.papers.async_eigenpro",
        "figure1",
        "time of an epoch against the probability of a delay, both methods (2 minutes)",
    ),
    "async-eigenpro-stability": (
        "tardigrad.papers.async_eigenpro_stability",
        "stability",
        "whether it diverges: 1 to 16 workers, four data sets (8 minutes)",
    ),
    "dasgd-figure1": ("tardigrad.papers.dasgd", "figure1", "DASGD on the Rosenbrock function, synchronous and delayed"),
    "dasgd-constants": (
        "tardigrad.papers.dasgd_constants",
        "constants",
        "the search for the constants of dasgd-figure1 (5 minutes)",
    ),
    "dasgd-coherence": ("tardigrad.papers.dasgd", "coherence", "whether the Rosenbrock function is variationally coherent"),
    "dasgd-delays": ("tardigrad.papers.dasgd_delays", "delays", "delays n^2: steps that fit them, and steps that do not"),
}


@dataclass(frozen=True)
class Reproduction:
    """A table or figure of a paper, recomputed.

    Attributes
    ----------
    name : str
        As `reproduce` knows it.
    rows : list of dict
        Plain values, with the published ones beside.
    comment : str
        What agrees and what does not.
    notes : list of str
        Lines for people, such as formulas.
    draw : callable, optional
        Writes a picture to a path, where there is one.
    """

    name: str
    rows: list[dict[str, Any]]
    comment: str
    notes: list[str] = field(default_factory=list)
    draw: Callable[[Path], object] | None = None

    def to_json(self) -> dict[str, Any]:
        """``{"name", "rows", "comment"}``; what does not exist is null."""
        return {"name": self.name, "rows": self.rows, "comment": self.comment}

    def table(self) -> str:
        """The rows for people without the curves, then the notes and the comment."""
        head = [key for key, value in self.rows[0].items() if not isinstance(value, list)]
        body = [[_text(row[key]) for key in head] for row in self.rows]
        widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *body]]
        return "\n".join([*lines, "", *self.notes, self.comment])


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def reproduce(name: str) -> Reproduction:
    """Recompute a table or figure of a paper.

    Parameters
    ----------
    name : str
        One of `PAPERS`.

    Raises
    ------
    InvalidInputError
        If there is none of that name.

    Examples
    --------
    >>> reproduce("apsgd-table2").comment.split(";")[0]
    '15 of 15 published rows reproduced'
    """
    if name not in PAPERS:
        near = difflib.get_close_matches(name, PAPERS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(PAPERS)}"
        raise InvalidInputError(f"no table or figure is named {name!r}; {hint}")
    module, function, _ = PAPERS[name]
    made: Callable[[], Reproduction] = getattr(importlib.import_module(module), function)
    return made()
