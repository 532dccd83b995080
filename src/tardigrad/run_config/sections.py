"""The sections of a run file, and what they make: the arguments of `tardigrad.run`.

Rules of this file:

- [data] and [partition] are handed to the problem, [timing] to the engine;
- top-level keys are parameters of `tardigrad.run`; everything is made, and so checked, before anything starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tardigrad.core import drive
from tardigrad.core.checkpoint import Checkpoint
from tardigrad.core.engine import Engine
from tardigrad.core.observers import Observer
from tardigrad.core.problem import Problem
from tardigrad.core.rule import Rule
from tardigrad.core.stopping import Stop
from tardigrad.core.timing import Timing
from tardigrad.problems.partition import Partition
from tardigrad.run_config.builder import Builder
from tardigrad.run_config.kinds import Kinds
from tardigrad.run_config.own_code import import_all, where_is
from tardigrad.run_config.place import Place, located, nearest
from tardigrad.run_config.signatures import Parameter, parameters
from tardigrad.run_config.stops import STOPS, stop_of
from tardigrad.run_config.text import RunFile

#: what each section is for; those that a run cannot do without end with an example
SECTIONS = {
    "data": "rows and targets",
    "partition": "which client owns which rows",
    "problem": 'what to minimise, such as kind = "SoftmaxRegression"',
    "rule": 'the method, such as kind = "AsyncSGD" and step = 0.1',
    "engine": 'where the workers are, such as kind = "Simulated", with a [timing]',
    "timing": "how long a task takes",
    "stop": "when to end, such as max_updates = 1000",
    "checkpoint": "how often the run is saved",
    "observers": "who looks at the run while it goes on",
}
_NEEDED = ("problem", "rule", "engine")
_SECTIONED = {"rule", "problem", "engine", "stop", "observers", "checkpoint"}


class Sections:
    """Makes what a run file describes.

    Parameters
    ----------
    run_file : RunFile
        As read.
    imports : tuple of str
        Modules or files to import beside those that the file names; relative to the current folder.
    """

    def __init__(self, run_file: RunFile, imports: tuple[str, ...] = ()) -> None:
        self.table = run_file.table
        self.place = Place(run_file.name)
        self.settings: dict[str, Parameter] = {
            name: taken for name, taken in parameters(drive.run).items() if name not in _SECTIONED
        }
        here = Path.cwd()
        own = self._imports()
        with located(f"{run_file.name}: import"):
            modules = import_all(own, run_file.folder)
        modules += import_all(imports, here)
        self.imports = [*(where_is(module, run_file.folder) for module in own), *(where_is(module, here) for module in imports)]
        self.builder = Builder(run_file.folder, Kinds(modules), self._elsewhere)
        self._check_top()

    def problem(self) -> Problem:
        """The problem, with [data] and [partition]."""
        table, takes = self._takes("problem", Problem)
        given = self._data(table, takes)
        if "partition" in self.table:
            self._wanted("partition", "partition" in takes, "problem", table)
            given["partition"] = self.builder.object(self.table["partition"], (Partition,), self.place / "partition")
        found: Problem = self.builder.object(table, (Problem,), self.place / "problem", given)
        return found

    def _data(self, table: Mapping[str, Any], takes: Mapping[str, Parameter]) -> dict[str, Any]:
        """What [data] gives the problem: a data set, or its rows and targets."""
        whole = next((name for name in ("data", "client_data") if name in takes), None)
        pair = next((pair for pair in (("X", "y"), ("A", "b")) if {*pair} <= {*takes}), None)
        if "data" not in self.table:
            wanted = [whole] if whole is not None and takes[whole].required else list(pair or ())
            if wanted and not {*wanted} & {*table}:
                instead = "" if whole else f", or {' and '.join(wanted)} in [problem]"
                raise self.place.lacking("data", f'{SECTIONS["data"]} for {table["kind"]}, such as name = "digits"{instead}')
            return {}
        self._wanted("data", whole is not None or pair is not None, "problem", table)
        found = self.builder.data(self.table["data"], self.place / "data")
        if whole is not None:
            return {whole: found}
        assert pair is not None
        X, y = found if isinstance(found, (tuple, list)) else (found.X, found.y)
        return dict(zip(pair, (X, y), strict=True))

    def rule(self) -> Rule[Any]:
        """The rule."""
        found: Rule[Any] = self.builder.object(self._section("rule"), (Rule,), self.place / "rule")
        return found

    def engine(self) -> Engine:
        """The engine, with [timing]."""
        table, takes = self._takes("engine", Engine)
        given: dict[str, Any] = {}
        if "timing" in self.table:
            self._wanted("timing", "timing" in takes, "engine", table)
            given["timing"] = self.builder.object(self.table["timing"], (Timing,), self.place / "timing")
        elif "timing" in takes and takes["timing"].required and "timing" not in table:
            raise self.place.lacking("timing", f'{SECTIONS["timing"]} on {table["kind"]}, such as kind = "Exponential"')
        found: Engine = self.builder.object(table, (Engine,), self.place / "engine", given)
        return found

    def stop(self, engine: Engine) -> Stop | None:
        """All conditions of [stop] joined: the first that holds ends the run."""
        if "stop" not in self.table:
            if engine.ends_by_itself:
                return None
            raise self.place.lacking("stop", f"{SECTIONS['stop']}, or another of {', '.join(STOPS)}")
        return stop_of(self.table["stop"], self.builder, self.place / "stop")

    def checkpoint(self, folder: Path) -> Checkpoint:
        """How often the run in this folder is saved."""
        table, place = self.table.get("checkpoint", {}), self.place / "checkpoint"
        if not isinstance(table, Mapping):
            raise place.error(f"must be a table, such as every_seconds = 60.0, not {table!r}")
        for key in ("folder", "overwrite"):
            if key in table:
                raise place.error(f"has no key {key!r}: the run's folder is said by --out, and no run replaces another")
        found: Checkpoint = self.builder.call(
            Checkpoint, "checkpoint", table, place, {"folder": str(folder), "overwrite": False}
        )
        return found

    def observers(self, folder: Path) -> list[Observer]:
        """Those of [[observers]]; what they write is relative to the run's folder."""
        tables, place = self.table.get("observers", []), self.place / "observers"
        if not isinstance(tables, list):
            raise place.error("must be a list: write [[observers]], with two brackets, above each of them")
        return [self.builder.object(table, (Observer,), place / i, folder=folder) for i, table in enumerate(tables)]

    def others(self) -> dict[str, Any]:
        """The top-level keys: seed, concurrency, ..."""
        return {
            name: self.builder.value(self.table[name], taken, self.place / name)
            for name, taken in self.settings.items()
            if name in self.table
        }

    def _takes(self, section: str, base: type) -> tuple[Mapping[str, Any], Mapping[str, Parameter]]:
        """A section that stands for an object, and what its kind takes."""
        table, place = self._section(section), self.place / section
        if not isinstance(table, Mapping) or "kind" not in table:
            self.builder.object(table, (base,), place)  # an error that says what there is
        return table, parameters(self.builder.kinds.maker(table["kind"], (base,), place))

    def _section(self, name: str) -> Any:
        if name not in self.table:
            raise self.place.lacking(name, SECTIONS[name])
        return self.table[name]

    def _check_top(self) -> None:
        """Only names that there are, at the top level, and no section missing."""
        known = [*SECTIONS, *self.settings, "import"]
        for key, value in self.table.items():
            if key not in known:
                what = f"section [{key}]" if isinstance(value, (Mapping, list)) else f"key {key!r} at the top level"
                where = self._elsewhere(key, "") or nearest(key, known)
                raise self.place.error(
                    f"there is no {what}: {where}sections are {', '.join(SECTIONS)}; keys above them are"
                    f" {', '.join([*self.settings, 'import'])}"
                )
        for name in _NEEDED:
            self._section(name)

    def _imports(self) -> list[str]:
        given = self.table.get("import", [])
        names = [given] if isinstance(given, str) else given
        if not (isinstance(names, list) and all(isinstance(name, str) and name for name in names)):
            raise (self.place / "import").error_of_value(f'must be a list of files or modules, ["my_rule.py"], not {given!r}')
        return names

    def _wanted(self, section: str, wanted: bool, owner: str, table: Mapping[str, Any]) -> None:
        """An error about a section that nothing takes."""
        if not wanted:
            raise (self.place / section).error(
                f"is of no use: {table['kind']} in [{owner}] takes no {section}; remove the section"
            )

    def _elsewhere(self, key: str, table: str) -> str:
        """Where a key belongs that a table does not have."""
        if key in (*self.settings, "import") and table:
            return f"{key!r} is said at the top of the file, above the first section; "
        if key in SECTIONS and key != table:
            return f"{key!r} is a section of its own, [{key}]; "
        if key in STOPS and table != "stop":
            return f"{key!r} belongs to [stop]; "
        for section, base in (("rule", Rule), ("engine", Engine), ("problem", Problem), ("timing", Timing)):
            other = self.table.get(section)
            if section != table and isinstance(other, Mapping) and isinstance(other.get("kind"), str):
                maker = self.builder.kinds.maker(other["kind"], (base,), self.place / section)
                if key in parameters(maker):
                    return f"{other['kind']} in [{section}] has such a key; "
        return ""
