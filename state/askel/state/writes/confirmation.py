"""Confirming runs of a higher durability: for whoever is told of them, and afterwards."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from askel.errors import NotConfirmedError, RunNotFoundError, StoreUnsafeError
from askel.names import check_run_id
from askel.state.codec import Codec
from askel.state.durability import Confirmer, Durability, as_durability
from askel.state.keys import Keys
from askel.state.models import WorkflowRun, from_ms
from askel.state.reads.records import fields_of, read_run
from askel.state.store.scripts import Scripts

_PAGE = 100


class RunConfirmation:
    """Confirming one run, and asking whether it is."""

    keys: Keys
    codec: Codec
    scripts: Scripts
    confirmer: Confirmer
    resend_s: float

    async def confirm_run(
        self, run_id: str, durability: Durability | str | None = None
    ) -> WorkflowRun:
        """Return the run as it stands, once all that is recorded of it so far is confirmed.

        Args:
            run_id: The run.
            durability: ``fsync`` or ``replicated(n)``; what the run was created with by default.
                A run without one is returned as it stands.

        Raises:
            NotConfirmedError: It may yet be lost. Call again later, or look whether it is there.
            RunNotFoundError: There is no such run: never was, or no longer.
            StoreUnsafeError: This server can never confirm it.
        """
        return read_run(await confirmed_fields(self, run_id, durability), self.codec)

    async def unconfirmed_since(self, run_id: str) -> datetime | None:
        """Return since when something of the run waits for its confirmation, None if nothing does.

        A run without a higher durability never waits.
        """
        # Not ZSCORE: those who may only look are allowed this one.
        (mark,) = await self.scripts.fetch(
            "ZMSCORE", self.keys.unconfirmed, check_run_id(run_id), patience_s=self.resend_s
        )
        return None if mark is None else from_ms(int(float(mark)))


async def confirmed_fields(
    service: RunConfirmation, run_id: str, durability: Durability | str | None = None
) -> dict[str, bytes]:
    """Return the run's hash once it is confirmed; ``RunConfirmation.confirm_run`` says more."""
    key, fetch = service.keys.run(check_run_id(run_id)), service.scripts.fetch
    stored, mark = await asyncio.gather(
        fetch("HGET", key, "durability", patience_s=service.resend_s),
        fetch("ZSCORE", service.keys.unconfirmed, run_id, patience_s=service.resend_s),
    )
    declared = (stored or b"").decode()
    level = as_durability(durability or declared)
    if level:
        flat = await service.confirmer.read(level, f"run {run_id!r}", "HGETALL", key)
    else:
        flat = await fetch("HGETALL", key, patience_s=service.resend_s)
    fields = fields_of(flat)
    if "id" not in fields:
        raise RunNotFoundError(run_id)
    if level and mark is not None and str(level) == declared:
        await take_marks_off(service.scripts, service.keys, [run_id, mark])
    return fields


async def take_marks_off(scripts: Scripts, keys: Keys, marks: Sequence[str | bytes]) -> int:
    """Take the marks off runs that were confirmed since these were read; return how many went.

    *marks* are run ids, each with its mark behind it.
    """
    answer = await scripts.run("confirmed", [keys.runs], marks)
    return int(answer[1])


class Confirmed(NamedTuple):
    """What one pass over the marks came to: runs confirmed, runs that wait on, and why."""

    done: int = 0
    left: int = 0
    why: str = ""


class Unconfirmed:
    """Confirms, a page at a time, whatever is still marked: what daemons do for all runs."""

    def __init__(self, scripts: Scripts, keys: Keys, confirmer: Confirmer) -> None:
        """Read marks and take them off by *scripts*, confirm by *confirmer*."""
        self._scripts = scripts
        self._keys = keys
        self._confirmer = confirmer
        self._after = "-inf"

    async def run_once(self) -> Confirmed:
        """Confirm the next page of runs; after the last page comes the first again."""
        flat = await self._scripts.fetch(
            "ZRANGEBYSCORE", self._keys.unconfirmed, self._after, "+inf",
            "WITHSCORES", "LIMIT", 0, _PAGE, patience_s=0,
        )  # fmt: skip
        marks = dict(zip(flat[::2], flat[1::2], strict=True))
        self._after = f"({flat[-1].decode()}" if len(marks) == _PAGE else "-inf"
        fetch, key = self._scripts.fetch, self._keys.run
        levels = await asyncio.gather(
            *(fetch("HGET", key(run.decode()), "durability", patience_s=0) for run in marks)
        )
        by_level: dict[str, list[bytes]] = defaultdict(list)
        for (run, mark), level in zip(marks.items(), levels, strict=True):
            by_level[(level or b"").decode()] += [run, mark]
        done, why = 0, ""
        for level, words in by_level.items():
            try:
                await self._confirm(as_durability(level))
            except (NotConfirmedError, StoreUnsafeError) as error:
                why = str(error).partition(" (it was applied")[0]
                continue
            done += await take_marks_off(self._scripts, self._keys, words)
        return Confirmed(done, len(marks) - done, why)

    async def _confirm(self, level: Durability) -> None:
        if level:  # else the run is gone, and its mark goes, too
            await self._confirmer.read(level, f"what is marked {level}", "ZCARD", self._keys.runs)
