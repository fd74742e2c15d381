"""Two clients of the state service do whatever comes to mind, beside the model of it.

Each step makes one call (or two at once, or sends the bytes of an old one again), gives it to the
model as well, and compares the answers. Then the whole prefix is read and compared, and so is what
the service tells of each run. The dice of a step come from Hypothesis, which leaves out what a
failure does not need.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from tests.helpers.keyspace import read_keyspace
from tests.properties.agreement import disagreements
from tests.properties.client import Client
from tests.properties.deeds import FAULTS, RUNS, STEPS, Deeds
from tests.properties.model import TERMINAL, Call, Model
from tests.properties.readings import check_readings


class ServiceMachine(RuleBasedStateMachine):
    """The machine; a subclass says on which server."""

    open: Callable[[AsyncExitStack], Any]
    """Makes two services, a client to look with, the prefix, and what arms a fault."""
    salt: str
    """Makes the dice of each server fall otherwise."""
    counts: Counter[str]
    """What happened how often."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.deeds = Deeds(self.model)
        self.dice = self.deeds.dice
        self.number = 0
        self.sent: list[tuple[Call, tuple[Any, ...]]] = []
        self.stack = AsyncExitStack()
        self.runner.run(self._open())

    async def _open(self) -> None:
        services, self.redis, self.prefix, self.arm = await type(self).open(self.stack)
        self.clients = [Client(service) for service in services]

    def teardown(self) -> None:
        self.runner.run(self._close())
        self.runner.close()

    async def _close(self) -> None:
        for client in self.clients:
            for run_id in list(client.locks):
                await client.release(run_id)
        await self.stack.aclose()

    @initialize()
    def begin(self) -> None:
        self.dice.seed(0)
        self.runner.run(self._begin())

    async def _begin(self) -> None:
        for run in RUNS:
            await self._make(self.deeds.call("create_run", run, ("w", 1)))
            await self._furnish(run)

    @rule(seed=st.integers(0, 2**64 - 1))
    def step(self, seed: int) -> None:
        self.number += 1
        # Numbers of Hypothesis are often the same small ones.
        self.dice.seed(f"{self.salt} {seed} {self.number}")
        deeds = {
            self._change: 40, self._steps_go_on: 12, self._transaction: 16, self._create: 8,
            self._delete: 7, self._at_once: 10, self._late_copy: 12, self._lock: 10,
            self._unlock: 6, self._lock_expires: 4, self._scripts_are_forgotten: 1,
        }  # fmt: skip
        (deed,) = self.dice.choices(list(deeds), list(deeds.values()))
        self.runner.run(self._step(deed))

    async def _step(self, deed: Callable[[], Any]) -> None:
        await deed()
        found = await read_keyspace(self.redis, self.prefix)
        wrong = disagreements(self.model, found)
        assert not wrong, "\n".join(wrong)
        reader = self.clients[len(self.sent) % 2].service
        await check_readings(reader, self.model, found)
        self.counts["steps"] += 1

    # What is done.

    async def _change(self) -> None:
        await self._make(self.deeds.change(), self.dice.randrange(2), self._fault())

    async def _steps_go_on(self) -> None:
        """A step goes the way it goes in a program that knows what it is doing."""
        run, name = self.deeds.some_run(), self.dice.choice(STEPS)
        for method in ("set_step_scheduled", "set_step_running", "set_step_error"):
            current = self.model.runs.get(run)
            if current is None or name not in current.steps:
                return
            step_id = current.steps[name].step_id
            more = ({"message": "no"},) if method == "set_step_error" else ()
            if current.steps[name].status == "failed":
                await self._make(
                    self.deeds.call("create_retry_attempt", run, (name, step_id, "pending"))
                )
            await self._make(self.deeds.call(method, run, (name, step_id, *more)))

    async def _transaction(self) -> None:
        await self._make(self.deeds.transaction(), self.dice.randrange(2), self._fault())

    async def _create(self) -> None:
        call = self.deeds.creation()
        await self._make(call, self.dice.randrange(2), self._fault())
        made = self.model.runs.get(call.run_id)
        if made is not None and not made.steps and made.status not in TERMINAL:
            await self._furnish(call.run_id)

    async def _furnish(self, run: str) -> None:
        for name in STEPS:
            await self._make(self.deeds.insertion(run, name))
        await self._make(self.deeds.change(run, "update_run_state"))

    async def _delete(self) -> None:
        await self._make(self.deeds.deletion(), self.dice.randrange(2), self._fault())

    async def _at_once(self) -> None:
        """Two calls at one moment: what comes of them is what one order of them would make."""
        run = self.deeds.some_run()
        calls = [self.deeds.change(run), self.deeds.change(run)]
        if self.dice.random() < 0.2:
            calls[1] = self.deeds.call("create_run", run, ("w", 1), if_exists="terminate-existing")
        if self.dice.random() < 0.1:
            calls[0] = self.deeds.call("delete_run", run, force=True)
        await self._make_both(calls)

    async def _late_copy(self) -> None:
        """The same bytes arrive once more, however much later."""
        if self.sent:
            back = int(self.dice.triangular(0, len(self.sent), 0)) % len(self.sent)
            call, command = self.sent[-1 - back]
            note(f"again: {call}")
            await self.dice.choice(self.clients).send_again(command)
            if call.method == "lock":
                self.model.lock(call.run_id, call.holder)
            else:
                self.model.answer(call)
            self._count("late copy", f"late copy of {call.method}")

    async def _lock(self) -> None:
        client, run_id = self.dice.choice(self.clients), self.deeds.some_run()
        if self.dice.random() < 0.5:
            run_id = self.dice.choice([*self.model.runs, "nobody"])
        if run_id in client.locks:
            return
        fault, drawn = self._fault(), self.deeds.new_id()
        note(f"lock {run_id} {fault}")
        mark = len(client.commands)
        bitten = self.arm(fault) if fault else bool
        answer = await client.acquire(run_id, drawn, "50ms" if fault else "0ms")
        bitten()
        call = Call("lock", run_id, holder=2 * drawn)
        wanted = self.model.lock(run_id, call.holder)
        assert answer == wanted, f"lock of {run_id}: {answer} instead of {wanted}"
        self._keep(call, client.commands[mark:])
        self._count("", f"lock {_ending(answer)}")

    async def _unlock(self) -> None:
        held = [(client, run) for client in self.clients for run in client.locks]
        if held:
            client, run_id = self.dice.choice(held)
            note(f"unlock {run_id}")
            self.model.unlock(run_id, await client.release(run_id))

    async def _lock_expires(self) -> None:
        """As it does when its holder sleeps past the lease."""
        for run in self.model.runs.values():
            if run.lock is not None:
                note(f"the lock of {run.run_id} expires")
                await self.redis.delete(f"{self.prefix}:lock:{run.run_id}")
                run.lock = None

    async def _scripts_are_forgotten(self) -> None:
        await self.redis.script_flush()

    # How.

    def _fault(self) -> str:
        return self.dice.choice(FAULTS) if self.dice.random() < 0.25 else ""

    async def _make(self, call: Call, number: int = 0, fault: str = "") -> None:
        note(f"{call} {fault}")
        client = self.clients[number]
        bitten = self.arm(fault) if fault else bool
        mark = len(client.commands)
        answer = await client.make(call)
        resent = bitten()
        wanted = self.model.answer(call, resent=resent)
        assert answer in (wanted, self.model.alternative), f"{call}: {answer} instead of {wanted}"
        self._keep(call, client.commands[mark:])
        self._count(fault if resent else "", f"{call.method} {_ending(answer)}")

    async def _make_both(self, calls: list[Call]) -> None:
        note(f"at once: {calls}")
        marks = [len(client.commands) for client in self.clients]
        pairs = zip(calls, self.clients, strict=True)
        answers = await asyncio.gather(*(client.make(call) for call, client in pairs))
        found = await read_keyspace(self.redis, self.prefix)
        against = []
        for order in ((0, 1), (1, 0)):
            model = copy.deepcopy(self.model)
            wanted = {place: (model.answer(calls[place]), model.alternative) for place in order}
            wrong = disagreements(model, found)
            if not wrong and all(answers[place] in wanted[place] for place in order):
                self.model.__dict__.update(model.__dict__)
                break
            against += [f"{order}: {wanted}", *wrong]
        else:
            raise AssertionError("\n".join([f"no order explains {answers} of {calls}", *against]))
        for call, client, mark in zip(calls, self.clients, marks, strict=True):
            self._keep(call, client.commands[mark:])
        self._count(
            "at once", *(f"{c.method} {_ending(a)}" for c, a in zip(calls, answers, strict=True))
        )

    def _keep(self, call: Call, commands: list[tuple[Any, ...]]) -> None:
        self.sent += [(copy.deepcopy(call), command) for command in commands[-1:]]
        self.deeds.note_ids()

    def _count(self, *words: str) -> None:
        self.counts.update(word for word in words if word)


def _ending(answer: tuple[str, Any]) -> str:
    return "done" if answer[0] == "returns" else answer[1].__name__
