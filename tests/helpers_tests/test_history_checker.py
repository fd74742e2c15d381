"""The judge of runs: it accepts a good run, and names every mistake that is planted in one."""

import copy

import pytest
from tests.helpers.history_checker import (
    RunRecord,
    check_all,
    check_run,
    leftovers,
    read_record,
    violations,
)

from askel import RedisWorkflowService

CLOSED = {"id": "x", "rpc": "f", "data": {"n": 1}, "retries": 2, "retryDelay": "5s"}


def step(name, status, attempt=1, **more):
    return {"at": 0, "t": "step", "name": name, "status": status, "attempt": attempt, **more}


def good():
    """A run with a retry, a lost attempt, a sleep, a queue step and a signal, as it must be."""
    entries = [
        {"t": "run", "status": "running", "workflow": "w"},
        step("a", "running", seen=1),
        step("a", "failed", **CLOSED, error={"message": "once"}, seen=2),
        step("a", "pending", 2, seen=2, due=1_005),
        {"t": "timer", "name": "a", "attempt": 2},
        step("a", "running", 2, seen=5),
        step("a", "lost", 2, **CLOSED, error={"message": "lost"}, seen=6),
        step("a", "running", 3, seen=6),
        {"t": "signal", "name": "s", "data": 1, "command": "c1"},
        step("a", "succeeded", 3, **CLOSED, result=[1], seen=8),
        step("z", "scheduled", seen=9, due=1_013),
        step("z", "succeeded", id="x", data={"duration": 1}, result=None),
        step("q", "scheduled", seen=12),
        step("q", "running"),
        step("q", "succeeded", **CLOSED, **{"from": "z"}, result="q"),
        {"t": "run", "status": "completed", "output": "end", "seen": 15},
    ]
    for position, entry in enumerate(entries):
        entry["at"] = 1_002 + position
    common = {"rpcName": "f", "data": '{"n": 1}', "retries": "2", "retryDelay": "5s"}
    times = {"createdAt": "1003", "updatedAt": "1011"}
    steps = {
        "a": {**common, **times, "stepId": "r:a:x", "status": "succeeded", "attemptCount": "3"},
        "z": {"stepId": "r:z:x", "status": "succeeded", "attemptCount": "1", "result": "null"},
        "q": {**common, "stepId": "r:q:x", "status": "succeeded", "attemptCount": "1"},
    }
    steps["a"]["result"], steps["q"]["result"] = "[1]", '"q"'
    steps["z"] |= {"createdAt": "1012", "updatedAt": "1013", "data": '{"duration":1}'}
    steps["q"] |= {"createdAt": "1014", "updatedAt": "1016", "fromStepName": "z"}
    run = {"id": "r", "workflow": "w", "status": "completed", "output": '"end"'}
    run |= {"createdAt": "1002", "updatedAt": "1017", "input": "{}"}
    indexes = dict.fromkeys(["", "status:completed", "workflow:w"], 1_002.0)
    events = [("running", 1), ("completed", 16)]
    names, ctl = ["a", "z", "q"], {"turn": "8"}
    return RunRecord("r", run, ctl, entries, names, steps, None, indexes, events)


def entry_removed(position):
    return lambda r: r.entries.pop(position)


def entry_changed(position, **fields):
    return lambda r: r.entries[position].update(fields)


def entry_added(position, entry):
    return lambda r: r.entries.insert(position, {"at": 1_010, **entry})


PLANTED = {
    "no history": ("history", lambda r: r.entries.clear()),
    "an entry without a time": ("shape", lambda r: r.entries[3].pop("at")),
    "an entry of no kind": ("shape", entry_changed(4, t="note")),
    "a step without a number": ("shape", lambda r: r.entries[1].pop("attempt")),
    "no beginning": ("run-path", entry_removed(0)),
    "an illegal move of the run": ("run-path", entry_changed(15, status="pending")),
    "a second end": ("after-terminal", entry_added(16, {"t": "run", "status": "completed"})),
    "a signal after the end": ("after-terminal", entry_added(16, {"t": "signal", "name": "x"})),
    "a success before it ran": ("step-path", entry_removed(7)),
    "a retry without a failure": ("step-path", entry_removed(2)),
    "an attempt skipped": ("attempt-gap", entry_changed(7, attempt=4)),
    "an attempt begun twice": ("step-path", entry_added(6, step("a", "running", 2, seen=5))),
    "a second success": ("success-twice", entry_added(10, step("a", "succeeded", 3, seen=8))),
    "something after the success": ("step-settled", entry_added(10, step("a", "running", 4))),
    "something after a final failure": ("step-settled", entry_changed(2, final=True)),
    "a lost attempt that was left open": ("step-path", entry_removed(6)),
    "more attempts than the budget": ("budget", entry_changed(2, retries=1)),
    "a step left open": ("left-open", entry_removed(14)),
    "a name that is not listed": ("step-list", lambda r: r.step_names.pop()),
    "names in another order": ("step-list", lambda r: r.step_names.reverse()),
    "a hash that is missing": ("step-hashes", lambda r: r.steps.pop("q")),
    "another status in the hash": ("step-hash", lambda r: r.steps["a"].update(status="running")),
    "another attempt in the hash": ("step-hash", lambda r: r.steps["a"].update(attemptCount="2")),
    "another result in the hash": ("step-hash", lambda r: r.steps["a"].update(result="[2]")),
    "an error left in the hash": ("step-hash", lambda r: r.steps["a"].update(error="{}")),
    "another function in the hash": ("step-hash", lambda r: r.steps["a"].update(rpcName="g")),
    "other data in the hash": ("step-hash", lambda r: r.steps["a"].update(data="1")),
    "another id in the hash": ("step-hash", lambda r: r.steps["a"].update(stepId="r:a:y")),
    "another time in the hash": ("step-hash", lambda r: r.steps["a"].update(updatedAt="1")),
    "another status of the run": ("run-hash", lambda r: r.run.update(status="running")),
    "another output of the run": ("run-hash", lambda r: r.run.update(output="1")),
    "an error of a completed run": ("run-hash", lambda r: r.run.update(error="{}")),
    "another workflow": ("run-hash", lambda r: r.run.update(workflow="v")),
    "a turn that saw the future": ("seen", entry_changed(5, seen=9)),
    "a turn that saw less than one before": ("seen", entry_changed(9, seen=1)),
    "an end that had not seen all": ("unseen", entry_changed(15, seen=14)),
    "a timer that was early": ("timer-early", entry_changed(3, due=9_999)),
    "a sleep that was too short": ("timer-early", entry_changed(10, due=9_999)),
    "a sleep of another length": ("duration", entry_changed(10, due=1_012)),
    "a timer that nobody armed": ("timer", lambda r: r.entries[3].pop("due")),
    "a timer that fired twice": (
        "timer-twice",
        entry_added(5, {"t": "timer", "name": "a", "attempt": 2}),
    ),
    "a command applied twice": (
        "command-twice",
        entry_added(9, {"t": "signal", "name": "s", "data": 1, "command": "c1"}),
    ),
    "in no status index": ("indexes", lambda r: r.indexes.pop("status:completed")),
    "in two status indexes": ("indexes", lambda r: r.indexes.update({"status:running": 1_002.0})),
    "another score": ("indexes", lambda r: r.indexes.update({"": 1.0})),
    "an event that was not told": ("events", lambda r: r.events.pop()),
    "an event told twice": ("events", lambda r: r.events.append(("completed", 16))),
    "an owner left behind": ("left-behind", lambda r: r.ctl.update(owner="o")),
    "a token left behind": ("left-behind", lambda r: r.ctl.update(token="1-1")),
    "a lock left behind": ("left-behind", lambda r: setattr(r, "lock", "somebody")),
}


def test_a_good_run_breaks_no_promise():
    """Nothing is found where there is nothing."""
    assert violations(good()) == []


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_named(name):
    """Each kind of mistake is found under its own name, whatever else it entails."""
    word, plant = PLANTED[name]
    record = good()
    untouched = copy.deepcopy(record)
    plant(record)
    assert record != untouched
    assert word in {sentence.partition(":")[0] for sentence in violations(record)}


def test_a_run_under_way_may_have_open_ends_and_an_owner():
    """What is wrong at the end is right before, as long as the token exists."""
    record = good()
    del record.entries[13:]
    record.steps["q"] = {**record.steps["q"], "status": "scheduled", "updatedAt": "1014"}
    del record.steps["q"]["result"]
    record.run |= {"status": "running"}
    del record.run["output"]
    record.indexes = dict.fromkeys(["", "status:running", "workflow:w"], 1_002.0)
    record.events = [("running", 1)]
    record.ctl |= {"owner": "o", "token": "5-1", "start": "1-1"}
    record.queued = frozenset({"5-1"})
    assert violations(record) == []

    record.queued = frozenset()
    assert [sentence.partition(":")[0] for sentence in violations(record)] == ["token"]
    del record.ctl["token"]
    assert [sentence.partition(":")[0] for sentence in violations(record)] == ["token"]


def test_whoever_drove_a_run_need_not_have_noticed_its_end_yet():
    """An end by somebody else is judged without what only the owner can clear away."""
    record = good()
    record.ctl |= {"owner": "o", "token": "5-1"}
    assert violations(record) != []
    assert violations(record, settled=False) == []


async def test_it_reads_what_the_library_writes(redis, redis_url, prefix):
    """A run written by the service is read whole and found to be right."""
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as service:
        await service.create_run("w", {"n": 1}, run_id="r")
        state = await service.insert_step_state("r", "a b:c", "f", {"n": 2}, {"retries": 1})
        await service.set_step_running(state.step_id)
        await service.set_step_result(state.step_id, [3])
        await service.update_run_status("r", "completed", "out")
    record = await check_run(redis, prefix, "r")
    assert record.step_names == ["a b:c"]
    assert record.path("a b:c") == ["pending 1", "running 1", "succeeded 1"]
    assert record.status == "completed"
    assert [found.run_id for found in await check_all(redis, prefix)] == ["r"]

    await redis.hset(f"{prefix}:step:r:a b:c", "attemptCount", 7)
    with pytest.raises(AssertionError, match="attemptCount"):
        await check_run(redis, prefix, "r")
    with pytest.raises(AssertionError, match="attemptCount"):
        await check_all(redis, prefix)


async def test_it_sees_what_is_left(redis, prefix):
    """Each kind of leftover by itself."""
    assert await leftovers(redis, prefix) == []
    stream = f"{prefix}:commands:q"
    entry = await redis.xadd(stream, {"type": "x"})
    await redis.xgroup_create(stream, "g", "0")
    await redis.xreadgroup("g", "c", {stream: ">"})
    assert len(await leftovers(redis, prefix)) == 2
    await redis.xdel(stream, entry)
    assert "pending" in (await leftovers(redis, prefix))[0]
    await redis.xack(stream, "g", entry)
    await redis.zadd(f"{prefix}:timers", {"t": 1})
    assert "timers" in (await leftovers(redis, prefix))[0]
    await redis.delete(f"{prefix}:timers")
    await redis.xadd(f"{prefix}:dead", {"reason": "poison"})
    assert "poison" in (await leftovers(redis, prefix))[0]
    assert await leftovers(redis, prefix, dead=1) == []
    await redis.hset(f"{prefix}:ctl:r", "owner", "o")
    await redis.set(f"{prefix}:lock:r", "o", px=60_000)
    assert len(await leftovers(redis, prefix, dead=1)) == 2


async def test_a_run_that_is_not_there_has_no_history(redis, prefix):
    """Nothing is made up."""
    record = await read_record(redis, prefix, "nobody")
    assert violations(record) == ["history: there is none"]
