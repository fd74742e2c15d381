"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

import anyio
import msgspec

from askel import AskelError
from askel.state import connect
from askeld.server_binary import ServerBinary
from benchmarks.figures import BenchmarkError
from benchmarks.machine import (
    has_uvloop,
    load_average,
    machine_facts,
    server_facts,
    versions,
)
from benchmarks.peer import package_versions
from benchmarks.registry import Benchmark, find_benchmarks
from benchmarks.report import show, tables
from benchmarks.rounds import BenchmarkReport, Plan, measure
from benchmarks.servers import FSYNCS, find_binary, private_server

SCHEMA = 1
EPILOG = """\
exit codes: 0 measured, 1 not measurable (work was lost, no server, …), 2 usage

examples:
  python -m benchmarks --only hot-path --json out.json
  python -m benchmarks --server valkey --fsync everysec
  python -m benchmarks --redis redis://10.0.0.5:6379 --rounds 5
"""


class Exit(IntEnum):
    """What the exit codes mean."""

    OK = 0
    ERROR = 1
    USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that *arguments* name; return the exit code."""
    known = find_benchmarks()
    options = _parser().parse_args(arguments)
    if options.list:
        for benchmark in known.values():
            print(f"{benchmark.name:12} {benchmark.line}")
        return Exit.OK
    unknown = set(options.only or ()) - known.keys()
    if unknown:
        names = ", ".join(sorted(known))
        _say(f"no benchmark {', '.join(map(repr, sorted(unknown)))}; there is: {names}")
        return Exit.USAGE
    chosen = [known[name] for name in dict.fromkeys(options.only or known)]
    try:
        _run(chosen, options)
    except (BenchmarkError, AskelError) as error:
        _say(str(error))
        return Exit.ERROR
    except KeyboardInterrupt:
        return 130
    return Exit.OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure askel beside the floors that it stands on.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="list the benchmarks and end")
    parser.add_argument("--only", action="append", metavar="NAME", help="only this (repeatable)")
    parser.add_argument("--json", metavar="FILE", help="write the result there; - is the output")
    parser.add_argument("--rounds", type=_at_least_one, metavar="N", help="rounds (3; quick: 1)")
    parser.add_argument(
        "--quick", action="store_true", help="so little work that it only shows that all works"
    )
    parser.add_argument(
        "--payload", type=_at_least_one, default=200, metavar="BYTES", help="data of a step (200)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--redis", metavar="URL", help="measure this server; its data is left alone")
    where.add_argument(
        "--server",
        metavar="NAME",
        help="start this server: path, valkey, redis-6.2, or the path of one (what is on PATH)",
    )
    parser.add_argument(
        "--fsync", choices=FSYNCS, default="no", help="of the started server; no: no file (no)"
    )
    parser.add_argument(
        "--unix", action="store_true", help="reach the started server by a socket in place of TCP"
    )
    return parser


def _run(chosen: Sequence[Benchmark], options: argparse.Namespace) -> None:
    with _server(options) as (url, binary):
        result = anyio.run(
            _measure_all,
            chosen,
            options,
            url,
            binary,
            backend_options={"use_uvloop": has_uvloop()},
        )
    text = msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"
    if options.json == "-":
        sys.stdout.buffer.write(text)
        return
    if options.json:
        try:
            Path(options.json).write_bytes(text)
        except OSError as error:
            raise BenchmarkError(f"cannot write {options.json}: {error.strerror}") from error
    for name, report in result["benchmarks"].items():
        show(tables(name, report))


@contextmanager
def _server(options: argparse.Namespace) -> Iterator[tuple[str, ServerBinary | None]]:
    """Give the URL of the server to measure and what runs there, if it was started."""
    if options.redis:
        yield options.redis, None
        return
    binary = find_binary(options.server)
    with private_server(binary, fsync=options.fsync, unix=options.unix) as url:
        yield url, binary


async def _measure_all(
    chosen: Sequence[Benchmark],
    options: argparse.Namespace,
    url: str,
    binary: ServerBinary | None,
) -> dict[str, Any]:
    rounds = options.rounds or (1 if options.quick else 3)
    payload = msgspec.json.encode("x" * max(options.payload - 2, 0))
    plan = Plan(url, payload, rounds, options.quick, binary)
    where: dict[str, Any] = {"started": binary is not None}
    if binary is not None:
        where |= {"source": binary.source, "transport": "unix" if options.unix else "tcp"}
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_facts() | {"load_before": load_average()},
        "versions": versions() | package_versions(),
        "server": where | await _server_facts(url),
        "settings": {"rounds": rounds, "quick": options.quick, "payload_bytes": len(payload)},
    }
    reports: dict[str, BenchmarkReport] = {}
    for benchmark in chosen:
        reports[benchmark.name] = await measure(benchmark, plan, _say)
    result["machine"]["load_after"] = load_average()
    return result | {"benchmarks": reports}


async def _server_facts(url: str) -> dict[str, Any]:
    connection = connect(url, name="askel-bench")
    try:
        return await server_facts(connection)
    finally:
        await connection.close()


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _say(line: str) -> None:
    sys.stderr.write(f"benchmarks: {line}\n")
