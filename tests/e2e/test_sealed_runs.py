"""Encrypted payloads, end to end: no key of Redis holds a secret, and everything still works."""

import json

import pydantic
import pytest
from tests.helpers.cli import ASKEL, run_program

from askel import (
    AesGcm,
    App,
    Client,
    Codec,
    RedisWorkflowService,
    Run,
    RunFailedError,
    RunStatus,
    SealedPayloadError,
    StepContext,
    StepFailedError,
    Zstd,
)

SECRET = "4111-1111-1111-1111"
K1, K2 = bytes(range(32)), bytes(range(1, 33))


class Card(pydantic.BaseModel):
    number: str
    note: str = ""


def codec_of(current="k1", **keys):
    keys = keys or {"k1": K1, "k2": K2}
    return Codec([Zstd(min_size=256), AesGcm(keys, current)])


def shop(codec):
    """Return an app whose every payload holds the secret: inputs, data, results, errors."""
    app = App("shop", codec=codec)

    @app.step(retries=1, retry_delay="1ms")
    async def charge(card: Card, ctx: StepContext) -> Card:
        if ctx.attempt == 1:
            raise ConnectionError(f"cannot charge {card.number}")
        return card.model_copy(update={"note": f"charged {card.number}"})

    @app.step(retries=0)
    def refuse(card: Card) -> None:  # a plain function: it runs in a thread
        raise ValueError(f"no such card: {card.number}")

    @app.step(retries=1, retry_delay="1h")
    async def later(card: Card) -> None:
        raise ConnectionError(card.number)

    @app.workflow
    async def buy(run: Run, card: Card) -> dict[str, str]:
        charged = await run.do("charge", charge, card)
        await run.sleep("pause", "1ms")
        try:
            await run.do("refuse", refuse, charged)
        except StepFailedError as failed:
            return {"why": failed.error.message, "note": charged.note, "long": card.number * 100}
        raise AssertionError

    @app.workflow
    async def lose(run: Run, card: Card) -> None:
        raise RuntimeError(f"lost {card.number}")

    @app.workflow
    async def wait(run: Run, card: Card) -> None:
        await run.gather(
            run.do("nobody", "packCard", card, queue="nobody"),
            run.do("later", later, card, queue="remote"),
        )

    return app


BOUGHT = {
    "why": f"no such card: {SECRET}",
    "note": f"charged {SECRET}",
    "long": SECRET * 100,
}


READS = {
    "string": lambda redis, key: redis.get(key),
    "hash": lambda redis, key: redis.hgetall(key),
    "list": lambda redis, key: redis.lrange(key, 0, -1),
    "set": lambda redis, key: redis.smembers(key),
    "zset": lambda redis, key: redis.zrange(key, 0, -1),
    "stream": lambda redis, key: redis.xrange(key),
}


def words_in(value):
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        yield from words_in([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple | set):
        for each in value:
            yield from words_in(each)


async def everything(redis):
    """Return every word of the server's memory: of strings, hashes, lists, sets, streams."""
    words = []
    async for key in redis.scan_iter():
        read = READS[(await redis.type(key)).decode()]
        words += [key, *words_in(await read(redis, key))]
    return words


async def assert_sealed(redis):
    words = await everything(redis)
    assert [word for word in words if SECRET.encode() in word] == []
    assert len(words) > 20
    return words


async def assert_read(service, run_id):
    run = await service.get_run(run_id)
    assert run.input == {"number": SECRET, "note": ""}
    assert run.output == BOUGHT
    steps = {step.step_name: step for step in await service.get_run_steps(run_id)}
    assert steps["charge"].result["note"] == f"charged {SECRET}"
    assert steps["refuse"].error.message == f"no such card: {SECRET}"
    assert SECRET in steps["refuse"].error.stack
    history = await service.get_run_history(run_id)
    failed = [attempt.error.message for attempt in history if attempt.error]
    assert failed == [f"cannot charge {SECRET}", f"no such card: {SECRET}"]
    timeline = await service.get_run_timeline(run_id)
    assert SECRET in str(timeline.events[-1].output)
    assert (await service.get_run_status(run_id)).output == BOUGHT


async def test_a_run_on_a_worker_leaves_no_secret_in_redis(deployment, redis, redis_url, prefix):
    codec = codec_of()
    client = Client(redis_url, prefix, codec=codec)
    service = RedisWorkflowService(redis_url, key_prefix=prefix, codec=codec)
    async with client, service, deployment.worker(shop(codec), queues=("", "remote")) as worker:
        card = Card(number=SECRET)
        handle = await client.start("buy", card, run_id="r")
        assert await handle.result("10s") == BOUGHT
        lost = await client.start("lose", card, run_id="lost")
        with pytest.raises(RunFailedError, match=f"lost {SECRET}"):
            await lost.result("10s")
        await client.start("wait", card, run_id="waits")
        await deployment.until_step("waits", "later", "pending")  # its retry is a timer
        await deployment.until_step("waits", "nobody", "scheduled")
        await client.signal("waits", "hint", card)
        words = await assert_sealed(redis)
        assert sum(b"aesgcm:k1" in word for word in words) > 15
        assert any(b'"zstd","aesgcm:k1"' in word for word in words)
        timers = await redis.zrange(f"{prefix}:timers", 0, -1)
        assert b"~sealed" in timers[0]
        await assert_read(service, "r")
        await client.cancel("waits")
        await deployment.until("waits", "cancelled")
        assert SECRET not in str(worker.logs)
    await assert_sealed(redis)


async def test_a_run_in_the_calling_process_leaves_no_secret_in_redis(redis, redis_url, prefix):
    codec = codec_of()
    app = shop(codec)
    async with RedisWorkflowService(redis_url, key_prefix=prefix, codec=codec) as service:
        await app.start(service, "buy", Card(number=SECRET), "r")
        await assert_read(service, "r")
        with pytest.raises(RunFailedError, match=f"lost {SECRET}"):
            await app.start(service, "lose", Card(number=SECRET), "lost")
        await assert_sealed(redis)


async def test_a_run_driven_by_hand_leaves_no_secret_in_redis(redis, redis_url, prefix):
    codec = codec_of()
    secret = {"card": SECRET}
    async with RedisWorkflowService(redis_url, key_prefix=prefix, codec=codec) as service:
        for _ in range(2):  # the same call again is known by its bytes
            run_id = await service.create_run("import", secret, run_id="r", if_exists="return")
            step = await service.insert_step_state(run_id, "read", "readCard", secret)
            assert step.data == secret
            if step.status == "pending":
                await service.set_step_running(step.step_id)
            await service.set_step_result(step.step_id, secret)
            other = await service.insert_step_state(run_id, "fail", "readCard", secret)
            if other.status == "pending":
                await service.set_step_running(other.step_id)
            await service.set_step_error(other.step_id, ValueError(SECRET))
        assert (await service.get_step_state(run_id, "read")).result == secret
        assert (await service.get_step_state(run_id, "fail")).error.message == SECRET
        await service.update_run_status(run_id, RunStatus.COMPLETED, secret)
        await service.update_run_status(run_id, RunStatus.COMPLETED, secret)
        page = await service.list_runs()
        assert [run.output for run in page.runs] == [secret]
        await assert_sealed(redis)
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as stranger:
        with pytest.raises(SealedPayloadError, match="which this codec lacks"):
            await stranger.get_run(run_id)


async def test_keys_rotate_under_running_workflows(deployment, redis, redis_url, prefix):
    """Old payloads stay readable, new ones are written under the new key; in one run, too."""
    old, new = codec_of(k1=K1), codec_of("k2")
    async with Client(redis_url, prefix, codec=old) as client:
        await client.start("buy", Card(number=SECRET), run_id="r")
    async with Client(redis_url, prefix, codec=new) as client, deployment.worker(shop(new)):
        assert await client.result("r", "10s", must_exist=False) == BOUGHT
        run = await redis.hgetall(f"{prefix}:run:r")
    assert b"aesgcm:k1" in run[b"input"]
    assert b"aesgcm:k2" in run[b"output"]
    step = await redis.hgetall(f"{prefix}:step:r:charge")
    assert b"aesgcm:k2" in step[b"data"]


async def test_a_run_whose_key_is_missing_is_stalled_until_it_is_back(
    deployment, redis_url, prefix
):
    """A worker without the key fails nothing: it says what it lacks, and another goes on."""
    both, lacking = codec_of("k2"), codec_of("k1", k1=K1)
    async with Client(redis_url, prefix, codec=both) as client:
        await client.start("buy", Card(number=SECRET), run_id="r")
        async with deployment.worker(shop(lacking)):
            await deployment.until("r", "stalled")
            await deployment.quiet()
        stalled = await client.get_run("r")
        assert "key 'k2', which is not at hand" in stalled.error.message
        await deployment.send("run.resume", run_id="r")
        async with deployment.worker(shop(both)):
            assert await client.result("r", "10s") == BOUGHT


async def test_a_step_result_whose_key_is_missing_stalls_the_run(deployment, redis_url, prefix):
    both, lacking = codec_of("k2"), codec_of("k1", k1=K1)
    async with Client(redis_url, prefix, codec=both) as client:
        plain = json.dumps({"number": SECRET})
        async with deployment.worker(shop(lacking)):
            await deployment.send("run.start", workflow="wait", input=plain.encode(), run_id="r")
            await deployment.until_step("r", "nobody", "scheduled")
            done = {"run_id": "r", "step_name": "nobody", "attempt": 1}
            await deployment.send("step.complete", **done, result=both.encode("packed"))
            await deployment.until("r", "stalled")
        assert "key 'k2'" in (await client.get_run("r")).error.message


async def test_a_worker_with_another_key_under_the_id_fails_no_run(
    deployment, redis, redis_url, prefix
):
    codec, wrong = codec_of("k1", k1=K1), codec_of("k1", k1=K2)
    async with Client(redis_url, prefix, codec=codec) as client:
        async with deployment.worker(shop(codec)):
            await client.start("wait", Card(number=SECRET), run_id="r")
            await deployment.until_step("r", "nobody", "scheduled")
        async with deployment.worker(shop(wrong)):
            await deployment.send("run.signal", run_id="r", name="go on")
            await deployment.until("r", "stalled")
        error = wrong.read_error((await redis.hgetall(f"{prefix}:run:r"))[b"error"])
        assert "that id has another key here" in error.message
        await deployment.send("run.resume", run_id="r")
        async with deployment.worker(shop(codec)):
            await deployment.until("r", "running")
            await client.cancel("r")
            await deployment.until("r", "cancelled")


async def test_changed_and_foreign_payloads(deployment, redis, redis_url, prefix):
    codec = codec_of()
    async with Client(redis_url, prefix, codec=codec) as client, deployment.worker(shop(codec)):
        sealed = codec.encode({"number": SECRET})
        changed = sealed.replace(b'"aesgcm:k1","', b'"aesgcm:k1","AAAA')
        await deployment.send("run.start", workflow="buy", input=changed, run_id="changed")
        (letter,) = await deployment.dead_letters()
        assert letter["reason"] == "invalid_payload"
        assert "input: the payload is not what was encrypted under key 'k1'" in letter["detail"]
        # Programs without askel write plain JSON; their runs work, and what they sent stays plain.
        await deployment.send("run.start", workflow="buy", input={"number": SECRET}, run_id="plain")
        assert await client.result("plain", "10s", must_exist=False) == BOUGHT
        assert SECRET.encode() in (await redis.hgetall(f"{prefix}:run:plain"))[b"input"]


async def test_the_command_line_shows_sealed_payloads_as_they_stand(redis_url, prefix, tmp_path):
    codec = codec_of()
    async with RedisWorkflowService(redis_url, key_prefix=prefix, codec=codec) as service:
        await shop(codec).start(service, "buy", Card(number=SECRET), "r")
    for verb in (["show", "r"], ["ls"], ["history", "r"]):
        where = ["--redis", redis_url, "--prefix", prefix]
        ran = run_program([ASKEL, *verb, *where, "--json"], cwd=tmp_path)
        assert ran.code == 0, ran.err
        assert SECRET not in ran.out
        assert "r" in ran.out


async def test_waiting_is_not_disturbed_by_what_cannot_be_read(deployment, redis_url, prefix):
    codec = codec_of()
    async with deployment.worker(shop(codec)):
        async with Client(redis_url, prefix, codec=codec) as client:
            await client.start("buy", Card(number=SECRET), run_id="r")
        async with Client(redis_url, prefix) as stranger:
            with pytest.raises(SealedPayloadError, match="which this codec lacks"):
                await stranger.result("r", "10s", must_exist=False)
