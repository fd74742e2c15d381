"""Where a scenario is measured: a server, a prefix of its own, a connection to look by."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from askel.errors import StoreReplyError
from askel.state import GROUP, Connection, Entry, Keys, connect, load_scripts
from askeld.server_binary import ServerBinary
from benchmarks.figures import BenchmarkError

# Longer than a server is ever busy with filling a stream for us.
_TIMEOUT_S = 30.0
_PAGE = 1_000

#: Puts one step.execute for each step of each run on the stream, a step of every run in turn: at
#: once, so that no client competes with the worker for the processor while it is measured.
_FILL = """
local queued = 0
for step = 1, tonumber(ARGV[1]) do
  for i = 3, #ARGV do
    redis.call('XADD', KEYS[1], '*', 'type', 'step.execute', 'run_id', ARGV[i],
      'step_name', 'step ' .. step, 'rpc_name', 'noop', 'data', ARGV[2])
    queued = queued + 1
  end
end
return queued
"""


class Arena(msgspec.Struct, frozen=True):
    """What a scenario gets for one round. ``payload`` is the JSON that every step carries.

    ``binary`` is what the server runs, for scenarios that need servers of their own; None where
    the server was given and may be anywhere.
    """

    url: str
    control: Connection
    keys: Keys
    payload: bytes
    binary: ServerBinary | None = None

    async def create_group(self) -> None:
        """Create the consumer group, as a worker does at its start."""
        try:
            await self.control.send(
                "XGROUP", "CREATE", self.keys.commands_default, GROUP, "0", "MKSTREAM"
            )
        except StoreReplyError as error:
            if error.code != "BUSYGROUP":
                raise

    async def fill(self, run_ids: list[str], steps: int) -> None:
        """Put *steps* step commands for each of the runs on the stream."""
        stream = self.keys.commands_default
        queued = await self.control.send("EVAL", _FILL, 1, stream, steps, self.payload, *run_ids)
        if queued != len(run_ids) * steps:
            raise BenchmarkError(f"only {queued} commands were sent")

    async def read(self, consumer: str, count: int) -> list[Entry]:
        """Take *count* entries from the stream as *consumer*."""
        stream = self.keys.commands_default
        reply = await self.control.send(
            "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count, "STREAMS", stream, ">"
        )
        entries = [Entry(stream, entry.decode(), tuple(flat)) for entry, flat in reply[0][1]]
        if len(entries) != count:
            raise BenchmarkError(f"only {len(entries)} of {count} commands were on the stream")
        return entries

    async def load_scripts(self) -> None:
        """Make the server know every script, so that none is loaded while measuring."""
        scripts = load_scripts().values()
        await asyncio.gather(*(self.control.send("SCRIPT", "LOAD", one.body) for one in scripts))


@asynccontextmanager
async def arena(
    url: str, payload: bytes, binary: ServerBinary | None = None
) -> AsyncIterator[Arena]:
    """Make an arena with a prefix that nobody else has; its keys are deleted afterwards."""
    control = connect(url, timeout_s=_TIMEOUT_S, name="askel-bench")
    keys = Keys(f"bench:{secrets.token_hex(6)}")
    try:
        made = Arena(url, control, keys, payload, binary)
        await made.load_scripts()
        yield made
    finally:
        try:
            await _delete(control, keys.prefix)
        finally:
            await control.close()


async def _delete(control: Connection, prefix: str) -> None:
    cursor = b"0"
    while True:
        cursor, found = await control.send("SCAN", cursor, "MATCH", f"{prefix}:*", "COUNT", _PAGE)
        if found:
            await control.send("UNLINK", *found)
        if cursor == b"0":
            return
