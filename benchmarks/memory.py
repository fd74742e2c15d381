"""Memory: what a finished run of ten steps takes in Redis, to the byte and by kind of key."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from askel import RedisWorkflowService
from askel.state import Connection, Keys, connect
from benchmarks.arena import Arena
from benchmarks.figures import BenchmarkError, Measured, SkippedError, Value
from benchmarks.lifecycles import PAYLOAD_BYTES, by_calls, drive_runs
from benchmarks.payloads import Payloads
from benchmarks.peer import drive
from benchmarks.server_stats import read_stats
from benchmarks.servers import private_server

#: The configuration that askel recommends.
RECOMMENDED = Path(__file__).resolve().parents[1] / "deploy" / "redis" / "redis.conf"
_LANES = 50
_WARM_UP = 20
_TIMEOUT_S = 30.0
_PAGE = 1_000


async def memory(arena: Arena, *, system: str, recommended: bool, runs: int) -> Measured:
    """Make *runs* runs on a server of their own; return what each of them takes.

    ``used_memory`` is what the server itself grew by: all that belongs to the runs, indexes,
    events and the tables of keys included. ``memory_usage`` is the sum of MEMORY USAGE of the
    keys, ``of_{kind}`` the parts of that.
    """
    if arena.binary is None:
        raise SkippedError("memory is measured on servers that are started for it: no --redis")
    conf = RECOMMENDED if recommended else None
    with private_server(arena.binary, conf=conf) as url:
        control = connect(url, timeout_s=_TIMEOUT_S, name="askel-bench")
        try:
            await _make(system, url, _WARM_UP)
            await control.send("FLUSHALL", "SYNC")
            await _alone(control)
            before = await read_stats(control)
            await _make(system, url, runs)
            await _alone(control)
            after = await read_stats(control)
            bytes_of, count_of = await _measure_keys(control)
        finally:
            await control.close()
    if count_of["run"] != runs or count_of["step"] != 10 * runs:
        raise BenchmarkError(f"{count_of['run']} of {runs} runs, {count_of['step']} steps")
    values = {
        "used_memory": Value((after.memory - before.memory) / runs, "bytes/run"),
        "memory_usage": Value(bytes_of.total() / runs, "bytes/run"),
        "keys": Value(count_of.total() / runs, "keys/run"),
    }
    for kind, size in bytes_of.most_common():
        values[f"of_{kind}"] = Value(size / runs, "bytes/run")
    return Measured(values, {"runs": runs} | dict(count_of))


async def _make(system: str, url: str, runs: int) -> None:
    payloads = Payloads(PAYLOAD_BYTES)
    if system == "askel":
        async with RedisWorkflowService(url) as service:
            await drive_runs(service, by_calls, payloads, runs, _LANES)
        return
    await drive(
        payloads.values,
        mode="lifecycles",
        url=url,
        prefix=Keys().prefix,
        pipelining=True,
        runs=runs,
        inFlight=_LANES,
        warmUp=0,
        looked=0,
    )


async def _alone(control: Connection) -> None:
    """Wait until the server has no other client: their buffers would count."""
    for _ in range(1_000):
        if b"connected_clients:1\r" in await control.send("INFO", "clients"):
            return
        await asyncio.sleep(0.01)
    raise BenchmarkError("somebody else is connected to a server of ours")


async def _measure_keys(control: Connection) -> tuple[Counter[str], Counter[str]]:
    """Return bytes and number of the keys by kind: the word after the prefix."""
    bytes_of: Counter[str] = Counter()
    count_of: Counter[str] = Counter()
    begin = len(Keys().prefix) + 1
    cursor = b"0"
    while True:
        cursor, keys = await control.send("SCAN", cursor, "COUNT", _PAGE)
        usages = [control.send("MEMORY", "USAGE", key, "SAMPLES", "0") for key in keys]
        for key, usage in zip(keys, await asyncio.gather(*usages), strict=True):
            kind = key[begin:].split(b":", 1)[0].decode()
            bytes_of[kind] += usage
            count_of[kind] += 1
        if cursor == b"0":
            return bytes_of, count_of
