"""Run files as text: settings and copies keep comments, and say what they are told."""

import tomllib
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from tardigrad.core.errors import InvalidInputError
from tardigrad.run_config.examples import names, text_of
from tardigrad.run_config.text import RunFile


def read(text, *settings):
    return RunFile.of_text(text, "run.toml", Path("/folder"), settings)


@pytest.mark.parametrize("name", names())
def test_a_copy_without_changes_is_the_file(name):
    text = text_of(name)
    assert read(text).text == text
    assert read(text).copy({}, []) == text


def test_settings_keep_comments_and_everything_else():
    text = "# top\nseed = 0 # of all\n\n[rule] # here\nkind = 'A' # why\nstep = 0.1   # small\n"
    found = read(text, "seed=3", "rule.step = 0.5", "rule.kind=B")
    assert found.text == '# top\nseed = 3 # of all\n\n[rule] # here\nkind = "B" # why\nstep = 0.5   # small\n'
    assert found.table == {"seed": 3, "rule": {"kind": "B", "step": 0.5}}


def test_settings_make_keys_and_tables_that_are_missing():
    found = read('[rule]\nstep = { kind = "P", scale = 1.0 }\n', "rule.step.scale=2", "checkpoint.every_seconds=5", "seed=1")
    assert found.table == {"rule": {"step": {"kind": "P", "scale": 2}}, "checkpoint": {"every_seconds": 5}, "seed": 1}


def test_settings_of_lists_and_values_of_every_kind():
    text = '[[observers]]\nkind = "a"\n[[observers]]\nkind = "b"\n[x]\nlist = [1, 2]\n'
    found = read(
        text, "observers.1.kind=c", "x.list.0=5", "x.yes=true", 'x.t={ kind = "P", a = [1, 2] }', 'x.s="0.5"', "x.w=a b"
    )
    assert found.table["observers"] == [{"kind": "a"}, {"kind": "c"}]
    assert found.table["x"] == {"list": [5, 2], "yes": True, "t": {"kind": "P", "a": [1, 2]}, "s": "0.5", "w": "a b"}


def test_a_setting_is_one_value():
    for setting in ("seed=1\nrule = 3", "seed=1\n[rule]\nx = 1"):
        with pytest.raises(InvalidInputError, match="one value, on one line"):
            read("seed = 0\n", setting)


@given(st.text(min_size=1, max_size=20).filter(lambda s: s.strip() == s and "\n" not in s and "\r" not in s))
def test_what_is_set_is_what_is_read(value):
    """A text in TOML's quotes comes back as it is, whatever is in it."""
    quoted = tomlkit.string(value).as_string()
    assert read("[a]\nb = 1 # c\n", f"a.b={quoted}").table == {"a": {"b": value}}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_paths_of_any_letters_are_copied(path):
    copy = read('x = [1] # one\n[data]\ncsv = "a.csv" # here\n[[o]]\np = "q"\n').copy(
        {("data", "csv"): path, ("o", 0, "p"): path}, []
    )
    assert tomllib.loads(copy) == {"x": [1], "data": {"csv": path}, "o": [{"p": path}]}
    assert "# here" in copy
    assert "# one" in copy


def test_a_copy_names_imports_even_where_the_file_has_none():
    assert tomllib.loads(read('[rule]\nkind = "A"\n').copy({}, ["/a/b.py"])) == {"import": ["/a/b.py"], "rule": {"kind": "A"}}
    copy = read('import = ["b.py"] # mine\n[rule]\nkind = "A"\n').copy({}, ["/a/b.py", "c"])
    assert tomllib.loads(copy)["import"] == ["/a/b.py", "c"]
    assert "# mine" in copy


def test_a_mark_of_the_byte_order_is_passed_over(tmp_path):
    (tmp_path / "run.toml").write_text("seed = 1\n", encoding="utf-8-sig")
    assert RunFile.read(tmp_path / "run.toml").table == {"seed": 1}
