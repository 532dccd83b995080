"""Where a run goes, and the copy of its run file there.

Rules of this file:

- no run replaces another, and no copy the file that it is of.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from tardigrad.core.errors import InvalidInputError, RunFileError
from tardigrad.core.files import CONFIG, HEADER

#: where runs go unless told otherwise
RUNS = "runs"


def folder_for(path: Path, out: str | Path | None) -> Path:
    """The folder of a run of this file: `out`, or one in `RUNS` that does not exist, called after the file.

    Raises
    ------
    RunFileError
        If `out` holds a run, or is a file.
    InvalidInputError
        If it is the run file's own folder, so that the copy would be written over it.
    """
    if out is None:
        name = path.absolute().parent.name if path.name == CONFIG else path.stem
        folder, number = Path(RUNS) / name, 1
        while folder.exists():
            number += 1
            folder = Path(RUNS) / f"{name}-{number}"
        return folder
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise RunFileError(f"{folder} is a file: choose a folder, --out")
    if (folder / HEADER).exists():
        resume = f"tardigrad resume {shlex.quote(str(folder))}"
        raise RunFileError(f"{folder} holds a run already: go on with it, {resume}, or choose another folder, --out")
    if (folder / CONFIG).exists() and (folder / CONFIG).samefile(path):
        raise InvalidInputError(f"the copy of {path} would be written over it: choose another folder, --out")
    return folder


def make(folder: Path, config: str, new: bool) -> None:
    """Make the run's folder, with its run file; a `new` one was not there a moment ago, when it was chosen."""
    try:
        folder.mkdir(parents=True, exist_ok=not new)
        (folder / CONFIG).write_text(config, encoding="utf-8")
    except FileExistsError as error:
        raise RunFileError(f"another run took {folder} in this moment: start again, or choose a folder, --out") from error
    except OSError as error:
        raise RunFileError(f"cannot write {folder / CONFIG}: {error.strerror or error}") from error


def earlier_run(path: Path) -> Path | None:
    """The folder of the run that this file is the copy of."""
    return path.parent if path.name == CONFIG and (path.parent / HEADER).exists() else None
