"""What `RayCluster` stands on and needs no Ray: messages, memory, addresses."""

import socket

import numpy as np
import pytest

from tardigrad.core.errors import WorkerError
from tardigrad.engines.ray_session import find
from tardigrad.engines.ray_worker import packed, parcel, read

ARRAYS = {
    "one": (np.arange(5.0),),
    "two": (np.arange(5, dtype=np.float32), np.ones((2, 3), complex)),
    "none": (),
    "empty": (np.empty((0, 3)), np.arange(3)),
    "a number": (np.array(2.5), np.array(1)),
    "records": (np.array([(1, 2.0)], [("a", np.int32), ("b", np.float64)]), np.arange(2.0)),
    "strided": (np.arange(10.0)[::2], np.arange(6.0).reshape(2, 3).T),
    "big-endian": (np.arange(3.0).astype(">f8"),),
}


@pytest.mark.parametrize("arrays", ARRAYS.values(), ids=ARRAYS.keys())
def test_a_message_brings_the_same_arrays(arrays):
    head, found = read(bytearray(parcel((1, "a", 2.5), *packed(arrays))))
    assert head == (1, "a", 2.5)
    for ours, theirs in zip(arrays, found, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert (ours == theirs).all()
        assert theirs.flags.writeable
        assert theirs.flags.c_contiguous


def test_arrays_begin_where_their_kind_should():
    message = bytearray(parcel(("x",), *packed((np.ones(3, np.float32), np.ones(2)))))
    begin = np.frombuffer(message, np.uint8).ctypes.data
    assert [(array.ctypes.data - begin) % 64 for array in read(message)[1]] == [0, 0]


def test_points_of_a_message_cannot_be_written():
    assert not read(parcel((), *packed((np.ones(3),))))[1][0].flags.writeable


def test_a_message_without_arrays():
    assert read(parcel((1, 2))) == ((1, 2), None)


def test_an_address_of_which_nobody_answers(monkeypatch, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(WorkerError, match=f"nothing answers at the Ray address '{address}'.*leave the address out"):
            find(address)
        monkeypatch.setenv("RAY_ADDRESS", address)
        for given in (None, "auto"):
            with pytest.raises(WorkerError, match="nothing answers"):
                find(given)
        assert find("local") is None
        taken.listen()
        assert find(None) == find("auto") == find(address) == address
        monkeypatch.delenv("RAY_ADDRESS")
        assert find(None) is None
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        with pytest.raises(WorkerError, match="no Ray cluster runs on this machine"):
            find("auto")
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(address + "\n")
        assert find("auto") == address
