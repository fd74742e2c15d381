"""Sweeping: who claims the entries of consumers that died, and how far the sweep has come."""

from __future__ import annotations

import msgspec

from askel.state.protocol.caller import GROUP, ProtocolCaller
from askel.state.protocol.turns import Entry


class Swept(msgspec.Struct, frozen=True):
    """What one call of the sweep claimed for the caller, and when there may be more.

    ``claimed`` has each entry with how often it was delivered, ``lost`` the ids of those that were
    deleted from the stream and are dead letters now. The caller ``goes_on`` at once while it has
    room; else it asks again in ``wait_ms``. ``now_ms`` is the server's time.
    """

    claimed: tuple[tuple[Entry, int], ...] = ()
    lost: tuple[str, ...] = ()
    goes_on: bool = False
    wait_ms: int = 0
    now_ms: int = 0


class Sweeping(ProtocolCaller):
    """The turns in which consumers sweep a stream. The place reached is kept in Redis."""

    async def sweep(
        self,
        stream: str,
        *,
        idle_ms: int,
        room: int,
        every_ms: int,
        expected_ms: int | None = None,
    ) -> Swept:
        """Claim at most *room* entries of *stream* that nobody has renewed for *idle_ms*.

        Nothing is claimed while another consumer has its turn, or when the whole pending list was
        swept within the last *every_ms*. Where the server's time is before that of the last turn,
        or far beyond *expected_ms*, its clock has jumped: all entries count as renewed just now.
        Not for sending again: a second copy claims other entries.
        """
        k = self.keys
        expected = "" if expected_ms is None else expected_ms
        answer = await self._ask(
            "sweep",
            [stream, k.sweep(k.queue_of(stream)), k.dead],
            [GROUP, self.consumer, idle_ms, room, every_ms, self._offset, expected],
        )
        if answer[0] == b"WAIT":
            return Swept(now_ms=answer[1], wait_ms=answer[2])
        _, now_ms, cursor, left_ms, flat, deleted = answer
        claimed = tuple(
            (Entry(stream, entry.decode()), int(count))
            for entry, count in zip(flat[::2], flat[1::2], strict=True)
        )
        lost = tuple(entry.decode() for entry in deleted)
        goes_on = cursor != b"0-0" and len(claimed) < room
        return Swept(claimed, lost, goes_on, left_ms, now_ms)
