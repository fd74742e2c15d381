"""`askel doctor` from a shell."""

import json

import pytest
from tests.cli.conftest import call

__all__ = ["call"]


@pytest.fixture
def doctor(call, own_server):
    return lambda *words: call("doctor", *words, REDIS_URL=own_server.url)


def test_what_is_red_is_printed_and_exits_with_6(doctor):
    ran = doctor()
    assert ran.code == 6
    lines = ran.out.splitlines()
    place = next(at for at, line in enumerate(lines) if line.startswith("RED workers"))
    assert lines[place + 1].strip().startswith("-> start a worker")
    assert lines[-1].split(":")[0].endswith("checks")
    assert not any(line.startswith("ok") for line in lines)
    assert sum(line.startswith("ok") for line in doctor("--all").out.splitlines()) > 25


def test_json_has_every_check(doctor):
    ran = doctor("--json")
    report = json.loads(ran.out)
    assert (ran.code, report["healthy"]) == (6, False)
    assert len(report["findings"]) > 25
    assert set(report["findings"][0]) == {"check", "level", "detail", "fix"}


def test_a_redis_that_is_away_is_one_finding(call):
    ran = call("doctor", "--redis", "redis://127.0.0.1:1")
    assert ran.code == 6
    assert "cannot reach Redis at 127.0.0.1:1" in ran.out
    assert "1 check: 1 red" in ran.out


def test_an_app_that_is_none_is_a_usage_error(doctor):
    ran = doctor("nowhere:app")
    assert ran.code == 2
    assert "cannot import 'nowhere'" in ran.err


def test_a_database_that_does_not_exist_is_one_finding(call, own_server):
    """Every command would be refused by the login, each after a longer pause."""
    ran = call("doctor", "--redis", own_server.url.removesuffix("/0") + "/99")
    assert ran.code == 6
    assert "has no database '99': ERR DB index is out of range" in ran.out
    assert "1 check: 1 red" in ran.out
