"""Stability of AsyncEigenPro: the rows, and that a run which diverges counts."""

import json

import pytest

import tardigrad as td
from needs import needs_data
from tardigrad.papers import async_eigenpro_stability as stability


def test_a_row_for_each_setting_and_none_diverges():
    found = stability.stability(["random"], [1, 3], n_seeds=2, n_epochs=3, n_rows=300)
    rows = json.loads(json.dumps(found.to_json()))["rows"]
    assert [(row["workers"], row["slow"]) for row in rows] == [(1, "none"), (3, "none"), (3, "one, 10 times")]
    for row in rows:
        assert (row["data"], row["runs"], row["diverged"]) == ("random", 2, 0)
        assert row["last_epoch"] < 0.5 * row["first_epoch"] < 1
    assert found.comment.startswith("0 of 6 runs of 3 epochs diverged")


@pytest.mark.parametrize("factor", [12.0, 1e12])
def test_a_run_that_diverges_is_seen(monkeypatch, factor):
    class TooLarge(td.AsyncEigenPro):
        def __new__(cls, *args, **kwargs):
            return td.AsyncEigenPro(step_factor=factor)

    monkeypatch.setattr(stability, "AsyncEigenPro", TooLarge)
    found = stability.stability(["random"], [2], n_seeds=1, n_epochs=4, n_rows=300)
    assert [row["diverged"] for row in found.rows] == [1, 1]
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_data(name)) for name in ("california-housing", "a9a", "fashion-mnist")]
)
def test_data_are_scaled_and_targets_centred(name):
    X, Y = stability.points_and_targets(name, 500)
    assert len(X) == len(Y) == 500
    if name != "fashion-mnist":
        assert abs(X.mean()) < 1e-5
        assert abs(Y.mean()) < 1e-12
