"""Dead letters: commands that could not be applied, to be looked at, sent again or dropped."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import msgspec

from askel.durations import Duration, duration_ms
from askel.errors import ConflictError, InvalidOptionError, NotFoundError
from askel.names import check_run_id
from askel.state import (
    Keys,
    Scripts,
    connect,
    fields_of,
    from_ms,
    run_id_of_command,
    run_id_of_entry,
)
from askel.state.store.settings import ConnectionLike

#: The most that one page holds.
MOST = 1_000
#: How many letters one call looks at where only some are wanted.
_REACH = 10_000
_ID = re.compile(r"[0-9]{1,18}-[0-9]{1,18}")
_OWN = ("reason", "detail", "stream", "entry", "deliveries", "at")
_NAMES: tuple[str, ...] = ("id", "workflow", "step_name", "rpc_name", "name")
_MAKES_RUNS = frozenset({"run.start", "run.create"})
_PATIENCE_S = 5.0


class DeadLetterNotFoundError(NotFoundError):
    """There is no such dead letter (any more): it was redriven or dropped."""

    def __init__(self, letter_id: str) -> None:
        """Name the letter."""
        super().__init__(f"there is no dead letter {letter_id!r:.80}")
        self.letter_id = letter_id


class NotRedrivableError(ConflictError):
    """Sending this command again would do nothing, or the letter does not hold it. It stays."""

    def __init__(self, letter_id: str, why: str) -> None:
        """Name the letter, and say why."""
        super().__init__(f"dead letter {letter_id!r} cannot be redriven: {why}")
        self.letter_id = letter_id
        self.why = why


class DeadLetter(msgspec.Struct, frozen=True):
    """A command that could not be applied, and why.

    ``id`` is the letter's own; ``entry`` was that of the command on ``stream``. What the command
    names (its type, id, run, workflow, step, function or signal) is in ``names``; ``fields`` has
    all it carried, payloads included, and is None in listings.
    """

    id: str
    reason: str
    detail: str
    stream: str
    entry: str
    deliveries: int
    at: datetime | None
    type: str = ""
    run_id: str = ""
    names: dict[str, str] = {}
    fields: dict[str, str] | None = None


class DeadLetterPage(msgspec.Struct, frozen=True):
    """A page of dead letters, newest first; ``cursor`` continues after it, None at the end."""

    letters: list[DeadLetter]
    cursor: str | None = None


class DeadLetters:
    """The dead letters of a deployment."""

    def __init__(self, connection: ConnectionLike, key_prefix: str = "workflows") -> None:
        """Prepare to look; nothing is opened before the first call.

        Raises:
            InvalidOptionError, InvalidNameError: The arguments are not understood.
        """
        self.keys = Keys(key_prefix)
        self.connection = connect(connection)
        self._scripts = Scripts(self.connection)

    async def __aenter__(self) -> Self:
        """Use it in ``async with``."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self.connection.close()

    async def count(self) -> int:
        """Return how many dead letters there are."""
        return int(await self._scripts.fetch("XLEN", self.keys.dead, patience_s=_PATIENCE_S))

    async def list(
        self,
        *,
        reason: str | None = None,
        run_id: str | None = None,
        older_than: Duration | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> DeadLetterPage:
        """Return a page of dead letters, newest first, without what they carry.

        A page may have fewer letters than *limit*, even none, and yet a cursor: where only some
        are wanted, one call looks at 10,000.

        Args:
            reason: Only those that have it.
            run_id: Only those about this run.
            older_than: Only those that have been here for longer.
            limit: The most letters of a page, up to 1,000.
            cursor: Of the page before.

        Raises:
            InvalidOptionError, InvalidNameError: The arguments are not understood.
        """
        if not 1 <= limit <= MOST:
            raise InvalidOptionError(f"limit={limit}: give 1 to {MOST}")
        place = "" if cursor is None else _checked(cursor, "cursor")
        if older_than is not None and cursor is None:
            place = f"{await self._now_ms() - duration_ms(older_than)}-0"
        about = check_run_id(run_id) if run_id else ""
        args: Sequence[str | int] = [place, reason or "", about, limit, _REACH]
        return await read_page(self._scripts, self.keys, args)

    async def all(
        self,
        *,
        reason: str | None = None,
        run_id: str | None = None,
        older_than: Duration | None = None,
    ) -> AsyncIterator[DeadLetter]:
        """Yield every dead letter that is wanted, newest first, page by page; see ``list``."""
        cursor: str | None = None
        while True:
            page = await self.list(
                reason=reason, run_id=run_id, older_than=older_than, limit=MOST, cursor=cursor
            )
            for letter in page.letters:
                yield letter
            cursor = page.cursor
            if cursor is None:
                return

    async def get(self, letter_id: str) -> DeadLetter:
        """Return a dead letter with all that its command carried, payloads included.

        Raises:
            NotFoundError: It is not there.
            InvalidOptionError: This is no id of a dead letter.
        """
        found = await self._scripts.fetch(
            "XRANGE",
            self.keys.dead,
            _checked(letter_id, "dead letter"),
            letter_id,
            patience_s=_PATIENCE_S,
        )
        if not found:
            raise DeadLetterNotFoundError(letter_id)
        words = [word.decode("utf-8", "backslashreplace") for word in found[0][1]]
        own, command = words[: 2 * len(_OWN)], words[2 * len(_OWN) :]
        fields = dict(zip(command[::2], command[1::2], strict=True))
        known = {**fields, **dict(zip(own[::2], own[1::2], strict=True))}
        return _read(found[0][0], {k: v.encode() for k, v in known.items()}, fields)

    async def redrive(self, letter: str | DeadLetter) -> bool:
        """Send the command of a dead letter again, as its stream's newest; the letter is gone then.

        One step: of many who redrive the same letter one does, and what was redriven is not a
        dead letter any more. The command keeps its fields, its ``id`` among them, so that it is
        applied once even if it was applied before; how often it was delivered counts anew.

        Returns:
            False when the letter was gone: somebody else has redriven or dropped it meanwhile.

        Raises:
            NotFoundError: There is no letter of this id.
            ConflictError: It does not hold its command, nothing could come of it, or it was sent to
                a run whose id another one has by now.
        """
        if isinstance(letter, str):
            letter = await self.get(letter)
        why = _why_not(letter, self.keys)
        if why:
            raise NotRedrivableError(letter.id, why)
        run_id, makes_run = "", letter.type in _MAKES_RUNS
        if makes_run and not letter.run_id and not letter.names.get("id"):
            run_id = run_id_of_entry(letter.stream, letter.entry)
        answer, unsure = await self._scripts.insist(
            "redrive",
            [self.keys.dead, letter.stream, self.keys.run("" if makes_run else letter.run_id)],
            [letter.id, run_id],
            patience_s=_PATIENCE_S,
        )
        if answer[0] == b"OTHER":
            raise NotRedrivableError(letter.id, "it does not hold its command")
        if answer[0] == b"FORMER":
            why = f"run {letter.run_id!r} was made anew after it was sent; drop it, or send it anew"
            raise NotRedrivableError(letter.id, why)
        return answer[0] == b"OK" or unsure

    async def drop(self, letter_id: str) -> bool:
        """Delete a dead letter for good; False if it was gone already."""
        gone = await self._scripts.fetch(
            "XDEL",
            self.keys.dead,
            _checked(letter_id, "dead letter"),
            patience_s=_PATIENCE_S,
        )
        return bool(gone)

    async def _now_ms(self) -> int:
        seconds, micros = await self._scripts.fetch("TIME", patience_s=_PATIENCE_S)
        return int(seconds) * 1_000 + int(micros) // 1_000


async def read_page(scripts: Scripts, keys: Keys, args: Sequence[str | int]) -> DeadLetterPage:
    """Return the page that ``list_dead`` answers to *args*."""
    answer, _ = await scripts.insist("list_dead", [keys.dead], args, patience_s=_PATIENCE_S)
    _, place, flat = answer
    pairs = zip(flat[::2], flat[1::2], strict=True)
    letters = [_read(letter_id, fields_of(words)) for letter_id, words in pairs]
    return DeadLetterPage(letters, place.decode() or None)


async def letters_about(scripts: Scripts, keys: Keys, run_id: str) -> list[DeadLetter]:
    """Return the newest dead letters about a run, of the newest thousand of all."""
    page = await read_page(scripts, keys, ["", "", run_id, 20, 1_000])
    return page.letters


async def letter_of_start(scripts: Scripts, keys: Keys, run_id: str) -> DeadLetter | None:
    """Return the newest dead letter that would have made the run, of the newest thousand of all."""
    page = await read_page(scripts, keys, ["", "", "", MOST, MOST])
    return next((letter for letter in page.letters if _run_made_by(letter) == run_id), None)


def _run_made_by(letter: DeadLetter) -> str:
    """Return the run that the command of *letter* makes; empty where it makes none."""
    if letter.type not in _MAKES_RUNS:
        return ""
    if letter.run_id:
        return letter.run_id
    if letter.names.get("id"):
        return run_id_of_command(letter.names["id"])
    return run_id_of_entry(letter.stream, letter.entry) if _ID.fullmatch(letter.entry) else ""


def _read(letter_id: bytes, known: Mapping[str, bytes], fields: Any = None) -> DeadLetter:
    """Return the letter of what is known of it; one that another program wrote may lack fields."""
    told = {name: value.decode("utf-8", "backslashreplace") for name, value in known.items()}
    names: dict[str, str] = {name: told[name] for name in _NAMES if name in told}
    deliveries, at = told.get("deliveries", ""), told.get("at", "")
    return DeadLetter(
        id=letter_id.decode(),
        reason=told.get("reason", ""),
        detail=told.get("detail", ""),
        stream=told.get("stream", ""),
        entry=told.get("entry", ""),
        deliveries=int(deliveries) if deliveries.isdecimal() else 0,
        at=from_ms(int(at)) if at.isdecimal() and len(at) < 15 else None,  # noqa: PLR2004
        type=told.get("type", ""),
        run_id=told.get("run_id", ""),
        names=names,
        fields=fields,
    )


def _why_not(letter: DeadLetter, keys: Keys) -> str:
    """Return why nothing would come of sending the command of *letter* again; empty: it may."""
    base = keys.commands_default
    if letter.stream != base and not letter.stream.startswith(f"{base}:"):
        return "it names no stream of commands"
    if not _ID.fullmatch(letter.entry):
        return "it does not say which entry it was"
    if letter.reason == "body_lost":
        return "it does not hold its command"
    if not letter.type:
        return "what was sent has no type, or more fields than a command may have"
    if letter.type == "run.advance":
        return "it was what drove a run that has failed; there is nothing in it to be applied"
    return ""


def _checked(text: str, what: str) -> str:
    if not _ID.fullmatch(text):
        raise InvalidOptionError(
            f"{text!r:.80} is no id of a {what}: it looks like 1700000000000-0"
        )
    return text
