"""The Lua scripts as files, and how they get to the server."""

import asyncio
import re

import pytest
from tests.helpers.state import recorded
from tests.helpers.stubs import StubConnection

from askel import ScriptMissingError, StoreReplyError, StoreUnavailableError, UnknownOutcomeError
from askel.state import Scripts, load_scripts
from askel.state.store.scripts import _parse

SCRIPTS = load_scripts()
each_script = pytest.mark.parametrize("script", SCRIPTS.values(), ids=lambda script: script.name)


def code(script):
    """The script without its comments and the arguments of its Redis calls' first words."""
    return re.sub(r"--[^\n]*", "", script.body)


@each_script
def test_no_script_searches_the_key_space(script):
    assert not re.search(r"'(KEYS|SCAN|RANDOMKEY|SORT|FLUSHDB|EVAL)'", code(script))
    assert "cjson.decode" not in code(script)


@each_script
def test_time_is_taken_in_one_place(script):
    assert code(script).count("'TIME'") <= 1


@each_script
def test_keys_and_arguments_beyond_the_named_ones_are_not_used(script):
    for table, names in (("KEYS", script.keys), ("ARGV", script.args)):
        used = [int(number) for number in re.findall(rf"{table}\[(\d+)\]", code(script))]
        if not names[-1].endswith("..."):
            assert max(used) == len(names), f"{table} is used up to {max(used)}, named are {names}"
        else:
            assert max(used, default=0) <= len(names)


@each_script
def test_words_in_the_header_are_those_in_the_code(script):
    calls = re.sub(r"redis\.call\('[^']*'", "", code(script))
    literal = set(re.findall(r"(?:return|answer\(|and|or)[ {(]*'([A-Z]{2,})'", calls))

    assert literal == set(script.answers)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("return 1", "first line must be '-- one: what it does'"),
        ("-- two: other\n-- KEYS\n-- ARGV a\n-- OK\n", "its header names two"),
        ("-- one: what\n-- ARGV a\n-- OK\n", "no line '-- KEYS ...'"),
        ("-- one: what\n-- KEYS a\n-- OK\n", "no line '-- ARGV ...'"),
    ],
)
def test_header_that_does_not_say_what_it_must_is_found(text, why):
    with pytest.raises(AssertionError, match=re.escape(why)):
        _parse("one", text, {})


@pytest.mark.usefixtures("redis_server")
async def test_script_that_the_server_forgot_is_loaded_and_sent_again(service, redis, keys):
    await service.create_run("w", run_id="r")
    step = await service.insert_step_state("r", "s", "f")
    await redis.script_flush()

    await service.set_step_running(step.step_id)
    await redis.script_flush()
    await service.set_step_result(step.step_id, 1)

    statuses = [entry["status"] for entry in await recorded(redis, keys, "r")]
    assert statuses == ["running", "pending", "running", "succeeded"]


@pytest.mark.usefixtures("redis_server")
async def test_many_tasks_survive_a_flush_in_mid_use(service, redis):
    await service.create_run("w", run_id="r")

    async def work(number):
        step = await service.insert_step_state("r", f"s{number}", "f")
        if number % 10 == 0:
            await redis.script_flush()
        await service.set_step_result(step.step_id, number)

    await asyncio.gather(*(work(number) for number in range(50)))

    history = await service.get_run_history("r")
    assert [(a.step_name, a.result) for a in sorted(history, key=lambda a: a.result)] == [
        (f"s{number}", number) for number in range(50)
    ]


class Failing(StubConnection):
    """Raises the given errors first."""

    def __init__(self, *errors):
        super().__init__({"release_lock": [b"OK"]})
        self.errors = list(errors)

    async def send(self, *command):
        await super().send(*command)
        if command[0] == "EVALSHA" and self.errors:
            raise self.errors.pop(0)
        return [b"OK"]


async def insist(connection, patience_s):
    return await Scripts(connection).insist("release_lock", ["k"], ["h"], patience_s=patience_s)


async def test_call_that_was_never_sent_is_sent_again_and_was_not_executed_before():
    connection = Failing(StoreUnavailableError("x"), StoreUnavailableError("x"))

    assert await insist(connection, 5) == ([b"OK"], False)
    assert len(connection.calls) == 3


async def test_call_whose_reply_was_lost_may_have_been_executed_before():
    connection = Failing(UnknownOutcomeError("x"), StoreUnavailableError("x"))

    assert await insist(connection, 5) == ([b"OK"], True)


async def test_patience_ends_with_the_error_and_never_hides_an_unknown_outcome():
    with pytest.raises(StoreUnavailableError):
        await insist(Failing(*[StoreUnavailableError("x")] * 9), 0.03)
    with pytest.raises(UnknownOutcomeError):
        await insist(Failing(UnknownOutcomeError("x"), *[StoreUnavailableError("x")] * 9), 0.03)


async def test_without_patience_there_is_one_try():
    connection = Failing(StoreUnavailableError("x"))

    with pytest.raises(StoreUnavailableError):
        await insist(connection, 0)
    assert len(connection.calls) == 1


async def test_refusal_for_good_is_not_repeated():
    connection = Failing(StoreReplyError("NOPERM no"))

    with pytest.raises(StoreReplyError, match="NOPERM"):
        await insist(connection, None)
    assert len(connection.calls) == 1


async def test_server_that_cannot_write_just_now_is_asked_again():
    errors = [StoreReplyError(f"{code} later") for code in ("LOADING", "READONLY", "MISCONF")]
    connection = Failing(*errors)

    assert await insist(connection, None) == ([b"OK"], False)
    assert len(connection.calls) == 4


async def test_missing_script_is_loaded_once_a_call():
    connection = Failing(ScriptMissingError("NOSCRIPT no"))

    assert await insist(connection, 0) == ([b"OK"], False)
    assert [command[0] for command in connection.commands] == ["EVALSHA", "SCRIPT", "EVALSHA"]
    assert connection.commands[1][2] == SCRIPTS["release_lock"].body
