"""``askel dead``: commands that could not be applied, to be looked at, sent again or dropped."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import anyio

from askel import InvalidOptionError
from askel.wire import DeadLetter, DeadLetterNotFoundError, DeadLetters, NotRedrivableError
from askeld.cli.arguments import add_redis_options, duration_argument, required_url
from askeld.cli.exits import Exit
from askeld.cli.output import date_time, one_line, print_json, print_table

_PAGE = 20
_ACTIONS = ("ls", "show", "redrive", "drop")
EPILOG = """\
A command is dead-lettered when it can never be applied, or kills whoever takes it; the letter says
why and keeps all its fields. What to do about each reason: docs/dead-letters.md.
A command that is redriven goes back to its stream under the same id: it is applied once, however
often it is redriven, and if it cannot be applied now either, it becomes a dead letter again.

examples:
  askel dead ls --reason poison
  askel dead show 1795376759833-0
  askel dead redrive 1795376759833-0 1795376760021-0
  askel dead redrive --all --reason unknown_workflow --yes
  askel dead drop --all --older-than 30d --yes
"""


class _Wanted(NamedTuple):
    """Which letters: by id, or all that fit."""

    ids: list[str]
    reason: str | None
    run_id: str | None
    older_than: int | None


class _Done(NamedTuple):
    """What became of the letters."""

    moved: list[str]
    missing: list[str]
    refused: dict[str, str]


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("action", nargs="?", choices=_ACTIONS, default="ls", help="(ls)")
    parser.add_argument("ids", nargs="*", metavar="ID", help="ids of dead letters")
    parser.add_argument("--all", action="store_true", help="every letter that fits (redrive, drop)")
    parser.add_argument("--yes", action="store_true", help="do to all without asking")
    parser.add_argument("--reason", metavar="WORD", help="only letters with this reason")
    parser.add_argument("--run", metavar="RUN", help="only letters about this run")
    parser.add_argument("--older-than", metavar="TIME", help="only letters that are here longer")
    parser.add_argument(
        "--limit", type=int, default=_PAGE, metavar="N", help=f"most letters (ls; {_PAGE})"
    )
    parser.add_argument("--cursor", help="continue after an earlier page (ls)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_redis_options(parser)
    parser.set_defaults(call=lambda options: anyio.run(_act, options), verb=verb)


async def _act(options: argparse.Namespace) -> int:
    wanted = _wanted(options)
    async with DeadLetters(required_url(options), options.prefix) as letters:
        match options.action:
            case "ls":
                return await _list(options, wanted, letters)
            case "show":
                return await _show(options, letters)
            case "redrive":
                return await _each(options, wanted, letters, letters.redrive)
            case _:
                return await _each(options, wanted, letters, lambda it: letters.drop(it.id))


def _wanted(options: argparse.Namespace) -> _Wanted:
    action, ids = options.action, list(dict.fromkeys(options.ids))
    older = options.older_than
    wanted = _Wanted(
        ids, options.reason, options.run, older and duration_argument("--older-than", older)
    )
    filters = any(part is not None for part in wanted[1:])
    if action == "ls" and (ids or options.all):
        raise InvalidOptionError("dead ls lists all letters: did you mean 'askel dead show ID'?")
    if action == "show" and (len(ids) != 1 or options.all or filters):
        raise InvalidOptionError("dead show: give the id of one letter; 'askel dead ls' lists them")
    if action in {"redrive", "drop"} and bool(ids) == options.all:
        raise InvalidOptionError(f"dead {action}: give ids of letters, or --all")
    if ids and filters:
        raise InvalidOptionError(f"dead {action}: filters go with --all, not with ids")
    return wanted


async def _list(options: argparse.Namespace, wanted: _Wanted, letters: DeadLetters) -> int:
    page = await letters.list(
        reason=wanted.reason,
        run_id=wanted.run_id,
        older_than=_seconds(wanted.older_than),
        limit=options.limit,
        cursor=options.cursor,
    )
    count = await letters.count()
    if options.json:
        listed = [_as_json(letter) for letter in page.letters]
        print_json({"letters": listed, "cursor": page.cursor, "count": count})
        return Exit.OK
    if page.letters:
        print_table(
            ("LETTER", "AT (UTC)", "REASON", "COMMAND", "RUN", "DETAIL"),
            map(_row, page.letters),
            crop=True,
        )
    elif not page.cursor:
        print("no dead letters" if not count else "no such dead letters")  # noqa: T201
    if page.cursor:
        sys.stderr.write(f"more of {count} letters: {_next_page(options, page.cursor)}\n")
    return Exit.OK


def _row(letter: DeadLetter) -> tuple[str, ...]:
    at = date_time(letter.at) if letter.at else ""
    words = (letter.reason, letter.type, letter.run_id, letter.detail)
    return (letter.id, at, *map(one_line, words))


def _next_page(options: argparse.Namespace, cursor: str) -> str:
    """Return the command that shows the next page of the same list."""
    words = ["askel", "dead", "ls"]
    for flag, value in (("--reason", options.reason), ("--run", options.run)):
        words += [flag, value] if value else []
    if options.prefix != (os.environ.get("ASKEL_PREFIX") or "workflows"):
        words += ["--prefix", options.prefix]
    if options.redis:  # a password in it is not repeated
        words += ["--redis", options.redis if "@" not in options.redis else "URL"]
    if options.limit != _PAGE:
        words += ["--limit", str(options.limit)]
    return shlex.join([*words, "--cursor", cursor])


async def _show(options: argparse.Namespace, letters: DeadLetters) -> int:
    letter = await letters.get(options.ids[0])
    fields = letter.fields or {}
    if options.json:
        print_json({**_as_json(letter), "fields": fields})
        return Exit.OK
    facts = [
        ("letter", letter.id),
        ("reason", one_line(letter.reason)),
        ("detail", one_line(letter.detail)),
        ("at", f"{date_time(letter.at)} UTC" if letter.at else ""),
        ("stream", one_line(letter.stream)),
        ("entry", one_line(letter.entry)),
        ("deliveries", str(letter.deliveries)),
    ]
    print_table(("", ""), facts)
    print()  # noqa: T201
    print_table(
        ("FIELD", "VALUE"), [(one_line(name), one_line(text)) for name, text in fields.items()]
    )
    return Exit.OK


async def _each(
    options: argparse.Namespace,
    wanted: _Wanted,
    letters: DeadLetters,
    act: Callable[[DeadLetter], Awaitable[bool]],
) -> int:
    """Redrive or drop the letters that are wanted, those that came first before others."""
    done = _Done([], [], {})
    found = await _found(wanted, letters, done)
    if options.all and found and not options.yes:
        sys.stderr.write(
            f"askel dead: this would {options.action} {len(found)} dead letters: "
            "look at them with 'askel dead ls', then add --yes\n"
        )
        return Exit.REFUSED
    for letter in found:
        try:
            (done.moved if await act(letter) else done.missing).append(letter.id)
        except NotRedrivableError as error:
            done.refused[letter.id] = error.why
    _tell(options, done)
    # What is gone when all are asked for was dealt with by somebody else, which is as good.
    if done.refused:
        return Exit.REFUSED
    return Exit.NOT_FOUND if done.missing and not options.all else Exit.OK


async def _found(wanted: _Wanted, letters: DeadLetters, done: _Done) -> list[DeadLetter]:
    found = []
    for letter_id in wanted.ids:
        try:
            found.append(await letters.get(letter_id))
        except DeadLetterNotFoundError:
            done.missing.append(letter_id)
    if not wanted.ids:
        fitting = letters.all(
            reason=wanted.reason, run_id=wanted.run_id, older_than=_seconds(wanted.older_than)
        )
        found = [letter async for letter in fitting][::-1]
    return found


def _tell(options: argparse.Namespace, done: _Done) -> None:
    past = {"redrive": "redriven", "drop": "dropped"}[options.action]
    if options.json:
        print_json({past: done.moved, "missing": done.missing, "refused": done.refused})
        return
    print(f"{len(done.moved)} {past}")  # noqa: T201
    for letter_id in done.missing:
        sys.stderr.write(f"askel dead: there is no dead letter {letter_id}\n")
    for letter_id, why in done.refused.items():
        sys.stderr.write(f"askel dead: {letter_id} stays: {why}\n")


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1_000


def _as_json(letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.id,
        "reason": letter.reason,
        "detail": letter.detail,
        "at": letter.at,
        "stream": letter.stream,
        "entry": letter.entry,
        "deliveries": letter.deliveries,
        "type": letter.type,
        "run_id": letter.run_id,
        "names": letter.names,
    }
