"""Steps in the state service: inserted once, moved by one table, finished once."""

import asyncio
from datetime import timedelta

import pytest
from tests.helpers.state import recorded, snapshot

from askel import (
    IllegalTransitionError,
    InvalidNameError,
    InvalidOptionError,
    PayloadError,
    RunNotFoundError,
    SerializedError,
    StepConflictError,
    StepNotFoundError,
    StepOptions,
    StepState,
    StepStatus,
)

pytestmark = pytest.mark.usefixtures("redis_server")

# Where a step's current attempt may go by the service's methods from each status.
MOVES = {
    "pending": {"scheduled", "running", "succeeded", "failed"},
    "scheduled": {"running", "succeeded", "failed"},
    "running": {"succeeded", "failed"},
    "succeeded": set(),
    "failed": set(),
}
METHODS = {
    "scheduled": lambda s, step_id: s.set_step_scheduled(step_id),
    "running": lambda s, step_id: s.set_step_running(step_id),
    "succeeded": lambda s, step_id: s.set_step_result(step_id, {"ok": True}),
    "failed": lambda s, step_id: s.set_step_error(step_id, ValueError("no")),
}


@pytest.fixture
async def run(service):
    return await service.create_run("w", run_id="r")


@pytest.fixture
async def step(service, run):
    return await service.insert_step_state("r", "s", "f", {"n": 1})


async def test_step_is_inserted_pending_in_its_first_attempt(service, run):
    inserted = await service.insert_step_state(
        "r", "charge card", "charge", [1], StepOptions(3, "5s"), "before"
    )

    assert inserted == StepState(
        step_id=inserted.step_id,
        step_name="charge card",
        status=StepStatus.PENDING,
        created_at=inserted.created_at,
        updated_at=inserted.created_at,
        rpc_name="charge",
        data=[1],
        attempt_count=1,
        retries=3,
        retry_delay="5s",
        from_step_name="before",
    )
    run_id, name, suffix = inserted.step_id.split(":")
    assert (run_id, name) == ("r", "charge card")
    assert suffix
    assert await service.get_step_state("r", "charge card") == inserted


async def test_names_may_be_any_peoples_words(service, run, redis, keys):
    names = ["größe: 5 €", "a:b:c", ":", "x" * 512, "😀", 'quote " and \\']
    for name in names:
        step = await service.insert_step_state("r", name, None)
        assert step.step_name == name
        await service.set_step_running(step.step_id)
        await service.set_step_result(step.step_id, name)
        assert (await service.get_step_state("r", name)).result == name

    assert [name.decode() for name in await redis.lrange(keys.steps("r"), 0, -1)] == names
    assert [attempt.step_name for attempt in await service.get_run_history("r")] == names


async def test_step_of_the_run_itself_has_no_function_and_needs_no_options(service, run):
    step = await service.insert_step_state("r", "s", None)

    assert (step.rpc_name, step.data, step.retries, step.retry_delay) == (None, None, None, None)
    assert await service.insert_step_state("r", "s", None) == step


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        (None, (None, None)),
        ({}, (None, None)),
        ({"retries": 0}, (0, None)),
        ({"retries": 2, "retry_delay": timedelta(minutes=2)}, (2, "2min")),
        ({"retry_delay": 0.25}, (None, "250ms")),
        ({"retry_delay": "exponential"}, (None, "exponential")),
        (StepOptions(1, "90s"), (1, "90s")),
        (StepOptions(retry_delay="60s"), (None, "1min")),
    ],
)
async def test_options_are_stored(service, run, options, stored):
    step = await service.insert_step_state("r", "s", "f", None, options)

    assert (step.retries, step.retry_delay) == stored


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"step_name": ""}, InvalidNameError),
        ({"step_name": "a\n"}, InvalidNameError),
        ({"run_id": "a:b"}, InvalidNameError),
        ({"data": {1: object()}}, PayloadError),
        ({"step_options": {"retries": -1}}, InvalidOptionError),
        ({"step_options": {"retries": "2"}}, InvalidOptionError),
        ({"step_options": {"retries": True}}, InvalidOptionError),
        ({"step_options": {"retry_delay": "soon"}}, InvalidOptionError),
        ({"step_options": {"retry": 1}}, InvalidOptionError),
        ({"step_options": 3}, InvalidOptionError),
        ({"rpc_name": "a\n"}, InvalidNameError),
        ({"rpc_name": "\ud800"}, InvalidNameError),
        ({"from_step_name": "\ud800"}, InvalidNameError),
    ],
)
async def test_wrong_call_is_refused_before_anything_is_sent(service, redis, prefix, given, error):
    with pytest.raises(error):
        await service.insert_step_state(
            **{"run_id": "r", "step_name": "s", "rpc_name": "f", **given}
        )
    assert await snapshot(redis, prefix) == {}
    assert service.connection.connects == 0


async def test_inserted_again_it_is_the_first_ones_state(service, step, redis, prefix):
    await service.set_step_result(step.step_id, 5)
    before = await snapshot(redis, prefix)

    again = await service.insert_step_state("r", "s", "f", {"n": 2}, {"retries": 9})

    assert again == await service.get_step_state("r", "s")
    assert (again.step_id, again.data, again.result, again.status) == (
        step.step_id,
        {"n": 1},
        5,
        "succeeded",
    )
    assert await snapshot(redis, prefix) == before


@pytest.mark.parametrize("rpc_name", ["g", None])
async def test_inserted_again_for_another_function_it_is_refused(
    service, step, redis, prefix, rpc_name
):
    before = await snapshot(redis, prefix)

    with pytest.raises(
        StepConflictError, match="step 's' of run 'r': it exists for another function"
    ):
        await service.insert_step_state("r", "s", rpc_name)
    assert await snapshot(redis, prefix) == before


async def test_step_of_an_unknown_or_ended_run_is_refused(service, run, redis, prefix):
    with pytest.raises(RunNotFoundError):
        await service.insert_step_state("nobody", "s", "f")
    await service.update_run_status("r", "failed")
    before = await snapshot(redis, prefix)
    with pytest.raises(IllegalTransitionError, match="run 'r' is failed"):
        await service.insert_step_state("r", "s", "f")
    assert await snapshot(redis, prefix) == before


async def test_unknown_step_is_not_found(service, run, redis, prefix):
    before = await snapshot(redis, prefix)

    with pytest.raises(StepNotFoundError, match="run 'r' has no step 'nothing'"):
        await service.get_step_state("r", "nothing")
    for method in METHODS.values():
        with pytest.raises(StepNotFoundError):
            await method(service, "r:nothing:x")
        with pytest.raises(StepNotFoundError):
            await method(service, "nobody:s:x")
    with pytest.raises(StepNotFoundError):
        await service.create_retry_attempt("r:nothing:x")
    assert await snapshot(redis, prefix) == before


async def test_step_id_of_another_insertion_is_not_found(service, step):
    with pytest.raises(StepNotFoundError):
        await service.set_step_result("r:s:another", 1)


@pytest.mark.parametrize("step_id", ["", "r", "r:s", "r:s:", ":s:x", "r::x", "a b:s:x"])
async def test_what_is_no_step_id_is_refused(service, step_id):
    with pytest.raises(InvalidNameError):
        await service.set_step_running(step_id)


async def bring_to(service, step_id, status):
    """Move a fresh step to *status*."""
    if status != "pending":
        await METHODS[status](service, step_id)


@pytest.mark.parametrize("source", MOVES)
@pytest.mark.parametrize("target", METHODS)
async def test_table_of_step_statuses(service, step, redis, prefix, source, target):
    await bring_to(service, step.step_id, source)
    before = await snapshot(redis, prefix)

    if target in MOVES[source]:
        await METHODS[target](service, step.step_id)
        assert (await service.get_step_state("r", "s")).status == target
    elif target == source:
        await METHODS[target](service, step.step_id)
        assert await snapshot(redis, prefix) == before
    else:
        with pytest.raises(IllegalTransitionError, match=f"step 's' of run 'r' is {source}"):
            await METHODS[target](service, step.step_id)
        assert await snapshot(redis, prefix) == before


@pytest.mark.parametrize("source", ["pending", "running"])
@pytest.mark.parametrize("target", METHODS)
async def test_steps_of_an_ended_run_stay_as_they_are(service, step, redis, prefix, source, target):
    await bring_to(service, step.step_id, source)
    await service.update_run_status("r", "cancelled")
    before = await snapshot(redis, prefix)

    if source == target:
        await METHODS[target](service, step.step_id)
    else:
        with pytest.raises(
            IllegalTransitionError, match="run 'r' is cancelled: it cannot be changed any more"
        ):
            await METHODS[target](service, step.step_id)
    assert await snapshot(redis, prefix) == before


@pytest.mark.parametrize("result", [None, 0, False, "", [], {}, {"a": [1.5, None]}, 'ü\u2028"\\'])
async def test_every_result_comes_back_as_it_was(service, step, result):
    await service.set_step_result(step.step_id, result)

    state = await service.get_step_state("r", "s")
    (attempt,) = await service.get_run_history("r")
    assert (state.result, attempt.result, type(state.result)) == (result, result, type(result))


async def test_another_result_or_error_is_a_conflict_and_the_first_stays(
    service, run, redis, prefix
):
    done = await service.insert_step_state("r", "done", "f")
    broken = await service.insert_step_state("r", "broken", "f")
    await service.set_step_result(done.step_id, 1)
    await service.set_step_error(broken.step_id, ValueError("first"))
    before = await snapshot(redis, prefix)

    with pytest.raises(StepConflictError, match="another result is recorded already"):
        await service.set_step_result(done.step_id, 2)
    with pytest.raises(StepConflictError, match="another error is recorded already"):
        await service.set_step_error(broken.step_id, ValueError("second"))
    with pytest.raises(IllegalTransitionError):
        await service.set_step_error(done.step_id, ValueError("late"))
    assert await snapshot(redis, prefix) == before


async def test_of_many_who_finish_a_step_one_does(service, step, redis, keys):
    outcomes = await asyncio.gather(
        *(service.set_step_result(step.step_id, number) for number in range(20)),
        return_exceptions=True,
    )

    assert (
        sorted(type(outcome).__name__ for outcome in outcomes)
        == ["NoneType"] + ["StepConflictError"] * 19
    )
    winner = outcomes.index(None)
    assert [entry.get("result") for entry in (await recorded(redis, keys, "r"))[2:]] == [winner]


async def test_error_may_be_an_exception_or_already_serialized(service, run):
    one = await service.insert_step_state("r", "one", "f")
    two = await service.insert_step_state("r", "two", "f")
    await service.set_step_error(one.step_id, KeyError("x"))
    await service.set_step_error(two.step_id, SerializedError("m", "s", "c", "n"))

    assert (await service.get_step_state("r", "one")).error == SerializedError(
        "'x'", name="KeyError"
    )
    assert (await service.get_step_state("r", "two")).error == SerializedError("m", "s", "c", "n")


async def test_retry_begins_the_next_attempt_without_the_old_outcome(service, run):
    step = await service.insert_step_state("r", "s", "f", 1, {"retries": 2})
    for attempt, status in ((2, "pending"), (3, "running")):
        await service.set_step_error(step.step_id, ValueError(f"no {attempt}"))
        state = await service.create_retry_attempt(step.step_id, status)
        assert (state.status, state.attempt_count, state.error, state.result) == (
            status,
            attempt,
            None,
            None,
        )
        assert state == await service.get_step_state("r", "s")
        assert state.step_id == step.step_id

    await service.set_step_error(step.step_id, ValueError("spent"))
    with pytest.raises(IllegalTransitionError, match="retries spent"):
        await service.create_retry_attempt(step.step_id)


async def test_retry_counts_no_budget_where_none_is_set(service, step):
    for attempt in range(2, 12):
        await service.set_step_error(step.step_id, ValueError("no"))
        assert (await service.create_retry_attempt(step.step_id)).attempt_count == attempt


@pytest.mark.parametrize("source", ["pending", "scheduled", "running", "succeeded"])
async def test_only_a_failed_step_is_tried_again(service, step, redis, prefix, source):
    await bring_to(service, step.step_id, source)
    before = await snapshot(redis, prefix)

    with pytest.raises(IllegalTransitionError, match=f"is {source}"):
        await service.create_retry_attempt(step.step_id)
    assert await snapshot(redis, prefix) == before


@pytest.mark.parametrize("status", ["failed", "succeeded", "scheduled", "nonsense"])
async def test_new_attempt_is_pending_or_running(service, step, status):
    with pytest.raises(InvalidOptionError):
        await service.create_retry_attempt(step.step_id, status)


async def test_of_many_who_retry_a_step_one_gets_the_attempt(service, step, redis, keys):
    await service.set_step_error(step.step_id, ValueError("no"))

    outcomes = await asyncio.gather(
        *(service.create_retry_attempt(step.step_id) for _ in range(10)), return_exceptions=True
    )

    assert [type(o).__name__ for o in outcomes].count("StepState") == 1
    assert {type(o) for o in outcomes if not isinstance(o, StepState)} == {IllegalTransitionError}
    assert [(e["status"], e.get("attempt", 1)) for e in (await recorded(redis, keys, "r"))[1:]] == [
        ("pending", 1),
        ("failed", 1),
        ("pending", 2),
    ]


async def test_same_result_in_another_order_changes_nothing(service, step, redis, prefix):
    await service.set_step_result(step.step_id, {"a": 1, "b": [3, 4]})
    before = await snapshot(redis, prefix)
    await service.set_step_result(step.step_id, {"b": [3, 4], "a": 1})
    async with service.transaction("r") as tx:
        tx.set_step_result(step.step_id, {"b": [3, 4], "a": 1})
    assert await snapshot(redis, prefix) == before
    with pytest.raises(StepConflictError):
        await service.set_step_result(step.step_id, {"a": 1.0, "b": [3, 4]})


@pytest.mark.awaited_only
async def test_transaction_has_one_block(service, step):
    tx = service.transaction("r")
    async with tx as changes:
        changes.update_run_state("v", 1)
    await service.update_run_state("r", "v", 2)
    with pytest.raises(InvalidOptionError, match="begin another"):
        async with tx:
            pass
    with pytest.raises(InvalidOptionError, match="begin another"):
        changes.update_run_state("v", 3)
    assert await service.get_run_state("r") == {"v": 2}


async def test_step_is_known_by_the_id_of_each_insertion_of_a_transaction(service, step):
    async with service.transaction("r") as tx:
        ids = [tx.insert_step_state("s", "f").step_id for _ in range(2)]
        tx.set_step_running(ids[0])
        tx.set_step_result(ids[1], 1)
    assert (await service.get_step_state("r", "s")).result == 1


@pytest.mark.parametrize("created", ["2026-01-01T00:00:00Z", "", "1e400"])
async def test_run_whose_time_another_program_wrote_in_its_way_ends_whole(
    service, step, redis, keys, created
):
    await redis.hset(keys.run("r"), "createdAt", created)
    await service.update_run_status("r", "completed", 1)
    assert await redis.zscore(keys.runs_by_status("completed"), "r") is not None
    assert await redis.zscore(keys.runs_ended("w"), "r") is not None
