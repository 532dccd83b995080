"""The page as text: what it holds of which run, what it says where something is missing, and that nothing escapes."""

import dataclasses
import json
import re
import signal
from html.parser import HTMLParser

import numpy as np
import pytest

import tardigrad as td
from conftest import make_problem
from report_runs import data_of, simulate, text_of
from tardigrad.report.html_page import embedded, load_runs, write_report
from tardigrad.report.html_parameters import defaults_of
from tardigrad.report.html_run import ReportedRun, number

NASTY = "<script>alert('x')</script>&\"'"


class Reader(HTMLParser):
    """The elements and addresses of a page, and its rows of tables."""

    VOID = ("meta", "br", "input", "line")

    def __init__(self, text):
        super().__init__()
        self.open, self.scripts, self.links, self.rows, self.cells = [], 0, [], [], None
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        self.links += [value for name, value in attributes if name in ("href", "src", "action")]
        assert not [name for name, _ in attributes if name.startswith("on")], "code in an attribute"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def parameters_of(text):
    """(part, name): (value, source) of a page about one run."""
    return {(row[0], row[1]): (row[2], row[3]) for row in Reader(text).rows if len(row) == 4}


def test_a_page_is_whole_and_asks_for_nothing_else():
    text = text_of(simulate(), simulate(td.SyncSGD(0.1)))
    read = Reader(text)
    assert read.scripts == 2
    assert read.links
    assert all(link.startswith("#") for link in read.links)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "@import" not in text
    assert "url(" not in text.replace("`url(#", "")
    assert "default-src 'none'" in text
    assert len(text) < 200_000


def test_text_of_a_run_is_never_code(tmp_path):
    result = simulate()
    result.message = NASTY
    result.made_with["python"] = NASTY
    result.solver = '"><script>alert(1)</script>'
    result.incidents = [{"seconds": 1.0, "kind": NASTY, "worker": 0, "task": None, "text": NASTY}]
    run = ReportedRun(NASTY, result, config=NASTY, notes=(NASTY,))
    text = text_of(run, dataclasses.replace(run, name=NASTY + "2"))
    assert Reader(text).scripts == 2
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert") > 8
    assert data_of(text)["runs"] == [NASTY, NASTY + "2"]
    assert data_of(text)["timeline"]["0"]["incidents"][0]["text"] == NASTY


def test_a_name_with_the_marks_of_the_template_is_only_a_name():
    assert "@@script@@" in text_of(ReportedRun("@@script@@", simulate()))


def test_data_hold_what_json_lacks_as_null():
    text = embedded({"a": [float("nan"), float("inf"), 1.5], "b": "</script>\u2028", 3: True})
    assert json.loads(text) == {"a": [None, None, 1.5], "b": "</script>\u2028", "3": True}
    assert "<" not in text
    assert "\u2028" not in text


def test_the_head_tells_what_ran_and_how_it_ended():
    result = simulate(updates=2000)
    text = text_of(result)
    for words in ("<b>AsyncSGD</b> on <b>Simulated</b>, problem LeastSquares", "2,000", "virtual seconds", "max_updates"):
        assert words in text
    assert "reached the limit of 2000 updates" in text
    rows = {row[0]: row[1] for row in Reader(text).rows if len(row) == 2}
    assert rows["replies"] == rows["gradients applied (oracle calls)"] == "2,000"
    assert rows["utilisation of workers, mean"] == f"{100 * result.trace.summary().utilisation_mean:.1f} %"
    assert rows["staleness, largest"] == str(result.trace.summary().staleness_max)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (td.Status.INTERRUPTED, "interrupted before its end; tardigrad resume goes on with it"),
        (td.Status.DIVERGED, "diverged: the iterates are no longer finite"),
        (td.Status.UNFINISHED, "a checkpoint: the run went on, or was cut off"),
        (td.Status.STALLED, "stalled"),
    ],
)
def test_a_run_that_did_not_end_well_says_so_plainly(status, words):
    assert words in text_of(dataclasses.replace(simulate(), status=status))


def test_a_run_that_diverged_has_a_page():
    result = simulate(td.AsyncSGD(1e200), updates=50)
    assert result.status is td.Status.DIVERGED
    text = text_of(result)
    assert "diverged: the iterates" in text
    Reader(text)


def test_replicas_that_diverged_are_counted_and_left_out_of_the_band():
    result = simulate(td.AsyncSGD(np.array([0.05, 0.1, 1e180])), replicas=2, updates=60)
    assert result.diverged.any()
    text = text_of(result)
    assert f"{result.diverged.sum()} of 6 replicas diverged" in text
    lines = data_of(text)["convergence"]["lines"]
    assert [line["name"] for line in lines] == ["run0, step 0.05", "run0, step 0.1", "run0, step 1e+180"]
    with np.errstate(all="ignore"):
        loss = result.evaluate(["loss"])["loss"]
    for i, line in enumerate(lines[:2]):
        np.testing.assert_allclose(line["values"]["loss"]["mid"], np.median(loss[:, :, i], axis=1), rtol=1e-5)


def test_measures_are_those_of_the_problem_at_the_snapshots():
    result = simulate(updates=90)
    found = data_of(text_of(result))["convergence"]
    (line,) = found["lines"]
    assert not result.history.measures  # the run is left as it was
    expected = result.evaluate()
    assert [measure["name"] for measure in found["measures"]] == list(expected)
    assert line["version"] == result.history.version.tolist()
    np.testing.assert_allclose(line["seconds"], result.history.seconds, rtol=1e-5)
    for name, values in expected.items():
        np.testing.assert_allclose(line["values"][name]["mid"], values, rtol=1e-5)


def test_replicas_have_a_median_and_a_band():
    result = simulate(replicas=11, updates=60)
    (line,) = data_of(text_of(result))["convergence"]["lines"]
    loss = result.evaluate(["loss"])["loss"]
    for name, level in (("low", 0.1), ("mid", 0.5), ("high", 0.9)):
        np.testing.assert_allclose(line["values"]["loss"][name], np.quantile(loss, level, axis=1), rtol=1e-5)


def test_a_sweep_is_not_said_to_be_replicas():
    rows = {row[0]: row[1] for row in Reader(text_of(simulate(td.AsyncSGD([0.01, 0.02]), replicas=3))).rows if len(row) == 2}
    assert rows["trajectories (replicas, sweeps)"] == "6"


def test_replicas_that_diverged_are_not_in_the_median():
    result = simulate(replicas=4, updates=60)
    result.diverged = np.array([False, False, True, False])
    (line,) = data_of(text_of(result))["convergence"]["lines"]
    kept = result.evaluate(["loss"])["loss"][:, [0, 1, 3]]
    np.testing.assert_allclose(line["values"]["loss"]["mid"], np.median(kept, axis=1), rtol=1e-5)


def test_measures_that_span_much_are_drawn_on_a_log_axis():
    problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Iid(4))
    found = data_of(text_of(simulate(td.AsyncSGD(0.2), problem=problem)))["convergence"]["measures"]
    assert all(measure["log"] for measure in found)
    found = data_of(text_of(simulate(td.AsyncSGD(1e-4))))["convergence"]["measures"]
    assert not any(measure["log"] for measure in found)


def test_tables_hold_the_numbers_of_the_pictures():
    result = simulate(td.SyncSGD(0.1, sample=3), updates=90, timing=td.PerClient([1.0, 1.0, 2.0, 9.0]))
    rows = Reader(text_of(result)).rows
    loss = result.evaluate()["loss"]
    (row,) = [row for row in rows if row[0] == "loss"]
    assert row[1:] == ["run0", *(number(float(v)) for v in (loss[0], loss[-1], loss.min(), loss.max())), "10"]
    trace = simulate(timing=td.PerClient([1.0, 1.0, 2.0, 9.0])).trace
    rows = Reader(text_of(dataclasses.replace(result, trace=trace))).rows
    for client in range(4):
        mine = trace["client"] == client
        (row,) = [row for row in rows if len(row) == 6 and row[0] == str(client)]
        late, busy = trace.staleness[mine], (trace["finished"] - trace["started"])[mine]
        share = f"{100 * mine.mean():.1f} %"
        expected = [number(int(mine.sum())), share, number(late.mean(), 3), number(int(late.max())), number(busy.mean(), 3)]
        assert row[1:] == expected
    workers = [row for row in rows if len(row) == 5 and row[0] in "0123" and row[-1] == "0"]
    assert [row[3] for row in workers] == [f"{100 * share:.1f} %" for share in trace.summary().utilisation.values()]


def test_saved_measures_are_taken_where_nothing_is_missing(monkeypatch):
    result = simulate(updates=90)
    result.evaluate()
    result.history.measures["loss"][:] = 7.0
    (line,) = data_of(text_of(result))["convergence"]["lines"]
    assert set(line["values"]["loss"]["mid"]) == {7.0}
    result.evaluate(["gradient_norm"])
    assert set(data_of(text_of(result))["convergence"]["lines"][0]["values"]) == {"loss", "gradient_norm"}


def test_of_many_snapshots_some_are_drawn():
    text = text_of(simulate(updates=900, snapshot_every=1))
    assert "400 of its 901 snapshots are drawn" in text
    (line,) = data_of(text)["convergence"]["lines"]
    assert (len(line["version"]), line["version"][0], line["version"][-1]) == (400, 0, 900)


def test_a_run_with_two_snapshots_says_how_to_get_more():
    text = text_of(simulate(snapshot_every=None))
    assert "run with snapshot_every=N for a curve, or have them computed by a replay" in text


def test_a_run_without_its_problem_says_what_is_missing(tmp_path):
    simulate().save(tmp_path / "bare", with_problem=False)
    (run,) = load_runs([tmp_path / "bare"])
    text = text_of(run)
    assert "its problem was not saved with it and no measures were, so there are no curves of it<" in text
    assert "no curves of it; its run file makes the problem again" in text_of(dataclasses.replace(run, config="seed = 1"))
    assert "convergence" not in data_of(text)
    assert "problem not saved" in text
    result = simulate()
    result.evaluate()
    result.save(tmp_path / "measured", with_problem=False)
    text = text_of(*load_runs([tmp_path / "measured"]))
    assert "these are the measures that were" in text
    assert data_of(text)["convergence"]["measures"]


def test_a_problem_that_was_not_saved_can_be_given(tmp_path):
    result = simulate()
    result.save(tmp_path / "bare", with_problem=False)
    result.save(tmp_path / "whole")
    runs = load_runs([tmp_path / "bare", tmp_path / "whole"], make_problem())
    bare, whole = data_of(text_of(*runs))["convergence"]["lines"]
    assert bare["values"] == whole["values"]
    with pytest.raises(td.RunFileError, match=r"bare was made on another problem"):
        load_runs([tmp_path / "bare"], make_problem(batch=4))


def test_measures_that_raise_are_told_of():
    result = simulate()
    result.problem.measures = lambda x, names=None: 1 / 0
    text = text_of(result)
    assert "its measures could not be evaluated: ZeroDivisionError: division by zero" in text


def test_a_run_of_no_updates_has_a_page():
    result = td.run(td.AsyncSGD(0.1), make_problem(), td.Simulated(td.Constant(1.0)), stop=td.MaxSeconds(1e-9))
    assert result.trace.updates == 0
    text = text_of(result)
    Reader(text)
    assert "nobody is known to have worked" in text
    assert "No staleness is known of run0" in text


def test_parameters_have_the_value_and_where_it_came_from():
    rule = td.AsyncBC("theory", horizon=100)
    problem = make_problem()
    engine = td.Simulated(td.Exponential(1.0))
    result = td.run(rule, problem, engine, stop=td.MaxUpdates(40), concurrency=3, max_staleness=8, seed=4)
    found = parameters_of(text_of(result))
    assert found["rule", ""] == ("AsyncBC", "user")
    step, source = found["rule", "step"]
    assert float(step) == result.rule.step
    assert source.startswith("theory Theorem 1")
    assert found["rule", "horizon"] == ("100", "user")
    assert found["rule", "buffer"] == ("1", "default")
    assert found["rule", "concurrency"] == ("3", "user")
    assert found["run", "concurrency"] == ("3", "user")
    assert found["run", "seed"] == ("4", "user")
    assert found["run", "max_staleness"] == ("8", "user")
    assert found["run", "x0"][1] == "default"
    assert found["engine", "timing"][1] == "user"
    assert found["engine", "workers"] == ("None", "default")
    assert found["stop", "n"] == ("40", "user")
    assert found["problem", "batch"] == ("3", "user")
    assert found["problem", "regularizer"][1] == "default"
    assert found["problem", "weights"] == ("equal", "default")
    assert found["constants", "L"] == (f"{problem.constants().L:.6g}", "measured computed from the data")
    assert found["made with", "numpy"] == (np.__version__, "recorded")
    assert re.search(r"float64 \(48, 5\), fingerprint [0-9a-f]{12}", found["problem", "data"][0])


class Base:
    def __init__(self, n=1, *, m=2, k=3):
        pass


class HandingOn(Base):
    def __init__(self, n, k=4, **kwargs):
        pass


class Closed(HandingOn):
    def __init__(self, n, *args):
        pass


def test_defaults_are_those_of_the_constructor_and_of_what_it_hands_on_to():
    assert defaults_of(Base()) == {"n": 1, "m": 2, "k": 3}
    assert defaults_of(HandingOn(0)) == {"m": 2, "k": 4}
    assert defaults_of(Closed(0)) == {}


def test_what_an_older_folder_does_not_tell_is_not_recorded(tmp_path):
    simulate().save(tmp_path)
    header = json.loads((tmp_path / "run.json").read_text())
    del header["run"]["given"], header["run"]["concurrency_asked"]
    (tmp_path / "run.json").write_text(json.dumps(header))
    found = parameters_of(text_of(*load_runs([tmp_path])))
    assert found["rule", "step"] == ("0.1", "not recorded")
    assert found["run", "concurrency"] == ("4", "not recorded")


class CtrlC(td.Observer):
    every = 20

    def observe(self, moment):
        if moment.version == self.every:
            signal.raise_signal(signal.SIGINT)


def test_what_a_solver_chose_is_not_said_to_be_the_users(tmp_path):
    """Of each kind of solver; saved, replayed and resumed runs tell it too."""
    A = np.random.default_rng(0).normal(size=(60, 4))
    solved = td.linsolve(A, A @ np.ones(4), method="averaged", sketch=td.RowBlocks(8), seed=3)
    found = parameters_of(text_of(solved))
    assert found["rule", "theta"] == (str(solved.parameters["theta"]), "linsolve")
    assert found["problem", "tol"][1] == "default"
    assert "user" not in {source for _, source in found.values()}
    result = td.minimize(lambda x, rng: x - rng.normal(size=2), np.zeros(2), observers=CtrlC())
    result.save(tmp_path, with_problem=False)
    resumed = td.resume(result, stop=td.MaxUpdates(60))
    for run in (result, td.Result.load(tmp_path, result.problem), td.replay(result).result, resumed):
        text = text_of(run)
        assert ", set up by minimize<" in text
        assert parameters_of(text)["rule", "step"][1] == "minimize"


def test_a_checkpoint_is_told_by_when_it_is_written(tmp_path):
    """Not by its folder, in which any two runs differ."""
    runs = [simulate(checkpoint=tmp_path / "a"), simulate(checkpoint=td.Checkpoint(tmp_path / "b", every_updates=20))]
    usual, often = (parameters_of(text_of(run)) for run in runs)
    assert usual["run", "checkpoint.every_seconds"] == ("60.0", "default")
    assert often["run", "checkpoint.every_updates"] == ("20", "user")
    assert often["run", "checkpoint.every_seconds"] == ("None", "default")
    assert ("run", "checkpoint.folder") not in often


def test_a_trace_is_told_by_its_length():
    recorded = simulate()
    found = parameters_of(text_of(td.replay(recorded).result))
    assert found["engine", "trace"][0] == f"trace of {len(recorded.trace)} replies"


def test_a_field_that_is_filled_without_a_source_is_said_to_be_the_rules():
    @dataclasses.dataclass(frozen=True)
    class Halved(td.AsyncSGD):
        def configure(self, problem, concurrency, max_staleness):
            return dataclasses.replace(super().configure(problem, concurrency, max_staleness), momentum=0.25)

    found = parameters_of(text_of(simulate(Halved(0.1))))
    assert found["rule", "momentum"] == ("0.25", "set by the rule's configure")


def test_runs_side_by_side_mark_where_they_differ():
    text = text_of(simulate(seed=1), simulate(td.AsyncSGD(0.2), seed=1))
    rows = {(row[0], row[1]): row[2:] for row in Reader(text).rows if len(row) == 5}
    assert rows["rule", "step"][0] == "≠"
    assert rows["run", "seed"] == ["", "1 user", "1 user"]
    assert [name for (part, name), row in rows.items() if row[0] == "≠"] == ["step"]


def test_staleness_is_that_of_the_trace():
    result, other = simulate(), simulate(td.SyncSGD(0.1))
    found = data_of(text_of(result, other))["staleness"]
    counts = np.bincount(result.trace.staleness)
    np.testing.assert_allclose(found["shares"][0]["share"][: len(counts)], 100 * counts / len(result.trace), rtol=1e-5)
    assert found["shares"][1]["share"][0] == 100
    growth = found["growth"][0]
    assert max(growth["largest"]) == result.trace.staleness.max()
    envelope = result.trace.growth()
    expected = envelope.scale * np.array(growth["at"]) ** max(envelope.exponent, 0)
    np.testing.assert_allclose(growth["envelope"], expected, rtol=1e-4)


def test_growth_is_said_in_words():
    n = 3000
    rows = [(i, 0, 0, i // 2, i, 1, float(i), float(i), i + 1.0, i + 1.0) for i in range(n)]
    result = dataclasses.replace(simulate(), trace=td.Trace.from_rows(rows, updates=n))
    (row,) = [row for row in Reader(text_of(result)).rows if row[-1].startswith("grows")]
    assert row[-1] == f"grows like n^{result.trace.growth().exponent:.2f}"
    assert 0.9 < result.trace.growth().exponent < 1.1


@pytest.mark.parametrize("top", [1, 47, 48, 300, 40_000])
@pytest.mark.parametrize("typical", [0, 3, 100])
def test_bins_of_staleness_count_every_reply_once(top, typical):
    from tardigrad.report.html_staleness import MAX_BINS, edges_for

    values = np.r_[np.full(999, min(typical, top)), top]
    edges = edges_for([values, np.array([0])])
    assert edges == sorted(set(edges))
    assert edges[0] == 0
    assert edges[-1] > top
    assert len(edges) <= MAX_BINS + 2
    assert np.histogram(values, edges)[0].sum() == 1000


def test_more_snapshots_are_those_of_a_replay(tmp_path):
    few, many = simulate(snapshot_every=None), simulate(snapshot_every=20)
    write_report([ReportedRun("few", few)], tmp_path / "r.html", snapshots=11)
    text = (tmp_path / "r.html").read_text()
    (line,) = data_of(text)["convergence"]["lines"]
    (expected,) = data_of(text_of(many))["convergence"]["lines"]
    assert line["values"] == expected["values"]
    assert line["version"] == list(range(0, 201, 20))
    assert "were computed by a replay of the run, every bit of which is the same" in text
    assert len(few.history) == 2


def test_runs_with_enough_snapshots_are_not_replayed(tmp_path, monkeypatch):
    monkeypatch.setattr("tardigrad.report.html_snapshots.replay", None)
    write_report([ReportedRun("many", simulate(snapshot_every=10))], tmp_path / "r.html", snapshots=11)


def test_a_run_that_cannot_be_replayed_says_why(tmp_path):
    result = dataclasses.replace(simulate(snapshot_every=None), problem=None)
    result.report(tmp_path / "r.html", snapshots=11)
    assert (
        "could not be replayed for more snapshots: the run was saved without its problem" in (tmp_path / "r.html").read_text()
    )
    result = simulate(snapshot_every=None)
    result.state.x[0] += 1e-9
    result.report(tmp_path / "r.html", "mine", snapshots=11)
    text = (tmp_path / "r.html").read_text()
    assert "mine: a replay for more snapshots differs, so they are left out: the final states differ" in text


def test_what_cannot_be_written_or_asked_for(tmp_path):
    with pytest.raises(td.InvalidInputError, match="at least one run"):
        write_report([], tmp_path / "r.html")
    with pytest.raises(td.InvalidInputError, match="snapshots must be an integer >= 2, not 1"):
        simulate().report(tmp_path / "r.html", snapshots=1)
    with pytest.raises(td.RunFileError, match="it is a folder; give the name of a file"):
        simulate().report(tmp_path)
    with pytest.raises(td.RunFileError, match="cannot write"):
        simulate().report(tmp_path / "none" / "r.html")


def test_folders_of_one_name_are_told_apart_and_run_files_are_shown(tmp_path):
    for place in ("a", "b"):
        simulate().save(tmp_path / place / "run")
    (tmp_path / "b" / "run" / "config.toml").write_text('seed = 1 # "quoted" & <b>\n')
    write_report(load_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"]), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert data_of(text)["runs"] == ["run", "run (2)"]
    assert text.count("<pre>") == 1
    assert "seed = 1 # &quot;quoted&quot; &amp; &lt;b&gt;" in text
