"""What a caller may give as the connection, read into the pool that redis-py would use.

The pool is never connected: it carries every URL option, TLS parameter and credential provider
that redis-py knows. Beside those there are a few options of askel's own, which are taken out first.
No message repeats a value: any of them may be, or hold, a secret.
"""

from __future__ import annotations

import difflib
import inspect
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec
import redis
import redis.asyncio as aioredis
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.connection import SSLConnection, parse_url
from redis.exceptions import RedisError

from askel.errors import InvalidOptionError
from askel.state.store.sentinel_addresses import (
    OPTIONS,
    SentinelOptions,
    is_sentinel_pool,
    is_sentinel_url,
    options_of,
    read_sentinel_pool,
    split_sentinel_url,
    take_sentinel_options,
)

ConnectionLike: TypeAlias = "str | Mapping[str, Any] | aioredis.Redis"

_WHAT = "the Redis connection is not understood: "
_URLS = (
    "give a URL such as redis://host:6379/0, rediss://…, unix:///path or "
    "redis+sentinel://h1:26379,h2:26379/MASTER"
)
_NOT_UNDERSTOOD = f"{_WHAT}{_URLS}, or a mapping of redis-py's connection options"
_SCHEMES = {"redis", "rediss", "unix"}
#: Options of redis-py that would have to run its own code on each new socket.
_CANNOT_HONOUR = ("redis_connect_func",)
#: Options of a pool that waits for a free connection: there is one, which all share.
_OF_A_POOL = ("timeout",)
_SHORTEST_HINT = 0.75


class OwnOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What askel reads beyond redis-py's options.

    ``password_file`` is read at every connect, so that a rotated password is found;
    ``server_hostname`` is the name that the server's certificate must carry, where that is not
    the name that is dialled; ``insecure`` lets TLS go without looking at the certificate;
    ``url_file`` is the file that the whole URL came from; ``sentinel`` names the sentinels that
    know where the server is.
    """

    password_file: str | None = None
    server_hostname: str | None = None
    insecure: bool = False
    url_file: str | None = None
    sentinel: SentinelOptions | None = None

    def __repr__(self) -> str:
        """Name nothing: paths of secrets are nobody's business."""
        return f"<{type(self).__name__}>"


_OWN = {"password_file", "server_hostname", "insecure"}
_YES = {True: True, False: False, "yes": True, "true": True, "1": True}


def read_connection(connection: ConnectionLike) -> tuple[aioredis.ConnectionPool, OwnOptions]:
    """Return the pool that carries the settings of *connection*, and askel's own options.

    Raises:
        InvalidOptionError: It is a client of another kind, a malformed URL, options that are
            unknown or contradict each other, or a file that cannot be read.
    """
    if isinstance(connection, aioredis.Redis):
        pool = connection.connection_pool
        if is_sentinel_pool(pool):
            pool, sentinel = read_sentinel_pool(pool)
            return pool, OwnOptions(sentinel=sentinel)
        return pool, OwnOptions()
    if isinstance(connection, str):
        return _from_url(connection)
    if isinstance(connection, Mapping):
        return _from_mapping(connection)
    raise InvalidOptionError(_refusal(connection))


def read_secret(path: str, what: str) -> str:
    """Return the one line in the file at *path*.

    Raises:
        InvalidOptionError: It cannot be read, is not UTF-8, or has none or several lines.
    """
    try:
        text = Path(path).read_bytes().decode()
    except OSError as error:
        raise InvalidOptionError(f"{what}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:  # it holds the whole secret
        raise InvalidOptionError(f"{what}: {path} is not UTF-8 text") from None
    except ValueError:
        raise InvalidOptionError(f"{what}: the path of the file is not allowed") from None
    lines = text.removesuffix("\n").removesuffix("\r").splitlines()
    if len(lines) != 1 or not lines[0]:
        raise InvalidOptionError(f"{what}: {path} must hold exactly one line")
    return lines[0]


def _from_url(url: str) -> tuple[aioredis.ConnectionPool, OwnOptions]:
    if url[:5].lower() != "file:":
        return _from_url_text(url)
    parts = _split(url)
    if parts.netloc or parts.query or not parts.path:
        raise InvalidOptionError("write a file that holds the URL as file:///path/of/it")
    path = unquote(parts.path)
    pool, own = _from_url_text(read_secret(path, "the URL file").strip())
    return pool, msgspec.structs.replace(own, url_file=path)


def _from_url_text(url: str) -> tuple[aioredis.ConnectionPool, OwnOptions]:
    given: dict[str, Any] = {}
    if is_sentinel_url(url):
        url, given = split_sentinel_url(url)
    parts = _split(url)
    if parts.scheme not in _SCHEMES or "://" not in url:
        why = "its scheme, before ://, is none of these" if "://" in url else "it has no scheme"
        raise _refused(why)
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/[0-9]+", parts.path):
        # redis-py would take database 0 without a word.
        raise _refused("after the port stands the number of a database")
    try:
        options: dict[str, Any] = dict(parse_url(url))
    except ValueError:
        raise _refused("a value of its options is wrong") from None
    own = _take_own(options)
    if not given and (strays := sorted(OPTIONS & options.keys())):
        msg = f"{strays[0]} is about Sentinel: write redis+sentinel://h1:26379,h2:26379/MASTER"
        raise InvalidOptionError(msg)
    options |= given
    sentinel = take_sentinel_options(options)
    for name in _OF_A_POOL:
        options.pop(name, None)
    if parts.scheme == "rediss":
        options.setdefault("ssl_check_hostname", True)  # no default of redis-py before 6
    # What looks like a name in a URL may be a part of a password that was not percent-encoded.
    shown = "@" not in parts.query + parts.fragment
    pool = _made(aioredis.ConnectionPool, options, show_names=shown)
    return pool, _with_sentinels(_checked(pool, own, show_names=shown), sentinel, pool)


def _from_mapping(given: Mapping[str, Any]) -> tuple[aioredis.ConnectionPool, OwnOptions]:
    options = dict(given)
    own = _take_own(options)
    sentinel = take_sentinel_options(options)
    if sentinel and ("host" in options or "port" in options):
        msg = "host and port stand beside sentinels, which know them: leave them out"
        raise InvalidOptionError(msg)
    tls = sorted(name for name in options if str(name).startswith("ssl_"))
    if options.get("ssl"):
        options.setdefault("ssl_check_hostname", True)
    elif tls and options.get("connection_pool") is None:
        msg = f"{tls[0]} is given without ssl=True: nothing would be encrypted"
        raise InvalidOptionError(msg)
    client = _made(aioredis.Redis, options, show_names=True)
    pool = client.connection_pool
    return pool, _with_sentinels(_checked(pool, own, show_names=True), sentinel, pool)


def _with_sentinels(
    own: OwnOptions, given: Mapping[str, Any], pool: aioredis.ConnectionPool
) -> OwnOptions:
    """Return *own* with the sentinels that *given* names; *pool* describes their primary."""
    if not given:
        return own
    sentinel = options_of(given, pool)
    if sentinel.password_file:
        read_secret(sentinel.password_file, "sentinel_password_file")
    return msgspec.structs.replace(own, sentinel=sentinel)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _refused("the brackets of its host do not match") from None
    try:
        _ = parts.port
    except ValueError:
        why = "the port is no number up to 65535 (in a password, write / ? # @ : as %2F %3F …)"
        raise _refused(why) from None
    return parts


def _refused(why: str) -> InvalidOptionError:
    """Return what says which part of a URL is wrong; no part is repeated."""
    return InvalidOptionError(f"{_WHAT}{why}; {_URLS}")


def _take_own(options: dict[str, Any]) -> OwnOptions:
    found = {name: options.pop(name) for name in _OWN & options.keys()}
    insecure = found.pop("insecure", False)
    if insecure not in _YES:
        raise InvalidOptionError("insecure is yes, or left out")
    for name, value in found.items():
        if value is not None and not isinstance(value, str | Path):
            raise InvalidOptionError(f"{name} must be text")
    texts = {name: value and str(value) for name, value in found.items()}
    own = OwnOptions(
        password_file=texts.get("password_file"),
        server_hostname=texts.get("server_hostname"),
        insecure=_YES[insecure],
    )
    if own.password_file:
        if options.get("password") or options.get("credential_provider"):
            msg = "password_file stands beside another password: give one of them"
            raise InvalidOptionError(msg)
        read_secret(own.password_file, "password_file")  # said at once, not at the first call
    return own


def _made(kind: Any, options: dict[str, Any], *, show_names: bool) -> Any:
    """Return ``kind(**options)``; what it says of a mistake is never repeated as it is."""
    try:
        return kind(**options)
    except (TypeError, ValueError, RedisError) as error:
        raise InvalidOptionError(_NOT_UNDERSTOOD + _hint(error, show_names)) from None


def _checked(pool: aioredis.ConnectionPool, own: OwnOptions, *, show_names: bool) -> OwnOptions:
    """Return *own* when a connection can be described by the options of *pool*."""
    parameters = _made(pool.connection_class, pool.connection_kwargs, show_names=show_names)
    if own.server_hostname and not isinstance(parameters, SSLConnection):
        msg = "server_hostname is for TLS: write rediss://… or ssl=True"
        raise InvalidOptionError(msg)
    if isinstance(parameters, SSLConnection) and not own.insecure:
        _refuse_unverified(parameters)
    if not (str(parameters.db or 0).isascii() and str(parameters.db or 0).isdigit()):
        raise InvalidOptionError(f"{_NOT_UNDERSTOOD}; db is the number of a database")
    for name in _CANNOT_HONOUR:
        if pool.connection_kwargs.get(name) is not None:
            raise InvalidOptionError(f"{name} cannot be honoured: askel opens its own connection")
    return own


def _refuse_unverified(parameters: SSLConnection) -> None:
    if parameters.ssl_context.cert_reqs == ssl.CERT_NONE:
        msg = (
            "ssl_cert_reqs=none accepts any certificate, so anybody in between may read and "
            "change everything: name the authority with ssl_ca_certs, or add insecure=yes"
        )
        raise InvalidOptionError(msg)


def _hint(error: BaseException, show_names: bool) -> str:  # noqa: FBT001 - of one module
    """Return `` (no option …)`` where *error* is about the name of an option."""
    found = re.search(r"unexpected keyword argument '([a-z_]{1,40})'", str(error))
    if found is None or not show_names:
        return ""
    known = [*inspect.signature(aioredis.Redis).parameters, *_OWN, *OPTIONS]
    if found[1] in known:
        return f" ({found[1]} is for connections with TLS: use rediss://, or ssl=True)"
    near = difflib.get_close_matches(found[1], known, 1, _SHORTEST_HINT)
    return f" (there is no option {found[1]}{f', did you mean {near[0]}?' if near else ''})"


def _refusal(given: object) -> str:
    if isinstance(given, redis.Redis | redis.RedisCluster | redis.sentinel.Sentinel):
        return f"this is a blocking {_name(given)} client: give a redis.asyncio.Redis, or a URL"
    if isinstance(given, aioredis.sentinel.Sentinel):
        return (
            f"a {_name(given)} names no primary yet: give the client that its "
            "master_for(name) returns"
        )
    if isinstance(given, aioredis.RedisCluster):
        return f"a {_name(given)} is no Redis connection that can be used yet: {NO_CLUSTER}"
    return (
        f"a {type(given).__name__} is no Redis connection: give a URL, a mapping of options "
        "or a redis.asyncio.Redis client"
    )


def _name(given: object) -> str:
    kind = type(given)
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


NO_CLUSTER = "Cluster clients are not supported yet: give the primary's URL"
