"""Tokens that are gone: somebody trimmed or deleted a stream, and runs would wait for ever."""

from __future__ import annotations

from collections.abc import Sequence

from askel.state.models import RunStatus
from askel.state.protocol.caller import GROUP, ProtocolCaller

_PAGE = 200


class TokenSweep(ProtocolCaller):
    """Goes through the runs that are running, a page in each call; several may do so at once."""

    _reached = 0

    async def run_once(self, streams: Sequence[str], *, silent_ms: int) -> tuple[list[str], bool]:
        """Give each run of the next page whose token is gone another one.

        A run whose owner was heard of within *silent_ms* is left to it: it needs no token while it
        lives. A token is taken for gone when it is on none of *streams*; where it is on another
        after all, the run has two entries for a while, the older of which is dropped.

        Returns:
            The ids of those runs, and whether this page was the last.
        """
        k = self.keys
        fetch = self._scripts.fetch
        first = self._reached
        found = await fetch(
            "ZRANGE",
            k.runs_by_status(RunStatus.RUNNING.value),
            str(first),
            str(first + _PAGE - 1),
            patience_s=self._patience_s,
        )
        is_last = len(found) < _PAGE
        self._reached = 0 if is_last else first + _PAGE
        if not found:
            return [], is_last
        alive = await self._alive(silent_ms)
        answer = await self._ask(
            "remake_tokens",
            [k.commands_default, k.run(""), k.ctl(""), *streams],
            [len(alive), *alive, *found],
        )
        return [run_id.decode() for run_id in answer[1]], is_last

    async def _alive(self, silent_ms: int) -> list[bytes]:
        """Return the consumers that were heard of lately: every worker reads the default stream."""
        consumers = await self._scripts.fetch(
            "XINFO", "CONSUMERS", self.keys.commands_default, GROUP, patience_s=self._patience_s
        )
        facts = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in consumers]
        return [known[b"name"] for known in facts if known[b"idle"] < silent_ms]
