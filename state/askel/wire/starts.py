"""Starts: which run came of a ``run.start``, where several may have had its run id."""

from __future__ import annotations

from collections.abc import Mapping

from askel.errors import ConflictError, RunExistsError
from askel.state import Connection, IfExists, Keys, Scripts, WorkflowRun, fields_of, read_run
from askel.state.codec import Codec
from askel.state.reads.history import decode_entries
from askel.wire.commands import RunStart
from askel.wire.dead_letters import DeadLetter, read_page

#: How many generations of a run are looked through, newest first.
_MOST_GENERATIONS = 32
#: How many of the newest dead letters are looked through.
_LETTERS = 1_000
_LOOKS = 2
_TAKEN = frozenset({"run_exists", "run_conflict"})


class Start:
    """A ``run.start`` that was sent, and how to find its run.

    A run was made by it if it has its workflow and input and, where the command has an id, begins
    with that id. So a run that had the run id before, or got it since, is not taken for its own.
    """

    def __init__(
        self, command: RunStart, entry: str, connection: Connection, keys: Keys, codec: Codec
    ) -> None:
        """Remember *command*, which was sent as *entry*."""
        self._command = command
        self._entry = entry
        self._connection = connection
        self._scripts = Scripts(connection)
        self._keys = keys
        self._codec = codec
        self._policy = IfExists(command.if_exists)
        self._reads = 0
        self._gone = 0

    @property
    def may_replace(self) -> bool:
        """Whether a run that has the id may be there before the one that is to come."""
        return self._policy.replaces

    async def read(self) -> WorkflowRun | None:
        """Return the run that came of the start; None while there is none.

        Raises:
            ConflictError: None will come of it: it was refused.
        """
        self._reads += 1
        fields = newest = await self._fields(self._command.run)
        for _ in range(_MOST_GENERATIONS):
            if not fields:
                break
            if await self._has_made(fields):
                return read_run(fields, self._codec)
            previous = fields.get("previous", b"").decode()
            fields = await self._fields(previous) if previous else {}
        if newest and not self.may_replace:
            why = "was started by another command; this one was refused"
            raise RunExistsError(self._command.run, why)
        if newest or self._reads > 1:  # else it was sent a moment ago
            await self._check_refused()
        return None

    async def _has_made(self, fields: Mapping[str, bytes]) -> bool:
        """Tell whether the start made the run with these fields, or is content with it."""
        sent = self._command
        if fields.get("workflow") != sent.workflow.encode():
            return False
        if fields.get("input") != sent.input.encode():
            return False
        if not sent.id or self._policy is IfExists.RETURN:
            return True
        history = self._keys.history(fields.get("id", b"").decode())
        first = await self._connection.send("LRANGE", history, 0, 0)
        return bool(first) and decode_entries(first)[0].command == sent.id

    async def _check_refused(self) -> None:
        """Raise if the start is a dead letter, one of the newest."""
        sent = self._command
        about: list[str | int] = ["", "", sent.run_id, 20 if sent.run_id else _LETTERS, _LETTERS]
        page = await read_page(self._scripts, self._keys, about)
        for letter in page.letters:
            if self._has_become(letter):
                why = f"the start became dead letter {letter.id}: {letter.detail}"
                if letter.reason in _TAKEN:
                    raise RunExistsError(sent.run, f"exists already; {why}")
                raise ConflictError(f"run {sent.run!r} was not started; {why}")

    def _has_become(self, letter: DeadLetter) -> bool:
        """Tell whether the command that was sent became *letter*: it, or what it was put back as.

        What became of a copy that was sent before says nothing of this one.
        """
        sent = self._command
        if letter.type != "run.start" or _order(letter.entry) < _order(self._entry):
            return False
        if sent.id:
            return letter.names.get("id") == sent.id
        return letter.run_id == sent.run and letter.names.get("workflow") == sent.workflow

    async def may_come(self) -> bool:
        """Tell whether the start may not have been read by anybody yet.

        Put back it has another entry: once its own is gone it is given two more looks.
        """
        stream = self._keys.commands(self._command.queue)
        if await self._connection.send("XRANGE", stream, self._entry, self._entry):
            return True
        self._gone += 1
        return self._gone <= _LOOKS

    async def _fields(self, run_id: str) -> dict[str, bytes]:
        flat = await self._connection.send("HGETALL", self._keys.run(run_id))
        return fields_of(flat) if flat else {}


def _order(entry: str) -> tuple[int, ...]:
    """Return what stream entries are ordered by."""
    return tuple(int(part) for part in entry.split("-") if part.isdecimal())
