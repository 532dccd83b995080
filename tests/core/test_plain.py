"""Plain data: what is saved comes back with the same bits, and nothing else is saved."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import tardigrad as td
from tardigrad.core.errors import RunFileError
from tardigrad.core.files import pack_arrays, unpack_arrays
from tardigrad.core.plain import Plain, decode, encode, same_bits
from tardigrad.core.rule import scratch_field


@dataclass(frozen=True)
class Pair(Plain):
    """A dataclass that is saved by its arguments."""

    first: Any
    second: Any = None


@dataclass
class Buffered(Plain):
    """A dataclass with working space."""

    x: Any
    scratch: Any = scratch_field()


class Renamed(Plain):
    """A class that says itself which arguments rebuild it."""

    def __init__(self, values):
        self.total = sum(values)
        self._values = values

    def fields(self):
        return {"values": self._values}


class Silent(Plain):
    """Neither a dataclass nor with fields of its own."""


def through_text(value, tmp_path):
    """Encode, write as JSON text and an npz file, read both, decode."""
    arrays = {}
    text = json.dumps(encode(value, arrays))
    return decode(json.loads(text), unpack_arrays(pack_arrays(arrays), tmp_path / "arrays.npz"))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        2**100,
        'text with "quotes", $dollars and ünïcödé \n',
        0.1,
        -0.0,
        float("nan"),
        float("inf"),
        -float("inf"),
        5e-324,
        1.7976931348623157e308,
        [],
        (),
        {},
        [1, (2, [3.0, ()]), None],
        {"a": {"b": (1,)}},
        {0: "zero", 1: [1]},
        {(1, 2): "tuple", "s": 0},
        {"$array": "not an array", "$type": "not a class"},
        {"$": 1},
        np.arange(3),
        np.array(2.5),
        np.zeros((0, 3), np.float32),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array(["ab", "c"]),
        np.array([np.nan, -0.0, np.inf]),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10, dtype=np.int8)[::3],
        np.zeros(2, [("a", np.int64), ("b", np.float32)]),
        {"early": {3: np.ones(2), 5: np.zeros(2)}, "total": (np.ones(1), [np.ones(2)])},
        Pair(1, {"x": Pair((np.ones(3), None), [float("nan")])}),
        [Pair(0.1), Pair(0.1)],
    ],
    ids=repr,
)
def test_a_value_comes_back_from_text_with_the_same_bits(value, tmp_path):
    assert same_bits(through_text(value, tmp_path), value)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=12,
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(PLAIN)
def test_any_nested_plain_value_comes_back_from_json_text(value):
    arrays = {}
    assert same_bits(decode(json.loads(json.dumps(encode(value, arrays))), arrays), value)


@pytest.mark.parametrize("make", [sp.csr_array, sp.csr_matrix, sp.csc_array, sp.coo_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_sparse_matrix_comes_back_as_csr(make, dtype, tmp_path):
    dense = np.array([[0, 1.5, 0], [0, 0, 0], [-2, 0, 3]], dtype)
    back = through_text({"X": make(dense)}, tmp_path)["X"]
    assert isinstance(back, sp.csr_array)
    assert back.dtype == dtype
    assert np.array_equal(back.toarray(), dense)


def test_an_empty_sparse_matrix_keeps_its_shape(tmp_path):
    assert through_text(sp.csr_array((3, 5)), tmp_path).shape == (3, 5)


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.1),
        np.float64(-0.0),
        np.float64(np.inf),
        np.float32(0.1),
        np.float16(2.5),
        np.int64(-3),
        np.uint64(2**64 - 1),
        np.bool_(True),
    ],
)
def test_a_numpy_scalar_keeps_its_type_and_its_bits(value, tmp_path):
    back = through_text([value, {value: 0}], tmp_path)
    assert type(back[0]) is type(value)
    assert back[0].tobytes() == value.tobytes()
    assert type(next(iter(back[1]))) is type(value)


def test_a_numpy_string_comes_back_as_the_equal_string(tmp_path):
    assert through_text(np.str_("s"), tmp_path) == "s"


def test_scratch_space_is_not_saved(tmp_path):
    back = through_text(Buffered(np.ones(2), scratch=lambda: None), tmp_path)
    assert back.scratch is None
    assert same_bits(back.x, np.ones(2))


def test_a_class_with_fields_of_its_own_is_rebuilt_through_its_constructor(tmp_path):
    back = through_text(Renamed([1, 2, 3]), tmp_path)
    assert isinstance(back, Renamed)
    assert back.total == 6


def test_what_is_saved_of_an_object_is_its_class_and_its_arguments():
    assert encode(td.MaxUpdates(5), {}) == {"$type": "tardigrad.core.stopping:MaxUpdates", "n": 5}


def test_a_class_of_the_package_is_imported_when_it_is_read():
    code = """
import sys
from tardigrad.core.plain import decode
assert "tardigrad.timing.models" not in sys.modules
print(decode({"$type": "tardigrad.timing.models:Constant", "seconds": 2.0}, {}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Constant(seconds=2.0)", done.stderr


@pytest.mark.parametrize(
    ("was", "moved"),
    [
        ("tardigrad.rules.sketch_project:AcceleratedSketchProject", td.AcceleratedSketchProject(1.0, 1.2)),
    ],
)
def test_a_class_that_moved_is_read_where_it_was(was, moved):
    tree = encode(moved, {})
    assert tree["$type"] != was
    assert same_bits(decode({**tree, "$type": was}, {}), moved)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("builtins:eval", "not a class of tardigrad"),
        ("os:system", "not a class of tardigrad"),
        ("tardigrad.__main__:main", "not a class of tardigrad"),  # importing it is not to run the command line
        ("nowhere:Thing", "not a class of tardigrad: import the module"),
        ("tardigrad.core.stopping:NoSuchStop", "not a class of tardigrad"),
        ("tardigrad.core.stopping:limits", "not a class of tardigrad"),
        ("tardigrad.core.plain:ABC", "not a class of tardigrad"),
        ("tardigrad.no_such_module:Thing", "cannot be imported here"),
        ("tardigradx.core:Thing", "not a class of tardigrad"),
    ],
)
def test_a_name_that_is_no_known_class_is_an_error_that_names_it(name, message):
    with pytest.raises(RunFileError, match=message) as caught:
        decode([{"$type": name}], {})
    assert name in str(caught.value)


def test_a_class_of_a_script_is_found_by_its_name_where_it_is_the_only_one():
    assert decode({"$type": "__main__:Renamed", "values": [1, 2]}, {}).total == 3
    with pytest.raises(RunFileError, match="__main__:NoSuchClass"):
        decode({"$type": "__main__:NoSuchClass"}, {})


@pytest.mark.parametrize("fields", [{"n": 5, "colour": "red"}, {}])
def test_other_parameters_than_those_of_the_class_are_an_error_that_names_it(fields):
    with pytest.raises(RunFileError, match=r"what was saved as .*stopping:MaxUpdates has other parameters than here"):
        decode({"$type": "tardigrad.core.stopping:MaxUpdates", **fields}, {})


def test_reading_a_name_does_not_import_modules_outside_the_package(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('code of the file was run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RunFileError, match="evil_module"):
        decode({"$type": "evil_module:Thing"}, {})


@pytest.mark.parametrize(
    "value",
    [
        object(),
        lambda n: 0.1,
        {1, 2},
        b"bytes",
        1j,
        np.complex128(1j),
        np.longdouble(1),
        np.datetime64("2020-01-01"),
        range(3),
        int,
        np.random.default_rng(0),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"a": [v]}, Pair], ids=["bare", "nested", "field"])
def test_what_is_not_plain_is_a_type_error(value, wrap):
    with pytest.raises(TypeError, match="not plain data"):
        encode(wrap(value), {})


def test_an_array_of_objects_is_a_type_error():
    with pytest.raises(TypeError, match="array of Python objects"):
        encode(np.array([1, None], object), {})


def test_a_plain_class_without_fields_is_told_to_define_them():
    with pytest.raises(TypeError, match=r"Silent is not a dataclass: define fields\(\)"):
        encode(Silent(), {})


NAN = float("nan")
CSR = sp.csr_array(np.array([[0.0, 1.0], [2.0, 0.0]]))


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (NAN, float("nan"), True),
        (np.float32(NAN), np.float32(NAN), True),
        (0.0, -0.0, False),
        (0.1 + 0.2, 0.3, False),
        (np.array([NAN, 1.0]), np.array([NAN, 1.0]), True),
        (np.array([0.0]), np.array([-0.0]), False),
        (np.array([1.0]), np.array([1.0], np.float32), False),
        (np.array([0]), np.array([0.0]), False),
        (np.array([0]), np.array([0], np.uint64), False),
        (np.zeros((2, 3)), np.zeros((3, 2)), False),
        (np.zeros(2), np.zeros((2, 1)), False),
        (np.asfortranarray(np.arange(4.0).reshape(2, 2)), np.arange(4.0).reshape(2, 2), True),
        (np.ones(2), [1.0, 1.0], False),
        (1, 1.0, False),
        (True, 1, False),
        ((1, 2), [1, 2], False),
        ([1, 2], [1, 2, 3], False),
        ({"a": NAN}, {"a": NAN}, True),
        ({"a": 1}, {"b": 1}, False),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"a": np.zeros(1)}, {"a": -np.zeros(1)}, False),
        (Pair(np.zeros(2), NAN), Pair(np.zeros(2), NAN), True),
        (Pair(np.zeros(2), NAN), Pair(np.ones(2), NAN), False),
        (Pair(1), Renamed([1]), False),
        (Buffered(1.0, scratch=np.ones(2)), Buffered(1.0), True),
        (None, None, True),
        (None, 0, False),
        ("a", "a", True),
        (CSR, CSR.copy(), True),
        (CSR, CSR * 2, False),
    ],
)
def test_same_bits(a, b, same):
    assert same_bits(a, b) is same
    assert same_bits(b, a) is same


def test_a_class_that_was_pickled_by_value_is_still_the_one_that_is_read_back():
    # cloudpickle makes an empty class of the same name before it notices that there is one
    code = (
        "import cloudpickle, tardigrad as td\nfrom tardigrad.core.plain import decode, encode\n"
        "class Mine(td.Stop):\n"
        "    def __init__(self, n): self.n = n\n"
        "    def fields(self): return {'n': self.n}\n"
        "cloudpickle.loads(cloudpickle.dumps(Mine(3)))\n"
        "back = decode(encode(Mine(3), {}), {})\n"
        "assert type(back) is Mine and back.n == 3\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_a_class_that_is_defined_again_is_the_one_that_is_read_back():
    def define(step):
        class Again(Plain):
            def __init__(self):
                self.step = step

            def fields(self):
                return {}

        class Heir(Again):
            pass

        return Again, Heir

    for step in (1, 2):
        for cls in define(step):
            back = decode(encode(cls(), {}), {})
            assert type(back) is cls
            assert back.step == step


def test_a_class_of_a_function_that_was_pickled_by_value_is_read_back_too():
    class Local(Plain):
        def __init__(self, n):
            self.n = n

        def fields(self):
            return {"n": self.n}

    cloudpickle.loads(cloudpickle.dumps(Local(3)))
    assert type(decode(encode(Local(3), {}), {})) is Local
