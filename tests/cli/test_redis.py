"""The way to Redis: how it is named, and what is said when it is absent, closed or unfit."""

import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.helpers.keys import sync_client

from askeld.embedded import EmbeddedServer
from askeld.torture.resp import Framer, command_name

KIOSK = "tests.apps.kiosk:app"
READING = [("ls",), ("show", "r1"), ("history", "r1"), ("start", "w"), ("run", "w", "1")]
READING += [("send", "run.cancel", "run_id", "r1")]
EVERY = [*READING, ("worker", KIOSK), ("dev", KIOSK), ("demo",)]


def verb_of(words):
    return words[0]


def free_port():
    with socket.socket() as guess:
        guess.bind(("127.0.0.1", 0))
        return guess.getsockname()[1]


@contextmanager
def server_that_says(answers: dict[str, bytes], other: bytes) -> Iterator[str]:
    """Answer commands by name, all others alike; yield the address."""

    def serve(connection: socket.socket) -> None:
        framer = Framer()
        with connection:
            while data := connection.recv(65536):
                for request in framer.feed(data):
                    connection.sendall(answers.get(command_name(request), other))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize("words", [*READING, ("worker", KIOSK)], ids=verb_of)
def test_without_a_redis_it_says_how_to_name_one(call, words):
    ran = call(*words)
    assert ran.code == 2
    assert ran.complaint == (
        f"askel {words[0]}: no Redis: set REDIS_URL or pass --redis URL, "
        "or start one here with 'askel dev'"
    )


@pytest.mark.parametrize("words", EVERY, ids=verb_of)
def test_a_redis_that_is_absent_is_one_line_and_exit_code_1(askel, call, words):
    port = free_port()
    run = call if words in READING else askel
    ran = run(*words, REDIS_URL=f"redis://:s3cret@127.0.0.1:{port}")
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith(
        f"askel {words[0]}: cannot reach Redis at 127.0.0.1:{port}"
    )
    assert "Traceback" not in ran.err + ran.out
    assert "s3cret" not in ran.err + ran.out
    if words[0] not in {"dev", "demo"}:  # These announce themselves.
        assert ran.complaint


@pytest.fixture(scope="module")
def closed_server():
    with EmbeddedServer(port=0, options={"requirepass": "s3cret"}) as server:
        yield server


@pytest.mark.parametrize("words", [("ls",), ("worker", KIOSK)], ids=verb_of)
@pytest.mark.parametrize("given", [":wr0ng@", ""], ids=["wrong", "none"])
def test_a_wrong_password_is_told_and_never_shown(askel, closed_server, words, given):
    ran = askel(*words, REDIS_URL=f"redis://{given}127.0.0.1:{closed_server.port}")
    assert ran.code == 1
    assert "wr0ng" not in ran.complaint
    assert any(word in ran.complaint.lower() for word in ("password", "auth"))


def test_the_right_password_opens(call, closed_server):
    assert call("ls", "--redis", closed_server.url).out == "no runs\n"


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "http://s3cret@127.0.0.1",
        "redis://:s3cret@127.0.0.1:port",
        "redis://:s3cret@127.0.0.1:99999",
        "redis://[::1",
        "redis://:s3cret@127.0.0.1?nonesuch=1",
    ],
)
def test_an_address_that_is_none_is_a_mistake_and_not_repeated(call, url):
    for words in (("ls",), ("start", "w"), ("demo",)):
        ran = call(*words, "--redis", url)
        assert ran.code == 2
        assert "the Redis connection is not understood" in ran.err.splitlines()[-1]
        assert "s3cret" not in ran.err


def test_what_is_no_redis_is_one_line(call):
    with server_that_says({}, b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        ran = call("ls", "--redis", url)
    assert (ran.code, bool(ran.complaint)) == (1, True)


@pytest.mark.parametrize("words", [("worker", KIOSK), ("dev", KIOSK), ("demo",)], ids=verb_of)
def test_a_redis_that_evicts_keys_is_refused(askel, words):
    with EmbeddedServer(port=0, options={"maxmemory-policy": "allkeys-lru"}) as server:
        ran = askel(*words, REDIS_URL=server.url)
        with sync_client(server.url) as redis:
            assert redis.dbsize() == 0
    assert ran.code == 4
    assert "set maxmemory-policy noeviction" in ran.err.splitlines()[-1]
    assert ran.err.splitlines()[-1].startswith(f"askel {words[0]}: ")


@pytest.mark.parametrize("words", [("worker", KIOSK), ("demo",)], ids=verb_of)
def test_a_redis_that_is_too_old_is_refused(askel, words):
    info = b"# Server\r\nredis_version:5.0.7\r\n"
    answers = {"INFO": b"$%d\r\n%s\r\n" % (len(info), info)}
    with server_that_says(answers, b"+OK\r\n") as url:
        ran = askel(*words, REDIS_URL=url)
    assert ran.code == 4
    assert ran.err.splitlines()[-1] == (
        f"askel {words[0]}: Redis 5.0.7 is too old: askel needs 6.2 or later"
    )


def test_a_server_that_refuses_a_command_is_one_line(call, closed_server):
    with sync_client(closed_server.url) as redis:
        redis.acl_setuser("reader", enabled=True, passwords=["+pw"], commands=["+ping"], keys=["*"])
    ran = call("ls", "--redis", f"redis://reader:pw@127.0.0.1:{closed_server.port}")
    assert ran.code == 1
    assert "NOPERM" in ran.complaint


def test_flag_then_askels_variable_then_redis_url(call, own_server):
    wrong = f"redis://127.0.0.1:{free_port()}"
    assert call("ls", "--redis", own_server.url, ASKEL_REDIS_URL=wrong).code == 0
    assert call("ls", ASKEL_REDIS_URL=own_server.url, REDIS_URL=wrong).code == 0
    assert call("ls", ASKEL_REDIS_URL="", REDIS_URL=own_server.url).code == 0
    assert call("ls", ASKEL_REDIS_URL=wrong, REDIS_URL=own_server.url).code == 1


@pytest.mark.parametrize("name", ["REDIS_URL_FILE", "ASKEL_REDIS_URL_FILE"])
def test_the_address_may_stand_in_a_secret_file(call, own_server, tmp_path, name):
    secret = tmp_path / "secret"
    secret.write_text(own_server.url + "\n")
    assert call("ls", **{name: str(secret)}).out == "no runs\n"
    ran = call("ls", **{name: str(tmp_path / "absent")})
    assert ran.code == 1
    assert ran.complaint.startswith(f"askel ls: {name}: cannot read {tmp_path}/absent")
    secret.write_bytes(b"\xff\xfe")
    ran = call("ls", **{name: str(secret)})
    assert (ran.code, bool(ran.complaint)) == (1, True)


def test_the_prefix_comes_from_flag_or_variable(call, own_server):
    call("start", "w", "--run-id", "r1", "--prefix", "mine", "--redis", own_server.url)
    call("start", "w", "--run-id", "r1", ASKEL_PREFIX="his", REDIS_URL=own_server.url)
    with sync_client(own_server.url) as redis:
        assert set(redis.keys()) == {b"mine:commands", b"his:commands"}
        redis.flushall()


def test_the_record_of_a_dev_that_was_killed_is_told_apart(call, tmp_path):
    folder = tmp_path / ".askel"
    folder.mkdir()
    (folder / "dev.url").write_text(f"unix://{tmp_path}/gone.sock\n")
    ran = call("ls")
    assert ran.code == 2
    assert ran.complaint == (
        "askel ls: no Redis: the 'askel dev' of this directory is gone "
        "(.askel/dev.url is what it left); start it again"
    )
    port = free_port()
    assert f"127.0.0.1:{port}" in call("ls", "--redis", f"redis://127.0.0.1:{port}").complaint
    assert stat.S_ISDIR(folder.stat().st_mode)
