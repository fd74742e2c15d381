"""``askel health``: ask a worker on this machine how it does."""

from __future__ import annotations

import argparse
import os
import sys
from http.client import HTTPConnection, HTTPException
from typing import Any

import msgspec

from askel import InvalidOptionError
from askeld.cli.exits import Exit
from askeld.cli.output import one_line, print_json, print_table
from askeld.config import DEFAULT_HTTP, parse_address

EPILOG = """\
Exit 0: the worker's loops move and it takes work. Exit 6: they do not, it does not, or no worker
answers there.

examples:
  askel health
  askel health --http 127.0.0.1:9091 --json
"""
_LONGEST_S = 5.0
#: A worker that listens at every address is asked at this machine's own.
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--http",
        metavar="ADDRESS:PORT",
        default=os.environ.get("ASKEL_HTTP") or DEFAULT_HTTP,
        help=f"where the worker tells health ({DEFAULT_HTTP}) [ASKEL_HTTP]",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(call=_health, verb=verb)


def _health(options: argparse.Namespace) -> int:
    if options.http == "off":
        raise InvalidOptionError("the workers of this environment tell health nowhere: --http off")
    host, port = parse_address(options.http)
    host = _EVERYWHERE.get(host, host)
    try:
        live, ready = _ask(host, port, "/healthz"), _ask(host, port, "/readyz")
    except (OSError, HTTPException, msgspec.MsgspecError) as error:
        why = one_line(str(error))
        sys.stderr.write(f"askel health: no worker answers at {options.http}: {why}\n")
        return Exit.UNHEALTHY
    is_good = live.get("status") == "ok" and ready.get("status") == "ready"
    if options.json:
        print_json({"live": live, "ready": ready})
    else:
        _print(live, ready)
    return Exit.OK if is_good else Exit.UNHEALTHY


def _ask(host: str, port: int, path: str) -> dict[str, Any]:
    connection = HTTPConnection(host, port, timeout=_LONGEST_S)
    try:
        connection.request("GET", path)
        return msgspec.json.decode(connection.getresponse().read(), type=dict[str, Any])
    finally:
        connection.close()


def _print(live: dict[str, Any], ready: dict[str, Any]) -> None:
    def words(found: list[Any]) -> str:
        return one_line(", ".join(map(str, found)))

    rows = [
        ["worker", one_line(str(live.get("worker", "?")))],
        ["live", "yes" if live.get("status") == "ok" else f"no: {words(live.get('stuck', []))}"],
        [
            "ready",
            "yes" if ready.get("status") == "ready" else f"no: {words(ready.get('reasons', []))}",
        ],
    ]
    print_table(["", ""], rows)
    loops = [
        [one_line(name), "ok" if state["ok"] else "stuck", f"{state['silent_s']:.1f} s"]
        for name, state in sorted(live.get("loops", {}).items())
    ]
    sys.stdout.write("\n")
    print_table(["LOOP", "", "SILENT"], loops)
