"""Watching: runs and commands that nothing would ever move, since somebody meddled with them."""

from __future__ import annotations

from askel.state.protocol.caller import GROUP, ProtocolCaller
from askel.state.reads.run_facts import OpenStep, RunFacts, read_facts, rearm_call

_PAGE = 1_000
_ENTRIES = 1_000


class Watching(ProtocolCaller):
    """Looks for what is stuck, and mends what can be mended: one consumer an interval does so.

    What scripts of askel write is never stuck. Entries that were deleted or trimmed, consumers and
    groups that were removed, and keys that were evicted make it so.
    """

    async def quiet_runs(self, *, every_ms: int) -> tuple[list[str] | None, int]:
        """Return the runs of the next page that have no token; None and a pause (ms) if not now."""
        k = self.keys
        answer = await self._ask(
            "watch",
            [k.watch, k.runs_by_status("running"), k.run(""), k.ctl("")],
            [every_ms, every_ms, _PAGE, self._offset],
        )
        if answer[0] == b"WAIT":
            return None, int(answer[1])
        return [run_id.decode() for run_id in answer[2]], every_ms

    async def take_up(self, stream: str, *, every_ms: int) -> list[str]:
        """Have entries that are pending for nobody pending again; return their ids.

        Whoever works on one takes it back by renewing it; the others are swept once they have been
        idle for long enough, as if their worker had died just now.
        """
        answer = await self._ask(
            "take_up",
            [stream, self.keys.sweep(self.keys.queue_of(stream))],
            [GROUP, every_ms, _ENTRIES, self._offset],
        )
        return [entry.decode() for entry in answer[1]] if answer[0] == b"OK" else []

    async def facts(self, run_id: str) -> RunFacts | None:
        """Return what a run waits for; None when there is no such run."""
        return await read_facts(
            self._scripts, self.keys, run_id, offset=self._offset, patience_s=self._patience_s
        )

    async def revive(self, facts: RunFacts) -> bool:
        """Have the run driven on, if it is still as *facts* say; tell whether it was."""
        k = self.keys
        answer = await self._ask(
            "revive",
            [k.run(facts.run_id), k.ctl(facts.run_id), k.commands_default],
            [facts.run_id, facts.turn],
        )
        return bool(answer[0] == b"OK")

    async def rearm(self, facts: RunFacts, step: OpenStep, timer: bytes) -> bool:
        """Set the *timer* of *step* again, for the time that the history says; tell if it was.

        Not when the step no longer waits for it, when its time has come and its command may be on
        the stream, or when the history is too long to find the time.
        """
        answer = await self._ask(
            *rearm_call(self.keys, facts.run_id, step, timer, offset=self._offset)
        )
        return bool(answer[0] == b"OK")
