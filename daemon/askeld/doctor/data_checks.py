"""Is what is stored whole, of a sound size, and kept no longer than it should be?"""

from __future__ import annotations

from askel import duration_text, size_text
from askeld.doctor.facts import LAYOUT, Facts
from askeld.doctor.finding import Registry, Verdict, green, red, yellow
from askeld.doctor.work_checks import some

data = Registry()

_PAYLOAD = 256 * 1024
_HISTORY = 10_000
_ENDED_MANY = 100_000
_GRACE_MS = 600_000
#: What every run has, whoever wrote it.
_NEEDED = ("id", "workflow", "status", "createdAt")


@data.check("layout", "HGETALL", "ZCOUNT")
def layout(facts: Facts) -> Verdict:
    """The keys are laid out as this version reads them."""
    found = facts.meta.get("layout")
    if found is None and not any(facts.statuses.values()):
        return green("a fresh prefix")
    if found is None:
        return red("there are runs, but no meta key", "start a worker: it writes the meta key")
    if found != LAYOUT:
        return red(f"layout {found}, this version knows {LAYOUT}", "use the version that wrote it")
    return green(f"layout {found}")


@data.check("key-types", "TYPE")
def key_types(facts: Facts) -> Verdict:
    """The keys that all runs share have their types."""
    if facts.wrong_types:
        key, kind = next(iter(facts.wrong_types.items()))
        return red(
            f"{key} is a {kind}: another program wrote under this prefix",
            "move the other program to a prefix of its own, delete the key, askel reindex",
        )
    return green("as they should be")


@data.check("readable", "ZRANGE", "HGETALL")
def readable(facts: Facts) -> Verdict:
    """Every run that was looked at can be read."""
    damaged = [run.run_id for run in facts.runs if run.problem]
    if damaged:
        why = next(run.problem for run in facts.runs if run.problem)
        return red(f"{some(damaged)} cannot be read: {why}", "askel show RUN; restore or delete it")
    return green(f"{len(facts.runs)} runs looked at")


@data.check("indexes", "ZRANGE", "HGETALL", "ZSCORE")
def indexes(facts: Facts) -> Verdict:
    """The indexes name the runs there are, with the status they have."""
    astray = [f"{run.run_id} ({run.stray})" for run in facts.runs if run.stray]
    if astray:
        return yellow(f"out of step: {some(astray)}", "askel reindex")
    return green("agree with the runs looked at")


@data.check("pikku-schema", "ZRANGE", "HGETALL")
def pikku_schema(facts: Facts) -> Verdict:
    """Runs of the Node package have the fields this version knows."""
    if facts.compat != "pikku":
        return green("not shared with Node (--compat pikku checks it)")
    lacking = [
        f"{run.run_id} lacks {name}"
        for run in facts.runs
        for name in _NEEDED
        if run.fields and name not in run.fields
    ]
    if lacking:
        return red(some(lacking), "this version knows @pikku/redis 0.12.18: use that, or upgrade")
    return green("as @pikku/redis 0.12.18 writes it")


@data.check("payload-sizes", "ZRANGE", "HGETALL")
def payload_sizes(facts: Facts) -> Verdict:
    """No run carries a payload that slows all others."""
    large = max(facts.runs, key=lambda run: run.largest, default=None)
    if large is not None and large.largest > _PAYLOAD:
        return yellow(
            f"{large.run_id} has a payload of {size_text(large.largest)}",
            "store large things elsewhere and pass a reference; or compress: Codec(compress=...)",
        )
    return green(f"the largest is {size_text(large.largest if large else 0)}")


@data.check("history-length", "ZRANGE", "HGETALL", "LLEN")
def history_length(facts: Facts) -> Verdict:
    """No run has a history that is slow to replay."""
    long = max(facts.runs, key=lambda run: run.history, default=None)
    if long is not None and long.history > _HISTORY:
        return yellow(
            f"{long.run_id} has {long.history} entries of history",
            "split the workflow, or start a new run for each round",
        )
    return green(f"the longest has {long.history if long else 0} entries")


@data.check("retention", "ZRANGE", "ZCOUNT", "HGETALL")
def retention(facts: Facts) -> Verdict:
    """Ended runs do not pile up for ever."""
    unlimited = [
        workflow
        for workflow, count in facts.ended.items()
        if count > _ENDED_MANY and workflow not in facts.policies and None not in facts.policies
    ]
    if unlimited:
        return yellow(
            f"ended runs without a policy: {some(sorted(unlimited))}",
            "askel retention set --default --ttl 30d",
        )
    if not facts.policies:
        return green(f"no policy; {sum(facts.ended.values())} ended runs")
    return green(f"{len(facts.policies)} policies")


@data.check("expired-runs", "ZRANGE", "HGETALL", "TIME")
def expired_runs(facts: Facts) -> Verdict:
    """Runs go when their policy says so."""
    late = {}
    for workflow, ended_ms in facts.oldest_ended_ms.items():
        policy = facts.policies.get(workflow) or facts.policies.get(None)
        if policy is None or policy.ttl is None:
            continue
        over = facts.now_ms - ended_ms - int(policy.ttl.total_seconds() * 1_000)
        if over > _GRACE_MS:
            late[workflow] = over
    if late:
        workflow, over = max(late.items(), key=lambda item: item[1])
        return yellow(
            f"runs of {workflow} should have gone {duration_text(over)} ago",
            "start a worker: it applies the policies",
        )
    return green("none")


@data.check("store-id", "HGETALL", "ZCOUNT")
def store_id(facts: Facts) -> Verdict:
    """The store has an id, by which a wiped Redis is told from a new one."""
    if facts.meta.get("store"):
        return green(facts.meta["store"])
    if any(facts.statuses.values()):
        return yellow("there are runs, but no store id", "start a worker: it names the store")
    return green("none yet: the first worker that starts names the store")
