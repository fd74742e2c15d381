"""The server's time as a worker carries it on: jumps are told from delays."""

import pytest

from askeld import server_clock
from askeld.server_clock import ServerClock


@pytest.fixture
def clock(monkeypatch):
    """A clock, and the monotonic time that it goes by, in seconds."""
    now = [1_000.0]
    monkeypatch.setattr(server_clock.time, "monotonic", lambda: now[0])
    clock = ServerClock()
    clock.now = now
    return clock


def ask(clock, server_ms, takes_s=0.0):
    asked_at = clock.now[0]
    clock.now[0] += takes_s
    return clock.told(server_ms, asked_at)


def test_nothing_is_expected_before_the_first_answer(clock):
    assert clock.expected_ms() is None
    assert ask(clock, 5_000) == 0
    assert clock.expected_ms() == 5_000


def test_time_goes_on_by_our_own_clock(clock):
    ask(clock, 5_000)
    clock.now[0] += 2.5
    assert clock.expected_ms() == 7_500
    assert ask(clock, 7_490) == 0
    assert clock.expected_ms() == 7_490


@pytest.mark.parametrize("by_ms", [3_600_000, -7_200_000, 1_500, -1_500])
def test_a_jump_is_told_with_its_size(clock, by_ms):
    ask(clock, 5_000)
    clock.now[0] += 10
    assert ask(clock, 15_000 + by_ms) == by_ms


@pytest.mark.parametrize("server_ms", [15_000, 18_000, 25_000])
def test_an_answer_that_took_long_is_no_jump(clock, server_ms):
    """The server said its time at some moment of those ten seconds."""
    ask(clock, 5_000)
    clock.now[0] += 10
    assert ask(clock, server_ms, takes_s=10) == 0


def test_time_in_which_nobody_answered_does_not_count(clock):
    ask(clock, 5_000)
    clock.away()
    clock.now[0] += 60
    assert clock.expected_ms() == 5_000
    assert ask(clock, 65_000) == 0, "it is an outage, no jump"
    assert clock.expected_ms() == 65_000
