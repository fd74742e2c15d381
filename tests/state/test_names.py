"""What may be called what, and that names map to keys injectively."""

from datetime import timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from askel import InvalidNameError, InvalidOptionError, RedisWorkflowService
from askel.durations import duration_ms, duration_text, wire_duration_ms
from askel.names import (
    check_name,
    check_own_step_name,
    check_prefix,
    check_queue,
    check_run_id,
)
from askel.state import Keys, idempotency_key, run_id_of_command, run_id_of_entry

RUN_IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
STEP_NAMES = st.text(
    st.one_of(st.sampled_from(":a#[]"), st.characters(exclude_categories=["Cc", "Cs"])),
    min_size=1,
    max_size=20,
)


@given(RUN_IDS, STEP_NAMES, RUN_IDS, STEP_NAMES)
def test_run_id_and_step_name_map_to_one_key_only(run_a, step_a, run_b, step_b):
    assume((run_a, step_a) != (run_b, step_b))
    keys = Keys("workflows")

    assert keys.step(check_run_id(run_a), check_name(step_a)) != keys.step(
        check_run_id(run_b), check_name(step_b)
    )


@given(RUN_IDS, STEP_NAMES)
def test_keys_of_one_run_differ_in_kind(run_id, step_name):
    keys = Keys("p")
    every = [*keys.run_keys(run_id), keys.step(run_id, step_name), keys.steps(run_id)]

    assert len(set(every)) == len(every)
    assert keys.run_keys(run_id) == [
        keys.run(run_id),
        keys.ctl(run_id),
        keys.history(run_id),
        keys.lock(run_id),
    ]


def test_key_names_are_the_documented_ones():
    keys = Keys("workflows")

    assert (keys.run("r"), keys.step("r", "a:b")) == ("workflows:run:r", "workflows:step:r:a:b")
    assert (keys.history("r"), keys.lock("r")) == ("workflows:history:r", "workflows:lock:r")
    assert (keys.steps("r"), keys.ctl("r")) == ("workflows:steps:r", "workflows:ctl:r")
    assert (keys.commands(), keys.commands("q")) == ("workflows:commands", "workflows:commands:q")
    assert keys.queue_of(keys.commands("q")) == "q"
    assert keys.queue_of(keys.commands()) == ""
    assert [keys.timers, keys.dead, keys.events, keys.meta, keys.runs, keys.schedules] == [
        f"workflows:{name}" for name in ("timers", "dead", "events", "meta", "runs", "schedules")
    ]


@pytest.mark.parametrize("run_id", ["a", "order-42", "0.a_b-c", "x" * 128])
def test_run_ids_that_are_allowed(run_id):
    assert check_run_id(run_id) == run_id


@pytest.mark.parametrize(
    "run_id",
    [
        "",
        "-a",
        ".a",
        "_a",
        "a:b",
        "a b",
        "x" * 129,
        "ä",
        "a\n",
        "a{b}",
        "*",
        None,
        7,
        b"a",
        "\ud800",
    ],
)
def test_run_ids_that_are_refused(run_id):
    with pytest.raises(InvalidNameError, match=r"run id .* is not allowed: use 1 to 128"):
        check_run_id(run_id)


@pytest.mark.parametrize("name", ["a", "charge card", "größe: 5 €", "a:b:c", "ü" * 256, "#", "😀"])
def test_step_names_that_are_allowed(name):
    assert check_name(name) == name
    assert check_own_step_name(name) == name


@pytest.mark.parametrize("name", ["", "a\n", "\x00", "a\x7fb", "\x85", "\ud800", None, 7, b"a"])
def test_step_names_without_text_or_with_control_characters_are_refused(name):
    with pytest.raises(InvalidNameError, match="is not allowed: use text without control"):
        check_name(name)


@pytest.mark.parametrize("name", ["x" * 513, "ü" * 257, "😀" * 129])
def test_step_names_longer_than_512_bytes_are_refused(name):
    with pytest.raises(InvalidNameError, match="longer than 512 bytes") as caught:
        check_name(name)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["__init", "__", "a#1", "a#12", "a[0]", "x[3]", "a:onError", "#0"])
def test_names_that_the_engine_makes_are_refused_in_workflow_code(name):
    assert check_name(name) == name
    with pytest.raises(InvalidNameError, match="reserved"):
        check_own_step_name(name)


@pytest.mark.parametrize("name", ["a#", "a#b", "_a", "a[]", "a[x]", "onError", "a:onErrors", "#1a"])
def test_names_that_only_resemble_those_are_allowed(name):
    assert check_own_step_name(name) == name


@pytest.mark.parametrize(
    "prefix", ["workflows", "a", "app:prod", "{workflows}", "a.b_c-d", "x" * 64]
)
def test_prefixes_that_are_allowed(prefix):
    assert Keys(check_prefix(prefix)).run("r") == f"{prefix}:run:r"


@pytest.mark.parametrize(
    "prefix", ["", "a b", "x" * 65, "{a", "a}", "{a}b", "{}", "{{a}}", "a*", "ä", None]
)
def test_prefixes_that_are_refused(prefix):
    with pytest.raises(InvalidNameError, match="key prefix"):
        RedisWorkflowService("redis://127.0.0.1:1", key_prefix=prefix)


@pytest.mark.parametrize("queue", ["", "a:b", "a b", "-a", "x" * 65, "ä", None])
def test_queues_that_are_refused(queue):
    with pytest.raises(InvalidNameError, match="queue"):
        check_queue(queue)


def test_queue_given_for_the_prefix_is_explained():
    with pytest.raises(InvalidOptionError, match="did you mean key_prefix='shop'"):
        RedisWorkflowService("redis://127.0.0.1:1", "shop")


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        ("250ms", 250),
        ("5s", 5_000),
        ("5min", 300_000),
        ("2h", 7_200_000),
        ("3d", 259_200_000),
        ("1.5s", 1_500),
        (" 5 s ", 5_000),
        (5, 5_000),
        (0.25, 250),
        (0, 0),
        (timedelta(minutes=2), 120_000),
        (timedelta(microseconds=1500), 2),
        (timedelta(days=365 * 1000), 365 * 1000 * 86_400_000),
    ],
)
def test_durations(value, milliseconds):
    assert duration_ms(value) == milliseconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "5",
        "5 sec",
        "-5s",
        "s",
        "1e3s",
        "\N{ARABIC-INDIC DIGIT FIVE}s",
        -1,
        float("nan"),
        float("inf"),
        10**400,
        True,
        None,
        [],
        b"5s",
        timedelta(seconds=-1),
        "9" * 5_000 + "d",
        "1001000d",
    ],
)
def test_what_is_no_duration(value):
    with pytest.raises(InvalidOptionError, match="write a timedelta, a number of seconds or text"):
        duration_ms(value)


@given(st.integers(0, 10**13))
def test_duration_text_is_read_back_as_the_same_duration(milliseconds):
    assert duration_ms(duration_text(milliseconds)) == milliseconds
    assert wire_duration_ms(duration_text(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("1500", 1_500), ("0", 0), ("007", 7), ("2s", 2_000), ("9" * 30, 31_622_400_000_000)],
)
def test_digits_on_the_wire_are_milliseconds(text, milliseconds):
    assert wire_duration_ms(text) == milliseconds


def test_digits_without_end_on_the_wire_are_the_longest_duration():
    assert wire_duration_ms("9" * 5_000) == wire_duration_ms("9" * 30)
    assert wire_duration_ms("0" * 5_000 + "7") == 7


@pytest.mark.parametrize("text", ["", "-5", "\N{ARABIC-INDIC DIGIT FIVE}", "1.5", "5 sec", "x"])
def test_what_is_no_duration_on_the_wire(text):
    with pytest.raises(InvalidOptionError):
        wire_duration_ms(text)


def test_ids_that_are_derived_are_the_same_everywhere():
    assert idempotency_key("run-1", "step-a") == "f84b2127-8d18-5c23-9ff6-d4943d8356cf"
    assert run_id_of_command("k") == run_id_of_command("k") != run_id_of_command("l")
    first = run_id_of_entry("p:commands", "1700000000000-0")
    assert first == run_id_of_entry("p:commands", "1700000000000-0")
    assert first != run_id_of_entry("p:commands", "1700000000000-1")
    assert check_run_id(first)
