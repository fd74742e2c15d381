"""StreamQueue: puts commands on the streams."""

from __future__ import annotations

from askel.state import Connection, Keys, connect
from askel.state.codec import PLAIN, Codec
from askel.state.store.settings import ConnectionLike
from askel.wire.commands import Command, check_command


class StreamQueue:
    """The way from a program to the daemons of a deployment: one XADD a command.

    Given to ``RedisWorkflowService`` it makes the service remote: workflows are run by daemons.
    """

    def __init__(self, connection: ConnectionLike, key_prefix: str = "workflows") -> None:
        """Prepare the queue; nothing is opened before the first command.

        Raises:
            InvalidOptionError, InvalidNameError: The arguments are not understood.
        """
        self.keys = Keys(key_prefix)
        self.connection: Connection = connect(connection)

    async def send(self, command: Command, queue: str = "", *, codec: Codec = PLAIN) -> str:
        """Put *command* on the stream of *queue* and return its entry id.

        One write. When it fails with UnknownOutcomeError the command may be on the stream: send it
        again with the same ``id``, which is applied once. *codec* is the one that its payloads were
        written by.

        Raises:
            PayloadError, InvalidNameError, InvalidOptionError: It is one that no daemon would
                apply; nothing was sent.
        """
        words = check_command(command, codec)
        entry = await self.connection.send("XADD", self.keys.commands(queue), "*", *words)
        return str(entry.decode())

    async def close(self) -> None:
        """Close the connection."""
        await self.connection.close()
