"""Signals that ask a command to end."""

import os
import signal
import threading

import pytest

from nasmvt.training.interrupt import interrupting

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _usual_handlers():
    """What a command finds when it starts; other tests may have connected to Ray, which leaves its own."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_within_a_second_does_not_interrupt_the_cleaning_up(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    cleaned = []
    with pytest.raises(KeyboardInterrupt):
        _interrupted_twice(number, cleaned)
    assert cleaned
    assert [signal.getsignal(each) for each in SIGNALS] == before


def _interrupted_twice(number, cleaned):
    with interrupting():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), number)
            cleaned.append(True)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with interrupting():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_may_run_commands():
    entered = []

    def enter():
        with interrupting():
            entered.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered
