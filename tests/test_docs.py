"""The documentation is whole: public names are in the reference, pages in the navigation, examples in docstrings."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import tardigrad as td
import tardigrad.diagnostics
import tardigrad.theory

DOCS = Path(__file__).parent.parent / "docs"


def reference():
    """What the reference pages show: {dotted name: names that it is limited to, or None for all}."""
    shown = {}
    for page in sorted((DOCS / "reference").glob("*.md")):
        for name, members in re.findall(r"^::: (\S+)\n(?:    options:\n(?:      members: \[(.*)\])?)?", page.read_text(), re.M):
            shown[name] = re.split(r",\s*", members) if members else None
    return shown


SHOWN = reference()


def resolve(dotted):
    """A module, or something in one."""
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
        return getattr(importlib.import_module(module), name)


def public_members(module):
    """Functions and classes of a module: those in its `__all__`, or else those that are written in its file."""
    written = ast.parse(Path(module.__file__).read_text()).body
    own = [node.name for node in written if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [getattr(module, name) for name in getattr(module, "__all__", own) if not name.startswith("_")]


def shown_objects():
    """Everything that a page shows, by itself or as a member of its module."""
    for dotted, members in SHOWN.items():
        value = resolve(dotted)
        if not inspect.ismodule(value):
            yield value
        elif members is None:
            yield from public_members(value)
        else:
            yield from (getattr(value, name) for name in members)


def modules_of(package):
    return [importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)]


ON_PAGES = set(shown_objects())
PUBLIC = [getattr(td, name) for name in td.__all__ if name not in ("__version__", *td._SUBMODULES)]
#: what theory and diagnostics share with themselves
HELPERS = ("tardigrad.theory.spectra", "tardigrad.diagnostics.replayed")
OPEN_MODULES = [
    module
    for module in (td.testing, td.datasets, *modules_of(tardigrad.theory), *modules_of(tardigrad.diagnostics))
    if module.__name__ not in HELPERS
]


@pytest.mark.parametrize("value", PUBLIC, ids=lambda value: value.__name__)
def test_public_name_is_in_the_reference(value):
    assert value in ON_PAGES, f"add '::: {value.__module__}.{value.__qualname__}' to docs/reference"


@pytest.mark.parametrize("dotted", SHOWN)
def test_what_the_reference_shows_exists(dotted):
    value = resolve(dotted)
    for member in SHOWN[dotted] or ():
        assert hasattr(value, member), f"{dotted} has no {member}"
    assert value.__doc__


@pytest.mark.parametrize("module", OPEN_MODULES, ids=lambda module: module.__name__)
def test_functions_of_theory_diagnostics_testing_and_datasets_are_in_the_reference(module):
    missing = [value.__name__ for value in public_members(module) if value not in ON_PAGES]
    assert not missing, f"docs/reference lacks {', '.join(missing)} of {module.__name__}"


#: what authors subclass or are handed: write-a-rule.md, timing.md and the classes that are made of them show how
FOR_AUTHORS = (td.Compressor, td.Engine, td.InPlaceRule, td.InPlaceState, td.Placement)
FOR_AUTHORS += (td.Problem, td.ReadSequence, td.Rule, td.StepSequence, td.Timing)


def to_be_used(value):
    return value not in FOR_AUTHORS and not (inspect.isclass(value) and issubclass(value, Exception))


@pytest.mark.parametrize("value", list(filter(to_be_used, PUBLIC)), ids=lambda value: value.__name__)
def test_public_docstring_has_an_example(value):
    assert ">>> " in value.__doc__


def test_the_list_of_names_is_whole():
    listed = re.findall(r"\[`(\w+)`\]\[", (DOCS / "reference" / "index.md").read_text().partition("## Modules")[0])
    assert sorted(listed) == sorted(value.__name__ for value in PUBLIC)


def test_every_page_is_in_the_navigation():
    navigation = (DOCS.parent / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert pages == set(re.findall(r": (\S+\.md)$", navigation, re.M))


@pytest.mark.parametrize("page", sorted((DOCS / "tutorials").glob("*.md")), ids=lambda page: page.stem)
def test_tutorial_has_examples_that_run_and_says_when_not(page):
    text = page.read_text()
    assert text.count("\n>>> ") > 10
    assert re.search(r"^## When (not|synchronous is better)", text, re.M)
    assert "4 cores of an Intel Xeon" in text or "core of an Intel Xeon" in text
