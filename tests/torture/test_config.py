"""Plans: by the seed alone, and refused where they make no sense."""

import random

import pytest
from tests.apps import programs as tested_programs

from askel import InvalidOptionError
from askeld.torture.client_log import ClientLog
from askeld.torture.config import OF_SERVER, RATES, TortureConfig, parse_faults
from askeld.torture.figures import (
    Begun,
    Lost,
    recovery_of_server,
    recovery_of_workers,
    true_time,
)
from askeld.torture.programs import outcome, random_program


def config(tmp_path, **given):
    return TortureConfig(directory=tmp_path, **given)


def test_the_same_seed_makes_the_same_plan(tmp_path):
    faults = {"kill9": 9, "sigstop": 3}
    one, same = (config(tmp_path, seed=5, faults=faults) for _ in range(2))
    other = config(tmp_path, seed=6, faults=faults)

    assert one.strikes() == same.strikes() != other.strikes()
    assert one.dice("load").random() == same.dice("load").random() != one.dice("x").random()


def test_strikes_are_spread_over_the_time(tmp_path):
    strikes = config(tmp_path, seconds=10.0, faults={"kill9": 5}).strikes()

    assert [int(at // 2) for at, _ in strikes] == [0, 1, 2, 3, 4]


def test_counts_are_given_or_follow_from_the_time():
    assert parse_faults("kill9:7,sigstop", 20, "") == {"kill9": 7, "sigstop": 20}
    assert set(parse_faults("all", 1, "")) == set(RATES)
    assert min(parse_faults("all", 1, "").values()) == 1
    assert set(parse_faults("all", 1, "redis://h")) == set(RATES) - set(OF_SERVER)
    with pytest.raises(InvalidOptionError):
        parse_faults("nonesuch", 1, "")
    with pytest.raises(InvalidOptionError):
        parse_faults("oom", 1, "redis://h")


@pytest.mark.parametrize("steps", [1, 4, 9])
def test_programs_have_exactly_so_many_steps(steps):
    for seed in range(50):
        program = random_program(random.Random(seed), steps)
        parts = [p for i in program for p in (i[1:] if i[0] == "gather" else [i])]
        assert len(parts) == steps
        assert outcome(program) == tested_programs.outcome(program)


def test_operations_are_read_back_as_they_went(tmp_path):
    with ClientLog(tmp_path / "log") as log:
        log.write("a", "run.start", "r", "invoke", expected=7)
        log.write("a", "run.start", "r", "unknown")
        log.write("a", "run.start", "r", "invoke", expected=7)
        log.write("a", "run.start", "r", "ok", entry="1-0")
        log.write("b", "run.cancel", "r", "invoke")
        log.write("b", "run.cancel", "r", "fail")

    a, b = log.operations().values()
    assert (a.op, a.invoked, a.unknown, a.accepted, a.expected) == ("a", 2, 1, 1, 7)
    assert (b.op, b.invoked, b.accepted, b.first_ok_at) == ("b", 1, 0, None)


@pytest.mark.parametrize("hours", [-2, -1, 0, 1, 2])
def test_times_of_a_clock_that_jumped_by_hours_are_told_apart(hours):
    true, around = 1_795_000_123_456, 1_795_000_900_000

    assert true_time(true + hours * 3_600_000, around) == true


def test_time_to_recover_counts_from_what_silenced_the_process():
    effects = [Begun(pid=7, at=100, run="r", step="s", attempt=1)]
    silenced = {7: [(50, "sigstop"), (200, "kill9"), (900, "")]}

    def recovery(**given):
        lost = Lost(**{"run": "r", "step": "s", "attempt": 1, "at": 700, "since": 0, **given})
        return recovery_of_workers([lost], effects, silenced)

    assert recovery() == {"kill9": [0.5]}
    assert recovery(since=300) == {}  # it was suspended meanwhile
    assert recovery(attempt=2) == {}  # nobody knows who had it
    assert recovery_of_server([100, 500, 900], [50, 120, 600]) == [0.02, 0.1]
