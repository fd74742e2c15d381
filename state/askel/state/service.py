"""The state service: what an embedding program changes and reads, one atomic step a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

from askel.durations import Duration, duration_ms
from askel.errors import InvalidOptionError
from askel.names import check_run_id
from askel.state.codec import PLAIN, Codec
from askel.state.durability import Confirmer
from askel.state.ids import IdSource, SystemIds
from askel.state.keys import Keys
from askel.state.locks.run_lock import DEFAULT_TTL_MS, DEFAULT_WAIT_S, RunLock, hold_run_lock
from askel.state.locks.step_locks import StepLocks
from askel.state.models import WorkflowRun
from askel.state.pikku.reading import check_compat
from askel.state.reads.graph_state import GraphReads
from askel.state.reads.queries import RunQueries
from askel.state.reads.records import fields_of, read_run
from askel.state.reads.run_reads import RunReads
from askel.state.store.connecting import connect
from askel.state.store.scripts import Scripts
from askel.state.store.server import ServerFacts, inspect_server
from askel.state.store.settings import ConnectionLike
from askel.state.versions import VersionMethods
from askel.state.writes.creation import RunCreation
from askel.state.writes.mirror import MirrorTeller, RunMirror
from askel.state.writes.run_writes import RunWrites

T = TypeVar("T")


class RedisWorkflowService(
    RunCreation, RunWrites, RunReads, RunQueries, GraphReads, VersionMethods, StepLocks
):
    """Durable workflow state in Redis.

    Each write is one atomic step: state, history and indexes change together, or not at all. A
    call whose reply was lost is sent again (for at most ``resend_s``), which changes nothing more.
    Under ``run_lock`` every write checks that the lock is still this holder's; outside any lock a
    write is checked against the state machine alone.
    """

    def __init__(
        self,
        connection: ConnectionLike,
        queue: Any = None,
        key_prefix: str = "workflows",
        *,
        compat: str | None = None,
        codec: Codec | None = None,
        mirror: RunMirror | None = None,
        ids: IdSource | None = None,
        allow_unsafe: bool = False,
        resend_s: float = 5.0,
        clock_offset_ms: int = 0,
    ) -> None:
        """Prepare the service; nothing is opened before the first call.

        Args:
            connection: A URL, a mapping of redis-py options, or a ``redis.asyncio`` client, whose
                settings are copied and which is never closed.
            queue: A ``StreamQueue`` sends commands to daemons; None: workflows run in this process.
            key_prefix: Before every key; no prefix sees another's data.
            compat: ``"pikku"`` shares the prefix with services of the npm package ``@pikku/redis``:
                what they read is written, too, and what they wrote is read.
            codec: How payloads are written and read; plain JSON by default. With *compat* it
                refuses what Node would change.
            mirror: Told of each write after it landed; its failures never matter.
            ids: Where new ids come from.
            allow_unsafe: Accept a Redis that evicts keys or is older than 6.2.
            resend_s: How long a call insists on an answer after a failure, in seconds.
            clock_offset_ms: Moves the server's clock as this service sees it; for tests.

        Raises:
            InvalidOptionError: *connection*, *compat* or *resend_s* is not understood, or *queue*,
                *codec* or *mirror* is no such thing.
            InvalidNameError: The prefix is not allowed.
        """
        if isinstance(queue, str):
            msg = f"queue must be a StreamQueue or None; did you mean key_prefix={queue!r}?"
            raise InvalidOptionError(msg)
        if codec is not None and not isinstance(codec, Codec):
            msg = f"codec must be a Codec, not a {type(codec).__name__}: give Codec([Zstd(), …])"
            raise InvalidOptionError(msg)
        if not isinstance(resend_s, int | float) or resend_s < 0:
            msg = f"resend_s={resend_s!r}: give seconds as a number, 0 or more"
            raise InvalidOptionError(msg)
        self.keys = Keys(key_prefix)
        self.queue = queue
        self.ids: IdSource = ids or SystemIds()
        self.connection = connect(connection)
        self.compat = check_compat(compat)
        codec = codec or PLAIN
        self.codec = codec.for_compat() if self.compat else codec
        self.mirror = MirrorTeller(mirror)
        self.scripts = Scripts(self.connection, self.compat)
        self.confirmer = Confirmer(lambda: connect(connection), self.keys)
        self.clock_offset_ms = clock_offset_ms
        self._allow_unsafe = allow_unsafe
        self.resend_s = resend_s

    async def __aenter__(self) -> Self:
        """Verify the connection and the server; close what was opened where they are refused."""
        try:
            await self.init()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what the service opened."""
        await self.close()

    async def init(self) -> ServerFacts:
        """Verify that Redis can be reached and keeps what it is given.

        Raises:
            StoreUnavailableError: It cannot be reached.
            StoreUnsafeError: It evicts keys, is older than 6.2, or holds another layout.
        """
        return await inspect_server(
            self.connection,
            self.keys,
            store_id=self.ids.nonce(),
            allow_unsafe=self._allow_unsafe,
        )

    async def close(self) -> None:
        """Close the service's own connections."""
        await self.confirmer.close()
        await self.connection.close()

    async def get_run(self, run_id: str) -> WorkflowRun | None:
        """Return the run, or None when there is none."""
        key = self.keys.run(check_run_id(run_id))
        flat = await self.scripts.fetch("HGETALL", key, patience_s=self.resend_s)
        fields = fields_of(flat)
        # Others leave fields without a run: Node's writes to one that there is not.
        return read_run(fields, self.codec) if "id" in fields else None

    def run_lock(
        self, run_id: str, *, ttl: Duration | None = None, wait: Duration | None = None
    ) -> AbstractAsyncContextManager[RunLock]:
        """Hold the run's lock for an ``async with`` body; every write inside is checked against it.

        Args:
            run_id: The run.
            ttl: The lease, renewed while the body runs; 30 s by default.
            wait: How long to wait for another holder; 1 s (10 tries) by default.

        Raises:
            RunNotFoundError, NestedLockError, LockNotAcquiredError: On entering.
            LockLostError: The lock was lost while the body ran; nothing sent since has landed.
        """
        return hold_run_lock(
            self,
            self.scripts,
            self.keys,
            check_run_id(run_id),
            self.ids.nonce(),
            ttl_ms=DEFAULT_TTL_MS if ttl is None else max(duration_ms(ttl), 1),
            wait_s=DEFAULT_WAIT_S if wait is None else duration_ms(wait) / 1_000,
        )

    async def with_run_lock(self, run_id: str, fn: Callable[[], Awaitable[T]]) -> T:
        """Await ``fn()`` under the run's lock and return its result; see ``run_lock``."""
        async with self.run_lock(run_id):
            return await fn()
