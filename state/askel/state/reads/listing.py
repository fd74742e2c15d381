"""Listing runs: a page in one round trip, from an index, whatever else is in Redis."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from askel.errors import AskelError, InvalidOptionError
from askel.names import check_name
from askel.state.arguments import as_status
from askel.state.codec import Codec
from askel.state.keys import Keys
from askel.state.models import RunStatus, WorkflowRun
from askel.state.reads.records import fields_of, read_ms, read_run
from askel.state.store.scripts import Scripts

MAX_PAGE = 1_000
#: How many entries beyond a page's size are looked at for runs that are to be shown.
_REACH = 1_000
_SCORE = re.compile(r"[0-9.e+-]{1,24}|-?inf")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: What reading a damaged record may raise.
DAMAGED = (KeyError, ValueError, OverflowError, OSError, RecursionError, AskelError)


class RunPage(msgspec.Struct, frozen=True):
    """One page of runs, newest first.

    ``cursor`` continues after the last of them; None where there are no more. With a cursor a page
    may hold fewer runs than asked for, even none: where many entries of the index are out of date,
    or the runs are large. ``unreadable`` names runs whose record is damaged: they are left out,
    the others are returned.
    """

    runs: list[WorkflowRun]
    cursor: str | None = None
    unreadable: list[str] = []


class RunListing:
    """Methods of the state service that look into the indexes; nothing is written."""

    keys: Keys
    codec: Codec
    scripts: Scripts
    resend_s: float

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

        One round trip, whose cost is that of the page. A run that exists throughout stands on one
        page exactly, however many are created, changed and deleted between the pages; one that
        no longer matches when its page is read is not on it.

        Args:
            workflow_name: Only runs of this workflow.
            status: Only runs that have this status now.
            since: Only runs created at this time or later.
            until: Only runs created before this time.
            limit: Most runs to return, 1 to 1000.
            cursor: Of the page before.

        Raises:
            InvalidOptionError: *limit*, *status*, *cursor* or a time without zone make no sense.
        """
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_PAGE:
            msg = f"limit={limit!r:.80}: give 1 to {MAX_PAGE}"
            raise InvalidOptionError(msg)
        wanted = None if status is None else as_status(RunStatus, status)
        if workflow_name is not None:
            check_name(workflow_name, "workflow name")
        score, after = ("", b"") if cursor is None else _read_cursor(cursor)
        answer, _ = await self.scripts.insist(
            "list_runs",
            [self._index(workflow_name, wanted), self.keys.run("")],
            [
                "-inf" if since is None else _first_ms(since, "since"),
                "" if until is None else _first_ms(until, "until"),
                score,
                after,
                wanted or "",
                workflow_name or "",
                limit,
                limit + _REACH,
            ],
            patience_s=self.resend_s,
        )
        _, more, reached, last, found = answer
        page = RunPage([], f"{reached.decode()}:{quote_from_bytes(last)}" if more else None, [])
        for i in range(0, len(found), 2):
            run = _readable(found[i], found[i + 1], self.codec)
            if run is None:
                page.unreadable.append(found[i].decode(errors="backslashreplace"))
            else:
                page.runs.append(run)
        return page

    async def get_distinct_workflow_names(self) -> list[str]:
        """Return the names of all workflows that have runs, sorted."""
        names = await self.scripts.fetch(
            "ZRANGE", self.keys.workflows, 0, -1, patience_s=self.resend_s
        )
        return sorted(name.decode(errors="backslashreplace") for name in names)

    def _index(self, workflow: str | None, status: RunStatus | None) -> str:
        if workflow is None:
            return self.keys.runs if status is None else self.keys.runs_by_status(status)
        if status is None:
            return self.keys.runs_by_workflow(workflow)
        return self.keys.runs_by_workflow_and_status(workflow, status)


def _first_ms(moment: datetime, name: str) -> int:
    """Return the first millisecond that is not before *moment*."""
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        msg = f"{name}={moment!r:.80}: give a datetime with its time zone"
        raise InvalidOptionError(msg)
    return -((_EPOCH - moment) // timedelta(milliseconds=1))


def _read_cursor(cursor: str) -> tuple[str, bytes]:
    score, _, member = cursor.partition(":") if isinstance(cursor, str) else ("", "", "")
    if not _SCORE.fullmatch(score) or not member or not _is_number(score):
        msg = f"cursor {cursor!r:.200} is not one that an earlier page ended with"
        raise InvalidOptionError(msg)
    return score, unquote_to_bytes(member)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _readable(member: bytes, flat: Sequence[bytes] | None, codec: Codec) -> WorkflowRun | None:
    """Return the run under this id; None where its record is damaged."""
    if flat is None:
        return None  # something else than a hash
    try:
        fields = fields_of(flat)
        if fields["id"] != member or read_ms(fields["createdAt"]) is None:
            return None
        return read_run(fields, codec)
    except DAMAGED:
        return None
