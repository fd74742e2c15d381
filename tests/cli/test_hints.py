"""What the program says when Redis refuses: one line that says what to do next."""

import pytest
from tests.helpers.keys import sync_client

from askeld.acl import rule
from askeld.embedded import EmbeddedServer

DEFAULT_URLS = "give a URL such as redis://host:6379/0"


@pytest.fixture(scope="module")
def full_server():
    options = {"appendonly": "no", "maxmemory-policy": "noeviction"}
    with EmbeddedServer(port=0, options=options) as server:
        with sync_client(server.url) as redis:
            redis.xadd("workflows:dead", {"reason": "poison", "at": "1"})
            redis.config_set("maxmemory", "100kb")
        yield server


@pytest.mark.parametrize(
    "words",
    [
        ("start", "w"),
        ("run", "w"),
        ("send", "run.cancel", "run_id", "r"),
        ("retention", "set", "--default", "--ttl", "7d"),
        ("retention", "clear", "--default"),
        ("reindex",),
    ],
    ids=" ".join,
)
def test_a_full_redis_is_told_with_what_frees_memory(call, full_server, words):
    ran = call(*words, REDIS_URL=full_server.url)

    assert ran.code == 1
    assert ran.complaint.startswith(f"askel {words[0]}: Redis is full (OOM)")
    assert "raise maxmemory" in ran.complaint
    assert "askel dead drop --all --older-than 30d --yes" in ran.complaint


def test_what_the_line_recommends_is_allowed_on_a_full_redis(call, full_server):
    letters = call("dead", "ls", "--json", REDIS_URL=full_server.url).json()
    assert letters["count"] == 1

    ran = call("dead", "drop", "--all", "--yes", REDIS_URL=full_server.url)
    assert (ran.code, ran.out) == (0, "1 dropped\n")


def test_a_replica_is_told_with_how_to_name_the_primary(call, own_server):
    with sync_client(own_server.url) as redis:
        redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        ran = call("start", "w", REDIS_URL=own_server.url)
        redis.execute_command("REPLICAOF", "NO", "ONE")

    assert ran.code == 1
    assert "is a replica" in ran.complaint
    assert "redis+sentinel://" in ran.complaint


def test_a_key_of_another_type_leads_to_the_doctor(call, own_server):
    with sync_client(own_server.url) as redis:
        redis.set("odd:dead", "1")
        ran = call("dead", "ls", "--prefix", "odd", REDIS_URL=own_server.url)
        assert "odd:dead" in call("doctor", "--prefix", "odd", REDIS_URL=own_server.url).out
        redis.delete("odd:dead")

    assert ran.code == 1
    assert ran.complaint.endswith("(WRONGTYPE): askel doctor names it")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:17001", "it has no scheme"),
        ("localhost:17001", "it has no scheme"),
        ("http://foo", "its scheme, before ://, is none of these"),
        ("redis://127.0.0.1:99999", "the port is no number up to 65535"),
        ("redis://:s3/cret@127.0.0.1", "the port is no number up to 65535 (in a password, write"),
        ("redis://[::1", "the brackets of its host do not match"),
        ("redis://127.0.0.1/one", "after the port stands the number of a database"),
    ],
)
def test_of_an_address_it_says_which_part_is_wrong(call, url, said):
    ran = call("ls", "--redis", url)

    assert ran.code == 2
    assert ran.complaint.startswith("askel ls: --redis: the Redis connection is not unders")
    assert said in ran.complaint
    assert DEFAULT_URLS in ran.complaint
    assert "mapping" not in ran.complaint
    assert "cret" not in ran.complaint


def test_of_an_address_it_says_where_it_came_from(call, tmp_path):
    for name in ("REDIS_URL", "ASKEL_REDIS_URL"):
        assert call("ls", **{name: "foo"}).complaint.startswith(f"askel ls: {name}: the Redis")
    (tmp_path / "url").write_text("foo\n")
    ran = call("ls", REDIS_URL_FILE=str(tmp_path / "url"))
    assert ran.complaint.startswith("askel ls: REDIS_URL_FILE: the Redis")
    (tmp_path / ".askel").mkdir()
    (tmp_path / ".askel" / "dev.url").write_text("foo\n")
    assert call("ls").complaint.startswith("askel ls: .askel/dev.url: the Redis")


def test_a_redis_that_is_away_may_not_be_running(call):
    ran = call("ls", "--redis", "redis://127.0.0.1:1")
    assert ran.complaint == (
        "askel ls: cannot reach Redis at 127.0.0.1:1: connection refused: "
        "is it running? askel dev starts one for this directory"
    )


def test_a_worker_says_the_same(askel):
    ran = askel("worker", "tests.apps.kiosk:app", "--redis", "redis://127.0.0.1:1")
    assert ran.code == 1
    assert ran.complaint.endswith("is it running? askel dev starts one for this directory")


def test_of_a_password_it_says_where_it_may_stand(call, tmp_path):
    with EmbeddedServer(port=0, options={"requirepass": "s3cret"}) as server:
        url = f"redis://127.0.0.1:{server.port}"
        assert "REDIS_PASSWORD_FILE" in call("ls", "--redis", url).complaint
        (tmp_path / "password").write_text("wr0ng")
        ran = call("ls", "--redis", url, REDIS_PASSWORD_FILE=str(tmp_path / "password"))
    assert "it is read from REDIS_PASSWORD_FILE" in ran.complaint


def test_who_lacks_a_permission_is_told_of_askel_acl(call, own_server):
    with sync_client(own_server.url) as redis:
        words = ["reset", "on", ">s", *rule("producer", "workflows")]
        redis.execute_command("ACL", "SETUSER", "producer", *words)
    ran = call("ls", "--redis", own_server.url.replace("redis://", "redis://producer:s@"))

    assert "askel acl" in ran.complaint


def test_a_producer_may_start_a_run_under_an_id_that_it_cannot_look_up(call, own_server):
    with sync_client(own_server.url) as redis:
        words = ["reset", "on", ">s", *rule("producer", "workflows")]
        redis.execute_command("ACL", "SETUSER", "producer", *words)
    url = own_server.url.replace("redis://", "redis://producer:s@")
    ran = call("start", "w", "1", "--run-id", "mine", REDIS_URL=url)

    assert (ran.code, ran.out) == (0, "mine\n")
    assert "whether the run id is taken is not known" in ran.err
    with sync_client(own_server.url) as redis:
        [(_, fields)] = redis.xrange("workflows:commands")
        assert fields[b"run_id"] == b"mine"
        redis.delete("workflows:commands")
    ran = call("start", "w", "1", REDIS_URL=url)
    assert (ran.code, ran.err) == (0, "")
    with sync_client(own_server.url) as redis:
        redis.delete("workflows:commands")


def test_a_login_that_is_refused_starts_nothing(call, own_server):
    with sync_client(own_server.url) as redis:
        redis.execute_command("ACL", "SETUSER", "off", "reset", "off", ">s")
    url = own_server.url.replace("redis://", "redis://off:s@")
    assert call("start", "w", "--run-id", "mine", REDIS_URL=url).code == 1


@pytest.mark.parametrize("given", [(), ("--run-id", "mine")])
def test_a_run_that_nobody_could_wait_for_is_not_started(call, own_server, given):
    with sync_client(own_server.url) as redis:
        words = ["reset", "on", ">s", *rule("producer", "workflows")]
        redis.execute_command("ACL", "SETUSER", "producer", *words)
        url = own_server.url.replace("redis://", "redis://producer:s@")
        ran = call("run", "w", *given, REDIS_URL=url)
        assert not redis.exists("workflows:commands")

    assert ran.code == 1
    assert "NOPERM" in ran.complaint
    assert ran.complaint.endswith("askel start starts a run without waiting for it")
