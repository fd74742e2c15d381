"""Does work move: is it read, renewed, taken over, fired, and not refused?"""

from __future__ import annotations

from askel import duration_text
from askel.state import NOBODY
from askeld.doctor.facts import Facts, StreamFacts
from askeld.doctor.finding import Registry, Verdict, green, red, unknown, yellow

work = Registry()

_ALIVE_MS = 60_000
_DEAD_MS = 3_600_000
_TAKEN_OVER_MS = 60_000
_LATE_MS = 10_000
_WAITING_MS = 60_000
_DELIVERIES = 3
_DEAD_MANY = 10_000
_NAMED = 5


def some(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _alive(stream: StreamFacts) -> int:
    """Return how many workers are there, as far as that can be told: one, if somebody sweeps."""
    consumers = [consumer for consumer in stream.consumers if consumer.name != NOBODY]
    read = sum(consumer.idle_ms < _ALIVE_MS for consumer in consumers)
    swept = stream.swept_ms is not None and stream.swept_ms < _ALIVE_MS
    return max(read, int(swept))


@work.check("streams", "TYPE", "XLEN", "XINFO GROUPS")
def streams(facts: Facts) -> Verdict:
    """Streams of commands are streams, and have the workers' group."""
    wrong = [stream for stream in facts.streams if stream.kind not in {"stream", "none"}]
    if wrong:
        return red(
            f"the key of {wrong[0].title} is a {wrong[0].kind}",
            "find out who wrote it, delete the key; workers make it anew",
        )
    unheard = [one for one in facts.streams if one.queue and one.kind == "none"]
    if unheard:
        return yellow(
            f"nothing is known of {some([one.title for one in unheard])}: no command was ever "
            "sent there, and no worker has served it",
            f"check the name, or start a worker: askel worker MODULE:APP --queue "
            f"{unheard[0].queue}",
        )
    without = [one.title for one in facts.streams if one.length and not one.has_group]
    if without:
        return red(f"{some(without)}: commands, but no group", "start a worker that serves it")
    return green(f"{len(facts.streams)} looked at")


@work.check("workers", "XLEN", "XINFO GROUPS", "XINFO CONSUMERS", "HGET", "HMGET", "LRANGE", "TIME")
def workers(facts: Facts) -> Verdict:
    """Somebody is there to do the work."""
    unserved = [one for one in facts.streams if not _alive(one) and (one.length or not one.queue)]
    if unserved:
        never = [one.title for one in unserved if not one.consumers and one.swept_ms is None]
        titles = some([one.title for one in unserved if one.title not in never])
        told = [
            *([f"no worker has ever read {some(never)}"] if never else []),
            *([f"nobody has read {titles} for a minute"] if titles else []),
        ]
        queue = unserved[0].queue
        return red(
            "; ".join(told),
            f"start a worker: askel worker MODULE:APP{f' --queue {queue}' if queue else ''}",
        )
    return green(f"at least {max(map(_alive, facts.streams), default=0)} alive")


@work.check("backlog", "XINFO GROUPS", "XRANGE", "TIME")
def backlog(facts: Facts) -> Verdict:
    """Commands are read soon after they are sent."""
    late = [one for one in facts.streams if one.waiting_ms > _WAITING_MS]
    if late:
        worst = max(late, key=lambda one: one.waiting_ms)
        return yellow(
            f"{worst.waiting} commands wait on {worst.title}, "
            f"the first for {duration_text(worst.waiting_ms)}",
            "start more workers, or raise --concurrency",
        )
    return green(f"{sum(one.waiting for one in facts.streams)} commands wait")


@work.check("pending-age", "XINFO GROUPS", "XPENDING")
def pending_age(facts: Facts) -> Verdict:
    """What a worker took is renewed, or taken over."""
    silent = [one for one in facts.streams if one.silent_ms > _TAKEN_OVER_MS]
    if silent:
        worst = max(silent, key=lambda one: one.silent_ms)
        return red(
            f"an entry of {worst.title} was not renewed for {duration_text(worst.silent_ms)}, "
            "and nobody took it over",
            "start a worker; if one runs, look for sweep_interrupted in its log",
        )
    return green(f"{sum(one.pending for one in facts.streams)} entries in work")


@work.check("dead-consumers", "XINFO GROUPS", "XINFO CONSUMERS")
def dead_consumers(facts: Facts) -> Verdict:
    """Workers that died hold nothing."""
    dead = [
        consumer.name
        for stream in facts.streams
        for consumer in stream.consumers
        if consumer.idle_ms > _DEAD_MS and consumer.pending
    ]
    if dead:
        return red(
            f"{some(dead)}: silent for an hour, with entries in hand",
            "start a worker: it takes them over. Never XGROUP DELCONSUMER: that loses them",
        )
    return green("none")


@work.check("redeliveries", "XINFO GROUPS", "XPENDING")
def redeliveries(facts: Facts) -> Verdict:
    """No command keeps killing its worker."""
    worst = max(facts.streams, key=lambda one: one.deliveries, default=None)
    if worst is not None and worst.deliveries >= _DELIVERIES:
        return yellow(
            f"an entry of {worst.title} was delivered {worst.deliveries} times",
            "look for what ends workers: memory, segmentation faults, blocked loops",
        )
    return green("none")


@work.check("unknown-names", "XINFO GROUPS", "XRANGE", "TIME")
def unknown_names(facts: Facts) -> Verdict:
    """Every command finds a worker that knows its workflow or step."""
    waiting = max((one.unknown_name_ms for one in facts.streams), default=0)
    if waiting:
        return yellow(
            f"a command has waited for {duration_text(waiting)} for a worker that knows its name",
            "deploy a worker that has the workflow or step; after 10 min it is given up",
        )
    return green("none")


@work.check("app-workflows", "ZRANGE", "HGETALL")
def app_workflows(facts: Facts) -> Verdict:
    """The app that was named has the workflows of the runs under way."""
    if facts.app_workflows is None:
        return green("no app was given: askel doctor MODULE:APP compares its workflows")
    lacking = sorted(
        {
            run.workflow
            for run in facts.runs
            if run.status in {"running", "suspended", "stalled"}
            and run.workflow
            and run.workflow not in facts.app_workflows
        }
    )
    if lacking:
        return red(
            f"runs under way are of workflows this app lacks: {some(lacking)}",
            "keep a workflow until its runs have ended, or deploy the app that has it",
        )
    return green(f"{len(facts.app_workflows)} workflows")


@work.check("dead-letters", "XLEN")
def dead_letters(facts: Facts) -> Verdict:
    """No command was refused for good."""
    if not facts.dead:
        return green("none")
    reasons = ", ".join(f"{count} {name}" for name, count in sorted(facts.dead_reasons.items()))
    newest = f" (newest: {reasons})" if reasons else ""  # a worker may not ask: XREVRANGE
    return yellow(
        f"{facts.dead} commands were refused{newest}",
        "askel dead ls; then askel dead redrive ID or askel dead drop ID",
    )


@work.check("dead-letters-size", "XLEN")
def dead_letters_size(facts: Facts) -> Verdict:
    """The dead stream stays small: nothing is dropped from it by itself."""
    if facts.dead > _DEAD_MANY:
        reason = max(facts.dead_reasons, key=facts.dead_reasons.__getitem__, default="REASON")
        return red(
            f"{facts.dead} dead letters take memory",
            f"look at them by reason: askel dead ls --reason {reason}; mend it, askel dead redrive "
            f"--all --reason {reason} --yes; what can only come back (docs/dead-letters.md), and "
            f"nothing else, goes by askel dead drop --all --reason {reason} --older-than 30d --yes",
        )
    return green(f"{facts.dead}")


@work.check("timers", "ZCOUNT", "ZRANGE", "TIME")
def timers(facts: Facts) -> Verdict:
    """What is due is fired."""
    if facts.overdue and facts.overdue_ms > _LATE_MS:
        return red(
            f"{facts.overdue} timers are overdue, the first by {duration_text(facts.overdue_ms)}",
            "start a worker: any one fires the timers of all",
        )
    return green(f"{facts.timers} armed, none late")


@work.check("schedules", "HLEN")
def schedules(facts: Facts) -> Verdict:
    """Schedules are kept up."""
    if not facts.schedules:
        return green("none")
    return unknown(f"{facts.schedules} schedules, of a later version of askel", "upgrade askel")


@work.check("stuck-runs", "ZRANGE", "HGETALL", "HMGET", "XRANGE")
def stuck_runs(facts: Facts) -> Verdict:
    """Every run that is under way has something that drives it."""
    if facts.stuck:
        return red(
            f"nothing drives {some(facts.stuck)}: a stream was trimmed or deleted",
            "start a worker: it gives such runs a new token; askel why RUN explains each",
        )
    return green("none of those looked at")


@work.check("stalled-runs", "ZCOUNT")
def stalled_runs(facts: Facts) -> Verdict:
    """No run waits for code that matches its history."""
    count = facts.statuses.get("stalled", 0)
    if count:
        return yellow(
            f"{count} runs are stalled", "askel ls --status stalled; askel why RUN says what fits"
        )
    return green("none")


@work.check("locks", "ZRANGE", "HGETALL", "PTTL")
def locks(facts: Facts) -> Verdict:
    """Run locks expire."""
    endless = [run.run_id for run in facts.runs if run.lock_ms == -1]
    if endless:
        return red(
            f"the lock of {some(endless)} never expires",
            f"delete it when no program holds it: DEL {facts.prefix}:lock:{endless[0]}",
        )
    long = [run.run_id for run in facts.runs if (run.lock_ms or 0) > _DEAD_MS]
    if long:
        return yellow(
            f"the lock of {some(long)} lasts for more than an hour",
            "did the server's clock jump back? Delete the lock when no program holds it",
        )
    return green(f"{sum(run.lock_ms is not None for run in facts.runs)} held")
