"""Tables 1 to 3 of Sahu et al.: every published row, and what stands beside it."""

import importlib
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from tardigrad.core.errors import InvalidInputError
from tardigrad.papers import PAPERS, Reproduction, reproduce
from tardigrad.papers.apsgd import EXAMPLES, TABLE_2, TABLE_3, printed_xi_star


@pytest.fixture(scope="module")
def tables():
    return {name: reproduce(name) for name in PAPERS if name.startswith("apsgd")}


@pytest.mark.parametrize(("name", "rows"), [("apsgd-table2", 15), ("apsgd-table3", 48)])
def test_every_published_row_is_reproduced(tables, name, rows):
    found = tables[name]
    assert len(found.rows) == rows
    for row in found.rows:
        assert row["reproduced"] == row["published"], row
        better = [row["reproduced"], row["corrected"], row["perron"], row["tight"]]
        assert better == sorted(better, reverse=True)
        assert row["tight_sync"] is None or row["tight_sync"] >= row["tight"]
    assert found.comment.startswith(f"{rows} of {rows} published rows reproduced")


def test_rows_are_those_of_the_paper():
    """Its own statements about the tables: k, kappa and the sums of the numbers in a column."""
    assert all(math.isclose(low + M, 1) for low, M, _, _ in TABLE_2)
    assert all(low + M < 1 and 1 / 4 + low / 2 <= M for low, M, _, _ in TABLE_3)
    assert len({row[:3] for row in TABLE_2 + TABLE_3}) == 63
    for c, total in [(1, 12 + 116 + 1082 + 9905), (1.5, 5 + 66 + 688 + 6504), (2, 2 + 40 + 491 + 4803)]:
        assert sum(tau for low, _, uneven, tau in TABLE_3 if uneven == c and low == 1e-2) == total
    by = {row[:3]: row[3] for row in TABLE_3}
    assert (by[1e-2, 0.27, 2], by[1e-5, 0.27, 2], by[1e-5, 0.4, 1], by[1e-5, 0.4, 2]) == (491, 264, 11, 2)  # section 4.4.2


def test_the_corrected_form_changes_table_2_and_not_table_3(tables):
    changed = [row["corrected"] != row["published"] for row in tables["apsgd-table2"].rows]
    assert sum(changed) == 12
    assert all(row["corrected"] == row["published"] for row in tables["apsgd-table3"].rows)


def test_equally_fast_workers_never_favour_asynchrony_by_the_tight_bounds(tables):
    rows = tables["apsgd-table2"].rows + tables["apsgd-table3"].rows
    assert all(row["tight_sync"] is None for row in rows if row["c"] == 1)
    assert all(row["tight_sync"] == 2 for row in tables["apsgd-table3"].rows if row["c"] == 2)
    assert all(row["tight_sync"] is None for row in tables["apsgd-table2"].rows)


@pytest.mark.parametrize(("low", "M", "c", "tau"), TABLE_2)
def test_table_2_does_not_follow_from_table_1(low, M, c, tau):
    """xi_a(omega*, tau) as printed would give 2 in every row."""
    assert printed_xi_star(low, M, c, 2) <= 1 / 2 + M / 2


def test_table_1(tables):
    found = tables["apsgd-table1"]
    assert len(found.rows) == 9 * len(EXAMPLES)
    for row in found.rows:
        assert row["corrected"] == pytest.approx(row["reproduced"], rel=1e-5), row
    wrong = {row["quantity"] for row in found.rows if not np.isclose(row["published"], row["corrected"], rtol=1e-9)}
    assert wrong == {"xi_a(1, tau)/l", "xi_a(1, inf)/l", "xi_a(omega*, tau)/l", "theta_omega*", "parallel, omega = 1"}
    assert {row["case"] for row in found.rows} == {1, 2}


def test_printed_expressions_by_hand(tables):
    """For d = 16, lambda_min = 0.1, lambda_max = 0.9, k = 1."""
    rows = {row["quantity"]: row["published"] for row in tables["apsgd-table1"].rows[:9]}
    assert rows["xi_a(1, tau)/l"] == pytest.approx(10 * (0.75 + (1 + math.sqrt(29.8)) / 64), rel=1e-12)
    assert rows["xi_a(omega*, tau)/l"] == pytest.approx(10 * (0.3 + math.sqrt(17 + 34 * 0.1) / (32 * math.sqrt(17))), rel=1e-12)
    assert rows["theta_omega*"] == pytest.approx((math.sqrt(17) - 1) / 16, rel=1e-12)
    assert rows["xi_a(1, inf)/l"] == pytest.approx(0.4 / 3, rel=1e-12)
    assert rows["parallel, omega = 1"] == pytest.approx(1 / (2 - 0.9125), rel=1e-12)


def test_json_is_plain_and_names_its_keys(tables):
    for name, found in tables.items():
        back = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert back["name"] == name
        assert back["rows"] == found.rows
    keys = ["lmin", "lmax", "c", "published", "reproduced", "corrected", "perron", "tight", "tight_sync"]
    assert list(tables["apsgd-table2"].rows[0]) == list(tables["apsgd-table3"].rows[0]) == keys


def test_table_for_people(tables):
    lines = tables["apsgd-table2"].table().splitlines()
    assert lines[0].split()[:3] == ["lmin", "lmax", "c"]
    assert lines[1].split() == ["0.1", "0.9", "1", "5", "5", "3", "2", "2", "-"]
    assert len({len(line) for line in lines[:16]}) == 1
    assert "xi_a(1, tau)" in tables["apsgd-table1"].table().split("As printed")[1]


def test_unknown_names_get_the_nearest():
    with pytest.raises(InvalidInputError, match=r"named 'apsgd-tabel2'; did you mean apsgd-table2"):
        reproduce("apsgd-tabel2")
    with pytest.raises(InvalidInputError, match=r"named 'xyz'; there are apsgd-table1, "):
        reproduce("xyz")


def test_every_registered_name_is_made_by_its_function(tables):
    for name, made in tables.items():
        assert isinstance(made, Reproduction)
        assert made.name == name
    for module, function, _ in PAPERS.values():  # most take minutes
        assert callable(getattr(importlib.import_module(module), function))


def test_listing_imports_no_paper():
    script = "import sys, tardigrad.papers; sys.exit(any(m.startswith(('tardigrad.papers.', 'scipy')) for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
