"""A whole soak: a server, workers, load and faults, the judge, the report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import anyio

from askel import InvalidOptionError
from askeld.embedded import ServerBinary
from askeld.torture.campaign import mishaps_of, server_name
from askeld.torture.judge import judge
from askeld.torture.server import TortureServer
from askeld.torture.soak.config import SoakConfig
from askeld.torture.soak.report import FaultCount, SoakReport, guards
from askeld.torture.soak.runner import Soak
from askeld.torture.verdict import Verdict

Show = Callable[[Soak], None]

_MOST_TOLD = 20


async def run_soak(
    config: SoakConfig, show: Show, *, binary: ServerBinary | None = None
) -> SoakReport:
    """Do all that *config* says on a server of ours, and report.

    Raises:
        InvalidOptionError: This system does not tell what a process holds.
    """
    if sys.platform != "linux":
        msg = f"the soak reads /proc, which {sys.platform} does not have: run it on Linux"
        raise InvalidOptionError(msg)
    askel = version("askel")
    server = TortureServer(config.directory / "redis", fsync="everysec", binary=binary)
    await anyio.to_thread.run_sync(server.start)
    try:
        soak = Soak(config, server)
        try:
            aof = await soak.run(show)
            show(soak)
            return await _report(soak, aof, askel)
        finally:
            await soak.close()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(server.stop)


async def _report(soak: Soak, aof: Path, askel: str) -> SoakReport:
    config, torture, load, sampler = soak.config, soak.torture, soak.load, soak.sampler
    assert sampler is not None
    prefix = config.torture.prefix
    verdict = await judge(aof, torture.client, prefix, torture.log)
    report = SoakReport(
        askel=askel,
        server=await server_name(torture.client),
        seed=config.seed,
        mode=config.mode,
        seconds=config.seconds,
        rate=config.rate,
        every_s=config.every_s,
        workers=config.workers,
        long_lived=soak.long_lived,
        keep_s=config.keep_s,
        warm_up_s=config.warm_up_s,
        sample_s=config.sample_s,
        settings=config.settings,
        load_s=round(soak.load_s, 1),
        drained_s=round(soak.drained_s, 1),
        commands_per_second=round(load.counts["accepted"] / soak.load_s, 1),
        runs=load.sent,
        faults={n: FaultCount(soak.struck[n], fault.bites) for n, fault in soak.faults.items()},
        compactions=soak.compactions,
        samples=sampler.taken,
        samples_missed=sampler.missed,
        trends=sampler.trends(config.warm_up_s, soak.load_s),
        errors=dict(sampler.errors.most_common()),
        commands={**load.counts, **_commands(verdict)},
        runs_left_by_status=verdict.by_status,
        runs_deleted=verdict.deleted,
        attempts=verdict.attempts,
        attempts_lost=verdict.attempts_lost,
        lost=verdict.lost,
        duplicated=verdict.duplicated,
        stuck=soak.stuck,
        evaluated=verdict.evaluated,
        violations=sum(verdict.by_kind.values()),
        violations_by_kind=verdict.by_kind,
        told=[str(one) for one in verdict.violations[:_MOST_TOLD]],
        first_violating_run=verdict.story,
        diagnosis=soak.diagnosis,
        notes=verdict.notes,
        mishaps=mishaps_of(torture),
        deaths=soak.deaths,
    )
    report.failures = [*guards(report)]
    return report


def _commands(verdict: Verdict) -> dict[str, int]:
    return {
        "applied": verdict.applied,
        "repeated": verdict.repeated,
        "dead-lettered": verdict.dead_lettered,
        "redelivered": verdict.redelivered,
        "unsettled": verdict.unsettled,
    }
