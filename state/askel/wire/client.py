"""Client: starts runs from any asyncio program and awaits their results."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from askel.durations import Duration, duration_ms
from askel.errors import RunFailedError, RunNotFoundError
from askel.names import check_name, check_run_id
from askel.state import (
    TERMINAL,
    Durability,
    IdSource,
    IfExists,
    RunStatus,
    SystemIds,
    WorkflowRun,
    as_durability,
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
from askel.wire.starts import Start

# Longer than the longest block, so that an idle wait never looks like a broken connection.
_BLOCKING_TIMEOUT_S = 30.0


class RunHandle:
    """A run that was started: its id, and how to await its end."""

    __slots__ = ("_client", "_start", "run_id")

    def __init__(self, client: Client, run_id: str, start: Start) -> None:
        """Name the run, and what started it."""
        self._client = client
        self._start = start
        self.run_id = run_id

    def __repr__(self) -> str:
        """Name the run."""
        return f"<run {self.run_id}>"

    async def result(self, timeout: Duration | None = None) -> Any:
        """Wait for the run that this start has made to end, and return its output.

        Not that of another run which has the run id, or had it: a start is told by its workflow
        and input, and by its *id* where it has one. ``Client.result`` goes by the run id alone.

        Raises:
            RunExistsError: The start was refused, since another run has the id.
            ConflictError: It was refused for something else: it is a dead letter.
            RunFailedError: The run ended failed or cancelled.
            RunNotFoundError: It was deleted.
            WaitTimeoutError: It has not ended in time. It goes on.
        """
        run = await self._client._wait(  # noqa: SLF001
            self.run_id, timeout, must_exist=False, start=self._start
        )
        return _output(run)


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
        durability: Durability | str | None = None,
    ) -> RunHandle:
        """Send ``run.start`` and return a handle on the run, which a daemon is about to create.

        Sent again with the same *run_id* or *id* it starts nothing twice. Where *if_exists* lets
        the run that exists give way, only the *id* tells a second copy from a new start: without
        one each call makes its own.

        Args:
            workflow: The workflow.
            input: Its input.
            run_id: The id to give the run; a new one by default.
            id: Of the command: it makes the run id where none is given, and is applied once.
            queue: Whose workers begin the run; those of the default queue without it.
            if_exists: What becomes of a run that has the id; see ``IfExists``.
            durability: ``fsync`` or ``replicated(n)``: this returns when Redis has confirmed that
                the command is kept so, and whoever awaits the run's end is told of it when that is.

        Raises:
            NotConfirmedError: The run was started, and may yet be lost.
            StoreUnsafeError: This server can never confirm that; nothing was sent.
            PayloadError, InvalidNameError, InvalidOptionError: Nothing was sent.
            StoreUnavailableError: Nothing was sent.
            UnknownOutcomeError: It may have been sent; call again with the same *run_id*, and
                with the same *id* of your own where *if_exists* lets the run give way.
        """
        policy, level = as_policy(if_exists), as_durability(durability)
        command = RunStart(
            workflow=check_name(workflow, "workflow name"),
            input=self.codec.encode(input).decode(),
            run_id="" if run_id is None and id else check_run_id(run_id or self._ids.run_id()),
            id=id or (self._ids.nonce() if policy.replaces else ""),
            queue=queue,
            if_exists=policy.value,
            durability=str(level) if level else "",
        )
        entry = await self.send(command, queue, durability=level)
        start = Start(command, entry, self._queue.connection, self.keys, self.codec)
        return RunHandle(self, command.run, start)

    async def send(
        self,
        command: Command,
        queue: str = "",
        *,
        durability: Durability | str | None = None,
    ) -> str:
        """Put any command on the stream; return its entry id, when it is kept as *durability* says.

        Raises:
            NotConfirmedError: It is on the stream, and may yet be lost.
            PayloadError, InvalidNameError, InvalidOptionError: Nothing was sent.
        """
        return await self._queue.send(command, queue, codec=self.codec, durability=durability)

    async def signal(
        self,
        run_id: str,
        name: str,
        data: Any = None,
        *,
        id: str = "",
        durability: Durability | str | None = None,
    ) -> None:
        """Send a signal to a run; with an *id* it is recorded once however often it is sent.

        *durability* is that of the command, see ``send``.
        """
        text = self.codec.encode(data).decode()
        check_name(name, "signal name")
        command = RunSignal(run_id=check_run_id(run_id), name=name, data=text, id=id)
        await self.send(command, durability=durability)

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

        The end of a run that was started with a durability is told when it is confirmed.

        Raises:
            NotConfirmedError: It has ended, and its end may yet be lost. Wait for it again.
            RunNotFoundError: There is no such run.
            WaitTimeoutError: It has not ended in time. It goes on.
        """
        return await self._wait(run_id, timeout, must_exist=must_exist)

    async def _wait(
        self,
        run_id: str,
        timeout: Duration | None,
        *,
        must_exist: bool,
        start: Start | None = None,
    ) -> WorkflowRun:
        timeout_s = None if timeout is None else duration_ms(timeout) / 1_000
        while True:
            run = await self._waiter.wait(
                check_run_id(run_id), timeout_s=timeout_s, must_exist=must_exist, start=start
            )
            run = await self._confirmed(run)
            if run.status in TERMINAL:  # or else a failover has undone its end
                return run

    async def _confirmed(self, run: WorkflowRun) -> WorkflowRun:
        """Return the run as it stands once that is confirmed, if it was to be."""
        if not (level := as_durability(run.durability)):
            return run
        key, what = self.keys.run(run.id), f"the end of run {run.id!r}"
        fields = fields_of(await self._queue.confirmer.read(level, what, "HGETALL", key))
        if not fields:
            raise RunNotFoundError(run.id)
        return read_run(fields, self.codec)

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
        return _output(await self.wait(run_id, timeout, must_exist=must_exist))


def _output(run: WorkflowRun) -> Any:
    if run.status is not RunStatus.COMPLETED:
        raise RunFailedError(run.id, run.status, run.error)
    return run.output
