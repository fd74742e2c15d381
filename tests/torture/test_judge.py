"""The judge, on what real workers did: a clean run passes, and each kind of harm is named."""

import random
from contextlib import asynccontextmanager

import msgspec
import pytest
import redis.asyncio
from tests.helpers.daemon import Deployment
from tests.helpers.history_checker import TERMINAL, leftovers
from tests.helpers.waiting import wait_until
from tests.torture.plants import put
from tests.torture.transcripts import add, encoded, entry, history, legal

from askel import RedisWorkflowService
from askeld.torture.client_log import ClientLog
from askeld.torture.judge import judge
from askeld.torture.programs import app, outcome, random_program
from askeld.torture.server import TortureServer

PREFIX = "p"
RUNS = 12


@pytest.fixture
def log(tmp_path):
    with ClientLog(tmp_path / "client.jsonl") as log:
        yield log


@asynccontextmanager
async def deployed(folder, binary=None):
    with TortureServer(folder, fsync="everysec", binary=binary) as server:
        client = redis.asyncio.Redis.from_url(server.url, protocol=2, socket_timeout=20)
        deployment = Deployment(client, server.url, PREFIX)
        deployment.aof = server.aof
        yield deployment
        await client.aclose()


@pytest.fixture
async def deployment(tmp_path):
    async with deployed(tmp_path / "server") as deployment:
        yield deployment


@pytest.fixture
async def each_deployment(tmp_path, every_binary):
    async with deployed(tmp_path / "server", every_binary) as deployment:
        yield deployment


async def send(deployment, log, op, kind, run_id, expected=None, **fields):
    log.write(op, kind, run_id, "invoke", expected=expected)
    sent = await deployment.send(kind, run_id=run_id, id=op, **fields)
    log.write(op, kind, run_id, "ok", entry=sent)


async def all_sorts_of_runs(deployment, log):
    """Programs with steps here, in threads and queues, sleeps, signals, cancels, generations."""
    dice = random.Random(11)
    async with deployment.worker(app, queues=("", "warehouse")):
        for number in range(RUNS):
            program, name = random_program(dice, 4), f"r{number}"
            start = {"workflow": "program", "input": program, "if_exists": "return"}
            for _ in range(1 + number % 2):
                expected = outcome(program)
                await send(deployment, log, f"s{number}", "run.start", name, expected, **start)
            for _ in range(number % 3):
                await send(deployment, log, f"n{number}", "run.signal", name, name="news")
            if number % 5 == 1:
                await send(deployment, log, f"p{number}", "run.suspend", name)
                await deployment.until(name, ("suspended", *TERMINAL))
                await send(deployment, log, f"u{number}", "run.resume", name)
        await send(deployment, log, "c", "run.cancel", "r3")
        await send(deployment, log, "nowhere", "run.cancel", "unknown")
        for number in range(RUNS):
            await deployment.until(f"r{number}")
        again = {"workflow": "program", "input": [["sleep", 1]], "if_exists": "after-terminal"}
        await send(deployment, log, "again", "run.start", "r0", 0, **again)
        await deployment.until("r0", "completed")
        await deployment.dead_letters(1)

        async def quiet():
            letters = await deployment.client.xlen(f"{PREFIX}:dead")
            return not await leftovers(deployment.client, PREFIX, dead=letters)

        await wait_until(quiet)


async def test_a_clean_run_is_found_clean(each_deployment, log):
    deployment = each_deployment
    await all_sorts_of_runs(deployment, log)
    async with RedisWorkflowService(deployment.url, key_prefix=PREFIX) as service:
        run_id = await service.create_run("embedded", {"a": 1})
        async with service.run_lock(run_id):
            step = await service.insert_step_state(run_id, "one", "f", step_options={"retries": 1})
            await service.set_step_running(step.step_id)
            await service.set_step_error(step.step_id, ValueError("no"))
        step = await service.create_retry_attempt(step.step_id, "running")
        await service.set_step_result(step.step_id, [1])
        await service.update_run_status(run_id, "completed", output=[])

    verdict = await judge(deployment.aof, deployment.client, PREFIX, log, max_deliveries=5)

    assert verdict.violations == []
    assert verdict.ok
    assert (verdict.lost, verdict.duplicated, verdict.stuck, verdict.unfinished) == (0, 0, 0, 0)
    assert verdict.source == "the append-only file"
    assert verdict.runs == RUNS + 2  # one had two generations
    assert verdict.accepted == len(log.operations())
    assert verdict.dead_lettered >= 1
    assert verdict.repeated >= 3
    assert verdict.evaluated > 1_000
    assert verdict.attempts >= verdict.turns / 4 > 0
    assert msgspec.json.decode(msgspec.json.encode(verdict))["by_kind"] == {}


async def test_without_the_file_the_end_is_judged_and_that_is_said(deployment, log):
    await all_sorts_of_runs(deployment, log)

    verdict = await judge(None, deployment.client, PREFIX, log)

    assert verdict.violations == []
    assert verdict.source == "the final keys"
    assert "only the keys that are left" in verdict.notes[0]
    assert (verdict.lost, verdict.unfinished) == (0, 0)
    assert verdict.accepted == len(log.operations())


@pytest.mark.parametrize("has_file", [True, False])
async def test_a_command_without_a_trace_is_lost(deployment, log, has_file):
    await all_sorts_of_runs(deployment, log)
    for op, kind in (("x", "run.signal"), ("y", "run.start")):
        log.write(op, kind, "r5" if op == "x" else "gone", "ok", entry="1-1")
    log.write("z", "run.signal", "r5", "unknown")
    aof = deployment.aof if has_file else None

    verdict = await judge(aof, deployment.client, PREFIX, log)

    assert verdict.lost == 2
    assert verdict.by_kind == {"lost": 2}
    assert verdict.unknown == 1
    if has_file:  # a power cut with everysec may do that; it is counted all the same
        verdict = await judge(aof, deployment.client, PREFIX, log, may_lose=True)
        assert (verdict.lost, verdict.ok) == (2, True)


async def test_what_the_server_holds_is_compared_with_its_file(deployment, log):
    """A history that was cut behind the back of the file, as by a restore of an older state."""
    await all_sorts_of_runs(deployment, log)
    await deployment.client.config_set("appendonly", "no")
    await deployment.client.rpop(f"{PREFIX}:history:r4")

    verdict = await judge(deployment.aof, deployment.client, PREFIX, log)

    assert verdict.by_kind["not_kept"] == 1
    assert [v.run_id for v in verdict.violations if v.kind == "not_kept"] == ["r4"]


@pytest.mark.parametrize("has_file", [True, False])
async def test_another_outcome_than_was_foreseen_is_named(deployment, log, has_file):
    await all_sorts_of_runs(deployment, log)
    log.write("s7", "run.start", "r7", "invoke", expected=-1)
    log._file.flush()
    foreseen = dict.fromkeys(["s7"], -1)
    operations = log.operations()
    operations["s7"].expected = foreseen["s7"]
    log.operations = lambda: operations

    verdict = await judge(deployment.aof if has_file else None, deployment.client, PREFIX, log)

    assert {v.kind for v in verdict.violations} == {"wrong_outcome"}
    assert {v.run_id for v in verdict.violations} == {"r7"}


async def test_a_run_that_nothing_moves_is_stuck(tmp_path, log):
    story = legal()
    for name in list(story)[list(story).index("fired") :]:
        del story[name]
    story["rests"] = [command for command in story["rests"] if command[0] != "ZADD"]
    path = tmp_path / "appendonly.aof"
    path.write_bytes(encoded(*story.values()))

    verdict = await judge(path, None, PREFIX, log)

    assert (verdict.unfinished, verdict.stuck) == (1, 1)
    assert {"no_timer", "stuck"} == set(verdict.by_kind)


async def test_a_command_that_is_still_waiting_is_neither_applied_nor_lost(tmp_path, log):
    story = legal()
    put(story, "ended", "late", [add(600, type="run.signal", run_id="r", id="late", name="n")])
    path = tmp_path / "appendonly.aof"
    path.write_bytes(encoded(*story.values()))
    log.write("late", "run.signal", "r", "ok", entry="1-1")

    verdict = await judge(path, None, PREFIX, log)

    assert (verdict.unsettled, verdict.lost) == (1, 0)
    assert verdict.by_kind == {"unsettled": 1}


async def test_the_first_violating_run_is_told_whole(tmp_path, log):
    story = legal()
    put(story, "ended", "late", [history(entry("signal", 600, name="n", data=None))])
    path = tmp_path / "appendonly.aof"
    path.write_bytes(encoded(*story.values()))

    verdict = await judge(path, None, PREFIX, log)

    assert set(verdict.by_kind) == {"after_end", "not_acknowledged"}
    told = "\n".join(verdict.story)
    assert verdict.story[0] == "transition 2"
    assert "XADD commands 1700000000001-0 type run.start" in told
    assert verdict.story[-2:] == [
        f"transition {len(story)}",
        '    RPUSH history:r {"at":1700000000600,"t":"signal","name":"n","data":null}',
    ]
