"""Workers that end by themselves: replaced, but not for ever, unless their server is away."""

import pytest

from askel import AskelError
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
