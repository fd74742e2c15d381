"""Dead letters: looked at in pages, sent again once whoever asks, dropped for good."""

import asyncio
import time
from datetime import UTC, datetime

import pytest
from tests.apps.parts import app
from tests.helpers.daemon import deployment
from tests.helpers.state import proxy
from tests.helpers.waiting import wait_until

from askel import (
    ConflictError,
    DeadLetters,
    InvalidNameError,
    InvalidOptionError,
    NotFoundError,
    RedisWorkflowService,
)
from askel.state import load_scripts, run_id_of_entry
from askel.wire import DeadLetterNotFoundError, NotRedrivableError

pytestmark = pytest.mark.usefixtures("redis_server")

__all__ = ["deployment", "proxy"]


@pytest.fixture
async def letters(redis_url, prefix):
    async with DeadLetters(redis_url, prefix) as letters:
        yield letters


async def bury(deployment, count=1, **fields):
    """Have *count* commands dead-lettered one after another; return the ids of the letters."""
    before = await deployment.client.xlen(f"{deployment.prefix}:dead")
    async with deployment.worker(app, not_found_after_ms=0):
        for number in range(count):
            given = {"type": "run.signal", "run_id": f"r{number}", "name": "n", **fields}
            await deployment.send(**given)
            await deployment.dead_letters(before + number + 1)
        await deployment.quiet(dead=before + count)
    found = await deployment.client.xrange(f"{deployment.prefix}:dead")
    return [entry.decode() for entry, _ in found[before:]]


async def test_listed_newest_first_without_what_they_carry(deployment, letters):
    ids = await bury(deployment, 5, data={"iban": "secret"})

    page = await letters.list()

    assert [letter.id for letter in page.letters] == ids[::-1]
    assert page.cursor is None
    assert await letters.count() == 5
    first = page.letters[-1]
    assert (first.reason, first.type, first.run_id) == ("run_not_found", "run.signal", "r0")
    assert first.names == {"name": "n"}
    assert first.stream == deployment.stream()
    assert (first.deliveries, first.fields) == (1, None)
    assert abs(first.at - datetime.now(UTC)).total_seconds() < 600
    assert "secret" not in repr(page)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 9])
async def test_pages_hold_every_letter_once(deployment, letters, limit):
    ids = await bury(deployment, 5)

    seen, cursor = [], None
    while True:
        page = await letters.list(limit=limit, cursor=cursor)
        assert len(page.letters) <= limit
        seen += [letter.id for letter in page.letters]
        cursor = page.cursor
        if cursor is None:
            break

    assert seen == ids[::-1]
    assert [letter.id async for letter in letters.all()] == seen


async def test_only_those_that_are_wanted(deployment, letters):
    ids = await bury(deployment, 3)
    (broken,) = await bury(deployment, data=b"{")

    async def wanted(**given):
        return [letter.id async for letter in letters.all(**given)]

    assert await wanted(reason="invalid_payload") == [broken]
    assert await wanted(run_id="r1") == [ids[1]]
    assert await wanted(reason="run_not_found", run_id="r0") == [ids[0]]
    assert await wanted(reason="poison") == []
    assert await wanted(older_than="1h") == []
    assert await wanted(older_than=0) == [broken, *ids[::-1]]


async def test_one_has_all_that_was_sent(deployment, letters):
    (letter_id,) = await bury(deployment, data=[1], id="s-1", reason="own", deliveries="0")

    letter = await letters.get(letter_id)

    assert letter.reason == "run_not_found"
    assert letter.fields == {
        "type": "run.signal",
        "run_id": "r0",
        "name": "n",
        "data": "[1]",
        "id": "s-1",
        "command.reason": "own",
        "command.deliveries": "0",
    }


async def test_redriven_once_its_command_is_applied(deployment, letters, redis):
    """The run is there by now; the same fields, the same id, and the letter is gone."""
    (letter_id,) = await bury(deployment, data=[1], id="s-1", reason="own")
    await deployment.send("run.create", workflow="w", run_id="r0")

    assert await letters.redrive(letter_id) is True

    assert await letters.count() == 0
    *_, (_, fields) = await redis.xrange(deployment.stream())
    sent = {key.decode(): value.decode() for key, value in fields.items()}
    assert sent == {
        "type": "run.signal",
        "run_id": "r0",
        "name": "n",
        "data": "[1]",
        "id": "s-1",
        "reason": "own",
    }
    with pytest.raises(DeadLetterNotFoundError, match=letter_id):
        await letters.redrive(letter_id)
    async with deployment.worker(app):
        await deployment.until("r0", "running")
        await deployment.quiet()
        record = await deployment.record("r0")
    assert [entry["t"] for entry in record.entries] == ["run", "signal"]


async def test_of_many_who_redrive_one_does(deployment, letters, redis_url, prefix):
    await deployment.client.xgroup_create(deployment.stream(), "askeld", "0", mkstream=True)
    ids = await bury(deployment, 3)
    found = (await letters.list()).letters
    others = [DeadLetters(redis_url, prefix) for _ in range(4)]

    done = await asyncio.gather(*(who.redrive(it) for who in others for it in found))

    assert sum(done) == 3
    assert await deployment.client.xlen(deployment.stream()) == 3
    assert len(set(ids)) == 3
    for who in others:
        await who.close()


@pytest.mark.parametrize("lost", ["request", "reply"])
async def test_lost_on_the_way_it_is_redriven_once_all_the_same(deployment, proxy, prefix, lost):
    (letter_id,) = await bury(deployment)
    sha = load_scripts()["redrive"].sha.encode()
    rule = (proxy.lose_next_reply if lost == "reply" else proxy.lose_next_request)(sha)
    async with DeadLetters(proxy.url, prefix) as letters:
        assert await letters.redrive(letter_id) is True
        assert await letters.count() == 0
    assert rule.hits == 1
    assert await deployment.client.xlen(deployment.stream()) == 1


async def test_redriven_start_makes_the_run_that_it_would_have_made(deployment, letters):
    """It named no run: the run's id was that of its entry, and stays so. Its time counts anew."""
    entry = await deployment.send("run.start", workflow="nobody_has_it", input=1)
    async with deployment.worker(app, unknown_after_ms=1):
        (letter,) = await deployment.dead_letters()
        await deployment.quiet(dead=1)
    assert letter["reason"] == "unknown_workflow"
    known = type(app)("later")

    @known.workflow
    async def nobody_has_it(run, data):
        return data

    (found,) = (await letters.list()).letters
    assert await letters.redrive(found)
    async with deployment.worker(known, unknown_after_ms=1):
        (run_id,) = await wait_until(deployment.runs)
        await deployment.until(run_id, "completed")
        await deployment.quiet()
    assert run_id == found.run_id
    assert run_id in {letter["run_id"], run_id_of_entry(deployment.stream(), entry)}


async def test_poison_that_is_redriven_is_delivered_as_often_as_anything_new(deployment, letters):
    """Its worker died of something else, say: it is applied, and its letter is gone."""
    await deployment.send("run.create", workflow="w", run_id="d")
    async with deployment.worker(app):
        await deployment.until("d", "running")
    await deployment.send("run.signal", run_id="d", name="n")
    await deployment.client.xreadgroup("askeld", "dead", {deployment.stream(): ">"})
    async with deployment.worker(app, max_deliveries=1):
        (letter,) = await deployment.dead_letters()
        await deployment.quiet(dead=1)
    assert letter["reason"] == "poison"
    (found,) = (await letters.list()).letters
    async with deployment.worker(app, max_deliveries=1):
        assert await letters.redrive(found.id)
        await deployment.quiet()
        record = await deployment.record("d")
    assert [entry["t"] for entry in record.entries] == ["run", "signal"]


@pytest.mark.parametrize("how", ["replaced", "deleted"])
async def test_what_was_meant_for_a_run_that_had_the_id_before_is_not_redriven(
    deployment, letters, redis_url, prefix, how
):
    """Neither to its next generation nor to one that was made after it was deleted."""
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as service:
        await service.create_run("w", 1, run_id="r")
        await service.update_run_status("r", "completed")
        (letter_id,) = await bury(deployment, run_id="r", type="run.cancel")
        if how == "deleted":
            await service.delete_run("r")
        await service.create_run("w", 2, run_id="r", if_exists="after-terminal")

        with pytest.raises(NotRedrivableError, match="run 'r' was made anew after it was sent"):
            await letters.redrive(letter_id)

        assert await letters.count() == 1
        (late_id,) = await bury(deployment, run_id="r", type="run.complete", output=b"{")
        assert await letters.redrive(late_id)


OWN = {"reason": "x", "detail": "", "stream": "{stream}", "entry": "5-1", "deliveries": "1"}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"reason": "body_lost"}, "does not hold its command"),
        ({"type": "run.advance", "run_id": "r"}, "drove a run that has failed"),
        ({"fields": "[]"}, "has no type, or more fields"),
        ({"stream": "other:commands", "type": "run.start"}, "names no stream of commands"),
        ({"entry": "gone", "type": "run.start"}, "which entry"),
    ],
)
async def test_what_nothing_would_come_of_stays(deployment, letters, redis, changed, why):
    words = {**OWN, "stream": deployment.stream(), "at": "1", **changed}
    letter_id = (await redis.xadd(f"{deployment.prefix}:dead", words)).decode()

    with pytest.raises(NotRedrivableError, match=why) as caught:
        await letters.redrive(letter_id)

    assert isinstance(caught.value, ConflictError)
    assert await letters.count() == 1
    assert await redis.xlen(deployment.stream()) == 0


async def test_dropped_it_is_gone(deployment, letters):
    (letter_id,) = await bury(deployment)

    assert await letters.drop(letter_id) is True
    assert await letters.drop(letter_id) is False

    assert await letters.count() == 0
    with pytest.raises(NotFoundError):
        await letters.get(letter_id)


async def test_letter_of_somebody_elses_making_is_shown_as_it_is(deployment, letters, redis):
    """Bytes that are no text, fields that are missing: the page is shown all the same."""
    await redis.xadd(f"{deployment.prefix}:dead", {b"\xff": b"\xfe", b"reason": b"\xfe"})

    (letter,) = (await letters.list()).letters

    assert (letter.reason, letter.at, letter.deliveries) == ("\\xfe", None, 0)
    whole = await letters.get(letter.id)
    assert whole.reason == "\\xfe"
    with pytest.raises(NotRedrivableError):
        await letters.redrive(letter.id)


@pytest.mark.parametrize(
    "given", [{"limit": 0}, {"limit": 1_001}, {"cursor": "x"}, {"cursor": "-"}]
)
async def test_what_makes_no_sense_is_refused(letters, given):
    with pytest.raises(InvalidOptionError):
        await letters.list(**given)
    with pytest.raises(InvalidOptionError, match="no id of a dead letter"):
        await letters.get("*")
    with pytest.raises(InvalidNameError):
        await letters.list(run_id="a:b")


async def test_cost_of_a_page_is_bounded_whatever_they_carry(deployment, letters, redis):
    """A thousand letters with a payload of 50 kB each: what is listed is small."""
    words = {**OWN, "stream": deployment.stream(), "at": "1", "type": "x", "data": "y" * 50_000}
    for _ in range(4):
        pipeline = redis.pipeline(transaction=False)
        for _ in range(250):
            pipeline.xadd(f"{deployment.prefix}:dead", words)
        await pipeline.execute()

    before = time.process_time()
    page = await letters.list(limit=1_000)

    assert len(page.letters) == 1_000
    assert time.process_time() - before < 5
    assert all(letter.fields is None for letter in page.letters)
