"""``askel show``, ``askel history``, ``askel ls``: looking at runs."""

from __future__ import annotations

import argparse
import os
import shlex
import sys

import anyio
import msgspec

from askel import RedisWorkflowService, RunNotFoundError, RunStatus, StepState, WorkflowRun
from askel.state import TERMINAL, HistoryEntry
from askeld.cli.arguments import add_redis_options, reading
from askeld.cli.exits import Exit
from askeld.cli.output import clock_time, date_time, one_line, print_json, print_table, shown

_PAGE = 20
_OPEN_STEPS = frozenset({"pending", "scheduled", "running"})


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    if verb == "ls":
        parser.epilog = "examples:\n  askel ls --status failed\n  askel ls --json | jq '.runs[].id'"
        parser.add_argument(
            "--status",
            choices=[str(status) for status in RunStatus],
            help="only runs with this status",
        )
        parser.add_argument("--workflow", metavar="NAME", help="only runs of this workflow")
        parser.add_argument(
            "--limit", type=int, default=_PAGE, metavar="N", help=f"most runs ({_PAGE})"
        )
        parser.add_argument("--cursor", help="continue after an earlier page")
    else:
        parser.epilog = f"example:\n  askel {verb} order-42"
        parser.add_argument("run", metavar="RUN", help="the run's id")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_redis_options(parser)
    verbs = {"ls": _list, "show": _show, "history": _history}
    parser.set_defaults(call=lambda options: anyio.run(verbs[verb], options), verb=verb)


async def _list(options: argparse.Namespace) -> int:
    async with reading(options) as service:
        page = await service.list_runs(
            workflow_name=options.workflow,
            status=options.status,
            limit=options.limit,
            cursor=options.cursor,
        )
    if options.json:
        print_json(page)
        return Exit.OK
    rows = [
        (run.id, run.workflow, str(run.status), date_time(run.created_at), shown(run.input))
        for run in page.runs
    ]
    if rows:
        print_table(("RUN", "WORKFLOW", "STATUS", "CREATED (UTC)", "INPUT"), rows, crop=True)
    elif not page.cursor and not page.unreadable:
        print("no runs")  # noqa: T201
    if page.cursor:
        sys.stderr.write(f"more: {_next_page(options, page.cursor)}\n")
    if page.unreadable:
        names = one_line(", ".join(page.unreadable))
        sys.stderr.write(f"not shown, their records are damaged: {names}\n")
    return Exit.OK


def _next_page(options: argparse.Namespace, cursor: str) -> str:
    """Return the command that shows the next page of the same list."""
    words = ["askel", "ls"]
    for name in ("status", "workflow"):
        if value := getattr(options, name):
            words += [f"--{name}", value]
    if options.prefix != (os.environ.get("ASKEL_PREFIX") or "workflows"):
        words += ["--prefix", options.prefix]
    if options.redis:  # a password in it is not repeated
        words += ["--redis", options.redis if "@" not in options.redis else "URL"]
    if options.limit != _PAGE:
        words += ["--limit", str(options.limit)]
    return shlex.join([*words, "--cursor", cursor])


async def _show(options: argparse.Namespace) -> int:
    async with reading(options) as service:
        run = await _run(service, options.run)
        steps = await service.get_run_steps(options.run)
        since = await service.unconfirmed_since(options.run) if run.durability else None
    if options.json:
        waiting = {"unconfirmed_since": since} if run.durability else {}
        print_json({"run": run, "steps": steps, **waiting})
        return Exit.OK
    facts: list[tuple[str, str]] = [
        ("run", run.id),
        ("workflow", run.workflow),
        ("status", str(run.status)),
        ("created", f"{date_time(run.created_at)} UTC"),
        ("updated", f"{date_time(run.updated_at)} UTC"),
        ("input", shown(run.input)),
    ]
    if run.durability:
        told = f"not confirmed since {clock_time(since)} UTC" if since else "confirmed"
        facts.append(("durability", f"{run.durability}, {told}"))
    if run.output is not None:
        facts.append(("output", shown(run.output)))
    if run.error is not None:
        facts.append(("error", one_line(run.error.message)))
    print_table(("", ""), facts)
    if not steps:
        return Exit.OK
    print()  # noqa: T201
    rows = [_step_row(step, run) for step in steps]
    print_table(("STEP", "STATUS", "ATTEMPTS", "FUNCTION", "RESULT"), rows)
    return Exit.OK


def _step_row(step: StepState, run: WorkflowRun) -> tuple[str, ...]:
    outcome = one_line(step.error.message) if step.error else shown(step.result)
    if run.status in TERMINAL and step.status in _OPEN_STEPS:
        outcome = "not awaited any more"
    is_wait = isinstance(step.data, dict) and "signal" in step.data
    function = step.rpc_name or ("(signal)" if is_wait else "(sleep)")
    return (step.step_name, str(step.status), str(step.attempt_count), function, outcome)


async def _history(options: argparse.Namespace) -> int:
    async with reading(options) as service:
        await _run(service, options.run)
        if options.json:
            key = service.keys.history(options.run)
            items = await service.connection.send("LRANGE", key, 0, -1)
            print_json([msgspec.Raw(item) for item in items])
        else:
            print_history(await service.get_history_entries(options.run))
    return Exit.OK


def print_history(entries: list[HistoryEntry], title: str = "") -> None:
    """Print everything that happened to a run, in order."""
    before = [0, *(entry.at for entry in entries)]
    rows = [_entry_row(number, entry, before[number]) for number, entry in enumerate(entries)]
    print_table(("#", "TIME (UTC)", "WHAT", "STATUS", "ATTEMPT", "DETAIL"), rows, title)


def _entry_row(number: int, entry: HistoryEntry, before: int) -> tuple[str, ...]:
    what = entry.name if entry.kind == "step" else f"{entry.kind} {entry.name}".strip()
    attempt = str(entry.attempt) if entry.kind in {"step", "timer"} else ""
    at = clock_time(entry.at, beside=before)
    return (str(number), at, what, entry.status, attempt, _detail(entry))


def _detail(entry: HistoryEntry) -> str:
    if entry.error:
        return one_line(str(msgspec.json.decode(entry.error).get("message", "")))
    told = entry.data if entry.kind in {"signal", "approval"} else b""
    if payload := entry.result or entry.output or entry.value or told:
        return shown(msgspec.json.decode(payload))
    if entry.branch or entry.child_run_id:
        return f"branch {entry.branch}" if entry.branch else f"began run {entry.child_run_id}"
    if entry.due is not None:
        return f"until {clock_time(entry.due, beside=entry.at)}"
    return one_line(entry.reason or "")


async def _run(service: RedisWorkflowService, run_id: str) -> WorkflowRun:
    run = await service.get_run(run_id)
    if run is None:
        raise RunNotFoundError(run_id)
    return run
