"""The read side: listing runs and steps from the indexes, never by scanning keys."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import msgspec

from askel.errors import InvalidOptionError
from askel.names import check_run_id
from askel.state.arguments import as_status
from askel.state.connection import Connection
from askel.state.keys import Keys
from askel.state.models import RunStatus, StepState, WorkflowRun
from askel.state.records import fields_of, read_run, read_step

MAX_PAGE = 1_000


class RunPage(msgspec.Struct, frozen=True):
    """One page of runs, newest first.

    ``cursor`` continues after the last of them; None where there are no more. ``unreadable`` names
    runs whose record is damaged: they are left out, the others are returned.
    """

    runs: list[WorkflowRun]
    cursor: str | None = None
    unreadable: list[str] = []


class RunQueries:
    """Reading methods of the state service; each costs its page, whatever else is in Redis."""

    keys: Keys
    connection: Connection

    async def list_runs(
        self,
        *,
        workflow_name: str | None = None,
        status: RunStatus | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Return a page of runs by time of creation, newest first.

        Args:
            workflow_name: Only runs of this workflow.
            status: Only runs that have this status now.
            since: Only runs created at this time or later.
            until: Only runs created before this time.
            limit: Most runs to return, 1 to 1000.
            cursor: Of the page before.

        Raises:
            InvalidOptionError: *limit*, *status* or *cursor* make no sense.
        """
        if not 1 <= limit <= MAX_PAGE:
            msg = f"limit={limit}: give 1 to {MAX_PAGE}"
            raise InvalidOptionError(msg)
        wanted = None if status is None else as_status(RunStatus, status)
        if wanted is not None:
            index = self.keys.runs_by_status(wanted)
        elif workflow_name is not None:
            index = self.keys.runs_by_workflow(workflow_name)
        else:
            index = self.keys.runs
        low = "-inf" if since is None else str(int(since.timestamp() * 1_000))
        high = "+inf" if until is None else f"({int(until.timestamp() * 1_000)}"
        page = RunPage([], None, [])
        place = _read_cursor(cursor)
        while True:
            batch = await self._members(index, low, high, place, limit)
            records = await self._records([run_id for run_id, _ in batch])
            for (run_id, score), flat in zip(batch, records, strict=True):
                place = (score, run_id)
                run = _readable(flat, run_id, page.unreadable)
                if run is None or (workflow_name is not None and run.workflow != workflow_name):
                    continue
                if wanted is not None and run.status is not wanted:
                    continue  # it moved on since the index was read
                page.runs.append(run)
                if len(page.runs) == limit:
                    return RunPage(page.runs, f"{score}:{run_id}", page.unreadable)
            if len(batch) < limit:
                return page

    async def get_run_steps(self, run_id: str) -> list[StepState]:
        """Return the steps of the run as they stand, in the order in which they were created."""
        names = [
            name.decode()
            for name in await self.connection.send(
                "LRANGE", self.keys.steps(check_run_id(run_id)), 0, -1
            )
        ]
        return [step for step in await self._read_steps(run_id, names) if step is not None]

    async def _read_steps(self, run_id: str, names: list[str]) -> list[StepState | None]:
        """Return the steps called *names*, None for one that there is not."""
        keys = [self.keys.step(run_id, name) for name in names]
        records = await asyncio.gather(*(self.connection.send("HGETALL", key) for key in keys))
        return [
            read_step(name, fields_of(flat)) if flat else None
            for name, flat in zip(names, records, strict=True)
        ]

    async def _members(
        self, index: str, low: str, high: str, place: tuple[int, str] | None, count: int
    ) -> list[tuple[str, int]]:
        """Return up to *count* (run id, time) of the index that come after *place*.

        Runs of one millisecond stand in the order of their ids, so that a place is exact.
        """
        found: list[tuple[str, int]] = []
        offset = 0
        top = high if place is None else str(place[0])
        while len(found) < count:
            flat: Sequence[bytes] = await self.connection.send(
                "ZREVRANGEBYSCORE", index, top, low, "WITHSCORES", "LIMIT", offset, count
            )
            pairs = [(flat[i].decode(), int(float(flat[i + 1]))) for i in range(0, len(flat), 2)]
            found += [
                (run_id, score)
                for run_id, score in pairs
                if place is None or (score, run_id) < place
            ]
            offset += count
            if len(pairs) < count:
                break
        return found[:count]

    async def _records(self, run_ids: list[str]) -> list[Sequence[bytes]]:
        send = self.connection.send
        keys = [self.keys.run(run_id) for run_id in run_ids]
        return list(await asyncio.gather(*(send("HGETALL", key) for key in keys)))


def _read_cursor(cursor: str | None) -> tuple[int, str] | None:
    if cursor is None:
        return None
    score, _, run_id = cursor.partition(":")
    if not score.isdigit() or not run_id:
        msg = f"cursor {cursor!r} is not one that list_runs returned"
        raise InvalidOptionError(msg)
    return int(score), run_id


def _readable(flat: Sequence[bytes], run_id: str, unreadable: list[str]) -> WorkflowRun | None:
    if not flat:
        return None  # deleted since the index was read
    try:
        return read_run(fields_of(flat))
    except (KeyError, ValueError, msgspec.MsgspecError):
        unreadable.append(run_id)
        return None
