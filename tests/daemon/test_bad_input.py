"""Entries that are no commands, or cannot be applied: kept with the reason and every field."""

import json

import pytest
from tests.apps.parts import app
from tests.helpers.waiting import wait_until

LETTER = ["reason", "detail", "stream", "entry", "deliveries", "at"]
START = ["type", "run.start", "workflow", "one_step"]
EXECUTE = ["type", "step.execute", "run_id", "d", "step_name", "s", "rpc_name", "echo"]
DEEP = "[" * 65 + "]" * 65

BAD = {
    "no type": (["workflow", "one_step"], "invalid_command", "field type is missing"),
    "unknown type": (["type", "run.begin"], "unknown_command", "'run.begin' is unknown"),
    "a type like a type": (["type", "run.start\n"], "unknown_command", "is unknown"),
    "missing field": (["type", "run.start"], "invalid_command", "workflow"),
    "two of a field": ([*START, "workflow", "other"], "invalid_command", "given twice"),
    "two types": ([*START, "type", "run.cancel"], "invalid_command", "given twice"),
    "not UTF-8": ([*START, "input", b'"\xff\xfe"'], "invalid_command", "not valid UTF-8"),
    "a name not UTF-8": ([*START, b"\xff", "1"], "invalid_command", "not valid UTF-8"),
    "no JSON": ([*START, "input", "{a: 1}"], "invalid_payload", "input: not valid JSON"),
    "half JSON": ([*START, "input", '{"a": ['], "invalid_payload", "input: not valid JSON"),
    "empty payload": ([*START, "input", ""], "invalid_payload", "input: not valid JSON"),
    "NaN": ([*START, "input", "NaN"], "invalid_payload", "input: not valid JSON"),
    "too deep": ([*START, "input", DEEP], "invalid_payload", "deeper than 64"),
    "too long": ([*START, "input", json.dumps("x" * 2_000)], "invalid_payload", "limit of 1000"),
    "lone surrogate": ([*START, "input", r'"\ud800"'], "invalid_payload", "input"),
    "bad run id": ([*START, "run_id", "a:b"], "invalid_name", "run id 'a:b'"),
    "a run id called JSON": ([*START, "run_id", "JSON!"], "invalid_name", "run id 'JSON!'"),
    "long run id": ([*START, "run_id", "x" * 129], "invalid_name", "run id"),
    "bad workflow": (["type", "run.start", "workflow", "a\nb"], "invalid_name", "workflow"),
    "empty workflow": (["type", "run.start", "workflow", ""], "invalid_name", "workflow"),
    "bad queue": ([*START, "queue", "a b"], "invalid_name", "queue 'a b'"),
    "another version": ([*START, "v", "0"], "unknown_version", "v 0"),
    "no version": ([*START, "v", "one"], "unknown_version", "v one"),
    "bad time": ([*START, "at", "tomorrow"], "invalid_command", "at"),
    "long id": ([*START, "id", "x" * 300], "invalid_command", "id is longer"),
    "many fields": (
        [*START, *(word for n in range(40) for word in (f"f{n}", "1"))],
        *("invalid_command", "more than 32 fields"),
    ),
    "no run": (["type", "run.cancel"], "invalid_command", "run_id"),
    "empty run": (["type", "run.cancel", "run_id", ""], "invalid_command", "run_id is empty"),
    "long step": (
        ["type", "step.execute", "run_id", "d", "step_name", "é" * 257, "rpc_name", "echo"],
        *("invalid_name", "longer than 512 bytes"),
    ),
    "bad attempt": (
        ["type", "step.complete", "run_id", "d", "step_name", "s", "attempt", "first"],
        *("invalid_command", "attempt"),
    ),
    "negative retries": (
        [*EXECUTE, "retries", "-1"],
        *("invalid_command", "negative"),
    ),
    "bad delay": (
        [*EXECUTE, "retry_delay", "soon"],
        *("invalid_command", "'soon' is not a duration"),
    ),
    "not yet": (
        ["type", "run.approve", "run_id", "d", "reason", "ok", "data", "{}"],
        *("unsupported", "run.approve"),
    ),
}


def as_bytes(words):
    return [word if isinstance(word, bytes) else word.encode() for word in words]


async def dead_entries(deployment):
    """The dead letters as flat lists, which hold a field that is given twice, twice."""
    entries = await deployment.client.execute_command(
        "XRANGE", f"{deployment.prefix}:dead", "-", "+"
    )
    if entries and isinstance(entries[0][1], dict):
        raise AssertionError("the client folds fields")
    return [flat for _, flat in entries]


@pytest.fixture
def raw(deployment):
    """Have XRANGE answer flat lists."""
    deployment.client.response_callbacks.pop("XRANGE", None)
    return deployment


async def test_every_kind_of_garbage_becomes_a_dead_letter_and_nothing_else(raw):
    """One reason, one sentence, all original fields; between them the daemon does its work."""
    deployment, stream = raw, raw.stream()
    sent = []
    for number, (words, _, _) in enumerate(BAD.values()):
        sent.append(await deployment.client.execute_command("XADD", stream, "*", *words))
        await deployment.send("run.start", workflow="one_step", input=number, run_id=f"r{number}")
    async with deployment.worker(app, max_payload=1_000) as worker:
        await wait_until(lambda: len(worker.logged("run_ended", status="completed")) == len(BAD))
        await wait_until(lambda: len(worker.logged("command_dead_lettered")) == len(BAD))
        assert not worker.ended.is_set()
    letters = {}
    for flat in await dead_entries(deployment):
        facts = dict(zip(flat[:12:2], flat[1:12:2], strict=True))
        letters[facts[b"entry"]] = facts, flat[12:]
    assert len(letters) == len(BAD)
    for entry, (name, (words, reason, detail)) in zip(sent, BAD.items(), strict=True):
        facts, fields = letters[entry]
        assert [key.decode() for key in facts] == LETTER, name
        assert facts[b"reason"].decode() == reason, f"{name}: {facts}"
        assert detail in facts[b"detail"].decode(), f"{name}: {facts}"
        assert facts[b"stream"].decode() == stream
        prefix = [b"command." + word if word == b"at" else word for word in as_bytes(words)]
        expected = (
            prefix
            if reason != "unsupported"
            else [b"command.reason" if word == b"reason" else word for word in prefix]
        )
        assert fields == expected, name
        assert len(facts[b"detail"]) < 500, f"{name}: a sentence, not the payload"


async def test_a_dead_letter_never_repeats_a_payload_in_its_sentence(deployment):
    """Secrets stay in the field that the sender put them in."""
    async with deployment.worker(app) as worker:
        await deployment.send("run.start", workflow="one_step", input=b'{"password": "hunter2"')
        await deployment.send("run.start", workflow="one_step", input=b'"hunter2', id="k")
        letters = await deployment.dead_letters(2)
    assert not any("hunter2" in letter["detail"] for letter in letters)
    assert not any("hunter2" in str(record) for record in worker.logs)


async def test_commands_for_a_run_that_does_not_exist(deployment):
    """They wait for a while, in case it is created yet; then each is kept with its reason."""
    commands = {
        "run.cancel": {},
        "run.suspend": {},
        "run.resume": {},
        "run.complete": {},
        "run.fail": {},
        "run.signal": {"name": "n"},
        "step.execute": {"step_name": "s", "rpc_name": "echo"},
    }
    async with deployment.worker(app, not_found_after_ms=200):
        for type, fields in commands.items():
            await deployment.send(type, run_id="nobody", **fields)
        letters = await deployment.dead_letters(len(commands))
        await deployment.quiet(dead=len(commands))
    assert {letter["type"]: letter["reason"] for letter in letters} == dict.fromkeys(
        commands, "run_not_found"
    )
    assert {letter["detail"] for letter in letters} == {"run 'nobody' does not exist"}
    assert await deployment.runs() == []


async def test_a_result_for_a_run_or_step_that_does_not_exist(deployment):
    """A foreign worker's answer that answers nothing is kept, not dropped."""
    async with deployment.worker(app, not_found_after_ms=100):
        await deployment.send("run.create", workflow="w", run_id="d")
        await deployment.until("d", "running")
        await deployment.send("step.complete", run_id="d", step_name="s", attempt=1)
        await deployment.send("step.complete", run_id="nobody", step_name="s", attempt=1)
        letters = await deployment.dead_letters(2)
        await deployment.quiet(dead=2)
    assert {letter["run_id"]: letter["reason"] for letter in letters} == {
        "d": "attempt_not_open",
        "nobody": "run_not_found",
    }


async def test_a_command_may_come_a_little_before_its_run(deployment):
    """Among several daemons a step can be read before the `run.create` it follows."""
    async with deployment.worker(app, not_found_after_ms=10_000) as worker:
        await deployment.send("step.execute", run_id="d", step_name="s", rpc_name="echo", data=1)
        await wait_until(lambda: worker.reached["after_begin"] >= 2)
        await deployment.send("run.create", workflow="w", run_id="d")
        await deployment.until_step("d", "s", "succeeded")
        await deployment.quiet(dead=0)


async def test_fields_that_nobody_knows_are_no_harm(deployment):
    """A sender may add what it likes; they are kept where the command goes on."""
    seconds, _ = await deployment.client.time()
    async with deployment.worker(app):
        await deployment.send("run.start", workflow="one_step", run_id="r", tenant="t1", trace="x")
        await deployment.until("r", "completed")
        later = {"run_id": "l", "at": seconds * 1_000 + 86_400_000, "tenant": "t1"}
        await deployment.send("run.start", workflow="one_step", **later)

        async def armed():
            return await deployment.client.zrange(f"{deployment.prefix}:timers", 0, -1)

        (timer,) = await wait_until(armed)
    _, *words = json.loads(timer)
    assert dict(zip(words[::2], words[1::2], strict=True)).items() >= {"tenant": "t1"}.items()


async def test_a_timer_that_is_none_of_ours_is_taken_out_and_kept(deployment):
    """Garbage among the timers stops neither the timers nor the worker."""
    await deployment.client.zadd(f"{deployment.prefix}:timers", {"garbage": 1, '["", "odd"]': 2})
    async with deployment.worker(app) as worker:
        letters = await deployment.dead_letters(2)
        await deployment.send("run.start", workflow="rests", input="10ms", run_id="r")
        await deployment.until("r", "completed")
        await deployment.quiet(dead=2)
        assert not worker.ended.is_set()
    assert {letter["reason"] for letter in letters} == {"unknown_command"}
    assert {letter["timer"] for letter in letters} == {"garbage", '["", "odd"]'}


@pytest.mark.parametrize(
    ("key", "type"),
    [
        *((key, "run.start") for key in ("run", "ctl", "history")),
        *((key, "run.create") for key in ("run", "history")),
    ],
)
async def test_keys_of_another_type_refuse_one_command_not_the_worker(deployment, key, type):
    """A key that somebody else wrote: the command is kept with what Redis said, no run is made."""
    foreign = f"{deployment.prefix}:{key}:bad"
    if key == "history":
        await deployment.client.set(foreign, "text")
    else:
        await deployment.client.rpush(foreign, "text")
    async with deployment.worker(app) as worker:
        await deployment.send(type, workflow="one_step", run_id="bad")
        (letter,) = await deployment.dead_letters(1)
        await deployment.send("run.start", workflow="one_step", run_id="good")
        await deployment.until("good", "completed")
        assert not worker.ended.is_set()
    assert letter["reason"] == "store_refused"
    assert "WRONGTYPE" in letter["detail"]
    assert await deployment.runs() == ["good"]
    await deployment.client.delete(foreign)
