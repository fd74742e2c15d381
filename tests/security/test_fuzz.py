"""Mutated input: nothing crashes, and everything is applied or kept as a dead letter.

`make fuzz` runs it at full length: a million inputs at the decoders, 100,000 at a live worker.
`ASKEL_FUZZ_SEED` chooses another die. An input that broke something is kept in `found.json`.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.waiting import wait_until
from tests.security.mutator import LENIENT, NASTY, SEALING, Mutator, as_fields

from askel import App, InvalidNameError, PayloadError, Run, SerializedError
from askel.names import check_name, check_run_id
from askel.state import Keys, codec, run_id_of_entry
from askel.state.arguments import split_step_id
from askel.wire import (
    CommandError,
    RunCreate,
    RunSignal,
    RunStart,
    StepExecute,
    decode_command,
    decode_timer,
    encode_command,
    encode_timer,
)

FULL = os.environ.get("ASKEL_FUZZ") == "1"
SEED = int(os.environ.get("ASKEL_FUZZ_SEED", "20261122"))
DECODED = 1_000_000 if FULL else 100_000
SENT = 100_000 if FULL else 5_000
LIMIT = 4_000
#: Why the decoder refuses; anything else is a reason that nobody documented.
REASONS = {
    *("invalid_command", "invalid_name", "invalid_payload"),
    *("unknown_command", "unknown_version", "unsupported", "body_lost", "invalid_timer"),
}
MOST_SAID = 500
KEPT = Path(__file__).with_name("found.json")

app = App("fuzzed")


@app.step(retries=1, retry_delay="1ms")
async def echo(data: Any) -> Any:
    """Return what it is given."""
    return data


@app.workflow
async def echoes(run: Run, data: Any) -> Any:
    """Do one step."""
    return await run.do("only", echo, data)


def check_refusal(reason: str, detail: str) -> None:
    """A word that is documented, and a sentence that is short and harmless to a terminal."""
    short = f"{detail:.100}… ({len(detail)})"
    assert reason in REASONS, reason
    assert len(detail) < MOST_SAID, short
    assert detail.isprintable(), short


def judge_command(words: list[bytes], used: Any) -> str:
    """Decode an entry; return how that ended, or raise what no worker would survive."""
    try:
        command = decode_command(words, limit=LIMIT, codec=used)
    except CommandError as error:
        check_refusal(error.reason, error.detail)
        return error.reason
    again = [word.encode() for word in encode_command(command)]
    assert decode_command(again, limit=LIMIT, codec=used) == command
    if run_id := getattr(command, "run_id", ""):
        check_run_id(run_id)
    member = encode_timer("q", [word.decode() for word in again])
    assert decode_timer(member) == ("q", [word.decode() for word in again])
    return "accepted"


def judge_payload(text: bytes, used: Any) -> str:
    """Decode a payload in every way there is; return how that ended."""
    outcome = "refused"
    try:
        value = used.decode(text)
        if codec.encode(value) is not None:
            assert used.decode(used.encode(value)) == value
            outcome = "read"
    except PayloadError as error:
        check_refusal("invalid_payload", str(error))
    for read in (
        lambda: used.check_json(text.decode("utf-8", "surrogateescape"), limit=LIMIT),
        lambda: used.convert(text, dict[str, int]),
        lambda: used.convert(text, SerializedError),
        lambda: used.read_error(text),
        lambda: used.is_same(text, text[:-1]),
    ):
        try:
            read()
        except PayloadError:
            continue
    try:
        decode_timer(text)
    except CommandError as error:
        check_refusal(error.reason, error.detail)
    return outcome


def judge_name(text: str) -> str:
    """Make keys of a name; they are told apart, or the name is refused."""
    try:
        name = check_name(text)
    except InvalidNameError as error:
        check_refusal("invalid_name", str(error))
        return "refused"
    assert split_step_id(f"r:{name}:suffix") == ("r", name)
    key = Keys("p").step("r", name)
    assert key.removeprefix(Keys("p").step_stem("r")) == name
    return "read"


def told(what: str, count: int, began: float, seen: Counter[str]) -> None:
    """Print the rate, for `make fuzz`."""
    rate = count / max(time.monotonic() - began, 1e-9)
    print(f"\n{what}: {count:,} inputs, seed {SEED}, {rate:,.0f}/s, {dict(seen.most_common())}")  # noqa: T201 - the rate is what `make fuzz` shows


@pytest.mark.timeout(900)
def test_no_mutated_command_breaks_the_decoder():
    dice, seen, began = Mutator(SEED), Counter[str](), time.monotonic()
    for number in range(DECODED):
        words = dice.command()
        used = (codec.PLAIN, SEALING, LENIENT)[number % 3]
        try:
            seen[judge_command(words, used)] += 1
        except BaseException as error:
            error.add_note(f"input {number} of seed {SEED}; keep it in found.json: {words!r:.2000}")
            raise
    told("commands", DECODED, began, seen)
    assert {"accepted", "invalid_command", "invalid_name", "invalid_payload"} < set(seen)
    assert DECODED // 20 < seen["accepted"] < DECODED * 19 // 20


@pytest.mark.timeout(900)
def test_no_mutated_payload_or_name_breaks_the_codec():
    dice, seen, began = Mutator(SEED), Counter[str](), time.monotonic()
    count = DECODED // 4
    for number in range(count):
        text = dice.payload()
        try:
            seen[judge_payload(text, (codec.PLAIN, SEALING, LENIENT)[number % 3])] += 1
            seen[f"name {judge_name(text[:600].decode('utf-8', 'surrogateescape'))}"] += 1
        except BaseException as error:
            error.add_note(f"input {number} of seed {SEED}; keep it in found.json: {text!r:.2000}")
            raise
    told("payloads", count, began, seen)
    assert set(seen) == {"read", "refused", "name read", "name refused"}


@pytest.mark.parametrize("used", [codec.PLAIN, SEALING, LENIENT], ids=["plain", "seals", "lenient"])
def test_what_was_found_before_stays_found(used):
    kept = json.loads(KEPT.read_text("utf-8"))
    for words in kept["commands"]:
        judge_command(as_fields(words), used)
    for text in [*as_fields(kept["payloads"]), *NASTY]:
        judge_payload(text, used)
        judge_name(text.decode("utf-8", "surrogateescape"))


def test_the_same_seed_makes_the_same_inputs():
    one, two, other = Mutator(1), Mutator(1), Mutator(2)
    made = [one.command() for _ in range(50)]
    assert [two.command() for _ in range(50)] == made
    assert [other.command() for _ in range(50)] != made


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_every_mutated_entry_ends_at_a_live_worker(deployment):
    """Sent = applied + dead letters + waiting timers; nothing pending, the worker alive (S14)."""
    dice, began, sent = Mutator(SEED), time.monotonic(), {}
    common = {"max_payload": LIMIT, "unknown_after_ms": 50, "not_found_after_ms": 50}
    async with deployment.worker(app, queues=("", "q"), **common) as worker:
        for start in range(0, SENT, 500):
            pipe = deployment.client.pipeline(transaction=False)
            chunk = [
                [*dice.command(), b"fuzz", b"%d" % number]
                for number in range(start, min(start + 500, SENT))
            ]
            for words in chunk:
                pipe.execute_command("XADD", deployment.stream(), "*", *words)
            for entry, words in zip(await pipe.execute(), chunk, strict=True):
                sent[int(words[-1])] = (entry.decode(), words)
            await caught_up(deployment, worker)
        await let_all_go(deployment, worker)
        assert not worker.ended.is_set()
        await deployment.send("run.start", workflow="echoes", input=1, run_id="after")
        await deployment.until("after", "completed")
    seen = await accounted(deployment, sent)
    told("entries", SENT, began, seen)
    assert seen["applied"] > SENT // 50
    assert seen["dead"] > SENT // 20


async def caught_up(deployment, worker, most=500):
    """Wait until almost all that was sent has ended."""

    async def few() -> bool:
        assert not worker.ended.is_set()
        return await deployment.client.xlen(deployment.stream()) <= most

    await wait_until(few, 120)


async def let_all_go(deployment, worker):
    """End the runs that mutated commands have held: what waits for them waits no more."""
    while live := [
        run_id
        for run_id in await deployment.runs()
        if await deployment.status(run_id) not in {"completed", "failed", "cancelled"}
    ]:
        for run_id in live:
            await deployment.send("run.terminate", run_id=run_id)
        await caught_up(deployment, worker, most=0)


async def accounted(deployment, sent) -> Counter[str]:
    """Say what became of each entry, by what is in Redis."""
    seen: Counter[str] = Counter()
    dead = {}
    for _, fields in await deployment.client.xrange(f"{deployment.prefix}:dead"):
        words = json.loads(fields.get(b"fields", b"[]"))  # of an entry too wide for a script
        number = fields.get(b"fuzz") or (words[-1].encode() if words else None)
        if number is not None:
            assert number not in dead, "one entry, two dead letters"
            dead[number] = fields[b"reason"].decode()
    waiting = {
        words[words.index("fuzz") + 1].encode()
        for member in await deployment.client.zrange(f"{deployment.prefix}:timers", 0, -1)
        for words in [json.loads(member)]
        if "fuzz" in words
    }
    for number, (entry, words) in sent.items():
        key = b"%d" % number
        assert not (key in dead and key in waiting)
        refusal = judge_command(words, codec.PLAIN)
        if key in dead:
            seen["dead"] += 1
            if refusal != "accepted":
                assert dead[key] == refusal, words
        elif key in waiting:
            seen["waiting"] += 1
        else:
            assert refusal == "accepted", f"neither applied nor dead: {words}"
            seen[await effect(deployment, entry, words)] += 1
    assert sum(seen.values()) == len(sent)
    return seen


async def effect(deployment, entry, words) -> str:
    """Return whether the command has left what it is to leave; some find it settled already."""
    command = decode_command(words, limit=LIMIT)
    client, p = deployment.client, deployment.prefix
    match command:
        case RunStart() | RunCreate():
            run_id = command.run or run_id_of_entry(deployment.stream(), entry)
            assert await client.exists(f"{p}:run:{run_id}"), f"{words!r:.1500}"
        case StepExecute(born=""):  # one that names another generation is done with
            assert await client.exists(f"{p}:run:{command.run_id}"), f"{words!r:.1500}"
        case RunSignal():
            assert await client.exists(f"{p}:history:{command.run_id}"), f"{words!r:.1500}"
        case _:
            return "settled"
    return "applied"
