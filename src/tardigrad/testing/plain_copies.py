"""Copies of what passes through a run, for checks that compare before and after."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tardigrad.core.plain import Plain, decode, encode
from tardigrad.core.task import Array, Payload


def round_trip(value: Plain) -> Any:
    """A plain object as it comes back from a file."""
    arrays: dict[str, Array] = {}
    tree = json.loads(json.dumps(encode(value, arrays)))
    return decode(tree, {name: array.copy() for name, array in arrays.items()})


def arrays_of(payload: Payload) -> tuple[Array, ...]:
    """The arrays of a payload."""
    return payload if isinstance(payload, tuple) else (payload,)


def copied(payload: Payload) -> Payload:
    """A payload whose arrays are its own."""
    copies = tuple(np.array(array) for array in arrays_of(payload))
    return copies if isinstance(payload, tuple) else copies[0]
