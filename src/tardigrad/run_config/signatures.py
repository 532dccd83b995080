"""What a class or function takes, read off its signature: the keys of a table, and what each may hold.

Rules of this file:

- signatures are the only list of keys: what a class takes, a run file takes;
- a parameter without an annotation, or with one that cannot be understood, gets what stands in the file, a text as a text:
  the constructor has the last word.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

from tardigrad.core.observers import Observer
from tardigrad.core.plain import Plain
from tardigrad.core.trace import Trace

#: what `inspect` has for an annotation that is not there
_UNKNOWN = inspect.Parameter.empty
#: what TOML has for a scalar, and how people call it
_SCALARS = {bool: "true or false", int: "an integer", float: "a number", str: "a text in quotes"}


@dataclass(frozen=True)
class Takes:
    """What may be given for a parameter.

    Attributes
    ----------
    bases : tuple of type
        Classes of which an object may be given, by a table with a kind.
    literals : tuple
        The values that there are, where they are listed.
    scalars : frozenset of type
        Those of bool, int, float and str.
    array, function, path, trace, anything : bool
        Whether an array, a function, a path, a recorded trace, or just anything may be given.
    unknown : bool
        Whether nothing is said.
    """

    bases: tuple[type, ...] = ()
    literals: tuple[Any, ...] = ()
    scalars: frozenset[type] = frozenset()
    array: bool = False
    function: bool = False
    path: bool = False
    trace: bool = False
    anything: bool = False
    unknown: bool = False

    @classmethod
    def of(cls, hint: Any) -> Takes:
        """What an annotation says."""
        if hint is _UNKNOWN:
            return cls(anything=True, unknown=True)
        leaves = list(_leaves(hint))
        classes = [leaf for leaf in leaves if isinstance(leaf, type)]
        literals = tuple(value for leaf in leaves if get_origin(leaf) is Literal for value in get_args(leaf))
        return cls(
            bases=tuple(c for c in classes if issubclass(c, (Plain, Observer)) and c is not Trace),
            literals=literals,
            scalars=frozenset(c for c in classes if c in _SCALARS),
            array=np.ndarray in classes,
            function=Callable in leaves,
            path=Path in classes,
            trace=Trace in classes,
            anything=Any in leaves,
        )

    def complaint(self, value: Any) -> str:
        """What a scalar should have been; empty where it may be what it is."""
        others = self.bases or self.array or self.function or self.path or self.trace or self.anything
        known = self.literals or self.scalars
        fits = type(value) in self.scalars or (type(value) is int and float in self.scalars) or value in self.literals
        if fits or self.anything or not known or (others and not self.literals):
            return ""
        scalars = [name for kind, name in _SCALARS.items() if kind in self.scalars]
        return " or ".join([*([" or ".join(map(repr, self.literals))] if self.literals else []), *scalars])


@dataclass(frozen=True)
class Parameter:
    """A parameter of a class or function."""

    name: str
    required: bool
    takes: Takes


def parameters(maker: Callable[..., Any]) -> dict[str, Parameter]:
    """What a class, a class method or a function takes, by name.

    Examples
    --------
    >>> import tardigrad as td
    >>> list(parameters(td.MaxUpdates)), parameters(td.MaxUpdates)["n"].takes.scalars
    (['n'], frozenset({<class 'int'>}))
    """
    found: dict[str, Parameter] = {}
    for function, spaces in _initialisers(maker) if isinstance(maker, type) else [(maker, [])]:
        own = getattr(inspect.unwrap(function), "__globals__", {})
        signature = inspect.signature(function)
        for name, given in signature.parameters.items():
            if given.kind not in (given.POSITIONAL_OR_KEYWORD, given.KEYWORD_ONLY) or name == "self" or name in found:
                continue
            hint = _resolve(given.annotation, [own, *spaces])
            found[name] = Parameter(name, given.default is given.empty, Takes.of(hint))
        if not any(given.kind is given.VAR_KEYWORD for given in signature.parameters.values()):
            break
    return found


def _initialisers(cls: type) -> Iterator[tuple[Callable[..., Any], list[dict[str, Any]]]]:
    """The `__init__` of a class and those that it hands keywords on to, with the modules of its base classes."""
    spaces = [vars(sys.modules[base.__module__]) for base in cls.__mro__ if base.__module__ in sys.modules]
    for base in cls.__mro__[:-1]:
        if "__init__" in vars(base):
            yield vars(base)["__init__"], spaces if dataclasses.is_dataclass(base) else []


def _resolve(annotation: Any, spaces: list[dict[str, Any]]) -> Any:
    """An annotation as a type; `_UNKNOWN` where there is none, or a name in it is not known at run time."""
    if annotation is _UNKNOWN:
        return annotation
    for space in spaces if isinstance(annotation, str) else ():
        try:
            return eval(annotation, space)
        except Exception:  # imported for type checkers only, in another module, or no type at all
            continue
    return _UNKNOWN if isinstance(annotation, str) else annotation


def _leaves(hint: Any) -> Iterator[Any]:
    """The types that a hint is made of, those of items included."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _leaves(part)
    elif origin is Literal:
        yield hint
    elif Callable in (origin, hint):
        yield Callable
    elif origin is not None and isinstance(origin, type):
        if origin is np.ndarray:
            yield origin
            return
        for part in get_args(hint):
            yield from (() if part is Ellipsis else _leaves(part))
    else:
        yield hint
