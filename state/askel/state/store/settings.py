"""Where Redis is and how to log in: redis-py's connection parameters, without redis-py's I/O."""

from __future__ import annotations

import asyncio
import copy
import os
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis.asyncio as aioredis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from askel.errors import (
    AskelError,
    InvalidOptionError,
    ScriptMissingError,
    StoreAccessError,
    StoreReplyError,
    StoreUnavailableError,
    UnknownOutcomeError,
)
from askel.state.store.addresses import (
    ConnectionLike,
    OwnOptions,
    read_connection,
    read_secret,
)

__all__ = ["ConnectionLike", "ConnectionSettings", "reply_error"]

Login = list[tuple[str | bytes, ...]]

_WHAT_TO_DO = {
    "NOPERM": "give the user this permission (askel acl prints what each kind of user needs)",
    "NOAUTH": "give a user name and a password",
    "WRONGPASS": "give the right user name and password",
}
# How servers say inside a script that the user may not do it; the code is then a mere ERR.
_DENIED_IN_SCRIPT = re.compile(r"(ACL failure in script: |The user executing the script can't )")
_ECHO = re.compile(r",? with args beginning with.*", re.DOTALL)
_FULL = "max number of clients"


def reply_error(message: str) -> StoreReplyError:
    """Return what the error reply *message* means; arguments it repeats are taken out."""
    message = _ECHO.sub("", message)
    code = message.split(" ", 1)[0]
    if denied := _DENIED_IN_SCRIPT.search(message):
        code = "NOPERM"
        message = f"NOPERM {message[denied.start() :]}"
    if code == "NOSCRIPT":
        return ScriptMissingError(message)
    if code in _WHAT_TO_DO:
        return StoreAccessError(f"{message.rstrip('.')}: {_WHAT_TO_DO[code]}")
    return StoreReplyError(message)


class ConnectionSettings:
    """The server's address and credentials, read from whatever the caller has.

    The object that redis-py itself would connect with is built, but never connected: it knows
    every URL option, TLS parameter and credential provider that redis-py knows. What stands in
    files (URL, password, certificates) is read again for each new socket when it has changed.
    """

    def __init__(self, pool: aioredis.ConnectionPool, own: OwnOptions | None = None) -> None:
        """Take the parameters of *pool*; the pool is neither used nor closed."""
        self._own = own or OwnOptions()
        self._take(pool)

    def _take(self, pool: aioredis.ConnectionPool) -> None:
        try:
            self._parameters: Any = pool.connection_class(**pool.connection_kwargs)
        except (TypeError, ValueError, RedisError):
            msg = "the options of this Redis client are not understood"
            raise InvalidOptionError(msg) from None  # the error may repeat a secret
        self._tls: tuple[object, ssl.SSLContext] | None = None
        # The parameters would have the timeout of replies where none was given.
        given = pool.connection_kwargs.get("socket_connect_timeout")
        self._connect_timeout_s = float(given or "inf")

    def __repr__(self) -> str:
        """Name the server, never the credentials."""
        return f"<{type(self).__name__} {self.where}>"

    @property
    def where(self) -> str:
        """The server's address for messages, without credentials."""
        p = self._parameters
        if isinstance(p, UnixDomainSocketConnection):
            return f"unix:{p.path}"
        return f"[{p.host}]:{p.port}" if ":" in p.host else f"{p.host}:{p.port}"

    @property
    def connect_timeout_s(self) -> float:
        """How long opening and logging in may take at most, in seconds."""
        return self._connect_timeout_s

    async def open(
        self, protocol: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Open the socket (and TLS) for *protocol*; OSError tells what failed.

        Raises:
            InvalidOptionError: A TLS file that the settings name cannot be read.
            StoreUnavailableError: The file with the URL cannot be read, or says nonsense.
        """
        self.read_again()
        return await self.dial(protocol)

    async def dial(
        self, protocol: Callable[[], asyncio.Protocol]
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """Open the socket as the settings stand; see ``open``."""
        loop = asyncio.get_running_loop()
        p = self._parameters
        if isinstance(p, UnixDomainSocketConnection):
            return await loop.create_unix_connection(protocol, p.path)
        context = self._tls_context() if isinstance(p, SSLConnection) else None
        transport, made = await loop.create_connection(
            protocol,
            p.host,
            int(p.port),
            ssl=context,
            server_hostname=self._own.server_hostname if context else None,
        )
        _keep_alive(transport, p)
        return transport, made

    def read_again(self) -> None:
        """Read the file with the URL, where there is one.

        Raises:
            StoreUnavailableError: It cannot be read, or says nonsense.
        """
        if not self._own.url_file:
            return
        try:
            pool, own = read_connection(f"file://{quote(self._own.url_file)}")
        except InvalidOptionError as error:
            raise _passing(error) from None
        if (own.sentinel is None) != (self._own.sentinel is None):
            msg = "the URL file now names sentinels where it named a server, or the other way round"
            raise StoreUnavailableError(f"{msg}: start this process again")
        self._own = own
        self._take(pool)

    async def login(self) -> Login:
        """Return the commands that must succeed before any other: AUTH, SELECT, CLIENT SETNAME.

        Raises:
            StoreUnavailableError: The password file cannot be read, or the provider failed.
        """
        p = self._parameters
        commands: Login = []
        if p.credential_provider is not None:
            commands.append(("AUTH", *await _provided(p.credential_provider)))
        else:
            password = p.password
            if self._own.password_file:
                try:
                    password = read_secret(self._own.password_file, "password_file")
                except InvalidOptionError as error:
                    raise _passing(error) from None
            if password or p.username:
                commands.append(("AUTH", *([p.username] if p.username else []), password or ""))
        if p.db:
            commands.append(("SELECT", str(p.db)))
        if p.client_name:
            commands.append(("CLIENT", "SETNAME", p.client_name))
        return commands

    def accept(self, command: tuple[str | bytes, ...], answer: Any) -> None:
        """Look at the *answer* to *command* of the login; raise if this is no server to use."""

    async def close(self) -> None:
        """Let go of what was opened to find the server."""

    def login_failure(self, command: tuple[str | bytes, ...], reply: StoreReplyError) -> AskelError:
        """Return what it means that *command* of the login was answered by the error *reply*."""
        text, code = str(reply), reply.code
        if code == "DENIED":
            return StoreAccessError(
                f"DENIED Redis at {self.where} is in protected mode: until it has a password it "
                "serves its own machine alone"
            )
        known = {"NOPERM", "NOAUTH", "WRONGPASS", *(() if command[0] == "PING" else ("ERR",))}
        if code not in known or _FULL in text:
            return StoreUnavailableError(f"cannot reach Redis at {self.where}: {text}")
        if command[0] == "SELECT" and code == "ERR":
            return StoreReplyError(
                f"ERR Redis at {self.where} has no database {command[1]!r}: {text}"
            )
        if command[0] != "AUTH":
            return StoreAccessError(f"{code} Redis at {self.where}: {text.removeprefix(code)[1:]}")
        if code == "WRONGPASS":
            why = "does not accept the user name and password, or the user is switched off"
        elif "password" in text and "called without" in text:
            why = "has no password for the default user: give none, or a user name with it"
        else:  # whatever it is that repeats the command would repeat the password
            why = "does not understand the login: is it Redis 6.2 or later?"
        return StoreAccessError(f"{code} Redis at {self.where} {why}")

    def failure(self, error: Exception) -> AskelError:
        """Return what it means that opening the socket, or logging in, failed with *error*."""
        if isinstance(error, AskelError) and type(error) in {
            InvalidOptionError,
            StoreAccessError,
            StoreReplyError,
        }:
            return type(error)(str(error))
        why = str(error) or type(error).__name__
        tls = isinstance(self._parameters, SSLConnection)
        if isinstance(error, TimeoutError):
            why = "no answer in time" + (" (does this port speak TLS?)" if tls else "")
        elif isinstance(error, ConnectionRefusedError):
            why = "connection refused"
        elif isinstance(error, UnknownOutcomeError):  # of the login, which nothing came before
            why = why.partition(" (it may have been applied")[0]
            why += "" if tls else " (if this port speaks TLS, write rediss://…)"
        elif isinstance(error, ssl.SSLCertVerificationError):
            why = f"its certificate is not accepted: {error.verify_message} (see ssl_ca_certs)"
        elif isinstance(error, UnicodeError):  # its text may hold what could not be encoded
            why = "host, user name or password cannot be encoded"
        why = why.removeprefix(prefix := f"cannot reach Redis at {self.where}: ")
        return StoreUnavailableError(f"{prefix}{why}")

    def _tls_context(self) -> ssl.SSLContext:
        """Return redis-py's TLS context, made anew when one of its files has changed."""
        given = self._parameters.ssl_context
        files = [given.certfile, given.keyfile, given.ca_certs]
        try:
            stamp = [path and _stamp(Path(path).stat()) for path in files]
            if self._tls is None or self._tls[0] != stamp:
                fresh = copy.copy(given)
                fresh.context = None
                if fresh.cert_reqs == ssl.CERT_NONE:
                    fresh.check_hostname = False
                self._tls = (stamp, fresh.get())
        except OSError as error:  # ssl.SSLError, too
            if self._tls is not None:
                return self._tls[1]  # files that are being replaced: what was good serves on
            name = f"{error.filename}: " if error.filename else ""
            why = error.strerror or getattr(error, "reason", None) or type(error).__name__
            msg = f"the TLS files (ssl_ca_certs, ssl_certfile, ssl_keyfile) fail: {name}{why}"
            raise InvalidOptionError(msg) from None
        except (ValueError, TypeError):
            msg = "the ssl_… options of the Redis connection contradict each other"
            raise InvalidOptionError(msg) from None
        return self._tls[1]


def _passing(error: InvalidOptionError) -> StoreUnavailableError:
    """Return *error* as one that passes: the file was good once, it may be being replaced."""
    return StoreUnavailableError(str(error))


async def _provided(provider: Any) -> tuple[str | bytes, ...]:
    """Ask a credential provider, which may be a coroutine or may block."""
    try:
        if _has_async(provider):
            return tuple(await provider.get_credentials_async())
        return tuple(await asyncio.to_thread(provider.get_credentials))
    except Exception as error:  # noqa: BLE001 - whatever it is, it may hold a secret
        msg = f"the credential provider failed with {type(error).__name__}"
        raise StoreUnavailableError(msg) from None


def _stamp(file: os.stat_result) -> tuple[int, ...]:
    """Return what tells a file that was written, or replaced, from what it was."""
    return (file.st_ino, file.st_size, file.st_mtime_ns)


def _has_async(provider: Any) -> bool:
    """Tell whether *provider* made its own ``get_credentials_async``; the inherited one warns."""
    own = getattr(type(provider), "get_credentials_async", None)
    return own is not None and own is not getattr(CredentialProvider, "get_credentials_async", None)


def _keep_alive(transport: asyncio.Transport, parameters: Any) -> None:
    """Switch TCP keepalive on as the settings say; a system that cannot goes without."""
    known = transport.get_extra_info("socket")
    if known is None or not parameters.socket_keepalive:
        return
    try:
        with socket.socket(fileno=os.dup(known.fileno())) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (parameters.socket_keepalive_options or {}).items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except (OSError, TypeError):
        return
