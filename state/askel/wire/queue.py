"""StreamQueue: puts commands on the streams."""

from __future__ import annotations

from askel.state import CONFIRM_S, Confirmer, Connection, Durability, Keys, as_durability, connect
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
        self.confirmer = Confirmer(
            lambda: connect(connection, timeout_s=CONFIRM_S + 5.0), self.keys
        )

    async def send(
        self,
        command: Command,
        queue: str = "",
        *,
        codec: Codec = PLAIN,
        durability: Durability | str | None = None,
    ) -> str:
        """Put *command* on the stream of *queue* and return its entry id.

        One write. When it fails with UnknownOutcomeError the command may be on the stream: send it
        again with the same ``id``, which is applied once. *codec* is the one that its payloads were
        written by. With a *durability* beyond ``memory`` this returns when the entry is confirmed.

        Raises:
            NotConfirmedError: It is on the stream, and may yet be lost.
            StoreUnsafeError: This server can never confirm it; nothing was sent.
            PayloadError, InvalidNameError, InvalidOptionError: It is one that no daemon would
                apply; nothing was sent.
        """
        words = check_command(command, codec)
        call = ("XADD", self.keys.commands(queue), "*", *words)
        if level := as_durability(durability):
            about = getattr(command, "run", "") or getattr(command, "run_id", "")
            what = f"{words[1]} of run {about!r}" if about else words[1]
            entry = await self.confirmer.write(level, what, *call)
        else:
            entry = await self.connection.send(*call)
        return str(entry.decode())

    async def close(self) -> None:
        """Close the connections."""
        await self.confirmer.close()
        await self.connection.close()
