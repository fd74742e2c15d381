"""The load: runs started, some twice, some disturbed; each command until it is surely there."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from itertools import count
from typing import Any

import anyio
import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from askeld.torture.client_log import ClientLog
from askeld.torture.config import TortureConfig
from askeld.torture.programs import QUEUE, SIGNAL, outcome, random_program

_PAUSE_S = 0.05
#: So many runs may be under way; beyond that the load waits.
_MOST_UNDER_WAY = 400
#: One run of so many is driven by the client itself.
_DRIVEN_OF = 20
_COMPLETED_AFTER = 10
#: One start of so many goes to the queue, where not every worker reads.
_ON_QUEUE_OF = 6
_ENDED = (":status:completed", ":status:failed", ":status:cancelled")


class Load:
    """Sends commands as any program would, and logs what it was told."""

    def __init__(self, config: TortureConfig, sender: Any, client: Any, log: ClientLog) -> None:
        """Send by *sender*, which may suffer; look by *client*; log to *log*."""
        self._config = config
        self._sender = sender
        self._client = client
        self._log = log
        self._dice = config.dice("load")
        self._resumes = 0
        self._driven: deque[tuple[int, int]] = deque()
        self._totals: dict[int, int] = {}
        self.counts: Counter[str] = Counter()
        self.sent = 0
        self.ended = 0
        self.suspended = 0
        #: How many runs there are, as far as was seen.
        self.there = 0
        #: Runs that are not waiting for people, and commands that nobody has settled yet.
        self.under_way = 0

    async def start_runs(self, is_wanted: Callable[[], bool]) -> None:
        """Start all runs, evenly over the time there is, and disturb some; go on while wanted."""
        config, began = self._config, anyio.current_time()
        for number in count():
            if number >= config.runs and not is_wanted():
                break
            await anyio.sleep_until(began + config.seconds * number / config.runs)
            while self.under_way > _MOST_UNDER_WAY:  # noqa: ASYNC110 - seen in Redis
                await anyio.sleep(_PAUSE_S)
            if _is_driven(number) and self._config.mode == "askel":
                await self._drive(number)
                continue
            await self._complete(number - _COMPLETED_AFTER)
            await self._start(number)
            await self._disturb(max(number - self._dice.randrange(8), 0))
        await self._complete(number)

    async def reach(self, runs: float) -> None:
        """Return when so many *runs* have been started."""
        while self.sent < runs:  # noqa: ASYNC110 - one waiter for each fault, ten at most
            await anyio.sleep(_PAUSE_S)

    async def watch(self) -> None:
        """Keep count of what has ended and what is suspended."""
        while True:
            await self.look()
            await anyio.sleep(_PAUSE_S)

    async def look(self) -> None:
        """Count what has ended; a server that is away is asked again."""
        prefix = self._config.prefix
        try:
            counts = [
                await self._client.zcard(f"{prefix}:runs{index}")
                for index in ("", ":status:running", ":status:suspended", *_ENDED)
            ]
            stream = f"{prefix}:commands"
            waiting = [await self._client.xlen(name) for name in (stream, f"{stream}:{QUEUE}")]
        except (RedisConnectionError, RedisTimeoutError, ResponseError):
            return
        self.there, running, self.suspended, *ended = counts
        self.ended, self.under_way = sum(ended), running + sum(waiting)

    async def resume_all(self) -> None:
        """Resume whatever is suspended."""
        for run_id in await self._ids("suspended"):
            self._resumes += 1
            await self.send(f"resume-{self._resumes}", "run.resume", run_id)

    async def _ids(self, status: str) -> list[str]:
        """Return which runs have *status*; none while the server is away."""
        index = f"{self._config.prefix}:runs:status:{status}"
        try:
            return [name.decode() for name in await self._client.zrange(index, 0, -1)]
        except (RedisConnectionError, RedisTimeoutError, ResponseError):
            return []

    async def _start(self, number: int) -> None:
        program = random_program(self._dice, self._config.steps)
        fields = {
            "workflow": "program",
            "input": msgspec.json.encode(program),
            "if_exists": "return",
        }
        run_id, expected = f"r{number}", outcome(program)
        is_queued = self._config.mode == "askel" and self._dice.randrange(_ON_QUEUE_OF) == 0
        queue = QUEUE if is_queued else ""
        for _ in range(self._dice.choice([1, 1, 2])):
            await self.send(f"start-{number}", "run.start", run_id, fields, expected, queue=queue)
        self.sent += 1

    async def _drive(self, number: int) -> None:
        """Drive a run as any program can: create it, ask for steps, complete it some time later.

        Nothing waits for anything: a step may be asked for before there is a run, and when the run
        has ended, what comes too late is a dead letter. Steps are called as their operations.
        """
        run_id, total = f"r{number}", self._dice.randrange(1_000)
        create = {"workflow": "driven", "input": "null", "if_exists": "return"}
        await self.send(f"create-{number}", "run.create", run_id, create)
        for step in range(self._config.steps):
            order = [self._dice.randrange(20), self._dice.choice([0, 0, 1]), step]
            op, data = f"execute-{number}-{step}", msgspec.json.encode(order)
            asked = {"step_name": op, "rpc_name": "work", "retries": 1_000, "data": data}
            await self.send(op, "step.execute", run_id, asked)
        self._driven.append((number, total))
        self.sent += 1

    async def _complete(self, until: int) -> None:
        """Complete the driven runs before number *until*."""
        while self._driven and self._driven[0][0] < until:
            number, self._totals[number] = self._driven.popleft()
            await self._complete_one(number)

    async def _complete_one(self, number: int) -> None:
        total = self._totals[number]
        output = {"output": str(total)}
        await self.send(f"complete-{number}", "run.complete", f"r{number}", output, total)

    async def complete_again(self) -> None:
        """Complete the driven runs that still go on: the server may have lost that it was asked to.

        So does any program whose server may lose what it acknowledged.
        """
        going_on = set(await self._ids("running"))
        for number in [n for n in self._totals if f"r{n}" in going_on]:
            await self._complete_one(number)

    async def _disturb(self, number: int) -> None:
        """Signal, suspend or cancel a run, or leave it alone."""
        if self._config.mode == "naive":
            return  # it knows neither
        run_id, kind = f"r{number}", self._dice.randrange(24)
        op = f"{number}-{self._dice.randrange(1_000)}"
        if kind == 0:
            await self.send(f"cancel-{op}", "run.cancel", run_id)
        elif kind in {1, 2} and not _is_driven(number):  # one that is suspended cannot complete
            await self.send(f"suspend-{op}", "run.suspend", run_id)
        elif kind in {3, 4, 5, 6}:
            for _ in range(self._dice.choice([1, 2, 3])):
                await self.send(f"signal-{op}", "run.signal", run_id, {"name": SIGNAL})

    async def send(
        self,
        op: str,
        kind: str,
        run_id: str,
        fields: dict[str, Any] | None = None,
        expected: int | None = None,
        *,
        queue: str = "",
    ) -> None:
        """Send a command under the id *op* to *queue* until Redis says that it has it."""
        stream = f"{self._config.prefix}:commands{f':{queue}' if queue else ''}"
        words = {"type": kind, "id": op, "run_id": run_id, **(fields or {})}
        while True:
            self._log.write(op, kind, run_id, "invoke", expected=expected)
            self.counts["sent"] += 1
            try:
                entry = await self._sender.xadd(stream, words)
            except (RedisConnectionError, RedisTimeoutError):
                self._log.write(op, kind, run_id, "unknown")
                self.counts["unknown"] += 1
            except ResponseError:  # out of memory, loading: it was refused
                self._log.write(op, kind, run_id, "fail")
                self.counts["refused"] += 1
            else:
                self._log.write(op, kind, run_id, "ok", entry=entry.decode())
                self.counts["accepted"] += 1
                return
            await anyio.sleep(_PAUSE_S * random.uniform(0.5, 1))  # noqa: S311


def _is_driven(number: int) -> bool:
    return number % _DRIVEN_OF == _DRIVEN_OF - 1
