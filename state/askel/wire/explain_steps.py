"""Why a step has not ended: what its run waits for there, in plain words."""

from __future__ import annotations

import shlex

import msgspec

from askel.state import OpenStep, RunFacts, StreamFacts, from_ms

#: How often workers look for what dead ones hold, by default.
SWEEP_MS = 1_000
#: A timer that is over by less is on its way.
_LATE_MS = 2_000


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an explanation: of the run, or of one of its steps."""

    state: str
    what: str
    next: str = ""
    command: str = ""
    since: int | None = None
    holder: str = ""
    idle_ms: int | None = None
    stuck: bool = False


def why_of_step(facts: RunFacts, step: OpenStep, claim_idle_ms: int) -> Why:
    """Return what *step* waits for, and what will end that."""
    more = and_more(facts.open_count - 1)
    if step.is_local:
        return Why(
            state="running",
            what=f"executes step {step.name!r}{attempt_of(step)} since "
            f"{clock(step.updated_at)}{more}",
            since=step.updated_at,
        )
    if not step.rpc_name or (step.status == "pending" and not step.lease_entry):
        return _of_timer(facts, step, more)
    if step.status == "running":
        return _on_lease(facts, step, claim_idle_ms, more)
    return _on_queue(facts, step, more)


def _of_timer(facts: RunFacts, step: OpenStep, more: str) -> Why:
    sleeps = not step.rpc_name
    if step.status == "pending" and step.attempt == 1:
        return Why(
            state="driven_by_program",
            what=f"waits for step {step.name!r}, which another program inserted and drives{more}",
            since=step.updated_at,
            next="It goes on as that program does.",
        )
    if step.due is None:
        return Why(
            state="timer_gone",
            what=f"waits in step {step.name!r} for a timer that is gone{more}",
            since=step.updated_at,
            next="A worker that looks for such runs sets the timer again within a minute or so.",
            stuck=True,
        )
    if step.fired:
        return Why(
            state="sleeping" if sleeps else "retrying",
            what=f"waited in step {step.name!r} until {clock(step.due)}; that is over, and the "
            f"command which says so is on the default queue{more}",
            since=step.updated_at,
            next="It goes on when a worker reads that.",
        )
    late = facts.now > step.due + _LATE_MS
    when = f"{'was due' if late else 'is due'} at {clock(step.due)}"
    if sleeps:
        what = f"sleeps in {step.name!r} since {clock(step.updated_at)}; it {when}{more}"
    else:
        what = f"tries step {step.name!r} again{attempt_of(step)}: that {when}{more}"
    then = "It goes on by itself then."
    if late:
        then = "Its time has come, and no worker has seen to it: does one run?"
    return Why(
        state="sleeping" if sleeps else "retrying",
        what=what,
        since=step.updated_at,
        next=then,
        command=serve("") if late else "",
    )


def _on_queue(facts: RunFacts, step: OpenStep, more: str) -> Why:
    queue, stream = step.queue, facts.streams.get(step.queue)
    again = step.status == "pending"
    what = (
        f"waits for step {step.name!r}{attempt_of(step)} on {queue_name(queue)} since "
        f"{clock(step.updated_at)}{', after a pause of its own' if again else ''}"
    )
    if stream is None or not stream.is_served:
        return Why(
            state="queue_without_worker",
            what=f"{what}; no worker reads that queue{more}",
            since=step.updated_at,
            next=f"It goes on when a worker that has {step.rpc_name!r} reads that queue.",
            command=serve(queue),
        )
    return Why(
        state="retrying" if again else "queued",
        what=f"{what}; {_readers(stream)}{more}",
        since=step.updated_at,
        next="It goes on when the step has been executed"
        + (" (a program in another language may have taken it)." if not stream.length else "."),
        command=_execute(facts, step) if not stream.length and not again else "",
    )


def _on_lease(facts: RunFacts, step: OpenStep, claim_idle_ms: int, more: str) -> Why:
    lease = step.lease
    what = f"waits for step {step.name!r}{attempt_of(step)} on {queue_name(step.queue)}"
    if lease is None or lease.word != "pending":
        orphaned = lease is not None and lease.word == "orphaned"
        then = "A worker that looks for such entries takes it up within a minute or so."
        return Why(
            state="step_entry_orphaned" if orphaned else "step_entry_gone",
            what=f"{what}, whose entry {'is pending for nobody' if orphaned else 'was deleted'}"
            f"{more}",
            since=step.updated_at,
            next=then if orphaned else "It goes on only if its worker is still at it.",
            command="" if orphaned else _execute(facts, step),
            stuck=True,
        )
    if lease.idle_ms > claim_idle_ms:
        return Why(
            state="dead_worker",
            what=f"{what}: worker {lease.consumer} has not been heard of for "
            f"{span(lease.idle_ms)}{more}",
            since=facts.now - lease.idle_ms,
            holder=lease.consumer,
            idle_ms=lease.idle_ms,
            next=f"Another worker of that queue takes it over within {span(SWEEP_MS)}.",
            command=serve(step.queue),
        )
    return Why(
        state="executed_elsewhere",
        what=f"{what}: worker {lease.consumer} executes it since {clock(step.updated_at)}{more}",
        since=step.updated_at,
        holder=lease.consumer,
        idle_ms=lease.idle_ms,
        next="It goes on when the step ends; if its worker dies, another takes it over within "
        f"{span(claim_idle_ms + SWEEP_MS)}.",
    )


def _execute(facts: RunFacts, step: OpenStep) -> str:
    words = ["step.execute", "run_id", facts.run_id, "step_name", step.name]
    words += ["rpc_name", step.rpc_name]
    return shlex.join(["askel", "send", *words, *(["--queue", step.queue] if step.queue else [])])


def serve(queue: str) -> str:
    """Return the command that serves *queue*."""
    return shlex.join(["askel", "worker", "MODULE:APP", *(["--queue", queue] if queue else [])])


def _readers(stream: StreamFacts) -> str:
    return f"{max(len(stream.readers), 1)} worker(s) there, {stream.backlog} commands unread"


def queue_name(queue: str) -> str:
    """Return the queue as people call it."""
    return f"queue {queue!r}" if queue else "the default queue"


def attempt_of(step: OpenStep) -> str:
    """Return which attempt this is, where that says something."""
    if step.retries is None or (step.attempt == 1 and step.status != "pending"):
        return ""
    return f" (attempt {step.attempt} of {step.retries + 1})"


def and_more(count: int) -> str:
    """Return that *count* other steps are open."""
    return f", and {count} other step(s) are open" if count > 0 else ""


def clock(ms: int) -> str:
    """Return the moment as people write it."""
    return f"{from_ms(ms):%Y-%m-%d %H:%M:%S} UTC"


def span(ms: int) -> str:
    """Return *ms* as people say it, in one unit and rounded down."""
    for unit, text in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")):
        if ms >= 2 * unit or (ms >= unit and text == "s"):
            return f"{ms // unit} {text}"
    return f"{ms} ms"
