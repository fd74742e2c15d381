"""Two clients of the state service do whatever comes to mind, beside the model of it.

Each rule makes one call (or two at once, or repeats the bytes of an old one), gives it to the model
as well, and compares the answers. After every rule the whole prefix is read and compared, and so
is what the service tells of each run.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from contextvars import Context, copy_context
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from tests.helpers.keyspace import read_keyspace
from tests.properties.agreement import disagreements
from tests.properties.model import TERMINAL, Call, Model
from tests.properties.readings import check_readings

from askel import (
    UNSET,
    AskelError,
    LockLostError,
    RedisWorkflowService,
    SerializedError,
    StepState,
    UnknownOutcomeError,
)
from askel.state.ids import run_id_of_command

RUNS = ("a", "b")
STEPS = ("s", "t:é")
KEY_RUN = run_id_of_command("key")
#: What a step usually goes through.
STEP_MOVES = (
    "set_step_scheduled",
    "set_step_running",
    "set_step_error",
    "create_retry_attempt",
    "set_step_result",
)
FAULTS = ("lose_next_reply", "lose_next_request")


class DealtIds:
    """Gives out the ids that a call was dealt, so that its copy and the model have the same."""

    def __init__(self) -> None:
        self.hand: list[str] = []

    def take(self) -> str:
        return self.hand.pop(0)

    run_id = nonce = suffix = take


class Sent:
    """A call that was made, and the bytes of the script that it sent."""

    def __init__(self, call: Call, command: tuple[Any, ...]) -> None:
        self.call = call
        self.command = command


class Client:
    """One service with a connection of its own."""

    def __init__(self, service: RedisWorkflowService) -> None:
        self.service = service
        self.ids = service.ids = DealtIds()
        self.commands: list[tuple[Any, ...]] = []
        self.contexts: dict[str, tuple[str, Context, asyncio.Event, asyncio.Task[None]]] = {}
        inner = service.connection
        send = inner.send

        def keep(*command: Any) -> Any:
            if command[0] == "EVALSHA":
                self.commands.append(command)
            return send(*command)

        inner.send = keep  # type: ignore[method-assign]

    async def make(self, call: Call) -> tuple[str, Any]:
        """Make the call; return how it ended, as the model puts it."""
        self.ids.hand = list(call.ids)
        context = self.contexts[call.run_id][1] if call.holder else copy_context()
        task = asyncio.get_running_loop().create_task(self._make(call), context=context.copy())
        try:
            return "returns", await task
        except AskelError as error:
            if isinstance(error, UnknownOutcomeError):
                assert error.__cause__ is not None
            return "raises", type(error)

    async def _make(self, call: Call) -> Any:
        if call.method == "create_run":
            run_id = {} if call.options.get("idempotency_key") else {"run_id": call.run_id or None}
            return await self.service.create_run(*call.args, **run_id, **call.options)
        if call.method == "delete_run":
            return await self.service.delete_run(call.run_id, **call.options)
        if call.method == "transaction":
            async with self.service.transaction(call.run_id) as transaction:
                for part in call.parts:
                    queue(transaction, part)
            return None
        answer = await queue(self.service, call, call.run_id)
        return answer if answer is None else facts(answer)


def queue(target: Any, call: Call, *run: str) -> Any:
    """Call *target* (the service or a transaction) as *call* says."""
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
    """Return what is compared of a step, as the model does."""
    return (
        state.step_id, state.status.value, state.attempt_count, state.rpc_name, state.data,
        state.retries, state.result, state.error and state.error.message, state.branch_taken,
        state.child_run_id,
    )  # fmt: skip


VALUES = st.sampled_from([0, 1, [], {"é": None}])
ERRORS = st.sampled_from([{"message": "no"}, {"message": "never", "code": "E"}])
OUTCOMES = {
    "completed": (VALUES.filter(lambda value: value is not None), st.none()),
    "failed": (st.none(), st.none() | ERRORS),
    "cancelled": (st.none(), st.none() | ERRORS),
    "suspended": (st.none(), st.none() | ERRORS),
    "stalled": (st.none(), st.none() | ERRORS),
    "running": (st.none(), st.none()),
}
STATUS_ARGS = st.sampled_from(
    ["running", "running", "suspended", "suspended", "stalled", *sorted(OUTCOMES)]
).flatmap(lambda status: st.tuples(st.just(status), *OUTCOMES[status]))


@st.composite
def changes(draw: Any) -> tuple[str, tuple[Any, ...]]:
    """A change of a run without ids: the method, and its arguments after the step's name."""
    kind = draw(st.sampled_from(sorted(_ARGUMENTS)))
    return kind, draw(_ARGUMENTS[kind])


_STEP = st.sampled_from(STEPS)
#: An index among the ids that the step ever had, the newest first; a large one is none of them.
_WHICH = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 9])
_ARGUMENTS: dict[str, Any] = {
    "insert_step_state": st.tuples(
        _STEP, st.sampled_from(["f", "f", "f", "g"]), VALUES, st.sampled_from([None, 0, 1, 2])
    ),
    "set_step_scheduled": st.tuples(_STEP, _WHICH),
    "set_step_running": st.tuples(_STEP, _WHICH),
    "set_step_result": st.tuples(_STEP, _WHICH, VALUES),
    "set_step_error": st.tuples(_STEP, _WHICH, ERRORS),
    "create_retry_attempt": st.tuples(_STEP, _WHICH, st.sampled_from(["pending", "running"])),
    "set_branch_taken": st.tuples(_STEP, _WHICH, st.sampled_from(["left", "right"])),
    "set_step_child_run_id": st.tuples(_STEP, _WHICH, st.sampled_from(["c1", "c2"])),
    "update_run_status": STATUS_ARGS,
    "update_run_state": st.tuples(st.sampled_from(["v", "w:é"]), VALUES),
}
_WITHOUT_ID = {"insert_step_state", "update_run_status", "update_run_state"}


class ServiceMachine(RuleBasedStateMachine):
    """The machine; `open` says on which server."""

    open: Callable[[AsyncExitStack], Any]
    """Makes two services, a client to look with, the prefix, and what arms a fault (or None)."""
    counts: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.dice = random.Random(7)
        self.ids_of: dict[tuple[str, str], list[str]] = {}
        self.sent: list[Sent] = []
        self.stack = AsyncExitStack()
        self.run_async(self._open())

    def run_async(self, coroutine: Any) -> Any:
        import time

        t0 = time.perf_counter()
        try:
            return self.runner.run(coroutine)
        finally:
            self.counts["T:" + coroutine.__name__] += int((time.perf_counter() - t0) * 1e6)

    async def _open(self) -> None:
        services, self.redis, self.prefix, self.arm = await type(self).open(self.stack)
        self.clients = [Client(service) for service in services]

    def teardown(self) -> None:
        self.run_async(self._close())
        self.runner.close()

    async def _close(self) -> None:
        for client in self.clients:
            for run_id in list(client.contexts):
                await self._release(client, run_id)
        await self.stack.aclose()

    # Rules.

    @initialize(value=VALUES, retries=st.sampled_from([None, 1, 2]))
    def first_runs(self, value: Any, retries: Any) -> None:
        for run in RUNS:
            self._do(self._call("create_run", run, ("w", value)))
            self._insert_steps(run, value, retries)

    def _insert_steps(self, run: str, value: Any, retries: int | None) -> None:
        for name in STEPS:
            self._do(self._change(run, "insert_step_state", (name, "f", value, retries)))

    @rule(
        run=st.sampled_from([*RUNS, "", KEY_RUN]),
        workflow=st.sampled_from(["w", "w", "u:x"]),
        value=VALUES,
        policy=st.sampled_from(["reject", "return", "after-terminal", "terminate-existing"]),
        client=st.integers(0, 1),
        fault=st.sampled_from(["", "", *FAULTS]),
    )
    def create(self, run, workflow, value, policy, client, fault) -> None:
        options = {"if_exists": policy} if run else {}
        if run == KEY_RUN:
            options["idempotency_key"] = "key"
        call = self._call("create_run", run, (workflow, value), options)
        self._do(call, client, fault)
        made = self.model.runs.get(run)
        if made is not None and not made.steps and made.status not in TERMINAL:
            self._insert_steps(run, value, 2)

    @rule(
        change=changes(),
        run=st.sampled_from([*RUNS, *RUNS, "a.g1", "nobody", KEY_RUN]),
        client=st.integers(0, 1),
        fault=st.sampled_from(["", "", "", *FAULTS]),
    )
    def change(self, change, run, client, fault) -> None:
        self._do(self._change(run, *change), client, fault)

    # Most calls are about runs that live: a machine that only gets refusals learns little.
    @precondition(lambda self: self._live())
    @rule(
        change=changes(),
        pick=st.integers(0, 99),
        client=st.integers(0, 1),
        fault=st.sampled_from(["", "", "", *FAULTS]),
    )
    def change_of_a_live_run(self, change, pick, client, fault) -> None:
        live = self._live()
        self._do(self._change(live[pick % len(live)], *change), client, fault)

    @precondition(lambda self: self._live())
    @rule(
        moves=st.lists(st.tuples(st.sampled_from(STEP_MOVES), VALUES), min_size=1, max_size=4),
        name=_STEP,
        pick=st.integers(0, 99),
    )
    def steps_go_on(self, moves, name, pick) -> None:
        """A step goes some way, as it does in a program that knows what it is doing."""
        live = self._live()
        run = live[pick % len(live)]
        for method, value in moves:
            rest = {"set_step_result": (value,), "set_step_error": ({"message": "no"},)}
            args = (name, 0, *rest.get(method, ()))
            if method == "create_retry_attempt":
                args = (*args, "running")
            self._do(self._change(run, method, args))

    @rule(
        parts=st.lists(changes(), max_size=6),
        run=st.sampled_from([*RUNS, *RUNS, "nobody"]),
        client=st.integers(0, 1),
        fault=st.sampled_from(["", "", *FAULTS]),
    )
    def transaction(self, parts, run, client, fault) -> None:
        self._do(self._transaction(run, parts), client, fault)

    @rule(
        run=st.sampled_from([*RUNS, "a.g1", "nobody", KEY_RUN]),
        force=st.booleans(),
        client=st.integers(0, 1),
        fault=st.sampled_from(["", "", *FAULTS]),
        chance=st.integers(0, 9),
    )
    def delete(self, run, force, client, fault, chance) -> None:
        live = self._live()
        if chance not in {3, 7} and len(live) < 3 and run in live and force:
            return  # else there is seldom anything to be changed
        self._do(self._call("delete_run", run, (), {"force": force}), client, fault)

    @rule(first=changes(), second=changes(), run=st.sampled_from(RUNS), policy=st.booleans())
    def at_once(self, first, second, run, policy) -> None:
        """Two calls at one moment: what comes of them is what one order of them would make."""
        calls = [self._change(run, *first), self._change(run, *second)]
        if policy:
            calls[1] = self._call("create_run", run, ("w", 1), {"if_exists": "terminate-existing"})
        self.run_async(self._both(calls))

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 60))
    def late_copy(self, which) -> None:
        """The same bytes arrive once more, however much later."""
        sent = self.sent[-1 - which % len(self.sent)]
        self.run_async(self._send_again(sent))
        self.model.answer(sent.call)
        self._count("late copy", sent.call.method)

    @rule(
        run=st.sampled_from([*RUNS, "nobody"]),
        client=st.integers(0, 1),
        fault=st.sampled_from(["", "", *FAULTS]),
    )
    def lock(self, run, client, fault) -> None:
        if run not in self.clients[client].contexts:
            self.run_async(self._acquire(self.clients[client], run, fault))

    @precondition(lambda self: any(client.contexts for client in self.clients))
    @rule(pick=st.integers(0, 9))
    def unlock(self, pick) -> None:
        held = [(client, run) for client in self.clients for run in client.contexts]
        client, run = held[pick % len(held)]
        self.run_async(self._release(client, run))

    @precondition(lambda self: any(run.lock for run in self.model.runs.values()))
    @rule(chance=st.integers(0, 9))
    def lock_expires(self, chance) -> None:
        """As it would if its holder slept past the lease."""
        if chance not in {3, 7}:
            return
        run = next(run for run in self.model.runs.values() if run.lock)
        self.run_async(self.redis.delete(f"{self.prefix}:lock:{run.run_id}"))
        run.lock = None

    @precondition(lambda self: self.arm is not None)
    @rule()
    def scripts_are_forgotten(self) -> None:
        self.run_async(self.redis.script_flush())

    @invariant()
    def service_and_model_agree(self) -> None:
        self.run_async(self._compare())

    # How.

    def _live(self) -> list[str]:
        return [run.run_id for run in self.model.runs.values() if run.status not in TERMINAL]

    def _id(self) -> str:
        return base64.urlsafe_b64encode(self.dice.randbytes(6)).decode()

    def _call(self, method: str, run: str, args: Any = (), options: Any = None) -> Call:
        ids = [self._id() for _ in range(14)]
        if method == "create_run" and not run:
            ids[0] = f"new-{len(self.model.events)}-{ids[0].strip('-_')}"
        return Call(method, run, args, options or {}, ids)

    def _change(self, run: str, method: str, args: tuple[Any, ...]) -> Call:
        if method in _WITHOUT_ID:
            return self._call(method, run, args)
        name, which, *rest = args
        known = self.ids_of.get((run, name), [])
        step_id = known[-1 - which] if which < len(known) else f"{run}:{name}:unknown"
        current = self.model.runs.get(run)
        if which == 0 and current is not None and name in current.steps:
            step_id = current.steps[name].step_id
        return self._call(method, run, (name, step_id, *rest))

    def _transaction(self, run: str, parts: list[tuple[str, tuple[Any, ...]]]) -> Call:
        """Return a transaction, whose later changes may be about a step that it inserts."""
        call = self._call("transaction", run)
        hand, inserted = iter(call.ids), {}
        for method, args in parts:
            part = self._change(run, method, args)
            if method == "insert_step_state":
                inserted[args[0]] = f"{run}:{args[0]}:{next(hand)}"
            elif method not in _WITHOUT_ID and args[0] in inserted and args[1] == 0:
                part.args = (args[0], inserted[args[0]], *args[2:])
            if method == "create_retry_attempt":
                next(hand)
            call.parts.append(part)
        return call

    def _do(self, call: Call, client: int = 0, fault: str = "") -> None:
        self.run_async(self._make(call, self.clients[client], fault))

    async def _make(self, call: Call, client: Client, fault: str = "") -> None:
        if call.run_id in client.contexts:
            call.holder = client.contexts[call.run_id][0]
        bites = self.arm(fault) if fault and self.arm else None
        sent_before = len(client.commands)
        answer = await client.make(call)
        resent = bites is not None and bites()
        wanted = self.model.answer(call, resent=resent)
        assert answer in (wanted, self.model.alternative), f"{call}: {answer} instead of {wanted}"
        self._keep(call, client.commands[sent_before:])
        self._count(fault if resent else "", f"{call.method} {_ending(answer)}")

    async def _both(self, calls: list[Call]) -> None:
        for call, client in zip(calls, self.clients, strict=True):
            if call.run_id in client.contexts:
                call.holder = client.contexts[call.run_id][0]
        marks = [len(client.commands) for client in self.clients]
        pairs = zip(calls, self.clients, strict=True)
        answers = await asyncio.gather(*(client.make(call) for call, client in pairs))
        found = await read_keyspace(self.redis, self.prefix)
        explained, against = [], []
        for order in ((0, 1), (1, 0)):
            model = copy.deepcopy(self.model)
            wanted = {place: (model.answer(calls[place]), model.alternative) for place in order}
            wrong = disagreements(model, found)
            if not wrong and all(answers[place] in wanted[place] for place in order):
                explained.append(model)
            else:
                against += [f"{order}: {wanted}", *wrong]
        assert explained, "\n".join([f"no order explains {answers} of {calls}", *against])
        self.model = explained[0]
        for call, client, mark in zip(calls, self.clients, marks, strict=True):
            self._keep(call, client.commands[mark:])
        self._count("at once")

    def _keep(self, call: Call, commands: list[tuple[Any, ...]]) -> None:
        """Remember the bytes of a write, and the ids that its steps have now."""
        for command in commands[-1:]:
            self.sent.append(Sent(copy.deepcopy(call), command))
        for run in self.model.runs.values():
            for name, step in run.steps.items():
                known = self.ids_of.setdefault((run.run_id, name), [])
                if step.step_id not in known:
                    known.append(step.step_id)

    async def _send_again(self, sent: Sent) -> None:
        connection = self.clients[1].service.connection
        try:
            await connection.send(*sent.command)
        except AskelError:  # the server has forgotten its scripts: a late copy is then nothing
            scripts = self.clients[1].service.scripts._scripts.values()
            body = next(script.body for script in scripts if script.sha == sent.command[1])
            await connection.send("SCRIPT", "LOAD", body)
            await connection.send(*sent.command)

    async def _acquire(self, client: Client, run_id: str, fault: str) -> None:
        holder = self._id() + self._id()
        client.ids.hand = [holder]
        entered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        leave = asyncio.Event()
        bites = self.arm(fault) if fault and self.arm else None

        async def hold() -> None:
            try:
                async with client.service.run_lock(run_id, wait="50ms" if bites else 0) as lock:
                    entered.set_result((lock.fence, copy_context()))
                    await leave.wait()
            except AskelError as error:
                if entered.done():
                    assert isinstance(error, LockLostError)
                else:
                    entered.set_exception(error)

        task = asyncio.create_task(hold())
        try:
            fence, context = await entered
        except AskelError as error:
            answer: tuple[str, Any] = "raises", type(error)
            await task
        else:
            answer = "returns", fence
            client.contexts[run_id] = holder, context, leave, task
        if bites is not None:
            bites()
        wanted = self.model.lock(run_id, holder)
        assert answer == wanted, f"lock of {run_id}: {answer} instead of {wanted}"
        self._count("", f"lock {_ending(answer)}")

    async def _release(self, client: Client, run_id: str) -> None:
        holder, _, leave, task = client.contexts.pop(run_id)
        leave.set()
        await task
        self.model.unlock(run_id, holder)

    async def _compare(self) -> None:
        import time

        t0 = time.perf_counter()
        found = await read_keyspace(self.redis, self.prefix)
        wrong = disagreements(self.model, found)
        assert not wrong, "\n".join(wrong)
        reader = self.clients[len(self.sent) % 2].service
        t1 = time.perf_counter()
        await check_readings(reader, self.model, found)
        self.counts["T1"] += int((t1 - t0) * 1e6)
        self.counts["T2"] += int((time.perf_counter() - t1) * 1e6)
        self.counts["steps"] += 1

    def _count(self, *words: str) -> None:
        self.counts.update(word for word in words if word)


def _ending(answer: tuple[str, Any]) -> str:
    return "done" if answer[0] == "returns" else answer[1].__name__
