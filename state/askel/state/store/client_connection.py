"""A redis-py client as a connection, for fakes: one connection a command, nothing shared."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from askel.errors import StoreUnavailableError, UnknownOutcomeError
from askel.state.store.settings import reply_error


class ClientConnection:
    """Drives a redis-py client directly, one connection a command; for fakes in tests."""

    def __init__(self, pool: aioredis.ConnectionPool) -> None:
        """Use *pool*, which stays the caller's."""
        self._pool = pool

    def send(self, *command: bytes | str | float) -> Awaitable[Any]:
        """Issue *command*; see ``Connection.send``. It is sent when awaited."""
        return self._call(command)

    async def _call(self, command: tuple[bytes | str | int | float, ...]) -> Any:
        try:
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise StoreUnavailableError(f"cannot reach Redis: {error}") from error
        try:
            await connection.send_command(*command)
            reply = await connection.read_response(disable_decoding=True)
        except ResponseError as error:
            raise reply_error(_with_code(error)) from error
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise UnknownOutcomeError(str(error)) from error
        finally:
            await self._pool.release(connection)
        return _as_resp2(str(command[0]).upper(), reply)

    async def close(self) -> None:
        """Leave the client open: it is the caller's."""


def _as_resp2(name: str, reply: Any) -> Any:
    """Return *reply* as RESP2 has it: a client may speak RESP3, where maps are maps."""
    if not isinstance(reply, dict):
        return reply
    pairs = [list(pair) for pair in reply.items()]
    return pairs if name.startswith("XREAD") else [item for pair in pairs for item in pair]


def _with_code(error: ResponseError) -> str:
    """Return the text of *error* with the code that redis-py strips from it."""
    code = {"NoScriptError": "NOSCRIPT ", "NoPermissionError": "NOPERM "}
    return f"{code.get(type(error).__name__, '')}{error}"
