"""Client: starts runs from any asyncio program and awaits their results."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from askel.durations import Duration, duration_ms
from askel.errors import RunFailedError
from askel.names import check_name, check_run_id
from askel.state import (
    IdSource,
    IfExists,
    RunStatus,
    SystemIds,
    WorkflowRun,
    as_policy,
    connect,
    fields_of,
    read_run,
)
from askel.state.codec import PLAIN, Codec
from askel.state.store.settings import ConnectionLike
from askel.wire.commands import Command, RunCancel, RunSignal, RunStart
from askel.wire.events import RunWaiter
from askel.wire.queue import StreamQueue

# Longer than the longest block, so that an idle wait never looks like a broken connection.
_BLOCKING_TIMEOUT_S = 30.0


class RunHandle:
    """A run that was started: its id, and how to await its end."""

    __slots__ = ("_client", "run_id")

    def __init__(self, client: Client, run_id: str) -> None:
        """Name the run."""
        self._client = client
        self.run_id = run_id

    def __repr__(self) -> str:
        """Name the run."""
        return f"<run {self.run_id}>"

    async def result(self, timeout: Duration | None = None) -> Any:
        """Wait for the run to end and return its output; see ``Client.result``."""
        return await self._client.result(self.run_id, timeout, must_exist=False)


class Client:
    """Starts runs by commands on the stream and awaits results through the events stream.

    One client serves any number of tasks: commands share one connection, and one reader of the
    events stream serves everybody who waits.
    """

    def __init__(
        self,
        connection: ConnectionLike,
        key_prefix: str = "workflows",
        *,
        ids: IdSource | None = None,
        codec: Codec = PLAIN,
    ) -> None:
        """Prepare the client; nothing is opened before the first call.

        *codec* writes inputs and reads outputs: the one of the app that the daemons serve.

        Raises:
            InvalidOptionError, InvalidNameError: The arguments are not understood.
        """
        self._queue = StreamQueue(connection, key_prefix)
        self._ids: IdSource = ids or SystemIds()
        self.codec = codec
        self.keys = self._queue.keys
        self._waiter = RunWaiter(
            self._queue.connection,
            connect(connection, timeout_s=_BLOCKING_TIMEOUT_S),
            self.keys,
            codec,
        )

    async def __aenter__(self) -> Self:
        """Use the client in ``async with``."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the client."""
        await self.close()

    async def close(self) -> None:
        """Close both connections."""
        await self._waiter.close()
        await self._queue.close()

    async def start(
        self,
        workflow: str,
        input: Any = None,
        *,
        run_id: str | None = None,
        id: str = "",
        queue: str = "",
        if_exists: IfExists | str = IfExists.REJECT,
    ) -> RunHandle:
        """Send ``run.start`` and return a handle on the run, which a daemon is about to create.

        Sent again with the same *run_id* or *id* it starts nothing twice.

        Args:
            workflow: The workflow.
            input: Its input.
            run_id: The id to give the run; a new one by default.
            id: Of the command: it makes the run id where none is given, and is applied once.
            queue: Whose workers begin the run; those of the default queue without it.
            if_exists: What becomes of a run that has the id; see ``IfExists``.

        Raises:
            PayloadError, InvalidNameError, InvalidOptionError: Nothing was sent.
            StoreUnavailableError: Nothing was sent.
            UnknownOutcomeError: It may have been sent; call again with the same *run_id*.
        """
        policy = as_policy(if_exists)
        command = RunStart(
            workflow=check_name(workflow, "workflow name"),
            input=self.codec.encode(input).decode(),
            run_id="" if run_id is None and id else check_run_id(run_id or self._ids.run_id()),
            id=id,
            queue=queue,
            if_exists=policy.value,
        )
        await self.send(command, queue)
        return RunHandle(self, command.run)

    async def send(self, command: Command, queue: str = "") -> str:
        """Put any command on the stream; return its entry id.

        Raises:
            PayloadError, InvalidNameError, InvalidOptionError: Nothing was sent.
        """
        return await self._queue.send(command, queue, codec=self.codec)

    async def signal(self, run_id: str, name: str, data: Any = None, *, id: str = "") -> None:
        """Send a signal to a run; with an *id* it is recorded once however often it is sent."""
        text = self.codec.encode(data).decode()
        check_name(name, "signal name")
        await self.send(RunSignal(run_id=check_run_id(run_id), name=name, data=text, id=id))

    async def cancel(self, run_id: str, reason: str = "") -> None:
        """Ask for a run to be cancelled."""
        await self.send(RunCancel(run_id=check_run_id(run_id), reason=reason))

    async def get_run(self, run_id: str) -> WorkflowRun | None:
        """Return the run, or None when there is none (yet)."""
        flat = await self._queue.connection.send("HGETALL", self.keys.run(check_run_id(run_id)))
        return read_run(fields_of(flat), self.codec) if flat else None

    async def wait(
        self,
        run_id: str,
        timeout: Duration | None = None,
        *,
        must_exist: bool = True,
    ) -> WorkflowRun:
        """Return the run once it has ended, however it did.

        Raises:
            RunNotFoundError: There is no such run.
            WaitTimeoutError: It has not ended in time. It goes on.
        """
        timeout_s = None if timeout is None else duration_ms(timeout) / 1_000
        return await self._waiter.wait(
            check_run_id(run_id), timeout_s=timeout_s, must_exist=must_exist
        )

    async def result(
        self,
        run_id: str,
        timeout: Duration | None = None,
        *,
        must_exist: bool = True,
    ) -> Any:
        """Return the output of the run once it has completed.

        Raises:
            RunFailedError: It ended failed or cancelled.
            RunNotFoundError: There is no such run.
            WaitTimeoutError: It has not ended in time. It goes on.
        """
        run = await self.wait(run_id, timeout, must_exist=must_exist)
        if run.status is not RunStatus.COMPLETED:
            raise RunFailedError(run_id, run.status, run.error)
        return run.output
