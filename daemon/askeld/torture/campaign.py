"""A whole campaign: a server, a run under torture, the judge, the control, and the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import msgspec

from askeld.embedded import ServerBinary
from askeld.torture.config import TortureConfig
from askeld.torture.figures import (
    OF_WORKERS,
    Begun,
    Figures,
    read_effects,
    read_figures,
    recovery_of_server,
    recovery_of_workers,
)
from askeld.torture.judge import judge
from askeld.torture.report import STALE, FaultReport, Report, guards, spread
from askeld.torture.runner import Torture
from askeld.torture.server import TortureServer
from askeld.torture.verdict import Verdict
from askeld.torture.words import in_words

Show = Callable[[Torture], None]

_MOST_TOLD = 20
_MOST_MISHAPS = 5
#: The control needs no long look: it breaks at the first deaths.
_CONTROL: dict[str, Any] = {
    "mode": "naive",
    "runs": 120,
    "seconds": 6.0,
    "faults": {"kill9": 24, "failpoint": 12},
}
_DELETED_AT_ONCE = 1_000


async def run_campaign(
    config: TortureConfig,
    show: Show,
    *,
    control: bool = True,
    binary: ServerBinary | None = None,
) -> Report:
    """Do all that *config* says and report; with *control* show that the faults would tell.

    A server of ours ends with the campaign; its data and all logs stay in the directory. From a
    Redis of the user's everything under the prefix is removed, unless a promise was broken: then
    the report says what is left. It is removed also when the campaign is cancelled.
    """
    async with _server(config, binary) as server:
        report = await _torture(config, server, show)
        if control and config.mode == "askel":
            report.control = await _control(config, server, show)
            report.failures = [*guards(report)]
    return report


@asynccontextmanager
async def _server(
    config: TortureConfig, binary: ServerBinary | None
) -> AsyncIterator[TortureServer | None]:
    """Provide a server of ours, unless the configuration names one."""
    if config.url:
        yield None
        return
    fsync: Any = config.durability
    server = TortureServer(config.directory / "redis", fsync=fsync, binary=binary)
    await anyio.to_thread.run_sync(server.start)
    try:
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(server.stop)


async def _torture(config: TortureConfig, server: TortureServer | None, show: Show) -> Report:
    torture = Torture(config, config.url if server is None else server.url, server)
    try:
        await torture.run(show)
        # The control's transitions are several commands, on purpose: where they lead is judged.
        has_file = server is not None and config.mode == "askel"
        report = await _report(torture, server.aof if server is not None and has_file else None)
        if config.url and config.mode == "askel" and report.is_broken:
            report.kept = [f"keys {config.prefix}:*, for a look; {removal(config.prefix)}"]
        elif config.url:
            await _clean_up(torture)
    except anyio.get_cancelled_exc_class():
        if config.url:  # nobody will look at what an interrupted campaign left there
            with anyio.CancelScope(shield=True):
                await _clean_up(torture)
        raise
    finally:
        await torture.close()
    return report


async def _control(
    config: TortureConfig, server: TortureServer | None, show: Show
) -> dict[str, Any]:
    """Torture the naive worker by the same seed; return how much of it broke."""
    folder = config.directory / "control"
    folder.mkdir(exist_ok=True)
    control = msgspec.structs.replace(
        config, directory=folder, prefix=f"{config.prefix}-control", stuck_s=5.0, **_CONTROL
    )
    report = await _torture(control, server, show)
    return {
        "runs": report.runs,
        "deaths": report.deaths,
        "violations": report.violations,
        "told": report.told[:3],
    }


async def _report(torture: Torture, aof: Path | None) -> Report:
    config, workers, load = torture.config, torture.workers, torture.load
    verdict = await judge(
        aof,
        torture.client,
        config.prefix,
        torture.log,
        may_lose=config.may_lose,
        max_deliveries=torture.max_deliveries,
    )
    figures = await _figures(torture)
    effects = read_effects(config.directory / "effects.jsonl")
    faults = _faults(torture, figures, effects)
    executed, steps = len(effects), figures.attempts.get("succeeded", 0)
    total_s = torture.load_s + torture.drained_s
    report = Report(
        askel=version("askel"),
        server=await server_name(torture.client),
        seed=config.seed,
        mode=config.mode,
        durability=config.durability if not config.url else "as configured",
        judged_by=verdict.source,
        workers=config.workers,
        runs=load.sent,
        steps=steps,
        seconds=config.seconds,
        load_s=round(torture.load_s, 2),
        drained_s=round(torture.drained_s, 2),
        runs_per_second=round(load.sent / total_s, 1),
        steps_per_second=round(steps / total_s, 1),
        deaths=sum(torture.faults[n].bites for n in ("kill9", "failpoint") if n in faults),
        restarts=len(workers.ended),
        faults=faults,
        skipped=torture.skipped,
        commands={**load.counts, **_commands(verdict)},
        runs_by_status=figures.statuses,
        lost=verdict.lost,
        may_lose=config.may_lose,
        duplicated=verdict.duplicated,
        stuck=torture.stuck,
        attempts=figures.attempts,
        executions=executed,
        re_execution_ratio=round(executed / steps, 3) if steps else 0.0,
        refused_stale_writes={name: workers.stale[name] for name in STALE},
        points={name: workers.points[name] for name in torture.points}
        if "failpoint" in faults
        else {},
        points_planned=torture.points_planned,
        awaits=sum(name.startswith("await") for name in workers.points),
        evaluated=verdict.evaluated,
        violations=sum(verdict.by_kind.values()) + len(figures.wrong_ends),
        violations_by_kind=verdict.by_kind,
        told=[*map(str, verdict.violations[:_MOST_TOLD]), *figures.wrong_ends[:_MOST_TOLD]],
        first_violating_run=verdict.story,
        diagnosis=torture.diagnosis,
        notes=verdict.notes,
        mishaps=mishaps_of(torture),
    )
    report.failures = [*guards(report)]
    return report


async def _figures(torture: Torture) -> Figures:
    middle = (torture.began_ms + time.time_ns() // 1_000_000) // 2
    return await read_figures(
        torture.client,
        torture.config.prefix,
        torture.log,
        around_ms=middle if "clock" in torture.faults else 0,
    )


def _faults(torture: Torture, figures: Figures, effects: Sequence[Begun]) -> dict[str, FaultReport]:
    """Return what became of each fault."""
    recovery = recovery_of_workers(figures.lost, effects, torture.workers.silenced)
    faults = {}
    for name, fault in torture.faults.items():
        seconds = recovery.get(name, [])
        if name not in OF_WORKERS:
            seconds = recovery_of_server(fault.over_at, figures.times)
        faults[name] = FaultReport(torture.config.faults[name], fault.bites, spread(seconds))
    return faults


def _commands(verdict: Verdict) -> dict[str, int]:
    return {
        "accepted": verdict.accepted,
        "applied": verdict.applied,
        "repeated": verdict.repeated,
        "dead-lettered": verdict.dead_lettered,
        "redelivered": verdict.redelivered,
    }


def mishaps_of(torture: Torture) -> list[str]:
    """Return what workers said that nobody expects of them, once for each kind."""
    ended, errors = torture.workers.ended, torture.config.directory / "workers.err"
    told = []
    if ended:
        told.append(f"{len(ended)} workers ended by themselves and were replaced: {ended[0]}")
        words = Counter(errors.read_text(errors="replace").splitlines())
        told += [f"{count} x {line:.300}" for line, count in words.most_common(_MOST_MISHAPS)]
    kinds = {str(line["event"]): in_words(line) for line in torture.workers.mishaps}
    return told + list(kinds.values())[:_MOST_MISHAPS]


async def server_name(client: Any) -> str:
    """Return what the server calls itself, and its version."""
    facts = await client.info("server")
    name, number = (
        ("valkey", facts.get("valkey_version"))
        if "valkey_version" in facts
        else (
            "redis",
            facts["redis_version"],
        )
    )
    return f"{name} {number}"


def removal(prefix: str) -> str:
    """Say how to remove what is left under *prefix*, which no other campaign has."""
    scan = f"redis-cli --scan --pattern '{prefix}*'"
    return f"remove them with: {scan} | xargs -r redis-cli UNLINK (both with -u and that Redis)"


async def _clean_up(torture: Torture) -> None:
    """Remove everything under the prefix, by small steps; the workers have ended."""
    client, pattern = torture.client, f"{torture.config.prefix}:*"
    batch = []
    async for key in client.scan_iter(pattern, count=_DELETED_AT_ONCE):
        batch.append(key)
        if len(batch) >= _DELETED_AT_ONCE:
            await client.unlink(*batch)
            batch.clear()
    if batch:
        await client.unlink(*batch)
