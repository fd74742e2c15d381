"""The history as other programs may read it: the members of each entry, and no others.

`SHAPES` is the documentation: what an entry has for each transition, in words and as a check. An
entry that closes an attempt is complete by itself; the others carry what changed.
"""

import json

import pytest
from tests.helpers.state import recorded
from tests.state.world import World, begins, succeeded

from askel import App, Run, RunStatus, SerializedError, StepContext, StepFailedError
from askel.state import HistoryEntry, decode_entries, fold_attempts, status_body

pytestmark = pytest.mark.usefixtures("redis_server")

ALWAYS = {
    "at": "when it was recorded: milliseconds since the epoch, by the server's clock",
    "t": "what it is about: run, step, state, signal, timer or approval",
}
OF_A_STEP = {
    "name": "the step's name, as the code reached it: `pack`, `pack#1`",
    "status": "what the attempt has become",
}
ATTEMPT = {"attempt": "its number, without gaps; an entry that closes none may leave out the 1"}
COMPLETE = {
    "id": "the last part of the step id",
    "rpc": "the function; absent where there is none (a sleep, a step of the run itself)",
    "data": "its argument; absent where it is null",
    "retries": "attempts beyond the first; absent where the step has no budget",
    "retryDelay": "the pause before each retry, as text; absent where none is set",
    "from": "the step that was reached before; absent for the first",
    "branch": "the branch it took, where one was noted",
    "child": "the run it began, where one was noted",
}
BY_A_TURN = {"seen": "how long the history was that the deciding code had seen"}
TO_CODE = {**BY_A_TURN, "now": "the time that run.now gave to the code, where it asked"}
SHAPES = {
    # (t, status): what it has always, what it may have
    ("run", "running"): (
        {"workflow": "its name, in the first entry"},
        {
            "command": "the id of the command",
            "generation": "in the first entry: how many runs had the id, this one included",
            "previous": "in the first entry: where the one before is found",
        },
    ),
    ("step", "pending"): (
        OF_A_STEP,
        {**ATTEMPT, "rpc": COMPLETE["rpc"], "due": "when its timer is due", **BY_A_TURN},
    ),
    ("step", "scheduled"): (
        OF_A_STEP,
        {
            **ATTEMPT,
            "rpc": COMPLETE["rpc"],
            "due": "when a sleep is over",
            "waits": "true: for a signal",
            **BY_A_TURN,
        },
    ),
    ("step", "running"): (OF_A_STEP, {**ATTEMPT, "rpc": COMPLETE["rpc"], **BY_A_TURN}),
    ("step", "succeeded"): (
        {**OF_A_STEP, **ATTEMPT, "id": COMPLETE["id"], "result": "JSON, null included"},
        {**COMPLETE, **TO_CODE},
    ),
    ("step", "failed"): (
        {**OF_A_STEP, **ATTEMPT, "id": COMPLETE["id"], "error": "message, stack, code, name"},
        {**COMPLETE, "final": "true: no other attempt comes", **TO_CODE},
    ),
    ("step", "lost"): (
        {**OF_A_STEP, **ATTEMPT, "id": COMPLETE["id"], "error": "why: the process stopped"},
        {**COMPLETE, "final": "true: no other attempt comes", **BY_A_TURN},
    ),
    ("run", "completed"): ({}, {"output": "JSON, where one was given", **BY_A_TURN}),
    ("run", "failed"): ({}, {"error": "message, stack, code, name", **BY_A_TURN}),
    ("run", "stalled"): ({}, {"error": "what does not match", **BY_A_TURN}),
    ("run", "cancelled"): (
        {},
        {"reason": "people's words", "error": "if any", "command": "the command's id"},
    ),
    ("run", "suspended"): ({}, {"reason": "people's words", "command": "the command's id"}),
    ("signal", None): ({"name": "the signal's"}, {"data": "JSON", "command": "the command's id"}),
    ("step", None): (
        {"name": OF_A_STEP["name"]},
        {**ATTEMPT, "branch": COMPLETE["branch"], "child": COMPLETE["child"]},
    ),
    ("state", None): ({"name": "the variable's", "value": "JSON"}, {}),
    ("approval", None): ({"name": "its reason"}, {"by": "who decided", "data": "JSON"}),
    ("timer", None): ({"name": "the step's", "attempt": "which may begin now"}, {}),
}


def check_shape(entry, *, first):
    """Assert that an entry has what is documented for it, and nothing else."""
    kind = (entry["t"], entry.get("status") if entry["t"] in {"run", "step"} else None)
    always, perhaps = SHAPES[kind]
    required = {*ALWAYS, *always} | ({"status"} if entry["t"] == "run" else set())
    if kind == ("run", "running") and not first:
        required -= {"workflow"}
    assert required <= entry.keys(), f"{entry} lacks {required - entry.keys()}"
    allowed = required | perhaps.keys()
    assert entry.keys() <= allowed, f"{entry} has {entry.keys() - allowed}"
    assert isinstance(entry["at"], int)


def _attempt(entry):
    return entry.get("attempt", 1 if entry["t"] == "step" else None)


async def shapes_of(redis, keys, run_id="r"):
    """Return what happened, as (status, attempt or None), every entry checked."""
    entries = await recorded(redis, keys, run_id)
    for position, entry in enumerate(entries):
        check_shape(entry, first=position == 0)
    return [(entry.get("status", entry["t"]), _attempt(entry)) for entry in entries]


async def test_documented_members_are_those_that_the_library_reads():
    names = set(ALWAYS)
    for always, perhaps in SHAPES.values():
        names |= {*always, *perhaps}
    renamed = {
        "kind": "t",
        "rpc_name": "rpc",
        "retry_delay": "retryDelay",
        "from_step_name": "from",
        "suffix": "id",
        "child_run_id": "child",
        "decided_by": "by",
    }

    assert names == {renamed.get(name, name) for name in HistoryEntry.__struct_fields__}


# The state service.


async def test_transitions_of_the_state_service(service, redis, keys):
    await service.create_run("w", {"n": 1}, run_id="r")
    step = await service.insert_step_state(
        "r", "s", "f", {"n": 1}, {"retries": 1, "retry_delay": "5s"}, "before"
    )
    await service.set_step_scheduled(step.step_id)
    await service.set_step_running(step.step_id)
    await service.set_step_error(step.step_id, SerializedError("m", "stack", "E1", "ValueError"))
    await service.create_retry_attempt(step.step_id)
    await service.set_step_result(step.step_id, {"ok": None})
    await service.update_run_status("r", "suspended")
    await service.update_run_status("r", "running")
    await service.update_run_status("r", "completed", output=[1])

    assert await shapes_of(redis, keys) == [
        ("running", None),
        ("pending", 1),
        ("scheduled", 1),
        ("running", 1),
        ("failed", 1),
        ("pending", 2),
        ("succeeded", 2),
        ("suspended", None),
        ("running", None),
        ("completed", None),
    ]
    entries = await recorded(redis, keys, "r")
    suffix = step.step_id.rpartition(":")[2]
    whole = {
        "t": "step",
        "name": "s",
        "id": suffix,
        "rpc": "f",
        "data": {"n": 1},
        "retries": 1,
        "retryDelay": "5s",
        "from": "before",
    }
    for entry in entries:
        del entry["at"]
    assert entries[0] == {"t": "run", "status": "running", "workflow": "w"}
    assert entries[1] == {"t": "step", "name": "s", "status": "pending"}
    assert entries[2] == {"t": "step", "name": "s", "status": "scheduled"}
    assert entries[4] == {
        **whole,
        "status": "failed",
        "attempt": 1,
        "error": {"message": "m", "stack": "stack", "code": "E1", "name": "ValueError"},
    }
    assert entries[6] == {**whole, "status": "succeeded", "attempt": 2, "result": {"ok": None}}
    assert entries[9] == {"t": "run", "status": "completed", "output": [1]}


async def test_last_failure_within_a_budget_is_final(service, redis, keys):
    await service.create_run("w", run_id="r")
    step = await service.insert_step_state("r", "s", "f", None, {"retries": 0})
    await service.set_step_error(step.step_id, ValueError("no"))
    await service.update_run_status("r", "failed", error=ValueError("no"))

    assert await shapes_of(redis, keys) == [
        ("running", None),
        ("pending", 1),
        ("failed", 1),
        ("failed", None),
    ]
    assert (await recorded(redis, keys, "r"))[2]["final"] is True


@pytest.mark.parametrize("status", ["cancelled", "stalled"])
async def test_other_ends_of_a_run(service, redis, keys, status):
    await service.create_run("w", run_id="r")
    await service.update_run_status("r", status, error=ValueError("why"))

    assert await shapes_of(redis, keys) == [("running", None), (status, None)]


@pytest.mark.parametrize("step_name", ["a", "a:b", "größe: 5 €", 'quote " and \\', "😀", "\u2028"])
@pytest.mark.parametrize(
    "data", [None, [], {}, 'ü\u2028\x00"\\', 9007199254740993, 1e300, {"a": [[], {}]}]
)
async def test_closing_entry_alone_is_the_whole_attempt(service, redis, keys, step_name, data):
    await service.create_run("w", run_id="r")
    step = await service.insert_step_state(
        "r", step_name, "f", data, {"retries": 3, "retry_delay": "5s"}, "before"
    )
    await service.set_step_result(step.step_id, data)

    state = await service.get_step_state("r", step_name)
    closing = decode_entries([await redis.lindex(keys.history("r"), -1)])
    (attempt,) = fold_attempts("r", closing)
    same = (
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
        "updated_at",
    )
    assert {name: getattr(attempt, name) for name in same} == {
        name: getattr(state, name) for name in same
    }
    assert attempt.data == data
    assert type(attempt.data) is type(data)
    assert json.loads(await redis.lindex(keys.history("r"), -1))["name"] == step_name


# The engine, inline.

app = App("shapes")


@app.step(retries=1, retry_delay="1ms")
async def flaky(data: dict, ctx: StepContext) -> None:
    if ctx.attempt == 1:
        raise ConnectionError("once")


@app.step(retries=0)
async def fail() -> None:
    raise ValueError("no")


@app.workflow
async def eventful(run: Run) -> str:
    await run.do("flaky", flaky, {"n": 1})
    await run.sleep("nap", "1ms")
    try:
        await run.do("fail", fail)
    except StepFailedError:
        return "ended"
    return "not reached"


async def test_transitions_of_an_inline_run(service, redis, keys):
    await app.start(service, eventful, run_id="r")

    assert await shapes_of(redis, keys) == [
        ("running", None),
        ("running", 1),
        ("failed", 1),
        ("pending", 2),
        ("running", 2),
        ("succeeded", 2),
        ("scheduled", 1),
        ("succeeded", 1),
        ("running", 1),
        ("failed", 1),
        ("completed", None),
    ]
    entries = await recorded(redis, keys, "r")
    assert all("seen" in entry for entry in entries[1:])
    assert [entry.get("final") for entry in entries if entry["status"] == "failed"] == [None, True]
    assert [entry["at"] + 1 <= entry["due"] for entry in entries if "due" in entry] == [True, True]
    assert [entry.get("from") for entry in entries if entry["status"] == "succeeded"] == [
        None,
        "flaky",
    ]
    assert "rpc" not in entries[7]


# What daemons record.


async def test_transitions_that_daemons_record(service, redis, keys):
    world = World(redis, service.connection, keys)
    await world.run()
    first = await world.begun(retries=1)
    await world.begin(first, nonce="after a crash")
    retry = {"becomes": "failed", "json": b'{"message":"no"}', "attempt": 2}
    await world.complete(first, nonce="after a crash", final=True, **retry)
    signal = await world.entry("type", "run.signal")
    await world.recording.record(
        signal, "r", "signal", '"t":"signal","name":"paid","data":1,"command":"c1"'
    )
    cancel = await world.entry("type", "run.cancel")
    body = status_body("cancelled", reason="no stock", command_id="c2")
    await world.recording.settle(cancel, "r", RunStatus.CANCELLED, body)

    assert await shapes_of(redis, keys) == [
        ("running", None),
        ("running", 1),
        ("lost", 1),
        ("running", 2),
        ("failed", 2),
        ("signal", None),
        ("cancelled", None),
    ]
    entries = await recorded(redis, keys, "r")
    assert entries[2]["error"]["name"] == "AttemptLost"
    assert (entries[2]["rpc"], entries[2]["data"], entries[2]["retries"], entries[2]["id"]) == (
        "f",
        1,
        1,
        "x",
    )
    assert entries[5] | {"at": 0} == {
        "at": 0,
        "t": "signal",
        "name": "paid",
        "data": 1,
        "command": "c1",
    }
    assert (entries[6]["reason"], entries[6]["command"]) == ("no stock", "c2")


async def test_turns_of_daemons_say_what_they_had_seen(service, redis, keys):
    world = World(redis, service.connection, keys)
    token = await world.started()
    await world.turn(token, 0, 1, decisions=[begins()])
    await world.turn(
        token, 1, 2, results=[succeeded(seen=2)], end="completed", outcome="output", json=b"1"
    )

    assert await shapes_of(redis, keys) == [
        ("running", None),
        ("running", 1),
        ("succeeded", 1),
        ("completed", None),
    ]
    assert [entry.get("seen") for entry in await recorded(redis, keys, "r")] == [None, 1, 2, 2]
