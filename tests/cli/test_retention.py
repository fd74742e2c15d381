"""`askel retention` and `askel reindex`: what they print, and what they refuse."""

import pytest
from tests.helpers.keys import sync_client

DEFAULT = {"ttl": "30d", "max_runs": None, "max_bytes": None}
OWN = {"ttl": "7d", "max_runs": 10_000, "max_bytes": "1GiB"}


@pytest.fixture
def verb(own_server, call):
    """Call a verb on a Redis without anything in it."""
    with sync_client(own_server.url) as redis:
        redis.flushall()
    return lambda *words: call(*words, REDIS_URL=own_server.url)


def test_policies_are_set_shown_and_cleared(verb):
    assert verb("retention").out == "no policy: ended runs stay\n"
    bounds = ("--ttl", "7d", "--max-runs", "10000", "--max-bytes", "1GiB")
    ran = verb("retention", "set", "checkout", *bounds)
    assert ran.out == "the policy of checkout: ttl 7d, max runs 10000, max bytes 1GiB\n"
    ran = verb("retention", "set", "--default", "--ttl", "30d")
    assert (ran.code, ran.out, ran.err) == (0, "the default policy: ttl 30d\n", "")

    shown = verb("retention", "--json").json()
    assert shown == {"default": DEFAULT, "workflows": {"checkout": OWN}}
    lines = verb("retention", "show").out.splitlines()
    assert [line.split() for line in lines] == [
        ["WORKFLOW", "TTL", "MAX", "RUNS", "MAX", "BYTES"],
        ["(default)", "30d"],
        ["checkout", "7d", "10000", "1GiB"],
    ]
    only = verb("retention", "show", "other", "--json").json()
    assert only == {"default": DEFAULT, "workflows": {}}

    assert verb("retention", "clear", "checkout").out == "the policy of checkout is cleared\n"
    ran = verb("retention", "clear", "checkout")
    assert (ran.code, ran.out) == (0, "there was no such policy\n")
    assert verb("retention", "clear", "--default").code == 0
    assert verb("retention", "--json").json() == {"default": None, "workflows": {}}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("set", "w"), "give --ttl, --max-runs or --max-bytes"),
        (("set", "--ttl", "7d"), "give the name of a workflow, or --default"),
        (("set", "w", "--default", "--ttl", "7d"), "give the name of a workflow, or --default"),
        (("set", "w", "--ttl", "a week"), "--ttl 'a week' is no time"),
        (("set", "w", "--max-runs", "-1"), "--max-runs '-1' is no count"),
        (("set", "w", "--max-runs", "many"), "--max-runs 'many' is no count"),
        (("set", "w", "--max-bytes", "1GB"), "--max-bytes '1GB' is no size: write it as"),
        (("set", "*", "--max-runs", "1"), "None is the default policy"),
        (("clear",), "give the name of a workflow, or --default"),
        (("show", "--ttl", "7d"), "did you mean 'askel retention set'?"),
        (("drop",), "invalid choice"),
    ],
)
def test_what_makes_no_sense_is_refused(verb, words, complaint):
    ran = verb("retention", *words)

    assert ran.code == 2
    assert complaint in ran.complaint
    assert verb("retention", "--json").json() == {"default": None, "workflows": {}}


def test_sizes_are_read_as_bytes_or_with_a_unit(verb):
    for given, shown in {"500": "500B", "2048": "2KiB", "20MiB": "20MiB", "0": "0B"}.items():
        assert verb("retention", "set", "w", "--max-bytes", given).code == 0
        assert verb("retention", "--json").json()["workflows"]["w"]["max_bytes"] == shown


def test_damaged_policy_is_named(verb, own_server):
    with sync_client(own_server.url) as redis:
        redis.hset("workflows:retention", "w", "{")

    assert "policy of 'w' in Redis is damaged: set it anew" in verb("retention").complaint


def foreign(url):
    with sync_client(url) as redis:
        fields = {"id": "n", "workflow": "w", "status": "running", "createdAt": 1, "input": "1"}
        redis.hset("workflows:run:n", mapping=fields)
        redis.hset("workflows:run:bad", "id", "bad")
        redis.rpush("workflows:history:gone", "{}")


def test_reindex_says_what_it_found_and_mended(verb, own_server):
    foreign(own_server.url)

    assert verb("reindex", "--dry-run").out.splitlines() == [
        "2 runs seen",
        "1 in no index: would be indexed",
        "0 in some indexes only, or at the wrong place: would be put right",
        "0 index entries that were out of date: would be removed",
        "0 steps that their run did not name: would be named",
        "1 keys left of runs that are gone: would be removed",
        "1 runs are damaged: bad",
    ]
    ran = verb("reindex", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json() == {
        "runs": 2,
        "indexed": 1,
        "moved": 0,
        "dropped": 0,
        "steps": 0,
        "orphans": 1,
        "unreadable": ["bad"],
        "dry_run": False,
    }
    assert "1 in no index" not in verb("reindex").out
    ran = verb("ls")
    assert ran.out.splitlines()[1].startswith("n ")
    assert ran.err == "not shown, their records are damaged: bad\n"


def test_list_of_entries_that_are_out_of_date_says_how_it_goes_on(verb, own_server):
    with sync_client(own_server.url) as redis:
        redis.zadd("workflows:runs", {f"gone{n:04}": 5 for n in range(1_500)})

    ran = verb("ls")

    assert (ran.code, ran.out) == (0, "")
    assert ran.err.startswith("more: askel ls --cursor 5:gone")
    assert verb("ls", "--cursor", ran.err.split()[-1]).out == "no runs\n"


def test_what_was_set_is_told_in_json(verb):
    ran = verb("retention", "set", "checkout", "--ttl", "7d", "--json")
    policy = {"ttl": "7d", "max_runs": None, "max_bytes": None}
    assert ran.json() == {"workflow": "checkout", "policy": policy}
    ran = verb("retention", "clear", "checkout", "--json")
    assert ran.json() == {"workflow": "checkout", "policy": None}
    ran = verb("retention", "clear", "--default", "--json")
    assert ran.json() == {"workflow": None, "policy": None}
