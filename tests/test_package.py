"""The package as users meet it first: imports, names, versions."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tardigrad as td

ROOT = Path(__file__).parent.parent


def test_import_loads_nothing_heavy():
    code = "import sys, tardigrad; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in ("numba", "sklearn", "torch", "ray", "matplotlib", "scipy", "numpy"):
        assert f"'{name}'" not in loaded


@pytest.mark.parametrize("name", td.__all__)
def test_public_name_exists_and_is_documented(name):
    value = getattr(td, name)
    assert name in dir(td)
    if name != "__version__":
        assert value.__doc__
        assert len(value.__doc__) > 10


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'AsyncSDG'"):
        _ = td.AsyncSDG


def test_changelog_speaks_of_this_version():
    assert re.search(rf"^## {re.escape(td.__version__)}", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_every_module_opens_with_what_it_does():
    for path in (ROOT / "src").rglob("*.py"):
        assert path.read_text().startswith(('"""', 'r"""')), path
