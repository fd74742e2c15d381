"""A connection on which each script may touch the keys it was given, and no other."""

from __future__ import annotations

from typing import Any

import redis.asyncio

from askel.state import connect


class NarrowConnection:
    """Sends EVALSHA as a user that the server lets touch only that call's KEYS; others as usual.

    A stem (a key that ends in a colon) stands for what begins with it, and the index of all runs
    for the indexes named after it. Keys must be free of blanks and of what means something in a
    pattern.
    """

    def __init__(self, client: redis.asyncio.Redis, url: str, user: str):
        self._admin = client
        self._user = user
        self._plain = connect(url)
        self._narrow = connect(url.replace("redis://", f"redis://{user}:secret@"))

    async def open(self) -> None:
        """Create the user."""
        await self._admin.execute_command(
            "ACL", "SETUSER", self._user, "reset", "on", ">secret", "+@all"
        )

    async def send(self, *command: Any) -> Any:
        """Send *command*, a script as the narrow user."""
        if command[0] != "EVALSHA":
            return await self._plain.send(*command)
        keys = command[3 : 3 + int(command[2])]
        stems = [f"{key}:" for key in keys if key.endswith(":runs")]
        patterns = [f"~{key}*" if key.endswith(":") else f"~{key}" for key in [*keys, *stems]]
        await self._admin.execute_command("ACL", "SETUSER", self._user, "resetkeys", *patterns)
        return await self._narrow.send(*command)

    async def close(self) -> None:
        """Close both connections and remove the user."""
        await self._narrow.close()
        await self._plain.close()
        await self._admin.execute_command("ACL", "DELUSER", self._user)
