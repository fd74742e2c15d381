"""Reads: what one costs alone, and what it costs with a crowd of other runs in the same Redis.

Both places are asked in blocks, in turn: the first calls of a block, after which the server, the
socket and the processor's caches have woken, are not counted in either place. Single turns would
compare a small server that stays warm with a large one that cannot. Processors are kept awake, and
the servers on one of them (see `awake`). A figure is the median of the blocks' medians; beside it
stands what the server itself counted for a call.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from uuid import uuid4

import msgspec

from askel import RedisWorkflowService
from askel.state import Connection, Keys, connect
from askeld.server_binary import ServerBinary
from benchmarks.arena import Arena
from benchmarks.awake import awake
from benchmarks.crowd import Template, fill, template
from benchmarks.figures import BenchmarkError, Measured, SkippedError, Value
from benchmarks.lifecycles import PAYLOAD_BYTES, by_calls, drive_runs
from benchmarks.payloads import Payloads
from benchmarks.peer import drive
from benchmarks.server_stats import read_pid, read_stats, served_us
from benchmarks.servers import private_server

READS = ("get_run", "get_run_history", "get_run_status", "list_runs", "delete_run")
PLACES = ("alone", "crowd")
# Our own runs, in both places: more than a page of `list_runs`.
_OWN = 60
_LANES = 20
_PAGE = 50
# The Node package takes seconds for a read in the crowd, and scans whatever is there alone, too.
_NODE_ALONE = {"get_run": 50, "get_run_history": 20, "get_run_status": 20, "list_runs": 20}
_NODE_IN_CROWD = {"get_run": 50, "get_run_history": 3, "get_run_status": 2, "list_runs": 1}
_NODE_DELETES = {"alone": 5, "crowd": 2}
_TIMEOUT_S = 60.0
# Calls of a block that are not counted.
_WAKING = 5


class Block(msgspec.Struct, frozen=True):
    """Several calls of one read on end in one place."""

    wait_s: float
    server_us: float


class Place(msgspec.Struct, frozen=True):
    """A server with our own runs on it, and what can be copied there."""

    url: str
    pid: int
    control: Connection
    own: list[str]
    model: Template

    async def deletable(self, count: int) -> list[str]:
        """Make *count* runs that will be deleted."""
        run_ids = [str(uuid4()) for _ in range(count)]
        await self.model.copy(run_ids)
        return run_ids


async def askel(arena: Arena, *, crowd: int, blocks: int, times: int) -> Measured:
    """Read *blocks* times *times* times in each place, a block in one, then one in the other."""
    found: dict[tuple[str, str], list[Block]] = {}
    async with _places(arena, _make_askel, crowd) as places:
        services = {name: RedisWorkflowService(place.url) for name, place in places.items()}
        try:
            calls = {
                name: _calls(
                    services[name], place, await place.deletable(blocks * (_WAKING + times))
                )
                for name, place in places.items()
            }
            turns = [(turn, read) for read in READS for turn in range(blocks)]
            with awake([place.pid for place in places.values()]):
                for turn, read in turns:
                    for name in PLACES[:: 1 if turn % 2 else -1]:
                        block = await _block(places[name].control, calls[name][read], times)
                        found.setdefault((read, name), []).append(block)
        finally:
            for service in services.values():
                await service.close()
    medians = {
        which: statistics.median(block.wait_s for block in several) * 1e3
        for which, several in found.items()
    }
    server = {
        f"{read}_{name}_server": Value(statistics.median(b.server_us for b in several), "µs")
        for (read, name), several in found.items()
    }
    measured = _measured(medians, crowd, {"blocks": blocks, "times": times})
    return Measured({**measured.values, **server}, measured.counts)


async def _block(control: Connection, call: Callable[[], Awaitable[object]], times: int) -> Block:
    """Make *call* until all is awake, then *times* times more, which count."""
    before = await read_stats(control)
    waits = [await _timed(call) for _ in range(_WAKING + times)]
    served = served_us(before, await read_stats(control))
    return Block(statistics.median(waits[_WAKING:]), served / len(waits))


async def _timed(call: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    if not await call():
        raise BenchmarkError("a read found nothing")
    return time.perf_counter() - began


async def node(arena: Arena, *, crowd: int, times: int) -> Measured:
    """Let the Node package do the same, a few times, and in the crowd fewer."""
    most = {"alone": _NODE_ALONE, "crowd": _NODE_IN_CROWD}
    few = {
        name: {read: min(most[name].get(read, _NODE_DELETES[name]), times) for read in READS}
        for name in PLACES
    }
    async with _places(arena, _make_node, crowd) as places:
        asked = {
            name: {
                "url": place.url,
                "ids": place.own,
                "deletable": await place.deletable(few[name]["delete_run"]),
            }
            for name, place in places.items()
        }
        with awake([place.pid for place in places.values()]):
            answer = await drive(
                Payloads(PAYLOAD_BYTES).values,
                mode="reads",
                prefix=Keys().prefix,
                names=READS,
                times=few,
                places=asked,
            )
    medians = {
        (read, name): statistics.median(found)
        for name, waits in answer["waits"].items()
        for read, found in waits.items()
    }
    return _measured(medians, crowd, {"times": times})


def _measured(
    medians: Mapping[tuple[str, str], float], crowd: int, counts: dict[str, int]
) -> Measured:
    values = {
        f"{read}_{name}": Value(medians[read, name], "ms") for read in READS for name in PLACES
    }
    return Measured(values, {"crowd": crowd, "own": _OWN} | counts)


def _calls(
    service: RedisWorkflowService, place: Place, deletable: list[str]
) -> dict[str, Callable[[], Awaitable[object]]]:
    own = place.own
    return {
        "get_run": lambda: service.get_run(own[0]),
        "get_run_history": lambda: service.get_run_history(own[1]),
        "get_run_status": lambda: service.get_run_status(own[2]),
        "list_runs": lambda: service.list_runs(limit=_PAGE),
        "delete_run": lambda: service.delete_run(deletable.pop()),
    }


@asynccontextmanager
async def _places(
    arena: Arena, make: Callable[[str], Awaitable[list[str]]], crowd: int
) -> AsyncIterator[dict[str, Place]]:
    """Give two servers with the same runs of ours, one of them with a crowd of others besides."""
    if arena.binary is None:
        raise SkippedError("a crowd is made on a server that is started for it: no --redis")
    async with _place(arena.binary, make) as alone, _place(arena.binary, make) as among:
        await fill([among.model], [str(uuid4()) for _ in range(crowd)])
        found = int(await among.control.send("GET", "crowd"))
        if found != crowd:
            raise BenchmarkError(f"only {found} of {crowd} other runs could be made")
        yield {"alone": alone, "crowd": among}


@asynccontextmanager
async def _place(
    binary: ServerBinary, make: Callable[[str], Awaitable[list[str]]]
) -> AsyncIterator[Place]:
    with private_server(binary) as url:
        control = connect(url, timeout_s=_TIMEOUT_S, name="askel-bench")
        try:
            own = await make(url)
            pid = await read_pid(control)
            yield Place(url, pid, control, own, await template(control, Keys().prefix, own[0]))
        finally:
            await control.close()


async def _make_askel(url: str) -> list[str]:
    async with RedisWorkflowService(url) as service:
        return await drive_runs(service, by_calls, Payloads(PAYLOAD_BYTES), _OWN, _LANES)


async def _make_node(url: str) -> list[str]:
    answer = await drive(
        Payloads(PAYLOAD_BYTES).values,
        mode="lifecycles",
        url=url,
        prefix=Keys().prefix,
        pipelining=True,
        runs=_OWN,
        inFlight=_LANES,
        warmUp=0,
        looked=0,
    )
    run_ids: list[str] = answer["ids"]
    return run_ids
