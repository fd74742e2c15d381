"""Addresses of a primary that Sentinel looks after: its name, and where the sentinels are.

Read here: the URL ``redis+sentinel://h1:26379,h2:26379/MASTER/db``, the options of a mapping, and
redis-py's pool of a ``Sentinel.master_for`` client. Nothing is connected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import redis.asyncio as aioredis
from redis.asyncio.connection import SSLConnection

from askel.errors import InvalidOptionError

#: How the port of a sentinel is known where none is given.
DEFAULT_PORT = 26379
#: Scheme of a URL that names sentinels -> scheme of what they name.
SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
#: Options that say where and how sentinels are asked; all others are the primary's.
OPTIONS = frozenset(
    {"sentinels", "master", "sentinel_username", "sentinel_password", "sentinel_password_file"}
)

_FORM = (
    "the Sentinel URL is not understood: write redis+sentinel://h1:26379,h2:26379/MASTER, "
    "with /db after the name of the primary where it is not 0"
)
_URL = re.compile(
    r"(?P<scheme>rediss?\+sentinel)://(?:(?P<user>[^/?#]*)@)?(?P<hosts>[^/?#@]+)"
    r"/(?P<master>[^/?#]+)(?:/(?P<db>[0-9]*))?(?:\?(?P<query>[^#]*))?"
)
_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<name>[^\[\]:,\s]+))(?::(?P<port>[0-9]+))?")
_LARGEST_PORT = 65_535


class SentinelOptions(msgspec.Struct, frozen=True):
    """Whom to ask, for which primary.

    ``parameters`` are redis-py's options of a connection to any of the sentinels, with ``tls``
    those of an encrypted one; ``password_file`` is read at every login.
    """

    master: str
    sentinels: tuple[tuple[str, int], ...]
    parameters: dict[str, Any]
    tls: bool = False
    password_file: str | None = None

    def __repr__(self) -> str:
        """Name the primary; the parameters may hold a password."""
        return f"<{type(self).__name__} {self.master!r}>"

    def pool(self, host: str, port: int) -> aioredis.ConnectionPool:
        """Return the pool that carries the settings of the sentinel at *host* and *port*."""
        kind = SSLConnection if self.tls else aioredis.Connection
        options = {**self.parameters, "host": host, "port": port}
        return aioredis.ConnectionPool(connection_class=kind, **options)


def is_sentinel_url(url: str) -> bool:
    """Tell whether *url* names sentinels."""
    return url.partition("://")[0] in SCHEMES


def split_sentinel_url(url: str) -> tuple[str, dict[str, Any]]:
    """Return the URL of a server with all else that *url* says, and its sentinels and primary.

    Raises:
        InvalidOptionError: It is malformed. The message repeats nothing of it.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise InvalidOptionError(_FORM)
    user = f"{found['user']}@" if found["user"] is not None else ""
    query = f"?{found['query']}" if found["query"] else ""
    server = f"{SCHEMES[found['scheme']]}://{user}sentinel:{DEFAULT_PORT}/{found['db'] or 0}{query}"
    return server, {"sentinels": found["hosts"], "master": found["master"]}


def take_sentinel_options(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options about sentinels out of *options* and return them.

    Raises:
        InvalidOptionError: Some are there, but not those that all need.
    """
    taken = {name: options.pop(name) for name in OPTIONS & options.keys()}
    if taken and not (taken.get("sentinels") and taken.get("master")):
        msg = (
            f"{min(taken)} is about Sentinel: give sentinels, a list of host:port, and "
            "master, the name of the primary"
        )
        raise InvalidOptionError(msg)
    if taken.get("sentinel_password") and taken.get("sentinel_password_file"):
        msg = "sentinel_password_file stands beside sentinel_password: give one of them"
        raise InvalidOptionError(msg)
    return taken


def options_of(taken: Mapping[str, Any], pool: aioredis.ConnectionPool) -> SentinelOptions:
    """Return what *taken* says of sentinels whose primary *pool* describes.

    They are reached as the primary is: with TLS and its files where that is, and its timeouts.
    """
    shared = ("ssl_", "socket_")
    parameters = {k: v for k, v in pool.connection_kwargs.items() if k.startswith(shared)}
    for name in ("username", "password"):
        if value := taken.get(f"sentinel_{name}"):
            parameters[name] = value
    path = taken.get("sentinel_password_file")
    if not isinstance(taken["master"], str):
        raise InvalidOptionError("master must be text: the name by which sentinels know it")
    return SentinelOptions(
        master=taken["master"],
        sentinels=_addresses(taken["sentinels"]),
        parameters=parameters,
        tls=issubclass(pool.connection_class, SSLConnection),
        password_file=None if path is None else str(path),
    )


def is_sentinel_pool(pool: aioredis.ConnectionPool) -> bool:
    """Tell whether *pool* is one of redis-py's that ask sentinels."""
    return hasattr(pool, "sentinel_manager")


def read_sentinel_pool(pool: Any) -> tuple[aioredis.ConnectionPool, SentinelOptions]:
    """Return the pool of the primary that *pool* looks for, and the sentinels that it asks.

    Raises:
        InvalidOptionError: It looks for replicas.
    """
    if not pool.is_master:
        msg = "this client reads from replicas: give the one of Sentinel.master_for(name)"
        raise InvalidOptionError(msg)
    of_primary = {k: v for k, v in pool.connection_kwargs.items() if k != "connection_pool"}
    tls = issubclass(pool.connection_class, SSLConnection)
    asked = [client.connection_pool for client in pool.sentinel_manager.sentinels]
    first = dict(asked[0].connection_kwargs)
    options = SentinelOptions(
        master=str(pool.service_name),
        sentinels=tuple((p.connection_kwargs["host"], p.connection_kwargs["port"]) for p in asked),
        parameters={k: v for k, v in first.items() if k not in {"host", "port"}},
        tls=issubclass(asked[0].connection_class, SSLConnection),
    )
    kind = SSLConnection if tls else aioredis.Connection
    return aioredis.ConnectionPool(connection_class=kind, **of_primary), options


def _addresses(given: str | Iterable[Any]) -> tuple[tuple[str, int], ...]:
    items = given.split(",") if isinstance(given, str) else given
    return tuple(dict.fromkeys(_address(item) for item in items))


def _address(item: Any) -> tuple[str, int]:
    """Return host and port of a sentinel given as text or as a pair."""
    host, port = "", ""
    match item:
        case str():
            if found := _HOST.fullmatch(item.strip()):
                host, port = found["v6"] or found["name"], found["port"]
        case (str() as host, port):
            pass
    number = str(port or DEFAULT_PORT)
    if not host or not number.isdigit() or not 0 < int(number) <= _LARGEST_PORT:
        raise InvalidOptionError("sentinels is a list of host:port, as text or as pairs")
    return host, int(number)
