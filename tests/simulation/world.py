"""Runs a plan: real workers, on virtual time and a fake Redis; then judges what they left."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import anyio
import structlog
from tests.apps.programs import Instruction, app, outcome
from tests.helpers.history_checker import TERMINAL, RunRecord, check_all, leftovers
from tests.simulation.loop import PROCESS, StandstillError, VirtualLoop
from tests.simulation.network import Server, SimulatedConnection
from tests.simulation.plan import WORKERS, Event, Plan

from askel import RedisWorkflowService
from askel.state import Keys, Scripts
from askeld import renewal
from askeld.config import WorkerConfig
from askeld.renewal import Renewal
from askeld.worker import Worker

PREFIX = "workflows"
#: The moment at which virtual time begins, in seconds of the epoch: small, for its resolution.
EPOCH_S = 1_000_000.0
#: How long a world may take to become quiet when nothing happens to it any more.
PATIENCE_S = 40.0
SETTINGS: dict[str, Any] = {
    "lease_ms": 1_000,
    "claim_idle_ms": 1_500,
    "sweep_ms": 300,
    "linger_ms": 500,
    "block_ms": 1_000,
    "drain_ms": 2_000,
    "max_deliveries": 50,
    "not_found_after_ms": 5_000,
    "retention_ms": 1_000,
    "max_block_ms": 0,
}
#: By worker: what one serves, another may not.
QUEUES = (("", "warehouse"), ("",), ("warehouse",))
#: The run that is started on a queue.
ON_A_QUEUE = "r1"


#: Why commands of a plan may be refused: they came too late.
_REASONS = {"run_ended", "illegal_transition", "run_not_found"}
#: Answers to those who look for work and find none.
_OF_IDLE_LOOPS = {"WAIT"}


class BrokenPromiseError(AssertionError):
    """What a simulation came to that must never be, and how it came to it."""

    trace: list[str]


class SimulatedRenewal(Renewal):
    """Renews in a task of the process' loop instead of in a thread: there are none here."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin."""
        self._loop = loop
        self._task = loop.create_task(self._renew_by_virtual_time())

    _task: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()

    async def _renew_by_virtual_time(self) -> None:
        scripts = Scripts(renewal.connect(self._connection))
        while True:
            await asyncio.sleep(self._renew_s / 4)
            self._pulse.beat(self._renew_s)
            for held in self._leases.older_than(self._renew_s):
                await self._renew(scripts, held)


@dataclass
class Simulation:
    """One plan being carried out."""

    plan: Plan
    trace: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    deleted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Make the world."""
        self.loop = VirtualLoop(random.Random(f"order {self.plan.seed}"))
        self.server = Server()
        self.server.on_script = self._note
        self.dice = random.Random(f"network {self.plan.seed}")
        self.faults = {(f.worker, f.number): (f.kind, f.seconds) for f in self.plan.faults}
        self.keys = Keys(PREFIX)
        self.lives = dict.fromkeys(range(WORKERS), 0)
        self.stops: dict[str, anyio.Event] = {}
        self.failures: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def connection(self, *_: Any, **__: Any) -> SimulatedConnection:
        """Return a connection of the current process."""
        return SimulatedConnection(self.server, self.loop, self.dice, self.faults)

    def run(self) -> None:
        """Carry the plan out; what it leaves is as promised.

        Raises:
            BrokenPromiseError: It is not.
        """
        SimulatedConnection.sent = {}
        problem = self._problem()
        if problem:
            broken = BrokenPromiseError(problem)
            broken.trace = self.trace
            raise broken

    def _problem(self) -> str:
        """Live through the plan; return the promise that was broken, or nothing."""
        try:
            with self._virtual_time():
                asyncio.set_event_loop(self.loop)
                try:
                    self.loop.run_until_complete(self._live())
                finally:
                    for task in asyncio.all_tasks(self.loop):
                        task._log_destroy_pending = False  # of those who were killed, or live on
                    asyncio.set_event_loop(None)
                    self.loop.close()
        except (StandstillError, AssertionError) as error:
            return "\n".join([str(error) or repr(error), *self.failures])
        return "\n".join(self.failures)

    @contextmanager
    def _virtual_time(self) -> Iterator[None]:
        """Let all clocks and all chance be those of the plan."""
        chance = random.Random(f"chance {self.plan.seed}")
        state = random.getstate()
        random.seed(self.plan.seed)
        with (
            mock.patch.object(time, "time", self._time),
            mock.patch.object(time, "time_ns", self._time_ns),
            mock.patch.object(time, "monotonic", self.loop.time),
            mock.patch("askeld.renewal.lease_clock", self.loop.time),
            mock.patch.object(os, "urandom", chance.randbytes),
            mock.patch.object(secrets, "randbits", chance.getrandbits),
            mock.patch("askeld.worker.Renewal", SimulatedRenewal),
            mock.patch("askeld.worker.connect", self.connection),
            mock.patch("askeld.renewal.connect", self.connection),
            mock.patch("askel.state.service.connect", self.connection),
            # The fake has other words for the errors that this is about.
            mock.patch("askeld.store_check.StoreCheck.permissions", mock.AsyncMock()),
        ):
            yield
        random.setstate(state)

    def _time(self) -> float:
        return EPOCH_S + self.loop.time()

    def _time_ns(self) -> int:
        return int(self._time() * 1e9)

    # What happens.

    async def _live(self) -> None:
        for number in range(WORKERS):
            self._begin(number)
        for event in sorted(self.plan.events, key=lambda one: one.at):
            await asyncio.sleep(max(event.at - self.loop.time(), 0))
            self._do(event)
        await self._become_quiet()
        await self._judge()

    def _begin(self, number: int) -> None:
        """Start the next life of worker *number*."""
        name = f"w{number}.{self.lives[number]}"
        self.lives[number] += 1
        self.stops[name] = anyio.Event()
        token = PROCESS.set(name)
        try:
            task = self.loop.create_task(self._work(name, QUEUES[number]))
        finally:
            PROCESS.reset(token)
        self.tasks.append(task)  # so that a killed one is not collected

    async def _work(self, name: str, queues: tuple[str, ...]) -> None:
        def quiet(*_: Any) -> Any:
            raise structlog.DropEvent

        where = {"url": "redis://127.0.0.1:1", "prefix": PREFIX, "queues": queues}
        config = WorkerConfig(consumer=name, **where, **SETTINGS)
        worker = Worker(app, config, structlog.wrap_logger(None, processors=[quiet]))
        try:
            await worker.run(self.stops[name])
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends no worker
            self.failures.append(f"{name} ended with {error!r}")

    def _do(self, event: Event) -> None:
        """Do what the plan says."""
        name = f"w{event.worker}.{self.lives[event.worker] - 1}"
        self.trace.append(f"{self.loop.time():8.3f} {event}")
        self.counts[event.kind] += 1
        if event.kind == "kill":
            self.loop.kill(name)
            self._begin(event.worker)
        elif event.kind == "freeze":
            self.loop.freeze(name)
            self.loop.call_later(event.seconds, self.loop.thaw, name)
        elif event.kind == "drain":
            self.stops[name].set()
            self._begin(event.worker)
        elif event.kind == "evict locks":
            for run, _ in self.plan.programs:
                self.server.execute("", "DEL", self.keys.lock(run))
        elif event.kind == "delete":
            self._delete(dict(event.command)["run_id"])
        else:
            self._send(dict(event.command))

    def _send(self, words: dict[str, str]) -> None:
        queue = ""
        if words["type"] == "run.start":
            queue = "warehouse" if words["run_id"] == ON_A_QUEUE else ""
            words["input"] = json.dumps(dict(self.plan.programs).get(words["run_id"], ()))
        flat = [word for pair in words.items() for word in pair]
        self.server.execute("", "XADD", self.keys.commands(queue), "*", *flat)

    def _delete(self, run_id: str) -> None:
        service = RedisWorkflowService("redis://127.0.0.1:1", key_prefix=PREFIX)
        self.deleted.add(run_id)
        task = self.loop.create_task(service.delete_run(run_id, force=True))
        self.tasks.append(task)
        task.add_done_callback(asyncio.Task.exception)  # there may be no such run yet

    def _note(self, process: str, command: tuple[Any, ...], reply: Any) -> None:
        if isinstance(reply, list) and reply and isinstance(reply[0], bytes):
            word = reply[0].decode()
            self.counts[word] += 1
            if word not in _OF_IDLE_LOOPS:
                script = self.server.scripts.get(str(command[1]), "?")
                who = process or "outside"
                self.trace.append(f"{self.loop.time():8.3f} {who}: {script} -> {word}")

    # What is left.

    async def _become_quiet(self) -> None:
        """Wait until nothing is left to do; resume what was suspended."""
        client = self.server.client()
        end = self.loop.time() + PATIENCE_S
        while True:
            for run in await client.zrange(f"{PREFIX}:runs:status:suspended", 0, -1):
                self._send({"type": "run.resume", "run_id": run.decode()})
            await asyncio.sleep(1)
            dead = await client.xlen(f"{PREFIX}:dead")
            left = await leftovers(client, PREFIX, dead=dead)
            statuses = [await client.zcard(f"{PREFIX}:runs:status:{one}") for one in TERMINAL]
            if not left and sum(statuses) == await client.zcard(f"{PREFIX}:runs"):
                return
            if self.loop.time() > end:
                raise BrokenPromiseError("it does not become quiet:\n" + "\n".join(left))

    async def _judge(self) -> None:
        client = self.server.client()
        records = {record.run_id: record for record in await check_all(client, PREFIX)}
        for name, program in self.plan.programs:
            record = records.get(name)
            if record is None:
                was_lost = name in self._sent("run.start") and name not in self.deleted
                assert not was_lost, f"the start of {name} was lost"
            else:
                self._judge_run(record, program)
        letters = await client.xrange(f"{PREFIX}:dead")
        reasons = {fields[b"reason"].decode() for _, fields in letters}
        self.counts["dead letters"] = len(letters)
        assert reasons <= _REASONS, f"dead letters for {reasons - _REASONS}"

    def _judge_run(self, record: RunRecord, program: tuple[Instruction, ...]) -> None:
        for status in ("lost", "failed", "running"):
            self.counts[f"attempts {status}"] += record.count(status)
        ids = [one["command"] for one in record.entries if one["t"] == "signal"]
        assert len(ids) == len(set(ids)), f"a signal was applied twice\n{record}"
        if record.status == "completed":
            returned = json.loads(record.run["output"])
            assert returned == outcome(list(program)), f"it returned {returned}\n{record}"
        else:
            assert record.status == "cancelled", f"it is {record.status}\n{record}"
            assert record.run_id in self._sent("run.cancel"), f"nobody cancelled it\n{record}"

    def _sent(self, kind: str) -> set[str]:
        """Return the runs for which a command of that type was sent."""
        commands = [dict(event.command) for event in self.plan.events if event.kind == "send"]
        return {words["run_id"] for words in commands if words["type"] == kind}


def simulate(plan: Plan) -> Simulation:
    """Carry *plan* out and return what happened; raises BrokenPromiseError."""
    simulation = Simulation(plan)
    simulation.run()
    return simulation


def broken(plan: Plan) -> str:
    """Return the promise that *plan* breaks; empty if it breaks none."""
    try:
        simulate(plan)
    except BrokenPromiseError as error:
        return str(error)
    return ""
