"""`askel dead`: what it prints, what it does, and what it refuses."""

import pytest
from tests.helpers.keys import sync_client


@pytest.fixture
def redis(own_server):
    """A Redis without anything in it."""
    with sync_client(own_server.url) as redis:
        redis.flushall()
        yield redis


@pytest.fixture
def verb(own_server, redis, call):
    """Call the verb on that Redis."""
    return lambda *words: call("dead", *words, REDIS_URL=own_server.url)


def letter(redis, number, **fields):
    """Write a dead letter as workers do."""
    words = {
        "reason": "run_not_found",
        "detail": f"run 'r{number}' does not exist",
        "stream": "workflows:commands",
        "entry": f"{number + 1}-0",
        "deliveries": 1,
        "at": 1_795_376_759_833 + number,
        "type": "run.signal",
        "run_id": f"r{number}",
        "name": "paid",
        "data": '{"iban":"secret"}',
        **fields,
    }
    return redis.xadd("workflows:dead", words, id=f"{1_000 + number}-0").decode()


def sent(redis):
    """What stands on the stream, and how many letters are left."""
    entries = [fields[b"run_id"].decode() for _, fields in redis.xrange("workflows:commands")]
    return entries, redis.xlen("workflows:dead")


def test_ls_shows_the_newest_first_and_no_payload(verb, redis):
    assert verb("ls").out == "no dead letters\n"
    for number in range(3):
        letter(redis, number)

    ran = verb("ls")

    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[0] == ["LETTER", "AT", "(UTC)", "REASON", "COMMAND", "RUN", "DETAIL"]
    assert [line[0] for line in lines[1:]] == ["1002-0", "1001-0", "1000-0"]
    assert lines[1][3:6] == ["run_not_found", "run.signal", "r2"]
    assert "secret" not in ran.out
    whole = verb("ls", "--json").json()
    assert (whole["count"], whole["cursor"]) == (3, None)
    assert whole["letters"][2] == {
        "id": "1000-0",
        "reason": "run_not_found",
        "detail": "run 'r0' does not exist",
        "at": "2026-11-22T19:45:59.833000Z",
        "stream": "workflows:commands",
        "entry": "1-0",
        "deliveries": 1,
        "type": "run.signal",
        "run_id": "r0",
        "names": {"name": "paid"},
    }


def test_next_page_is_named(verb, redis):
    for number in range(3):
        letter(redis, number)

    ran = verb("ls", "--limit", "2", "--reason", "run_not_found")

    more = "askel dead ls --reason run_not_found --limit 2 --cursor 1001-0"
    assert ran.err == f"more of 3 letters: {more}\n"
    shown = verb(*more.split()[2:])
    assert [line.split()[0] for line in shown.out.splitlines()[1:]] == ["1000-0"]
    assert shown.err == ""
    assert verb("ls", "--reason", "poison").out == "no such dead letters\n"


def test_show_has_everything(verb, redis):
    letter_id = letter(redis, 7, note="one\x1b[2Jline\ntwo")

    lines = verb("show", letter_id).out.splitlines()

    assert "reason      run_not_found" in lines
    assert 'data    {"iban":"secret"}' in lines
    assert "note    one\\x1b[2Jline two" in lines
    fields = verb("show", letter_id, "--json").json()["fields"]
    assert fields["data"] == '{"iban":"secret"}'
    ran = verb("show", "5-0")
    assert (ran.code, ran.complaint) == (3, "askel dead: there is no dead letter '5-0'")


def test_redrive_by_id_tells_what_is_missing_and_what_stays(verb, redis):
    first, second = letter(redis, 0), letter(redis, 1, reason="body_lost")

    ran = verb("redrive", first, second, "5-0", "--json")

    assert ran.code == 4
    assert ran.json() == {
        "redriven": [first],
        "missing": ["5-0"],
        "refused": {second: "it does not hold its command"},
    }
    assert sent(redis) == (["r0"], 1)
    ran = verb("redrive", first)
    assert (ran.code, ran.out) == (3, "0 redriven\n")
    assert ran.err == f"askel dead: there is no dead letter {first}\n"


@pytest.mark.parametrize(("action", "past"), [("redrive", "redriven"), ("drop", "dropped")])
def test_all_want_a_yes_and_go_in_order(verb, redis, action, past):
    for number in range(4):
        letter(redis, number, reason="poison" if number == 2 else "run_not_found")

    ran = verb(action, "--all", "--reason", "run_not_found")

    assert ran.code == 4
    assert ran.complaint == (
        f"askel dead: this would {action} 3 dead letters: "
        "look at them with 'askel dead ls', then add --yes"
    )
    assert sent(redis) == ([], 4)
    ran = verb(action, "--all", "--reason", "run_not_found", "--yes")
    assert (ran.code, ran.out, ran.err) == (0, f"3 {past}\n", "")
    assert sent(redis) == (["r0", "r1", "r3"] if action == "redrive" else [], 1)


def test_all_of_nothing_is_nothing(verb):
    assert verb("redrive", "--all").out == "0 redriven\n"


def test_drop_by_age_and_run(verb, redis):
    letter(redis, 0)
    new = letter_of_now(redis)

    assert verb("drop", "--all", "--older-than", "1d", "--yes").out == "1 dropped\n"
    assert verb("ls", "--json").json()["letters"][0]["id"] == new
    assert verb("drop", "--all", "--run", "nobody", "--yes").out == "0 dropped\n"
    assert verb("drop", new).out == "1 dropped\n"


def letter_of_now(redis):
    """Write a letter with an id of the server's making."""
    words = {"reason": "poison", "stream": "workflows:commands", "type": "run.signal"}
    return redis.xadd("workflows:dead", words).decode()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("list",), "invalid choice"),
        (("ls", "1-0"), "did you mean 'askel dead show ID'?"),
        (("ls", "--limit", "0"), "limit=0: give 1 to 1000"),
        (("ls", "--limit", "x"), "invalid int value"),
        (("ls", "--cursor", "x"), "'x' is no id of a cursor"),
        (("ls", "--run", "a:b"), "a:b"),
        (("ls", "--older-than", "a week"), "--older-than 'a week' is no time"),
        (("show",), "give the id of one letter"),
        (("show", "1-0", "2-0"), "give the id of one letter"),
        (("show", "abc"), "'abc' is no id of a dead letter"),
        (("redrive",), "dead redrive: give ids of letters, or --all"),
        (("redrive", "1-0", "--all"), "dead redrive: give ids of letters, or --all"),
        (("drop", "1-0", "--reason", "poison"), "filters go with --all"),
        (("drop", "*"), "'*' is no id of a dead letter"),
    ],
)
def test_what_makes_no_sense_is_refused(verb, redis, words, complaint):
    letter(redis, 0)

    ran = verb(*words)

    assert ran.code == 2
    assert complaint in ran.complaint
    assert sent(redis) == ([], 1)


def test_without_an_action_it_lists(verb, redis):
    letter(redis, 0)

    assert verb().out == verb("ls").out
    assert "1000-0" in verb("--reason", "run_not_found").out
