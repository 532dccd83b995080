"""A kernel that is given by a user's own function.

Rules of this file:

- a function is saved by module and name, and found again only in modules that are loaded already: a file cannot load others;
- what it returns is checked each time: a wrong shape would broadcast in silence.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tardigrad.core.errors import InvalidInputError
from tardigrad.core.task import Array
from tardigrad.problems.kernel_base import KernelFunction


@dataclass(frozen=True)
class UserKernel(KernelFunction):
    """A function of squared distances, or of inner products, element by element.

    Parameters
    ----------
    function : callable
        Takes an array of any shape and returns one of the same shape. Where it is saved it is by module and name, so it must
        be defined at the top of a module: a lambda works in memory only.
    of : {"squared distances", "inner products"}
        What it is given.

    Raises
    ------
    InvalidInputError
        If `function` is no function, or returns another shape; when it is used, not when it is made.
    TypeError
        When it is saved, if it cannot be found again by module and name.

    Examples
    --------
    >>> import numpy as np
    >>> cubic = UserKernel(lambda products: (1 + products) ** 3, of="inner products")
    >>> cubic(np.array([[1.0], [2.0]])).tolist()
    [[8.0, 27.0], [27.0, 125.0]]
    """

    function: Callable[[Array], Any] | str
    of: str = "squared distances"
    _WAYS: ClassVar[tuple[str, ...]] = ("squared distances", "inner products")

    def __post_init__(self) -> None:
        if self.of not in self._WAYS:
            raise InvalidInputError(f"of must be {self._WAYS[0]!r} or {self._WAYS[1]!r}, not {self.of!r}")
        if isinstance(self.function, str):
            object.__setattr__(self, "function", _function_named(self.function))
        if not callable(self.function):
            raise InvalidInputError(f"function must be a function of an array, not {self.function!r}")

    def fields(self) -> dict[str, Any]:
        return {"function": _name_of(self.function), "of": self.of}

    @property
    def diagonal(self) -> float | None:
        return None if self.of == "inner products" else float(self._call(np.zeros(1))[0])

    def apply(self, values: Array) -> None:
        values[...] = self._call(values)

    def _call(self, values: Array) -> Array:
        found = np.asarray(self.function(values))  # type: ignore[operator]  # __post_init__ saw that it is one
        if found.shape != values.shape or found.dtype.kind not in "biuf":
            raise InvalidInputError(
                f"the function of a UserKernel must return real numbers of the shape that it was given, {values.shape},"
                f" not {found.dtype} of shape {found.shape}"
            )
        return found


def _name_of(function: Any) -> str:
    """Module and name by which a function can be found again."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", getattr(function, "__name__", None))
    if module is not None and getattr(sys.modules.get(module), str(name), None) is function:
        return f"{module}:{name}"
    raise TypeError(
        f"a UserKernel with {function!r} cannot be saved: a function is saved by module and name, so define it with def at the"
        " top of a module"
    )


def _function_named(name: str) -> Any:
    """The function of a saved kernel; only from modules that are loaded already, so that a file cannot load others."""
    module, _, attribute = name.partition(":")
    found = getattr(sys.modules.get(module), attribute, None) if attribute else None
    if found is None:
        raise InvalidInputError(
            f"the function of a UserKernel must be a function; it was saved as {name!r}, which is not loaded here: import that"
            " module first"
        )
    return found
