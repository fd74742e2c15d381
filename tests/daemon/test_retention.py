"""The retention loop of workers: policies that lie in Redis are applied, trouble is waited out."""

import pytest
from tests.apps.parts import app
from tests.helpers.state import keys_of_run
from tests.helpers.waiting import wait_until

from askel import RedisWorkflowService, StoreReplyError, StoreUnavailableError
from askeld.health import Health
from askeld.retention import RetentionLoop

SOON = {"retention_ms": 20}
PULSE = Health("w", 30).pulse("retention")


@pytest.fixture
async def service(redis_url, prefix):
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as service:
        yield service


@pytest.fixture
def quiet():
    """A log that keeps what it is told."""

    class Log:
        def __init__(self):
            self.said = []

        def __getattr__(self, level):
            return lambda event, **fields: self.said.append((level, event, fields))

    return Log()


async def test_workers_delete_what_the_policy_gives_up(deployment, service, redis, prefix):
    async with deployment.worker(app, **SOON) as one, deployment.worker(app, **SOON) as two:
        for number in range(6):
            await deployment.send("run.start", workflow="one_step", input=1, run_id=f"r{number}")
            await deployment.until(f"r{number}")
        await deployment.quiet()
        assert len((await service.list_runs()).runs) == 6

        await service.set_retention("one_step", max_runs=2)

        async def two_are_left():
            return len((await service.list_runs()).runs) == 2

        await wait_until(two_are_left)

        def logs():
            return [*one.logged("runs_expired"), *two.logged("runs_expired")]

        await wait_until(lambda: sum(record["count"] for record in logs()) == 4)
    assert {record["level"] for record in logs()} == {"info"}
    assert [run.id for run in (await service.list_runs()).runs] == ["r5", "r4"]
    for number in range(4):
        assert await keys_of_run(redis, prefix, f"r{number}") == []


async def test_runs_in_work_are_never_touched(deployment, service, tmp_path):
    await service.set_retention(None, ttl=0, max_runs=0, max_bytes=0)
    gate = tmp_path / "gate"
    async with deployment.worker(app, **SOON) as worker:
        await deployment.send("run.start", workflow="waits", input=str(gate), run_id="r")
        await wait_until((tmp_path / "gate.begun").exists)
        await deployment.send("run.start", workflow="one_step", input=1, run_id="s")
        await wait_until(lambda: worker.logged("runs_expired"))
        assert await deployment.status("r") == "running"
        gate.touch()

        async def is_gone():
            return await service.get_run("r") is None

        await wait_until(is_gone)
        await deployment.quiet()


class Broken:
    """Fails first, then deletes more than fits into one call, then the rest."""

    damaged = ()

    def __init__(self, loop_of):
        self._answers = [
            StoreUnavailableError("down"),
            StoreReplyError("NOPERM no"),
            1_000,
            3,
        ]
        self._loop_of = loop_of

    async def apply(self, limit):
        answer = self._answers.pop(0)
        if not self._answers:
            self._loop_of["loop"].stop()
        if isinstance(answer, Exception):
            raise answer
        return answer


class NoTimers:
    """A sweep that finds nothing."""

    async def run_once(self):
        return 0


async def test_loop_waits_out_trouble_and_goes_on_at_once_while_there_is_more(quiet):
    made = {}
    made["loop"] = RetentionLoop(Broken(made), NoTimers(), quiet, 1, PULSE)

    await made["loop"].run()

    assert quiet.said == [
        ("debug", "retention_interrupted", {"error": "down"}),
        ("warning", "retention_refused", {"error": "NOPERM"}),
        ("info", "runs_expired", {"count": 1_000}),
        ("info", "runs_expired", {"count": 3}),
    ]


async def test_policy_that_cannot_be_read_is_told_of_once(quiet):
    class Nothing:
        damaged = ()

        async def apply(self, limit):
            return 0

    nothing = Nothing()
    loop = RetentionLoop(nothing, NoTimers(), quiet, 1, PULSE)
    assert await loop.run_once() == 0
    assert quiet.said == []
    nothing.damaged = ["w"]
    for _ in range(3):
        await loop.run_once()
    assert quiet.said == [("warning", "retention_policy_damaged", {"policies": ["w"]})]
