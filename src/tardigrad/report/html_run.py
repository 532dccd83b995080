"""What a report knows of a run, and how text, numbers and tables become HTML.

Rules of this file:

- a cell of a table is text, which is escaped here, or `Html`, which its maker has escaped;
- numbers are rounded for reading; what is not a number is a dash.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from tardigrad.core.result import Result


@dataclass(frozen=True)
class ReportedRun:
    """A run in a report.

    Attributes
    ----------
    name : str
        The name of its folder, say.
    result : Result
        The run.
    config : str or None
        The text of its run file.
    notes : tuple of str
        What the page must say of its curves.
    """

    name: str
    result: Result
    config: str | None = None
    notes: tuple[str, ...] = ()


#: what stands where there is no number
NOTHING = "\u2013"


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


@dataclass(frozen=True)
class Section:
    """A part of the page, and what its scripts are given. It is left out if its HTML is empty."""

    name: str
    title: str
    html: str
    data: dict[str, Any] = field(default_factory=dict)

    def as_html(self) -> str:
        """With its heading."""
        return f'<section id="{self.name}"><h2>{escape(self.title)}</h2>\n{self.html}\n</section>'


def number(value: Any, digits: int = 4) -> str:
    """A number for people.

    Examples
    --------
    >>> number(1234567.8), number(0.000123456), number(3.0), number(float("nan")) == NOTHING
    ('1,234,568', '0.0001235', '3', True)
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, int) or (abs(value) < 1e15 and float(value).is_integer()):
        return f"{int(value):,}"
    return f"{value:,.0f}" if 10 ** (digits - 1) <= abs(value) < 1e15 else f"{value:.{digits}g}"


def text(value: Any) -> str:
    """A cell's content, escaped."""
    return value if isinstance(value, Html) else escape(str(value))


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]], caption: str, kinds: str = "") -> Html:
    """A table; the first cell of a row is its heading.

    Parameters
    ----------
    head, rows : sequences of cells
        Escaped unless they are `Html`.
    caption : str
        What the table shows.
    kinds : str
        A letter a column: n for numbers, which are aligned to the right; any other for text, as all columns are that it lacks.
    """
    kinds = kinds.ljust(len(head), "t")
    marks = [' class="n"' if kind == "n" else "" for kind in kinds]
    first = "".join(f'<th scope="col"{mark}>{text(cell)}</th>' for cell, mark in zip(head, marks, strict=True))
    body = []
    for row in rows:
        cells = "".join(f"<td{mark}>{text(cell)}</td>" for cell, mark in zip(row[1:], marks[1:], strict=True))
        body.append(f'<tr><th scope="row"{marks[0]}>{text(row[0])}</th>{cells}</tr>')
    named = escape(caption)
    return Html(
        f'<div class="scroll" role="region" aria-label="{named}" tabindex="0"><table><caption>{named}</caption>'
        f"<thead><tr>{first}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def notes(lines: Sequence[str]) -> str:
    """What the reader must know, as a list; nothing where there is nothing to say."""
    return f'<ul class="notes">{"".join(f"<li>{text(line)}</li>" for line in lines)}</ul>' if lines else ""


def swatch(place: int, name: str) -> Html:
    """A run's name behind its colour and dash."""
    return Html(f'<span class="swatch" data-series="{place}" aria-hidden="true"></span>{escape(name)}')


def figure(kind: str, label: str, caption: str, key: str = "") -> str:
    """A place for a picture that a script draws; `label` and `caption` say in words what it shows."""
    return (
        f'<figure><div class="plot {kind}" data-plot="{kind}" data-key="{escape(key)}" tabindex="0" role="group"'
        f' aria-label="{escape(label)}"></div><figcaption>{text(caption)}</figcaption></figure>'
    )
