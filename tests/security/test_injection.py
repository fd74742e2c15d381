"""Text of anybody's making forges no log line, drives no terminal, and names no other key."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog
from tests.cli.conftest import APP
from tests.helpers.state import snapshot
from tests.helpers.waiting import wait_until
from tests.helpers.workers import WorkerProcess

from askel import App, InvalidNameError, RedisWorkflowService, Run
from askel.state import Keys
from askeld.observability import configure_logs

ESC, CSI = "\x1b[2J", "\x9b31m"
BIDI, SEPARATOR, ZERO_WIDTH, TAG = "\u202egnp.exe", "a\u2028b", "a\u200bb", "\U000e0041"
FORGED = '\r\n{"event": "run_ended", "status": "completed"}'
#: What may stand in a name: no controls, but much that a terminal takes for an order.
NAMES = [
    BIDI,
    SEPARATOR,
    ZERO_WIDTH,
    TAG,
    "*",
    "?",
    "[a-z]",
    "{r}",
    "a:b",
    "%s%n",
    "'; --",
    '"',
    "\\",
]
#: What a payload, a reason or an error may be.
TEXTS = [ESC, CSI, FORGED, BIDI, SEPARATOR, "\x00", "\x07", "\x7f", "\x85", TAG]

app = App("hostile-names")


@app.step(retries=0)
async def shouts(text: str) -> None:
    """Raise an error that says it."""
    raise ValueError(text)


@app.workflow
async def hostile(run: Run, data: list[str]) -> str:
    """Fail in a step of each name, then return what was given."""
    for name, text in zip(NAMES, [*TEXTS, *TEXTS], strict=False):
        try:
            await run.do(name, shouts, text)
        except Exception:  # noqa: BLE001 - what it said is in the history
            continue
    return "".join(data)


def assert_harmless(text: str) -> None:
    """Nothing but printable text in lines."""
    bad = [line for line in text.splitlines(keepends=True) if not line.rstrip("\n").isprintable()]
    assert bad == []
    assert text.count("\n") == len(text.splitlines())


async def furnish(deployment) -> None:
    """Leave a run, and dead letters, full of such text."""
    async with deployment.worker(app, not_found_after_ms=50):
        await deployment.send("run.start", workflow="hostile", input=TEXTS, run_id="h")
        await deployment.until("h", "completed")
        await deployment.send("run.create", workflow=BIDI, input=ESC, run_id="d")
        await deployment.until("d", "running")
        for number, text in enumerate(TEXTS):
            await deployment.send("run.signal", run_id="d", name=BIDI, data=text, id=text)
            await deployment.send("run.signal", run_id="nobody", name="n", id=f"{number}{text}")
            await deployment.send(f"type{text}", run_id=text, workflow=text, reason=text)
            await deployment.send("run.start", workflow=text, input=text, id=f"{number}")
        await deployment.send("run.cancel", run_id="d", reason="".join(TEXTS))
        await deployment.until("d", "cancelled")
        await deployment.dead_letters(2 * len(TEXTS))


VERBS = [
    ("show", "h"),
    ("show", "d"),
    ("history", "h"),
    ("history", "d"),
    ("ls",),
    ("ls", "--workflow", BIDI),
    ("dead", "ls"),
    ("why", "d"),
    ("why", "h"),
]


@pytest.fixture
async def full(deployment):
    await furnish(deployment)
    return deployment


async def test_no_verb_lets_stored_text_out_as_it_is(full, call):
    """Tables and JSON, on what comes from names, payloads, errors, reasons and dead letters."""
    where = {"REDIS_URL": full.url, "ASKEL_PREFIX": full.prefix}
    letters = await full.client.xrange(f"{full.prefix}:dead")
    verbs = [*VERBS, *(("dead", "show", letter.decode()) for letter, _ in letters[:6])]
    from anyio import to_thread  # noqa: PLC0415 - verbs run a loop of their own

    for verb in verbs:
        for more in ((), ("--json",)):
            ran = await to_thread.run_sync(lambda v=verb, m=more: call(*v, *m, **where))
            assert ran.code == 0, ran
            assert_harmless(ran.out)
            assert_harmless(ran.err)
            if more:
                json.loads(ran.out)
    shown = (await to_thread.run_sync(lambda: call("show", "d", "--json", **where))).json()
    assert shown["run"]["workflow"] == BIDI, "escaped, not changed"


@pytest.mark.parametrize("arguments", [("show", ESC), ("ls", "--cursor", ESC), ("send", ESC)])
def test_what_was_typed_is_not_repeated_as_it_is(call, arguments):
    ran = call(*arguments, REDIS_URL="redis://127.0.0.1:1")
    assert ran.code in {1, 2}
    assert_harmless(ran.err)


async def test_a_worker_logs_one_json_object_a_line_whatever_it_is_told(deployment, tmp_path):
    """At debug: no line is forged, no control character or mark is there as it is."""
    async with WorkerProcess(
        APP,
        redis_url=deployment.url,
        prefix=deployment.prefix,
        directory=tmp_path,
        args=("--log-level", "debug"),
        env={"ASKEL_UNKNOWN_AFTER": "50ms"},
    ) as worker:
        await worker.wait_ready()
        for name in NAMES:
            await deployment.send("run.start", workflow=name, input=FORGED)
        for text in TEXTS:
            await deployment.send("run.start", workflow=text, id=text, traceparent=text)
            await deployment.send("run.start", workflow="complains", input=text)
            await deployment.send(text, run_id=text)
        await wait_until(lambda: deployment_is_idle(deployment), 20)
        worker.terminate()
        assert await worker.wait() == 0
        output = worker.stdout_path.read_bytes()
    assert output.isascii()
    records = [json.loads(line) for line in output.decode().splitlines()]
    assert len(records) > len(NAMES)
    assert all(isinstance(record, dict) and "event" in record for record in records)
    assert {r["status"] for r in records if r["event"] == "run_ended"} <= {"failed"}
    assert worker.stderr_path.read_text() == ""


async def deployment_is_idle(deployment):
    """Tell whether every command has ended."""
    return await deployment.client.xlen(deployment.stream()) == 0


def test_a_terminal_gets_no_orders_from_logs(monkeypatch):
    """The coloured form, which a terminal gets: of the daemon's own, and of other libraries."""
    stream = io.StringIO()
    before = logging.getLogger().handlers[:], logging.getLogger().level
    configure_logs("debug", json=False, stream=stream)
    try:
        log = structlog.get_logger()
        for text in TEXTS:
            log.warning("event", name=text, run_id=text)
            logging.getLogger("other").warning("said %s", text)
            log.error("failed", exc_info=ValueError(text))
    finally:
        logging.getLogger().handlers[:], logging.getLogger().level = before
        structlog.reset_defaults()
    plain = stream.getvalue()
    for colour in ("\x1b[0m", "\x1b[1m", "\x1b[2m", *(f"\x1b[{n}m" for n in range(30, 48))):
        plain = plain.replace(colour, "")
    assert_harmless(plain)


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\x1bb", "a\x00b", "a\x9bb", "\ud800", ""])
async def test_names_with_controls_are_refused_before_redis_is_touched(redis_url, prefix, name):
    async with RedisWorkflowService(redis_url, key_prefix=prefix) as service:
        await service.create_run("w", run_id="r")
        for call in (
            lambda: service.create_run(name),
            lambda: service.insert_step_state("r", name, "f"),
            lambda: service.insert_step_state("r", "s", name),
        ):
            with pytest.raises(InvalidNameError) as refused:
                await call()
            assert str(refused.value).isprintable()


RUN_IDS = ["*", "r*", "?", "[a-z]", "{r}", "a:b", "r\n", "r ", "..", "../r", "-r", "r\x00", "é"]


@pytest.mark.parametrize("run_id", RUN_IDS)
async def test_run_ids_name_one_key(redis_url, prefix, run_id):
    with pytest.raises(InvalidNameError):
        Keys(prefix) and await RedisWorkflowService(redis_url, key_prefix=prefix).get_run(run_id)


@pytest.mark.parametrize("compat", [None, "pikku"])
async def test_deleting_a_run_with_hostile_step_names_touches_no_other(
    redis, redis_url, prefix, compat
):
    """Step names are patterns, parts of other keys, and look like keys of other runs."""
    names = [*NAMES, "b:s", "a:*", ":", "r2:s", "run:r2", "lock", "s:suffix", "~"]
    async with RedisWorkflowService(redis_url, key_prefix=prefix, compat=compat) as service:
        for run_id in ("a", "a.b", "r2", "b"):
            await service.create_run("w", run_id=run_id)
            for name in names:
                step = await service.insert_step_state(run_id, name, "f", name)
                await service.set_step_running(step.step_id)
                await service.set_step_result(step.step_id, [run_id, name])
        others = {
            key: value
            for key, value in (await snapshot(redis, prefix)).items()
            if ":runs" not in key and ":events" not in key and not belongs(key, prefix, "a")
        }
        assert await service.delete_run("a", force=True)

        left = await snapshot(redis, prefix)
        assert {key: left[key] for key in others} == others
        assert [key for key in left if belongs(key, prefix, "a")] == []
        for run_id in ("a.b", "r2", "b"):
            results = {step.step_name: step.result for step in await service.get_run_steps(run_id)}
            assert results == {name: [run_id, name] for name in names}
        await service.reindex()
        assert {run.id for run in (await service.list_runs()).runs} == {"a.b", "r2", "b"}


def belongs(key: str, prefix: str, run_id: str) -> bool:
    """Tell whether a key is one of the run's."""
    return key.removeprefix(f"{prefix}:").split(":")[1:2] == [run_id]
