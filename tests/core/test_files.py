"""Files of a run: written whole or not at all, and checked when read."""

import contextlib
import hashlib
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from tardigrad.core import files
from tardigrad.core.errors import RunFileError
from tardigrad.core.files import (
    FORMAT,
    HEADER,
    RunFolder,
    make_folder,
    pack_arrays,
    read_folder,
    read_header,
    unpack_arrays,
    write_atomic,
)

CONTENT = {"arrays": {"a": np.arange(3.0), "b": np.zeros((0, 2))}, "trace": {"t": np.arange(1000)}}


def write_run(folder, header, content):
    """Put all parts and commit them; the store."""
    with contextlib.closing(RunFolder(folder)) as store:
        store.commit(header, [store.put(name, arrays) for name, arrays in content.items()])
    return store


@pytest.fixture
def folder(tmp_path):
    write_run(tmp_path / "run", {"tardigrad": "9.9", "note": [1, 2.5, None]}, CONTENT)
    return tmp_path / "run"


def file_of(folder, name):
    """The file of a part."""
    (found,) = folder.glob(f"{name}-*.npz")
    return found


def same(content, other):
    return {name: {n: a.tolist() for n, a in part.items()} for name, part in content.items()} == {
        name: {n: a.tolist() for n, a in part.items()} for name, part in other.items()
    }


def change_header(folder, **changes):
    header = json.loads((folder / HEADER).read_text()) | changes
    (folder / HEADER).write_text(json.dumps({name: value for name, value in header.items() if value is not ...}))


def test_nobody_is_advised_to_unpickle_a_file(tmp_path):
    with pytest.raises(RunFileError, match=r"t.npz is not a readable npz file \(no arrays are in it\)") as caught:
        unpack_arrays(b"no archive", tmp_path / "t.npz")
    assert "pickle" not in str(caught.value)


def test_what_is_no_file_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomic(pipe, iter([b"one ", b"two"]))
        assert os.read(reader, 100) == b"one two"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_link_stays_and_the_file_that_it_names_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "file")
    for content in (b"made", b"replaced"):
        write_atomic(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "far" / "file").read_bytes() == content
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["far", "file", "link"]


@pytest.mark.parametrize("path", [".", "..", "/", "", "folder"])
def test_a_folder_is_not_written_over(tmp_path, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunFileError, match="it is a folder; give the name of a file"):
        write_atomic(Path(path), b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_atomic_write_makes_the_file_and_leaves_no_other(tmp_path):
    write_atomic(tmp_path / "a.bin", b"first")
    write_atomic(tmp_path / "a.bin", b"second")
    assert (tmp_path / "a.bin").read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_content_in_pieces_is_one_file_or_none(tmp_path):
    write_atomic(tmp_path / "a.bin", (bytes([i]) * i for i in range(4)))
    assert (tmp_path / "a.bin").read_bytes() == b"\x01\x02\x02\x03\x03\x03"

    def broken():
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a.bin", broken())
    assert os.listdir(tmp_path) == ["a.bin"]
    assert len((tmp_path / "a.bin").read_bytes()) == 6


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
    "write", [write_atomic, lambda path, content: make_folder(path), lambda path, content: RunFolder(path)]
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
    assert same(content, CONTENT)
    assert header["note"] == [1, 2.5, None]
    assert header["format"] == FORMAT
    assert sorted(os.listdir(folder)) == sorted([HEADER, *(file_of(folder, name).name for name in CONTENT)])


def test_a_second_run_replaces_the_first_and_its_files(folder):
    write_run(folder, {"note": "second"}, {"arrays": {"other": np.ones(2)}})
    header, content = read_folder(folder)
    assert header["note"] == "second"
    assert same(content, {"arrays": {"other": np.ones(2)}})
    assert len(os.listdir(folder)) == 2


def test_files_of_others_in_the_folder_are_left_alone(folder):
    names = ["notes.txt", "mine.npz", "mine-12345678.npz", "mine-0123456789abcdeg.npz", ".hidden", "arrays.npz"]
    for name in names:
        (folder / name).write_text("mine")
    write_run(folder, {}, {"arrays": {"other": np.ones(2)}})
    assert set(names) < set(os.listdir(folder))


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b"", lambda b: bytes([b[0] ^ 1]) + b[1:]],
    ids=["truncated", "longer", "empty", "one bit"],
)
@pytest.mark.parametrize("name", list(CONTENT))
def test_a_changed_file_is_named_with_its_size(folder, name, damage):
    path = file_of(folder, name)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(RunFileError, match=rf"{path.name} \({len(damaged)} bytes\) is not the file that run.json describes"):
        read_folder(folder)


def test_a_missing_file_is_named(folder):
    path = file_of(folder, "trace")
    path.unlink()
    with pytest.raises(RunFileError, match=rf"cannot read .*{path.name}: No such file"):
        read_folder(folder)


def test_files_mixed_from_two_runs_are_recognised(folder, tmp_path):
    write_run(tmp_path / "other", {}, {"arrays": {"a": np.full(3, 7.0)}})
    content = file_of(tmp_path / "other", "arrays").read_bytes()
    file_of(folder, "arrays").write_bytes(content)
    with pytest.raises(RunFileError, match="cut short or changed"):
        read_folder(folder)


def test_a_file_of_another_run_beside_this_one_s_does_not_matter(folder, tmp_path):
    write_run(tmp_path / "other", {}, {"arrays": {"a": np.full(3, 7.0)}})
    other = file_of(tmp_path / "other", "arrays")
    (folder / other.name).write_bytes(other.read_bytes())
    assert same(read_folder(folder)[1], CONTENT)


def test_a_header_of_another_run_lacks_its_files(folder, tmp_path):
    write_run(tmp_path / "other", {}, {"arrays": {"a": np.full(3, 7.0)}})
    (folder / HEADER).write_bytes((tmp_path / "other" / HEADER).read_bytes())
    with pytest.raises(RunFileError, match=r"cannot read .*arrays-\w+\.npz: No such file"):
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


@pytest.mark.parametrize("part", [None, "arrays-1.npz", {}, {"file": "a.npz"}, {"file": None, "sha256": "00"}, [1]], ids=repr)
def test_a_list_of_files_that_was_changed_is_an_error(folder, part):
    change_header(folder, files={"arrays": part})
    with pytest.raises(RunFileError, match="does not say which files belong to it"):
        read_folder(folder)


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


@pytest.mark.parametrize("old", [1, 0, -3])
def test_an_older_format_says_that_it_is_not_read_any_more(folder, old):
    change_header(folder, format=old)
    with pytest.raises(RunFileError, match=rf"has format {old}, which this version \({FORMAT}\) does not read any more"):
        read_folder(folder)


def test_a_header_that_is_a_folder_cannot_be_read(folder):
    (folder / HEADER).unlink()
    (folder / HEADER).mkdir()
    with pytest.raises(RunFileError, match=r"cannot read .*run\.json"):
        read_folder(folder)


def digest(arrays):
    return hashlib.sha256(pack_arrays(arrays)).hexdigest()


def test_the_header_holds_checksums_and_names_have_their_beginning(folder):
    files_of = {n: {"file": f"{n}-{digest(c)[:16]}.npz", "sha256": digest(c)} for n, c in CONTENT.items()}
    assert json.loads((folder / HEADER).read_text())["files"] == files_of


def test_the_header_is_written_last_and_old_files_go_after_it(folder, monkeypatch):
    order = []

    def noted(path, content):
        order.append(path.name)
        write_atomic(path, content)

    unlink = files.Path.unlink
    monkeypatch.setattr(files, "write_atomic", noted)
    monkeypatch.setattr(files.Path, "unlink", lambda path: order.append(f"rm {path.name}") or unlink(path))
    old = file_of(folder, "arrays").name
    new = {"arrays": {"a": np.ones(1)}, "trace": CONTENT["trace"]}
    write_run(folder, {}, new)
    done = [name for name in order if not name.startswith("rm .")]
    assert done == [f"arrays-{digest(new['arrays'])[:16]}.npz", file_of(folder, "trace").name, HEADER, f"rm {old}"]


def test_a_part_that_did_not_change_is_not_written_again(folder, monkeypatch):
    store = write_run(folder, {}, CONTENT)
    written = []
    monkeypatch.setattr(files, "write_atomic", lambda path, content: written.append(path.name))
    assert store.put("arrays", CONTENT["arrays"]) == "arrays"
    assert written == []
    assert "arrays" in store
    assert "history" not in store
    store.put("arrays", {"a": np.ones(1)})
    assert len(written) == 1


def test_a_part_that_is_not_committed_any_more_is_gone(folder):
    store = write_run(folder, {}, CONTENT)
    store.commit({}, ["trace"])
    assert same(read_folder(folder)[1], {"trace": CONTENT["trace"]})
    assert "arrays" not in store
    assert len(os.listdir(folder)) == 2


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk full", "Ctrl-C"])
def test_after_a_write_that_fails_anywhere_the_old_run_is_there_and_a_later_one_can_be_written(folder, monkeypatch, error):
    fsync, new = os.fsync, {"arrays": {"a": np.ones(1)}, "trace": {"t": np.ones(2)}}
    store = RunFolder(folder)
    for n in range(6):  # three files, each synced together with its folder
        count = iter(range(100))

        def failing(fd, n=n, count=count):
            if next(count) == n:
                raise error
            fsync(fd)

        monkeypatch.setattr(files.os, "fsync", failing)
        with contextlib.suppress(RunFileError, KeyboardInterrupt):
            store.commit({"note": "new"}, [store.put(name, arrays) for name, arrays in new.items()])
        monkeypatch.undo()
        header, content = read_folder(folder)
        assert same(content, new if header["note"] == "new" else CONTENT)
        if header["note"] == "new":  # back to the old run
            store.close()
            write_run(folder, {"note": "old"}, CONTENT)
            store = RunFolder(folder)
    store.commit({"note": "new"}, [store.put(name, arrays) for name, arrays in new.items()])
    assert same(read_folder(folder)[1], new)
    assert len(os.listdir(folder)) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named_before_long_work_starts(folder):
    folder.chmod(0o500)
    try:
        with pytest.raises(RunFileError, match=r"cannot write .*run: Permission denied\. Choose a folder"):
            RunFolder(folder)
    finally:
        folder.chmod(0o700)
    assert same(read_folder(folder)[1], CONTENT)


def test_a_folder_that_becomes_read_only_keeps_its_run(folder, monkeypatch):
    store = RunFolder(folder)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.Path, "open", refuse)
    with pytest.raises(RunFileError, match=r"cannot write .*arrays-\w+\.npz: Permission denied"):
        store.put("arrays", {"a": np.ones(1)})
    monkeypatch.undo()
    assert same(read_folder(folder)[1], CONTENT)


def test_a_run_that_is_replaced_while_it_is_read_is_read_again(folder, monkeypatch):
    read, new = files._read, {"arrays": {"a": np.ones(1)}}
    once = iter([True])

    def between(path):
        if path.name.startswith("trace") and next(once, False):
            write_run(folder, {"note": "new"}, new)
        return read(path)

    monkeypatch.setattr(files, "_read", between)
    header, content = read_folder(folder)
    assert header["note"] == "new"
    assert same(content, new)


def test_a_run_that_is_replaced_faster_than_it_can_be_read_says_so(folder, monkeypatch):
    read, count = files._read, iter(range(1000))

    def between(path):
        if path.name.startswith("trace"):
            write_run(folder, {}, {"trace": {"t": np.array(next(count))}})
        return read(path)

    monkeypatch.setattr(files, "_read", between)
    with pytest.raises(RunFileError, match="faster than it can be read: try again"):
        read_folder(folder)


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
