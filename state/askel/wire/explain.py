"""Why a run is where it is, in plain words: what it waits for, who holds it, what moves it next.

``explain`` is a pure function of what Redis says. Every state of a run has a word of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from askel.state import TERMINAL, RunFacts, RunStatus, owner_process
from askel.wire.dead_letters import DeadLetter
from askel.wire.explain_steps import (
    SWEEP_MS,
    Why,
    and_more,
    attempt_of,
    clock,
    dead_lettered,
    held_back,
    queue_name,
    redrive,
    serve,
    span,
    taken_up,
    why_of_step,
)

#: After how long without renewal workers take an entry over, by default.
CLAIM_IDLE_MS = 12_000


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run is, and why.

    ``state`` is a word for programs, ``text`` the paragraph for people, ``next`` what will move the
    run, ``command`` what would unstick it if nothing else does. ``stuck`` tells that by itself
    nothing will, unless a worker mends it.
    """

    run_id: str
    state: str
    text: str
    since: int | None = None
    holder: str = ""
    idle_ms: int | None = None
    next: str = ""
    command: str = ""
    stuck: bool = False


def explain(
    facts: RunFacts, letters: Sequence[DeadLetter] = (), *, claim_idle_ms: int = CLAIM_IDLE_MS
) -> Explanation:
    """Return what *facts* mean; *letters* are dead letters about the run, newest first."""
    why = _of_run(facts, letters, claim_idle_ms)
    parts = [f"Run {facts.run_id} of {facts.workflow or 'an unknown workflow'} {why.what}."]
    if facts.lock_holder and _is_foreign(facts) and why.state not in {"ended", "locked"}:
        parts.append(f"Its lock is held by another program {_for(facts.lock_pttl)}.")
    if letters:
        count, newest = len(letters), letters[0]
        parts.append(
            f"{count} dead letter{'s are' if count > 1 else ' is'} about it, the newest "
            f"{newest.reason} ({newest.type}): askel dead ls --run {facts.run_id}."
        )
    if why.next:
        parts.append(why.next)
    if why.command:
        parts.append(f"{'To unstick it' if why.stuck else 'To move it'}: {why.command}")
    return Explanation(
        run_id=facts.run_id,
        state=why.state,
        text=" ".join(parts),
        since=why.since,
        holder=why.holder,
        idle_ms=why.idle_ms,
        next=why.next,
        command=why.command,
        stuck=why.stuck,
    )


def _of_run(facts: RunFacts, letters: Sequence[DeadLetter], claim_idle_ms: int) -> Why:
    resume = f"askel send run.resume run_id {facts.run_id}"
    since = facts.updated_at
    if facts.status in TERMINAL:
        what = f"has {facts.status} at {clock(since)}{_error(facts)}; nothing is to be done"
        if facts.status == RunStatus.CANCELLED:
            what = what.replace("has cancelled", "was cancelled")
        return Why(state="ended", what=what, since=since)
    if facts.status == RunStatus.SUSPENDED:
        what = f"was suspended at {clock(since)}"
        then = "What is being executed ends; nothing begins before it is resumed."
        return Why(state="suspended", what=what, since=since, next=then, command=resume)
    held = held_back(facts, letters)
    if facts.status == RunStatus.STALLED:
        what = f"is stalled since {clock(since)}{_error(facts)}"
        sent = ", what its steps wait for is redriven" * bool(held)
        then = f"It goes on where it was when what is missing is there{sent} and it is resumed."
        resume = f"{redrive(held)} && {resume}" if held else resume
        return Why(state="stalled", what=what, since=since, next=then, command=resume)
    if facts.inline:
        return _inline(facts)
    if held:
        return dead_lettered(facts, held)
    if not facts.start:
        return _of_program(facts, claim_idle_ms)
    if facts.place is None:
        return _passive(facts, claim_idle_ms)
    return _with_token(facts, claim_idle_ms)


def _inline(facts: RunFacts) -> Why:
    if facts.lock_holder:
        return Why(
            state="inline",
            what="is run by the program that started it, which holds its lock "
            f"{_for(facts.lock_pttl)}",
            since=facts.updated_at,
            holder=facts.lock_holder,
            next="It goes on as that program does.",
        )
    return Why(
        state="inline_abandoned",
        what=f"was run by a program that is gone; nothing happened since {clock(facts.updated_at)}",
        since=facts.updated_at,
        next="It goes on when a program that has its app calls app.resume(service, "
        f"{facts.run_id!r}).",
        stuck=True,
    )


def _of_program(facts: RunFacts, claim_idle_ms: int) -> Why:
    """A run that another program drives step by step; workers may execute steps of it."""
    queued = [step for step in facts.steps if step.lease_entry]
    if queued:
        return why_of_step(facts, queued[0], claim_idle_ms)
    names = ", ".join(repr(step.name) for step in facts.steps[:3])
    open_steps = f", of which {names} {'are' if facts.open_count > 1 else 'is'} open" * bool(names)
    return Why(
        state="driven_by_program",
        what="is driven step by step by the program that created it"
        f"{open_steps}; the last change was at {clock(facts.updated_at)}",
        since=facts.updated_at,
        next="It goes on when that program records the next step, or ends it.",
        command=f"askel send run.complete run_id {facts.run_id} output null",
    )


def _with_token(facts: RunFacts, claim_idle_ms: int) -> Why:
    place = facts.place
    assert place is not None
    if place.word == "waiting":
        return _undelivered(facts, place.queue)
    if place.word == "orphaned":
        return Why(
            state="token_orphaned",
            what="is driven by no worker: its entry was read, and is pending for nobody (somebody "
            "removed a consumer by hand)",
            since=facts.updated_at,
            next="A worker that looks for such entries takes it up within a minute or so.",
            stuck=True,
        )
    if place.is_taken_up:
        return Why(
            state="token_orphaned",
            what="is driven by no worker that is known: its entry was pending for nobody "
            "(somebody removed a consumer by hand)",
            since=facts.updated_at,
            idle_ms=place.idle_ms,
            next=taken_up(claim_idle_ms),
            command=serve(place.queue) if place.idle_ms > claim_idle_ms else "",
        )
    driver = owner_process(facts.owner)
    if place.word == "gone" and not _is_alive(facts, driver):
        return Why(
            state="token_gone",
            what="is driven by no worker: its entry was deleted from the stream",
            since=facts.updated_at,
            next="A worker that looks for such runs makes it another entry within a minute or so.",
            stuck=True,
        )
    holder = place.consumer or driver
    if place.word == "pending" and place.idle_ms > claim_idle_ms:
        return Why(
            state="dead_worker",
            what=f"is in the hands of worker {holder}, which has not been heard of for "
            f"{span(place.idle_ms)}",
            since=facts.now - place.idle_ms,
            holder=holder,
            idle_ms=place.idle_ms,
            next=f"Another worker that has room takes it over within {span(SWEEP_MS)}.",
            command=serve(place.queue),
        )
    if "unknown_since" in facts.told:
        return _unknown(facts)
    return _driven(facts, claim_idle_ms, holder, place.idle_ms)


def _driven(facts: RunFacts, claim_idle_ms: int, holder: str, idle_ms: int) -> Why:
    """The worker *holder* has it in memory."""
    local = [step for step in facts.steps if step.is_local]
    if facts.lock_holder and _is_foreign(facts):
        return Why(
            state="locked",
            what=f"is in the hands of worker {holder}, which waits for the run's lock: another "
            f"program holds it {_for(facts.lock_pttl)}",
            since=facts.updated_at,
            holder=holder,
            idle_ms=idle_ms,
            next="It goes on as soon as the lock is given back, or runs out.",
        )
    if local:
        step = local[0]
        return Why(
            state="running",
            what=f"is being worked on: worker {holder} executes step {step.name!r}"
            f"{attempt_of(step)} since {clock(step.updated_at)}{and_more(len(local) - 1)}",
            since=step.updated_at,
            holder=holder,
            idle_ms=idle_ms,
            next="It goes on when the step ends; if its worker dies, another takes it over within "
            f"{span(claim_idle_ms + SWEEP_MS)}.",
        )
    if facts.steps:
        why = why_of_step(facts, facts.steps[0], claim_idle_ms)
        kept = f"; worker {holder} keeps it in memory meanwhile"
        return msgspec.structs.replace(
            why, what=why.what + kept, holder=why.holder or holder, idle_ms=why.idle_ms or idle_ms
        )
    return Why(
        state="deciding",
        what=f"is in the hands of worker {holder}, which decides on its next step",
        since=facts.updated_at,
        holder=holder,
        idle_ms=idle_ms,
        next="It goes on at once; if its worker dies, another takes it over within "
        f"{span(claim_idle_ms + SWEEP_MS)}.",
    )


def _undelivered(facts: RunFacts, queue: str) -> Why:
    if "unknown_since" in facts.told:
        return _unknown(facts)
    stream = facts.streams[queue]
    what = f"waits on {queue_name(queue)} to be read by a worker, one of {stream.backlog} commands"
    if not stream.is_served:
        return Why(
            state="no_reader",
            what=f"{what}; no worker reads it",
            since=facts.updated_at,
            next="It goes on when a worker that has its workflow reads that queue.",
            command=serve(queue),
        )
    count = max(len(stream.readers), 1)
    return Why(
        state="undelivered",
        what=what,
        since=facts.updated_at,
        next=f"The next of the {count} worker(s) there that has room takes it.",
    )


def _unknown(facts: RunFacts) -> Why:
    since = _digits(facts.told.get("unknown_since", "")) or facts.updated_at
    return Why(
        state="unknown_workflow",
        what=f"goes from worker to worker since {clock(since)} ({facts.told.get('tries', '?')} "
        "times so far): none has its workflow",
        since=since,
        next="It goes on with the first worker that has it; after 10 minutes it becomes stalled.",
        command="askel worker MODULE:APP",
    )


def _passive(facts: RunFacts, claim_idle_ms: int) -> Why:
    """No worker has the run: it waits for what its steps wait for, or nothing will ever come."""
    waiting = [why_of_step(facts, step, claim_idle_ms) for step in facts.steps if not step.is_local]
    if not waiting:
        return Why(
            state="no_token",
            what="is driven by no worker, and waits for nothing that could come",
            since=facts.updated_at,
            next="A worker that looks for such runs drives it on within a minute or so.",
            stuck=True,
        )
    # One that nothing will move is what a person wants to hear of.
    return next((why for why in waiting if why.stuck), waiting[0])


def _is_foreign(facts: RunFacts) -> bool:
    return bool(facts.lock_holder) and facts.lock_holder != facts.owner


def _is_alive(facts: RunFacts, consumer: str) -> bool:
    return any(consumer in stream.readers for stream in facts.streams.values())


def _error(facts: RunFacts) -> str:
    if not facts.error:
        return ""
    try:
        said = msgspec.json.decode(facts.error).get("message", "")
    except (msgspec.MsgspecError, AttributeError, ValueError):
        return " (its error is sealed)"
    return f" ({str(said)[:300]})" if said else ""


def _for(pttl: int) -> str:
    return f"for at most {span(pttl)}" if pttl >= 0 else "without an end (it never expires)"


def _digits(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 15 else 0  # noqa: PLR2004
