"""Reading one run whole: one round trip, of one moment, however long the run is."""

import msgspec
import pytest
from tests.helpers.state import recorded, snapshot

from askel import (
    RedisWorkflowService,
    RunStatus,
    SerializedError,
    StepAt,
    StepStatus,
)
from askel.state import load_scripts
from askel.state.reads import run_reads

pytestmark = pytest.mark.usefixtures("redis_server")

READS = {
    "history": lambda s: s.get_run_history("r"),
    "entries": lambda s: s.get_history_entries("r"),
    "report": lambda s: s.get_run_status("r"),
    "timeline": lambda s: s.get_run_timeline("r"),
    "moment": lambda s: s.reconstruct_run_state_at("r", 3),
    "graph state": lambda s: s.get_completed_graph_state("r"),
    "instances": lambda s: s.get_step_instances("r"),
    "node results": lambda s: s.get_node_results("r", ["step 0", "step 999"]),
}
each_read = pytest.mark.parametrize("read", READS)


async def filled(redis, keys, count, *, closed=True, data="1", first=0):
    """Give the run *count* steps at once, as the service would one by one."""
    batch = redis.pipeline(transaction=False)
    for number in range(first, first + count):
        name = f"step {number}"
        fields = {
            "stepId": f"r:{name}:x",
            "status": "succeeded" if closed else "running",
            "attemptCount": 1,
            "data": data,
            "rpcName": "f",
            "createdAt": 1_000 + number,
            "updatedAt": 1_000 + number,
        }
        opened = {"at": number, "t": "step", "name": name, "status": "running", "attempt": 1}
        entries = [msgspec.json.encode(opened)]
        if closed:
            fields["result"] = number
            ended = {**opened, "status": "succeeded", "id": "x", "rpc": "f", "result": number}
            entries.append(msgspec.json.encode({**ended, "data": msgspec.Raw(data.encode())}))
        batch.hset(keys.step("r", name), mapping=fields)
        batch.rpush(keys.steps("r"), name)
        batch.rpush(keys.history("r"), *entries)
    await batch.execute()


@each_read
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
async def test_thousand_steps_are_read_in_one_round_trip(  # noqa: PLR0917 - fixtures are parameters
    distant, proxy, redis, keys, prefix, read, closed
):
    for script in load_scripts().values():
        await redis.script_load(script.body)
    await distant.create_run("w", run_id="r")
    await filled(redis, keys, 1_000, closed=closed)
    before = await snapshot(redis, prefix)
    proxy.forget()

    assert await READS[read](distant) or (read == "node results" and not closed)

    assert proxy.names == ["EVALSHA"]
    assert await snapshot(redis, prefix) == before


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
async def test_longer_runs_are_read_whole(service, redis, keys, closed):
    await service.create_run("w", run_id="r")
    await filled(redis, keys, 2_501, closed=closed)

    history = await service.get_run_history("r")

    assert [attempt.step_name for attempt in history] == [f"step {n}" for n in range(2_501)]
    assert {(attempt.data, attempt.rpc_name) for attempt in history} == {(1, "f")}
    assert all(attempt.step_id == f"r:{attempt.step_name}:x" for attempt in history)
    assert len(await service.get_history_entries("r")) == 1 + 2_501 * (1 + closed)
    assert len((await service.get_run_status("r")).steps) == 2_501
    assert len(await service.get_step_instances("r")) == 2_501
    names = [f"step {number}" for number in range(2_501)]
    done = await service.get_node_results("r", names)
    assert done == ({name: number for number, name in enumerate(names)} if closed else {})


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
async def test_large_payloads_are_read_in_parts(distant, proxy, redis, keys, closed):
    await distant.create_run("w", run_id="r")
    large = '"' + "x" * 1_000_000 + '"'
    await filled(redis, keys, 20, closed=closed, data=large)
    proxy.forget()

    history = await distant.get_run_history("r")
    steps = await distant._read_step_hashes("r")

    assert [len(attempt.data) for attempt in history] == [1_000_000] * 20
    assert [len(fields["data"]) for fields in steps.values()] == [1_000_002] * 20
    # No reply is much larger than what a script allows itself.
    assert 4 <= proxy.names.count("EVALSHA") <= 8


async def test_history_read_in_parts_ends_where_the_run_was_read(service, redis, keys, monkeypatch):
    """What is appended between two parts belongs to a later moment than the run's hash."""
    await service.create_run("w", run_id="r")
    await filled(redis, keys, 20, data='"' + "x" * 1_000_000 + '"')
    ask, asked = service._ask_again, 0

    async def ask_and_write(name, names, args):
        nonlocal asked
        answer = await ask(name, names, args)
        asked += 1
        if asked == 1:
            await service.update_run_status("r", "completed", output=1)
        return answer

    monkeypatch.setattr(service, "_ask_again", ask_and_write)
    told = await service.get_run_status("r")

    assert asked > 1
    assert (told.status, told.completed_at, told.output) == (RunStatus.RUNNING, None, None)
    assert len(told.steps) == 20
    later = await service.get_run_status("r")
    assert later.status is RunStatus.COMPLETED


async def test_step_that_is_closed_between_two_parts_keeps_its_data(
    service, redis, keys, monkeypatch
):
    monkeypatch.setattr(run_reads, "STEPS_AT_ONCE", 1)
    await service.create_run("w", run_id="r")
    for name in ("a", "b", "c"):
        step = await service.insert_step_state("r", name, "f", [name])
    ask = service._ask_again

    async def ask_and_write(name, names, args):
        answer = await ask(name, names, args)
        if name == "read_run":
            await service.set_step_result(step.step_id, 1)
        return answer

    monkeypatch.setattr(service, "_ask_again", ask_and_write)
    history = await service.get_run_history("r")

    assert [(attempt.step_name, attempt.status, attempt.data) for attempt in history] == [
        ("a", StepStatus.PENDING, ["a"]),
        ("b", StepStatus.PENDING, ["b"]),
        ("c", StepStatus.PENDING, ["c"]),
    ]


async def test_run_that_is_deleted_between_two_parts_is_none(service, redis, keys, monkeypatch):
    await service.create_run("w", run_id="r")
    await filled(redis, keys, 20, data='"' + "x" * 1_000_000 + '"')
    ask = service._ask_again

    async def ask_and_delete(name, names, args):
        answer = await ask(name, names, args)
        await redis.delete(keys.run("r"), keys.history("r"))
        return answer

    monkeypatch.setattr(service, "_ask_again", ask_and_delete)

    assert await service.get_run_status("r") is None


@each_read
async def test_cost_does_not_depend_on_what_else_lives_there(
    distant, service, proxy, redis, keys, read
):
    await service.create_run("w", run_id="r")
    await filled(redis, keys, 2)
    for number in range(30):
        await service.create_run("w", run_id=f"other{number}")
        await service.insert_step_state(f"other{number}", "step 0", "f")
    await READS[read](distant)
    proxy.forget()

    await READS[read](distant)

    assert proxy.names == ["EVALSHA"]


@pytest.mark.parametrize("read", ["history", "entries", "graph state", "instances", "node results"])
async def test_unknown_run_has_nothing(service, read):
    assert not msgspec.to_builtins(await READS[read](service)) or read == "graph state"
    assert await service.get_run_status("r") is None
    assert await service.get_run_timeline("r") is None
    assert await service.reconstruct_run_state_at("r") is None


@each_read
async def test_read_is_repeated_after_a_lost_connection(distant, service, proxy, read):
    await service.create_run("w", run_id="r")
    step = await service.insert_step_state("r", "step 0", "f")
    await service.set_step_result(step.step_id, 1)
    await READS[read](distant)
    proxy.drop_connections()

    assert await READS[read](distant)


async def test_timeline_of_a_run_equals_its_history(service, redis, keys):
    await service.create_run("w", run_id="r")
    step = await service.insert_step_state("r", "a", "f", 1, {"retries": 1}, "before")
    await service.set_step_scheduled(step.step_id)
    await service.set_step_running(step.step_id)
    await service.set_step_error(step.step_id, ValueError("no"))
    await service.create_retry_attempt(step.step_id)
    await service.update_run_status("r", "suspended")
    open_ = await service.insert_step_state("r", "b", "f", 1, None, "a")

    told = await service.get_run_timeline("r")

    entries = await recorded(redis, keys, "r")
    assert [(event.kind, event.status) for event in told.events] == [
        (entry["t"], entry["status"]) for entry in entries
    ]
    assert told.run_id == "r"
    assert [event.from_step_name for event in told.events if event.kind == "step"] == [
        *["before"] * 5,
        "a",
    ]
    at_failure = await service.reconstruct_run_state_at("r", 4)
    assert at_failure.steps["a"] == StepAt(
        StepStatus.FAILED,
        1,
        error=SerializedError("no", name="ValueError"),
        from_step_name="before",
    )
    now = await service.reconstruct_run_state_at("r")
    assert now.status is RunStatus.SUSPENDED
    assert now.steps["b"].status == open_.status
    assert (now.steps["a"].attempt, now.steps["a"].error) == (2, None)
    assert (await service.reconstruct_run_state_at("r", -1)).phase == "pending"
    assert await service.reconstruct_run_state_at("r", now.at) == now


async def test_present_moment_is_what_the_hashes_say(service):
    await service.create_run("w", run_id="r")
    for number, name in enumerate(["a", "b", "c", "d"]):
        step = await service.insert_step_state("r", name, "f")
        if number > 0:
            await service.set_step_running(step.step_id)
        if number == 2:
            await service.set_step_result(step.step_id, {"n": number})
        if number == 3:
            await service.set_step_error(step.step_id, ValueError("no"))

    now = await service.reconstruct_run_state_at("r")

    for name, at in now.steps.items():
        state = await service.get_step_state("r", name)
        assert (at.status, at.attempt, at.result, at.error) == (
            state.status,
            state.attempt_count,
            state.result,
            state.error,
        )
    assert now.results == {"c": {"n": 2}}


async def test_prefixes_and_runs_see_nothing_of_each_other(redis_url, prefix, service):
    await service.create_run("w", run_id="r")
    await service.insert_step_state("r", "1:step:a", "f")
    await service.create_run("w", run_id="r-1")
    other = RedisWorkflowService(redis_url, key_prefix=f"{prefix}-2")
    assert await other.get_run_status("r") is None
    assert await other.get_step_instances("r") == []
    await other.close()
    assert await service.get_step_instances("r-1") == []
    assert await service.get_run_history("r-1") == []


@pytest.mark.awaited_only
async def test_parts_of_two_generations_are_never_mixed(service, monkeypatch):
    """A run that is read in parts gives way between two of them: the next one is read."""
    await service.create_run("w", run_id="r")
    for number in range(10):
        await service.update_run_state("r", "v", "x" * 1_000_000 + str(number))
    ask, asked = service._ask_again, []

    async def give_way(*call):
        asked.append(call)
        if len(asked) == 2:
            await service.create_run("w", run_id="r", if_exists="terminate-existing")
        return await ask(*call)

    monkeypatch.setattr(service, "_ask_again", give_way)
    (entry,) = await service.get_history_entries("r")
    assert (entry.generation, entry.previous) == (2, "r.g1")
