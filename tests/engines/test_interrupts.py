"""Ctrl-C is held back, and heard of as often as it was pressed."""

import signal
import threading

import pytest

from tardigrad.engines.interrupts import held_back


@pytest.fixture
def heard():
    """How often a program's own handler was called."""
    calls = []
    before = signal.signal(signal.SIGINT, lambda *_: calls.append(1))
    yield calls
    signal.signal(signal.SIGINT, before)


def test_a_handler_hears_of_each_when_all_is_done(heard):
    with held_back():
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        assert not heard
    assert len(heard) == 3


def test_nothing_is_heard_where_nothing_was_pressed(heard):
    before = signal.getsignal(signal.SIGINT)
    with held_back(), held_back():
        pass
    assert not heard
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_passes_and_the_handler_is_put_back(heard):
    def fails():
        with held_back():
            signal.raise_signal(signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert len(heard) == 1
    signal.raise_signal(signal.SIGINT)
    assert len(heard) == 2


def test_other_threads_change_no_handler(heard):
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with held_back():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
