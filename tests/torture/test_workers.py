"""Workers that end by themselves: replaced, but not for ever, unless their server is away."""

import random
from collections import Counter

import pytest

from askel import AskelError
from askeld.torture.faults.workers import Failpoint
from askeld.torture.fork_server import News
from askeld.torture.workers import Worker, Workers


def ends_by_itself(workers, times):
    """Let so many workers be told of that ended by themselves."""
    for pid in range(times):
        workers.alive[pid] = Worker(pid, "")
        workers._learn(News(number=pid, pid=pid, status=1))


@pytest.fixture
def workers_where(tmp_path):
    """Return workers whose server is away, or is not; none of them is a process."""
    (tmp_path / "workers.err").write_text("askel worker: cannot reach Redis\n")
    made = []

    def make(*, is_server_away):
        made.append(Workers(tmp_path, 1, None, lambda: is_server_away))
        return made[-1]

    yield make
    for workers in made:
        workers._reader.close()


def test_a_run_whose_workers_do_not_stay_is_given_up(workers_where):
    with pytest.raises(AskelError, match=r"no worker stays at work: .* cannot reach Redis"):
        ends_by_itself(workers_where(is_server_away=False), 60)


def test_a_server_that_is_loading_is_waited_for(workers_where):
    workers = workers_where(is_server_away=True)

    ends_by_itself(workers, 500)

    assert len(workers.ended) == 500


def refused(pid, at, answer="LOST"):
    return {"pid": pid, "at": at, "event": "turn_refused", "answer": answer}


def test_only_a_worker_that_has_just_been_woken_speaks_for_a_stale_one(workers_where, monkeypatch):
    """Any worker is refused when the reply to what it sent was lost; that shows nothing."""
    monkeypatch.setattr("askeld.torture.workers.time.time_ns", lambda: 5_000_000_000)
    workers = workers_where(is_server_away=False)
    stopped = Worker(1 << 30, "")
    stopped.dead.set()  # nobody is signalled
    workers._heed(refused(stopped.pid, 4_999))
    workers.wake(stopped)

    workers._heed(refused(stopped.pid, 5_001))
    workers._heed(refused(stopped.pid, 5_900, "CONFLICT"))
    workers._heed(refused(stopped.pid, 9_000))
    workers._heed(refused(stopped.pid + 1, 5_001))

    assert workers.stale == {"turn_refused LOST": 1, "turn_refused CONFLICT": 1}
    assert workers.counts["turn_refused LOST"] == 4


async def test_points_are_named_in_turn_from_one_that_the_seed_chooses():
    """Few strikes name few points, and it is known which: they are asked for afterwards."""
    firsts = set()
    for seed in range(20):
        dice, fault = random.Random(seed), Failpoint(None, ("a", "b", "c"))
        named = [name for name, _ in (fault._next(dice) for _ in range(14)) if name != "await"]

        assert len(named) == 7
        assert fault.planned == Counter(named)
        assert set(fault.planned.values()) == {2, 3}
        firsts.add(named[0])
    assert firsts == {"a", "b", "c"}
