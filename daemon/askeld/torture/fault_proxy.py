"""A TCP proxy in front of a real server that makes the network, and only it, misbehave.

It frames requests and replies, so a fault hits exactly the reply (or request) it is meant for,
however many commands are in flight on a connection. Rules are asked when a reply arrives from the
server, which by then has executed the command; the newest rule that matches bites.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from askeld.torture.resp import Framer, command_name

Match = bytes | Callable[[bytes], bool] | None
Direction = Literal["to_server", "to_client"]

_CHUNK = 65536
_STREAMING = {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR", "SYNC", "PSYNC"}
GARBAGE = b"HTTP/1.1 400 Bad Request\r\n\r\n"


@dataclass(eq=False)
class Rule:
    """One armed fault; `hits` counts how often it bit."""

    kind: str
    match: Match
    times: int | None
    """How often it may bite, None for always."""
    seconds: float = 0.0
    after: int = 0
    hang: bool = False
    garbage: bytes = b""
    hits: int = 0
    bit: asyncio.Event = field(default_factory=asyncio.Event)

    def fits(self, request: bytes) -> bool:
        """Whether it bites this request or its reply."""
        if self.times is not None and self.hits >= self.times:
            return False
        if callable(self.match):
            return self.match(request)
        return self.match is None or self.match in request


@dataclass
class _Delivery:
    """Bytes on their way to the client, and what happens to the connection after them."""

    payload: bytes
    due: float
    then: Literal["go on", "close", "hang"] = "go on"


@dataclass(eq=False)
class _Link:
    """One client connection with its connection to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    pending: deque[bytes] = field(default_factory=deque)
    deliveries: asyncio.Queue[_Delivery] = field(default_factory=asyncio.Queue)
    unmatched: bool = False
    """Replies belong to no request: a subscription, or a connection that went silent."""
    dropped: asyncio.Event = field(default_factory=asyncio.Event)


class FaultProxy:
    """Forwards 127.0.0.1:`port` to *host*:*port*, and bites where it is told to.

    Use it as an async context manager; without faults armed it changes no byte. All that it counts
    is about what it saw and did since the start or `forget`:

    * `commands`, `names`: requests seen, in order of arrival over all connections;
    * `connections`: connections accepted;
    * `faults`: how often each kind of fault really bit. (Refused connections are refused by the
      kernel and cannot be counted.)
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._rules: list[Rule] = []
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[Direction, asyncio.Event] = {
            "to_server": asyncio.Event(),
            "to_client": asyncio.Event(),
        }
        # Bound but never listening: it keeps the port ours while connections are refused.
        self._reservation = _bound_socket(0)
        self._listener: socket.socket | None = None
        self._closing = False
        self.port: int = self._reservation.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self._errors: list[Exception] = []
        self.forget()

    def forget(self) -> None:
        """Set all counters back; rules and connections stay."""
        self.commands = 0
        self.names: list[str] = []
        self.connections = 0
        self.faults: Counter[str] = Counter()

    @property
    def open_connections(self) -> int:
        """How many client connections are open now."""
        return len(self._links)

    async def __aenter__(self) -> Self:
        self.heal()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._closing = True
        self.refuse_connections()
        self.drop_connections()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._reservation.close()
        if self._errors and exc_info[0] is None:
            raise ExceptionGroup("the proxy itself failed", self._errors)

    # What happens to connections as a whole.

    def drop_connections(self) -> int:
        """Close all connections, at once and without a farewell; returns how many.

        What was on its way in either direction, held or delayed replies included, is gone.
        """
        links = [link for link in self._links if not link.dropped.is_set()]
        for link in links:
            link.dropped.set()
            link.client.transport.abort()
            link.server.transport.abort()
        self.faults["drop"] += len(links)
        return len(links)

    def refuse_connections(self) -> None:
        """Refuse new connections (ECONNREFUSED) until `accept_connections`; open ones go on."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def accept_connections(self) -> None:
        """Accept connections, on the same port as before."""
        if self._listener is None:
            self._listener = _bound_socket(self.port)
            self._listener.setblocking(False)  # noqa: FBT003 - its name is the verb
            self._listener.listen()
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def black_hole(self, direction: Direction) -> None:
        """Hold all bytes of one direction, on open and new connections, until `heal`.

        As with TCP after a real partition, what was held arrives then, late but in order; to lose
        it, call `drop_connections` before. `to_client` means that commands are executed and nobody
        hears of it; `to_server` that they have not been executed yet.
        """
        self._open[direction].clear()

    def open(self, direction: Direction) -> None:
        """Let the bytes of one direction flow again; what was held of open connections, too."""
        self._open[direction].set()

    def heal(self) -> None:
        """End all faults: rules are disarmed, held bytes flow, connections are accepted."""
        self._rules.clear()
        for opened in self._open.values():
            opened.set()
        self.accept_connections()

    # What happens to single requests and replies.

    def lose_next_reply(self, match: Match = None, times: int = 1) -> Rule:
        """Execute the command, swallow its reply and close the connection.

        All replies before it are delivered first; those after it on that connection are lost with
        the connection.
        """
        return self._arm(Rule("lose_reply", match, times))

    def lose_next_request(self, match: Match = None, times: int = 1) -> Rule:
        """Close the connection instead of forwarding the request: it is never executed."""
        return self._arm(Rule("lose_request", match, times))

    def cut_next_request(self, after: int, match: Match = None, times: int = 1) -> Rule:
        """Forward the first *after* bytes of the request, never all, then close the connection."""
        return self._arm(Rule("cut_request", match, times, after=after))

    def cut_next_reply(
        self, after: int, match: Match = None, times: int = 1, *, hang: bool = False
    ) -> Rule:
        """Deliver the first *after* bytes of the reply, never all, then close the connection.

        With *hang* the connection stays open and silent instead.
        """
        return self._arm(Rule("cut_reply", match, times, after=after, hang=hang))

    def garble_next_reply(
        self, garbage: bytes = GARBAGE, match: Match = None, times: int = 1
    ) -> Rule:
        """Deliver *garbage* in the place of the reply; the connection stays open."""
        return self._arm(Rule("garble_reply", match, times, garbage=garbage))

    def delay_replies(self, seconds: float, match: Match = None, times: int | None = None) -> Rule:
        """Deliver replies this much later, like latency: a hundred in flight are late once."""
        return self._arm(Rule("delay_reply", match, times, seconds=seconds))

    def disarm(self, rule: Rule) -> None:
        """Take back one rule; one that is no longer armed is no fault."""
        with contextlib.suppress(ValueError):
            self._rules.remove(rule)

    def _arm(self, rule: Rule) -> Rule:
        self._rules.insert(0, rule)
        return rule

    def _bite(self, request: bytes, *, on_request: bool) -> Rule | None:
        """Return the rule that bites this request or its reply, counted."""
        for rule in self._rules:
            if rule.kind.endswith("_request") is on_request and rule.fits(request):
                rule.hits += 1
                rule.bit.set()
                self.faults[rule.kind] += 1
                return rule
        return None

    # The connections.

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            client, _ = self._listener.accept()
        except OSError:  # It has gone again.
            return
        self.connections += 1
        task = asyncio.create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: socket.socket) -> None:
        client.setblocking(False)  # noqa: FBT003 - its name is the verb
        client_reader, client_writer = await asyncio.open_connection(sock=client)
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            await _close(client_writer)
            return
        link = _Link(client_writer, server_writer)
        if self._closing:
            link.dropped.set()
        self._links.add(link)
        loops: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._to_server(link, client_reader)),
            asyncio.create_task(self._to_client(link, server_reader)),
            asyncio.create_task(self._deliver(link)),
            asyncio.create_task(link.dropped.wait()),
        ]
        for pump in loops[:2]:
            pump.add_done_callback(lambda task: self._check(link, task))
        # The first two report their end to `_deliver`, so that what is due goes out before.
        await asyncio.wait(loops[2:], return_when=asyncio.FIRST_COMPLETED)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await _close(server_writer)
        await _close(client_writer)
        self._links.discard(link)

    def _check(self, link: _Link, pump: asyncio.Task[Any]) -> None:
        """Let a mistake of the proxy's own fail the test instead of hanging it."""
        error = None if pump.cancelled() else pump.exception()
        if isinstance(error, Exception):
            self._errors.append(error)
            link.dropped.set()

    async def _to_server(self, link: _Link, client: asyncio.StreamReader) -> None:
        framer = Framer()
        try:
            while chunk := await client.read(_CHUNK):
                requests = framer.feed(chunk)
                admitted = self._admit(link, requests)
                await self._pass("to_server", len(admitted))
                link.pending.extend(admitted)
                link.server.writelines(admitted)
                await link.server.drain()
                if admitted != requests:
                    break
            else:
                link.server.write_eof()  # The server closes its side, and `_to_client` sees that.
                return
        except OSError:
            pass
        link.deliveries.put_nowait(_Delivery(b"", 0.0, "close"))

    def _admit(self, link: _Link, requests: list[bytes]) -> list[bytes]:
        """Count requests; return those before the one that gets lost, and what is left of that."""
        for position, request in enumerate(requests):
            name = command_name(request)
            self.commands += 1
            self.names.append(name)
            link.unmatched = link.unmatched or name in _STREAMING
            rule = self._bite(request, on_request=True)
            if rule is not None:
                part = request[: min(rule.after, len(request) - 1)]
                return [*requests[:position], *([part] if part else [])]
        return requests

    async def _to_client(self, link: _Link, server: asyncio.StreamReader) -> None:
        framer = Framer()
        with contextlib.suppress(OSError):
            while chunk := await server.read(_CHUNK):
                for reply in framer.feed(chunk):
                    delivery = self._judge(link, reply)
                    link.deliveries.put_nowait(delivery)
                    if delivery.then == "close":
                        return
        link.deliveries.put_nowait(_Delivery(b"", 0.0, "close"))

    def _judge(self, link: _Link, reply: bytes) -> _Delivery:
        """Decide what becomes of a reply."""
        now = asyncio.get_running_loop().time()
        if reply.startswith(b">") or link.unmatched or not link.pending:
            return _Delivery(reply, now)  # It answers no request.
        rule = self._bite(link.pending.popleft(), on_request=False)
        match rule:
            case Rule(kind="lose_reply"):
                return _Delivery(b"", now, "close")
            case Rule(kind="cut_reply", after=after, hang=hang):
                part = reply[: min(after, len(reply) - 1)]
                link.unmatched = hang
                return _Delivery(part, now, "hang" if hang else "close")
            case Rule(kind="garble_reply", garbage=garbage):
                return _Delivery(garbage, now)
            case Rule(kind="delay_reply", seconds=seconds):
                return _Delivery(reply, now + seconds)
            case _:
                return _Delivery(reply, now)

    async def _deliver(self, link: _Link) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                delivery = await link.deliveries.get()
                if (wait_s := delivery.due - loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                await self._pass("to_client", 1 if delivery.payload else 0)
                link.client.write(delivery.payload)
                await link.client.drain()
                if delivery.then == "hang":
                    await _until_closed(link)
                if delivery.then != "go on":
                    return

    async def _pass(self, direction: Direction, frames: int) -> None:
        """Wait while the direction is a black hole."""
        if not self._open[direction].is_set():
            self.faults[f"black_hole_{direction}"] += frames
            await self._open[direction].wait()


async def _until_closed(link: _Link) -> None:
    """Swallow the rest until the client gives up."""
    while (await link.deliveries.get()).then != "close":
        pass


def _bound_socket(port: int) -> socket.socket:
    # The protocol is named, or asyncio leaves Nagle on for what is accepted: 40 ms a round trip.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close after what was written has gone out."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
