"""Runs in the state service: created once, moved by one table, found again."""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from tests.helpers.state import recorded, snapshot

from askel import (
    IllegalTransitionError,
    InvalidNameError,
    InvalidOptionError,
    PayloadError,
    RedisWorkflowService,
    RunExistsError,
    RunNotFoundError,
    RunStatus,
    SerializedError,
    ServiceClosedError,
    WorkflowRun,
)
from askel.state import Recording, Scripts, connect, status_body

pytestmark = pytest.mark.usefixtures("redis_server")

# Where a run may go from each status; written down a second time, so that the table is reviewed.
MOVES = {
    "running": {"suspended", "stalled", "completed", "failed", "cancelled"},
    "suspended": {"running", "failed", "cancelled"},
    "stalled": {"running", "failed", "cancelled"},
    "completed": set(),
    "failed": set(),
    "cancelled": set(),
}
PATHS = {"running": [], **{status: [status] for status in MOVES if status != "running"}}


async def run_in(service, status, run_id="r"):
    """Create a run and move it to *status*."""
    await service.create_run("w", {"n": 1}, run_id=run_id)
    for step in PATHS[status]:
        await service.update_run_status(run_id, step)


async def test_run_is_created_running_and_read_back(service):
    before = datetime.now(UTC) - timedelta(seconds=60)

    run_id = await service.create_run(
        "onboarding",
        {"email": "a@b.c"},
        inline=True,
        graph_hash="abc",
        wire={"type": "http"},
        deterministic=True,
        planned_steps=[{"stepName": "a"}],
    )

    run = await service.get_run(run_id)
    assert run == WorkflowRun(
        id=run_id,
        workflow="onboarding",
        status=RunStatus.RUNNING,
        created_at=run.created_at,
        updated_at=run.created_at,
        input={"email": "a@b.c"},
        inline=True,
        graph_hash="abc",
        deterministic=True,
        planned_steps=[{"stepName": "a"}],
        wire={"type": "http"},
    )
    assert before < run.created_at < datetime.now(UTC) + timedelta(seconds=60)
    assert run.created_at.tzinfo is UTC
    assert str(run.status) == "running"


async def test_run_that_says_nothing_has_the_defaults(service):
    run = await service.get_run(await service.create_run("w"))

    assert (run.input, run.output, run.error, run.inline, run.deterministic) == (
        None,
        None,
        None,
        False,
        False,
    )
    assert (run.graph_hash, run.planned_steps, run.wire) == (None, None, None)


async def test_hash_has_the_documented_fields(service, redis, keys):
    await service.create_run("w", [1], run_id="r")
    await service.update_run_status("r", "failed", error=ValueError("no"))

    fields = await redis.hgetall(keys.run("r"))
    at = fields.pop(b"createdAt")
    updated = fields.pop(b"updatedAt")
    assert len(fields.pop(b"nonce")) == 8  # of the call that named the run
    assert at.isdigit()
    assert int(updated) >= int(at)
    assert fields == {
        b"id": b"r",
        b"workflow": b"w",
        b"status": b"failed",
        b"input": b"[1]",
        b"error": b'{"message":"no","name":"ValueError"}',
    }


async def test_new_ids_are_uuid7_in_order_of_creation(service):
    ids = [await service.create_run("w") for _ in range(20)]

    assert len(set(ids)) == 20
    assert all(run_id[14] == "7" for run_id in ids)
    assert [run_id[:13] for run_id in ids] == sorted(run_id[:13] for run_id in ids)


async def test_run_is_found_in_its_indexes(service, redis, keys):
    await service.create_run("w", run_id="r")
    created = float(await redis.hget(keys.run("r"), "createdAt"))
    for index in (keys.runs, keys.runs_by_status("running"), keys.runs_by_workflow("w")):
        assert await redis.zrange(index, 0, -1, withscores=True) == [(b"r", created)]

    await service.update_run_status("r", "completed")

    assert await redis.zrange(keys.runs_by_status("running"), 0, -1) == []
    completed = keys.runs_by_status("completed")
    assert await redis.zrange(completed, 0, -1, withscores=True) == [(b"r", created)]
    assert await redis.zcard(keys.runs) == 1


async def test_changes_of_status_are_on_the_events_stream(service, redis, keys):
    await service.create_run("w", run_id="r")
    await service.update_run_status("r", "suspended")
    await service.update_run_status("r", "running")
    await service.update_run_status("r", "completed")

    events = [fields for _, fields in await redis.xrange(keys.events)]
    assert [(e[b"type"], e[b"run_id"], e[b"seq"], e[b"status"]) for e in events] == [
        (b"run", b"r", str(n + 1).encode(), status)
        for n, status in enumerate([b"running", b"suspended", b"running", b"completed"])
    ]
    assert all(event[b"at"].isdigit() for event in events)


async def test_existing_run_is_rejected_and_left_as_it_is(service, redis, prefix):
    await service.create_run("w", 1, run_id="r")
    before = await snapshot(redis, prefix)

    for workflow, value in (("w", 1), ("w", 2), ("v", 1)):
        with pytest.raises(RunExistsError, match="run 'r' exists already"):
            await service.create_run(workflow, value, run_id="r")
    assert await snapshot(redis, prefix) == before


async def test_existing_run_is_returned_if_it_is_the_same(service, redis, prefix):
    await service.create_run("w", 1, run_id="r")
    before = await snapshot(redis, prefix)

    assert await service.create_run("w", 1, run_id="r", if_exists="return") == "r"
    for workflow, value in (("w", 2), ("v", 1)):
        with pytest.raises(RunExistsError):
            await service.create_run(workflow, value, run_id="r", if_exists="return")
    assert await snapshot(redis, prefix) == before


async def test_of_many_who_create_the_same_run_one_does(service, redis, keys):
    outcomes = await asyncio.gather(
        *(service.create_run("w", number, run_id="r") for number in range(20)),
        return_exceptions=True,
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["RunExistsError"] * 19 + [
        "str"
    ]
    assert len(await recorded(redis, keys, "r")) == 1


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"workflow_name": ""}, InvalidNameError),
        ({"workflow_name": "a\n"}, InvalidNameError),
        ({"run_id": "a:b"}, InvalidNameError),
        ({"run_id": ""}, InvalidNameError),
        ({"input": float("nan")}, PayloadError),
        ({"wire": object()}, PayloadError),
        ({"planned_steps": [float("inf")]}, PayloadError),
        ({"if_exists": "replace"}, InvalidOptionError),
        ({"graph_hash": "\ud800"}, InvalidNameError),
        ({"graph_hash": "a\n"}, InvalidNameError),
    ],
)
async def test_wrong_call_is_refused_before_anything_is_sent(service, redis, prefix, given, error):
    with pytest.raises(error):
        await service.create_run(**{"workflow_name": "w", **given})
    assert await snapshot(redis, prefix) == {}
    assert service.connection.connects == 0


async def test_unknown_run_is_none_and_has_no_history(service):
    assert await service.get_run("nobody") is None
    assert await service.get_run_history("nobody") == []
    assert await service.get_history_entries("nobody") == []


async def test_change_of_an_unknown_run_writes_nothing(service, redis, prefix):
    with pytest.raises(RunNotFoundError, match="run 'nobody' does not exist"):
        await service.update_run_status("nobody", "failed")
    assert await snapshot(redis, prefix) == {}


@pytest.mark.parametrize("source", MOVES)
@pytest.mark.parametrize("target", MOVES)
async def test_table_of_run_statuses(service, redis, prefix, source, target):
    await run_in(service, source)
    before = await snapshot(redis, prefix)

    if target in MOVES[source]:
        await service.update_run_status("r", target)
        assert (await service.get_run("r")).status == target
    elif target == source:
        await service.update_run_status("r", target)
        assert await snapshot(redis, prefix) == before
    else:
        with pytest.raises(
            IllegalTransitionError, match=f"run 'r' is {source}: it cannot become {target}"
        ):
            await service.update_run_status("r", target)
        assert await snapshot(redis, prefix) == before


async def test_same_outcome_again_changes_nothing_and_another_is_refused(service, redis, prefix):
    await service.create_run("w", run_id="r")
    await service.update_run_status("r", "completed", output={"a": [1.0]})
    before = await snapshot(redis, prefix)

    await service.update_run_status("r", "completed", output={"a": [1.0]})
    await service.update_run_status("r", RunStatus.COMPLETED)
    with pytest.raises(IllegalTransitionError):
        await service.update_run_status("r", "completed", output={"a": [2.0]})
    with pytest.raises(InvalidOptionError, match="a completed run has no error"):
        await service.update_run_status("r", "completed", error=ValueError("x"))
    assert await snapshot(redis, prefix) == before


@pytest.mark.parametrize("output", [None, 0, False, "", [], {}, {"a": None}, "ü\u2028\x00"])
async def test_every_output_comes_back_as_it_was(service, redis, keys, output):
    await service.create_run("w", output, run_id="r")
    await service.update_run_status("r", "completed", output=output)

    run = await service.get_run("r")
    assert (run.input, run.output, type(run.output)) == (output, output, type(output))
    assert msgspec.json.decode(await redis.hget(keys.run("r"), "output")) == output


async def test_error_of_a_run_is_stored_and_cleared_when_it_goes_on(service):
    await service.create_run("w", run_id="r")
    await service.update_run_status("r", "stalled", error=SerializedError("changed", code="E1"))
    assert (await service.get_run("r")).error == SerializedError("changed", code="E1")

    await service.update_run_status("r", "running")
    assert (await service.get_run("r")).error is None


async def test_errors_that_another_program_stored_are_read(service, redis, keys):
    await service.create_run("w", run_id="r")
    for stored, read in (
        (b'{"message":"m","code":404}', SerializedError("m", code="404")),
        (b'"boom"', SerializedError("boom")),
        (b"null", None),
    ):
        await redis.hset(keys.run("r"), "error", stored)
        assert (await service.get_run("r")).error == read


async def test_unknown_status_is_refused(service):
    with pytest.raises(InvalidOptionError, match="'done' is no status: use one of running"):
        await service.update_run_status("r", "done")


async def test_times_are_the_servers(redis_url, prefix, redis, keys):
    hour_ms = 3_600_000
    async with RedisWorkflowService(
        redis_url, key_prefix=prefix, clock_offset_ms=hour_ms
    ) as shifted:
        await shifted.create_run("w", run_id="r")
        seconds, _ = await redis.time()
        created = (await shifted.get_run("r")).created_at.timestamp()
    assert abs(created - (seconds + 3_600)) < 60


async def test_prefixes_do_not_see_each_other(redis_url, prefix, service, redis):
    other = RedisWorkflowService(redis_url, key_prefix=f"{prefix}2")
    await service.create_run("w", run_id="r")

    assert await other.get_run("r") is None
    await other.create_run("w", run_id="r")
    await other.update_run_status("r", "failed")
    assert (await service.get_run("r")).status == "running"
    await redis.delete(*await redis.keys(f"{prefix}2:*"))
    await other.close()


async def test_braces_around_the_prefix_are_part_of_every_key(redis_url, redis, prefix):
    name = prefix[-12:]
    service = RedisWorkflowService(redis_url, key_prefix=f"{{{name}}}")
    await service.create_run("w", run_id="r")

    assert await redis.exists(f"{{{name}}}:run:r") == 1
    await redis.delete(*await redis.keys(f"{{{name}}}:*"))
    await service.close()


@pytest.mark.parametrize("by", ["service", "command", "transaction"])
async def test_error_of_a_status_goes_when_it_is_left(service, redis_url, keys, by):
    await service.create_run("w", run_id="r")
    await service.update_run_status("r", "suspended", error=SerializedError("waiting"))
    if by == "service":
        await service.update_run_status("r", "cancelled")
    elif by == "transaction":
        async with service.transaction("r") as tx:
            tx.update_run_status("running")
            tx.update_run_status("suspended")
    else:
        connection = connect(redis_url)
        recording = Recording(Scripts(connection), keys, consumer="me")
        await recording.settle(None, "r", RunStatus.CANCELLED, status_body("cancelled"))
        await connection.close()
    assert (await service.get_run("r")).error is None


async def test_what_is_no_error_is_refused(service):
    await service.create_run("w", run_id="r")
    for wrong in ("", {"message": "no"}, ValueError):
        with pytest.raises(InvalidOptionError, match="an error is an exception"):
            await service.update_run_status("r", "failed", error=wrong)
    await service.update_run_status("r", "failed", error="a text is its message")
    assert (await service.get_run("r")).error == SerializedError("a text is its message")


async def test_hash_that_another_program_left_of_a_run_is_no_run(service, redis, keys):
    await redis.hset(keys.run("r"), mapping={"status": "failed", "updatedAt": "1"})
    assert await service.create_run("w", 1, run_id="r") == "r"
    run = await service.get_run("r")
    assert (run.status, run.input) == ("running", 1)


@pytest.mark.awaited_only
async def test_closed_service_says_so_at_once(redis_url, prefix):
    """It does not insist, as it does where Redis is away."""
    service = RedisWorkflowService(redis_url, key_prefix=prefix, resend_s=3_600)
    await service.close()
    for call in (service.get_run("r"), service.create_run("w")):
        with pytest.raises(ServiceClosedError, match="the service is closed"):
            await asyncio.wait_for(call, 10)
