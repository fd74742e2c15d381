"""The history: an ordered list that alone tells what happened, folded into attempts."""

import random
from datetime import UTC

import pytest
from tests.helpers.state import recorded

from askel import AskelError, SerializedError, StepAttempt, StepStatus
from askel.state import decode_entries, fold_attempts

pytestmark = pytest.mark.usefixtures("redis_server")

SHARED = (
    "step_id",
    "step_name",
    "status",
    "rpc_name",
    "data",
    "result",
    "error",
    "attempt_count",
    "retries",
    "retry_delay",
    "from_step_name",
)


def facts(state):
    """What a step's hash and the newest attempt of its history have in common."""
    return {name: getattr(state, name) for name in SHARED}


async def test_attempts_are_numbered_and_keep_their_outcomes(service):
    await service.create_run("w", run_id="r")
    step = await service.insert_step_state(
        "r", "s", "f", {"n": 1}, {"retries": 2, "retry_delay": "5s"}, "a"
    )
    await service.set_step_running(step.step_id)
    await service.set_step_error(step.step_id, ValueError("first"))
    await service.create_retry_attempt(step.step_id)
    await service.set_step_scheduled(step.step_id)
    await service.set_step_running(step.step_id)
    await service.set_step_error(step.step_id, ValueError("second"))
    await service.create_retry_attempt(step.step_id, "running")
    await service.set_step_result(step.step_id, "done")

    attempts = await service.get_run_history("r")

    same = {
        "step_id": step.step_id,
        "step_name": "s",
        "rpc_name": "f",
        "data": {"n": 1},
        "retries": 2,
        "retry_delay": "5s",
        "from_step_name": "a",
    }
    assert [facts(attempt) for attempt in attempts] == [
        {
            **same,
            "status": "failed",
            "attempt_count": 1,
            "result": None,
            "error": SerializedError("first", name="ValueError"),
        },
        {
            **same,
            "status": "failed",
            "attempt_count": 2,
            "result": None,
            "error": SerializedError("second", name="ValueError"),
        },
        {**same, "status": "succeeded", "attempt_count": 3, "result": "done", "error": None},
    ]


async def test_attempt_has_the_time_of_each_status_it_had(service):
    await service.create_run("w", run_id="r")
    step = await service.insert_step_state("r", "s", "f")
    await service.set_step_scheduled(step.step_id)
    await service.set_step_running(step.step_id)
    await service.set_step_error(step.step_id, ValueError("no"))
    await service.create_retry_attempt(step.step_id, "running")
    await service.set_step_result(step.step_id, 1)

    first, second = await service.get_run_history("r")
    assert (
        first.created_at
        <= first.scheduled_at
        <= first.running_at
        <= first.failed_at
        == first.updated_at
    )
    assert first.failed_at <= second.created_at == second.running_at <= second.succeeded_at
    assert (first.succeeded_at, second.scheduled_at, second.failed_at) == (None, None, None)
    assert all(t.tzinfo is UTC for t in (first.created_at, first.failed_at, second.succeeded_at))


async def test_attempts_stand_in_the_order_in_which_they_began(service):
    await service.create_run("w", run_id="r")
    one, two = [await service.insert_step_state("r", name, "f") for name in ("one", "two")]
    await service.set_step_error(two.step_id, ValueError("no"))
    three = await service.insert_step_state("r", "three", "f")
    await service.create_retry_attempt(two.step_id)
    await service.set_step_result(one.step_id, 1)
    await service.set_step_result(three.step_id, 3)

    assert [(a.step_name, a.attempt_count) for a in await service.get_run_history("r")] == [
        ("one", 1),
        ("two", 1),
        ("three", 1),
        ("two", 2),
    ]


async def test_open_attempt_is_as_complete_as_a_closed_one(service):
    await service.create_run("w", run_id="r")
    states = [
        await service.insert_step_state(
            "r", name, "f", [name], {"retries": 1, "retry_delay": "5s"}, "start"
        )
        for name in ("waiting", "working", "again")
    ]
    await service.set_step_running(states[1].step_id)
    await service.set_step_error(states[2].step_id, ValueError("no"))
    await service.create_retry_attempt(states[2].step_id)

    history = await service.get_run_history("r")

    newest = {attempt.step_name: attempt for attempt in history}
    for name in ("waiting", "working", "again"):
        assert facts(newest[name]) == facts(await service.get_step_state("r", name))
    assert len(history) == 4


@pytest.mark.parametrize("seed", range(5))
async def test_hash_of_each_step_equals_the_fold_of_the_history(service, redis, keys, seed):
    rng = random.Random(seed)
    await service.create_run("w", run_id="r")
    steps = []
    for _ in range(60):
        if not steps or rng.random() < 0.2:
            options = rng.choice([None, {"retries": 1}, {"retries": 5, "retry_delay": "1s"}])
            name = f"step: {len(steps)}"
            steps.append(
                (
                    await service.insert_step_state(
                        "r", name, rng.choice(["f", None]), rng.choice([None, 1, {}]), options
                    )
                ).step_id
            )
        step_id = rng.choice(steps)
        act = rng.choice(
            [
                service.set_step_scheduled,
                service.set_step_running,
                lambda s: service.set_step_result(s, rng.choice([None, 1, [2.5]])),
                lambda s: service.set_step_error(s, ValueError("no")),
                lambda s: service.create_retry_attempt(s, rng.choice(["pending", "running"])),
            ]
        )
        try:
            await act(step_id)
        except AskelError:
            continue

    history = await service.get_run_history("r")
    newest = {attempt.step_name: attempt for attempt in history}
    assert list(newest) == [name.decode() for name in await redis.lrange(keys.steps("r"), 0, -1)]
    for name, attempt in newest.items():
        state = await service.get_step_state("r", name)
        assert facts(attempt) == facts(state)
        assert attempt.updated_at == state.updated_at
    for name in newest:
        numbers = [attempt.attempt_count for attempt in history if attempt.step_name == name]
        assert numbers == list(range(1, len(numbers) + 1))


async def test_history_keeps_the_order_of_all_that_happened(service, redis, keys):
    await service.create_run("w", run_id="r")
    step = await service.insert_step_state("r", "s", "f")
    await service.update_run_status("r", "suspended")
    await service.set_step_result(step.step_id, 1)
    await service.update_run_status("r", "running")
    await service.update_run_status("r", "completed", output=2)

    entries = await recorded(redis, keys, "r")
    assert [(entry["t"], entry["status"]) for entry in entries] == [
        ("run", "running"),
        ("step", "pending"),
        ("run", "suspended"),
        ("step", "succeeded"),
        ("run", "running"),
        ("run", "completed"),
    ]
    assert [entry["at"] for entry in entries] == sorted(entry["at"] for entry in entries)


async def test_entries_are_read_as_they_were_recorded(service):
    await service.create_run("w", run_id="r")
    await service.update_run_status("r", "failed", error=ValueError("no"))

    first, last = await service.get_history_entries("r")
    assert (first.kind, first.status, first.workflow) == ("run", "running", "w")
    assert (last.status, bytes(last.error)) == ("failed", b'{"message":"no","name":"ValueError"}')


def test_lost_attempt_is_failed_and_said_to_be_lost():
    lost = b'{"message":"stopped","name":"AttemptLost"}'
    attempts = fold_attempts(
        "r",
        decode_entries(
            [
                b'{"t":"run","at":1,"status":"running"}',
                b'{"t":"step","at":2,"name":"s","status":"running","attempt":1,"rpc":"f"}',
                b'{"t":"step","at":3,"name":"s","status":"lost","attempt":1,"id":"x","error":'
                + lost
                + b"}",
                b'{"t":"step","at":3,"name":"s","status":"running","attempt":2}',
                b'{"t":"signal","at":4,"name":"s"}',
                b'{"t":"step","at":5,"name":"s","status":"succeeded","attempt":2,"result":null}',
            ]
        ),
    )

    assert [(a.attempt_count, a.status, a.rpc_name, a.step_id) for a in attempts] == [
        (1, StepStatus.LOST, "f", "r:s:x"),
        (2, StepStatus.SUCCEEDED, "f", "r:s:x"),
    ]
    assert attempts[0].error == SerializedError("stopped", name="AttemptLost")
    assert attempts[0].failed_at.timestamp() == 0.003
    assert isinstance(attempts[0], StepAttempt)


def test_fold_of_nothing_is_nothing():
    assert fold_attempts("r", []) == []


def test_errors_that_other_programs_recorded_are_read():
    text = b'{"t":"step","at":3,"name":"s","status":"failed","error":{"message":"m","code":7}}'

    assert fold_attempts("r", decode_entries([text]))[0].error == SerializedError("m", code="7")
