"""Each answer of each script, on a real server.

A refusal writes nothing, a second copy changes nothing, and no key is touched that is not in KEYS.
"""

import uuid

import pytest
from tests.helpers.narrow import NarrowConnection
from tests.helpers.state import snapshot
from tests.state import (
    command_scenarios,
    keeping_scenarios,
    read_scenarios,
    service_scenarios,
)
from tests.state.scenarios import SCENARIOS
from tests.state.world import World

from askel import StoreReplyError
from askel.state import load_scripts

pytestmark = pytest.mark.usefixtures("redis_server")

# What a second copy of a call that was answered OK gets. None: it may do something again.
SECOND = {
    "start": "OK",
    "activate": "OK",
    "adopt": "OK",
    "turn": "OK",
    "record": "GONE",
    "settle": "GONE",
    "create_run": "EXISTS",
    "create_run anew": "OK",
    "create_run after the end": "OK",
    "put_back": "GONE",
    "bury": "GONE",
    "begin": "OK",
    "complete": "ALREADY",
    "requeue": "LOST",
    "apply": "ALREADY",
    "insert_step": "ALREADY",
    "move_step": "ALREADY",
    "finish_step": "ALREADY",
    "acquire_lock": "OK",
    "release_lock": "LOST",
    "renew_lock": "OK",
    "due": "OK",
    "fire": "OK",
    "drop": "OK",
    "read_run": "OK",
    "read_steps": "OK",
    "upsert_version": "ALREADY",
    "move_version": "ALREADY",
    "list_runs": "OK",
    "delete_run": "ALREADY",
    "erase_orphan": "OK",
    "confirmed": "OK",
    "set_retention": "ALREADY",
    "expired": "OK",
    "prune_timers": "OK",
    "measure_runs": "OK",
    "index_runs": "OK",
    "index_steps": "OK",
    "prune_index": "OK",
    "prune_workflows": "OK",
    "forget_consumer": "OK",
    "renew": None,
    "poison": "GONE",
    "stall": "GONE",
    "deliver": None,
    "sweep": None,
    "list_dead": "OK",
    "watch": "WAIT",
    "take_up": "WAIT",
    "revive": "MOVED",
    "rearm": "MOVED",
    "read_facts": "OK",
    "redrive": "GONE",
    "self_test": "OK",
    "remake_tokens": "OK",
}
# Refusals that acknowledge the entry, or settle something, as the header says.
SETTLES = {
    ("start", "GONE"),
    ("activate", "GONE"),
    ("begin", "GONE"),
    ("begin", "SPENT"),
    ("complete", "DUP"),
    ("complete", "GONE"),
    ("turn", "TERMINAL"),
    ("turn", "END"),
    ("record", "STALE"),
    ("record", "DUP"),
    ("stall", "GONE"),
    ("settle", "DUP"),
    ("settle", "ALREADY"),
}


assert command_scenarios  # all are imported for what they register
assert service_scenarios
assert read_scenarios
assert keeping_scenarios


@pytest.fixture
async def narrow(redis, redis_url):
    connection = NarrowConnection(redis, redis_url, f"narrow-{uuid.uuid4().hex}")
    await connection.open()
    yield connection
    await connection.close()


@pytest.fixture
def world(redis, narrow, keys):
    return World(redis, narrow, keys)


async def test_script_that_touches_a_key_it_was_not_given_is_refused(narrow, keys):
    body = "redis.call('HGET', KEYS[1], 'x') return { redis.call('HGET', ARGV[1], 'x') }"
    sha = (await narrow.send("SCRIPT", "LOAD", body)).decode()

    assert await narrow.send("EVALSHA", sha, 2, keys.run("r"), keys.ctl("r"), keys.ctl("r")) == [
        None
    ]
    with pytest.raises(StoreReplyError, match=r"(?i)ACL failure|can't access at least one"):
        await narrow.send("EVALSHA", sha, 1, keys.run("r"), keys.ctl("r"))


def test_every_answer_of_every_script_has_a_scenario():
    arranged = {(name.split()[0], word) for name, word in SCENARIOS}
    assert arranged == {(s.name, word) for s in load_scripts().values() for word in s.answers}


@pytest.mark.parametrize(("name", "word"), SCENARIOS)
async def test_answer(world, keys, name, word):
    script = name.split()[0]
    second = SECOND[name if name in SECOND else script]
    call = await SCENARIOS[name, word](world)
    before = await snapshot(world.redis, keys.prefix)

    await call()

    after = await snapshot(world.redis, keys.prefix)
    assert world.heard == word
    if word == "OK" and second is not None:
        await call()
        assert world.heard == second
        assert await snapshot(world.redis, keys.prefix) == after
    elif word != "OK" and (script, word) not in SETTLES:
        assert after == before
    else:
        assert word == "OK" or after != before
