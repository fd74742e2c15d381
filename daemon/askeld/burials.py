"""Burials: a command that cannot be applied becomes a dead letter."""

from __future__ import annotations

from contextlib import suppress

from askel import StoreAccessError, StoreReplyError
from askel.state import Entry, Recording
from askeld.context import WorkerContext


class Burials:
    """Moves entries to the dead stream; one that Redis refuses there stays pending."""

    def __init__(self, context: WorkerContext, recording: Recording) -> None:
        """Bury through *recording*."""
        self._context = context
        self._recording = recording
        self._is_refused = False

    async def bury(self, entry: Entry, reason: str, detail: str, deliveries: int = 1) -> None:
        """Make a dead letter of *entry*.

        Where Redis refuses that for good, because the dead stream is of another type, nothing is
        changed: this is logged once, and the entry comes again by a later sweep.
        """
        try:
            is_buried = await self._recording.bury(entry, reason, detail, deliveries=deliveries)
        except StoreReplyError as error:
            if isinstance(error, StoreAccessError):
                raise  # this process is of no use
            self._tell(entry, reason, error)
            if deliveries == 1:
                # It killed nobody: however often it comes again for this, it is no poison.
                with suppress(StoreReplyError):
                    await self._recording.deliver(entry, 1)
            return
        self._is_refused = False
        if is_buried:
            self._context.log.warning(
                "command_dead_lettered", entry_id=entry.id, stream=entry.stream, reason=reason
            )

    def _tell(self, entry: Entry, reason: str, error: StoreReplyError) -> None:
        if self._is_refused:
            return
        self._is_refused = True
        self._context.log.error(
            "dead_letter_refused",
            entry_id=entry.id,
            stream=entry.stream,
            reason=reason,
            error=error.code,
            advice=f"rename {self._context.keys.dead} if it is no stream: the entry comes again",
        )
