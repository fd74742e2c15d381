"""Why a step has not ended: what its run waits for there, in plain words."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import msgspec

from askel.state import OpenStep, RunFacts, StreamFacts, from_ms
from askel.wire.dead_letters import DeadLetter

#: How often workers look for what dead ones hold, by default.
SWEEP_MS = 1_000
#: A timer that is over by less is on its way.
_LATE_MS = 2_000
#: With these reasons a step's command may be a dead letter while the step waits for it.
_HELD_BACK = frozenset({"unknown_step", "store_refused", "run_not_found"})


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
    if step.signal and (step.due is not None or not step.is_limited):
        return _of_signal(facts, step, more)
    if not step.rpc_name or (step.status == "pending" and not step.lease_entry):
        return _of_timer(facts, step, more)
    if step.status == "running":
        return _on_lease(facts, step, claim_idle_ms, more)
    return _on_queue(facts, step, more)


def _of_signal(facts: RunFacts, step: OpenStep, more: str) -> Why:
    until = "" if step.due is None else f", until {clock(step.due)} at the latest"
    send = ["askel", "send", "run.signal", "run_id", facts.run_id, "name", step.signal]
    return Why(
        state="waiting_for_signal",
        what=f"waits for signal {step.signal!r} since {clock(step.updated_at)}{until}{more}",
        since=step.updated_at,
        next="It goes on when that is sent" + (", or its time is over." if until else "."),
        command=shlex.join([*send, "data", "null"]),
    )


def held_back(facts: RunFacts, letters: Sequence[DeadLetter]) -> dict[str, DeadLetter]:
    """Return the letters, by step, that hold the command which an open step waits for.

    A letter that is older than the step, or than its last change, is of another attempt or run.
    """
    found = {}
    for step in facts.steps:
        is_begun = step.lease is not None and step.lease.word == "pending"
        for letter in () if is_begun or not step.rpc_name else letters:
            if (
                letter.reason in _HELD_BACK
                and letter.type == "step.execute"
                and letter.names.get("step_name") == step.name
                and letter.names.get("rpc_name") == step.rpc_name
                and _sent_at(letter) >= facts.created_at
                and (letter.at is None or letter.at >= from_ms(step.updated_at))
            ):
                found[step.name] = letter
                break
    return found


def _sent_at(letter: DeadLetter) -> int:
    """Return when the command of *letter* was sent; ids of entries begin with their time."""
    ms = letter.entry.partition("-")[0]
    return int(ms) if ms.isdecimal() and len(ms) < 15 else 0  # noqa: PLR2004


def redrive(letters: dict[str, DeadLetter]) -> str:
    """Return the command that sends the commands of *letters* again."""
    return shlex.join(["askel", "dead", "redrive", *(letter.id for letter in letters.values())])


def dead_lettered(facts: RunFacts, letters: dict[str, DeadLetter]) -> Why:
    """Return that the run waits for steps whose commands are *letters*."""
    name, letter = next(iter(letters.items()))
    step = next(step for step in facts.steps if step.name == name)
    return Why(
        state="step_dead_lettered",
        what=f"waits for step {name!r}{attempt_of(step)}, whose command is a dead letter "
        f"({letter.reason}){and_more(facts.open_count - 1)}",
        since=step.updated_at,
        next=f"It goes on when the letter is redriven, with a worker that has {step.rpc_name!r} "
        f"on {queue_name(step.queue)}.",
        command=redrive(letters),
        stuck=True,
    )


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
    is_empty = stream is not None and not stream.length and not again
    if stream is None or not stream.is_served:
        gone = ", and nothing is on it" * is_empty
        sent = " and its command is sent again" * is_empty
        return Why(
            state="queue_without_worker",
            what=f"{what}; no worker reads that queue{gone}{more}",
            since=step.updated_at,
            next=f"It goes on when a worker that has {step.rpc_name!r} reads that queue{sent}"
            + (" (a program in another language may have taken it)." if is_empty else "."),
            command=_execute(facts, step) if is_empty else serve(queue),
        )
    return Why(
        state="retrying" if again else "queued",
        what=f"{what}; {_readers(stream)}{more}",
        since=step.updated_at,
        next="It goes on when the step has been executed"
        + (" (a program in another language may have taken it)." if not stream.length else "."),
        command=_execute(facts, step) if is_empty else "",
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
    if lease.is_taken_up:
        return Why(
            state="step_entry_orphaned",
            what=f"{what}, whose entry was pending for nobody{more}",
            since=step.updated_at,
            idle_ms=lease.idle_ms,
            next=taken_up(claim_idle_ms),
            command=serve(step.queue) if lease.idle_ms > claim_idle_ms else "",
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


def taken_up(claim_idle_ms: int) -> str:
    """Return what becomes of an entry that was pending for nobody and was taken up."""
    return (
        "It has been taken up: a worker that is still at it takes it back, else another takes it "
        f"over within {span(claim_idle_ms + SWEEP_MS)}."
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
