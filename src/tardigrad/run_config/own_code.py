"""Code of users: modules with their own classes, and functions that a run file names.

A function is ``file.py:name`` or ``module:name``. Rules of this file:

- code is run only because the user named it: in a run file that is run, or with --import; never because a folder was read;
- a file is imported under its own name, in a package with the package's before it, so that what is saved with a run can be
  found again, also by worker processes.
"""

from __future__ import annotations

import importlib
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from tardigrad.core.errors import InvalidInputError, RunFileError, TardigradError, WorkerError
from tardigrad.run_config.place import nearest

#: where code lies that is not the user's
_LIBRARIES = (str(Path(__file__).parents[1]), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), "<")
#: "file.py:name" or "module:name"
REFERENCE = re.compile(r"(?P<module>[^:\n]*\w):(?P<name>[A-Za-z_]\w*)")


def import_all(modules: list[str] | tuple[str, ...], folder: Path) -> list[ModuleType]:
    """Import modules by name, or by file relative to `folder`; modules are found in `folder` too."""
    return [import_one(module, folder) for module in modules]


def import_one(module: str, folder: Path) -> ModuleType:
    """Import a module, or a file that ends in .py.

    Raises
    ------
    RunFileError
        If it is not there, cannot be imported, or another module has its name.
    """
    _find_in(folder)
    name, path = module, None
    if module.endswith(".py"):
        path = (folder / module).absolute()
        if not path.is_file():
            raise RunFileError(f"cannot import {module}: there is no file {path}")
        name, root = _module_of(path)
        _find_in(root)
    try:
        found = importlib.import_module(name)
    except Exception as error:
        where = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f"line {where[-1].lineno}: " if where else ""
        raise RunFileError(
            f"cannot import {module}: {line}{type(error).__name__}: {error}; give a file, or a module of this folder or"
            " PYTHONPATH"
        ) from error
    loaded = getattr(found, "__file__", None)
    if path is not None and (loaded is None or not Path(loaded).samefile(path)):
        raise RunFileError(f"cannot import {module}: another module has the name {name!r} ({loaded or 'of Python'}): rename it")
    return found


def function_named(reference: str, folder: Path) -> Any:
    """What ``file.py:name`` or ``module:name`` refers to.

    Raises
    ------
    InvalidInputError
        If it is no such reference, or the module has no such name.
    RunFileError
        If the module cannot be imported.

    Examples
    --------
    >>> function_named("math:hypot", Path())(3, 4)
    5.0
    """
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise InvalidInputError(f"a function is given as 'file.py:name' or 'module:name', not {reference!r}")
    module = import_one(match["module"], folder)
    if not hasattr(module, match["name"]):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise InvalidInputError(f"{match['module']} has no {match['name']!r}: {nearest(match['name'], public)}".rstrip(": "))
    return getattr(module, match["name"])


def where_is(module: str, folder: Path) -> str:
    """A module's name for a copy of the run file that lies elsewhere: the file, where it is one of the user's."""
    if module.endswith(".py"):
        return str((folder / module).absolute())
    file = getattr(sys.modules.get(module), "__file__", None)
    beside = file is not None and file.endswith(".py") and _module_of(Path(file))[1] in (folder, Path.cwd())
    return str(file) if beside else module


@contextmanager
def own_errors(option: str) -> Iterator[None]:
    """Make what the user's code raises in a run one message with its line; `option` is what resuming such a run needs."""
    try:
        yield
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
        wrapped: Exception = error
        if own and not isinstance(error, TardigradError):
            where = f"line {own[-1].lineno} of {own[-1].filename}, in {own[-1].name}"
            wrapped = WorkerError(f"the run ended by {type(error).__name__}: {error} ({where})")
        for note in getattr(error, "__notes__", []) if wrapped is not error else ():
            wrapped.add_note(note)
        if option and any("tardigrad resume" in note for note in getattr(wrapped, "__notes__", [])):
            wrapped.add_note(f"it needs{option}")
        if wrapped is error:
            raise
        raise wrapped from error


def _module_of(path: Path) -> tuple[str, Path]:
    """The name of a file's module, with those of the packages around it, and the folder that the outermost lies in."""
    names, root = [path.stem], path.parent
    while (root / "__init__.py").is_file():
        names, root = [root.name, *names], root.parent
    return ".".join(names[:-1] if names[-1] == "__init__" and len(names) > 1 else names), root


def _find_in(folder: Path) -> None:
    """Look for modules in a folder too: last, so that a json.py there is not what other packages import."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
