"""A primary with replicas and sentinels on this machine, to be killed, frozen and failed over."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from askeld.embedded import EmbeddedServer
from askeld.server_binary import ServerBinary

MASTER = "mymaster"
_READY_S = 20.0
# Ends the sentinel when standard input does: it is a pipe whose other end is in the test's process.
_LAUNCHER = '"$@" </dev/null & read -r _; kill -9 $!; wait'


class SentinelDeployment:
    """One primary, its replicas, and sentinels that fail over after *down_after_ms*.

    Use it by `sentinel_deployment`. `nodes` are all servers, `nodes[0]` the primary at first.
    """

    def __init__(self, nodes: list[EmbeddedServer], sentinels: list[int]) -> None:
        self.nodes = nodes
        self.ports = sentinels

    @property
    def url(self) -> str:
        """What a client is given."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{hosts}/{MASTER}"

    def primary(self) -> EmbeddedServer:
        """The server that the first sentinel calls the primary now."""
        with plain_client(self.ports[0]) as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return next(node for node in self.nodes if node.port == int(port))

    def failover(self, *, paused: bool = False) -> None:
        """Have a sentinel fail over although nothing is wrong; return when it has begun.

        With *paused* the primary takes no writes from a moment before.
        """
        if paused:
            with plain_client(self.primary().port) as client:
                client.execute_command("CLIENT", "PAUSE", "20000", "WRITE")
        with plain_client(self.ports[0]) as client:
            client.execute_command("SENTINEL", "FAILOVER", MASTER)

    def freeze(self, node: EmbeddedServer) -> None:
        """SIGSTOP."""
        os.kill(_pid(node), signal.SIGSTOP)

    def thaw(self, node: EmbeddedServer) -> None:
        """SIGCONT."""
        os.kill(_pid(node), signal.SIGCONT)


def plain_client(port: int) -> redis.Redis:
    """A blocking client that decodes and never tries anything twice."""
    return redis.Redis(
        port=port,
        decode_responses=True,
        protocol=2,
        socket_timeout=5,
        retry=Retry(NoBackoff(), 0),
    )


@contextmanager
def sentinel_deployment(
    binary: ServerBinary,
    *,
    replicas: int = 1,
    sentinels: int = 1,
    down_after_ms: int = 1_000,
    options: dict[str, str] | None = None,
    sentinel_lines: tuple[str, ...] = (),
) -> Iterator[SentinelDeployment]:
    """Run a primary, *replicas* and *sentinels*; ready when entered, all gone when left.

    *options* are those of every server, *sentinel_lines* stand in every sentinel's configuration.
    """
    with contextlib.ExitStack() as stack:
        nodes = []
        for number in range(replicas + 1):
            node = EmbeddedServer(port=0, binary=binary, options=options or {})
            nodes.append(stack.enter_context(node))
            stack.callback(_thawed, node)
            if number:
                with plain_client(node.port) as client:
                    client.execute_command("REPLICAOF", "127.0.0.1", nodes[0].port)
        _until(lambda: _connected(nodes[0].port) == replicas)
        ports = []
        for _ in range(sentinels):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="askel-s-")))
            port = _free_port()
            lines = [
                f"port {port}",
                "bind 127.0.0.1",
                f"dir {folder}",
                f"sentinel monitor {MASTER} 127.0.0.1 {nodes[0].port} {sentinels // 2 + 1}",
                f"sentinel down-after-milliseconds {MASTER} {down_after_ms}",
                f"sentinel failover-timeout {MASTER} 5000",
                *sentinel_lines,
            ]
            (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
            stack.enter_context(_sentinel(binary, folder))
            ports.append(port)
        deployment = SentinelDeployment(nodes, ports)
        _until(lambda: all(_knows_all(port, replicas, sentinels) for port in ports))
        yield deployment


@contextmanager
def _sentinel(binary: ServerBinary, folder: Path) -> Iterator[None]:
    """Run a sentinel that ends with the block, and with this process however that ends."""
    command = [str(binary.path), str(folder / "sentinel.conf"), "--sentinel"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _LAUNCHER, "askel-sentinel", *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    assert process.stdin is not None
    try:
        yield
    finally:
        process.stdin.close()
        process.wait()


def _knows_all(port: int, replicas: int, sentinels: int) -> bool:
    with plain_client(port) as client:
        flat = client.execute_command("SENTINEL", "MASTER", MASTER)
    fields = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
    return (
        int(fields["num-slaves"]) == replicas
        and int(fields["num-other-sentinels"]) == sentinels - 1
        and "down" not in str(fields["flags"])
    )


def _connected(port: int) -> int:
    with plain_client(port) as client:
        _, _, replicas = client.execute_command("ROLE")
    return len(replicas)


def _until(ready) -> None:
    end = time.monotonic() + _READY_S
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if ready():
                return
        assert time.monotonic() < end, "the Sentinel deployment did not get ready"
        time.sleep(0.05)


def _thawed(node: EmbeddedServer) -> None:
    if node.running:
        os.kill(_pid(node), signal.SIGCONT)


def _pid(node: EmbeddedServer) -> int:
    assert node.pid is not None
    return node.pid


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as guess:
        return int(guess.getsockname()[1])
