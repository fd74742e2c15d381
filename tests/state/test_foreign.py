"""Entries made of what Node services wrote: what is added to a list, and where it stands."""

import json

import msgspec
import pytest

from askel.state import HistoryEntry, decode_entries, fold_attempts
from askel.state.pikku.foreign import ForeignStep, merged_entries
from askel.state.reads.records import read_ms

RUN = {"workflow": b"w", "status": b"running", "createdAt": b"100", "updatedAt": b"100"}


def listed(*entries):
    return decode_entries([json.dumps({"t": "step", "name": "a", **entry}) for entry in entries])


def started():
    return listed({"t": "run", "name": "", "status": "running", "at": 100, "workflow": "w"})


def step(status, attempt=1, members=(), **fields):
    given = {
        "stepId": "r:a:1",
        "status": status,
        "attemptCount": str(attempt),
        "createdAt": "110",
        "updatedAt": "200",
        **fields,
    }
    return ForeignStep(
        fields.pop("name", "a"),
        {name: value.encode() for name, value in given.items()},
        [
            member if isinstance(member, bytes) else json.dumps(member).encode()
            for member in members
        ],
    )


def merged(entries, *steps, run=RUN, variables=()):
    return merged_entries(run, entries, steps, dict(variables))


def path(entries):
    return [(entry.name, entry.attempt, entry.status) for entry in entries if entry.kind == "step"]


def test_list_that_says_all_is_returned_as_it_is():
    entries = started() + listed(
        {"at": 110, "status": "pending", "attempt": 1},
        {"at": 120, "status": "lost", "attempt": 1, "error": {"message": "x"}},
        {"at": 120, "status": "succeeded", "attempt": 2, "result": [1]},
    )
    member = {"attemptCount": 1, "status": "failed", "createdAt": 110, "failedAt": 120}
    again = {"attemptCount": 2, "status": "succeeded", "createdAt": 121, "succeededAt": 121}

    assert merged(entries, step("succeeded", 2, [member, again], result="[1]")) == entries


def test_run_of_node_alone_is_told_from_its_start_to_its_end():
    run = RUN | {"status": b"completed", "updatedAt": b"300", "output": b"7"}
    member = {"attemptCount": 1, "status": "succeeded", "result": "5"}
    member |= {"createdAt": 110, "scheduledAt": 115, "runningAt": 120, "succeededAt": 130}

    entries = merged([], step("succeeded", 1, [member], result="5", rpcName="f"), run=run)

    assert [(entry.kind, entry.status, entry.at) for entry in entries] == [
        ("run", "running", 100),
        ("step", "pending", 110),
        ("step", "scheduled", 115),
        ("step", "running", 120),
        ("step", "succeeded", 130),
        ("run", "completed", 300),
    ]
    (attempt,) = fold_attempts("r", entries)
    assert (attempt.step_id, attempt.rpc_name, attempt.result) == ("r:a:1", "f", 5)
    assert bytes(entries[-1].output) == b"7"


@pytest.mark.parametrize("skew", [-1_000, 0, 1_000])
def test_clock_of_the_other_system_decides_nothing_within_a_step(skew):
    entries = started() + listed(
        {"at": 110, "status": "pending", "attempt": 1},
        {"at": 150, "status": "failed", "attempt": 1, "error": {}},
        {"at": 160, "status": "pending", "attempt": 2},
        {"at": 190, "status": "succeeded", "attempt": 2, "result": 1},
    )
    first = {"attemptCount": 1, "status": "failed", "createdAt": 110, "runningAt": 120 + skew}
    second = {"attemptCount": 2, "status": "succeeded", "createdAt": 160, "runningAt": 170 + skew}

    told = merged(entries, step("succeeded", 2, [first, second], result="1"))

    assert path(told) == [
        ("a", 1, "pending"),
        ("a", 1, "running"),
        ("a", 1, "failed"),
        ("a", 2, "pending"),
        ("a", 2, "running"),
        ("a", 2, "succeeded"),
    ]


@pytest.mark.parametrize("status", ["running", "succeeded", "failed"])
def test_hash_has_the_last_word_on_the_newest_attempt(status):
    entries = started() + listed({"at": 110, "status": "pending", "attempt": 1})

    told = merged(entries, step(status, 1, [], result="1", error='{"message":"m"}'))

    assert path(told)[-1] == ("a", 1, status)
    assert told[-1].at == 200


def test_outcome_that_was_overwritten_is_told_anew():
    entries = started() + listed({"at": 110, "status": "succeeded", "attempt": 1, "result": 1})

    told = merged(entries, step("succeeded", 1, [], result="2"))

    (attempt,) = fold_attempts("r", told)
    assert (attempt.result, len(told)) == (2, 3)


def test_what_only_notes_something_is_no_status():
    entries = started() + listed(
        {"at": 110, "status": "running", "attempt": 1}, {"at": 120, "attempt": 1, "branch": "x"}
    )

    assert merged(entries, step("running")) == entries


@pytest.mark.parametrize(
    "member", [b"", b"{half", b"[]", b"7", b"{}", b'{"attemptCount":"x"}', b'{"attemptCount":null}']
)
def test_record_that_is_none_is_left_out(member):
    told = merged(started(), step("pending", 1, [member]))

    assert path(told) == [("a", 1, "pending")]


def test_status_that_nobody_knows_is_left_out():
    member = {"attemptCount": 1, "status": "banana", "createdAt": 110}

    assert path(merged(started(), step("banana", 1, [member]))) == [("a", 1, "pending")]


def test_variables_are_told_where_the_list_does_not_have_them():
    entries = [
        *started(),
        HistoryEntry(kind="state", at=150, name="a", value=msgspec.Raw(b"1")),
        HistoryEntry(kind="state", at=160, name="b", value=msgspec.Raw(b"1")),
    ]

    run = RUN | {"updatedAt": b"200"}

    told = merged(entries, run=run, variables={"a": b"2", "b": b"1", "c": b"{}"})

    added = [(entry.name, bytes(entry.value)) for entry in told[-2:]]
    assert (added, told[:3]) == ([("a", b"2"), ("c", b"{}")], entries)


def test_many_entries_are_placed_in_one_pass():
    entries = [HistoryEntry(kind="step", at=n, status="pending", name=f"s{n}") for n in range(3000)]
    steps = [step("running", name=f"s{n}", updatedAt=str(n)) for n in range(3000)]

    told = merged(entries, *steps)

    assert len(told) == 6001
    assert [e.name for e in told if e.status == "pending"] == [e.name for e in entries]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5),
        (5.9, 5),
        ("5", 5),
        (b"-5", -5),
        ("1970-01-01T00:00:01.500Z", 1500),
        (None, None),
        ("", None),
        ("x", None),
        (b"\xff", None),
        ([], None),
        (float("inf"), None),
        ("-", None),
    ],
)
def test_time_is_read_in_every_form(value, expected):
    assert read_ms(value) == expected
