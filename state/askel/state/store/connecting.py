"""Which connection serves what a caller gave: one socket, one found by Sentinel, or a fake."""

from __future__ import annotations

import redis.asyncio as aioredis

from askel.errors import InvalidOptionError
from askel.state.store.addresses import NO_CLUSTER, ConnectionLike, read_connection
from askel.state.store.client_connection import ClientConnection
from askel.state.store.connection import Connection, MultiplexedConnection
from askel.state.store.sentinel import SentinelSettings
from askel.state.store.settings import ConnectionSettings


def connect(
    connection: ConnectionLike, *, timeout_s: float = 5.0, name: str | None = None
) -> Connection:
    """Return a connection to the Redis that *connection* names; nothing is opened yet.

    Where it names sentinels, the connection follows their primary. A client whose connections are
    not sockets (a fake) is driven directly.
    """
    pool, own = read_connection(connection)
    if not pool.connection_class.__module__.startswith("redis."):
        return ClientConnection(pool)
    if not issubclass(
        pool.connection_class, aioredis.Connection | aioredis.UnixDomainSocketConnection
    ):
        raise InvalidOptionError(NO_CLUSTER)
    kind = ConnectionSettings if own.sentinel is None else SentinelSettings
    return MultiplexedConnection(kind(pool, own), timeout_s=timeout_s, name=name)
