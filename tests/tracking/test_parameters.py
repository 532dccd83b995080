"""Parameters of a run as short texts."""

import numpy as np
import pytest
import scipy.sparse as sp

import tardigrad as td
from tardigrad.tracking.parameters import flatten


def test_nested_objects_have_dotted_names():
    found = flatten("rule", td.DASGD(td.LogStep(2.0, 5.0), td.Ball(0.5), average=True))
    assert found["rule"] == "DASGD"
    assert found["rule.average"] == "True"
    assert [name for name, text in found.items() if text == "LogStep"] == ["rule.step"]
    assert found["rule.step.scale"] == "2.0"
    assert "Ball" in found.values()


def test_lists_of_objects_are_numbered_and_lists_of_numbers_written():
    stop = td.MaxUpdates(3) | td.MaxSeconds(2.0)
    assert flatten("stop", stop) == {
        "stop": "AnyOf",
        "stop.conditions.0": "MaxUpdates",
        "stop.conditions.0.n": "3",
        "stop.conditions.1": "MaxSeconds",
        "stop.conditions.1.seconds": "2.0",
    }
    assert flatten("seconds", [1.0, 2.5]) == {"seconds": "[1.0, 2.5]"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.arange(8), "[0, 1, 2, 3, 4, 5, 6, 7]"),
        (np.arange(9), "int64 (9,)"),
        (np.float32(0.5), "0.5"),
        (sp.csr_array((3, 4)), "sparse float64 (3, 4)"),
        (None, "None"),
        (td.Status.STALLED, "stalled"),
    ],
)
def test_values_are_short(value, text):
    assert flatten("p", value) == {"p": text}


def test_long_texts_are_cut_and_odd_names_cleaned():
    assert flatten("p", "y" * 500) == {"p": "y" * 500}
    assert flatten("p", "y" * 501) == {"p": "y" * 496 + " ..."}
    assert list(flatten("données", {"a:b\n": 1})) == ["donn_es.a_b_"]
    assert list(flatten("n" * 300, 1)) == ["n" * 250]


def test_an_object_that_cannot_be_saved_still_has_a_name():
    class Mine(td.Problem):
        def gradient(self, client, x, sample=None):
            return x

    assert flatten("problem", Mine()) == {"problem": "Mine"}
