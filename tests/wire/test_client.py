"""The client: starts runs by commands, awaits their end by events; nobody polls."""

import asyncio
import re

import pytest
from tests.helpers.state import snapshot
from tests.helpers.waiting import wait_until

from askel import (
    App,
    Client,
    InvalidNameError,
    InvalidOptionError,
    PayloadError,
    RedisWorkflowService,
    Run,
    RunFailedError,
    RunNotFoundError,
    SerializedError,
    StoreError,
    StreamQueue,
    WaitTimeoutError,
)
from askel.state import run_id_of_command
from askel.wire import RunCancel, RunSignal, RunStart, StepComplete, decode_command

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
async def client(redis_url, prefix):
    async with Client(redis_url, prefix) as client:
        yield client


@pytest.fixture
async def distant_client(proxy, prefix):
    """A client that goes through the proxy."""
    async with Client(proxy.url, prefix) as client:
        yield client


async def sent(redis, stream):
    """The commands on a stream."""
    return [
        decode_command([word for pair in fields.items() for word in pair])
        for _, fields in await redis.xrange(stream)
    ]


async def waits(client, count=1):
    """Wait until so many are waiting, the reader of events included."""
    await wait_until(
        lambda: len(client._waiter._waiting) == count and client._waiter._ready.is_set()
    )


# Sending.


async def test_command_is_one_entry_of_the_stream(redis_url, prefix, redis, keys):
    queue = StreamQueue(redis_url, prefix)
    command = RunStart(workflow="w", input='{"a":[1]}', id="once")

    entry = await queue.send(command)

    ((entry_id, fields),) = await redis.xrange(keys.commands())
    assert entry == entry_id.decode()
    assert fields == {
        b"type": b"run.start",
        b"workflow": b"w",
        b"input": b'{"a":[1]}',
        b"id": b"once",
    }
    await queue.close()


async def test_queue_has_a_stream_of_its_own(redis_url, prefix, redis, keys):
    queue = StreamQueue(redis_url, prefix)
    command = StepComplete(run_id="r", step_name="s", attempt=1)
    await queue.send(command, "warehouse")

    assert await sent(redis, keys.commands("warehouse")) == [command]
    assert await redis.exists(keys.commands()) == 0
    with pytest.raises(InvalidNameError):
        await queue.send(command, "a:b")
    await queue.close()


async def test_start_sends_one_command_and_names_the_run(client, redis, keys):
    handle = await client.start("onboarding", {"email": "a@b.c"}, run_id="r")
    unnamed = await client.start("onboarding")
    derived = await client.start("onboarding", 1, id="order-42", queue="q")

    assert [handle.run_id, derived.run_id] == ["r", run_id_of_command("order-42")]
    assert repr(handle) == "<run r>"
    assert await sent(redis, keys.commands()) == [
        RunStart(workflow="onboarding", input='{"email":"a@b.c"}', run_id="r"),
        RunStart(workflow="onboarding", run_id=unnamed.run_id),
    ]
    assert await sent(redis, keys.commands("q")) == [
        RunStart(workflow="onboarding", input="1", id="order-42", queue="q")
    ]


async def test_start_that_may_replace_a_run_has_an_id_by_which_a_second_copy_is_known(
    client, redis, keys
):
    for given in ({}, {}, {"id": "own"}):
        await client.start("w", run_id="r", if_exists="after-terminal", **given)

    first, second, third = [command.id for command in await sent(redis, keys.commands())]
    assert first
    assert second not in {"", first}
    assert third == "own"


async def test_signal_and_cancel_are_sent(client, redis, keys):
    await client.signal("r", "paid", {"by": "card"}, id="once")
    await client.cancel("r", "no stock")
    await client.send(RunCancel(run_id="q"))

    assert await sent(redis, keys.commands()) == [
        RunSignal(run_id="r", name="paid", data='{"by":"card"}', id="once"),
        RunCancel(run_id="r", reason="no stock"),
        RunCancel(run_id="q"),
    ]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda c: c.start("a\n"), InvalidNameError),
        (lambda c: c.start("w", float("nan")), PayloadError),
        (lambda c: c.start("w", run_id="a:b"), InvalidNameError),
        (lambda c: c.start("w", queue="a:b"), InvalidNameError),
        (lambda c: c.start("w", if_exists="replace"), InvalidOptionError),
        (lambda c: c.signal("a:b", "x"), InvalidNameError),
        (lambda c: c.signal("r", ""), InvalidNameError),
        (lambda c: c.signal("r", "x", object()), PayloadError),
        (lambda c: c.cancel(""), InvalidNameError),
        (lambda c: c.result("a:b"), InvalidNameError),
        (lambda c: c.wait("r", "soon"), InvalidOptionError),
    ],
)
async def test_wrong_call_is_refused_before_anything_is_sent(client, redis, prefix, call, error):
    with pytest.raises(error):
        await call(client)
    assert await snapshot(redis, prefix) == {}


# Waiting; the service plays the daemon.


async def test_result_of_a_run_that_has_completed(client, service):
    await service.create_run("w", run_id="r")
    await service.update_run_status("r", "completed", output={"receipt": [1]})

    assert await client.result("r", "5s") == {"receipt": [1]}
    assert (await client.wait("r", "5s")).status == "completed"
    assert (await client.get_run("r")).output == {"receipt": [1]}


async def test_result_of_a_run_that_completes_meanwhile(client, service):
    await service.create_run("w", run_id="r")
    result = asyncio.create_task(client.result("r", "20s"))
    await waits(client)
    begun = asyncio.get_running_loop().time()

    await service.update_run_status("r", "completed", output="done")

    assert await result == "done"
    assert asyncio.get_running_loop().time() - begun < 2


async def test_handle_waits_for_a_run_that_does_not_exist_yet(client, service):
    handle = await client.start("w", run_id="r")
    result = asyncio.create_task(handle.result("20s"))
    await waits(client)

    await service.create_run("w", run_id="r")
    await service.update_run_status("r", "completed", output=7)

    assert await result == 7


async def test_run_that_nobody_started_is_not_found(client):
    with pytest.raises(RunNotFoundError):
        await client.result("nobody", "5s")


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_run_that_ends_otherwise_raises_with_its_error(client, service, status):
    await service.create_run("w", run_id="r")
    result = asyncio.create_task(client.result("r", "20s"))
    await waits(client)

    await service.update_run_status("r", status, error=ValueError("no stock"))

    with pytest.raises(RunFailedError, match=f"run 'r' ended {status}: no stock") as caught:
        await result
    assert (caught.value.run_id, caught.value.status) == ("r", status)
    assert caught.value.error == SerializedError("no stock", name="ValueError")
    assert (await client.wait("r")).status == status


async def test_run_that_does_not_end_times_out_and_goes_on(client, service):
    await service.create_run("w", run_id="r")

    with pytest.raises(
        WaitTimeoutError, match=re.escape("run 'r' has not ended within 0.05 s; it goes on")
    ):
        await client.result("r", "50ms")
    assert (await service.get_run("r")).status == "running"


async def test_changes_that_are_no_end_wake_nobody_up_for_good(client, service):
    await service.create_run("w", run_id="r")
    result = asyncio.create_task(client.result("r", "20s"))
    await waits(client)
    for status in ("suspended", "running", "stalled", "running"):
        await service.update_run_status("r", status)
    assert not result.done()
    await service.update_run_status("r", "completed", output=1)

    assert await result == 1


async def test_many_wait_for_many_runs_by_one_reader(distant_client, proxy, service):
    ids = [f"r{number}" for number in range(30)]
    for run_id in ids:
        await service.create_run("w", run_id=run_id)
    results = [
        asyncio.create_task(distant_client.result(run_id, "20s")) for run_id in ids for _ in (1, 2)
    ]
    await waits(distant_client, 30)
    for number, run_id in enumerate(ids):
        await service.update_run_status(run_id, "completed", output=number)

    assert await asyncio.gather(*results) == [number for number in range(30) for _ in (1, 2)]
    assert proxy.connections == 2


async def test_nobody_polls_while_a_run_goes_on(distant_client, proxy, service):
    await service.create_run("w", run_id="r")
    result = asyncio.create_task(distant_client.result("r", "20s"))
    await waits(distant_client)
    await wait_until(lambda: {"XREAD", "HGETALL"} <= set(proxy.names))
    proxy.forget()
    await asyncio.sleep(1)  # a second in which nothing is to be sent

    assert proxy.commands == 0
    await service.update_run_status("r", "completed", output=1)
    assert await result == 1


async def test_second_wait_is_not_held_up_by_the_first_ones_read(client, service):
    for run_id in ("one", "two", "three"):
        await service.create_run("w", run_id=run_id)
    with pytest.raises(WaitTimeoutError):
        await client.result("three", "50ms")
    for run_id in ("one", "two"):
        await service.update_run_status(run_id, "completed", output=run_id)
        assert await asyncio.wait_for(client.result(run_id), 2) == run_id
    for _ in range(3):
        assert await asyncio.wait_for(client.result("one"), 2) == "one"
        with pytest.raises(WaitTimeoutError):
            await client.result("three", "10ms")
    assert await asyncio.wait_for(client.result("two"), 2) == "two"


async def test_cancelled_waiter_leaves_the_others_waiting(client, service):
    await service.create_run("w", run_id="r")
    kept, dropped = [asyncio.create_task(client.result("r", "20s")) for _ in range(2)]
    await waits(client)
    dropped.cancel()
    await service.update_run_status("r", "completed", output=1)

    assert await kept == 1
    with pytest.raises(asyncio.CancelledError):
        await dropped


async def test_reader_survives_a_cut_of_the_connections(distant_client, proxy, service):
    await service.create_run("w", run_id="r")
    result = asyncio.create_task(distant_client.result("r", "20s"))
    await waits(distant_client)
    await wait_until(lambda: "XREAD" in proxy.names)
    proxy.forget()
    proxy.drop_connections()
    await wait_until(lambda: "XREAD" in proxy.names)

    await service.update_run_status("r", "completed", output="after the cut")

    assert await result == "after the cut"


async def test_end_during_the_cut_is_seen_after_it(distant_client, proxy, service):
    await service.create_run("w", run_id="r")
    result = asyncio.create_task(distant_client.result("r", "20s"))
    await waits(distant_client)
    await wait_until(lambda: "XREAD" in proxy.names)
    proxy.refuse_connections()
    proxy.drop_connections()
    await service.update_run_status("r", "completed", output="while away")
    proxy.accept_connections()

    assert await result == "while away"


async def test_foreign_entries_of_the_events_stream_are_passed_over(client, service, redis, keys):
    await service.create_run("w", run_id="r")
    result = asyncio.create_task(client.result("r", "20s"))
    await waits(client)
    await redis.xadd(keys.events, {"status": "completed"})
    await redis.xadd(keys.events, {"anything": "\xff"})
    await service.update_run_status("r", "completed", output=1)

    assert await asyncio.wait_for(result, 5) == 1


async def test_event_that_was_trimmed_away_is_made_up_for_by_reading_again(
    client, service, monkeypatch
):
    monkeypatch.setattr("askel.wire.events.REREAD_S", 0.1)
    await service.create_run("w", run_id="r")
    result = asyncio.create_task(client.result("r", "20s"))
    await waits(client)
    client._waiter._reader.cancel()  # as if it had been told nothing
    await service.update_run_status("r", "completed", output=1)

    assert await asyncio.wait_for(result, 5) == 1


async def test_store_that_is_away_is_said_to_whoever_begins_to_wait(distant_client, proxy):
    proxy.refuse_connections()

    with pytest.raises(StoreError):
        await asyncio.wait_for(distant_client.result("r", "20s"), 5)


async def test_closing_ends_the_reader(redis_url, prefix, service):
    await service.create_run("w", run_id="r")
    client = Client(redis_url, prefix)
    waiting = asyncio.create_task(client.result("r", "20s"))
    await waits(client)
    reader = client._waiter._reader

    await client.close()

    assert reader.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_service_with_a_queue_is_remote(redis_url, prefix, redis, keys):
    app = App("remote")

    @app.workflow
    async def far(run: Run, data: int) -> None:
        pytest.fail("a daemon runs this")

    queue = StreamQueue(redis_url, prefix)
    service = RedisWorkflowService(redis_url, queue, prefix)
    run_id = await app.start(service, far, 5)

    assert await sent(redis, keys.commands()) == [
        RunStart(workflow="far", input="5", run_id=run_id)
    ]
    assert await service.get_run(run_id) is None
    await service.close()
    await queue.close()
