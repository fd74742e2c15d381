"""``askel start``, ``askel run``, ``askel send``: putting commands on the stream."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from typing import Any

import anyio

from askel import (
    Client,
    IfExists,
    InvalidOptionError,
    RunExistsError,
    RunFailedError,
    RunStatus,
    StoreAccessError,
    WaitTimeoutError,
    WorkflowRun,
)
from askel.wire import OF_ASKEL, SENDABLE, UNSUPPORTED, CommandError, decode_command
from askeld.cli.arguments import (
    SHOWN,
    add_redis_options,
    duration_argument,
    json_argument,
    load_app,
    required_url,
    service_for,
)
from askeld.cli.exits import Exit
from askeld.cli.output import one_line, print_json

#: How long a run may go unnoticed before the person who waits for it is told.
_WONDER_S = 3.0

#: Said to whoever may send and not read, as the producers of ``askel acl``.
_UNTOLD = (
    "askel start: this user of Redis may not read runs, so whether the run id is taken is not "
    "known: if it is, this start becomes a dead letter\n"
)

#: A run that is asked for only to see whether that is allowed.
_ANY = "any"
_OTHER_ID = {
    "start": "choose another --run-id, or say with --if-exists what to do",
    "run": "choose another --run-id, or leave it out",
}

_EPILOGS = {
    "start": """\
examples:
  askel start onboarding '{"email": "a@b.c"}'
  askel start onboarding --run-id order-42 - < input.json
  askel start payout --durability 'replicated(1)' '{"cents": 4200}'
""",
    "run": """\
examples:
  askel run onboarding '{"email": "a@b.c"}' --timeout 30s
  askel run onboarding '{"email": "a@b.c"}' --app shop:app   (here, without a worker)
""",
    "send": """\
examples:
  askel send run.start workflow onboarding input '{"email":"a@b.c"}' id order-42
  askel send run.cancel run_id order-42 reason 'customer changed their mind'

The same with redis-cli:
  redis-cli XADD workflows:commands '*' type run.start workflow onboarding input '{"email":"a@b.c"}'
""",
}


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = _EPILOGS[verb]
    if verb == "send":
        parser.add_argument("type", metavar="TYPE", help="the command, for example run.start")
        parser.add_argument("fields", nargs="*", metavar="FIELD VALUE", help="as XADD takes them")
        parser.add_argument("--queue", default="", help="the queue whose stream it goes to")
    else:
        parser.add_argument("workflow", metavar="WORKFLOW")
        parser.add_argument(
            "input", nargs="?", default="null", help="JSON, or - for standard input"
        )
        parser.add_argument("--run-id", help="the run's id, instead of a new one")
        parser.add_argument(
            "--durability",
            metavar="LEVEL",
            help="succeed only when Redis confirms it: fsync, or replicated(n); "
            "5 is the exit code where it does not",
        )
    if verb == "start":
        parser.add_argument(
            "--id", default="", help="dedupes: started once however often it is sent"
        )
        parser.add_argument(
            "--if-exists",
            default="reject",
            choices=list(IfExists),
            help="what to do if the run id is taken: refuse (the default), take it for the same, "
            "begin its next generation once it has ended, or cancel it and begin the next",
        )
    if verb == "run":
        parser.add_argument("--timeout", metavar="TIME", help="give up waiting after this time")
        parser.add_argument("--app", metavar="MODULE:APP", help="run it in this process")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_redis_options(parser)
    call = {"start": _start, "run": _run, "send": _send}[verb]
    parser.set_defaults(call=lambda options: anyio.run(call, options), verb=verb)


async def _start(options: argparse.Namespace) -> int:
    value = json_argument(options.input)
    async with Client(required_url(options), options.prefix, codec=SHOWN) as client:
        if options.if_exists == "reject" and not await _may_be_free(client, options.run_id):
            sys.stderr.write(_UNTOLD)
        handle = await client.start(
            options.workflow,
            value,
            run_id=options.run_id,
            id=options.id,
            if_exists=options.if_exists,
            durability=options.durability,
        )
    print_json({"run_id": handle.run_id}) if options.json else print(handle.run_id)  # noqa: T201
    return Exit.OK


async def _run(options: argparse.Namespace) -> int:
    value = json_argument(options.input)
    # Read before anything is started: a mistake must not leave a run behind.
    timeout = options.timeout and duration_argument("--timeout", options.timeout) / 1_000
    if options.app:
        return await _run_here(options, value)
    async with Client(required_url(options), options.prefix, codec=SHOWN) as client:
        await _may_wait(client, options.run_id)
        handle = await client.start(
            options.workflow, value, run_id=options.run_id, durability=options.durability
        )
        if not options.json:
            sys.stderr.write(f"run {handle.run_id}\n")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_wonder, client, handle.run_id, options.workflow)
            run = await _ended(client, handle.run_id, options.workflow, timeout)
            tasks.cancel_scope.cancel()
    return _report(run, as_json=options.json)


async def _refuse_taken(client: Client, run_id: str | None, verb: str) -> None:
    """Refuse an id that is taken: the command would become a dead letter that nobody sees.

    Raises:
        RunExistsError: There is a run of that id.
    """
    if run_id is not None and await client.get_run(run_id) is not None:
        raise RunExistsError(run_id, f"exists already; {_OTHER_ID[verb]}")


async def _may_wait(client: Client, run_id: str | None) -> None:
    """Look, before a run is started that nobody could wait for, whether this user may read runs.

    Raises:
        RunExistsError: There is a run of that id.
        StoreAccessError: The user may not.
    """
    try:
        if run_id is None:
            await client.get_run(_ANY)
        await _refuse_taken(client, run_id, "run")
    except StoreAccessError as error:
        if error.refuses_login:
            raise
        msg = f"{error}; askel start starts a run without waiting for it"
        raise StoreAccessError(msg) from None


async def _may_be_free(client: Client, run_id: str | None) -> bool:
    """Refuse an id that is taken; return False where this user may not ask for that.

    Raises:
        RunExistsError: There is a run of that id.
    """
    try:
        await _refuse_taken(client, run_id, "start")
    except StoreAccessError as error:
        if error.refuses_login:
            raise
        return False
    return True


async def _ended(client: Client, run_id: str, workflow: str, timeout: float | None) -> WorkflowRun:
    """Return the run when it has ended; where it has not even begun in time, say that."""
    try:
        return await client.wait(run_id, timeout, must_exist=False)
    except WaitTimeoutError:
        if await client.get_run(run_id) is None:
            raise WaitTimeoutError(_untaken(run_id, workflow)) from None
        raise


def _untaken(run_id: str, workflow: str) -> str:
    return (
        f"no worker has taken run {run_id} yet: is one running that has workflow {workflow!r}, "
        "on this Redis and prefix?"
    )


async def _wonder(client: Client, run_id: str, workflow: str) -> None:
    """Say that no worker has taken the run, when that has lasted long enough to wonder."""
    await anyio.sleep(_WONDER_S)
    if await client.get_run(run_id) is None:
        sys.stderr.write(f"{_untaken(run_id, workflow)}\n")


async def _run_here(options: argparse.Namespace, value: Any) -> int:
    app = load_app(options.app)
    async with service_for(options) as service:
        run_id = options.run_id or service.ids.run_id()
        with suppress(RunFailedError):  # reported below, like every end of a run
            try:
                await app.start(
                    service, options.workflow, value, run_id, durability=options.durability
                )
            except RunExistsError as error:
                raise RunExistsError(error.run_id, f"exists already; {_OTHER_ID['run']}") from None
        run = await service.get_run(run_id)
    assert run is not None
    return _report(run, as_json=options.json)


def _report(run: WorkflowRun, *, as_json: bool) -> int:
    """Print how the run ended; its output alone on standard output, so that it can be piped."""
    if as_json:
        print_json(run)
    elif run.status is RunStatus.COMPLETED:
        print_json(run.output)
    else:
        why = f": {one_line(run.error.message)}" if run.error else ""
        sys.stderr.write(f"askel run: run {run.id} {run.status}{why}\n")
    return Exit.OK if run.status is RunStatus.COMPLETED else Exit.ERROR


async def _send(options: argparse.Namespace) -> int:
    words = options.fields
    if len(words) % 2:
        msg = f"field {words[-1]!r} has no value: write fields as XADD takes them, name then value"
        raise InvalidOptionError(msg)
    if options.type in OF_ASKEL:
        msg = f"{options.type} is sent by askel alone: send one of {', '.join(SENDABLE)}"
        raise InvalidOptionError(msg)
    if options.type in UNSUPPORTED:
        raise InvalidOptionError(f"{options.type} is not supported by this version")
    flat = [word.encode() for word in ("type", options.type, *words)]
    try:
        command = decode_command(flat)
    except CommandError as error:
        raise InvalidOptionError(error.detail) from error
    async with Client(required_url(options), options.prefix, codec=SHOWN) as client:
        entry = await client.send(command, options.queue)
    print_json({"entry": entry}) if options.json else print(entry)  # noqa: T201
    return Exit.OK
