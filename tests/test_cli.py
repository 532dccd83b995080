"""The command line: what it prints where, and how it fails."""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest

import tardigrad as td
from command_line import process, tardigrad
from conftest import make_problem
from same_runs import assert_same_runs
from tardigrad import cli, papers
from tardigrad.demo import SETTINGS

#: the demo in a quarter of its time: half of the gradients, each in half of the seconds
SHORT = dataclasses.replace(SETTINGS["digits"], n_gradients=800, seconds=0.002)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SETTINGS, "digits", SHORT)
        done = tardigrad("demo", "--data", "digits", "--out", folder, "--json")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_demo_json_has_all_methods_and_the_replay(demo):
    _, done = demo
    found = json.loads(done.stdout)
    assert found["replay_identical"] is True
    assert list(found["methods"]) == ["SyncSGD", "AsyncSGD", "AsyncBC"]
    for numbers in found["methods"].values():
        for key in ("seconds", "updates", "accuracy", "seconds_to_target", "utilisation", "staleness_mean", "staleness_max"):
            assert numbers[key] is not None, key
        assert 0.9 < numbers["accuracy"] <= 1
    sync, asynchronous, corrected = found["methods"].values()
    assert corrected["updates"] == (800 - 4 + 1) // 2 + 1  # a full round, then two gradients an update
    assert asynchronous["updates"] == 4 * sync["updates"]
    assert sync["staleness_max"] == 0 < asynchronous["staleness_max"]
    assert asynchronous["utilisation"] > sync["utilisation"]


def test_demo_shows_progress_on_standard_error_only(demo):
    assert "AsyncSGD" in demo[1].stderr


def test_demo_leaves_a_picture_and_runs_that_replay(demo):
    folder, _ = demo
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    for name in ("SyncSGD", "AsyncSGD", "AsyncBC"):
        done = tardigrad("replay", folder / name, "--json")
        assert json.loads(done.stdout)["replay_identical"] is True, done.stderr
        assert done.returncode == 0


def test_replay_for_people(tmp_path):
    td.run(td.AsyncSGD(0.1), make_problem(), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(9)).save(tmp_path)
    done = process("replay", tmp_path)
    assert done.stdout == f"{tmp_path}: 9 replies replayed, every bit is the same\n"


def test_replay_that_differs_says_where_and_fails(tmp_path):
    result = td.run(td.AsyncSGD(0.1), make_problem(), td.Simulated(td.Constant(1.0)), stop=td.MaxUpdates(9))
    result.state.x[0] += 1e-9
    result.save(tmp_path)
    done = tardigrad("replay", tmp_path)
    assert done.returncode == 1
    assert "the replay differs: the final states differ" in done.stdout


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    timing = td.PerClient([1.0, 1.0, 1.0, 8.0])
    result = td.run(td.AsyncSGD(0.1), make_problem(), td.Simulated(timing), stop=td.MaxUpdates(1000))
    result.save(folder)
    return folder, result.trace


def test_trace_for_people(saved):
    folder, trace = saved
    done = tardigrad("trace", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{trace.summary()}\n{trace.growth()}\n{trace.delay_factor()}\n"
    assert "c = 6.25" in done.stdout


def test_trace_as_json_and_for_other_programs(saved, tmp_path):
    folder, trace = saved
    done = tardigrad("trace", folder, "--json", "--chrome", tmp_path / "run.json", "--csv", tmp_path / "run.csv")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert set(found) == {"summary", "growth", "delay_factor"}
    assert found["summary"]["staleness_max"] == 24
    assert found["delay_factor"]["updates"] == {"0": 8, "1": 8, "2": 8, "3": 1}
    assert found["growth"]["exponent"] == trace.growth().exponent
    assert len(json.loads((tmp_path / "run.json").read_text())["traceEvents"]) > 1000
    assert len((tmp_path / "run.csv").read_text().splitlines()) == 1001


def test_trace_of_a_file_writes_what_is_not_known_as_null(tmp_path):
    td.Trace.from_rows([], updates=0).save(tmp_path / "t.npz")
    done = tardigrad("trace", tmp_path / "t.npz", "--json")
    found = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["growth"]["exponent"] is None
    assert found["delay_factor"]["c"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trace", "/nonexistent"), "cannot read /nonexistent: No such file"),
        (("trace", "/"), "holds no saved run"),
        (("trace",), "Missing argument"),
        (("replay", "/nonexistent"), "holds no saved run"),
        (("report", "/nonexistent"), "/nonexistent holds no saved run"),
        (("report",), "Missing argument"),
        (("resume", "/nonexistent"), "holds no saved run"),
        (("bench", "nothing"), "unknown benchmark 'nothing': choose one of simulator"),
        (("demo", "--data", "mnist"), "the demo knows the data sets fashion-mnist and digits, not 'mnist'"),
        (("demo", "--out", "/dev/null/demo"), "cannot write /dev/null/demo"),
        (("demo", "--seed", "-4"), "seed must be an integer >= 0"),
        (("replay",), "Missing argument"),
        (("run",), "run needs a run file; tardigrad run --print-config shows examples"),
        (("run", "/nonexistent.toml"), "cannot read /nonexistent.toml: No such file"),
        (("run", "/"), "/ is a folder: give a run file, such as /config.toml"),
        (("run", "--print-config", "sofmax"), "there is no example 'sofmax': did you mean 'softmax'? the examples are"),
        (("replay", "/nonexistent", "--config", "/nonexistent.toml"), "cannot read /nonexistent.toml"),
        (("replay", "/nonexistent", "--import", "nope.py"), "cannot import nope.py: there is no file"),
        (("fly",), "No such command"),
    ],
)
def test_errors_are_one_message_without_a_traceback(arguments, message):
    done = tardigrad(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert message.split("|")[0] in done.stderr or message.split("|")[-1] in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["", "demo", "run", "replay", "resume", "trace", "report", "bench", "reproduce", "data"])
def test_help_shows_a_value_only_where_an_option_takes_one(command):
    done = tardigrad(*command.split(), "--help", width=80)
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if "<bool>" in line]
    assert all("--help" in line for line in lines), lines  # that one is Typer's own


def test_a_warning_is_one_line_without_a_line_of_the_library(tmp_path):
    (tmp_path / "my.toml").write_text(tardigrad("run", "--print-config", "softmax").stdout)
    changed = ("--set", "partition.alpha=1e-300", "--set", "timing.mean=1.0", "--check")
    done = process("run", "my.toml", *changed, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "my.toml: nothing is wrong\n")
    assert done.stderr == "tardigrad: warning: 2 of 8 clients got no rows and are left out: n is 6\n"


def test_only_warnings_for_the_user_lose_their_line(monkeypatch):
    monkeypatch.setattr(cli, "app", lambda: shown.extend(map(text_of, (UserWarning, RuntimeWarning))))
    shown, before = [], warnings.formatwarning

    def text_of(category):
        return warnings.formatwarning("overflow", category, "mine.py", 7)

    cli.main()
    assert shown[0] == "tardigrad: warning: overflow\n"
    assert shown[1].startswith("mine.py:7: RuntimeWarning: overflow")
    assert warnings.formatwarning is before


def test_the_trace_of_a_run_without_replies_says_so(tmp_path):
    td.Trace.from_rows([], updates=7).save(tmp_path / "t.npz")
    done = tardigrad("trace", tmp_path / "t.npz")
    assert done.stdout == f"{tmp_path}/t.npz: no replies are recorded (a lock-free run records none), 7 updates\n"


@pytest.mark.parametrize("command", ["replay", "resume", "report", "trace"])
def test_a_run_that_was_never_saved_is_started_again(command, tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "config.toml").write_text("")
    done = tardigrad(command, "a b", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("tardigrad: a b holds no saved run (no run.json): it was not begun, or ended before it was")
    assert done.stderr.endswith("start it again, tardigrad run 'a b/config.toml'\n")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere/f.png", "there is no folder nowhere"),
        (".", "it is a folder"),
        ("f.xyz", "no picture ends in .xyz; known are "),
    ],
)
def test_where_a_picture_cannot_go_nothing_is_computed(place, message, tmp_path, monkeypatch):
    monkeypatch.setattr(papers, "reproduce", lambda name: pytest.fail("minutes of work"))
    done = tardigrad("reproduce", "dasgd-figure1", "--plot", place, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_error_ends_a_process_with_one_message():
    done = process("trace", "/nonexistent")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tardigrad: cannot read /nonexistent: No such file")
    assert done.stderr.count("\n") == 1


def test_report_writes_a_page_and_replaces_an_older_one(saved, tmp_path):
    folder, page = saved[0], tmp_path / "page.html"
    page.write_text("old")
    done = tardigrad("report", folder, "--out", page)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{page}: {page.stat().st_size / 1000:.0f} kB\n"
    alone = page.read_text()
    assert f"<h1>{folder.name}</h1>" in alone
    assert "only its first and last iterate were kept" in alone
    done = tardigrad("report", folder, folder, "--out", page, "--snapshots", 11, "--json")
    assert json.loads(done.stdout) == {"report": str(page), "bytes": page.stat().st_size}, done.stderr
    assert f"<h1>{folder.name}, {folder.name} (2)</h1>" in page.read_text()
    assert "were computed by a replay" in page.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_report_takes_the_problem_from_a_run_file(tmp_path):
    (tmp_path / "my.toml").write_text(tardigrad("run", "--print-config", "own-gradient").stdout)
    assert tardigrad("run", "my.toml", cwd=tmp_path).returncode == 0
    done = tardigrad("report", "runs/my", "--config", "runs/my/config.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"name":"objective"' in (tmp_path / "report.html").read_text()


def test_report_names_the_folder_that_is_no_run(saved, tmp_path):
    done = tardigrad("report", saved[0], tmp_path, "--out", tmp_path / "page.html")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"tardigrad: {tmp_path} holds no saved run")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_one_message(saved):
    for option in ("--chrome", "--csv"):
        done = tardigrad("trace", saved[0], option, "/dev/null/x")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("tardigrad: cannot write /dev/null/x: ")
        assert done.stderr.count("\n") == 1


def cut(folder, n=9):
    engine = td.Simulated(td.Exponential(1.0))
    return td.run(td.AsyncSGD(0.1), make_problem(), engine, stop=td.MaxUpdates(n), checkpoint=folder)


def test_resume_goes_on_to_the_bits_of_the_uninterrupted_run(tmp_path):
    whole = cut(tmp_path / "whole", 30)
    cut(tmp_path / "cut")
    done = tardigrad("resume", tmp_path / "cut", "--updates", 30)
    assert done.stdout == f"{tmp_path / 'cut'}: reached the limit of 30 updates\n", done.stderr
    assert "resume" in done.stderr
    assert_same_runs(td.Result.load(tmp_path / "cut"), whole)
    done = tardigrad("resume", tmp_path / "cut", "--json")  # it has ended
    assert json.loads(done.stdout) == {
        "status": "max_updates",
        "message": "reached the limit of 30 updates",
        "updates": 30,
    }
    assert done.returncode == 0


def test_resume_with_a_limit_of_seconds(tmp_path):
    cut(tmp_path)
    done = tardigrad("resume", tmp_path, "--seconds", 20, "--updates", 100_000, "--json")
    assert json.loads(done.stdout)["status"] == "max_seconds", done.stderr
    assert td.Result.load(tmp_path).trace["received"].max() <= 20


def test_resume_refuses_another_version_unless_told(tmp_path):
    result = cut(tmp_path)
    result.made_with["numpy"] = "1.0.0"
    result.save(tmp_path)
    done = tardigrad("resume", tmp_path, "--updates", 12)
    assert (done.returncode, done.stdout) == (2, "")
    assert "was made with numpy 1.0.0, here" in done.stderr
    assert "Traceback" not in done.stderr
    assert tardigrad("resume", tmp_path, "--updates", 12, "--any-version").returncode == 0


def test_ctrl_c_while_a_run_is_resumed_leaves_it_to_be_resumed(tmp_path):
    cut(td.Checkpoint(tmp_path, every_updates=3000))
    command = [sys.executable, "-m", "tardigrad", "resume", str(tmp_path), "--updates", "1000000000"]
    resumed = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    while td.Result.load(tmp_path).state.version == 9 and resumed.poll() is None:
        time.sleep(0.05)
    os.killpg(resumed.pid, signal.SIGINT)
    out, errors = resumed.communicate(timeout=60)
    assert resumed.returncode == 130, errors
    assert f"{tmp_path}: interrupted after" in out
    version = td.Result.load(tmp_path).state.version
    assert version > 3000
    assert td.resume(tmp_path, stop=td.MaxUpdates(version + 5)).state.version == version + 5


#: the demo, short until SyncSGD has ended; the simulations in which the next step is chosen then last until Ctrl-C
SHORT_UNTIL_A_STEP_IS_CHOSEN = """
import dataclasses
import pathlib
import sys

from tardigrad import cli, demo

choose, short = demo.choose_step, dataclasses.replace(demo.SETTINGS["digits"], n_gradients=80, seconds=0.002)


def choose_step(name, problem, engine, setting, seed):
    if name == "AsyncSGD":
        setting = dataclasses.replace(setting, n_gradients=10**6)
        pathlib.Path(sys.argv[-1], "chooses").touch()
    return choose(name, problem, engine, setting, seed)


if __name__ == "__main__":  # workers import this file
    demo.choose_step = choose_step
    demo.SETTINGS["digits"] = short
    cli.main()
"""


def test_ctrl_c_ends_the_demo_with_what_was_done(tmp_path):
    script = tmp_path / "short.py"
    script.write_text(SHORT_UNTIL_A_STEP_IS_CHOSEN)
    command = [sys.executable, str(script), "demo", "--data", "digits", "--out", str(tmp_path)]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    while not (tmp_path / "chooses").exists() and demo.poll() is None:
        time.sleep(0.05)
    os.killpg(demo.pid, signal.SIGINT)
    _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 130, errors
    assert "Traceback" not in errors
    assert td.Result.load(tmp_path / "SyncSGD").status is td.Status.MAX_ORACLE_CALLS
    assert not (tmp_path / "AsyncSGD").exists()


@pytest.fixture(scope="module")
def once():
    """A table or figure that two commands want is computed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(papers, "reproduce", functools.cache(papers.reproduce))
        yield


def test_reproduce_draws_figures_only(tmp_path, once):
    done = tardigrad("reproduce", "apsgd-bound", "--json", "--plot", tmp_path / "bound.png")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["rows"]) == 10
    assert (tmp_path / "bound.png").exists()
    refused = tardigrad("reproduce", "apsgd-table2", "--plot", tmp_path / "table.png")
    assert refused.returncode == 2
    assert "apsgd-table2 is a table" in refused.stderr


def test_help_and_version():
    assert "demo" in tardigrad("--help").stdout
    assert process("--version").stdout == f"{td.__version__}\n"
    assert "Usage" in tardigrad().stdout + tardigrad().stderr


def test_reproduce_json_and_table(once):
    done = tardigrad("reproduce", "apsgd-table2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["name"] == "apsgd-table2"
    assert [row["reproduced"] for row in found["rows"]] == [row["published"] for row in found["rows"]]
    shown = tardigrad("reproduce", "apsgd-table2").stdout
    assert "15 of 15 published rows reproduced" in shown


def test_reproduce_lists_names_and_suggests_the_nearest():
    listed = tardigrad("reproduce", "--list").stdout
    assert [line.split()[0] for line in listed.splitlines()][:3] == ["apsgd-table1", "apsgd-table2", "apsgd-table3"]
    assert "apsgd-table1" in json.loads(tardigrad("reproduce", "--list", "--json").stdout)
    done = tardigrad("reproduce", "apsgd-tabel3")
    assert done.returncode == 2
    assert done.stderr.startswith("tardigrad: no table or figure is named 'apsgd-tabel3'; did you mean apsgd-table3")
    assert "tardigrad reproduce --list" in tardigrad("reproduce").stderr


def test_run_prints_its_examples_and_runs_them(tmp_path):
    listed = tardigrad("run", "--print-config").stdout
    assert "linear-system   A linear system A x = b" in listed
    assert "tardigrad run --print-config softmax > my.toml; tardigrad run my.toml" in listed
    (tmp_path / "my.toml").write_text(tardigrad("run", "--print-config", "quadratics").stdout)
    done = tardigrad("run", "my.toml", "--set", "stop.max_updates=100", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # standard error is no terminal here
    lines = done.stdout.splitlines()
    assert lines[0] == "runs/my: reached the limit of 100 updates"
    assert lines[1].startswith("  100 updates, ")
    assert lines[-1] == "  next: tardigrad report runs/my; tardigrad replay runs/my"
    assert tardigrad("replay", "runs/my", cwd=tmp_path).returncode == 0
    again = tardigrad("run", "runs/my/config.toml", "--json", cwd=tmp_path)
    found = json.loads(again.stdout)
    assert (found["identical"], found["compared"]) == (True, "every bit is the same as in runs/my")
    assert (found["status"], found["updates"], found["folder"]) == ("max_updates", 100, "runs/my-2")
    assert set(found["measures"]) == {"objective", "distance", "gradient_norm"}


def test_run_checks_without_a_trace_of_it(tmp_path):
    (tmp_path / "my.toml").write_text(tardigrad("run", "--print-config", "softmax").stdout)
    done = tardigrad("run", "my.toml", "--check", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "my.toml: nothing is wrong\n")
    assert json.loads(tardigrad("run", "my.toml", "--check", "--json", cwd=tmp_path).stdout) == {"valid": True}
    done = tardigrad("run", "my.toml", "--check", "--set", "rule.stpe=1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    message = "tardigrad: my.toml: [rule] has no key 'stpe': did you mean 'step'? AsyncSGD takes step, next_client, momentum,"
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["my.toml"]


def test_a_run_with_a_function_is_replayed_and_resumed_with_its_run_file(tmp_path):
    (tmp_path / "my.toml").write_text(tardigrad("run", "--print-config", "own-gradient").stdout)
    done = tardigrad("run", "my.toml", "--set", "stop.max_updates=50", cwd=tmp_path)
    command = done.stdout.rpartition("; tardigrad ")[2].split()
    assert command == ["replay", "runs/my", "--config", "runs/my/config.toml"]
    assert process(*command, cwd=tmp_path).returncode == 0  # where nothing of the file is known yet
    refused = tardigrad("replay", "runs/my", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "the command line: --config RUN/config.toml" in refused.stderr
    done = tardigrad("resume", "runs/my", "--config", "runs/my/config.toml", "--updates", "80", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["updates"] == 80, done.stderr
    assert "Warning" not in done.stderr
    other = tardigrad("run", "runs/my/config.toml", "--json", cwd=tmp_path)
    assert "resumed to another end" in json.loads(other.stdout)["compared"]


def test_a_run_that_diverges_exits_with_one(tmp_path):
    (tmp_path / "my.toml").write_text(tardigrad("run", "--print-config", "quadratics").stdout)
    done = tardigrad("run", "my.toml", "--set", "rule.step=1e3", "--json", cwd=tmp_path)
    assert done.returncode == 1
    found = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["status"] == "diverged"
