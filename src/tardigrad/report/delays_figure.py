"""An epoch's time against the probability of a delay: a panel an engine, a colour a method.

Rules of this file:

- whatever is drawn is in the rows: nothing is computed here;
- times are relative to those without delays, so that threads and a virtual clock compare; seconds stand in the titles.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tardigrad.report.style import COLOURS, new_figure, save_figure, tidy


def draw_delays(rows: Sequence[dict[str, Any]], title: str, path: str | Path) -> Any:
    """Draw and save it.

    Parameters
    ----------
    rows : sequence of dict
        Of `tardigrad.papers.async_eigenpro.figure1`, one a curve.
    title : str
        Of all.
    path : path
        Where to save.
    """
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    figure = new_figure(5.0 * len(engines), 4.0)
    panels = figure.subplots(1, len(engines), sharey=True, squeeze=False)[0]
    for panel, engine in zip(panels, engines, strict=True):
        mine = [row for row in rows if row["engine"] == engine]
        name = f"{engine}, {mine[0]['workers']} workers; {mine[0]['seconds'][0]:.3g} s without delays"
        tidy(panel, name, "probability that an iteration is delayed", "epoch, relative" if panel is panels[0] else "")
        for colour, row in zip(COLOURS, mine, strict=False):
            panel.plot(row["probability"], row["relative"], "o-", color=colour, linewidth=1.6, label=row["method"])
            panel.plot(row["probability"], row["expected"], color=colour, linewidth=1.0, linestyle="--")
        panel.plot([], [], color="0.3", linewidth=1.0, linestyle="--", label="expected of the delays alone")
        panel.set_ylim(0, 1.08 * max(max(row["relative"] + row["expected"]) for row in rows))
        panel.title.set_fontsize("small")
    panels[0].legend(frameon=False, loc="upper left", fontsize="small")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    save_figure(figure, path)
    return figure
