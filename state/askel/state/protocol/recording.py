"""Recording: applying a delivered command to its run at once, whoever read it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from askel.errors import StoreReplyError
from askel.state import codec
from askel.state.keys import Keys
from askel.state.models import IfExists, RunStatus
from askel.state.moves import run_sources
from askel.state.protocol.caller import GROUP, ProtocolCaller, Word, done, owner_to_nudge
from askel.state.protocol.turns import Entry, Refusal
from askel.state.reads.history import decode_entries

_MOST_WORDS = 200
_OF_DEAD_LETTERS = frozenset({b"reason", b"detail", b"stream", b"entry", b"deliveries", b"at"})


class Terms(NamedTuple):
    """On which terms a run is created.

    ``nonce`` knows a call that names the run, ``policy`` is for a run that exists, ``holder`` the
    lock under which it is to give way.
    """

    nonce: str = ""
    policy: IfExists = IfExists.REJECT
    holder: str = ""


class Recording(ProtocolCaller):
    """The scripts that apply, put back or bury a delivered command. They need no owner."""

    async def record(
        self,
        entry: Entry,
        run_id: str,
        kind: str,
        body: str,
        *,
        command_id: str = "",
        step_name: str = "",
        attempt: int = 1,
        born: str = "",
    ) -> str | Refusal:
        """Append what *entry* says to the run. Returns the owner to nudge (empty: none).

        With *born* only to the run that was created then (ms), not to a later one of the same id.

        Refused with STALE, DUP, NOTFOUND, TERMINAL, GONE or BUSY.
        """
        k = self.keys
        answer = await self._ask(
            "record",
            [
                *k.run_keys(run_id),
                entry.stream,
                k.commands_default,
                k.step(run_id, step_name) if step_name else k.run(run_id),
            ],
            [
                GROUP,
                entry.id,
                self._offset,
                run_id,
                command_id,
                kind,
                step_name,
                attempt,
                body,
                born,
            ],
        )
        return owner_to_nudge(answer, {"STALE", "DUP", "NOTFOUND", "TERMINAL", "GONE"})

    async def settle(
        self,
        entry: Entry | None,
        run_id: str,
        target: RunStatus,
        body: str,
        *,
        outcome: str = "",
        json: bytes = b"",
        command_id: str = "",
    ) -> str | Refusal:
        """Move the run to *target* as *entry* asks. Returns the owner to nudge (empty: none).

        Refused with ALREADY, ILLEGAL, DUP, NOTFOUND, GONE or BUSY.
        """
        k = self.keys
        answer = await self._ask(
            "settle",
            [
                *k.run_keys(run_id),
                entry.stream if entry else k.commands_default,
                k.commands_default,
                k.events,
                k.runs,
            ],
            [
                GROUP,
                entry.id if entry else "",
                self._offset,
                run_id,
                command_id,
                run_sources(target),
                target.value,
                outcome,
                json,
                body,
            ],
        )
        return owner_to_nudge(answer, {"ALREADY", "ILLEGAL", "DUP", "NOTFOUND", "GONE"})

    async def create(
        self,
        entry: Entry,
        run_id: str,
        workflow: str,
        text: bytes,
        body: str,
        *,
        policy: IfExists = IfExists.REJECT,
        durability: str = "",
    ) -> Refusal | None:
        """Create the run that a ``run.create`` asks for.

        Refused with EXISTS, CONFLICT, GONE or BUSY.
        """
        answer = await self._ask(
            *create_call(
                self.keys,
                run_id,
                workflow,
                text,
                body,
                offset=self._offset,
                entry=entry,
                terms=Terms(policy=policy),
                fields=("durability", durability) if durability else (),
            )
        )
        return done(answer, {"EXISTS", "CONFLICT", "GONE"})

    async def put_back(
        self,
        entry: Entry,
        words: Sequence[str | bytes],
        *,
        due: str = "",
        timer: bytes = b"",
        run_id: str = "",
    ) -> bool:
        """Send *entry* again with the fields *words*; False if it was no longer pending.

        Of the token of a run only the run's id and its tries go back, as ``run.advance``.

        Args:
            entry: What goes back.
            words: Its fields from now on.
            due: When it is to come back (ms of the server's clock, or ``+ms``); empty: now.
            timer: The delayed command, needed with *due*.
            run_id: The run whose token it may be; the token is then named anew.
        """
        k = self.keys
        answer = await self._ask(
            "put_back",
            [entry.stream, k.timers, k.ctl(run_id)],
            [GROUP, entry.id, self._offset, due, timer, run_id, *words],
        )
        return done(answer, {"GONE"}) is None

    async def bury(self, entry: Entry, reason: str, detail: str, *, deliveries: int = 1) -> bool:
        """Move *entry* to the dead stream with all its fields; False if it was settled already.

        A field of its own that is called like one of a dead letter becomes ``command.{name}``.
        """
        answer = await self._ask(
            "bury",
            [entry.stream, self.keys.dead],
            [
                GROUP,
                entry.id,
                self._offset,
                reason,
                detail,
                deliveries,
                *dead_letter_words(entry),
            ],
        )
        return bool(answer[0] == b"OK")

    async def deliver(self, entry: Entry, count: int) -> Entry | None:
        """Return *entry*, which this consumer has claimed, with its fields; None if it lost it.

        From now on it counts as delivered *count* times.
        """
        answer = await self._ask("deliver", [entry.stream], [GROUP, self.consumer, entry.id, count])
        if done(answer, {"LOST"}) is not None:
            return None
        return Entry(entry.stream, entry.id, tuple(answer[1]))

    async def is_token(self, entry: Entry, run_id: str) -> bool:
        """Tell whether *entry* is the token of the run; False where that cannot be read."""
        try:
            token = await self._scripts.fetch("HGET", self.keys.ctl(run_id), "token")
        except StoreReplyError:
            return False
        return bool(token == entry.id.encode())

    async def is_armed(self, timer: bytes) -> bool:
        """Tell whether *timer* is still to come; one that has fired is no more."""
        score = await self._scripts.fetch("ZSCORE", self.keys.timers, timer)
        return score is not None

    async def started_by(self, run_id: str) -> str | None:
        """Return the id of the command that made the run, if it had one."""
        first = await self._scripts.fetch("LINDEX", self.keys.history(run_id), "0")
        return decode_entries([first])[0].command if first else None

    async def drop(self, entry: Entry) -> None:
        """Settle *entry*, whose command was applied before."""
        await self._ask("drop", [entry.stream], [GROUP, entry.id, self._offset, "1"])

    async def age_ms(self, entry: Entry) -> int:
        """Return how long ago *entry* was added, by the server's clock."""
        answer = await self._ask("drop", [entry.stream], [GROUP, entry.id, self._offset, "0"])
        return int(answer[1])


def dead_letter_words(entry: Entry) -> list[bytes]:
    """Return the fields of *entry*; those called like one of a dead letter get a prefix."""
    words = list(entry.fields)
    if len(words) > _MOST_WORDS:
        # More than Lua can pass on at once: kept whole, in one field.
        texts = [word.decode("utf-8", "backslashreplace") for word in words]
        return [b"fields", codec.encode(texts, limit=sys.maxsize)]
    for place in range(0, len(words), 2):
        if words[place] in _OF_DEAD_LETTERS:
            words[place] = b"command." + words[place]
    return words


def create_call(
    keys: Keys,
    run_id: str,
    workflow: str,
    text: bytes,
    body: str,
    *,
    offset: int = 0,
    owner: str = "",
    lease_ms: int = 0,
    entry: Entry | None = None,
    terms: Terms | None = None,
    fields: Sequence[str | bytes] = (),
) -> tuple[str, list[str], list[Word]]:
    """Return the call of ``create_run``, which the service and the daemon both make."""
    nonce, policy, holder = terms or Terms()
    return (
        "create_run",
        [
            *keys.run_keys(run_id),
            keys.events,
            keys.runs,
            entry.stream if entry else keys.commands_default,
            *keys.generation_stems(),
        ],
        [
            offset,
            run_id,
            workflow,
            text,
            owner,
            lease_ms,
            GROUP,
            entry.id if entry else "",
            body,
            nonce,
            policy.value,
            holder,
            *fields,
        ],
    )
