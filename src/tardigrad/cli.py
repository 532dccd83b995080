"""The command line. What machines read goes to standard output with --json; progress goes to standard error.

Rules of this file:

- commands are thin: they call a function and print its result; what stands around them is `tardigrad.command`;
- nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tardigrad import __version__
from tardigrad.command import as_command
from tardigrad.core.errors import InvalidInputError

app = typer.Typer(
    name="tardigrad",
    help="Asynchronous stochastic optimization that you can plan, run and replay.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
#: what stands behind an option that takes no value
FLAG = ""
AsJson = Annotated[bool, typer.Option("--json", metavar=FLAG, help="Print one JSON object instead of a table.")]

Modules = Annotated[list[str] | None, typer.Option("--import", help="Module or file that defines the run's own classes.")]
Config = Annotated[
    Path | None, typer.Option(help="The run's file: for its own code, and its problem if that was not saved (RUN/config.toml).")
]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a saved run.")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", metavar=FLAG, help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the picture and the saved runs.")] = Path("demo"),
    data: Annotated[str | None, typer.Option(help="fashion-mnist or digits; by default the first if it is found.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the run.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Synchronous against asynchronous SGD on 4 worker processes, one of them 8 times slower."""
    from tardigrad.demo import run_demo

    found = run_demo(out, seed=seed, data=data)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        found.show(out)
    if found.replay_identical is not True:
        raise typer.Exit(130 if found.replay_identical is None else 1)


@app.command("run")
def run_command(
    config: Annotated[str | None, typer.Argument(metavar="CONFIG.toml", help="A run file, such as RUN/config.toml.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; by default runs/NAME, NAME-2, ...")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change a key: rule.step=0.1; may come again.")] = None,
    check: Annotated[bool, typer.Option("--check", metavar=FLAG, help="Check everything, start nothing.")] = False,
    example: Annotated[
        bool, typer.Option("--print-config", metavar=FLAG, help="Print an example by its name (or the list of them) instead.")
    ] = False,
    modules: Modules = None,
    as_json: AsJson = False,
) -> None:
    """Run what a TOML file describes: problem, rule, engine, stop; checked as a whole before anything starts."""
    if example:
        from tardigrad.run_config.examples import as_table, text_of

        typer.echo(as_table() if config is None else text_of(config), nl=config is None)
        return
    if config is None:
        raise InvalidInputError("run needs a run file; tardigrad run --print-config shows examples to start from")
    from tardigrad.run_config import prepare, run_file

    if check:
        prepare(config, out, settings or (), modules or ())
        typer.echo(json.dumps({"valid": True}) if as_json else f"{config}: nothing is wrong")
        return
    found = run_file(config, out, settings or (), modules or ())
    typer.echo(json.dumps(found.to_json()) if as_json else str(found))
    if found.exit_code:
        raise typer.Exit(found.exit_code)


@app.command()
def replay(
    run: RunFolder,
    modules: Modules = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Run a saved run again from its trace, and tell whether every bit is the same."""
    problem = _problem_of(config, modules)
    from tardigrad.engines.replay import replay as replay_run

    found = replay_run(run, problem)
    if as_json:
        report: dict[str, Any] = {"replies": len(found.result.trace), "updates": found.result.trace.updates}
        typer.echo(json.dumps({"replay_identical": found.identical, "difference": found.difference, **report}))
    elif found.identical:
        typer.echo(f"{run}: {len(found.result.trace)} replies replayed, every bit is the same")
    else:
        typer.echo(f"{run}: the replay differs: {found.difference}")
    if not found.identical:
        raise typer.Exit(1)


@app.command()
def resume(
    run: RunFolder,
    updates: Annotated[int | None, typer.Option(help="End after so many updates in all, instead of as saved.")] = None,
    seconds: Annotated[float | None, typer.Option(help="End after so many seconds in all, instead of as saved.")] = None,
    any_version: Annotated[bool, typer.Option("--any-version", metavar=FLAG, help="Go on although versions differ.")] = False,
    modules: Modules = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a run from its last checkpoint; the folder then holds the whole run."""
    problem = _problem_of(config, modules)
    from tardigrad.core.observers import Progress
    from tardigrad.core.resume import resume as resume_run
    from tardigrad.core.stopping import AnyOf, MaxSeconds, MaxUpdates, Status

    limits = ([] if updates is None else [MaxUpdates(updates)]) + ([] if seconds is None else [MaxSeconds(seconds)])
    stop = AnyOf(tuple(limits)) if limits else None
    if config is not None:
        warnings.filterwarnings("ignore", "saved without the problem")  # the run file has it
    result = resume_run(run, problem=problem, stop=stop, observers=[Progress("resume")], any_version=any_version)
    report = {"status": result.status, "message": result.message, "updates": result.trace.updates}
    typer.echo(json.dumps(report) if as_json else f"{run}: {result.message}")
    if result.status is Status.INTERRUPTED:
        raise typer.Exit(130)
    if result.status in (Status.DIVERGED, Status.STALLED):
        raise typer.Exit(1)


@app.command()
def trace(
    run: Annotated[Path, typer.Argument(help="Folder of a saved run, or a file that Trace.save wrote.")],
    chrome: Annotated[Path | None, typer.Option(help="Write the Chrome trace format, for ui.perfetto.dev.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the rows as comma-separated values.")] = None,
    as_json: AsJson = False,
) -> None:
    """Staleness, its growth, and how uneven the workers of a saved run were; its trace for other programs."""
    from tardigrad.core.json_lines import for_json
    from tardigrad.core.trace import Trace

    found = Trace.load(run)
    parts: dict[str, Any] = {"summary": found.summary(), "growth": found.growth(), "delay_factor": found.delay_factor()}
    if chrome is not None:
        found.to_chrome(chrome)
    if csv is not None:
        found.to_csv(csv)
    if as_json:
        typer.echo(json.dumps({name: for_json(asdict(part)) for name, part in parts.items()}))
    elif len(found):
        typer.echo("\n".join(map(str, parts.values())))
    else:
        typer.echo(f"{run}: no replies are recorded (a lock-free run records none), {found.updates} updates")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of saved runs, drawn side by side.")],
    out: Annotated[Path, typer.Option(help="The page to write; an older one is replaced.")] = Path("report.html"),
    snapshots: Annotated[
        int | None, typer.Option(help="Replay runs that kept fewer snapshots, for about so many points of their curves.")
    ] = None,
    modules: Modules = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page about saved runs: convergence, staleness, who worked when, and all parameters."""
    problem = _problem_of(config, modules)
    from tardigrad.report.html_page import load_runs, write_report

    page = write_report(load_runs(runs, problem), out, snapshots)
    size = page.stat().st_size
    typer.echo(json.dumps({"report": str(page), "bytes": size}) if as_json else f"{page}: {size / 1000:.0f} kB")


@app.command()
def bench(
    name: Annotated[
        str,
        typer.Argument(
            help="Which benchmark: simulator, engines, linear, dasgd, clients, kernel (10 minutes), crash or soak (10 minutes)."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Measure speed beside a control in the same run."""
    from tardigrad.benchmarks.harness import run_benchmark

    found = run_benchmark(name)
    typer.echo(json.dumps(found.to_json()) if as_json else found.table())


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(help="Which table or figure; see --list.")] = None,
    listing: Annotated[bool, typer.Option("--list", metavar=FLAG, help="Print the names that there are.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw it to this file, where it is a figure.")] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute a table or figure of a paper, with the published numbers beside."""
    from tardigrad.papers import PAPERS
    from tardigrad.papers import reproduce as recompute

    if listing:
        names = {known: what for known, (_, _, what) in PAPERS.items()}
        typer.echo(json.dumps(names) if as_json else "\n".join(f"{known}  {what}" for known, what in names.items()))
        return
    if name is None:
        raise InvalidInputError("reproduce needs the name of a table or figure: tardigrad reproduce --list shows them")
    if plot is not None:  # before minutes of work
        from tardigrad.report.style import check_place

        check_place(plot)
    found = recompute(name)
    if plot is not None:
        if found.draw is None:
            raise InvalidInputError(f"{name} is a table: leave --plot out")
        found.draw(plot)
    typer.echo(json.dumps(found.to_json()) if as_json else found.table())


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(help="Which data set; without it, the known ones and where they are.")] = None,
    as_json: AsJson = False,
) -> None:
    """Download a known data set into the cache, or list the known ones."""
    from tardigrad import datasets

    if name is None:
        known = datasets.listing()
        typer.echo(json.dumps([asdict(each) for each in known]) if as_json else "\n".join(map(str, known)))
        return
    if name in datasets.names() and not datasets.available(name):
        typer.echo(f"{name}: downloading, which can take some minutes", err=True)
    try:
        found = datasets.download(name)
    except KeyboardInterrupt:
        typer.echo(f"tardigrad: interrupted, nothing of {name} was written", err=True)
        raise typer.Exit(130) from None
    typer.echo(json.dumps(asdict(found)) if as_json else str(found))


def _problem_of(config: Path | None, modules: list[str] | None) -> Any:
    """Import what a run's own classes are defined in; the problem of its run file, where that is given."""
    from tardigrad.run_config.own_code import import_all

    import_all(modules or [], Path.cwd())
    if config is None:
        return None
    from tardigrad.run_config import problem_of

    return problem_of(config)


def main() -> None:
    """Entry point."""
    with as_command():
        app()
