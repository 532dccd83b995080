"""Run files as text: read, changed by --set, and copied into the run's folder with their comments.

Rules of this file:

- a key that is set, and a path that is made absolute, are the only things that a copy has otherwise.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
import tomlkit.exceptions

from tardigrad.core.errors import InvalidInputError, RunFileError


@dataclass(frozen=True)
class RunFile:
    """A run file, with what --set changed.

    Attributes
    ----------
    name : str
        As its user calls it.
    folder : Path
        In which it lies, absolute.
    text : str
        Its text.
    table : dict
        What it says.
    """

    name: str
    folder: Path
    text: str
    table: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path, settings: Iterable[str] = ()) -> RunFile:
        """Read a file, and set what is asked for: ``"rule.step=0.1"``.

        Raises
        ------
        RunFileError
            If there is no such file.
        InvalidInputError
            If it is not TOML, or a setting is not ``key=value``.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except IsADirectoryError as error:
            raise RunFileError(f"{path} is a folder: give a run file, such as {path / 'config.toml'}") from error
        except OSError as error:
            raise RunFileError(f"cannot read {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{path} is no text: {error}") from error
        return cls.of_text(text, str(path), path.absolute().parent, settings)

    @classmethod
    def of_text(cls, text: str, name: str, folder: Path, settings: Iterable[str] = ()) -> RunFile:
        """The same from a text.

        Examples
        --------
        >>> RunFile.of_text("seed = 1 # of all", "run.toml", Path(), ["seed=2"]).text
        'seed = 2 # of all'
        """
        table = _parse(text, name)
        settings = list(settings)
        if settings:
            document = tomlkit.parse(text)
            for setting in settings:
                _set(document, setting)
            text = tomlkit.dumps(document)
            table = _parse(text, f"{name} with --set")
        return cls(name, folder, text, table)

    def copy(self, paths: Mapping[tuple[str | int, ...], str], imports: list[str]) -> str:
        """The text with other paths and imports."""
        document = tomlkit.parse(self.text)
        for keys, path in paths.items():
            _put(document, keys, path)
        if imports:
            document["import"] = imports
        text = tomlkit.dumps(document)
        _parse(text, f"the copy of {self.name}")
        return text


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"{name} is not TOML: {error}. A table begins with [name], a key is key = value") from error


def _set(document: Any, setting: str) -> None:
    """Change a key: ``rule.step=0.1``; a value that is not TOML is a text."""
    key, equals, value = (part.strip() for part in setting.partition("="))
    if not equals or not all(key.split(".")) or not value:
        raise InvalidInputError(f"--set takes key=value, such as rule.step=0.1, not {setting!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    if "\n" in value:
        raise InvalidInputError(f"--set takes one value, on one line, not {setting!r}")
    keys = [int(part) if part.isdigit() else part for part in key.split(".")]
    try:
        _put(document, keys, parsed)
    except (TypeError, IndexError, KeyError, AttributeError, tomlkit.exceptions.TOMLKitError) as error:
        raise InvalidInputError(f"--set {setting}: there is no such place in the file") from error


def _put(document: Any, keys: Iterable[str | int], value: Any) -> None:
    """Set a value in a document, with the tables above it where they are missing."""
    *above, last = keys
    here: Any = document
    for key in above:
        if not isinstance(here, list) and key not in here:
            here[key] = tomlkit.table()
        here = here[key]
    here[last] = value
