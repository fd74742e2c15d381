"""``askel retention``: how long ended runs are kept."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import anyio

from askel import InvalidOptionError, RetentionPolicy, duration_text, size_bytes, size_text
from askeld.cli.arguments import add_redis_options, duration_argument, reading, service_for
from askeld.cli.exits import Exit
from askeld.cli.output import one_line, print_json, print_table

T = TypeVar("T")

EPILOG = """\
Without a policy ended runs stay. A workflow's own policy stands in place of the default one; the
bounds of the default one count for each workflow by itself. Workers delete what a policy gives up,
whole runs, those that ended first before others; runs that have not ended never expire.

examples:
  askel retention
  askel retention set --default --ttl 30d
  askel retention set checkout --ttl 7d --max-runs 10000 --max-bytes 1GiB
  askel retention clear checkout
"""


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("action", nargs="?", choices=("show", "set", "clear"), default="show")
    parser.add_argument("workflow", nargs="?", metavar="WORKFLOW", help="whose policy")
    parser.add_argument("--default", action="store_true", help="the policy of all other workflows")
    parser.add_argument("--ttl", metavar="TIME", help="keep runs for this long after their end")
    parser.add_argument("--max-runs", metavar="N", help="keep this many ended runs")
    parser.add_argument("--max-bytes", metavar="SIZE", help="keep ended runs of this size together")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_redis_options(parser)
    actions = {"show": _show, "set": _set, "clear": _clear}
    parser.set_defaults(call=lambda options: anyio.run(actions[options.action], options), verb=verb)


async def _show(options: argparse.Namespace) -> int:
    if options.default or any((options.ttl, options.max_runs, options.max_bytes)):
        msg = "show takes no policy: did you mean 'askel retention set'?"
        raise InvalidOptionError(msg)
    async with reading(options) as service:
        policies = await service.get_retention()
    if options.workflow is not None:
        policies = {name: p for name, p in policies.items() if name in {None, options.workflow}}
    if options.json:
        own = {name: _as_json(policy) for name, policy in policies.items() if name is not None}
        default = policies.get(None)
        print_json({"default": default and _as_json(default), "workflows": own})
    elif policies:
        rows = [
            (
                "(default)" if name is None else one_line(name),
                *("" if value is None else str(value) for value in _as_json(policy).values()),
            )
            for name, policy in sorted(policies.items(), key=lambda item: item[0] or "")
        ]
        print_table(("WORKFLOW", "TTL", "MAX RUNS", "MAX BYTES"), rows)
    else:
        print("no policy: ended runs stay")  # noqa: T201
    return Exit.OK


def _as_json(policy: RetentionPolicy) -> dict[str, str | int | None]:
    ttl, size = policy.ttl, policy.max_bytes
    return {
        "ttl": None if ttl is None else duration_text(ttl // timedelta(milliseconds=1)),
        "max_runs": policy.max_runs,
        "max_bytes": None if size is None else size_text(size),
    }


async def _set(options: argparse.Namespace) -> int:
    name = _whose(options)
    ttl_ms = _given(options.ttl, lambda text: duration_argument("--ttl", text))
    max_runs = _given(options.max_runs, _count)
    max_bytes = _given(options.max_bytes, _size)
    if ttl_ms is None and max_runs is None and max_bytes is None:
        msg = "give --ttl, --max-runs or --max-bytes; 'askel retention clear' ends a policy"
        raise InvalidOptionError(msg)
    policy = RetentionPolicy(
        ttl=None if ttl_ms is None else timedelta(milliseconds=ttl_ms),
        max_runs=max_runs,
        max_bytes=max_bytes,
    )
    async with service_for(options) as service:
        await service.set_retention(
            name, ttl=policy.ttl, max_runs=policy.max_runs, max_bytes=policy.max_bytes
        )
    _tell(options, name, policy)
    return Exit.OK


def _tell(options: argparse.Namespace, name: str | None, policy: RetentionPolicy | None) -> None:
    """Print the policy that counts from now on; None: there is none any more."""
    bounds = policy and _as_json(policy)
    if options.json:
        print_json({"workflow": name, "policy": bounds})
        return
    whose = "the default policy" if name is None else f"the policy of {one_line(name)}"
    words = [
        f"{bound.replace('_', ' ')} {value}"
        for bound, value in (bounds or {}).items()
        if value is not None
    ]
    print(f"{whose}: {', '.join(words)}" if bounds else f"{whose} is cleared")  # noqa: T201


async def _clear(options: argparse.Namespace) -> int:
    name = _whose(options)
    async with service_for(options) as service:
        was_set = await service.clear_retention(name)
    if was_set or options.json:
        _tell(options, name, None)
    else:
        print("there was no such policy")  # noqa: T201
    return Exit.OK


def _whose(options: argparse.Namespace) -> str | None:
    if options.default == (options.workflow is not None):
        msg = f"retention {options.action}: give the name of a workflow, or --default"
        raise InvalidOptionError(msg)
    name: str | None = options.workflow
    return name


def _given(text: str | None, read: Callable[[str], T]) -> T | None:
    return None if text is None else read(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):  # noqa: PLR2004 - exact anywhere
        msg = f"--max-runs {text!r:.80} is no count: give 0 or more"
        raise InvalidOptionError(msg)
    return int(text)


def _size(text: str) -> int:
    try:
        return size_bytes(int(text) if text.isascii() and text.isdigit() else text)
    except (InvalidOptionError, ValueError):
        msg = f"--max-bytes {text!r:.80} is no size: write it as 500000, 64KiB, 20MiB or 1GiB"
        raise InvalidOptionError(msg) from None
