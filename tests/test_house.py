"""Rules of the house that a program can check: sizes of files and functions, and what docstrings say.

An exception is written down here with its reason; one that is needed no more is an error too.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import tardigrad as td

SOURCE = Path(td.__file__).parent
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
FILE_LINES, FUNCTION_LINES = 300, 60
#: rooms whose functions are mathematics: each says where it comes from
SOURCED = ("rules", "theory")

LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS = {
    "core/loop.py go": "the only event loop of the library, with everything that it keeps in local variables",
}
#: files that state no rules of their own, beside those of a few lines
WITHOUT_RULES = {"__init__.py": "says what the package is"}
#: a file of fewer lines is described by its first sentence
FEW_LINES = 45

WITHOUT_SOURCE: dict[str, str] = {}


@cache
def tree(name):
    return ast.parse((SOURCE / name).read_text())


def docstring(node):
    return ast.get_docstring(node) or ""


def n_lines(function):
    """Lines of code, without the docstring."""
    first = function.body[0]
    said = docstring(function) and first.end_lineno - first.lineno + 1
    return function.end_lineno - function.lineno + 1 - (said or 0)


def long_functions(name):
    functions = [node for node in ast.walk(tree(name)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return {f"{name} {node.name}": n_lines(node) for node in functions if n_lines(node) > FUNCTION_LINES}


def public(name):
    """Classes and functions of a file that users meet: by the package's own names, and all of the theory."""
    everything = name.startswith("theory/")
    kinds = (ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in tree(name).body if isinstance(node, kinds) and not node.name.startswith("_")]
    return [node for node in nodes if everything or module_of(node.name) == name]


@cache
def module_of(name):
    """The file that a public name of the package comes from."""
    place = td._MODULE_OF.get(name)
    return f"{place.replace('.', '/')}.py" if place else None


def test_files_and_public_names_are_found():
    assert {"__init__.py", "core/drive.py", "theory/parallel.py"} <= set(FILES)
    assert [node.name for node in public("rules/incremental.py")] == ["IAG", "SAGA"]
    assert "xi" in [node.name for node in public("theory/parallel.py")]


def test_lines_of_a_function_are_counted_without_its_docstring():
    code = 'def f(x):\n    """One\n    two."""\n    y = x\n    return y\n'
    assert n_lines(ast.parse(code).body[0]) == 3
    assert n_lines(ast.parse(code.replace('    """One\n    two."""\n', "")).body[0]) == 3


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_short(name):
    lines = len((SOURCE / name).read_text().splitlines())
    if name in LONG_FILES:
        assert lines > FILE_LINES, f"{name} has {lines} lines now: take it from the exceptions"
    else:
        assert lines <= FILE_LINES, f"{name} has {lines} lines: split it by sense"


@pytest.mark.parametrize("name", FILES)
def test_functions_are_short(name):
    found = long_functions(name)
    excused = {place for place in LONG_FUNCTIONS if place.startswith(f"{name} ")}
    assert set(found) == excused, f"longer than {FUNCTION_LINES} lines are {found}, excused {excused}"


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_it_does_and_its_rules(name):
    text = docstring(tree(name))
    assert text or name.endswith("conftest.py") or not tree(name).body
    short = len((SOURCE / name).read_text().splitlines()) <= FEW_LINES
    if short or name.startswith("run_config/examples/"):
        assert name not in WITHOUT_RULES
        return
    states_rules = "Rules of this file" in text or "Rules of this package" in text
    assert states_rules != (name in WITHOUT_RULES), f"{name}: rules, or an exception with its reason"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("theory/")])
def test_theory_has_examples(name):
    """As all that the package shows has (`test_docs`)."""
    for node in public(name):
        assert ">>>" in docstring(node), f"{name}: {node.name} needs an example"


A_SOURCE = re.compile(
    r"References\n\s*-+\n|\(\d+\)|(theorem|lemma|algorithm|assumption|corollary|section|proposition|equation)s? [\dA-Z]", re.I
)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(SOURCED)])
def test_mathematics_names_its_source(name):
    for node in public(name):
        text = docstring(node).partition("Examples\n---")[0] + docstring(tree(name))
        assert bool(A_SOURCE.search(text)) != (node.name in WITHOUT_SOURCE), f"{name}: where does {node.name} come from?"


def test_exceptions_name_what_exists():
    assert {*LONG_FILES, *WITHOUT_RULES, *(place.split()[0] for place in LONG_FUNCTIONS)} <= set(FILES)
    assert set(WITHOUT_SOURCE) <= {node.name for name in FILES for node in public(name)}
