"""How pictures look: one palette, few lines.

Rules of this file:

- figures are made without pyplot: no global state, no window, safe in threads and servers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tardigrad.core.errors import RunFileError

#: colours that people with colour blindness can tell apart (Okabe and Ito)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def new_figure(width: float, height: float) -> Any:
    """An empty figure; sizes are inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def tidy(axes: Any, title: str = "", xlabel: str = "", ylabel: str = "") -> Any:
    """Labels, a light grid, and no box."""
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return axes


def check_place(path: str | Path) -> None:
    """Say that a figure could not be written to a place, for use before long work starts; the place is left as it is.

    Raises
    ------
    RunFileError
        If it is a folder, lies in none, or its ending is that of no format.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    path = Path(path)
    if path.is_dir():
        raise RunFileError(f"cannot write {path}: it is a folder; give the name of a file, such as run.png")
    if not path.parent.is_dir():
        raise RunFileError(f"cannot write {path}: there is no folder {path.parent}")
    known = FigureCanvasBase.get_supported_filetypes()
    if path.suffix and path.suffix[1:].lower() not in known:
        raise RunFileError(f"cannot write {path}: no picture ends in {path.suffix}; known are {', '.join(sorted(known))}")


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a figure; the ending of the name chooses the format."""
    if Path(path).is_dir():
        raise RunFileError(f"cannot write {path}: it is a folder; give the name of a file, such as run.png")
    try:
        figure.savefig(path, dpi=140)
    except ValueError as error:
        raise RunFileError(f"cannot write {path}: {error}") from error
    except OSError as error:
        raise RunFileError(f"cannot write {path}: {error.strerror or error}") from error
