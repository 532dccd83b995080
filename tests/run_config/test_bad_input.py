"""Mistakes in run files: each is one message that names the place, what is wrong, and what would be right."""

import numpy as np
import pytest

from tardigrad.core.errors import DataError, InvalidInputError, RunFileError, TardigradError
from tardigrad.run_config.examples import text_of
from tardigrad.run_config.running import prepare


def complaint(folder, example, *edits, settings=()):
    """The message about an example that was edited."""
    text = text_of(example)
    for old, new in edits:
        assert old in text, f"{old!r} is not in {example}"
        text = text.replace(old, new, 1)
    (folder / "run.toml").write_text(text)
    with pytest.raises(TardigradError) as caught:
        prepare("run.toml", settings=settings)
    assert not (folder / "runs").exists()
    return str(caught.value)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


NAME, STEP, KIND = 'name = "digits"  ', "step = 0.2  ", 'kind = "SoftmaxRegression"  '
TEST, L2 = 'test = { name = "digits", part = "test" }', '{ kind = "L2", rho = 1e-3 }'
TOLERANCE = 'tolerance = { measure = "loss", at_most = 0.3, every = 200 }'

SOFTMAX = {
    # the top level
    ("\n[data]", "\n[dta]"): "there is no section [dta]: did you mean 'data'? sections are data, partition,",
    ("\n[rule]", "\n[rules]"): "there is no section [rules]: did you mean 'rule'?",
    ("\n[rule]", "\n[extra]\n[rule]"): "there is no section [extra]: sections are data,",
    ("seed = 0", "sede = 0"): "there is no key 'sede' at the top level: did you mean 'seed'?",
    ("seed = 0", "step = 0"): "there is no key 'step' at the top level: AsyncSGD in [rule] has such a key;",
    ("seed = 0", "max_updates = 0"): "there is no key 'max_updates' at the top level: 'max_updates' belongs to [stop];",
    ("seed = 0", "seed = -1"): "seed must be an integer >= 0, not -1",
    ("seed = 0", 'seed = "one"'): "seed must be an integer, not 'one'",
    ("seed = 0", "seed = = 0"): "run.toml is not TOML: Invalid value (at line 3, column 8)",
    ("[stop]", "[data]\n[stop]"): "Cannot declare ('data',) twice (at line",
    ("seed = 0", "concurrency = 0"): "run.toml: concurrency must be an integer >= 1, not 0",
    ("seed = 0", "replicas = 0"): "run.toml: replicas must be an integer >= 1, not 0",
    ("seed = 0", "max_staleness = -1"): "run.toml: max_staleness must be an integer >= 0, not -1",
    ("snapshot_every = 100", "snapshot_every = 0"): "snapshot_every must be an integer >= 1, not 0",
    ("seed = 0", "x0 = [1, 2]"): "run.toml: x0 must have shape (..., 640), the problem's dim last, not (2,)",
    ("seed = 0", 'x0 = "x.npy"'): "run.toml: x0: there is no file ",
    # [data]
    (NAME, 'name = "digit"'): "[data]: there is no data set 'digit': did you mean 'digits'? the sets are a9a,",
    (NAME, 'nme = "digits"'): "[data] does not say where the data are: did you mean 'name'? give one of name, csv, libsvm, X,",
    (NAME, ""): "[data] does not say where the data are: give one of",
    (NAME, 'name = "digits"\nrows = 3'): "[data] says more than once where the data are: give one of name, rows",
    (NAME, 'csv = "a.csv"'): "[data] has no key 'part': data from 'csv' takes csv, target, delimiter",
    ('part = "train"', "seed = 3"): "[data] has no key 'seed': 'seed' is said at the top of the file, above the first section;",
    ('part = "train"', 'part = "trian"'): "[data] part must be 'train' or 'test', not 'trian': did you mean 'train'?",
    ('part = "train"', "part = 3"): "[data] part must be 'train' or 'test', not 3",
    # [partition]
    (
        '"Dirichlet"',
        '"Dirichlt"',
    ): "[partition] kind = 'Dirichlt' is not known: did you mean 'Dirichlet'? the kinds of Partition are",
    ('"Dirichlet"', '"AsyncSGD"'): "[partition] kind = 'AsyncSGD' is no Partition: the kinds of Partition are Dirichlet,",
    ("alpha = 0.3", "alpha = -1"): "[partition]: alpha must be a finite number > 0, not -1",
    ("alpha = 0.3", "alpha = nan"): "[partition]: alpha must be a finite number > 0, not nan",
    (
        "alpha = 0.3",
        "alhpa = 1",
    ): "[partition] has no key 'alhpa': did you mean 'alpha'? Dirichlet takes n_clients, alpha, seed",
    ("n_clients = 8", ""): "[partition] lacks 'n_clients': Dirichlet takes",
    ("n_clients = 8", "n_clients = 8.5"): "[partition] n_clients must be an integer, not 8.5",
    # [problem]
    (KIND, ""): '[problem] has no kind: say which, kind = "...": ClientQuadratics, DoubleWell,',
    (KIND, 'knd = "Ridges"\n'): "[problem] has no kind: did you mean 'kind' by 'knd'?",
    (KIND, 'kind = "Softmax"\n'): "[problem] kind = 'Softmax' is not known: did you mean 'SoftmaxRegression'?",
    (KIND, 'kind = "Problem"\n'): "[problem] kind = 'Problem' is the base of others: the kinds of Problem are",
    (KIND, "kind = 3\n"): "[problem] kind must be the name of a class in quotes, not 3",
    (KIND, 'kind = "LogisticRegression"\n'): "[problem]: binary logistic regression needs two classes, found 10",
    ("batch = 16", 'batch = "16"'): "[problem] batch must be an integer, not '16'",
    ("batch = 16", "batch = true"): "[problem] batch must be an integer, not True",
    ("batch = 16", "batch = 0"): "[problem]: batch must be an integer >= 1, not 0",
    (
        "batch = 16",
        "momentum = 0.1",
    ): "[problem] has no key 'momentum': AsyncSGD in [rule] has such a key; SoftmaxRegression takes",
    ("batch = 16", 'weights = "row"'): "[problem] weights must be 'equal' or 'rows', not 'row': did you mean 'rows'?",
    ("batch = 16", "data = 3"): "[problem] gives 'data', which a section of its own gives too: remove one of them",
    (L2, '"L2"'): "[problem] regularizer must be a table with a kind of Regularizer, such as { kind = \"L2\", ... }, not 'L2'",
    (L2, "{ rho = 1e-3 }"): '[problem.regularizer] has no kind: say which, kind = "...": L2, SmoothNonconvex',
    (L2, '{ kind = "L2", rho = -1 }'): "[problem.regularizer]: rho must be a finite number >= 0, not -1",
    (L2, '{ kind = "L2", rh = 1 }'): "[problem.regularizer] has no key 'rh': did you mean 'rho'? L2 takes rho",
    (L2, '{ kind = "Ball", radius = 1 }'): "[problem.regularizer] kind = 'Ball' is no Regularizer",
    (TEST, 'test = "digits"'): "[problem] test must be a table such as { name = \"digits\" }, not 'digits'",
    (TEST, 'test = { nam = "digits" }'): "[problem.test] does not say where the data are: did you mean 'name'?",
    # [rule]
    ('"AsyncSGD"', '"AsyncSDG"'): "[rule] kind = 'AsyncSDG' is not known: did you mean 'AsyncSGD'? the kinds of Rule are",
    (STEP, "stpe = 0.2"): "[rule] has no key 'stpe': did you mean 'step'? AsyncSGD takes step, next_client, momentum,",
    (STEP, ""): "[rule] lacks 'step': AsyncSGD takes",
    (STEP, "step = -0.2"): "[rule]: step must be a positive number, an array of them or a StepSequence, not -0.2",
    (STEP, "step = nan"): "[rule]: step must be a positive number",
    (STEP, 'step = "theory"'): "[rule] step must be a number, an array or a table with a kind of StepSequence, such as",
    (STEP, "step = { scale = 1 }"): '[rule.step] has no kind: say which, kind = "...": LogLogStep, LogStep, PowerStep',
    (STEP, 'step = { kind = "PowerStep", scale = -1 }'): "[rule.step]: PowerStep.scale must be a positive number",
    ('next_client = "shuffled"', 'next_client = "shufled"'): "not 'shufled': did you mean 'shuffled'?",
    ('next_client = "shuffled"', "max_updates = 3"): "[rule] has no key 'max_updates': 'max_updates' belongs to [stop];",
    ('next_client = "shuffled"', "timing = 3"): "[rule] has no key 'timing': 'timing' is a section of its own, [timing];",
    ("\n[rule]", "\n[[rule]]"): "[rule] must be a table with a kind of Rule",
    # [engine] and [timing]
    ('"Simulated"', '"Simulate"'): "[engine] kind = 'Simulate' is not known: did you mean 'Simulated'?",
    ('"Simulated"', '"Simulated"\nworkers = 0'): "[engine]: workers must be an integer >= 1, not 0",
    (
        '"Simulated"',
        '"Prescribed"\nread = 3',
    ): "[timing] is of no use: Prescribed in [engine] takes no timing; remove the section",
    ('"Exponential"', '"Exponentail"'): "[timing] kind = 'Exponentail' is not known: did you mean 'Exponential'?",
    ("mean = [1, 1, 1, 1, 1, 1, 1, 8]", "mean = [1, 1]"): "[timing]: Exponential has 2 means for 8 clients",
    ("mean = [1, 1, 1, 1, 1, 1, 1, 8]", 'mean = "slow"'): "[timing] mean must be a number, not 'slow'",
    ("mean = [1, 1, 1, 1, 1, 1, 1, 8]", 'mean = [1, "2"]'): "[timing] mean, item 2, must be a number, not '2'",
    # [stop]
    ("max_updates = 2000", "max_update = 2000"): "[stop] has no key 'max_update': did you mean 'max_updates'?",
    ("max_updates = 2000", "max_updates = -5"): "[stop] max_updates: MaxUpdates must be an integer >= 1, not -5",
    ("max_updates = 2000", "max_updates = 1e3"): "[stop] max_updates must be an integer, not 1000.0",
    ("max_updates = 2000", "max_seconds = inf"): "[stop] max_seconds: MaxSeconds must be a finite number > 0, not inf",
    ('measure = "loss"', 'measure = "los"'): "run.toml: the problem has no measure 'los'; it has loss, gradient_norm,",
    ('measure = "loss"', 'mesure = "loss"'): "[stop.tolerance] has no key 'mesure': did you mean 'measure'?",
    ("at_most = 0.3, ", ""): "[stop.tolerance]: Tolerance('loss') needs one of at_most and at_least",
    (TOLERANCE, "tolerance = 0.3"): "[stop] tolerance must be a table of measure, at_most, at_least, every, not 0.3",
    (TOLERANCE, "tolerance = [0.3]"): "[stop] tolerance, item 1, must be a table of measure,",
    # [checkpoint] and [[observers]]
    ("every_seconds = 30.0", "every_second = 30.0"): "[checkpoint] has no key 'every_second': did you mean 'every_seconds'?",
    ("every_seconds = 30.0", "every_seconds = -1"): "[checkpoint]: Checkpoint.every_seconds must be a number of seconds > 0",
    ("every_seconds = 30.0", 'folder = "x"'): "[checkpoint] has no key 'folder': the run's folder is said by --out",
    ("[checkpoint]", '[[observers]]\nkind = "JSONLines"\n[checkpoint]'): "[observers] number 1 lacks 'path': JSONLines takes",
    ("[checkpoint]", '[observers]\nkind = "JSONLines"\n[checkpoint]'): "[observers] must be a list: write [[observers]]",
    ("[checkpoint]", '[[observers]]\nkind = "JSONLine"\n[checkpoint]'): "did you mean 'JSONLines'?",
    (
        "[checkpoint]",
        '[[observers]]\nkind = "JSONLines"\npath = "a"\nevery = 0\n[checkpoint]',
    ): "every is an integer >= 1, not 0",
    # import
    ("seed = 0", 'import = ["nope.py"]'): "run.toml: import: cannot import nope.py: there is no file ",
    ("seed = 0", 'import = ["nope_nope"]'): "import: cannot import nope_nope: ModuleNotFoundError: No module named 'nope_nope'",
    ("seed = 0", "import = 3"): 'run.toml: import must be a list of files or modules, ["my_rule.py"], not 3',
}


@pytest.mark.parametrize(("edit", "message"), SOFTMAX.items(), ids=[f"{i} {m[:30]}" for i, m in enumerate(SOFTMAX.values())])
def test_a_mistake_in_the_softmax_example(folder, edit, message):
    found = complaint(folder, "softmax", edit)
    assert message in found
    assert found.startswith("run.toml")
    assert "\n" not in found


OTHERS = [
    ("own-gradient", ("functions:gradient", "functions:gradinet"), "has no 'gradinet': did you mean 'gradient'?"),
    (
        "own-gradient",
        ('"tardigrad.run_config.examples.functions:gradient"', '"my.py:f"'),
        "[problem] gradient: cannot import my.py",
    ),
    ("own-gradient", ('"tardigrad.run_config.examples.functions:gradient"', '"my"'), "a function is given as 'file.py:name'"),
    ("own-gradient", ('"tardigrad.run_config.examples.functions:gradient"', "3"), "[problem]: gradient must be a function"),
    ("own-gradient", ("dim = 10 ", "dim = 0"), "[problem]: dim must be an integer >= 1, not 0"),
    (
        "own-gradient",
        ('constraint = { kind = "Ball"', 'constraint = { kind = "Bal"'),
        "[rule.constraint] kind = 'Bal' is not known",
    ),
    ("constrained", ('read = { kind = "UniformDelay", c = 0.5 }', 'read = "abc"'), "[engine] read: a function is given as"),
    ("constrained", ('read = { kind = "UniformDelay", c = 0.5 }', "read = -1"), "[engine]: Prescribed needs a delay >= 0"),
    ("constrained", ('read = { kind = "UniformDelay", c = 0.5 }', 'read = { kind = "Ball" }'), "is no ReadSequence"),
    (
        "constrained",
        ("\n[stop]", '\n[data]\nname = "digits"\n[stop]'),
        "[data] is of no use: Ridges in [problem] takes no data",
    ),
    ("constrained", ("\n[stop]", '\n[partition]\nkind = "Iid"\nn_clients = 2\n[stop]'), "[partition] is of no use"),
    ("constrained", ("\n[stop]\nmax_updates = 4000", ""), "[stop] is missing: when to end, such as max_updates = 1000"),
    ("constrained", ("max_updates = 4000", ""), "[stop] is empty: give at least one of max_updates,"),
    ("quadratics", (".of_paper", ".of_papr"), "ClientQuadratics has no way 'of_papr' to be made"),
    ("quadratics", (".of_paper", ".fields"), "ClientQuadratics has no way 'fields' to be made"),
    ("quadratics", ("zeta = 10.0", "zta = 10.0"), "has no key 'zta': did you mean 'zeta'? ClientQuadratics.of_paper takes"),
    (
        "kernel",
        ('bandwidth = "auto"', 'bandwidth = "aut"'),
        "bandwidth must be 'auto' or a number, not 'aut': did you mean 'auto'?",
    ),
    ("kernel", ('"Laplacian"', '"Laplace"'), "[problem.kernel] kind = 'Laplace' is not known: did you mean 'Laplacian'?"),
    ("kernel", ('"float32"', '"float16"'), "[problem]: dtype must be 'float32' or 'float64', not 'float16'"),
    ("kernel", ('kernel = { kind = "Laplacian", bandwidth = "auto" }', ""), "[problem] lacks 'kernel'"),
    ("kernel", ('[data]\nname = "digits"', ""), "[data] is missing: rows and targets for KernelInterpolation"),
    ("linear-system", ("sketch = ", "sketches = "), "[problem] has no key 'sketches': did you mean 'sketch'?"),
    (
        "linear-system",
        ("n_clients = 4", "A = [[1, 2]]\nn_clients = 4"),
        "[problem] gives 'A', which a section of its own gives too",
    ),
    ("linear-system", ('"RowAction"', '"Hogwild"'), "[rule] has no key 'omega': Hogwild takes step"),
    ("linear-system", ("noise = 0.0", "noise = -1.0"), "[data]: noise must be a finite number >= 0, not -1.0"),
    ("linear-system", ("rows = 2000", "rows = 0"), "[data]: rows must be an integer >= 1, not 0"),
    ("constrained", ("noise = 0.5 ", 'x0 = "a"'), "[problem] has no key 'x0': 'x0' is said at the top of the file"),
    ("constrained", ("seed = 0", 'x0 = "a.dat"'), "run.toml: x0 must be numbers, or a file of them (.npy, .npz, .csv, .txt)"),
    (
        "constrained",
        ('{ kind = "Ball", radius = 1.0 }', '{ kind = "AffineSubspace", A = "a", b = [1] }'),
        "constraint] A must be",
    ),
    ("silos", ("step = 0.2", 'step = "theroy"'), "not 'theroy' (did you mean 'theory'?)"),
]


@pytest.mark.parametrize(("example", "edit", "message"), OTHERS)
def test_a_mistake_in_another_example(folder, example, edit, message):
    assert message in complaint(folder, example, edit)


@pytest.mark.parametrize("section", ["problem", "rule", "engine"])
def test_a_missing_section(folder, section):
    found = complaint(folder, "softmax", (f"\n[{section}]", f"\n[data.{section}]"))
    assert found.startswith(f"run.toml: [{section}] is missing: ")
    assert "such as kind = " in found


def test_a_missing_timing(folder):
    text = text_of("quadratics")
    (folder / "run.toml").write_text(text[: text.index("[timing]")] + text[text.index("[stop]") :])
    with pytest.raises(InvalidInputError, match=r"\[timing\] is missing: how long a task takes on Simulated, such as kind = "):
        prepare("run.toml")


@pytest.mark.parametrize("section", ["data", "partition", "problem", "rule", "engine", "timing", "stop", "checkpoint"])
def test_a_section_that_is_no_table(folder, section):
    found = complaint(folder, "softmax", settings=[f"{section}=3"])
    assert found.startswith("run.toml: ")
    assert section in found
    assert "must be a table" in found


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rule.step", "--set takes key=value, such as rule.step=0.1, not 'rule.step'"),
        ("rule.step=", "--set takes key=value"),
        ("=3", "--set takes key=value"),
        ("rule..step=3", "--set takes key=value"),
        ("rule.stpe=0.1", "[rule] has no key 'stpe': did you mean 'step'?"),
        ("rule.step.x=3", "--set rule.step.x=3: there is no such place in the file"),
        ("observers.3.kind=Progress", "--set observers.3.kind=Progress: there is no such place in the file"),
        ("problem.kind=Rosenbrock", "[data] is of no use: Rosenbrock in [problem] takes no data"),
        ("rule.kind=AsyncEigenPro", "[rule] has no key 'step'"),
        ("engine.workers=two", "[engine] workers must be an integer, not 'two'"),
    ],
)
def test_a_mistake_in_a_setting(folder, setting, message):
    assert message in complaint(folder, "softmax", settings=[setting])


def test_what_goes_wrong_in_own_code_is_told_with_its_line(folder):
    (folder / "broken.py").write_text("import numpy\n\nx = 1 / 0\n")
    found = complaint(folder, "softmax", ("seed = 0", 'import = ["broken.py"]'))
    assert "cannot import broken.py: line 3: ZeroDivisionError: division by zero" in found
    (folder / "worse.py").write_text("def f(:\n")
    assert "SyntaxError" in complaint(folder, "softmax", ("seed = 0", 'import = ["worse.py"]'))
    (folder / "json.py").write_text("x = 1\n")
    found = complaint(folder, "softmax", ("seed = 0", 'import = ["json.py"]'))
    assert "another module has the name 'json'" in found
    assert found.endswith("rename it")


def test_what_an_own_class_raises_is_told_with_its_place(folder):
    (folder / "fussy_rule.py").write_text(
        "import tardigrad as td\nclass Fussy(td.AsyncSGD):\n    def __init__(self, step):\n        raise KeyError('no')\n"
    )
    edits = [("seed = 0", 'import = ["fussy_rule.py"]'), ('"AsyncSGD"', '"Fussy"'), ('next_client = "shuffled"', "")]
    assert complaint(folder, "softmax", *edits) == "run.toml: [rule]: KeyError: 'no'"


def test_a_function_in_a_rule_cannot_be_saved(folder):
    (folder / "half.py").write_text("def project(y):\n    return y - max(y.sum() - 1, 0) / y.size\n")
    edit = ('{ kind = "Ball", radius = 1.5 }', '{ kind = "UserSet", project = "half.py:project" }')
    found = complaint(folder, "own-gradient", edit)
    assert "[rule] cannot be saved with the run" in found
    assert "give a class of your own" in found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('csv = "no.csv"\ntarget = "y"', "cannot read "),
        ('csv = "text.csv"\ntarget = "y"', "is not a CSV file of numbers with a header line"),
        ('csv = "good.csv"\ntarget = "z"', "has no column 'z'; it has a, y"),
        ('csv = "good.csv"', "[data] lacks 'target': data from 'csv' takes csv, target, delimiter"),
        ('libsvm = "text.csv"', "is not a LIBSVM file"),
        ('X = "no.npy"\ny = "y.npy"', "[data] X: there is no file "),
        ('X = "X.npz:Z"\ny = "X.npz:y"', "X.npz has no array 'Z': it has X, y"),
        ('X = "X.npz"\ny = "X.npz:y"', "X.npz holds X, y: say which, 'X.npz:X'"),
        ('X = "text.npy"\ny = "X.npz:y"', "text.npy cannot be read as an array"),
        ('X = "X.npz:X"\ny = [1, 2]', "y must have shape (3,), a label for each row of X"),
        ('X = "X.npz:X"', "[data] lacks 'y'"),
        ("X = [[1, 2], [nan, 1]]\ny = [1, 2]", "X[1, 0] is nan: remove such rows"),
        ('function = "good.csv:f"', "cannot import good.csv"),
    ],
)
def test_data_that_are_not_there_or_not_good(folder, data, message):
    (folder / "text.csv").write_text("a,y\n1,two\n")
    (folder / "text.npy").write_text("no array")
    (folder / "good.csv").write_text("a,y\n1,2\n2,3\n")
    np.savez(folder / "X.npz", X=np.eye(3), y=np.arange(3))
    edits = [('name = "digits"  ', data + "  "), ('part = "train"', ""), (TEST, ""), ("n_clients = 8", "n_clients = 2")]
    found = complaint(folder, "softmax", *edits)
    assert found.startswith("run.toml: [")
    assert message in found


def test_files_that_are_no_run_files(folder):
    with pytest.raises(RunFileError, match=r"cannot read nothing\.toml: No such file"):
        prepare("nothing.toml")
    with pytest.raises(RunFileError, match=r"is a folder: give a run file, such as .*config\.toml"):
        prepare(folder)
    (folder / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match=r"x\.toml is no text"):
        prepare("x.toml")
    (folder / "x.toml").write_text("")
    with pytest.raises(InvalidInputError, match=r"x\.toml: \[problem\] is missing"):
        prepare("x.toml")


def test_a_missing_data_file_keeps_its_kind_of_error(folder):
    (folder / "x.toml").write_text(
        text_of("softmax").replace('name = "digits"  ', 'libsvm = "no.txt"').replace('part = "train"', "")
    )
    with pytest.raises(DataError, match=r"x\.toml: \[data\]: cannot read .*no\.txt"):
        prepare("x.toml")
