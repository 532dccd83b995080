"""What a run was made with, and where each value came from: the user, a default, theory, or a measurement.

Rules of this file:

- a value is the user's if it is not that of the signature; what `Rule.configure` changed is what `Rule.sources` says; where a
  solver set the run up, that is said instead of user;
- data are shown by shape and fingerprint, never by value;
- what a run's folder does not tell is "not recorded".
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import scipy.sparse as sp

from tardigrad.core.plain import Plain, same_bits
from tardigrad.core.problem import Problem, fingerprint_of
from tardigrad.core.result import Result
from tardigrad.core.trace import Trace
from tardigrad.report.html_run import NOTHING, Html, ReportedRun, Section, swatch, table

#: bytes of a problem's data up to which its constants are computed
CHEAP = 4 * 2**20
#: entries of an array up to which it is shown by value, and characters of a value
FEW, LONGEST = 6, 160


@dataclass(frozen=True)
class Row:
    """A parameter of a run."""

    part: str
    name: str
    value: str
    source: str


def section(runs: Sequence[ReportedRun]) -> Section:
    """The table; for several runs side by side, with the rows marked in which they differ."""
    columns = [{(row.part, row.name): row for row in parameters(run.result)} for run in runs]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    keys.sort(key=lambda key: PARTS.index(key[0]))
    if len(runs) == 1:
        only = [
            (_part(place, [*columns[0]]), key[1], Html(f"<code>{escape(row.value)}</code>"), _badge(row.source))
            for place, (key, row) in enumerate(columns[0].items())
        ]
        shown = table(["part", "name", "value", "source"], only, "Parameters, and where each came from")
        return Section("parameters", "Parameters", shown)
    rows: list[Sequence[Any]] = []
    for place, key in enumerate(keys):
        found = [column.get(key) for column in columns]
        differ = len({None if row is None else row.value for row in found}) > 1
        cells = [Html(NOTHING) if row is None else _value_and_source(row) for row in found]
        mark = Html('<span class="differs" title="the runs differ here">≠</span>' if differ else "")
        rows.append((_part(place, keys), key[1], mark, *cells))
    heads = ["part", "name", "differ", *(swatch(place, run.name) for place, run in enumerate(runs))]
    caption = "Parameters, and where each came from; where runs differ there is a ≠"
    return Section("parameters", "Parameters", table(heads, rows, caption))


#: the parts, in the order in which they are listed
PARTS = ("rule", "problem", "constants", "engine", "stop", "run", "made with")


def parameters(result: Result) -> list[Row]:
    """All parameters of a run, part by part."""
    rows = [
        *_rule(result),
        *_object("problem", result.problem, "not saved with the run"),
        *_constants(result.problem),
        *_object("engine", result.engine, "none"),
        *_object("stop", result.stop, "none: the trace ends the run"),
        *_run(result),
        *(Row("made with", name, value, "recorded") for name, value in result.made_with.items()),
    ]
    if result.solver is not None:  # what it was given itself is not known here
        rows = [dataclasses.replace(row, source=str(result.solver)) if row.source == "user" else row for row in rows]
    return rows


def _rule(result: Result) -> Iterator[Row]:
    """The rule as configured; a field that is not as given is what `Rule.sources` says."""
    rule, given = result.rule, result.given
    yield Row("rule", "", type(rule).__name__, "user")
    defaults = defaults_of(rule)
    before = given.fields() if type(given) is type(rule) and given is not None else None
    for name, value in rule.fields().items():
        if before is None:
            source = "not recorded"
        elif same_bits(value, before.get(name)):
            source = "default" if name in defaults and _equal(value, defaults[name]) else "user"
        else:
            source = type(rule).sources.get(name, "set by the rule's configure")
            if source.startswith("run:") and name == "concurrency":
                source = "default" if result.concurrency_asked is None else "user"
        yield Row("rule", name, described(value), source)


def _object(part: str, value: Plain | None, nothing: str) -> Iterator[Row]:
    """An object and its arguments, each the user's unless it is the default."""
    if value is None:
        yield Row(part, "", nothing, "not recorded" if part == "problem" else "user")
        return
    yield Row(part, "", type(value).__name__, "user")
    try:
        fields = value.fields()
    except TypeError:  # a class of a user that does not say what rebuilds it
        return
    if isinstance(value, Problem):
        yield Row(part, "clients, dim, dtype", f"{value.n_clients}, {value.dim}, {np.dtype(value.dtype)}", "data")
    defaults = defaults_of(value)
    for name, field in fields.items():
        usual = name in defaults and (_equal(field, defaults[name]) or _comes_by_itself(value, name, defaults[name]))
        yield Row(part, name, described(field), "default" if usual else "user")


def _constants(problem: Problem | None) -> Iterator[Row]:
    """How smooth the problem is, where it says so and that is cheap to compute."""
    if problem is None or type(problem).constants is Problem.constants or _size(problem) > CHEAP:
        return
    try:
        found = problem.constants()
    except Exception:  # a problem without constants for its loss, or a user's that raises
        return
    for name in ("L", "delta", "ell"):
        how = "computed from the data" if found.exact else "computed from the data, a bound"
        yield Row("constants", name, f"{getattr(found, name):.6g}", f"measured: {how}")


def _run(result: Result) -> Iterator[Row]:
    """The other arguments of `tardigrad.run`."""
    asked = result.concurrency_asked
    known = result.given is not None
    yield Row("run", "seed", str(result.seed), "default" if result.seed == 0 else "user")
    asked = asked or getattr(result.given, "concurrency", None)
    source = ("default" if asked is None else "user") if known else "not recorded"
    yield Row("run", "concurrency", str(result.concurrency), source)
    for name in ("max_staleness", "replicas", "snapshot_every"):
        value = getattr(result, name)
        yield Row("run", name, str(value), "default" if value is None else "user")
    start = "not recorded"
    if result.problem is not None:
        usual = np.broadcast_to(result.problem.x0(), result.x0.shape)
        start = "default" if np.array_equal(usual, result.x0) else "user"
    yield Row("run", "x0", described(result.x0), start)
    if result.checkpoint is None:
        yield Row("run", "checkpoint", "None", "default")
        return
    for row in _object("checkpoint", result.checkpoint, ""):
        if row.name not in ("", "folder"):  # where a run is saved is no parameter of it
            yield Row("run", f"checkpoint.{row.name}", row.value, row.source)


def described(value: Any) -> str:  # noqa: PLR0911
    """A value in short: nested objects as they are written, data by shape and fingerprint.

    Examples
    --------
    >>> described(0.1), described(np.zeros(2)), described([1, 2])
    ('0.1', '[0.0, 0.0]', '[1, 2]')
    >>> described(np.zeros((4, 5)))
    'float64 (4, 5), fingerprint 401285421df7'
    """
    if isinstance(value, np.ndarray):
        if value.size <= FEW and value.ndim <= 2:
            return str(value.tolist())
        return f"{value.dtype} {value.shape}, fingerprint {fingerprint_of(value)[:12]}"
    if sp.issparse(value):
        return f"sparse {value.dtype} {value.shape}, {value.nnz} entries, fingerprint {fingerprint_of(value)[:12]}"
    if isinstance(value, np.generic):
        return described(value.item())
    if isinstance(value, Trace):
        return f"trace of {len(value)} replies"
    if isinstance(value, Plain):
        try:
            fields = value.fields()
        except TypeError:
            return type(value).__name__
        defaults = defaults_of(value)
        inner = [
            f"{name}={described(field)}"
            for name, field in fields.items()
            if not (name in defaults and _equal(field, defaults[name]))
        ]
        return _cut(f"{type(value).__name__}({', '.join(inner)})")
    if isinstance(value, (list, tuple)):
        inner = [described(item) for item in value[: 2 * FEW]] + (["..."] if len(value) > 2 * FEW else [])
        return _cut(("[{}]" if isinstance(value, list) else "({})").format(", ".join(inner)))
    return _cut(value if isinstance(value, str) else repr(value))


def _cut(words: str) -> str:
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"


def defaults_of(value: object) -> dict[str, Any]:
    """What a class's constructor takes where nothing is given; also what it hands on to the class above as **kwargs."""
    found: dict[str, inspect.Parameter] = {}
    for cls in type(value).__mro__:
        taken = inspect.signature(cls).parameters.values()
        found = {one.name: one for one in taken} | found
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken):
            break
    return {name: one.default for name, one in found.items() if one.default is not inspect.Parameter.empty}


def _equal(value: Any, default: Any) -> bool:
    """Whether a value is the default: 0 and 0.0 are alike."""
    plain = (bool, int, float, str)
    return same_bits(value, default) or (isinstance(value, plain) and isinstance(default, plain) and value == default)


def _comes_by_itself(value: Plain, name: str, default: Any) -> bool:
    """Whether an argument that is None by default, which a constructor turned into something else, was left out."""
    fields = value.fields()
    if default is not None or _size(fields) > CHEAP:
        return False
    try:
        again = type(value)(**{key: field for key, field in fields.items() if key != name})
        return same_bits(again.fields()[name], fields[name])
    except Exception:  # the constructor of a user's class may do anything; then it was given
        return False


def _size(value: Any) -> int:
    """Bytes of the arrays in a plain value."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if sp.issparse(value):
        return int(value.nnz) * 12
    if isinstance(value, Plain):
        try:
            return _size(list(value.fields().values()))
        except TypeError:
            return 0
    if isinstance(value, dict):
        return _size(list(value.values()))
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else 0


def _part(place: int, keys: Sequence[tuple[str, str]]) -> Html:
    """The part of a row; it is not seen where it is that of the row above."""
    part = keys[place][0]
    return Html(f'<span class="again">{part}</span>' if place and keys[place - 1][0] == part else f"<b>{part}</b>")


def _value_and_source(row: Row) -> Html:
    return Html(f"<code>{escape(row.value)}</code> {_badge(row.source)}")


def _badge(source: str) -> Html:
    """A source; what is behind the colon of "theory: ..." stands beside it."""
    kind, _, rest = source.partition(": ")
    return Html(
        f'<span class="source {escape(kind.partition(" ")[0])}">{escape(kind)}</span>{" " + escape(rest) if rest else ""}'
    )
