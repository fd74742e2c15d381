"""Asking Redis what it may not tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from askel import StoreAccessError, StoreReplyError
from askel.state import Connection

#: Commands whose first argument is a part of their name.
_CONTAINERS = frozenset({"ACL", "CONFIG", "XINFO"})


class Asking:
    """Asks Redis, and takes a refusal for no answer.

    Attributes:
        refused: The commands that the user may not send, or not for these keys. What hangs on one
            of them is not known: it must not be taken for something that is not there.
    """

    def __init__(self, connection: Connection, refused: set[str]) -> None:
        """Ask over *connection*; note in *refused* what the user may not ask."""
        self._connection = connection
        self.refused = refused

    async def __call__(self, *command: str | bytes | int) -> Any:
        """Return the reply, None where this user or this server gives none.

        Raises:
            StoreUnavailableError: Redis cannot be reached.
        """
        try:
            return await self._connection.send(*command)
        except StoreAccessError:
            self.refused.add(" ".join(map(str, command[: 1 + (command[0] in _CONTAINERS)])))
            return None
        except StoreReplyError:
            return None

    async def count(self, key: str) -> int:
        """Return how many members the sorted set *key* has, by a command that a viewer may send."""
        return await self("ZCOUNT", key, "-inf", "+inf") or 0


def pairs(flat: Sequence[Any]) -> dict[Any, Any]:
    """Return a reply of names and values behind one another as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
