"""The consumer: reads entries from the streams for this process; knows nothing of workflows."""

from __future__ import annotations

from contextlib import suppress

import anyio

from askel import StoreAccessError, StoreError, StoreReplyError
from askel.state import GROUP, Connection, Entry, StoreTrouble, is_passing, trouble_of
from askeld.context import WorkerContext
from askeld.store_watch import StoreWatch

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_PENDING_AT_ONCE = 1_000


class Consumer:
    """Reads what nobody has read; after a loss of the connection first what it may have missed."""

    def __init__(
        self,
        context: WorkerContext,
        connection: Connection,
        commands: Connection,
        store: StoreWatch,
    ) -> None:
        """Read by *connection*, which blocks; wake it by *commands*; tell *store* of trouble."""
        self._connection = connection
        self._commands = commands
        self._config = context.config
        self._consumer = context.consumer
        self._work = context.work
        self._log = context.log
        self._pulse = context.health.pulse("consumer")
        self._store = store
        self._told = ""
        self._client_id: int | None = None
        self._ended = anyio.Event()
        self.streams = [context.keys.commands(queue) for queue in context.config.queues]
        self._own_first = True
        self._stopping = False

    async def stop(self) -> None:
        """Read nothing more; return when the last read has ended.

        The read is not cancelled, which would lose sight of what it was given, but woken; where
        the user may not do that, it ends by itself after its block.
        """
        self._stopping = True
        if self._client_id is not None:
            with suppress(StoreError):
                await self._commands.send("CLIENT", "UNBLOCK", self._client_id)
        await self._ended.wait()

    async def create_groups(self) -> None:
        """Create the consumer group wherever it is missing, from the first entry on.

        Raises:
            StoreReplyError: The key of a stream holds something else; nothing can be read then.
        """
        for stream in self.streams:
            try:
                await self._connection.send("XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM")
            except StoreReplyError as error:
                if trouble_of(error) is StoreTrouble.WRONG_TYPE:
                    msg = (
                        f"WRONGTYPE {stream} is no stream: another program wrote that key; "
                        "rename or delete it"
                    )
                    raise StoreReplyError(msg) from None
                if error.code != "BUSYGROUP":
                    raise

    async def run(self) -> None:
        """Read until stopped; trouble with Redis is waited out.

        Raises:
            StoreAccessError: Login or permission is refused.
            StoreReplyError: A stream is none: the key holds something else.
        """
        try:
            await self._run()
        finally:
            self._ended.set()

    async def _run(self) -> None:
        pause_s = 0.0
        block_s = self._config.block_ms / 1_000
        while not self._stopping:
            self._pulse.beat(block_s)
            with anyio.move_on_after(block_s):
                await self._work.wait_for_room()
            self._pulse.beat(block_s)
            if self._stopping or self._work.room <= 0:
                continue
            try:
                await self.run_once()
            except StoreError as error:
                pause_s = min(pause_s * 2 or _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
                await self._failed(error)
                await anyio.sleep(pause_s)
            else:
                pause_s, self._told = 0.0, ""
                self._store.well("reader")

    async def _failed(self, error: StoreError) -> None:
        """Make good what a read failed for, or take note of it; raise what does not pass."""
        # What was delivered to us before the reply was lost is in our pending list.
        self._own_first = True
        if isinstance(error, StoreAccessError):
            raise error
        trouble = trouble_of(error)
        if trouble in {StoreTrouble.MISSING, StoreTrouble.WRONG_TYPE}:
            code = error.code if isinstance(error, StoreReplyError) else str(trouble)
            self._log.warning("group_missing", error=code)
            self._store.groups_missing()
            try:
                await self.create_groups()
            except StoreError as again:
                if not is_passing(again):
                    raise
                self._store.saw("reader", again)
            return
        if trouble != self._told:
            self._told = trouble
            if isinstance(error, StoreReplyError):
                self._log.warning("read_refused", error=error.code)
            else:
                self._log.warning("read_interrupted", error=str(error))
        self._store.saw("reader", error)

    async def run_once(self) -> int:
        """Read one batch and begin work on it; return how many entries that were."""
        if self._own_first:
            self._client_id = await self._id()
            begun = 0
            for stream in self.streams:
                begun += await self._take_up(stream)
            self._own_first = False
            return begun
        return self._begin(await self._read())

    def _begin(self, entries: list[Entry]) -> int:
        # A group that was made anew delivers again what is under way here.
        fresh = [entry for entry in entries if self._work.is_new(entry)]
        for entry in fresh:
            self._work.begin(entry)
        return len(fresh)

    async def _take_up(self, stream: str) -> int:
        """Begin work on what is pending for us on *stream* and not in work.

        It is not read by XREADGROUP, which would count it as delivered once more: who is often cut
        off would make poison of it. One entry at a time, however large they are together.
        """
        begun, first = 0, "-"
        while True:
            pending = await self._connection.send(
                "XPENDING", stream, GROUP, first, "+", _PENDING_AT_ONCE, self._consumer
            )
            for entry_id in (item[0].decode() for item in pending):
                if self._work.is_new(Entry(stream, entry_id)):
                    found = await self._connection.send("XRANGE", stream, entry_id, entry_id)
                    fields = tuple(found[0][1]) if found else ()
                    begun += self._begin([Entry(stream, entry_id, fields)])
            if len(pending) < _PENDING_AT_ONCE:
                return begun
            first = f"({pending[-1][0].decode()}"

    async def _id(self) -> int | None:
        """Return the id by which the blocked read can be woken; None where nobody may ask."""
        try:
            return int(await self._connection.send("CLIENT", "ID"))
        except StoreReplyError:
            return None

    async def _read(self) -> list[Entry]:
        reply = await self._connection.send(
            "XREADGROUP",
            "GROUP",
            GROUP,
            self._consumer,
            "COUNT",
            max(min(self._config.batch, self._work.room), 1),
            "BLOCK",
            self._config.block_ms,
            "STREAMS",
            *self.streams,
            *([">"] * len(self.streams)),
        )
        return [
            Entry(stream.decode(), entry.decode(), tuple(fields or ()))
            for stream, entries in reply or ()
            for entry, fields in entries
        ]
