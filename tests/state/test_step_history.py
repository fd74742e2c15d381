"""The sorted sets that Node reads beside each step (compat mode): what each script leaves there."""

import json

import pytest
from tests.apps.parts import app
from tests.helpers.daemon import deployment
from tests.state import command_scenarios, service_scenarios
from tests.state.scenarios import SCENARIOS
from tests.state.world import World

from askel import App, InvalidOptionError, PayloadError, RedisWorkflowService, Run
from askel.state import Keys, connect, decode_entries, load_scripts
from askeld.config import WorkerConfig

pytestmark = [
    pytest.mark.usefixtures("redis_server"),
    pytest.mark.allow_keys(r".*:step-history:.+"),
]

assert command_scenarios  # imported for what they register
assert service_scenarios
__all__ = ["deployment"]

STAMPS = ("createdAt", "scheduledAt", "runningAt", "succeededAt", "failedAt")


@pytest.fixture
async def world(redis, redis_url, keys):
    connection = connect(redis_url)
    world = World(redis, connection, keys)
    world.scripts._scripts = load_scripts("pikku")
    yield world
    await connection.close()


@pytest.fixture
async def service(redis_url, prefix):
    service = RedisWorkflowService(redis_url, key_prefix=prefix, compat="pikku")
    yield service
    await service.close()


async def members_of(redis, keys: Keys, run_id: str, name: str) -> list[dict]:
    """The members of a step's history; each has a score of its own, its attempt's number."""
    step_id = await redis.hget(keys.step(run_id, name), "stepId")
    pairs = await redis.zrange(keys.step_history(step_id.decode()), 0, -1, withscores=True)
    members = [json.loads(member) for member, _ in pairs]
    assert [member["attemptCount"] for member in members] == [score for _, score in pairs]
    assert {(m["stepId"], m["stepName"]) for m in members} <= {(step_id.decode(), name)}
    assert len({score for _, score in pairs}) == len(pairs)
    return members


async def check(redis, keys: Keys, run_id: str) -> dict[str, list[tuple]]:
    """Compare what Node reads with the list; return (attempt, status) of each step."""
    entries = decode_entries(await redis.lrange(keys.history(run_id), 0, -1))
    told: dict[str, dict[int, tuple]] = {}
    for entry in entries:
        if entry.kind == "step" and entry.status:
            status = "failed" if entry.status == "lost" else entry.status
            outcome = bytes(entry.result or entry.error).decode() or None
            told.setdefault(entry.name, {})[entry.attempt] = (status, outcome)
    seen = {}
    for name, attempts in told.items():
        members = await members_of(redis, keys, run_id, name)
        kept = {
            m["attemptCount"]: (m["status"], m.get("result") or m.get("error")) for m in members
        }
        assert kept == attempts, name
        times = [member[stamp] for member in members for stamp in STAMPS if stamp in member]
        assert times == sorted(times), "Node takes the later for the newer"
        seen[name] = [(number, status) for number, (status, _) in sorted(attempts.items())]
    return seen


@pytest.mark.parametrize("case", SCENARIOS, ids="-".join)
async def test_every_script_keeps_it_like_the_list(world, redis, keys, case):
    call = await SCENARIOS[case](world)
    await call()

    for run_id in ("r", "other"):
        await check(redis, keys, run_id)


async def test_transaction_keeps_every_move(service, redis, keys):
    run_id = await service.create_run("w")
    async with service.transaction(run_id) as change:
        step = await change.insert_step_state("a", "f", 1, {"retries": 1})
        await change.set_step_running(step.step_id)
        await change.set_step_error(step.step_id, ValueError("no"))
        await change.create_retry_attempt(step.step_id, "running")
        await change.set_step_result(step.step_id, {"n": []})

    assert await check(redis, keys, run_id) == {"a": [(1, "failed"), (2, "succeeded")]}
    first, second = await members_of(redis, keys, run_id, "a")
    assert (first["retries"], second["result"]) == (1, '{"n":[]}')
    assert second["createdAt"] > first["failedAt"]


async def test_daemons_and_inline_workflows_keep_it(deployment, service, redis, keys):
    queues = ("", "warehouse")
    async with deployment.worker(app, compat="pikku", queues=queues):
        await deployment.send("run.start", workflow="journey", run_id="j", input=[])
        await deployment.send("run.start", workflow="gives_up", run_id="g", input=1)
        await deployment.until("j", "completed")
        await deployment.until("g", "completed")
        await deployment.quiet()
    inline = await app.start(service, "rests", "10ms")

    journey = await check(redis, keys, "j")
    assert journey["tried"] == [(1, "failed"), (2, "succeeded")]
    assert journey["packed"] == [(1, "failed"), (2, "succeeded")]
    assert journey["rest"] == [(1, "succeeded")]
    assert (await check(redis, keys, "g"))["it"] == [(1, "failed"), (2, "failed")]
    assert set(await check(redis, keys, inline)) == {"before", "rest", "after"}


async def test_results_that_node_would_change_are_refused(deployment, service, redis, keys):
    with pytest.raises(PayloadError):
        await app.start(service, "one_step", 2**53 + 1)
    big = App("big")

    @big.step(retries=5, name="grow")
    async def grow(data: int) -> int:
        return data * 2

    @big.workflow
    async def grows(run: Run, data: int) -> int:
        return await run.do("grow", grow, data)

    async with deployment.worker(big, compat="pikku"):
        await deployment.send("run.start", workflow="grows", run_id="b", input=2**53)
        await deployment.until("b", "failed")
    assert await check(redis, keys, "b") == {"grow": [(1, "failed")]}
    async with deployment.worker(big):
        await deployment.send("run.start", workflow="grows", run_id="c", input=2**53)
        await deployment.until("c", "completed")


async def test_without_compat_nothing_is_kept(redis_url, prefix, redis):
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as service:
        run_id = await service.create_run("w")
        step = await service.insert_step_state(run_id, "a", "f")
        await service.set_step_result(step.step_id, 1)

    assert not await redis.keys("*step-history*")


async def test_compat_turned_on_later_keeps_what_comes(redis_url, prefix, service, redis, keys):
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as plain:
        run_id = await plain.create_run("w")
        step = await plain.insert_step_state(run_id, "a", "f", 1, {"retries": 2})
    await service.set_step_running(step.step_id)

    (member,) = await members_of(redis, keys, run_id, "a")
    assert member["createdAt"] == int(step.created_at.timestamp() * 1000)
    assert (member["status"], member["retries"]) == ("running", 2)


async def test_member_of_node_keeps_what_it_has(service, redis, keys):
    run_id = await service.create_run("w")
    step = await service.insert_step_state(run_id, "a", "f")
    key = keys.step_history(step.step_id)
    await redis.delete(key)
    theirs = {"stepId": step.step_id, "stepName": "a", "attemptCount": 1, "status": "pending"}
    theirs |= {"createdAt": "2026-01-02T03:04:05.006Z", "more": {"x": [1]}}
    await redis.zadd(key, {json.dumps(theirs): 1, '{"attemptCount":1,"twice":1}': 1})
    await service.set_step_running(step.step_id)

    (member,) = await members_of_any(redis, key)
    assert member["status"] == "running"
    assert member.get("createdAt") == theirs["createdAt"] or "twice" in member


async def members_of_any(redis, key):
    return [json.loads(member) for member in await redis.zrange(key, 0, -1)]


@pytest.mark.parametrize("damaged", ["{half", "[]", "7", ""])
async def test_damaged_member_is_made_anew(service, redis, keys, damaged):
    run_id = await service.create_run("w")
    step = await service.insert_step_state(run_id, "a", "f")
    key = keys.step_history(step.step_id)
    await redis.delete(key)
    await redis.zadd(key, {damaged: 1})
    await service.set_step_running(step.step_id)

    assert await check(redis, keys, run_id) == {"a": [(1, "running")]}


async def test_step_whose_id_is_not_of_this_layout_is_left_alone(service, redis, keys):
    run_id = await service.create_run("w")
    step = await service.insert_step_state(run_id, "a", "f")
    await redis.delete(keys.step_history(step.step_id))
    await redis.hset(keys.step(run_id, "a"), "stepId", f"{run_id}:b:1")
    before = await redis.keys("*")
    entry = await redis.zrange(keys.step_history(f"{run_id}:b:1"), 0, -1)

    assert (entry, len(before)) == ([], len(await redis.keys("*")))


@pytest.mark.parametrize("compat", ["", "node", "Pikku", True, 1])
def test_unknown_compat_is_refused(compat):
    with pytest.raises(InvalidOptionError, match="compat="):
        RedisWorkflowService("redis://127.0.0.1:1", compat=compat)
    with pytest.raises(InvalidOptionError, match="compat="):
        WorkerConfig(compat=compat)


def test_variants_differ_in_nothing_but_the_include():
    plain, shared = load_scripts(), load_scripts("pikku")
    assert plain.keys() == shared.keys()
    changed = {name for name in plain if plain[name].sha != shared[name].sha}
    writers = {
        "apply",
        "insert_step",
        "move_step",
        "finish_step",
        "turn",
        "begin",
        "complete",
        "record",
        "poison",
    }
    assert changed == writers | {"create_run", "start", "delete_run", "erase_orphan"}
    assert all(plain[name].args == shared[name].args for name in plain)
