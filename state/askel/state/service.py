"""The state service: what an embedding program changes and reads, one atomic step a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar

from askel.durations import Duration, duration_ms
from askel.errors import InvalidOptionError, RunExistsError
from askel.names import check_name, check_run_id
from askel.state import codec
from askel.state.arguments import as_status, raise_refusal, serialized
from askel.state.connection import connect
from askel.state.history import (
    HistoryEntry,
    completed,
    decode_entries,
    fold_attempts,
    is_complete,
    started_body,
    status_body,
)
from askel.state.ids import IdSource, SystemIds
from askel.state.keys import Keys
from askel.state.models import UNSET, RunStatus, StepAttempt, WorkflowRun
from askel.state.moves import run_sources
from askel.state.queries import RunQueries
from askel.state.recording import create_call
from askel.state.records import fields_of, read_run
from askel.state.runlock import DEFAULT_TTL_MS, DEFAULT_WAIT_S, RunLock, hold_run_lock
from askel.state.scripts import Scripts
from askel.state.server import ServerFacts, inspect_server
from askel.state.service_steps import StepMethods
from askel.state.settings import ConnectionLike

T = TypeVar("T")


class RedisWorkflowService(StepMethods, RunQueries):
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
        ids: IdSource | None = None,
        allow_unsafe: bool = False,
        resend_s: float = 5.0,
        clock_offset_ms: int = 0,
    ) -> None:
        """Prepare the service; nothing is opened before the first call.

        Args:
            connection: A URL, a mapping of redis-py options, or a ``redis.asyncio`` client, whose
                settings are copied and which is never closed.
            queue: A ``StreamQueue`` puts commands on streams for daemons; None is inline mode:
                workflows run in the calling process.
            key_prefix: Before every key; no prefix sees another's data.
            ids: Where new ids come from.
            allow_unsafe: Accept a Redis that evicts keys or is older than 6.2.
            resend_s: How long a call insists on an answer after a failure, in seconds.
            clock_offset_ms: Moves the server's clock as this service sees it; for tests.

        Raises:
            InvalidOptionError: *connection* is not understood, or *queue* is no queue.
            InvalidNameError: The prefix is not allowed.
        """
        if isinstance(queue, str):
            msg = f"queue must be a StreamQueue or None; did you mean key_prefix={queue!r}?"
            raise InvalidOptionError(msg)
        self.keys = Keys(key_prefix)
        self.queue = queue
        self.ids: IdSource = ids or SystemIds()
        self.connection = connect(connection)
        self.scripts = Scripts(self.connection)
        self.clock_offset_ms = clock_offset_ms
        self._allow_unsafe = allow_unsafe
        self.resend_s = resend_s

    async def __aenter__(self) -> Self:
        """Verify the connection and the server."""
        await self.init()
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
        """Close the service's own connection."""
        await self.connection.close()

    async def create_run(
        self,
        workflow_name: str,
        input: Any = None,
        *,
        run_id: str | None = None,
        inline: bool = False,
        graph_hash: str | None = None,
        wire: Any = None,
        deterministic: bool = False,
        planned_steps: Any = None,
        if_exists: str = "reject",
    ) -> str:
        """Create a run in status ``running`` and return its id.

        The run is driven by whoever calls the service; to have daemons drive a workflow, start it
        with ``App.start`` or a ``run.start`` command.

        Raises:
            RunExistsError: *run_id* exists; with ``if_exists="return"`` only when it was created
                for another workflow or input.
            InvalidNameError, PayloadError: Nothing was sent.
        """
        if if_exists not in {"reject", "return"}:
            msg = f"if_exists={if_exists!r} is not supported: use 'reject' or 'return'"
            raise InvalidOptionError(msg)
        check_name(workflow_name, "workflow name")
        run_id = self.ids.run_id() if run_id is None else check_run_id(run_id)
        fields: list[str | bytes] = []
        if inline:
            fields += ["inline", "true"]
        if graph_hash:
            fields += ["graphHash", check_name(graph_hash, "graph hash")]
        if deterministic:
            fields += ["deterministic", "true"]
        if planned_steps is not None:
            fields += ["plannedSteps", codec.encode(planned_steps)]
        if wire is not None:
            fields += ["wire", codec.encode(wire)]
        name, keys, args = create_call(
            self.keys,
            run_id,
            workflow_name,
            codec.encode(input),
            started_body(workflow_name),
            offset=self.clock_offset_ms,
            fields=fields,
        )
        answer, resent = await self.scripts.insist(name, keys, args, patience_s=self.resend_s)
        same = answer[0] == b"EXISTS"  # the run was created for the same workflow and input
        if answer[0] == b"OK" or (same and (resent or if_exists == "return")):
            return run_id
        raise RunExistsError(run_id)

    async def get_run(self, run_id: str) -> WorkflowRun | None:
        """Return the run, or None when there is none."""
        flat = await self.connection.send("HGETALL", self.keys.run(check_run_id(run_id)))
        return read_run(fields_of(flat)) if flat else None

    async def get_run_history(self, run_id: str) -> list[StepAttempt]:
        """Return one record per attempt of each step, in the order in which they began.

        Read from the history; what it does not say yet of a step whose first attempt is still
        open (its data and options) is taken from the step.
        """
        attempts = fold_attempts(run_id, await self.get_history_entries(run_id))
        names = [attempt.step_name for attempt in attempts if not is_complete(attempt)]
        steps = dict(zip(names, await self._read_steps(run_id, names), strict=True))
        return [
            attempt if (step := steps.get(attempt.step_name)) is None else completed(attempt, step)
            for attempt in attempts
        ]

    async def get_history_entries(self, run_id: str) -> list[HistoryEntry]:
        """Return everything that happened to the run, in order, as it was recorded."""
        key = self.keys.history(check_run_id(run_id))
        return decode_entries(await self.connection.send("LRANGE", key, 0, -1))

    async def update_run_status(
        self, run_id: str, status: RunStatus | str, output: Any = UNSET, error: Any = None
    ) -> None:
        """Move the run to *status*. The same move with the same outcome changes nothing.

        Raises:
            RunNotFoundError: There is no such run.
            IllegalTransitionError: The state machine has no such move, or it was made with another
                outcome already.
            LockLostError: The lock this was called under is lost.
        """
        k = self.keys
        target = as_status(RunStatus, status)
        output_json = b"" if output is UNSET else codec.encode(output)
        error_json = b"" if error is None else codec.encode(serialized(error))
        answer = await self._write(
            "update_run",
            [
                *k.run_keys(check_run_id(run_id)),
                k.commands_default,
                k.events,
                k.runs,
            ],
            [
                self._holder(run_id),
                self.clock_offset_ms,
                run_id,
                run_sources(target),
                target.value,
                output_json,
                error_json,
                status_body(target, output_json, error_json),
            ],
        )
        raise_refusal(answer, run_id, f"run {run_id!r}", target)
        self._nudge(answer, run_id)

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
