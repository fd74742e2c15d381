"""Tokens that are gone: somebody trimmed or deleted a stream, and runs would wait for ever."""

from __future__ import annotations

from askel.state.models import RunStatus
from askel.state.protocol.caller import GROUP, ProtocolCaller

_PAGE = 200


class TokenSweep(ProtocolCaller):
    """Goes through the runs that are running, a page in each call; several may do so at once."""

    _reached = 0

    def rewind(self) -> None:
        """Begin anew with the first page."""
        self._reached = 0

    async def run_once(self, *, silent_ms: int) -> tuple[list[str], bool]:
        """Give each run of the next page whose token is gone another one.

        It is noted at first, and done by a later call, *silent_ms* after: a run whose owner lives
        says so meanwhile, and is left to it. A token is looked for on the stream on which the run
        was started and on the default one, whoever serves them.

        Returns:
            The ids of those runs, and whether this page was the last.
        """
        k = self.keys
        first = self._reached
        found = await self._scripts.fetch(
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
        answer = await self._ask(
            "remake_tokens",
            [k.commands_default, k.run(""), k.ctl("")],
            [GROUP, self._offset, silent_ms, *found],
        )
        return [run_id.decode() for run_id in answer[1]], is_last
