"""Deleting a run: all of it, in one atomic step."""

from __future__ import annotations

from functools import partial

from askel.errors import LockLostError, LockNotAcquiredError, RunActiveError
from askel.names import check_run_id
from askel.state.ids import IdSource
from askel.state.keys import Keys
from askel.state.locks.run_lock import holder_for
from askel.state.pikku.reading import stray_keys
from askel.state.protocol.caller import GROUP, Word
from askel.state.protocol.nudging import send_nudge
from askel.state.store.connection import Connection
from askel.state.store.scripts import Scripts

ScriptCall = tuple[str, list[str], list[Word]]


def delete_call(
    keys: Keys,
    run_id: str,
    *,
    holder: str = "",
    forced: bool = False,
    remember: bool = False,
    offset: int = 0,
    nonce: str = "",
    strays: list[str] | None = None,
) -> ScriptCall:
    """Return the call of ``delete_run``: the script, its KEYS and its ARGV."""
    return (
        "delete_run",
        [
            *keys.run_keys(run_id),
            *keys.step_keys(run_id),
            keys.events,
            keys.runs,
            keys.commands_default,
            *(strays or ()),
        ],
        [holder, "1" if forced else "0", "1" if remember else "0", GROUP, offset, run_id, nonce],
    )


class RunDeletion:
    """The method of the state service that deletes."""

    keys: Keys
    connection: Connection
    scripts: Scripts
    ids: IdSource
    compat: str | None = None
    clock_offset_ms: int
    resend_s: float

    async def delete_run(self, run_id: str, *, force: bool = False) -> bool:
        """Remove every key and index entry of the run in one atomic step.

        What is written to the run afterwards (a late result, timer, retry, signal or command) is
        refused and brings no key back; a ``run.start`` sent before the deletion does not start it
        anew. Whoever waits for the run gets RunNotFoundError. Runs that the run started as its
        children stay; so do dead letters. A run made anew under the same id is another run, whose
        fences begin with 1. Sent again after a lost reply the call removes nothing more.

        Args:
            run_id: The run.
            force: Also a run that has not ended, and although somebody else holds its lock. Code
                of it that is being executed is told to stop; what it returns is dropped.

        Returns:
            Whether there was such a run; after a lost reply, whether it was deleted of late.

        Raises:
            RunActiveError: The run has not ended, and *force* was not given.
            LockNotAcquiredError: Somebody else holds its lock, and *force* was not given.
            LockLostError: The lock this was called under is lost; *force* makes no difference.
        """
        holder = holder_for(self, check_run_id(run_id))
        name, keys, args = delete_call(
            self.keys,
            run_id,
            holder=holder,
            forced=force,
            remember=True,
            offset=self.clock_offset_ms,
            nonce=self.ids.suffix(),
            strays=await self._stray_keys(run_id),
        )
        answer, resent = await self.scripts.insist(name, keys, args, patience_s=self.resend_s)
        match answer[0]:
            case b"OK":
                if answer[1]:
                    send_nudge(self.connection, self.keys, answer[1].decode(), run_id)
                return True
            case b"ACTIVE":
                raise RunActiveError(run_id, answer[1].decode(errors="backslashreplace"))
            case b"BUSY":
                raise LockNotAcquiredError(run_id, 0.0)
            case b"LOCKLOST":
                raise LockLostError(run_id)
            case b"ALREADY":
                return resent
        return False

    async def _stray_keys(self, run_id: str) -> list[str]:
        """Return keys of the run that only services of other makes know of; none without them."""
        if not self.compat:
            return []
        fetch = partial(self.scripts.fetch, patience_s=self.resend_s)
        return await stray_keys(fetch, self.keys, run_id)
