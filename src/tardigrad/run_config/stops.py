"""The [stop] section: a key for each condition, all of them joined; the first that holds ends the run.

Rules of this file:

- keys are the names of the conditions' classes: ``MaxUpdates`` is max_updates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tardigrad.core import stopping
from tardigrad.core.stopping import AnyOf, Stop
from tardigrad.run_config.builder import Builder
from tardigrad.run_config.place import Place, located, nearest
from tardigrad.run_config.signatures import parameters

#: conditions by their keys
STOPS: dict[str, Any] = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(): value
    for name, value in vars(stopping).items()
    if isinstance(value, type) and issubclass(value, Stop) and value not in (Stop, AnyOf)
}


def stop_of(table: Any, builder: Builder, place: Place) -> Stop:
    """What [stop] says: ``max_updates = 1000``, ``tolerance = { measure = "loss", at_most = 0.1 }``, or lists of these."""
    if not isinstance(table, Mapping):
        raise place.error(f"must be a table, such as max_updates = 1000, not {table!r}")
    parts: list[Stop] = []
    for key, value in table.items():
        if key not in STOPS:
            hint = builder.elsewhere(key, "stop") or nearest(key, STOPS)
            raise place.error(f"has no key {key!r}: {hint}it takes {', '.join(STOPS)}, and ends at the first that holds")
        for i, item in enumerate(value if isinstance(value, list) else [value]):
            parts.append(_condition(key, item, builder, place / key / i if isinstance(value, list) else place / key))
    if not parts:
        raise place.error(f"is empty: give at least one of {', '.join(STOPS)}")
    return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))


def _condition(key: str, value: Any, builder: Builder, place: Place) -> Stop:
    """One condition: a number where that is all that it takes, else a table."""
    takes = parameters(STOPS[key])
    if isinstance(value, Mapping):
        return builder.call(STOPS[key], key, value, place, {})
    if len(takes) > 1:
        raise place.error_of_value(f"must be a table of {', '.join(takes)}, not {value!r}")
    (only,) = takes.values()
    number = builder.value(value, only, place)
    with located(place.value):
        return STOPS[key](number)
