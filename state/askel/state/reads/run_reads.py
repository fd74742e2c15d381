"""Reading one run whole: its hash, its history and its steps, in one round trip.

A run of up to a thousand steps costs one script call, whatever else lives in that Redis; beyond
that, and where payloads make a reply large, further calls read on from where the first stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from askel.errors import DamagedRecordError
from askel.names import check_run_id
from askel.state.codec import Codec
from askel.state.keys import Keys
from askel.state.models import StepAttempt
from askel.state.pikku.reading import (
    Fetch,
    by_creation,
    real_steps,
    step_names,
    variables_of,
    with_foreign_entries,
)
from askel.state.protocol.caller import Word
from askel.state.protocol.turns import Answer
from askel.state.reads.history import (
    HistoryEntry,
    completed,
    decode_entries,
    fold_attempts,
    is_complete,
)
from askel.state.reads.records import fields_of, read_run, read_step
from askel.state.reads.reports import RunStatusReport, build_report
from askel.state.reads.timeline import RunStateAt, RunTimeline, build_timeline, reconstruct_state_at
from askel.state.store.connection import Connection
from askel.state.store.scripts import Scripts

#: Steps that are read in one round trip.
STEPS_AT_ONCE = 1_000

StepHash = dict[str, bytes]


class WholeRun(msgspec.Struct, frozen=True):
    """A run at one moment: its hash, its history, the attempts that history tells of."""

    fields: dict[str, bytes]
    entries: list[HistoryEntry]
    attempts: list[StepAttempt]


class StepReads:
    """Reading the hashes of a run's steps."""

    keys: Keys
    connection: Connection
    scripts: Scripts
    resend_s: float
    codec: Codec
    compat: str | None = None

    async def _read_step_hashes(
        self, run_id: str, fields: Sequence[str] = (), names: Sequence[str] | None = None
    ) -> dict[str, StepHash]:
        """Return the hashes of the run's steps by name, in order of creation.

        Args:
            run_id: The run.
            fields: Only these fields, the first of which every step has; all without any.
            names: Only these steps, in this order; those that there are not are left out.
        """
        if not self.compat:
            return await self._read_known_hashes(run_id, fields, names)
        known = await step_names(self._fetch, self.keys, run_id) if names is None else names
        wanted = ("stepId", "createdAt", *fields) if fields else ()
        steps = real_steps(await self._read_known_hashes(run_id, wanted, known))
        return by_creation(steps) if names is None else steps

    async def _read_known_hashes(
        self, run_id: str, fields: Sequence[str], names: Sequence[str] | None
    ) -> dict[str, StepHash]:
        found: dict[str, StepHash] = {}
        keys = [self.keys.steps(run_id), self.keys.step_stem(run_id)]
        place = 0
        while place >= 0:
            part = () if names is None else names[place : place + STEPS_AT_ONCE]
            if names is not None and not part:
                break
            first = place if names is None else 0
            answer = await self._ask_again(
                "read_steps",
                keys,
                [first, first + STEPS_AT_ONCE - 1, ",".join(fields), *part],
            )
            found |= _hashes(answer[2], fields)
            reached = answer[1]
            if names is not None:
                reached = place + (len(part) if reached < 0 else reached)
            place = reached
        return found

    @property
    def _fetch(self) -> Fetch:
        return partial(self.scripts.fetch, patience_s=self.resend_s)

    async def _ask_again(self, name: str, keys: list[str], args: Sequence[Word]) -> Answer:
        """Return the answer of a script that only reads, asked again after a lost connection."""
        answer, _ = await self.scripts.insist(name, keys, args, patience_s=self.resend_s)
        return answer


class RunReads(StepReads):
    """The methods that read one run whole."""

    async def get_run_history(self, run_id: str) -> list[StepAttempt]:
        """Return one record per attempt of each step, in the order in which they began.

        Read from the history; what it does not say yet of a step whose first attempt is still
        open (its data and options) is taken from the step. An unknown run has none.
        """
        whole = await self._read_whole(run_id)
        return [] if whole is None else whole.attempts

    async def get_history_entries(self, run_id: str) -> list[HistoryEntry]:
        """Return everything that happened to the run, in order, as it was recorded."""
        _, entries, _ = await self._read_parts(check_run_id(run_id), 0)
        return entries

    async def get_run_state(self, run_id: str) -> dict[str, Any]:
        """Return the run's variables as they are now. An unknown run has none."""
        send, k = self._fetch, self.keys
        state = send("HGETALL", k.run_state(check_run_id(run_id)))
        if not self.compat:
            texts = fields_of(await state)
        else:
            flat, blob = await asyncio.gather(state, send("HGET", k.run(run_id), "state"))
            texts = variables_of({"state": blob or b""}, fields_of(flat))
        return {name: self.codec.decode(text) for name, text in texts.items()}

    async def get_run_status(self, run_id: str) -> RunStatusReport | None:
        """Return where the run and each of its steps stand, or None when there is no such run.

        Run and steps are of one and the same moment.
        """
        whole = await self._read_whole(run_id)
        if whole is None:
            return None
        return build_report(read_run(whole.fields, self.codec), whole.entries, whole.attempts)

    async def get_run_timeline(self, run_id: str) -> RunTimeline | None:
        """Return all that happened to the run, in order, or None when there is no such run."""
        whole = await self._read_whole(run_id)
        if whole is None:
            return None
        return build_timeline(run_id, whole.entries, whole.attempts, self.codec)

    async def reconstruct_run_state_at(
        self, run_id: str, at: int | datetime | None = None
    ) -> RunStateAt | None:
        """Return the run as it stood at the event or time *at*, inclusive; None: now.

        Returns:
            Steps, variables, signals and approvals as they were; None when there is no such run.

        Raises:
            InvalidOptionError: *at* is neither the seq of an event nor a time with its zone.
        """
        timeline = await self.get_run_timeline(run_id)
        return None if timeline is None else reconstruct_state_at(timeline, at)

    async def _read_whole(self, run_id: str) -> WholeRun | None:
        fields, entries, open_steps = await self._read_parts(check_run_id(run_id), STEPS_AT_ONCE)
        if "id" not in fields:  # others leave fields without a run
            return None
        if self.compat:
            entries = await with_foreign_entries(self, run_id, fields, entries)
        attempts = fold_attempts(run_id, entries, self.codec)
        incomplete = dict.fromkeys(
            attempt.step_name for attempt in attempts if not is_complete(attempt)
        )
        # A step that was closed since the history was read is open as that history has it.
        missing = [name for name in incomplete if name not in open_steps]
        if missing:
            open_steps |= await self._read_step_hashes(run_id, names=missing)
        states = {
            name: read_step(name, open_steps[name], self.codec)
            for name in incomplete
            if name in open_steps
        }
        attempts = [
            completed(attempt, states[attempt.step_name])
            if attempt.step_name in states
            else attempt
            for attempt in attempts
        ]
        return WholeRun(fields, entries, attempts)

    async def _read_parts(
        self, run_id: str, steps: int
    ) -> tuple[dict[str, bytes], list[HistoryEntry], dict[str, StepHash]]:
        """Return the hash of the run, its history, and its open steps as far as they were read.

        All are empty when there is no such run. The history ends where it ended at the moment of
        which the hash is, in however many parts it was read.
        """
        k = self.keys
        keys = [k.run(run_id), k.history(run_id), k.steps(run_id), k.step_stem(run_id)]
        while True:
            first = await self._ask_again("read_run", keys, [0, -1, steps])
            if first[0] == b"NOTFOUND":
                return {}, [], {}
            total, flat, items, open_flat = first[1:]
            fields = fields_of(flat)
            while len(items) < total:
                answer = await self._ask_again("read_run", keys, [len(items), total - 1, 0])
                if answer[0] == b"NOTFOUND":
                    return {}, [], {}  # it was deleted meanwhile
                if fields_of(answer[2]).get("createdAt") != fields.get("createdAt"):
                    break  # another run has the id now: read that one
                items += answer[3]
            else:
                return fields, _entries(run_id, items), _hashes(open_flat)


def _entries(run_id: str, items: Sequence[bytes]) -> list[HistoryEntry]:
    """Return the entries; raise DamagedRecordError for one that is none."""
    try:
        return decode_entries(items)
    except (msgspec.MsgspecError, ValueError) as error:
        kind = type(error).__name__
    raise DamagedRecordError(f"the history of run {run_id!r}", f"an entry is none ({kind})")


def _hashes(flat: Sequence[Any], fields: Sequence[str] = ()) -> dict[str, StepHash]:
    """Return hashes by name from names and hashes in turn: whole ones, or values of *fields*."""
    pairs = ((flat[i].decode(), flat[i + 1]) for i in range(0, len(flat), 2))
    if not fields:
        return {name: fields_of(values) for name, values in pairs}
    return {
        name: {
            field: value for field, value in zip(fields, values, strict=True) if value is not None
        }
        for name, values in pairs
    }
