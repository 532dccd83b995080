"""Many realisations of a run, a panel for each schedule: the band that they fill, their mean, one of them, and the averages.

Rules of this file:

- the band is from the least to the largest, so that no realisation is outside of it;
- constants stand in the titles: without them such a picture cannot be made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tardigrad.report.style import COLOURS, new_figure, save_figure, tidy


def draw_realisations(found: Sequence[Any], titles: Sequence[str], title: str, path: str | Path) -> Any:
    """Draw and save it.

    Parameters
    ----------
    found : sequence of Realisations
        From `tardigrad.papers.dasgd`, one a panel.
    titles : sequence of str
        Of the panels.
    title : str
        Of all.
    path : path
        Where to save.
    """
    figure = new_figure(5.6 * len(found), 4.2)
    axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for i, (panel, one, name) in enumerate(zip(axes, found, titles, strict=True)):
        tidy(panel, name, "updates", "f(x) - f(x*)" if i == 0 else "")
        shown = one.updates > 0
        n, last, ergodic = one.updates[shown], one.last[shown], one.ergodic[shown]
        panel.fill_between(
            n, last.min(axis=1), last.max(axis=1), color=COLOURS[0], alpha=0.25, linewidth=0, label="all realisations"
        )
        panel.plot(n, last[:, 0], color=COLOURS[5], linewidth=1.0, label="one realisation")
        panel.plot(n, last.mean(axis=1), color=COLOURS[0], linewidth=1.6, label="their mean")
        panel.plot(n, ergodic.mean(axis=1), color=COLOURS[1], linewidth=1.6, linestyle="--", label="ergodic average, mean")
        panel.set(xscale="log", yscale="log", xlim=(1, n[-1]))
        panel.title.set_fontsize("small")
    axes[0].legend(frameon=False, loc="lower left", fontsize="small")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    save_figure(figure, path)
    return figure
