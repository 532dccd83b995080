"""Kinds: the public classes of tardigrad, and those of the modules that a run file imports, by name.

Rules of this file:

- what is public is what `tardigrad` lists, and what kind of thing a class is, its base classes say: there is no second list;
- one name loads one class; all are loaded only to tell which there are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import tardigrad
from tardigrad.core.observers import Observer
from tardigrad.core.plain import Plain
from tardigrad.run_config.place import Place, nearest


class Kinds:
    """The classes that a run file may name.

    Parameters
    ----------
    modules : iterable of module
        Imported modules with classes of the user's, which go before those of tardigrad.

    Examples
    --------
    >>> from tardigrad.core.engine import Engine
    >>> Kinds().names((Engine,))
    ['Prescribed', 'Processes', 'RayCluster', 'Replay', 'Simulated', 'Threads']
    """

    def __init__(self, modules: Iterable[ModuleType] = ()) -> None:
        self._own = {
            name: value
            for module in modules
            for name, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, (Plain, Observer)) and not value.__module__.startswith("tardigrad.")
        }

    def names(self, bases: tuple[type, ...]) -> list[str]:
        """All kinds of some base classes; of any, where there are none."""
        found = []
        for name in [*self._own, *tardigrad.__all__]:
            value = self._class(name)
            if value is not None and _is_kind(value) and issubclass(value, bases or (Plain, Observer)):
                found.append(name)
        return sorted(set(found))

    def maker(self, kind: Any, bases: tuple[type, ...], place: Place) -> Callable[..., Any]:
        """The class of that name, or its class method (``"ClientQuadratics.of_paper"``), which is called with the other keys.

        Raises
        ------
        InvalidInputError
            If there is none, if it is another kind of thing, or only a base of others.
        """
        if not isinstance(kind, str):
            raise place.error(f"kind must be the name of a class in quotes, not {kind!r}")
        name, _, method = kind.partition(".")
        value = self._class(name)
        if value is None or not (inspect.isclass(value) and issubclass(value, (Plain, Observer))):
            raise place.error(f"kind = {kind!r} is not known: {self._choice(kind, bases)}{self._hint()}")
        if not issubclass(value, bases or (Plain, Observer)):
            raise place.error(f"kind = {kind!r} is no {_named(bases)}: {self._choice(kind, bases)}")
        if not _is_kind(value):
            lacks = ", ".join(sorted(getattr(value, "__abstractmethods__", ())))
            why = f"is not whole: it must define {lacks}" if name in self._own else "is the base of others"
            raise place.error(f"kind = {kind!r} {why}: {self._choice('', bases)}")
        if not method:
            return value
        if not isinstance(inspect.getattr_static(value, method, None), classmethod):
            raise place.error(f"kind = {kind!r} is not known: {name} has no way {method!r} to be made")
        made: Callable[..., Any] = getattr(value, method)
        return made

    def _class(self, name: str) -> Any:
        if name in self._own:
            return self._own[name]
        return getattr(tardigrad, name) if name in tardigrad.__all__ else None

    def _choice(self, kind: str, bases: tuple[type, ...]) -> str:
        names = self.names(bases)
        return f"{nearest(kind, names)}the kinds of {_named(bases)} are {', '.join(names)}" if names else ""

    def _hint(self) -> str:
        return "" if self._own else '. Classes of your own are found in modules that the file imports: import = ["my_rule.py"]'


def _is_kind(value: Any) -> bool:
    return inspect.isclass(value) and not inspect.isabstract(value) and value is not Observer


def _named(bases: tuple[type, ...]) -> str:
    return " or ".join(base.__name__ for base in bases) or "object"
