"""The entry that drives a run, told from others: each stream gives out its ids by itself."""

import pytest
from tests.state.world import World

from askel.state import (
    GROUP,
    NOBODY,
    Activated,
    Entry,
    Refusal,
    Sweeping,
    TokenSweep,
    Watching,
    connect,
    renew_call,
    renewed,
)

pytestmark = pytest.mark.usefixtures("redis_server")


@pytest.fixture
async def w(redis, redis_url, keys):
    """Runs in every state."""
    connection = connect(redis_url)
    yield World(redis, connection, keys)
    await connection.close()


async def started_on_a_queue(w):
    """Start a run by an entry of a queue; return its token."""
    token = await w.entry("type", "run.start", "workflow", "w", "run_id", "r", queue="warehouse")
    assert isinstance(await w.start(token), Activated)
    return token


async def twin_of(w, token, *words, queue=""):
    """Deliver an entry of another stream that has the token's id."""
    stream = w.keys.commands(queue)
    await w.redis.xgroup_create(stream, GROUP, "0", mkstream=True)
    await w.redis.execute_command("XADD", stream, token.id, *words)
    twin = await w.deliver(queue=queue)
    assert twin.id == token.id
    return twin


async def token_of(w, run_id="r"):
    return (await w.redis.hget(w.keys.ctl(run_id), "token")).decode()


async def looks(w, times=2):
    """Look for tokens that are gone."""
    sweep = w.caller(TokenSweep)
    return [run for _ in range(times) for run in (await sweep.run_once(silent_ms=0))[0]]


async def test_a_token_on_a_queue_is_there_for_who_does_not_serve_the_queue(w):
    token = await started_on_a_queue(w)
    assert await looks(w, 3) == []
    assert await token_of(w) == token.id


async def test_a_token_that_went_back_to_the_default_stream_is_found_there(w):
    token = await started_on_a_queue(w)
    assert await w.activations.requeue(token, "own", "r")
    again = await token_of(w)
    assert await looks(w, 3) == []
    assert await token_of(w) == again


async def test_an_entry_of_another_stream_is_not_taken_for_the_token(w):
    """Neither does it hide that the token is gone, nor is it deleted in the token's place."""
    token = await started_on_a_queue(w)
    words = ("type", "run.cancel", "run_id", "r")
    twin = await twin_of(w, token, *words)
    await w.redis.xack(token.stream, GROUP, token.id)
    await w.redis.xdel(token.stream, token.id)

    assert await looks(w) == ["r"]

    assert await token_of(w) != token.id
    assert len(await w.redis.xpending_range(twin.stream, GROUP, twin.id, twin.id, 1)) == 1
    assert len(await w.redis.xrange(twin.stream, twin.id, twin.id)) == 1


async def test_only_the_token_that_lies_in_vain_is_deleted(w):
    """Its consumer was removed; the twin was so, too, and is for `take_up`."""
    token = await started_on_a_queue(w)
    twin = await twin_of(w, token, "type", "run.cancel", "run_id", "r")
    for stream in (token.stream, twin.stream):
        await w.redis.xgroup_delconsumer(stream, GROUP, "me")

    assert await looks(w) == ["r"]

    assert await w.redis.xrange(token.stream, token.id, token.id) == []
    assert len(await w.redis.xrange(twin.stream, twin.id, twin.id)) == 1


async def test_a_token_that_was_gone_and_came_back_is_noted_anew_when_it_goes(w):
    """An owner that lives has time to say so, each time."""
    token = await w.started()
    await w.redis.xgroup_delconsumer(token.stream, GROUP, "me")
    assert await looks(w, 1) == []
    await w.redis.xclaim(token.stream, GROUP, "me", 0, [token.id], force=True, justid=True)
    assert await looks(w, 1) == []
    await w.redis.xgroup_delconsumer(token.stream, GROUP, "me")
    assert await looks(w, 1) == []
    assert await looks(w, 1) == ["r"]


def renewal(w, token, nonce="own", consumer="me"):
    """Renew the token as the owner of the run does."""
    key = w.keys.ctl("r")
    call = renew_call(w.keys, consumer, token, "r", field="owner", holder_key=key, nonce=nonce)

    async def renew():
        return renewed(await w.scripts.run(*call))

    return renew


async def holder_of(w, entry: Entry):
    """Return the consumer for which *entry* is pending, and how often it was delivered."""
    found = await w.redis.xpending_range(entry.stream, GROUP, entry.id, entry.id, 1)
    return [(one["consumer"].decode(), one["times_delivered"]) for one in found]


@pytest.mark.parametrize("seen", [False, True])
async def test_an_owner_that_lives_takes_back_what_is_pending_for_nobody(w, seen):
    """Before it was taken up and after; no sweep claims it before."""
    token = await w.started()
    await w.redis.xgroup_delconsumer(token.stream, GROUP, "me")
    if seen:
        taken = await w.caller(Watching, "other").take_up(token.stream, every_ms=60_000)
        assert taken == [token.id]
        options = {"idle_ms": 60_000, "room": 10, "every_ms": 0}
        swept = await w.caller(Sweeping, "other").sweep(token.stream, **options)
        assert swept.claimed == ()

    assert await renewal(w, token)() is not None

    assert await holder_of(w, token) == [("me", 1)]
    assert await renewal(w, token)() is not None


async def test_what_nobody_takes_back_is_swept(w):
    token = await w.started()
    await w.redis.xgroup_delconsumer(token.stream, GROUP, "me")
    await w.caller(Watching, "other").take_up(token.stream, every_ms=60_000)
    options = {"idle_ms": 0, "room": 10, "every_ms": 0}
    swept = await w.caller(Sweeping, "other").sweep(token.stream, **options)
    assert [(entry.id, times) for entry, times in swept.claimed] == [(token.id, 1)]
    assert await renewal(w, token)() is None
    assert await holder_of(w, token) == [("other", 1)]


@pytest.mark.parametrize("nonce", ["robbed", "own"])
async def test_renewal_takes_nothing_from_another_nor_for_who_was_robbed(w, nonce):
    """B6: an entry that is pending for another is never claimed, whoever asks."""
    token = await w.started()
    if nonce == "own":
        await w.redis.xclaim(token.stream, GROUP, "other", 0, [token.id], justid=True)
    else:
        await w.redis.xgroup_delconsumer(token.stream, GROUP, "me")
        await w.caller(Watching, "other").take_up(token.stream, every_ms=60_000)
    before = await holder_of(w, token)

    assert await renewal(w, token, nonce)() is None

    assert await holder_of(w, token) == before
    assert before[0][0] == ("other" if nonce == "own" else NOBODY)


async def test_renewal_does_not_claim_what_is_still_to_be_read(w):
    """The group was made anew: whoever reads next is given the entry, so the owner only tells."""
    token = await w.started()
    await w.redis.xgroup_destroy(token.stream, GROUP)
    await w.redis.xgroup_create(token.stream, GROUP, "0")
    assert await renewal(w, token)() is not None
    assert await holder_of(w, token) == []
    assert await w.redis.hexists(w.keys.ctl("r"), "alive")


async def test_nobody_is_no_worker(w):
    """To `askel why`, which tells who serves a stream."""
    token = await w.started()
    await w.redis.xgroup_delconsumer(token.stream, GROUP, "me")
    await w.caller(Watching).take_up(token.stream, every_ms=60_000)
    facts = await w.caller(Watching).facts("r")
    assert NOBODY not in facts.streams[""].idle_ms
    assert facts.streams[""].pending == 1


async def is_whole(w, entry):
    """Tell whether *entry* is on its stream and pending."""
    found = await w.redis.xrange(entry.stream, entry.id, entry.id)
    return len(found) == 1 and len(await holder_of(w, entry)) == 1


@pytest.mark.parametrize("was_requeued", [False, True])
async def test_a_run_that_is_deleted_takes_its_token_along_and_nothing_else(w, was_requeued):
    """The token is where the run was started, or on the default stream once it was handed back."""
    token = await started_on_a_queue(w)
    queue = ""
    if was_requeued:
        await w.redis.xgroup_create(w.keys.commands(), GROUP, "0", mkstream=True)
        await w.activations.requeue(token, "own", "r")
        token, queue = await w.deliver(), "warehouse"
        assert token.id == await token_of(w)
        await w.redis.delete(w.keys.commands(queue))
    twin = await twin_of(w, token, "type", "run.cancel", "run_id", "other", queue=queue)

    assert await w.service.delete_run("r", force=True)

    assert await w.acked(token)
    assert await is_whole(w, twin)


async def test_a_token_of_the_default_stream_goes_with_its_run(w):
    token = await w.started()
    assert await w.service.delete_run("r", force=True)
    assert await w.acked(token)


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(("workflow", "word"), [("w", "EXISTS"), ("another", "CONFLICT")])
async def test_a_start_on_another_stream_with_the_id_of_the_token_is_another(
    w, ended, workflow, word
):
    """It neither robs the owner nor goes without a word: its sender is told of the run."""
    token = await started_on_a_queue(w)
    if ended:
        await w.turn(token, end="completed", json=b"1")
    twin = await twin_of(w, token, "type", "run.start", "workflow", workflow, "run_id", "r")

    answer = await w.start(twin, owner="robber", workflow=workflow)

    assert answer.word == word
    assert await is_whole(w, twin)
    if not ended:
        assert not isinstance(await w.start(token), Refusal)
        assert await w.redis.hget(w.keys.ctl("r"), "owner") == b"own"
