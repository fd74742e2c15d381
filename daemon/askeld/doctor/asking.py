"""Asking Redis what it may not tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from askel import StoreReplyError
from askel.state import Connection


class Asking:
    """Asks Redis, and takes a refusal for no answer."""

    def __init__(self, connection: Connection) -> None:
        """Ask over *connection*."""
        self._connection = connection

    async def __call__(self, *command: str | int) -> Any:
        """Return the reply, None where this user or this server gives none.

        Raises:
            StoreUnavailableError: Redis cannot be reached.
        """
        try:
            return await self._connection.send(*command)
        except StoreReplyError:
            return None


def pairs(flat: Sequence[Any]) -> dict[Any, Any]:
    """Return a reply of names and values behind one another as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
