"""Limits at both ends: what is as long as allowed is taken, one more is refused with its reason.

Before sending the client refuses; what another program has sent the daemon keeps as a dead letter.
"""

import json
import re

import pytest
from tests.helpers.workers import ROOT

from askel import (
    App,
    Client,
    Codec,
    InvalidError,
    PayloadError,
    RedisWorkflowService,
    Run,
    SerializedError,
)
from askel.names import MAX_NAME_BYTES
from askel.state.codec import MAX_DEPTH, MAX_ERROR_TEXT, MAX_PAYLOAD
from askel.wire import (
    CommandError,
    RunCancel,
    RunFail,
    RunSignal,
    RunStart,
    StepExecute,
    decode_command,
)
from askel.wire.commands import MAX_ERROR, MAX_FIELD_NAME, MAX_FIELDS, MAX_ID, MAX_TEXT

app = App("limits")


@app.workflow
async def w(run: Run, data: object) -> None:
    """Do nothing."""


def json_of(size):
    return json.dumps("x" * (size - 2))


def nested(levels):
    return "[" * levels + "]" * levels


START = ["type", "run.start", "workflow", "w"]
#: What is limited -> the most, and an entry of so much.
ENTRIES = {
    "payload": (MAX_PAYLOAD, lambda n: [*START, "input", json_of(n)]),
    "depth": (MAX_DEPTH, lambda n: [*START, "input", nested(n)]),
    "error": (MAX_ERROR, lambda n: ["type", "run.fail", "run_id", "d", "error", json_of(n)]),
    "fields": (MAX_FIELDS, lambda n: [*START, *(w for k in range(n - 2) for w in (f"f{k}", ""))]),
    "field name": (MAX_FIELD_NAME, lambda n: [*START, "f" * n, "1"]),
    "unknown field": (MAX_TEXT, lambda n: [*START, "tenant", "x" * n]),
    "reason": (MAX_TEXT, lambda n: ["type", "run.cancel", "run_id", "d", "reason", "x" * n]),
    "command id": (MAX_ID, lambda n: [*START, "id", "x" * n]),
    "run id": (128, lambda n: [*START, "run_id", "x" * n]),
    "queue": (64, lambda n: [*START, "queue", "x" * n]),
    "workflow name": (MAX_NAME_BYTES, lambda n: ["type", "run.start", "workflow", "x" * n]),
    "step name": (
        MAX_NAME_BYTES,
        lambda n: ["type", "step.execute", "run_id", "d", "step_name", "x" * n, "rpc_name", "f"],
    ),
    "signal name": (
        MAX_NAME_BYTES,
        lambda n: ["type", "run.signal", "run_id", "d", "name", "x" * n],
    ),
}
#: The same as calls of a client, where a program can go beyond the limit.
COMMANDS = {
    "payload": lambda n: RunStart(workflow="w", input=json_of(n)),
    "depth": lambda n: RunStart(workflow="w", input=nested(n)),
    "error": lambda n: RunFail(run_id="d", error=json_of(n)),
    "reason": lambda n: RunCancel(run_id="d", reason="x" * n),
    "command id": lambda n: RunStart(workflow="w", id="x" * n),
    "run id": lambda n: RunStart(workflow="w", run_id="x" * n),
    "queue": lambda n: RunStart(workflow="w", queue="x" * n),
    "workflow name": lambda n: RunStart(workflow="x" * n),
    "step name": lambda n: StepExecute(run_id="d", step_name="x" * n, rpc_name="f"),
    "signal name": lambda n: RunSignal(run_id="d", name="x" * n),
}


def as_bytes(words):
    return [word.encode() for word in words]


@pytest.mark.parametrize("what", ENTRIES)
def test_decoder_takes_the_most_and_not_one_more(what):
    most, entry = ENTRIES[what]

    assert decode_command(as_bytes(entry(most)))
    with pytest.raises(CommandError) as refused:
        decode_command(as_bytes(entry(most + 1)))

    assert refused.value.reason in {"invalid_command", "invalid_payload", "invalid_name"}
    assert len(refused.value.detail) < 300


@pytest.mark.parametrize("what", COMMANDS)
async def test_client_refuses_before_it_sends(what, redis, redis_url, prefix):
    most, stream = ENTRIES[what][0], f"{prefix}:commands"
    async with Client(redis_url, prefix) as client:
        with pytest.raises(InvalidError):
            await client.send(COMMANDS[what](most + 1))
        assert await redis.exists(stream) == 0

        await client.send(COMMANDS[what](most))
        assert await redis.xlen(stream) == 1


async def test_typed_calls_of_a_client_have_the_same_limits(redis, redis_url, prefix):
    async with Client(redis_url, prefix) as client:
        for call in (
            lambda: client.start("w", "x" * MAX_PAYLOAD),
            lambda: client.start("w", id="x" * (MAX_ID + 1)),
            lambda: client.signal("d", "x" * (MAX_NAME_BYTES + 1)),
            lambda: client.signal("d", "n", id="x" * (MAX_ID + 1)),
            lambda: client.cancel("d", "x" * (MAX_TEXT + 1)),
        ):
            with pytest.raises(InvalidError):
                await call()
    assert await redis.exists(f"{prefix}:commands") == 0


async def test_codec_with_a_larger_limit_sends_what_fits_it(redis, redis_url, prefix):
    large = Codec(limit=2 * MAX_PAYLOAD)
    async with Client(redis_url, prefix, codec=large) as client:
        await client.start("w", "x" * MAX_PAYLOAD)
        with pytest.raises(PayloadError):
            await client.start("w", "x" * 2 * MAX_PAYLOAD)
    assert await redis.xlen(f"{prefix}:commands") == 1


async def test_daemon_keeps_what_is_too_much_with_its_reason(deployment):
    """Everything one beyond its limit is a dead letter, and the worker takes what comes next."""
    most = 2_000
    sent = {}
    for what, (limit, entry) in ENTRIES.items():
        words = entry((most if what == "payload" else limit) + 1)
        sent[(await deployment.client.execute_command(
            "XADD", deployment.stream(), "*", *words
        )).decode()] = what  # fmt: skip
    async with deployment.worker(app, max_payload=most) as worker:
        letters = await deployment.dead_letters(len(sent))
        await deployment.send("run.start", workflow="w", input=json_of(most - 10), run_id="after")
        await deployment.until("after", "completed")
        assert not worker.ended.is_set()
    found = {sent[letter["entry"]]: letter["reason"] for letter in letters}
    assert found.keys() == ENTRIES.keys()
    assert set(found.values()) == {"invalid_command", "invalid_payload", "invalid_name"}


async def test_results_of_steps_and_workflows_have_the_limit_of_payloads(deployment):
    """A result beyond it is a failure of whoever returned it; the run ends."""
    big = App("big")

    @big.workflow
    async def too_much(run: Run) -> str:
        return "x" * MAX_PAYLOAD

    async with deployment.worker(big):
        await deployment.send("run.start", workflow="too_much", run_id="r")
        record = await deployment.until("r", "failed")
    assert "more than the limit" in json.loads(record.run["error"])["message"]


async def test_texts_of_errors_are_cut(service):
    long = "x" * (MAX_ERROR_TEXT + 1)
    run_id = await service.create_run("w")
    step = await service.insert_step_state(run_id, "s", "f")
    for error in (SerializedError(long, long, long, long), ValueError(long), long):
        await service.set_step_running(step.step_id)
        await service.set_step_error(step.step_id, error)
        found = (await service.get_step_state(run_id, "s")).error
        assert found.message == "x" * MAX_ERROR_TEXT
        assert max(
            len(text) for text in (found.stack or "", found.code or "", found.name or "")
        ) <= (MAX_ERROR_TEXT)
        step = await service.create_retry_attempt(step.step_id)


@pytest.fixture
async def service(redis_url, prefix):
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as service:
        yield service


async def test_service_refuses_before_it_writes(service):
    run_id = await service.create_run("w", "x" * (MAX_PAYLOAD - 2))
    for call in (
        lambda: service.create_run("w", "x" * (MAX_PAYLOAD - 1)),
        lambda: service.create_run("w", json.loads(nested(MAX_DEPTH + 1))),
        lambda: service.create_run("x" * (MAX_NAME_BYTES + 1)),
        lambda: service.create_run("w", run_id="x" * 129),
        lambda: service.insert_step_state(run_id, "x" * (MAX_NAME_BYTES + 1), "f"),
        lambda: service.update_run_state(run_id, "v", "x" * (MAX_PAYLOAD - 1)),
    ):
        with pytest.raises(InvalidError):
            await call()
    assert [run.id for run in (await service.list_runs()).runs] == [run_id]


def test_limit_of_a_worker_is_a_setting(call):
    ran = call("worker", "tests.apps.kiosk:app", "--max-payload", "soon", REDIS_URL="redis://h")
    assert ran.code == 2
    assert "--max-payload 'soon' is no size" in ran.complaint
    ran = call("worker", "tests.apps.kiosk:app", REDIS_URL="redis://h", ASKEL_MAX_PAYLOAD="-1")
    assert "ASKEL_MAX_PAYLOAD '-1' is no size" in ran.complaint


def test_the_page_has_every_limit():
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| ([a-z ]+) \| ([^|]+) \|", text, re.MULTILINE))
    for name, (most, _) in ENTRIES.items():
        assert rows[name].replace(",", "").split()[0] == str(most), name
    assert rows["text of an error"].replace(",", "").split()[0] == str(MAX_ERROR_TEXT)
