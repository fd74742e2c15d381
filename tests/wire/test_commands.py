"""Commands: flat text fields, decoded whole or refused with a word and a sentence."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from askel import IfExists
from askel.state import run_id_of_command
from askel.wire import (
    Command,
    CommandError,
    RunApprove,
    RunCancel,
    RunCreate,
    RunSignal,
    RunStart,
    StepComplete,
    StepExecute,
    decode_command,
    decode_timer,
    encode_command,
    encode_timer,
)
from askel.wire.commands import _TYPES, VERSION

KINDS = Command.__args__
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
RUN_IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
).map(lambda value: msgspec.json.encode(value).decode())
DURATIONS = st.sampled_from(["5s", "250ms", "1500", "2h"])
FIELDS = {
    "v": st.just(1),
    "id": TEXTS,
    "at": st.none() | st.integers(0, 2**53),
    "reply_to": st.just(""),  # refused by this version
    "traceparent": TEXTS,
    "unknown_since": st.none() | st.integers(0, 2**53),
    "tries": st.integers(0, 9),
    "workflow": NAMES,
    "run_id": RUN_IDS,
    "queue": st.just("") | RUN_IDS,
    "durability": st.sampled_from(["", "memory", "fsync", "replicated(2)"]),
    "if_exists": st.sampled_from(list(IfExists)).map(str),
    "born": st.just("") | st.integers(0, 2**53).map(str),
    "reason": TEXTS,
    "name": NAMES,
    "decided_by": TEXTS,
    "step_name": NAMES,
    "rpc_name": NAMES,
    "retries": st.none() | st.integers(0, 100),
    "retry_delay": st.just("") | DURATIONS,
    "timeout": st.just("") | DURATIONS,
    "attempt": st.integers(1, 100),
    "input": JSON,
    "data": JSON,
    "result": JSON,
    "error": JSON,
    "output": JSON,
}


def commands(kind):
    """Any command of one type."""
    names = [field.name for field in msgspec.structs.fields(kind)]
    return st.builds(kind, **{name: FIELDS[name] for name in names})


def fields(**given):
    """The flat fields of an entry."""
    return [
        word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogateescape")
        for pair in given.items()
        for word in pair
    ]


REASONS = {"invalid_command", "invalid_name", "invalid_payload", "unknown_version", "unsupported"}


def decoded(flat):
    """The command in *flat* and None, or None and the refusal; anything else fails the test."""
    try:
        return decode_command(flat), None
    except CommandError as error:
        return None, error


def refusal(flat, **options):
    """The word and the sentence with which *flat* is refused."""
    with pytest.raises(CommandError) as caught:
        decode_command(flat, **options)
    assert str(caught.value) == caught.value.detail
    return caught.value.reason, caught.value.detail


START = {"type": "run.start", "workflow": "w"}
EXECUTE = {"type": "step.execute", "run_id": "r", "step_name": "s", "rpc_name": "f"}
COMPLETE = {"type": "step.complete", "run_id": "r", "step_name": "s", "attempt": 1}


@given(st.sampled_from(KINDS).flatmap(commands))
def test_every_command_comes_back_as_it_was(command):
    words = encode_command(command)

    assert decode_command([word.encode() for word in words]) == command
    assert words[:2] == ["type", command.__struct_config__.tag]


@given(st.lists(st.binary(max_size=12), max_size=20).filter(lambda words: len(words) % 2 == 0))
def test_any_bytes_are_a_command_or_refused(flat):
    command, refused = decoded(flat)

    assert isinstance(command, KINDS) or (refused.reason and refused.detail)


WORDS = st.sampled_from(
    [
        "",
        "null",
        "true",
        "-1",
        "1e9",
        "9" * 400,
        "{}",
        "[" * 300,
        '"',
        "\x00",
        "x",
        "ä",
        "5s",
        "NaN",
    ]
)


@given(st.sampled_from(KINDS), st.data())
def test_any_values_of_known_fields_are_a_command_or_refused(kind, data):
    names = [field.name for field in msgspec.structs.fields(kind)]
    chosen = data.draw(st.dictionaries(st.sampled_from(names), WORDS))
    required = {
        name: "r"
        for name in names
        if name in {"workflow", "run_id", "step_name", "rpc_name", "name"}
    }
    command, refused = decoded(fields(type=kind.__struct_config__.tag, **{**required, **chosen}))

    if command is None:
        assert refused.reason in REASONS
        assert len(refused.detail) < 1_000


def test_types_are_the_documented_ones():
    assert {
        "run.start",
        "run.create",
        "run.complete",
        "run.fail",
        "run.cancel",
        "run.suspend",
        "run.resume",
        "run.terminate",
        "run.signal",
        "run.approve",
        "step.execute",
        "step.complete",
        "step.fail",
        "step.heartbeat",
        "run.advance",
        "timer.fire",
    } == _TYPES
    assert VERSION == 1


@pytest.mark.parametrize(
    ("kind", "required"),
    [
        (RunStart, {"workflow"}),
        (RunCreate, {"workflow"}),
        (RunCancel, {"run_id"}),
        (RunSignal, {"run_id", "name"}),
        (RunApprove, {"run_id", "reason", "data"}),
        (StepExecute, {"run_id", "step_name", "rpc_name"}),
        (StepComplete, {"run_id", "step_name", "attempt"}),
    ],
)
def test_required_fields_are_the_documented_ones(kind, required):
    assert {field.name for field in msgspec.structs.fields(kind) if field.required} == required
    values = {"attempt": 1, "data": "1"}
    whole = {
        "type": kind.__struct_config__.tag,
        **{name: values.get(name, "x") for name in required},
    }
    decode_command(fields(**whole))
    for name in required:
        missing = {key: value for key, value in whole.items() if key != name}
        reason, detail = refusal(fields(**missing))
        assert reason == "invalid_command"
        assert f"field {name!r} is missing" in detail


def test_plain_redis_cli_start_is_decoded():
    command = decode_command(
        fields(type="run.start", workflow="onboarding", input='{"a":1}', id="order-42")
    )

    assert command == RunStart(workflow="onboarding", input='{"a":1}', id="order-42")
    assert command.run == run_id_of_command("order-42")
    assert RunStart(workflow="w", run_id="r", id="i").run == "r"
    assert RunStart(workflow="w").run == ""


def test_fields_may_come_in_any_order_and_unknown_ones_are_left_alone():
    flat = fields(workflow="w", colour="red", type="run.start", id="i")

    assert decode_command(flat) == RunStart(workflow="w", id="i")


def test_defaults_are_left_out():
    assert encode_command(RunStart(workflow="w")) == ["type", "run.start", "workflow", "w"]
    assert encode_command(StepExecute(run_id="r", step_name="s", rpc_name="f", retries=0)) == [
        "type",
        "step.execute",
        "run_id",
        "r",
        "step_name",
        "s",
        "rpc_name",
        "f",
        "retries",
        "0",
    ]


@pytest.mark.parametrize(
    ("given", "reason", "detail"),
    [
        (
            {"workflow": "w"},
            "invalid_command",
            "field type is missing; it is one of run.ca",
        ),
        (
            {"type": "run.begin"},
            "unknown_command",
            "type 'run.begin' is unknown; it is one of run.cancel",
        ),
        ({"type": ""}, "unknown_command", "type '' is unknown"),
        ({"type": "x" * 500}, "unknown_command", "x' is unknown; it is one of"),
        (
            {"type": "run.start"},
            "invalid_command",
            "run.start: field 'workflow' is missing",
        ),
        ({**START, "workflow": ""}, "invalid_name", "workflow '' is not allowed"),
        ({**START, "workflow": "a\n"}, "invalid_name", "workflow .* is not allowed"),
        ({**START, "workflow": "JSON\x00"}, "invalid_name", "workflow .* is not allowed"),
        ({**START, "workflow": "x" * 513}, "invalid_name", "longer than 512 bytes"),
        ({**START, "run_id": "a:b"}, "invalid_name", "run id 'a:b' is not allowed: use 1 to 128"),
        ({**START, "queue": "a:b"}, "invalid_name", "queue 'a:b' is not allowed"),
        ({**START, "v": 2}, "unknown_version", "v 2 is not known here; this is v 1"),
        ({**START, "v": "x"}, "unknown_version", "v x is not known here"),
        ({"type": "run.new", "v": 2}, "unknown_version", "v 2 is not known here"),
        ({**START, "id": "x" * 257}, "invalid_command", "id is longer than 256 characters"),
        (
            {**START, "at": "soon"},
            "invalid_command",
            "run.start: field 'at' must be a number",
        ),
        ({**START, "at": "9" * 4_000}, "invalid_command", "at is beyond 2"),
        ({**START, "input": "{"}, "invalid_payload", "input: not valid JSON"),
        ({**START, "input": ""}, "invalid_payload", "input: not valid JSON"),
        ({**START, "input": "NaN"}, "invalid_payload", "input: not valid JSON"),
        (
            {**START, "input": "[" * 65 + "]" * 65},
            "invalid_payload",
            "input: JSON nested deeper than 64",
        ),
        (
            {**START, "input": '"' + "x" * 99 + '"'},
            "invalid_payload",
            "input: 101 bytes .* the limit of 100",
        ),
        ({**EXECUTE, "run_id": ""}, "invalid_command", "run_id is empty"),
        ({**EXECUTE, "step_name": ""}, "invalid_name", "step_name '' is not allowed"),
        ({**EXECUTE, "rpc_name": "\x01"}, "invalid_name", "rpc_name .* is not allowed"),
        ({**EXECUTE, "retries": -1}, "invalid_command", "retries must not be negative"),
        ({**EXECUTE, "retries": "many"}, "invalid_command", "field 'retries' must be a number"),
        ({**EXECUTE, "timeout": "soon"}, "invalid_command", "'soon' is not a duration"),
        ({**EXECUTE, "timeout": "-5"}, "invalid_command", "'-5' is not a duration"),
        ({**EXECUTE, "retry_delay": "fast"}, "invalid_command", "'fast' is not a duration"),
        (
            {**EXECUTE, "timeout": "exponential"},
            "invalid_command",
            "'exponential' is not a duration",
        ),
        ({**EXECUTE, "data": "{"}, "invalid_payload", "data: not valid JSON"),
        ({**COMPLETE, "attempt": "first"}, "invalid_command", "field 'attempt' must be a number"),
        ({**COMPLETE, "result": "nope"}, "invalid_payload", "result: not valid JSON"),
        (
            {"type": "step.fail", "run_id": "r", "step_name": "s", "attempt": 1, "error": "boom"},
            "invalid_payload",
            "error: not valid JSON",
        ),
        (
            {"type": "run.complete", "run_id": "r", "output": "x"},
            "invalid_payload",
            "output: not valid JSON",
        ),
        (
            {"type": "run.signal", "run_id": "r", "name": ""},
            "invalid_name",
            "name '' is not allowed",
        ),
    ],
)
def test_bad_command_is_refused_with_the_word_and_a_sentence(given, reason, detail):
    limit = 100 if "limit of 100" in detail else 1_000_000
    word, sentence = refusal(fields(**given), limit=limit)

    assert word == reason
    assert re.search(detail, sentence), sentence
    assert len(sentence) < 600


def test_field_given_twice_is_refused():
    flat = [*fields(**START), b"workflow", b"another"]

    assert refusal(flat) == ("invalid_command", "a field is given twice")


def test_too_many_fields_are_refused():
    few = fields(**START, **{f"x{number}": "" for number in range(30)})
    assert decode_command(few) == RunStart(workflow="w")

    many = [*few, b"one", b"more"]
    assert refusal(many) == ("invalid_command", "more than 32 fields")


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_text_that_is_not_utf8_is_refused(place):
    flat = fields(**START)
    flat[place] = b"\xff\xfe"

    assert refusal(flat) == ("invalid_command", "a field is not valid UTF-8")


def test_entry_whose_body_is_gone_says_so():
    assert refusal([])[0] == "body_lost"


def test_durations_on_the_wire_are_text_with_a_unit_or_milliseconds():
    for text in ("1500", "2s", "5min", "9" * 4_000):
        command = decode_command(fields(**EXECUTE, timeout=text, retry_delay=text))
        assert (command.timeout, command.retry_delay) == (text, text)
    assert decode_command(fields(**EXECUTE, retry_delay="exponential")).retry_delay == "exponential"


@given(st.text(), st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_timers_come_back_as_they_were(queue, pairs):
    words = [word for pair in pairs for word in pair]
    if queue.isascii():
        assert decode_timer(encode_timer(queue, words)) == (queue, words)


@pytest.mark.parametrize(
    ("member", "detail"),
    [
        (b"", "not a timer of askel"),
        (b"x", "not a timer of askel"),
        (b"{}", "not a timer of askel"),
        (b"[]", "not a timer of askel"),
        (b'["q",1,2]', "not a timer of askel"),
        (b"\xff", "not a timer of askel"),
        (b'["q"]', "its fields are not pairs"),
        (b'["q","type"]', "its fields are not pairs"),
    ],
)
def test_what_is_no_timer_is_refused(member, detail):
    with pytest.raises(CommandError, match=detail) as caught:
        decode_timer(member)
    assert caught.value.reason == "invalid_timer"
