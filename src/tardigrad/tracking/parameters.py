"""What a run is made with, as short texts by dotted names: what trackers call parameters.

Rules of this file:

- names and structure come from the objects themselves (`Plain.fields`), never from a second list;
- arrays are named by shape and type, unless they are short: parameters are to be read and compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.plain import Plain

#: longest texts and names that trackers take
LONGEST_TEXT = 500
LONGEST_NAME = 250
#: entries of an array that is written out
_SHORT = 8


def flatten(name: str, value: Any) -> dict[str, str]:
    """A value's parameters.

    Examples
    --------
    >>> from tardigrad.core.steps import PowerStep
    >>> flatten("step", PowerStep(0.1, 0.5))
    {'step': 'PowerStep', 'step.scale': '0.1', 'step.power': '0.5', 'step.offset': '1.0'}
    >>> flatten("step", np.array([0.1, 0.2])), flatten("X", np.zeros((60_000, 784)))
    ({'step': '[0.1, 0.2]'}, {'X': 'float64 (60000, 784)'})
    """
    if isinstance(value, Plain):
        found = {name: type(value).__name__}
        for key, item in _fields(value).items():
            found.update(flatten(f"{name}.{key}", item))
        return found
    if isinstance(value, Mapping):
        return {long: text for key, item in value.items() for long, text in flatten(f"{name}.{key}", item).items()}
    if isinstance(value, (list, tuple)) and any(isinstance(item, (Plain, np.ndarray)) for item in value):
        return {long: text for i, item in enumerate(value) for long, text in flatten(f"{name}.{i}", item).items()}
    return {_name(name): _shortened(_text(value))}


def _fields(value: Plain) -> dict[str, Any]:
    try:
        return value.fields()
    except TypeError:  # of a user's class that is not to be saved
        return {}


def _text(value: Any) -> str:
    if sp.issparse(value):
        return f"sparse {value.dtype} {value.shape}"
    if isinstance(value, np.ndarray):
        return str(value.tolist()) if value.size <= _SHORT else f"{value.dtype} {value.shape}"
    return str(value)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 4]} ..."


def _name(name: str) -> str:
    """A name of letters that trackers take."""
    return re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)[:LONGEST_NAME]
