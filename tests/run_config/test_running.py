"""From a run file to a run: folders, copies that work from anywhere, and the comparison with an earlier run."""

import dataclasses
import json
import operator
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

import tardigrad as td
from command_line import tardigrad
from same_runs import assert_same_runs
from tardigrad.core.errors import InvalidInputError, RunFileError
from tardigrad.run_config.compare import compare
from tardigrad.run_config.examples import text_of
from tardigrad.run_config.folders import make
from tardigrad.run_config.own_code import own_errors
from tardigrad.run_config.running import prepare, problem_of, run_file

SMALL = """
# a comment that stays
seed = 5
concurrency = 3
snapshot_every = 10
[problem]
kind = "Quadratic"
eigenvalues = [1.0, 2.0]  # of two variables
n_clients = 3
[rule]
kind = "AsyncSGD"
step = 0.1
[engine]
kind = "Simulated"
[timing]
kind = "Exponential"
[stop]
max_updates = 50
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SMALL)
    return tmp_path


def small_run(**kwargs):
    problem, engine = td.Quadratic([1.0, 2.0], n_clients=3), td.Simulated(td.Exponential())
    kwargs = {"stop": td.MaxUpdates(50), "seed": 5, "concurrency": 3, "snapshot_every": 10, **kwargs}
    return td.run(td.AsyncSGD(0.1), problem, engine, **kwargs)


def test_a_run_file_is_the_run_that_it_describes():
    ran = run_file("small.toml")
    assert_same_runs(ran.result, small_run(), in_flight=False)
    assert_same_runs(td.Result.load("runs/small"), small_run(), in_flight=False)
    assert ran.folder == Path("runs/small")
    assert ran.measures == td.Quadratic([1.0, 2.0], n_clients=3).measures(ran.result.x)
    assert Path("runs/small/config.toml").read_text() == SMALL


def test_all_top_level_keys_reach_the_run(folder):
    text = 'x0 = "start.npy"\nmax_staleness = 7\nreplicas = 2\n' + SMALL
    (folder / "all.toml").write_text(text)
    np.save("start.npy", np.array([0.1, 0.2]))
    found = run_file("all.toml").result
    expected = small_run(x0=np.array([0.1, 0.2]), max_staleness=7, replicas=2)
    assert_same_runs(found, expected, in_flight=False)
    assert (found.max_staleness, found.replicas, found.x.shape) == (7, 2, (2, 2))


def test_the_folders_of_runs_are_numbered(folder):
    assert [run_file("small.toml").folder.name for _ in range(3)] == ["small", "small-2", "small-3"]
    assert run_file("runs/small-2/config.toml").folder == Path("runs/small-2-2")
    assert run_file("small.toml", out=folder / "deep" / "er").folder == folder / "deep" / "er"


def test_a_folder_that_holds_a_run_is_refused_before_anything_starts(folder):
    run_file("small.toml", out="here")
    before = sorted((path, path.stat().st_mtime_ns) for path in Path("here").iterdir())
    with pytest.raises(RunFileError, match=r"small\.toml: here holds a run already"):
        run_file("small.toml", out="here")
    assert sorted((path, path.stat().st_mtime_ns) for path in Path("here").iterdir()) == before


def test_a_run_file_is_never_written_over(folder):
    (folder / "own").mkdir()
    shutil.copy("small.toml", "own/config.toml")
    with pytest.raises(InvalidInputError, match=r"the copy of own/config\.toml would be written over it"):
        run_file("own/config.toml", out="own")
    assert Path("own/config.toml").read_text() == SMALL
    assert run_file("own/config.toml").folder == Path("runs/own")
    with pytest.raises(RunFileError, match=r"cannot write .*config\.toml"):
        run_file("small.toml", out="small.toml/x")


def test_two_runs_do_not_take_one_folder(folder, monkeypatch):
    prepared = prepare("small.toml")
    run_file("small.toml")
    with pytest.raises(RunFileError, match="another run took runs/small in this moment"):
        make(prepared.folder, prepared.config, new=True)
    (folder / "runs" / "empty").mkdir()
    assert run_file("small.toml", out="runs/empty").folder == Path("runs/empty")  # one that is named may be there


def test_checking_writes_nothing(folder):
    prepare("small.toml")
    assert sorted(path.name for path in folder.iterdir()) == ["small.toml"]


def test_what_was_set_is_in_the_copy():
    ran = run_file("small.toml", settings=["rule.step=0.05", "stop.max_updates=20"])
    copy = Path("runs/small/config.toml").read_text()
    assert copy == SMALL.replace("step = 0.1", "step = 0.05").replace("max_updates = 50", "max_updates = 20")
    assert (ran.result.rule.step, ran.result.trace.updates) == (0.05, 20)
    assert run_file("runs/small/config.toml").compared.identical is True


def test_a_run_of_a_runs_file_is_compared_with_it():
    assert run_file("small.toml").compared is None
    again = run_file("runs/small/config.toml")
    assert (again.compared.identical, again.exit_code) == (True, 0)
    assert "every bit is the same as in runs/small" in str(again)
    assert again.to_json()["identical"] is True
    changed = run_file("runs/small/config.toml", settings=["rule.step=0.05"])
    assert (changed.compared, changed.exit_code) == (None, 0)


def test_a_simulated_run_that_differs_is_a_failure():
    run_file("small.toml")
    result = td.Result.load("runs/small")
    result.state.x[0] += 1e-15
    result.save("runs/small")
    again = run_file("runs/small/config.toml")
    assert (again.compared.identical, again.exit_code) == (False, 1)
    assert "it differs from runs/small: the final states differ" in str(again)


def earlier_and_again(**changes):
    earlier = small_run()
    return dataclasses.replace(earlier, **changes), small_run()


def test_other_versions_are_named_and_no_failure():
    earlier, again = earlier_and_again(made_with={"numpy": "1.0", "python": "3"}, x=np.ones(2))
    found = compare(earlier, again, "RUN")
    assert (found.identical, found.as_expected) == (False, True)
    assert "it differs from RUN: x differs (RUN was made with numpy 1.0, here " in found.message
    same = compare(dataclasses.replace(earlier, x=again.x), again, "RUN")
    assert same.identical is True  # the same bits all the same


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": td.Status.UNFINISHED}, "that run did not come to its end; tardigrad resume RUN goes on"),
        ({"status": td.Status.INTERRUPTED}, "that run did not come to its end"),
        ({"stop": td.MaxUpdates(70)}, "that run was resumed to another end"),
    ],
)
def test_runs_that_cannot_be_compared(changes, message):
    found = compare(*earlier_and_again(**changes), "RUN")
    assert (found.identical, found.as_expected) == (None, True)
    assert found.message == f"not compared with RUN: {message}" or message in found.message


def test_an_interrupted_repetition_is_not_compared():
    earlier, again = earlier_and_again()
    found = compare(earlier, dataclasses.replace(again, status=td.Status.INTERRUPTED), "RUN")
    assert (found.identical, found.message) == (None, "not compared with RUN: it was interrupted")


def test_differences_in_length_and_in_the_trace_are_told():
    earlier = small_run()
    shorter = dataclasses.replace(small_run(stop=td.MaxUpdates(40)), stop=earlier.stop)
    assert "40 replies instead of 50" in compare(earlier, shorter, "RUN").message
    other = dataclasses.replace(small_run(seed=6), stop=earlier.stop)
    assert "it differs from RUN: column" in compare(earlier, other, "RUN").message


def test_real_workers_have_times_of_their_own():
    settings = ["engine.kind=Threads", "timing.kind=Constant", "timing.seconds=0.001"]
    text = Path("small.toml").read_text().replace('kind = "Exponential"', 'kind = "Constant"\nseconds = 0.001')
    Path("small.toml").write_text(text)
    run_file("small.toml", settings=settings[:1])
    again = run_file("runs/small/config.toml")
    assert again.exit_code == 0
    assert again.compared.identical is False
    assert "the times of Threads are those of real workers, and differ from runs/small: objective " in again.compared.message


def test_without_measures_the_points_are_compared(folder):
    (folder / "pure_noise.py").write_text("def gradient(x, rng):\n    return x - rng.normal(size=x.shape)\n")
    text = SMALL.replace('kind = "Quadratic"', 'kind = "UserGradient"\ngradient = "pure_noise.py:gradient"\ndim = 2')
    text = text.replace("eigenvalues = [1.0, 2.0]  # of two variables", "").replace('kind = "Simulated"', 'kind = "Threads"')
    (folder / "noise.toml").write_text(text.replace('kind = "Exponential"', 'kind = "Constant"\nseconds = 0.001'))
    first = run_file("noise.toml")
    assert "measures" not in str(first)
    again = run_file("runs/noise/config.toml")
    apart = np.linalg.norm(again.result.x - first.result.x) / np.linalg.norm(first.result.x)
    assert again.compared.message.endswith(f"differ from runs/noise: x is {100 * apart:.3g} % off")


BROKEN = "def gradient(x, rng):\n    if abs(x).max() > 0.5:\n        raise ValueError('my bug')\n    return x - 1\n"


@pytest.mark.filterwarnings("ignore:saved without the problem")
@pytest.mark.parametrize("engine", ["Simulated", "Threads"])
def test_what_own_code_raises_in_a_run_is_one_message_and_the_run_goes_on_when_it_is_mended(folder, engine):
    module = folder / f"broken_{engine}.py"
    module.write_text(BROKEN)
    text = SMALL.replace('kind = "Quadratic"', f'kind = "UserGradient"\ngradient = "broken_{engine}.py:gradient"\ndim = 2')
    text = text.replace("eigenvalues = [1.0, 2.0]  # of two variables", "").replace('kind = "Simulated"', f'kind = "{engine}"')
    (folder / "bug.toml").write_text(text.replace('kind = "Exponential"', 'kind = "Constant"\nseconds = 0.001'))
    with pytest.raises(td.WorkerError, match="ValueError: my bug") as caught:
        run_file("bug.toml")
    if engine == "Simulated":
        assert str(caught.value) == f"the run ended by ValueError: my bug (line 3 of {module}, in gradient)"
    notes = "\n".join(caught.value.__notes__)
    assert (
        "the run up to there is in runs/bug; tardigrad resume runs/bug goes on\nit needs --config runs/bug/config.toml" in notes
    )
    problem = problem_of("runs/bug/config.toml")
    problem.function = lambda x, rng: x - 1
    resumed = td.resume("runs/bug", problem=problem)
    assert resumed.trace.updates == 50


def test_errors_of_the_library_stay_what_they_are(monkeypatch):
    monkeypatch.setattr("tardigrad.run_config.running.execute", operator.neg)
    with pytest.raises(TypeError):  # of a built-in function, which no file of the user's calls
        run_file("small.toml")
    with pytest.raises(InvalidInputError, match="no notes") as caught, own_errors(" --config x"):
        raise InvalidInputError("no notes")
    assert not hasattr(caught.value, "__notes__")


def test_a_run_that_diverges_or_stalls_is_a_failure():
    ran = run_file("small.toml", settings=["rule.step=1e200", "stop.max_updates=5000"])
    assert ran.result.status is td.Status.DIVERGED
    assert ran.exit_code == 1
    json.dumps(ran.to_json(), allow_nan=False)


OWN = '''
import numpy as np
import tardigrad as td
from dataclasses import dataclass

@dataclass(frozen=True)
class HalfStep(td.StepSequence):
    """Half of a number."""

    full: float

    def __call__(self, n):
        return self.full / 2

    @property
    def shape(self):
        return ()

def gradient(x, rng):
    return x - 1 + 0.01 * rng.normal(size=x.shape)

def objective(x):
    return float(np.sum((x - 1) ** 2))
'''

OWN_RUN = SMALL.replace('kind = "Quadratic"', 'kind = "UserGradient"\ndim = 2').replace(
    "eigenvalues = [1.0, 2.0]  # of two variables", 'gradient = "code/mine_{n}.py:gradient"\nobjective = "mine_{n}:objective"'
)


@pytest.fixture
def own(folder, request):
    """A run file with code of its own, under names that no other test uses."""
    number = request.node.name.removeprefix("test_").split("[")[0]
    (folder / "project" / "code").mkdir(parents=True)
    (folder / "project" / "code" / f"mine_{number}.py").write_text(OWN)
    text = f'import = ["code/mine_{number}.py"] # of my own\n' + OWN_RUN.replace("{n}", number)
    text = text.replace("step = 0.1", 'step = { kind = "HalfStep", full = 0.2 }').replace("dim = 2", "dim = 2")
    text += '[[observers]]\nkind = "JSONLines"\npath = "log.jsonl"\nevery = 10\n'
    (folder / "project" / "own.toml").write_text(text)
    return number


def test_own_code_and_paths_work_from_anywhere(folder, own, monkeypatch):
    """In the copy paths are absolute; what observers write is the run's own."""
    ran = run_file("project/own.toml")
    assert np.abs(ran.result.x - 1).max() < 0.1
    assert set(ran.measures) == {"objective"}
    assert len((folder / "runs/own/log.jsonl").read_text().splitlines()) == 7
    table = tomllib.loads((folder / "runs/own/config.toml").read_text())
    code = str(folder / "project" / "code" / f"mine_{own}.py")
    assert table["import"] == [code]
    assert table["problem"]["gradient"] == f"{code}:gradient"
    assert table["observers"][0]["path"] == "log.jsonl"
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    again = run_file(folder / "runs/own/config.toml")
    assert again.compared.identical is True
    assert len((folder / "elsewhere/runs/own/log.jsonl").read_text().splitlines()) == 7
    assert ran.after == [f"tardigrad {command} runs/own --config runs/own/config.toml" for command in ("report", "replay")]
    assert td.replay(str(folder / "runs/own"), problem_of(folder / "runs/own/config.toml")).identical


def test_a_module_beside_the_run_file_is_found_and_copied_by_its_file(folder):
    (folder / "beside_module.py").write_text(OWN)
    text = 'import = ["beside_module"]\n' + SMALL.replace("step = 0.1", 'step = { kind = "HalfStep", full = 0.2 }')
    (folder / "m.toml").write_text(text)
    run_file("m.toml")
    assert tomllib.loads(Path("runs/m/config.toml").read_text())["import"] == [str(folder / "beside_module.py")]


@pytest.mark.parametrize("module", ["rules_{n}.steps", "rules_{n}"])
def test_packages_beside_the_run_file_are_found_from_anywhere(folder, module):
    """By the files of their modules, which keep their names: what was saved with a run is found under these."""
    package = f"rules_{len(module)}"
    (folder / "project" / package).mkdir(parents=True)
    (folder / "project" / package / "__init__.py").write_text("from .steps import HalfStep\n")
    (folder / "project" / package / "steps.py").write_text(OWN)
    name = module.format(n=len(module))
    text = f'import = ["{name}"]\n' + SMALL.replace("step = 0.1", 'step = { kind = "HalfStep", full = 0.2 }')
    (folder / "project" / "m.toml").write_text(text)
    ran = run_file("project/m.toml")
    assert type(ran.result.rule.step).__module__ == f"{package}.steps"
    file = folder / "project" / package / ("steps.py" if "." in name else "__init__.py")
    assert tomllib.loads((folder / "runs/m/config.toml").read_text())["import"] == [str(file)]
    (folder / "elsewhere").mkdir()
    command = [sys.executable, "-P", "-m", "tardigrad", "replay", "../runs/m", "--config", "../runs/m/config.toml"]
    done = subprocess.run(command, cwd=folder / "elsewhere", capture_output=True, text=True, check=False)
    assert "every bit is the same" in done.stdout, done.stderr


def test_modules_may_be_named_beside_the_file(folder):
    (folder / "named_module.py").write_text(OWN)
    (folder / "m.toml").write_text(SMALL.replace("step = 0.1", 'step = { kind = "HalfStep", full = 0.2 }'))
    ran = run_file("m.toml", imports=["named_module.py"])
    assert type(ran.result.rule.step).__name__ == "HalfStep"
    assert run_file("runs/m/config.toml").compared.identical is True


def test_a_run_with_data_in_files_works_from_anywhere(folder, monkeypatch):
    np.savez("d.npz", X=np.eye(3), y=np.arange(3.0))
    text = SMALL.replace('kind = "Quadratic"', 'kind = "LeastSquares"').replace(
        "eigenvalues = [1.0, 2.0]  # of two variables", ""
    )
    text = (
        text.replace("n_clients = 3\n", "")
        + '[data]\nX = "d.npz:X" # rows\ny = "./d.npz:y"\n[partition]\nkind = "Iid"\nn_clients = 3\n'
    )
    (folder / "d.toml").write_text(text)
    run_file("d.toml")
    copy = Path("runs/d/config.toml").read_text()
    assert f'X = "{folder}/d.npz:X" # rows' in copy
    monkeypatch.chdir("/")
    assert run_file(folder / "runs/d/config.toml", out=folder / "again").compared.identical is True


def test_a_trace_that_was_measured_can_be_simulated(folder):
    run_file("small.toml")
    text = SMALL.replace('kind = "Exponential"', 'kind = "FromTrace"\ntrace = "runs/small"')
    (folder / "measured.toml").write_text(text)
    ran = run_file("measured.toml")
    assert isinstance(ran.result.engine.timing, td.FromTrace)
    assert str(folder / "runs/small") in Path("runs/measured/config.toml").read_text()


def test_a_recorded_trace_ends_a_run_by_itself(folder):
    first = run_file("small.toml").result
    text = SMALL.replace('kind = "Simulated"', 'kind = "Replay"\ntrace = "runs/small"')
    (folder / "replay.toml").write_text(text[: text.index("[timing]")])
    ran = run_file("replay.toml")
    assert ran.result.status is td.Status.ENDED
    assert ran.result.x.tobytes() == first.x.tobytes()
    assert ran.exit_code == 0


def killed(path, out, number):
    """Run a file in another process and end it that way, when a checkpoint is there."""
    command = [sys.executable, "-m", "tardigrad", "run", str(path), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    while not (Path(out) / "run.json").exists() and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, number)
    process.communicate(timeout=60)
    return process.returncode


@pytest.mark.parametrize("engine", ["Simulated", "Processes"])
def test_a_run_that_was_killed_is_resumed(folder, engine):
    text = SMALL.replace("max_updates = 50", "max_updates = 1_000_000_000").replace("snapshot_every = 10", "")
    text = text.replace('kind = "Simulated"', f'kind = "{engine}"\nworkers = 2') + "[checkpoint]\nevery_updates = 2000\n"
    if engine == "Processes":
        text = text.replace('[timing]\nkind = "Exponential"\n', "")
    (folder / "long.toml").write_text(text)
    assert killed("long.toml", "out", signal.SIGKILL) == -signal.SIGKILL
    saved = td.Result.load("out")
    assert saved.status is td.Status.UNFINISHED
    done = tardigrad("resume", "out", "--updates", saved.state.version + 100, "--json")
    assert json.loads(done.stdout)["updates"] == saved.state.version + 100, done.stderr
    resumed = td.Result.load("out")
    assert td.replay(resumed).identical
    assert (folder / "out" / "config.toml").exists()
    if engine == "Simulated":
        engine = td.Simulated(td.Exponential(), workers=2)
        whole = td.run(
            td.AsyncSGD(0.1),
            td.Quadratic([1.0, 2.0], n_clients=3),
            engine,
            seed=5,
            concurrency=3,
            stop=td.MaxUpdates(saved.state.version + 100),
        )
        assert_same_runs(resumed, whole, in_flight=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_ctrl_c_and_requests_to_end_leave_a_run_that_goes_on(folder, number):
    text = SMALL.replace("max_updates = 50", "max_updates = 1_000_000_000") + "[checkpoint]\nevery_updates = 2000\n"
    (folder / "long.toml").write_text(text)
    assert killed("long.toml", "out", number) == 130
    assert td.Result.load("out").status is td.Status.INTERRUPTED


def test_a_run_file_of_an_interrupted_run_is_not_compared(folder):
    text = SMALL.replace("max_updates = 50", "max_updates = 1_000_000_000") + "[checkpoint]\nevery_updates = 2000\n"
    (folder / "long.toml").write_text(text)
    killed("long.toml", "out", signal.SIGINT)
    copy = Path("out/config.toml")
    copy.write_text(copy.read_text().replace("1_000_000_000", "60"))
    ran = run_file(copy)
    assert (ran.compared.identical, ran.exit_code) == (None, 0)
    assert ran.folder == Path("runs/out")


def test_another_problem_than_that_of_the_run_is_an_error(folder):
    run_file("small.toml")
    copy = Path("runs/small/config.toml")
    copy.write_text(copy.read_text().replace("[1.0, 2.0]", "[1.0, 3.0]"))
    with pytest.raises(RunFileError, match="was made on another problem"):
        run_file(copy)


def test_an_own_class_that_is_not_whole_is_told_what_it_lacks(folder):
    (folder / "half_module.py").write_text(OWN.replace("    def shape(self)", "    def form(self)"))
    (folder / "m.toml").write_text(SMALL.replace("step = 0.1", 'step = { kind = "HalfStep", full = 0.2 }'))
    with pytest.raises(
        InvalidInputError, match=r"\[rule.step\] kind = 'HalfStep' is not whole: it must define shape: the kinds"
    ):
        run_file("m.toml", imports=["half_module.py"])


def test_a_sweep_is_summed_up_by_its_range():
    ran = run_file("small.toml", settings=["rule.step=[0.1, 0.2]"])
    assert " in 2 trajectories" in str(ran)
    assert len(ran.to_json()["measures"]["objective"]) == 2


def test_commands_that_come_next_can_be_pasted_into_a_shell(folder):
    ran = run_file("small.toml", out="mein Lauf; (1)")
    assert [shlex.split(command) for command in ran.after] == [
        ["tardigrad", "report", "mein Lauf; (1)"],
        ["tardigrad", "replay", "mein Lauf; (1)"],
    ]
    with pytest.raises(RunFileError) as caught:
        run_file("small.toml", out="mein Lauf; (1)")
    assert "tardigrad resume 'mein Lauf; (1)'," in str(caught.value)


def test_commands_that_come_next_are_quoted_with_code_of_the_users_too(folder):
    (folder / "m.toml").write_text(text_of("own-gradient").replace("max_updates = 2000", "max_updates = 5"))
    ran = run_file("m.toml", out="a b")
    assert shlex.split(ran.after[1]) == ["tardigrad", "replay", "a b", "--config", "a b/config.toml"]


def test_a_file_is_no_folder_for_a_run(folder):
    (folder / "notes").write_text("mine")
    with pytest.raises(RunFileError, match="notes is a file: choose a folder, --out"):
        run_file("small.toml", out="notes")
    assert (folder / "notes").read_text() == "mine"
    assert not (folder / "runs").exists()


def test_reading_a_folder_runs_no_code_that_lies_in_it(folder):
    """Whoever stands in the folder of a run and names no code gets none, whatever the files there are called."""
    run_file("small.toml")
    run = folder / "runs/small"
    for name in ("statistics", "difflib", "html", "zlib"):
        (run / f"{name}.py").write_text("raise SystemExit('code of the folder was run')")
    commands = [
        ["replay", "."],
        ["resume", ".", "--updates", "60"],
        ["report", ".", "--snapshots", "60"],
        ["run", "config.toml"],
    ]
    program = f"from tardigrad.cli import app\nfor arguments in {commands}: app(arguments, standalone_mode=False)"
    done = subprocess.run([sys.executable, "-P", "-c", program], cwd=run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "every bit is the same" in done.stdout
