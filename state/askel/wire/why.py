"""Reading what a run waits for, with the times of its timers, and explaining it."""

from __future__ import annotations

import asyncio

from msgspec import structs

from askel.errors import RunNotFoundError
from askel.names import check_run_id
from askel.state import (
    Keys,
    OpenStep,
    RedisWorkflowService,
    RunFacts,
    Scripts,
    read_facts,
    rearm_call,
)
from askel.wire.commands import TimerFire, encode_command, encode_timer
from askel.wire.dead_letters import DeadLetter, letter_of_start, letters_about
from askel.wire.explain import Explanation, explain


class RunNotStartedError(RunNotFoundError):
    """There is no such run (yet); ``explanation`` says what is known of its start."""

    def __init__(self, run_id: str, letter: DeadLetter | None) -> None:
        """Name the run, and the dead letter that would have made it, if there is one."""
        super().__init__(run_id)
        state, command = "not_found", ""
        known = "a start that no worker has read, or that waits for its time, is no run yet"
        then = "It is there as soon as a worker that has its workflow takes its start."
        if letter is not None:
            state, command = "start_dead_lettered", f"askel dead redrive {letter.id}"
            known = f"its start is a dead letter ({letter.reason}: {letter.detail[:300]})"
            then = "It is started when the letter is redriven and its reason is mended."
        text = f"{self}: {known}{f': {command}' if command else ''}"
        self.args = (text,)
        self.explanation = Explanation(
            run_id=run_id,
            state=state,
            text=text,
            next=then,
            command=command,
            stuck=letter is not None,
        )


async def explain_run(service: RedisWorkflowService, run_id: str) -> Explanation:
    """Return why a run is where it is. Two round trips, or three; nothing is written.

    Raises:
        RunNotStartedError: There is no such run; it is a ``RunNotFoundError`` that says more.
        InvalidNameError: This is no run id.
    """
    facts = await read_facts(
        service.scripts, service.keys, check_run_id(run_id), patience_s=service.resend_s
    )
    if facts is None:
        letter = await letter_of_start(service.scripts, service.keys, run_id)
        raise RunNotStartedError(run_id, letter)
    timed, letters = await asyncio.gather(
        with_timers(service.scripts, service.keys, facts, patience_s=service.resend_s),
        letters_about(service.scripts, service.keys, run_id),
    )
    return explain(timed, letters)


def timer_of(facts: RunFacts, step: OpenStep) -> bytes | None:
    """Return the timer that *step* waits for, as it was set; None where it waits for none.

    A step that a queue executes has its command for a timer, which nobody knows but who sent it.
    """
    waits_on = bool(step.signal) and not step.is_limited
    sleeps = step.status == "scheduled" and not step.rpc_name and not waits_on
    retries = step.status == "pending" and not step.lease_entry and step.attempt > 1
    if not sleeps and not retries:
        return None
    command = TimerFire(
        run_id=facts.run_id,
        step_name=step.name,
        attempt=step.attempt,
        born=str(facts.created_at),
    )
    return encode_timer("", encode_command(command))


def _timed(step: OpenStep, word: bytes, due: int) -> OpenStep:
    """Return *step*, whose timer is not there, with what `rearm` says of it."""
    if word in {b"FIRED", b"MOVED"}:
        return structs.replace(step, due=due, fired=True)
    # Who drives the run holds on to it; when that is given up, a timer that is gone is set again.
    return structs.replace(step, due=due) if word == b"DRIVEN" else step


async def with_timers(
    scripts: Scripts, keys: Keys, facts: RunFacts, *, patience_s: float | None = None
) -> RunFacts:
    """Return *facts* with the time at which each timer that the run waits for is due."""
    timers = [timer_of(facts, step) for step in facts.steps]
    members = [timer for timer in timers if timer is not None]
    if not members:
        return facts
    scores = await scripts.fetch("ZMSCORE", keys.timers, *members, patience_s=patience_s)
    due = dict(zip(members, scores, strict=True))
    steps = []
    for step, timer in zip(facts.steps, timers, strict=True):
        score = due.get(timer) if timer is not None else None
        if score is not None:
            steps.append(structs.replace(step, due=int(float(score))))
        elif timer is not None:
            # Just fired, most probably; whether it is gone for good costs one call more.
            call = rearm_call(keys, facts.run_id, step, timer, dry=True)
            (word, *at), _ = await scripts.insist(*call, patience_s=patience_s)
            steps.append(_timed(step, word, int(at[0]) if at else facts.now))
        else:
            steps.append(step)
    return structs.replace(facts, steps=tuple(steps))
