"""What the server says of itself, and what lies between two such readings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from askel.state import Connection
from benchmarks.figures import CommandCost, Value

_SECTIONS = ("cpu", "stats", "memory", "commandstats")


class ServerStats(msgspec.Struct, frozen=True):
    """One reading. ``commands`` maps a command to its (calls, microseconds) so far."""

    cpu_us: float
    connections: int
    bytes_in: int
    bytes_out: int
    memory: int
    commands: dict[str, tuple[int, int]]


async def read_stats(connection: Connection) -> ServerStats:
    """Read the server's counters; the four commands leave in one write."""
    # One by one: a server of version 6.2 takes a single section.
    replies = await asyncio.gather(*(connection.send("INFO", name) for name in _SECTIONS))
    return parse_stats("\r\n".join(reply.decode() for reply in replies))


async def read_pid(connection: Connection) -> int:
    """Return the server's process id."""
    return int(_lines((await connection.send("INFO", "server")).decode())["process_id"])


def _lines(info: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in info.splitlines() if ":" in line)


def parse_stats(info: str) -> ServerStats:
    """Return the reading in the text of INFO."""
    lines = _lines(info)
    return ServerStats(
        cpu_us=(float(lines["used_cpu_user"]) + float(lines["used_cpu_sys"])) * 1e6,
        connections=int(lines["total_connections_received"]),
        bytes_in=int(lines["total_net_input_bytes"]),
        bytes_out=int(lines["total_net_output_bytes"]),
        memory=int(lines["used_memory"]),
        commands={
            name.removeprefix("cmdstat_"): _calls(text)
            for name, text in lines.items()
            if name.startswith("cmdstat_")
        },
    )


def server_values(
    before: ServerStats, after: ServerStats, *, units: int, unit: str
) -> dict[str, Value]:
    """Return what the server spent on each of *units* pieces of work, called *unit*."""
    calls, script_us = 0, 0
    readings = 0
    for name, (count, us) in _between(before.commands, after.commands).items():
        if name in {"evalsha", "eval"}:
            calls, script_us = calls + count, script_us + us
        elif name == "xreadgroup":
            readings = count
    per = f"/{unit}"
    return {
        "server_cpu": Value((after.cpu_us - before.cpu_us) / units, f"µs{per}"),
        "server_scripts": Value(script_us / units, f"µs{per}"),
        "evalsha": Value(calls / units, f"calls{per}"),
        "xreadgroup": Value(readings / units, f"calls{per}"),
        "bytes_in": Value((after.bytes_in - before.bytes_in) / units, f"bytes{per}"),
        "bytes_out": Value((after.bytes_out - before.bytes_out) / units, f"bytes{per}"),
        "memory": Value((after.memory - before.memory) / units, f"bytes{per}"),
        "connects": Value(after.connections - before.connections, "connections"),
    }


def served_us(before: ServerStats, after: ServerStats) -> float:
    """Return how long the server was at scripts, or at commands where it ran no script."""
    found = _between(before.commands, after.commands)
    found.pop("info", None)  # that of the reading itself
    scripts = {name: cost for name, cost in found.items() if name in {"evalsha", "eval"}}
    return sum(us for _, us in (scripts or found).values())


def command_values(
    before: ServerStats, after: ServerStats, *, units: int
) -> dict[str, CommandCost]:
    """Return what the server did for each of *units* pieces of work, by command."""
    return {
        name: CommandCost(count / units, us / units)
        for name, (count, us) in _between(before.commands, after.commands).items()
    }


def _between(
    before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    changes = {}
    for name, (calls, us) in after.items():
        calls_before, us_before = before.get(name, (0, 0))
        if calls > calls_before:
            changes[name] = (calls - calls_before, us - us_before)
    return changes


def _calls(text: str) -> tuple[int, int]:
    fields = dict(part.split("=", 1) for part in text.split(","))
    return int(fields["calls"]), int(fields["usec"])
