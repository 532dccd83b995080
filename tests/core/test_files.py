"""Files of a run: written whole or not at all, and checked when read."""

import hashlib
import json
import os

import numpy as np
import pytest

from tardigrad.core import files
from tardigrad.core.errors import RunFileError
from tardigrad.core.files import (
    FORMAT,
    HEADER,
    make_folder,
    pack_arrays,
    read_folder,
    read_header,
    unpack_arrays,
    write_atomic,
    write_folder,
)

CONTENT = {"arrays.npz": b"some bytes", "trace.npz": bytes(range(256)) * 40}


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "run", {"tardigrad": "9.9", "note": [1, 2.5, None]}, CONTENT)
    return tmp_path / "run"


def change_header(folder, **changes):
    header = json.loads((folder / HEADER).read_text()) | changes
    (folder / HEADER).write_text(json.dumps({name: value for name, value in header.items() if value is not ...}))


def test_an_atomic_write_makes_the_file_and_leaves_no_other(tmp_path):
    write_atomic(tmp_path / "a.bin", b"first")
    write_atomic(tmp_path / "a.bin", b"second")
    assert (tmp_path / "a.bin").read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk full", "Ctrl-C"])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch, step, error):
    write_atomic(tmp_path / "a.bin", b"old")

    def fail(*args):
        raise error

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else RunFileError):
        write_atomic(tmp_path / "a.bin", b"new")
    monkeypatch.undo()
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_full_disk_is_named_with_the_path(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(RunFileError, match=r"cannot write .*a\.bin: No space left on device\. Choose a folder"):
        write_atomic(tmp_path / "a.bin", b"new")


def test_a_file_may_be_read_by_whom_the_umask_lets(tmp_path):
    old = os.umask(0o022)
    try:
        write_atomic(tmp_path / "a.bin", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "write", [write_atomic, lambda path, content: make_folder(path), lambda path, content: write_folder(path, {}, {})]
)
def test_a_path_below_a_regular_file_cannot_be_written(tmp_path, write):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunFileError, match=r"cannot write .*file.below.*: .*Choose a folder"):
        write(tmp_path / "file" / "below", b"x")


def test_make_folder_refuses_a_regular_file_in_its_place(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunFileError, match=r"cannot write .*file: File exists"):
        make_folder(tmp_path / "file")


def test_make_folder_makes_parents_and_leaves_nothing_in_it(tmp_path):
    path = make_folder(tmp_path / "a" / "b")
    assert path.is_dir()
    assert os.listdir(path) == []
    assert make_folder(path) == path


def test_a_folder_is_read_back_as_it_was_written(folder):
    header, content = read_folder(folder)
    assert content == CONTENT
    assert header["note"] == [1, 2.5, None]
    assert header["format"] == FORMAT
    assert sorted(os.listdir(folder)) == sorted([HEADER, *CONTENT])


def test_a_second_run_replaces_the_first(folder):
    write_folder(folder, {"note": "second"}, {"arrays.npz": b"other"})
    header, content = read_folder(folder)
    assert header["note"] == "second"
    assert content == {"arrays.npz": b"other"}


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b"", lambda b: bytes([b[0] ^ 1]) + b[1:]],
    ids=["truncated", "longer", "empty", "one bit"],
)
@pytest.mark.parametrize("name", list(CONTENT))
def test_a_changed_file_is_named_with_its_size(folder, name, damage):
    damaged = damage(CONTENT[name])
    (folder / name).write_bytes(damaged)
    with pytest.raises(RunFileError, match=rf"{name} \({len(damaged)} bytes\) is not the file that run.json describes"):
        read_folder(folder)


def test_a_missing_file_is_named(folder):
    (folder / "trace.npz").unlink()
    with pytest.raises(RunFileError, match=r"cannot read .*trace\.npz: No such file"):
        read_folder(folder)


def test_files_mixed_from_two_runs_are_recognised(folder, tmp_path):
    write_folder(tmp_path / "other", {}, {"arrays.npz": b"of another run"})
    (folder / "arrays.npz").write_bytes((tmp_path / "other" / "arrays.npz").read_bytes())
    with pytest.raises(RunFileError, match="cut short or changed"):
        read_folder(folder)


@pytest.mark.parametrize(
    "make", [lambda p: p.mkdir(), lambda p: p.write_text("x"), lambda p: None], ids=["empty folder", "file", "nothing"]
)
def test_what_is_not_a_run_folder_is_said_to_hold_no_run(tmp_path, make):
    path = tmp_path / "not-a-run"
    make(path)
    with pytest.raises(RunFileError, match=r"not-a-run holds no saved run \(no run\.json\)"):
        read_folder(path)


@pytest.mark.parametrize(
    "text", [b"", b'{"format": 1, "fi', b"[1, 2]", b"3", b"null", b'"text"', b"{}", b'{"format": "one"}', b"\xff\xfe\0"]
)
def test_a_broken_header_is_said_to_be_none(folder, text):
    (folder / HEADER).write_bytes(text)
    with pytest.raises(RunFileError, match=r"run\.json is not a run header"):
        read_header(folder)


@pytest.mark.parametrize("listed", [..., None, [], "arrays.npz"])
def test_a_header_without_its_list_of_files_is_an_error(folder, listed):
    change_header(folder, files=listed)
    with pytest.raises(RunFileError, match="lists no files"):
        read_folder(folder)


def test_a_newer_format_says_to_upgrade(folder):
    change_header(folder, format=FORMAT + 1)
    message = (
        rf"has format {FORMAT + 1}, written by tardigrad 9\.9; this version reads up to format {FORMAT}: upgrade tardigrad"
    )
    with pytest.raises(RunFileError, match=message):
        read_folder(folder)


def test_a_header_that_is_a_folder_cannot_be_read(folder):
    (folder / HEADER).unlink()
    (folder / HEADER).mkdir()
    with pytest.raises(RunFileError, match=r"cannot read .*run\.json"):
        read_folder(folder)


def test_the_header_is_written_last_and_holds_checksums(folder, monkeypatch, tmp_path):
    assert json.loads((folder / HEADER).read_text())["files"] == {n: hashlib.sha256(c).hexdigest() for n, c in CONTENT.items()}
    written = []
    monkeypatch.setattr(files, "write_atomic", lambda path, content: written.append(path.name))
    write_folder(tmp_path / "again", {}, CONTENT)
    assert written == [*CONTENT, HEADER]


ARRAYS = {"a": np.arange(3), "x": np.array([[np.nan, -0.0]], np.float32), "s": np.array(["ab"]), "empty": np.zeros((0, 2))}


def test_arrays_come_back_with_the_same_names_and_bits(tmp_path):
    back = unpack_arrays(pack_arrays(ARRAYS), tmp_path / "a.npz")
    assert list(back) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


def test_the_same_arrays_make_the_same_bytes():
    assert pack_arrays(ARRAYS) == pack_arrays({name: array.copy() for name, array in ARRAYS.items()})


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"text" * 100, lambda b: b[:60] + b"\xff" * 40 + b[100:]]
)
def test_a_broken_npz_file_is_named(damage, tmp_path):
    content = damage(pack_arrays({"a": np.arange(300.0)}))
    with pytest.raises(RunFileError, match=r"a\.npz is not a readable npz file"):
        unpack_arrays(content, tmp_path / "a.npz")


def test_a_pickle_inside_an_npz_file_is_not_opened(tmp_path):
    path = tmp_path / "pickled.npz"
    np.savez(path, a=np.array([{"code": 1}], object))
    with pytest.raises(RunFileError, match=r"pickled\.npz is not a readable npz file"):
        unpack_arrays(path.read_bytes(), path)


def test_objects_are_not_packed():
    with pytest.raises(ValueError, match="allow_pickle=False"):
        pack_arrays({"a": np.array([None], object)})
