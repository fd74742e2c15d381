"""A client of the state service that makes calls as they are described, and keeps their bytes."""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from typing import Any, NamedTuple

from tests.properties.model import Call

from askel import (
    UNSET,
    AskelError,
    LockLostError,
    RedisWorkflowService,
    SerializedError,
    StepState,
)


class DealtIds:
    """Gives out the ids that a call was dealt, so that its copy and the model have the same."""

    def __init__(self) -> None:
        self.hand: list[str] = []

    def take(self) -> str:
        return self.hand.pop(0)

    run_id = suffix = take

    def nonce(self) -> str:
        """Return an id that is twice as long."""
        return 2 * self.take()


class HeldLock(NamedTuple):
    """A lock, and what makes calls as its holder does."""

    holder: str
    context: Context
    leave: asyncio.Event
    task: asyncio.Task[None]


class Client:
    """One service with a connection of its own."""

    def __init__(self, service: RedisWorkflowService) -> None:
        self.service = service
        self.ids = service.ids = DealtIds()
        self.commands: list[tuple[Any, ...]] = []
        self.locks: dict[str, HeldLock] = {}
        send = service.connection.send

        def keep(*command: Any) -> Any:
            if command[0] == "EVALSHA":
                self.commands.append(command)
            return send(*command)

        service.connection.send = keep  # type: ignore[method-assign]

    async def make(self, call: Call) -> tuple[str, Any]:
        """Make the call, under the lock where it is held; return how it ended."""
        self.ids.hand = list(call.ids)
        held = self.locks.get(call.run_id)
        call.holder = held.holder if held else ""
        context = held.context.copy() if held else copy_context()
        task = asyncio.get_running_loop().create_task(self._make(call), context=context)
        try:
            return "returns", await task
        except AskelError as error:
            return "raises", type(error)

    async def _make(self, call: Call) -> Any:
        if call.method == "create_run":
            run_id = {} if "idempotency_key" in call.options else {"run_id": call.run_id or None}
            return await self.service.create_run(*call.args, **run_id, **call.options)
        if call.method == "delete_run":
            return await self.service.delete_run(call.run_id, **call.options)
        if call.method == "transaction":
            async with self.service.transaction(call.run_id) as transaction:
                for part in call.parts:
                    change(transaction, part)
            return None
        answer = await change(self.service, call, call.run_id)
        return answer if answer is None else facts(answer)

    async def acquire(self, run_id: str, drawn: str, wait: str) -> tuple[str, Any]:
        """Take the lock and keep it; return its fence, or how it ended."""
        self.ids.hand = [drawn]
        entered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        leave = asyncio.Event()

        async def hold() -> None:
            try:
                async with self.service.run_lock(run_id, wait=wait) as lock:
                    entered.set_result((lock.fence, copy_context()))
                    await leave.wait()
            except AskelError as error:
                if not entered.done():
                    entered.set_exception(error)
                elif not isinstance(error, LockLostError):
                    raise

        task = asyncio.create_task(hold())
        try:
            fence, context = await entered
        except AskelError as error:
            await task
            return "raises", type(error)
        self.locks[run_id] = HeldLock(2 * drawn, context, leave, task)
        return "returns", fence

    async def release(self, run_id: str) -> str:
        """Give the lock back; return who held it."""
        held = self.locks.pop(run_id)
        held.leave.set()
        await held.task
        return held.holder

    async def send_again(self, command: tuple[Any, ...]) -> None:
        """Send the bytes of an old call once more."""
        connection = self.service.connection
        scripts = self.service.scripts._scripts.values()
        body = next(script.body for script in scripts if script.sha == command[1])
        await connection.send("SCRIPT", "LOAD", body)
        await connection.send(*command)


def change(target: Any, call: Call, *run: str) -> Any:
    """Make a change of *target*, the service or a transaction, as *call* says."""
    method = getattr(target, call.method)
    match call.method:
        case "insert_step_state":
            name, rpc_name, data, retries = call.args
            return method(*run, name, rpc_name, data, {"retries": retries})
        case "update_run_status":
            status, output, error = call.args
            given = None if error is None else SerializedError(**error)
            return method(*run, status, UNSET if output is None else output, given)
        case "update_run_state":
            return method(*run, *call.args)
        case "set_step_error":
            return method(call.args[1], SerializedError(**call.args[2]))
        case _:
            return method(*call.args[1:])


def facts(state: StepState) -> tuple[Any, ...]:
    """Return what is compared of a step, as the model has it."""
    return (
        state.step_id, state.status.value, state.attempt_count, state.rpc_name, state.data,
        state.retries, state.result, state.error and state.error.message, state.branch_taken,
        state.child_run_id,
    )  # fmt: skip
