"""Where Redis is and how to log in: redis-py's connection parameters, without redis-py's I/O."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import redis
import redis.asyncio as aioredis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection

from askel.errors import InvalidOptionError

ConnectionLike: TypeAlias = "str | Mapping[str, Any] | aioredis.Redis"

_NOT_UNDERSTOOD = (
    "the Redis connection is not understood: give a URL such as redis://host:6379/0, "
    "rediss://… or unix:///path, or a mapping of redis-py's connection options"
)


class ConnectionSettings:
    """The server's address and credentials, read from whatever the caller has.

    The object that redis-py itself would connect with is built, but never connected: it knows
    every URL option, TLS parameter and credential provider that redis-py knows.
    """

    def __init__(self, pool: aioredis.ConnectionPool) -> None:
        """Take the parameters of *pool*; the pool is neither used nor closed."""
        try:
            self._parameters: Any = pool.connection_class(**pool.connection_kwargs)
        except (TypeError, ValueError):
            raise InvalidOptionError(_NOT_UNDERSTOOD) from None  # the error may repeat a secret
        self._provider = pool.connection_kwargs.get("credential_provider")

    def __repr__(self) -> str:
        """Name the server, never the credentials."""
        return f"<{type(self).__name__} {self.where}>"

    @property
    def where(self) -> str:
        """The server's address for messages, without credentials."""
        p = self._parameters
        if isinstance(p, UnixDomainSocketConnection):
            return f"unix:{p.path}"
        return f"{p.host}:{p.port}"

    async def open(
        self, protocol: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Open the socket (and TLS) for *protocol*; OSError tells what failed."""
        loop = asyncio.get_running_loop()
        p = self._parameters
        if isinstance(p, UnixDomainSocketConnection):
            return await loop.create_unix_connection(protocol, p.path)
        context: ssl.SSLContext | None = None
        if isinstance(p, SSLConnection):
            context = p.ssl_context.get()
        return await loop.create_connection(protocol, p.host, int(p.port), ssl=context)

    def greeting(self) -> list[tuple[str, ...]]:
        """Return the commands that must succeed before any other: AUTH, SELECT, CLIENT SETNAME."""
        p = self._parameters
        commands: list[tuple[str, ...]] = []
        if self._provider is not None:
            commands.append(("AUTH", *self._provider.get_credentials()))
        elif p.password:
            commands.append(("AUTH", *([p.username] if p.username else []), p.password))
        if p.db:
            commands.append(("SELECT", str(p.db)))
        if p.client_name:
            commands.append(("CLIENT", "SETNAME", p.client_name))
        return commands


def client_of(connection: ConnectionLike) -> aioredis.Redis:
    """Return a redis-py asyncio client that carries the settings of *connection*.

    Raises:
        InvalidOptionError: It is a sync client, a malformed URL or unknown options. The message
            never repeats the URL, which may hold a password.
    """
    if isinstance(connection, aioredis.Redis):
        return connection
    try:
        if isinstance(connection, str):
            return aioredis.Redis.from_url(connection)
        if isinstance(connection, Mapping):
            return aioredis.Redis(**connection)
    except (ValueError, TypeError) as error:
        raise InvalidOptionError(_NOT_UNDERSTOOD) from (
            None if isinstance(connection, str) else error
        )
    if isinstance(connection, redis.Redis):
        msg = "this is a blocking redis.Redis client: give a redis.asyncio.Redis, or a URL"
        raise InvalidOptionError(msg)
    msg = f"a {type(connection).__name__} is no Redis connection: give a URL, a mapping of options "
    msg += "or a redis.asyncio.Redis client"
    raise InvalidOptionError(msg)
