"""Objects from tables: a table with a kind becomes an object of that class, its other keys the arguments.

Rules of this file:

- the table is checked against the class's signature before the class is called;
- paths are relative to the run file's folder, or for observers to the run's; what they became is noted for the copy that
  is saved with the run;
- what a constructor does not like is an error with the place in front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tardigrad.core.trace import Trace
from tardigrad.run_config.arrays import ARRAY, read_array
from tardigrad.run_config.kinds import Kinds
from tardigrad.run_config.own_code import REFERENCE, function_named, where_is
from tardigrad.run_config.place import Place, located, nearest
from tardigrad.run_config.signatures import Parameter, Takes, parameters
from tardigrad.run_config.sources import SOURCES

#: parameters of problems that take rows and targets: their tables are those of [data]
DATA = ("data", "client_data", "test")


class Builder:
    """Makes the objects of one run file.

    Parameters
    ----------
    folder : Path
        To which paths are relative; absolute.
    kinds : Kinds
        The classes that may be named.
    elsewhere : callable
        ``elsewhere(key, table)`` says where an unknown key of a table belongs, for people; empty where nobody knows.

    Attributes
    ----------
    paths : dict
        What to write instead of the paths in the file, so that a copy of it works from anywhere, by their keys.
    runs_code : bool
        Whether the file names a function.
    """

    def __init__(self, folder: Path, kinds: Kinds, elsewhere: Callable[[str, str], str] = lambda key, table: "") -> None:
        self.folder = folder
        self.kinds = kinds
        self.elsewhere = elsewhere
        self.paths: dict[tuple[str | int, ...], str] = {}
        self.runs_code = False

    def object(
        self,
        table: Any,
        bases: tuple[type, ...],
        place: Place,
        given: Mapping[str, Any] | None = None,
        folder: Path | None = None,
    ) -> Any:
        """The object that a table stands for; `given` are arguments from other tables."""
        if not isinstance(table, Mapping):
            names = " or ".join(base.__name__ for base in bases)
            raise place.error(f'must be a table with a kind of {names}, such as {{ kind = "...", ... }}, not {table!r}')
        if "kind" not in table:
            kinds = ", ".join(self.kinds.names(bases))
            meant = next((f"did you mean 'kind' by {key!r}? " for key in table if nearest(key, ["kind"])), "")
            raise place.error(f'has no kind: {meant}say which, kind = "...": {kinds}')
        maker = self.kinds.maker(table["kind"], bases, place)
        keys = {key: value for key, value in table.items() if key != "kind"}
        return self.call(maker, table["kind"], keys, place, given or {}, folder)

    def call(
        self,
        maker: Callable[..., Any],
        name: str,
        table: Mapping[str, Any],
        place: Place,
        given: Mapping[str, Any],
        folder: Path | None = None,
    ) -> Any:
        """What a class or function makes of a table."""
        takes = parameters(maker)
        self._check_keys(takes, name, table, place, given)
        arguments = {key: self.value(value, takes[key], place / key, folder) for key, value in table.items()}
        with located(str(place)):
            return maker(**arguments, **given)

    def _check_keys(
        self, takes: Mapping[str, Parameter], name: str, table: Mapping[str, Any], place: Place, given: Mapping[str, Any]
    ) -> None:
        """Only keys that there are, each once, and none that is needed missing."""
        listed = f"{name} takes {', '.join(key for key in takes if key not in given) or 'no keys'}"
        for key in table:
            if key not in takes:
                where = self.elsewhere(key, str(place.keys[0]) if place.keys else "")
                raise place.error(f"has no key {key!r}: {where or nearest(key, takes)}{listed}")
            if key in given:
                raise place.error(f"gives {key!r}, which a section of its own gives too: remove one of them")
        for key, parameter in takes.items():
            if parameter.required and key not in table and key not in given:
                raise place.error(f"lacks {key!r}: {listed}")

    def value(self, value: Any, parameter: Parameter, place: Place, folder: Path | None = None) -> Any:
        """An argument from what stands in the file."""
        takes = parameter.takes
        if isinstance(value, Mapping):
            return self._table(value, parameter, place, folder)
        if isinstance(value, list):
            return [self.value(item, parameter, place / i, folder) for i, item in enumerate(value)]
        if isinstance(value, str):
            if parameter.name in DATA and not REFERENCE.fullmatch(value):
                return self.data(value, place)  # an error that says how
            return self._text(value, takes, place, folder)
        complaint = takes.complaint(value)
        if complaint:
            raise place.error_of_value(f"must be {complaint}, not {value!r}")
        return value

    def _table(self, value: Mapping[str, Any], parameter: Parameter, place: Place, folder: Path | None) -> Any:
        """What a table stands for: an object, a data set, or a dictionary."""
        if parameter.name in DATA and "kind" not in value:
            return self.data(value, place)
        if "kind" in value or parameter.takes.bases:
            return self.object(value, parameter.takes.bases, place, folder=folder)
        return {key: self.value(item, parameter, place / key, folder) for key, item in value.items()}

    def data(self, table: Any, place: Place) -> Any:
        """Rows and targets, as a [data] table says."""
        if not isinstance(table, Mapping):
            raise place.error_of_value(f'must be a table such as {{ name = "digits" }}, not {table!r}')
        ways = [key for key in SOURCES if key in table]
        if not ways:
            known = sorted({key for source in SOURCES.values() for key in parameters(source)})
            hint = next((found for key in table if key not in known and (found := nearest(key, known))), "")
            raise place.error(f"does not say where the data are: {hint}give one of {', '.join(SOURCES)}, not {_listed(table)}")
        if len(ways) > 1:
            raise place.error(f"says more than once where the data are: give one of {', '.join(ways)}")
        return self.call(SOURCES[ways[0]], f"{place.keys[-1]} from {ways[0]!r}", table, place, {})

    def _text(self, value: str, takes: Takes, place: Place, folder: Path | None) -> Any:
        """What a text stands for: itself, an array in a file, a function, a path, a saved run."""
        if value in takes.literals or takes.unknown:
            return value
        array, reference = ARRAY.fullmatch(value), REFERENCE.fullmatch(value)
        if array and (takes.array or takes.anything):
            path = self._path(array["path"], place, after=f":{array['name']}" if array["name"] else "")
            with located(place.value):
                return read_array(path, array["name"])
        if takes.function or (takes.anything and reference):
            return self._function(value, place)
        if takes.trace:
            with located(place.value):
                return Trace.load(self._path(value, place))
        if takes.path:
            return self._path(value, place) if folder is None else folder / value
        complaint = "" if str in takes.scalars or takes.anything else self._instead(value, takes)
        if complaint:
            raise place.error_of_value(complaint)
        return value

    def _instead(self, value: str, takes: Takes) -> str:
        """What should stand where a text stands that means nothing; empty where the constructor is to judge."""
        if takes.bases:
            names, kinds = " or ".join(base.__name__ for base in takes.bases), self.kinds.names(takes.bases)
            kind = value if value in kinds else kinds[0] if kinds else "..."
            others = f"a number{', an array' * takes.array} or " if float in takes.scalars else ""
            known = nearest(value, takes.literals).rstrip() or f"or {', '.join(map(repr, takes.literals))}"
            hint = f" ({known})" if takes.literals else ""
            return f'must be {others}a table with a kind of {names}, such as {{ kind = "{kind}", ... }}, not {value!r}{hint}'
        if takes.array:
            return f"must be numbers, or a file of them (.npy, .npz, .csv, .txt), not {value!r}"
        complaint = takes.complaint(value)
        return f"must be {complaint}, not {value!r}: {nearest(value, takes.literals)}".rstrip(": ") if complaint else ""

    def _function(self, value: str, place: Place) -> Any:
        with located(place.value):
            found = function_named(value, self.folder)
            self.runs_code = True
            module, _, name = value.rpartition(":")
            self.paths[place.keys] = f"{where_is(module, self.folder)}:{name}"
            return found

    def _path(self, value: str, place: Place, after: str = "") -> Path:
        path = (self.folder / Path(value).expanduser()).absolute()
        self.paths[place.keys] = f"{path}{after}"
        return path


def _listed(table: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, table)) or "nothing"
