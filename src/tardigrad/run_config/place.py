"""Where in a run file something stands, and errors that say so.

Rules of this file:

- an error names file, table and key, the value, what was expected, and the nearest name that would be right.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tardigrad.core.errors import InvalidInputError, TardigradError


@dataclass(frozen=True)
class Place:
    """A table or a key of a run file.

    Parameters
    ----------
    file : str
        The file, as its user calls it.
    keys : tuple of str and int
        From the top level down; numbers count items of a list, from 0.

    Examples
    --------
    >>> str(Place("run.toml", ("rule", "step"))), str(Place("run.toml", ("observers", 1)))
    ('run.toml: [rule.step]', 'run.toml: [observers] number 2')
    """

    file: str
    keys: tuple[str | int, ...] = ()

    def __truediv__(self, key: str | int) -> Place:
        return Place(self.file, (*self.keys, key))

    def __str__(self) -> str:
        if not self.keys:
            return f"{self.file}:"
        text = ""
        names: list[str] = []
        for key in self.keys:
            if isinstance(key, int):
                text += f"[{'.'.join(names)}] number {key + 1} "
                names = []
            else:
                names.append(key)
        return f"{self.file}: {text}{'[' + '.'.join(names) + ']' if names else ''}".rstrip()

    @property
    def value(self) -> str:
        """The same for a key that is no table: the table, and the key behind it."""
        *table, key = self.keys
        here = Place(self.file, tuple(table))
        return f"{here} {key}" if isinstance(key, str) else f"{here.value}, item {key + 1}," if table else str(here)

    def error(self, message: str) -> InvalidInputError:
        """An error about a table."""
        return InvalidInputError(f"{self} {message}")

    def lacking(self, section: str, what: str) -> InvalidInputError:
        """An error about a section that is not there."""
        return InvalidInputError(f"{self.file}: [{section}] is missing: {what}")

    def error_of_value(self, message: str) -> InvalidInputError:
        """An error about the value of a key."""
        return InvalidInputError(f"{self.value} {message}")


def nearest(name: object, known: Iterable[object]) -> str:
    """Which of the known names was probably meant: "did you mean 'step'? ", or nothing."""
    names = {str(other).lower(): str(other) for other in known}
    begun = [other for other in names if len(str(name)) > 2 and other.startswith(str(name).lower())]
    found = begun or difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.65)
    return f"did you mean {names[found[0]]!r}? " if found else ""


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put the place in front of whatever goes wrong with what stands there."""
    try:
        yield
    except TardigradError as error:
        raise type(error)(f"{where}: {error}") from error
    except Exception as error:  # of a user's class, or of a library that looks at the values
        raise InvalidInputError(f"{where}: {type(error).__name__}: {error}") from error
