"""What a worker checks of its Redis: before it begins, and now and then while it works."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio

from askel import RedisWorkflowService, StoreAccessError, StoreError
from askel.state import (
    PASSING,
    Confirmer,
    Connection,
    Durability,
    Keys,
    Scripts,
    ServerFacts,
    StoreTrouble,
    denied_commands,
    lost_unread,
    read_counts_of,
    trouble_of,
    why_unsafe,
)
from askeld.config import WorkerConfig
from askeld.observability import Logger

Prepare = Callable[[], Awaitable[ServerFacts]]

_PAUSE_S = 0.5
#: Scripts that a worker cannot do without. What retention calls is not among them: a worker that
#: may not delete runs serves, and says that it is refused.
NEEDED_SCRIPTS = (
    *("activate", "begin", "bury", "complete", "create_run", "deliver", "drop", "due", "fire"),
    *("forget_consumer", "poison", "put_back", "read_facts", "rearm", "record", "remake_tokens"),
    *("renew", "requeue", "revive", "settle", "stall", "start", "sweep", "take_up", "turn"),
    "watch",
)
#: What it sends outside of scripts.
NEEDED_COMMANDS = (
    *("DEL", "HGET", "HMGET", "HSETNX", "LINDEX", "XADD", "XGROUP CREATE", "XINFO CONSUMERS"),
    *("XPENDING", "XRANGE", "XREAD", "XREADGROUP", "ZRANGE"),
)


class StoreCheck:
    """Looks whether the server is one that runs may be trusted to."""

    def __init__(
        self, config: WorkerConfig, keys: Keys, connection: Connection, log: Logger
    ) -> None:
        """Check the server of *connection*, which is the one that *config* names."""
        self._config = config
        self._keys = keys
        self._connection = connection
        self._scripts = Scripts(connection, config.compat)
        self._log = log
        self._lost: dict[str, int] = {}
        self._counts_of = ""

    async def inspect(self) -> ServerFacts:
        """Check the server and the meta key, which is made where it is missing.

        Raises:
            StoreUnsafeError: It would lose data silently, or was laid out by another version.
            StoreError: It cannot be reached, or refuses.
        """
        config = self._config
        service = RedisWorkflowService(
            config.url,
            key_prefix=config.prefix,
            compat=config.compat,
            allow_unsafe=config.allow_unsafe,
        )
        try:
            return await service.init()
        finally:
            await service.close()

    async def until_it_serves(self, stop: anyio.Event, prepare: Prepare) -> ServerFacts | None:
        """Await *prepare*; wait for a server that is there, but cannot serve or write yet.

        One that cannot be reached at all is not waited for: whoever started the worker is told.
        Returns None when *stop* was set before.

        Raises:
            StoreError: It cannot be reached, or must not be used.
        """
        told = None
        while not stop.is_set():
            try:
                return await prepare()
            except StoreError as error:
                trouble = trouble_of(error)
                if trouble not in PASSING or trouble is StoreTrouble.AWAY:
                    raise
                if trouble is not told:
                    told = trouble
                    self._log.warning("waiting_for_store", trouble=trouble, error=str(error))
            with anyio.move_on_after(_PAUSE_S):
                await stop.wait()
        return None

    async def permissions(self) -> None:
        """Try every command that the worker's scripts call, before one of them is halfway through.

        Raises:
            StoreAccessError: The user may not run some of them; they are named.
        """
        denied = await denied_commands(
            self._scripts, self._keys, NEEDED_SCRIPTS, also=NEEDED_COMMANDS
        )
        if denied:
            names = ", ".join(name.lower() for name in sorted(denied))
            msg = (
                f"NOPERM the user of Redis may not run {names}, which a worker needs: give it "
                "these permissions (askel acl prints all)"
            )
            raise StoreAccessError(msg)

    async def confirmations(self, confirmer: Confirmer, level: Durability) -> None:
        """Ask what *confirmer* will ask: a workflow is of that *level*.

        Raises:
            StoreUnsafeError: This server can never confirm it.
            StoreAccessError: The user may not ask.
        """
        try:
            await confirmer.check(level)
        except StoreAccessError as error:
            msg = f"{error}; workflows that are {level} need it (askel acl --durability)"
            raise StoreAccessError(msg) from None

    async def closely(self, streams: list[str]) -> tuple[str, bool]:
        """Look at what changes rarely: settings of the server, and whether commands were trimmed.

        Returns:
            Why the server is unsafe (empty: it is not), and whether commands were lost anew.
        """
        unsafe = "" if self._config.allow_unsafe else await why_unsafe(self._connection)
        counts_of = await read_counts_of(self._connection)
        lost = {stream: await lost_unread(self._connection, stream) for stream in streams}
        if counts_of != await read_counts_of(self._connection):
            return unsafe, False  # it started anew, or had not loaded all: the next time will tell
        if counts_of != self._counts_of:
            self._lost, self._counts_of = {}, counts_of
        return unsafe, self._is_more_lost(lost)

    def _is_more_lost(self, counts: Mapping[str, int]) -> bool:
        """Compare how much of each stream was lost with the last time; tell of what is new."""
        is_more = False
        for stream, lost in counts.items():
            if lost > self._lost.get(stream, lost if self._counts_of else 0):
                is_more = True
                self._log.error(
                    "commands_trimmed",
                    stream=stream,
                    lost=lost,
                    hint="somebody deletes commands that nobody has read (XADD … MAXLEN, XTRIM, "
                    "XDEL): never do, entries are deleted as they are applied",
                )
            self._lost[stream] = lost
        return is_more


def facts_to_warn_of(facts: ServerFacts) -> dict[str, Any]:
    """Return what is allowed but unwise, by the event that says so."""
    if facts.append_only:
        return {}
    return {"redis_not_persistent": "set appendonly yes, or a crash of Redis loses runs"}
