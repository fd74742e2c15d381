"""``askel why``: what a run waits for, who holds it, what moves it next."""

from __future__ import annotations

import argparse
import textwrap
from datetime import UTC, datetime

import anyio
import msgspec

from askel.wire import Explanation, RunNotStartedError, explain_run
from askeld.cli.arguments import add_redis_options, reading
from askeld.cli.exits import Exit
from askeld.cli.output import one_line, print_json

_WIDTH = 100


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = "example:\n  askel why order-42"
    parser.add_argument("run", metavar="RUN", help="the run's id")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_redis_options(parser)
    parser.set_defaults(call=lambda options: anyio.run(_why, options), verb=verb)


async def _why(options: argparse.Namespace) -> int:
    async with reading(options) as service:
        try:
            explanation = await explain_run(service, options.run)
        except RunNotStartedError as error:
            if options.json:
                _print_object(error.explanation)
            raise
    if options.json:
        _print_object(explanation)
    else:
        print("\n".join(textwrap.wrap(one_line(explanation.text), _WIDTH)))  # noqa: T201
    return Exit.OK


def _print_object(explanation: Explanation) -> None:
    since = explanation.since
    moment = None if since is None else datetime.fromtimestamp(since / 1_000, UTC)
    print_json({**msgspec.to_builtins(explanation), "since": moment})
