"""The header of each Lua script says what its callers send and what they understand."""

import ast
import re
from pathlib import Path

import pytest
from tests.helpers.stubs import StubConnection
from tests.state.calls import (
    ENTRY,
    PROTOCOL,
    RUN_KEYS,
    STREAM,
    TURN,
    TURN_ANSWERS,
    Case,
    K,
    caller,
    service,
)
from tests.state.giving_up_calls import GIVING_UP
from tests.state.keeping_calls import KEEPING
from tests.state.read_calls import READS
from tests.state.service_calls import SERVICE
from tests.state.watching_calls import WATCHING

from askel import LockLostError, StepState
from askel.state import Activations, Scripts, Timers, TokenSweep, denied_commands, load_scripts

CASES = [*PROTOCOL, *SERVICE, *READS, *KEEPING, *WATCHING, *GIVING_UP]
ROOT = Path(__file__).resolve().parents[2]
# Called by the daemon alone, and looked at there: see test_calls_with_literal_arguments.
DAEMON_ONLY = {"forget_consumer"}
BY_HAND = {"turn", "fire", "renew_lock", "release_lock", "self_test", "remake_tokens"}


def by_name(names, values):
    """Give *values* the names of a header, the last of which may repeat; lengths must agree."""
    *fixed, last = names
    if not last.endswith("..."):
        return dict(zip(names, values, strict=True))
    return {**dict(zip(fixed, values[: len(fixed)], strict=True)), last: values[len(fixed) :]}


def name_of(case: Case) -> str:
    return case.id or case.script


def ok_of(case: Case) -> StubConnection:
    return StubConnection({case.script: [b"OK", *case.answers["OK"][0]], "release_lock": [b"OK"]})


def test_every_script_has_its_callers_tested():
    assert {case.script for case in CASES} | BY_HAND | DAEMON_ONLY == set(load_scripts())


@pytest.mark.parametrize("case", CASES, ids=name_of)
async def test_caller_sends_what_the_header_names_in_its_order(case):
    script, stub = load_scripts()[case.script], ok_of(case)

    await case.drive(stub)

    call = stub.call(case.script)
    assert by_name(script.keys, call.keys) == case.keys
    assert by_name(script.args, call.args) == case.args


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_every_answer_in_the_header_has_a_meaning(case):
    assert set(case.answers) == set(load_scripts()[case.script].answers)


MEANINGS = [
    pytest.param(case, word, id=f"{name_of(case)}-{word}")
    for case in CASES
    for word in case.answers
]


@pytest.mark.parametrize(("case", "word"), MEANINGS)
async def test_caller_understands_the_answer(case, word):
    rest, meaning = case.answers[word]
    stub = StubConnection({case.script: [word.encode(), *rest], "release_lock": [b"OK"]})

    if isinstance(meaning, type) and issubclass(meaning, Exception):
        with pytest.raises(meaning):
            await case.drive(stub)
    else:
        returned = await case.drive(stub)
        assert (returned.status if isinstance(returned, StepState) else returned) == meaning


@pytest.mark.parametrize("case", CASES, ids=name_of)
async def test_caller_does_not_take_an_answer_that_is_not_in_the_header(case):
    with pytest.raises(AssertionError, match="answered UNHEARD"):
        await case.drive(StubConnection({case.script: [b"UNHEARD", b"x"]}))


# Scripts whose arguments repeat in groups.


def records(names, values, at):
    """Read one record of an include's comment, where a count stands before what it counts."""
    record = {}
    for name in names:
        if name.endswith("..."):
            count = record["n" + {"field...": "fields", "word...": "words"}[name]]
            record[name], at = values[at : at + count], at + count
        else:
            record[name], at = values[at], at + 1
    return record, at


def test_include_turn_names_the_records_of_a_turn():
    assert set(turn_records()) == {"result", "decision"}


def turn_records():
    text = (ROOT / "state/askel/state/lua/include/turn.lua").read_text("utf-8")
    found = re.findall(r"^-- (result|decision): ([^(\n]*)", text, re.MULTILINE)
    return {name: words.split() for name, words in found}


TURN_KEYS = {
    **RUN_KEYS,
    "stream": STREAM,
    "timers": K.timers,
    "steps": K.steps("r"),
    "events": K.events,
    "runs": K.runs,
    "step_or_stream...": [
        K.step("r", "a"),
        K.step("r", "b"),
        K.step("r", "c"),
        STREAM,
        K.step("r", "d"),
    ],
}
TURN_ARGS = {
    "group": "askeld",
    "entry": "5-1",
    "owner": "own",
    "turn": 4,
    "seen": 6,
    "nonce": "tn",
    "end": "completed",
    "outcome": "output",
    "json": b"9",
    "keep_lock": "0",
    "offset": 11,
    "run_id": "r",
    "nresults": 2,
}
RESULTS = [
    {
        "key": K.step("r", "a"),
        "expect": "running",
        "attempt": 1,
        "nonce": "an",
        "becomes": "succeeded",
        "outcome": "result",
        "json": b"1",
        "name": "a",
        "final": "1",
        "seen": 5,
        "timer": b"over",
    },
    {
        "key": K.step("r", "b"),
        "expect": "running",
        "attempt": 2,
        "nonce": "*",
        "becomes": "lost",
        "outcome": "error",
        "json": b"{}",
        "name": "b",
        "final": "0",
        "seen": 6,
        "timer": b"",
    },
]
NOTHING = {
    "delay": "",
    "timer": b"",
    "queue": "",
    "nfields": 0,
    "field...": [],
    "nwords": 0,
    "word...": [],
}
DECISIONS = [
    {
        **NOTHING,
        "key": K.step("r", "b"),
        "expect": "running",
        "attempt": 2,
        "becomes": "pending",
        "new_attempt": 3,
        "nonce": "",
        "name": "b",
        "body": "bb",
        "delay": 40,
        "timer": b"timer",
    },
    {
        **NOTHING,
        "key": K.step("r", "c"),
        "expect": "",
        "attempt": "",
        "becomes": "scheduled",
        "new_attempt": 1,
        "nonce": "",
        "name": "c",
        "body": "cb",
        "queue": STREAM,
        "nfields": 2,
        "field...": ["stepId", "x"],
        "nwords": 2,
        "word...": ["type", "step.execute"],
    },
    {
        **NOTHING,
        "key": K.step("r", "d"),
        "expect": "",
        "attempt": "",
        "becomes": "running",
        "new_attempt": 1,
        "nonce": "dn",
        "name": "d",
        "body": "db",
        "nfields": 4,
        "field...": ["stepId", "y", "data", b"1"],
    },
]


async def test_turn_sends_what_its_header_and_its_include_name():
    script, names = load_scripts()["turn"], turn_records()
    stub = StubConnection({"turn": [b"END"]})

    await caller(Activations, stub).turn(TURN, ENTRY)

    call = stub.call("turn")
    fixed = script.args.index("nresults") + 1
    assert script.args[fixed:] == ("result...", "ndecisions", "decision...")
    assert by_name(script.keys, call.keys) == TURN_KEYS
    assert dict(zip(script.args[:fixed], call.args[:fixed], strict=True)) == TURN_ARGS
    at, read = fixed, []
    for _ in range(2):
        record, at = records(names["result"], call.args, at)
        read.append({**record, "key": call.keys[record["key"] - 1]})
    assert read == RESULTS
    assert call.args[at] == 3
    at, read = at + 1, []
    for _ in range(3):
        record, at = records(names["decision"], call.args, at)
        record["queue"] = record["queue"] and call.keys[record["queue"] - 1]
        read.append({**record, "key": call.keys[record["key"] - 1]})
    assert at == len(call.args)
    assert read == DECISIONS


@pytest.mark.parametrize("word", TURN_ANSWERS)
async def test_turn_understands_the_answer(word):
    rest, meaning = TURN_ANSWERS[word]

    assert (
        await caller(Activations, StubConnection({"turn": [word.encode(), *rest]})).turn(TURN, None)
        == meaning
    )


async def test_turn_understands_its_whole_header_and_nothing_else():
    assert set(TURN_ANSWERS) == set(load_scripts()["turn"].answers)
    with pytest.raises(AssertionError, match="answered UNHEARD"):
        await caller(Activations, StubConnection({"turn": [b"UNHEARD"]})).turn(TURN, None)


async def test_inline_turn_has_no_entry_and_keeps_the_lock():
    stub = StubConnection({"turn": [b"END"]})

    await caller(Activations, stub).turn(TURN, None)

    sent = dict(zip(load_scripts()["turn"].args, stub.call("turn").args, strict=False))
    assert (sent["entry"], sent["keep_lock"]) == ("", "1")


async def test_fire_sends_each_timer_with_its_stream_and_words():
    script, stub = load_scripts()["fire"], StubConnection({"fire": [b"OK", 2]})

    fired = await caller(Timers, stub).fire(
        [(b"m1", "p:commands", ["a", "1"]), (b"m2", STREAM, ["b"]), (b"m3", "p:commands", [])]
    )

    call = stub.call("fire")
    assert (fired, script.answers) == (2, ("OK",))
    assert by_name(script.keys, call.keys) == {
        "timers": K.timers,
        "stream...": ["p:commands", STREAM],
    }
    assert " ".join(script.args) == "offset count {member stream nwords word...}..."
    assert call.args == [11, 3, b"m1", 2, 2, "a", "1", b"m2", 3, 1, "b", b"m3", 2, 0]
    with pytest.raises(AssertionError, match="answered UNHEARD"):
        await caller(Timers, StubConnection({"fire": [b"UNHEARD"]})).fire([])


async def test_self_test_sends_each_command_with_its_length():
    script, stub = load_scripts()["self_test"], StubConnection({"self_test": [b"OK", []]})

    await denied_commands(Scripts(stub), K, ["due"], also=["XLEN"])

    assert (script.keys, script.answers) == (("meta", "key..."), ("OK", "NOMETA"))
    assert " ".join(script.args) == "ncommands {nwords word...}..."
    *places, last = [call for call in stub.calls if call.script == "self_test"]
    assert all(call.keys[0] == K.meta and call.args == [0] for call in places)
    none = K.lock("-self-test")
    assert last.keys == [K.meta, none]
    assert last.args == [3, 1, "TIME", 2, "XLEN", none, 4, "ZRANGEBYSCORE", none, "0", "0"]
    stub = StubConnection({"self_test": [b"NOMETA"]})
    assert await denied_commands(Scripts(stub), K, ["due"]) == {}


async def test_remake_tokens_sends_a_page_of_runs():
    script, stub = (
        load_scripts()["remake_tokens"],
        StubConnection({"remake_tokens": [b"OK", [b"r"]]}),
    )
    plain = stub.send

    async def send(*command):
        return [b"r", b"s"] if command[0] == "ZRANGE" else await plain(*command)

    stub.send = send

    assert await caller(TokenSweep, stub).run_once(silent_ms=6) == (["r"], True)

    call = stub.call("remake_tokens")
    assert script.keys == ("commands", "run_stem", "ctl_stem")
    assert call.keys == [K.commands_default, K.run(""), K.ctl("")]
    assert " ".join(script.args) == "group offset silent_ms run_id..."
    assert call.args == ["askeld", 11, 6, b"r", b"s"]
    assert script.answers == ("OK",)


LOCKED = {"acquire_lock": [b"OK", 1], "renew_lock": [b"OK"], "release_lock": [b"OK"]}


async def test_release_lock_sends_what_its_header_names_and_takes_both_answers():
    script = load_scripts()["release_lock"]
    for word in script.answers:
        stub = StubConnection({**LOCKED, "release_lock": [word.encode()]})
        async with service(stub).run_lock("r") as lock:
            pass
        call = stub.call("release_lock")
        assert by_name(script.keys, call.keys) == {"ctl": K.ctl("r"), "lock": K.lock("r")}
        assert by_name(script.args, call.args) == {"holder": lock.holder}


@pytest.mark.parametrize(("word", "lost"), [("OK", False), ("LOST", True)])
async def test_renew_lock_sends_what_its_header_names_and_takes_both_answers(word, lost):
    script = load_scripts()["renew_lock"]
    assert set(script.answers) == {"OK", "LOST"}
    stub = StubConnection({**LOCKED, "renew_lock": [word.encode()]})

    async def hold():
        async with service(stub).run_lock("r", ttl="60ms") as lock:
            while len([call for call in stub.calls if call.script == "renew_lock"]) < 2:
                await stub.send("PING")
        return lock

    if lost:
        with pytest.raises(LockLostError):
            await hold()
    else:
        await hold()
    call = next(call for call in stub.calls if call.script == "renew_lock")
    assert by_name(script.keys, call.keys) == {"lock": K.lock("r")}
    assert by_name(script.args, call.args) == {"holder": "nonce1", "lease_ms": 60}


async def test_any_caller_of_a_script_learns_of_an_answer_that_is_not_in_its_header():
    for name in load_scripts():
        with pytest.raises(AssertionError, match=f"{name} answered UNHEARD"):
            await Scripts(StubConnection({name: [b"UNHEARD"]})).run(name, [], [])


def literal_calls():
    """Calls in the source of a script by name whose KEYS and ARGV are written out as lists."""
    for path in [*ROOT.glob("state/askel/**/*.py"), *ROOT.glob("daemon/askeld/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(
                    args=[
                        ast.Constant(value=str(name)),
                        ast.List(elts=keys),
                        ast.List(elts=args),
                        *_,
                    ]
                ) if name in load_scripts() and not any(
                    isinstance(item, ast.Starred) for item in [*keys, *args]
                ):
                    yield path.name, load_scripts()[name], len(keys), len(args)


def test_calls_with_literal_arguments_send_as_many_as_the_header_names():
    found = list(literal_calls())
    wrong = [
        f"{file}: {script.name} is sent {keys} keys and {args} arguments"
        for file, script, keys, args in found
        if (keys, args) != (len(script.keys), len(script.args))
    ]

    assert not wrong
    assert {script.name for _, script, _, _ in found} >= {"release_lock", "renew_lock", "drop"}
