"""Objects as plain data: what is saved with a run can be read back without running code from the file.

`encode` turns an object into a JSON tree and a dict of arrays, `decode` goes back. Rules of this file:

- only numbers, strings, arrays, sparse matrices, lists, tuples, dicts and `Plain` objects are taken;
- a `Plain` object is its class name and the arguments that rebuild it (`fields`);
- `decode` knows the classes of this package and those that the caller has defined, nothing else;
- a class of this package that moved is still found where it was, as long as its old module imports it;
- floats and arrays come back with the same bits.
"""

from __future__ import annotations

import dataclasses
import importlib
from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from tardigrad.core.errors import RunFileError
from tardigrad.core.task import Array

_PACKAGE = "tardigrad."
#: what a class has whose body is empty
_BARE = {
    "__module__",
    "__qualname__",
    "__doc__",
    "__slots__",
    "__dict__",
    "__weakref__",
    "__firstlineno__",
    "__static_attributes__",
}


class Plain(ABC):  # noqa: B024 (some subclasses have abstract methods, some none)
    """Base of everything that is saved with a run: rules and their states, problems, timings, stops, engines."""

    __slots__ = ()

    _known: ClassVar[dict[str, type[Plain]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        known = Plain._known.get(type_name(cls))
        # cloudpickle begins a copy of a script's class with an empty one, and drops it where the class is there
        if known is None or known.__bases__ != cls.__bases__ or not _BARE.issuperset(vars(cls)):
            Plain._known[type_name(cls)] = cls

    def fields(self) -> dict[str, Any]:
        """Arguments that rebuild this object: those of a dataclass, without scratch space, unless overridden."""
        if not dataclasses.is_dataclass(self):
            raise TypeError(f"{type(self).__name__} is not a dataclass: define fields(), the arguments that rebuild it")
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init and not f.metadata.get("scratch")}


def type_name(cls: type) -> str:
    """The name under which a class is saved."""
    return f"{cls.__module__}:{cls.__qualname__}"


def encode(value: Any, arrays: dict[str, Array]) -> Any:  # noqa: PLR0911
    """The JSON tree of `value`; its arrays are added to `arrays` under new names.

    Examples
    --------
    >>> import numpy as np
    >>> arrays = {}
    >>> encode({"x": np.zeros(2), "n": 3}, arrays)
    {'x': {'$array': 'a0'}, 'n': 3}
    """
    if isinstance(value, np.generic) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        return {"$scalar": value.dtype.str, "value": value.item()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("an array of Python objects is not plain data")
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"$array": name}
    if sp.issparse(value):
        csr = sp.csr_array(value)
        parts = [encode(part, arrays) for part in (csr.data, csr.indices, csr.indptr)]
        return {"$csr": parts, "shape": list(csr.shape)}
    if isinstance(value, (list, tuple)):
        items = [encode(item, arrays) for item in value]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: encode(item, arrays) for key, item in value.items()}
        return {"$dict": [[encode(key, arrays), encode(item, arrays)] for key, item in value.items()]}
    if isinstance(value, Plain):
        return {"$type": type_name(type(value)), **encode(value.fields(), arrays)}
    raise TypeError(f"{type(value).__name__} is not plain data: numbers, strings, arrays and Plain objects can be saved")


def decode(tree: Any, arrays: Mapping[str, Array]) -> Any:  # noqa: PLR0911
    """The object that `encode` was given."""
    if isinstance(tree, list):
        return [decode(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "$array" in tree:
        return arrays[tree["$array"]]
    if "$csr" in tree:
        return sp.csr_array(tuple(decode(tree["$csr"], arrays)), shape=tuple(tree["shape"]))
    if "$scalar" in tree:
        return np.dtype(tree["$scalar"]).type(tree["value"])
    if "$tuple" in tree:
        return tuple(decode(tree["$tuple"], arrays))
    if "$dict" in tree:
        return {decode(key, arrays): decode(item, arrays) for key, item in tree["$dict"]}
    items = {key: decode(item, arrays) for key, item in tree.items() if key != "$type"}
    if "$type" not in tree:
        return items
    try:
        return _class_of(tree["$type"])(**items)
    except TypeError as error:
        raise RunFileError(f"what was saved as {tree['$type']} has other parameters than here: {error}") from error


def _class_of(name: str) -> type[Plain]:
    module, _, own_name = name.partition(":")
    found = Plain._known.get(name)
    if found is None and module.startswith(_PACKAGE):
        try:
            candidate = getattr(importlib.import_module(module), own_name, None)
        except ImportError as error:
            raise RunFileError(f"what was saved uses {name}, which cannot be imported here: {error}") from error
        if isinstance(candidate, type) and issubclass(candidate, Plain):
            found = candidate
    if found is None and module == "__main__":  # saved by a script, read by whoever imports it
        named = [cls for known, cls in Plain._known.items() if known.partition(":")[2] == own_name]
        found = named[0] if len(named) == 1 else None
    if found is None:
        raise RunFileError(
            f"what was saved uses {name}, which is not a class of tardigrad: import the module that defines it first"
            " (on the command line: --import MODULE; --config RUN/config.toml where `tardigrad run` made it)"
        )
    return found


def same_bits(a: Any, b: Any) -> bool:  # noqa: PLR0911
    """Whether two plain values are equal in every bit; NaN equals itself."""
    if isinstance(a, Plain) and type(a) is type(b):
        return same_bits(a.fields(), b.fields())
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(a, np.generic) and isinstance(b, np.generic):
        return same_bits(np.asarray(a), np.asarray(b))
    if sp.issparse(a) and sp.issparse(b):
        a, b = sp.csr_array(a), sp.csr_array(b)
        return a.shape == b.shape and same_bits((a.data, a.indices, a.indptr), (b.data, b.indices, b.indptr))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same_bits(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and type(a) is type(b):
        return len(a) == len(b) and all(map(same_bits, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    return type(a) is type(b) and bool(a == b)
