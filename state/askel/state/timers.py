"""Timers that nobody waits for any more: those of runs that ended, were deleted, or gave way.

They would do nothing when they are due, but until then they would take room, and keep the data of
what they repeat.
"""

from __future__ import annotations

from typing import Any

import msgspec

from askel.state.protocol.caller import ProtocolCaller, Word

_AT_ONCE = 1_000


class TimerSweep(ProtocolCaller):
    """Goes through all timers, a part in each call. Any number of processes may do so at once."""

    _cursor = b"0"

    async def run_once(self) -> int:
        """Look at the next thousand timers or so; return how many were removed.

        Only timers that name the run they were set for are judged: others (a start for later) may
        be for a run that is yet to come.
        """
        answer = await self._scripts.fetch(
            "ZSCAN",
            self.keys.timers,
            self._cursor,
            "COUNT",
            _AT_ONCE,
            patience_s=self._patience_s,
        )
        self._cursor = answer[0]
        args: list[Word] = []
        for member in answer[1][::2]:
            fields = _fields_of(member)
            if fields.get("born") and fields.get("run_id"):
                args += [member, fields["run_id"], fields["born"]]
        if not args:
            return 0
        asked = await self._ask("prune_timers", [self.keys.timers, self.keys.run("")], args)
        return int(asked[1])


def _fields_of(member: bytes) -> dict[str, Any]:
    """Return the fields of the command in a timer; none of what is no timer."""
    try:
        _, *words = msgspec.json.decode(member, type=list[str])
        return dict(zip(words[::2], words[1::2], strict=True))
    except (msgspec.MsgspecError, ValueError):
        return {}
