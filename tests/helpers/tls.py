"""TLS for tests: certificates made on the spot, a server that speaks TLS, a proxy that does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from askeld.embedded import EmbeddedServer, EmbeddedServerError
from askeld.server_binary import find_path_server


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key, in files."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority of its own."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.path)

    def issue(self, *names: str, expired: bool = False, file: str = "server") -> Certificate:
        """Return a certificate for *names*."""
        now = datetime.now(UTC)
        end = now - timedelta(days=1) if expired else now + timedelta(days=1)
        issued = self._ca.issue_cert(*names, not_before=now - timedelta(days=2), not_after=end)
        found = Certificate(self._folder / f"{file}.pem", self._folder / f"{file}.key")
        found.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(found.key)
        return found


@contextmanager
def tls_server(
    authority: Authority, certificate: Certificate, *, client_certificate: bool = False
) -> Iterator[int | None]:
    """Run PATH's server with TLS and yield its TLS port; None where it cannot do TLS."""
    binary = find_path_server()
    if binary is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as guess:
        port = guess.getsockname()[1]
    options = {
        "appendonly": "no",
        "tls-port": str(port),
        "tls-cert-file": str(certificate.cert),
        "tls-key-file": str(certificate.key),
        "tls-ca-cert-file": str(authority.path),
        "tls-auth-clients": "yes" if client_certificate else "no",
    }
    server = EmbeddedServer(binary=binary, port=0, options=options)
    try:
        server.start()
    except EmbeddedServerError:
        yield None
        return
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(server.stop)
        yield port


@asynccontextmanager
async def tls_proxy(
    host: str,
    port: int,
    authority: Authority,
    certificate: Certificate,
    *,
    client_certificate: bool = False,
) -> AsyncIterator[int]:
    """Speak TLS in front of the server at *host*:*port*; yield the port to connect to."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.path)
    context.load_cert_chain(certificate.cert, certificate.key)
    context.verify_mode = ssl.CERT_REQUIRED if client_certificate else ssl.CERT_NONE
    serving: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65_536):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        to_server, from_client = await asyncio.open_connection(host, port)
        await asyncio.gather(pump(reader, from_client), pump(to_server, writer))
        serving.discard(task)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield listener.sockets[0].getsockname()[1]
    listener.close()
    for task in list(serving):
        task.cancel()
    await asyncio.gather(*serving, return_exceptions=True)
