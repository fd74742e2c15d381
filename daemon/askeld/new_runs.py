"""New runs: what becomes of a command that starts or creates one."""

from __future__ import annotations

from askel.state import Entry, IfExists, Recording, Refusal, run_id_of_entry, started_body
from askel.wire import Command, RunCreate, RunStart
from askeld.actors import Actors
from askeld.renewal import Held


def run_id_of(entry: Entry, command: Command) -> str:
    """Return the run that *command* is about, made from its id or its entry if it names none."""
    if isinstance(command, RunStart | RunCreate):
        return command.run or run_id_of_entry(entry.stream, entry.id)
    return command.run_id


class NewRuns:
    """Starts and creates runs, each once however often its command was sent."""

    def __init__(self, actors: Actors, recording: Recording) -> None:
        """Start runs with *actors*, create those of other programs with *recording*."""
        self._actors = actors
        self._recording = recording

    async def make(self, held: Held, command: RunStart | RunCreate) -> Refusal | None:
        """Do what *command* asks for; return why that was refused, if it was."""
        entry = held.entry
        run_id = run_id_of(entry, command)
        if isinstance(command, RunStart):
            policy = IfExists(command.if_exists)
            refusal = await self._actors.start(held, run_id, command)
        else:
            policy = IfExists.REJECT
            body = started_body(command.workflow, command.id)
            text = command.input.encode()
            refusal = await self._recording.create(
                entry, run_id, command.workflow, text, body, durability=command.durability
            )
        if refusal is None or refusal.word != "EXISTS":
            return refusal
        # The same command sent again is settled; another one for an existing run is refused.
        if policy is not IfExists.RETURN and not await self._is_known(run_id, command):
            return refusal
        await self._recording.drop(entry)
        return None

    async def _is_known(self, run_id: str, command: RunStart | RunCreate) -> bool:
        """Tell whether the run that exists was made by this command, sent before."""
        return bool(command.id) and await self._recording.started_by(run_id) == command.id
