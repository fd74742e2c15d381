"""Reindexing: the indexes brought into agreement with the hashes, whoever wrote those.

The one place where keys are scanned. It works beside writers: what is found is verified and mended
by small scripts, each of which looks at the hash at that moment.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from askel.errors import InvalidNameError, StoreReplyError
from askel.names import check_run_id
from askel.state.keys import Keys
from askel.state.protocol.caller import Word
from askel.state.protocol.turns import Answer
from askel.state.store.scripts import Scripts

T = TypeVar("T")

_SCANNED = 1_000
_AT_ONCE = 100
_GLOB = re.compile(r"[\\*?\[\]^-]")
#: Kinds of keys that only make sense beside the hash of their run.
_BELONGINGS = frozenset({"ctl", "history", "steps", "run-state"})


class ReindexReport(msgspec.Struct):
    """What was found and mended; where nothing was to be written, what would have been.

    Attributes:
        runs: Runs seen. One may be counted twice while the server's table of keys is growing.
        indexed: Runs that were in no index.
        moved: Runs that were missing from some index, or stood in the wrong place in it.
        dropped: Index entries removed: of runs that are gone, or under a wrong status or workflow,
            and names of workflows without runs.
        steps: Steps added to the step index of their run; hashes without a step id are none.
        orphans: Keys removed that were left of runs that are gone.
        unreadable: Runs whose hash is damaged: they are listed among all runs, in no other index.
    """

    runs: int = 0
    indexed: int = 0
    moved: int = 0
    dropped: int = 0
    steps: int = 0
    orphans: int = 0
    unreadable: list[str] = []
    dry_run: bool = False

    @property
    def repairs(self) -> int:
        """How many things were not as they should be."""
        return self.indexed + self.moved + self.dropped + self.steps + self.orphans


class Found(msgspec.Struct):
    """The keys of one batch of the scan, sorted by what they are."""

    runs: list[str] = []
    steps: list[tuple[str, str]] = []
    leftovers: dict[str, list[str]] = {}
    indexes: list[str] = []


class Reindexing:
    """One pass over all keys of a prefix."""

    def __init__(
        self,
        scripts: Scripts,
        keys: Keys,
        *,
        dry_run: bool,
        patience_s: float,
        progress: Callable[[ReindexReport], None] | None,
    ) -> None:
        """Look at the keys of *keys*, and mend unless *dry_run*."""
        self._scripts = scripts
        self._keys = keys
        self._dry = "1" if dry_run else "0"
        self._patience_s = patience_s
        self._progress = progress
        self._counted: set[str] = set()
        self.report = ReindexReport(dry_run=dry_run)

    async def run(self) -> ReindexReport:
        """Scan once, then finish what needs all of it."""
        nameless: dict[str, list[str]] = defaultdict(list)
        indexes: set[str] = set()
        async for batch in self._scan():
            found = sorted_by_kind(self._keys.prefix, batch)
            await self._index(found.runs)
            await self._drop_leftovers(found)
            for run_id, name in await self._not_named(found.steps):
                nameless[run_id].append(name)
            indexes.update(found.indexes)
            self._tell()
        for run_id, names in nameless.items():
            await self._name_steps(run_id, list(dict.fromkeys(names)))
        for suffix in sorted(indexes):
            await self._prune(suffix)
            self._tell()
        return self.report

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.report)

    async def _scan(self) -> AsyncIterator[list[bytes]]:
        pattern = _GLOB.sub(r"\\\g<0>", self._keys.prefix) + ":*"
        cursor: Any = 0
        while True:
            cursor, batch = await self._fetch("SCAN", cursor, "MATCH", pattern, "COUNT", _SCANNED)
            if batch:
                yield batch
            if cursor == b"0":
                return

    async def _index(self, run_ids: list[str]) -> None:
        for part in parts(run_ids, _AT_ONCE):
            keys = [self._keys.runs, self._keys.run("")]
            letters = (await self._ask("index_runs", keys, [self._dry, *part]))[1].decode()
            self.report.runs += len(letters) - letters.count("g")
            self.report.indexed += letters.count("n")
            self.report.moved += letters.count("m")
            self.report.unreadable += [
                run_id
                for run_id, letter in zip(part, letters, strict=True)
                if letter == "d" and run_id not in self.report.unreadable
            ]

    async def _drop_leftovers(self, found: Found) -> None:
        """Remove keys of runs that are gone."""
        strays: dict[str, list[str]] = defaultdict(list)
        for run_id, keys in found.leftovers.items():
            strays[run_id] += keys
        for run_id, name in found.steps:
            strays[run_id].append(self._keys.step(run_id, name))
        for part in parts(list(strays), _AT_ONCE):
            alive = await asyncio.gather(
                *(self._fetch("EXISTS", self._keys.run(run_id)) for run_id in part)
            )
            for run_id, is_alive in zip(part, alive, strict=True):
                if not is_alive and run_id not in self._counted:
                    self.report.orphans += await self._erase(run_id, strays[run_id])

    async def _erase(self, run_id: str, strays: list[str]) -> int:
        k = self._keys
        if self._dry == "1":
            self._counted.add(run_id)  # all its keys are still there when the scan meets another
        named = {*k.run_keys(run_id), k.steps(run_id), k.run_state(run_id)}
        named |= await self._listed_steps(run_id)
        strays = [key for key in dict.fromkeys(strays) if key not in named]
        keys = [*k.run_keys(run_id), *k.step_keys(run_id), *strays]
        answer = await self._ask("erase_orphan", keys, [self._dry])
        return int(answer[1]) if answer[0] == b"OK" else 0

    async def _listed_steps(self, run_id: str) -> set[str]:
        """Return the keys of the steps that the run's step index names."""
        try:
            names = await self._fetch("LRANGE", self._keys.steps(run_id), 0, -1)
        except StoreReplyError:
            return set()  # something else than a list
        return {self._keys.step(run_id, name.decode(errors="replace")) for name in names}

    async def _not_named(self, steps: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return those of the steps that the step index of their run does not name."""
        missing: list[tuple[str, str]] = []
        for part in parts(steps, _AT_ONCE):
            places = await asyncio.gather(
                *(self._fetch("LPOS", self._keys.steps(run_id), name) for run_id, name in part),
                return_exceptions=True,
            )
            for step, place in zip(part, places, strict=True):
                if isinstance(place, BaseException):
                    if not isinstance(place, StoreReplyError):
                        raise place
                    self._note_unreadable(step[0])
                elif place is None:
                    missing.append(step)
        return missing

    async def _name_steps(self, run_id: str, names: list[str]) -> None:
        k = self._keys
        keys = [k.run(run_id), k.steps(run_id), k.step_stem(run_id)]
        answer = await self._ask("index_steps", keys, [self._dry, *names])
        if answer[0] == b"OK":
            self.report.steps += answer[1]

    async def _prune(self, suffix: str) -> None:
        """Look at every entry of one index."""
        kind, _, rest = suffix.partition(":")
        status, workflow = "", ""
        if kind == "workflow-status":
            status, _, workflow = rest.partition(":")
        elif kind == "status":
            status = rest
        elif kind == "workflow":
            workflow = rest
        elif kind == "ended":
            status, workflow = "ended", rest
        k = self._keys
        index = f"{k.runs}:{suffix}" if suffix else k.runs
        async for part in self._members(index):
            if kind == "workflows":
                answer = await self._ask("prune_workflows", [k.runs], [self._dry, *part])
            else:
                keys = [index, k.runs, k.run("")]
                args: list[Word] = [self._dry, status, workflow, *part]
                answer = await self._ask("prune_index", keys, args)
            self.report.dropped += answer[1]

    async def _members(self, index: str) -> AsyncIterator[list[bytes]]:
        cursor: Any = 0
        while True:
            cursor, flat = await self._fetch("ZSCAN", index, cursor, "COUNT", _SCANNED)
            for part in parts(flat[::2], _AT_ONCE):
                yield list(part)
            if cursor == b"0":
                return

    def _note_unreadable(self, run_id: str) -> None:
        if run_id not in self.report.unreadable:
            self.report.unreadable.append(run_id)

    async def _fetch(self, *command: Any) -> Any:
        return await self._scripts.fetch(*command, patience_s=self._patience_s)

    async def _ask(self, name: str, keys: list[str], args: Sequence[Word]) -> Answer:
        answer, _ = await self._scripts.insist(name, keys, args, patience_s=self._patience_s)
        return answer


class RunReindexing:
    """The method of the state service that rebuilds the indexes."""

    keys: Keys
    scripts: Scripts
    resend_s: float

    async def reindex(
        self,
        *,
        dry_run: bool = False,
        progress: Callable[[ReindexReport], None] | None = None,
    ) -> ReindexReport:
        """Bring every index into agreement with the hashes of the runs; report what was mended.

        For runs that others wrote beside this library, and after damage. All keys of this Redis
        are scanned, in batches, while others go on working; nothing outside of the prefix is
        looked at or touched. Also gives runs their step index, and removes what was left of runs
        that others deleted. A second pass finds nothing to mend.

        Args:
            dry_run: Write nothing; report what would be.
            progress: Told of the report so far after each batch.
        """
        pass_ = Reindexing(
            self.scripts,
            self.keys,
            dry_run=dry_run,
            patience_s=self.resend_s,
            progress=progress,
        )
        return await pass_.run()


def sorted_by_kind(prefix: str, batch: Sequence[bytes]) -> Found:
    """Return the keys of *batch* by what they are; those of other prefixes are left out. Pure.

    A run id has no colon, so that ``app:x:run:r`` is a key of the prefix ``app:x``, not of ``app``.
    """
    found = Found()
    for key in batch:
        try:
            kind, _, rest = key.decode().removeprefix(f"{prefix}:").partition(":")
        except UnicodeDecodeError:
            continue
        if kind == "runs":
            if rest.partition(":")[0] not in {"deleted", "usage"}:
                found.indexes.append(rest)
            continue
        run_id, _, name = rest.partition(":")
        if not _is_run_id(run_id):
            continue
        if kind == "run" and rest == run_id:
            found.runs.append(run_id)
        elif kind == "step" and rest != run_id:
            found.steps.append((run_id, name))
        elif (kind in _BELONGINGS and rest == run_id) or (kind == "step-history" and ":" in name):
            found.leftovers.setdefault(run_id, []).append(key.decode())
    return found


def _is_run_id(text: str) -> bool:
    try:
        check_run_id(text)
    except InvalidNameError:
        return False
    return True


def parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Return *items* in pieces of at most *size*."""
    return [items[i : i + size] for i in range(0, len(items), size)]
