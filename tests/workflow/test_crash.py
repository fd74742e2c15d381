"""A process dies at every place it can; another resumes the run and nothing is lost or doubled."""

from collections import Counter

import anyio
import pytest
from tests.helpers.history_checker import check_run

from askel import App, RedisWorkflowService, Run, StepContext, StepFailedError

pytestmark = pytest.mark.usefixtures("redis_server")

app = App("crash")
executed: Counter[str] = Counter()


class Crash(BaseException):
    """Ends a process as SIGKILL would: nothing of it is caught, nothing is cleaned up."""


@pytest.fixture(autouse=True)
def fresh_counter():
    executed.clear()


@app.step(retries=50, retry_delay=0)
async def work(number: int, ctx: StepContext) -> int:
    executed[ctx.step_name] += 1
    return number + 1


@app.step(retries=50, retry_delay="1ms")
async def flaky(ctx: StepContext) -> str:
    executed[ctx.step_name] += 1
    if executed[ctx.step_name] == 1:
        raise ConnectionError("the first time")
    return "at last"


@app.step(retries=0)
async def fail(ctx: StepContext) -> None:
    executed[ctx.step_name] += 1
    raise ValueError("for good")


@app.workflow
async def eventful(run: Run, start: int) -> list:
    first = await run.do("first", work, start)
    both = await run.gather(run.do("left", work, first), run.do("right", work, 10 * first))
    await run.sleep("nap", "2ms")
    late = await run.do("flaky", flaky)
    again = [await run.do("again", work, number) for number in range(2)]
    return [first, both, late, again]


@app.workflow
async def forgiving(run: Run) -> str:
    try:
        await run.do("fail", fail)
    except StepFailedError as error:
        return f"{error.error.name}, then {await run.do('after', work, 1)}"
    return "not reached"


OUTPUT = [2, [3, 21], "at last", [1, 2]]


class Process:
    """One life of a process: it dies before or after its n-th script of a kind was executed."""

    def __init__(self, url, prefix, *, dies_at, after, scripts=("create_run", "adopt", "turn")):
        self.service = RedisWorkflowService(url, key_prefix=prefix)
        self.died = False
        self._left, self._after, self._kinds = dies_at, after, scripts
        self._run = self.service.scripts.run
        self.service.scripts.run = self._mortal

    async def _mortal(self, name, keys, args):
        if self.died:
            raise Crash  # what a finally block would still send
        self._left -= name in self._kinds
        dies = self._left == 0 and name in self._kinds
        if dies and not self._after:
            self.died = True
            raise Crash
        answer = await self._run(name, keys, args)
        if dies:
            self.died = True
            raise Crash
        return answer

    async def live(self, call):
        """Await call(service); return whether it came to its end."""
        try:
            await call(self.service)
        except BaseException:
            if not self.died:
                raise
        finally:
            await self.service.close()
        return not self.died


@pytest.fixture
def spawn(redis_url, prefix):
    """Make a process that dies where it is told to."""

    def make(dies_at, *, after=True):
        return Process(redis_url, prefix, dies_at=dies_at, after=after)

    return make


async def survive(redis, keys, processes, workflow, data=None):
    """Start the run in the first process and resume it in the next ones until it has ended."""
    for process in processes:

        async def go(service):
            if await service.get_run("r") is None:
                await app.start(service, workflow, data, "r")
            else:
                await app.resume(service, "r")

        with anyio.fail_after(20):
            if await process.live(go):
                return
        await redis.delete(keys.lock("r"))  # as the end of its lease would
    pytest.fail("the run did not end")


@pytest.mark.parametrize(
    "after", [False, True], ids=["before it was executed", "after it was executed"]
)
@pytest.mark.parametrize("dies_at", range(1, 13))
async def test_one_crash_at_each_script(spawn, redis, keys, service, dies_at, after):
    first = spawn(dies_at, after=after)
    second = spawn(0, after=after)

    await survive(redis, keys, [first, second], eventful, 1)

    assert first.died == (dies_at <= 11), "the program has other turns than the test assumes"
    assert (await service.get_run("r")).output == OUTPUT
    record = await check_run(redis, keys.prefix, "r")
    for name in ("first", "left", "right", "nap", "flaky", "again", "again#1"):
        assert [e["status"] for e in record.of_step(name)].count("succeeded") == 1
    lost = record.count("lost")
    assert lost <= 2
    assert sum(executed.values()) <= 8 + lost


@pytest.mark.parametrize("lives", [3, 4, 5])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_crash_after_crash(spawn, redis, keys, service, lives, after):
    """Each process adopts the run, takes two to four turns, and dies."""
    processes = [spawn(lives + (not after), after=after) for _ in range(40)]

    await survive(redis, keys, processes, eventful, 1)

    assert sum(process.died for process in processes) >= 2
    assert (await service.get_run("r")).output == OUTPUT
    await check_run(redis, keys.prefix, "r")


@pytest.mark.parametrize("dies_at", range(1, 7))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_caught_failure_is_caught_again_in_the_next_process(
    spawn, redis, keys, service, dies_at, after
):
    processes = [spawn(d, after=after) for d in (dies_at, 0)]

    await survive(redis, keys, processes, forgiving)

    output = (await service.get_run("r")).output
    assert output in {"ValueError, then 2", "AttemptLost, then 2"}
    record = await check_run(redis, keys.prefix, "r")
    assert record.path("fail") in (["running 1", "failed 1"], ["running 1", "lost 1"])
    assert (record.path("fail")[1] == "lost 1") == (output.startswith("AttemptLost"))


async def test_steps_that_have_ended_are_not_executed_again(spawn, redis, keys, service):
    processes = [
        spawn(6),
        spawn(0),
    ]

    await survive(redis, keys, processes, eventful, 1)

    record = await check_run(redis, keys.prefix, "r")
    for name, times in executed.items():
        abandoned = [e["status"] for e in record.of_step(name)].count("lost")
        failed = [e["status"] for e in record.of_step(name)].count("failed")
        assert times <= 1 + abandoned + failed, name
    assert executed["first"] == 1


async def test_attempt_that_was_abandoned_is_closed_as_lost(spawn, redis, keys, service):
    processes = [
        spawn(3),
        spawn(0),
    ]

    await survive(redis, keys, processes, eventful, 1)

    record = await check_run(redis, keys.prefix, "r")
    assert record.path("first") == ["running 1", "lost 1", "running 2", "succeeded 2"]
    lost = (await service.get_run_history("r"))[0]
    assert (lost.status, lost.error.name) == ("lost", "AttemptLost")
    assert lost.error.message == "the process that ran this attempt stopped before it ended"


async def test_sleep_goes_on_where_it_was(spawn, redis, keys, service):
    @app.workflow(name=f"sleeper-{keys.prefix}")
    async def sleeper(run: Run) -> str:
        await run.sleep("nap", "100ms")
        return "rested"

    first = spawn(3)  # the sleep is recorded
    await survive(redis, keys, [first, spawn(0)], f"sleeper-{keys.prefix}")

    (nap,) = await service.get_run_history("r")
    lasted = (nap.succeeded_at - nap.scheduled_at).total_seconds()
    assert first.died
    assert 0.1 <= lasted < 2
    assert (await check_run(redis, keys.prefix, "r")).path("nap") == ["scheduled 1", "succeeded 1"]
