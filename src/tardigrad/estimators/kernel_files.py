"""Fitted kernel machines in a folder: plain data, no pickle.

A folder holds ``run.json`` and npz files, written and checked as those of runs are (`core.files`). Rules of this file:

- arrays are kept as they are, rows in a file by its path and a hash of some places;
- strings are saved as lists of strings, a type by its name, a `RandomState` as it stands; other Python objects not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tardigrad.core.errors import RunFileError
from tardigrad.core.files import HEADER, RunFolder, read_folder
from tardigrad.core.plain import decode, encode
from tardigrad.core.task import Array
from tardigrad.problems.matrix_file import MatrixFile, is_rows_of_file

#: of what the header says about the estimator
FORMAT = 1
_PART = "model"


def save_model(estimator: Any, path: Path, names: Sequence[str], optional: Sequence[str]) -> Path:
    """Write an estimator's parameters, its attributes `names`, and those of `optional` that it has; the folder."""
    arrays: dict[str, Array] = {}
    parameters = {name: _encode(name, value, arrays) for name, value in estimator.get_params(deep=False).items()}
    fitted = {name: _encode(name, getattr(estimator, name), arrays) for name in (*names, *optional) if hasattr(estimator, name)}
    folder = RunFolder(path)
    try:
        model = {"format": FORMAT, "class": type(estimator).__name__, "parameters": parameters, "fitted": fitted}
        folder.commit({"tardigrad": version("tardigrad"), "model": model}, [folder.put(_PART, arrays)])
    finally:
        folder.close()
    return path


def load_into(cls: Any, path: Path, names: Sequence[str], optional: Sequence[str]) -> Any:
    """An estimator of a class, from a folder."""
    name = cls.__name__
    if not (path / HEADER).is_file():
        raise RunFileError(f"{path} holds no saved {name} (no {HEADER}): give the folder that {name}.save wrote")
    header, parts = read_folder(path)
    model = header.get("model")
    if not isinstance(model, dict):
        raise RunFileError(f"{path} holds a run, not a {name}: tardigrad.Result.load reads it")
    try:
        written, saved = int(model["format"]), str(model["class"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunFileError(f"{path / HEADER} is not the header of a {name} ({error!r}): it was changed") from error
    if written > FORMAT:
        raise RunFileError(
            f"{path} has an estimator of format {written}, written by tardigrad {header.get('tardigrad', '?')}; this version"
            f" reads up to {FORMAT}: upgrade tardigrad"
        )
    if saved != name:
        raise RunFileError(f"{path} holds a {saved}: read it by {saved}.load")
    by = f"it was changed, or written by another version ({header.get('tardigrad', '?')}, this is {version('tardigrad')})"
    try:
        arrays = parts[_PART]
        given = {key: _decode(tree, arrays) for key, tree in model["parameters"].items()}
        fitted = {key: _decode(tree, arrays) for key, tree in model["fitted"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunFileError(f"{path / HEADER} does not say all that makes a {name}: {by}") from error
    new = (set(given) - set(cls().get_params(deep=False))) | (set(fitted) - {*names, *optional})
    lost = set(names) - set(fitted)
    if new or lost:
        what = f"has {min(new)}, which a {name} has not here" if new else f"lacks {min(lost)}, which a fitted {name} has"
        raise RunFileError(f"{path} {what}: {by}")
    estimator = cls(**given)
    vars(estimator).update(fitted)
    return estimator


def _encode(name: str, value: Any, arrays: dict[str, Array]) -> Any:
    try:
        if isinstance(value, np.memmap):
            return encode(_file_of(value).marked(), arrays)
        if isinstance(value, np.random.RandomState):
            return {"generator": encode(list(value.get_state()), arrays)}
        if name == "dtype":
            return np.dtype(value).name
        if isinstance(value, slice):
            return {"slice": [value.start, value.stop]}
        if isinstance(value, np.ndarray) and value.dtype.hasobject and all(isinstance(item, str) for item in value):
            return {"strings": value.tolist()}
        return encode(value, arrays)
    except TypeError as error:
        raise RunFileError(f"{name}={value!r} cannot be saved: {error}") from error


def _decode(tree: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(tree, dict) and set(tree) == {"strings"}:
        return np.array([str(item) for item in tree["strings"]], dtype=object)
    if isinstance(tree, dict) and set(tree) == {"slice"}:
        return slice(*tree["slice"])
    if isinstance(tree, dict) and set(tree) == {"generator"}:
        generator = np.random.RandomState()
        generator.set_state(tuple(decode(tree["generator"], arrays)))
        return generator
    value = decode(tree, arrays)
    return value.open() if isinstance(value, MatrixFile) else value


def _file_of(rows: np.memmap) -> MatrixFile:
    if not is_rows_of_file(rows):
        raise RunFileError(
            "rows of a memory map are saved as the path of its file: they must be whole rows, one after another (C order), of a"
            " file that has a name"
        )
    return MatrixFile.of(rows)
