"""The HTTP server of a worker: health and readiness, from a thread of their own.

A loop that is blocked cannot say so itself: therefore the thread.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from askeld.config import parse_address
from askeld.health import Health, Readiness
from askeld.observability import Logger

_STOP_S = 2.0
_UNAVAILABLE = 503
_server_log = logging.getLogger(__name__)


def _lower(record: logging.LogRecord) -> bool:
    """Let a request that cannot be read be no error of ours: its sender is told, by a 400."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError):
        return True
    record.msg, record.args = "a request could not be read: %s", (type(error).__name__,)
    record.levelno, record.levelname, record.exc_info = logging.DEBUG, "DEBUG", None
    return _server_log.isEnabledFor(logging.DEBUG)


_server_log.addFilter(_lower)


class HttpServer:
    """Answers ``/healthz`` and ``/readyz`` until stopped."""

    def __init__(self, address: str, health: Health, log: Logger) -> None:
        """Tell *health* at *address*."""
        self._host, self._port = parse_address(address)
        self._health = health
        self._log = log
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._begun = threading.Event()
        self._thread: threading.Thread | None = None
        self._routes = {"/healthz": self._healthz, "/readyz": self._readyz}

    def start(self) -> str:
        """Listen; return the address, which names the port that was chosen where 0 was asked for.

        Raises:
            OSError: The address cannot be had.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening = socket.create_server((self._host, self._port), family=family)
        self._port = listening.getsockname()[1]
        self._thread = threading.Thread(
            target=self._main, args=(listening,), name="askel-http", daemon=True
        )
        self._thread.start()
        self._begun.wait()
        return self.address

    @property
    def address(self) -> str:
        """Where it listens."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    def stop(self) -> None:
        """Listen no longer; requests under way have a moment to end."""
        if self._thread is not None and self._loop is not None:
            with suppress(RuntimeError):  # it has failed, and its loop is closed
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(2 * _STOP_S)

    def _main(self, listening: socket.socket) -> None:
        try:
            asyncio.run(self._serve(listening))
        except Exception:  # noqa: BLE001 - without it the worker works on; who probes will notice
            self._log.error("http_failed", exc_info=True)
        finally:
            self._begun.set()

    async def _serve(self, listening: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        application = web.Application()
        for path, handler in self._routes.items():
            application.router.add_get(path, handler)
        runner = web.AppRunner(
            application, access_log=None, logger=_server_log, shutdown_timeout=_STOP_S
        )
        await runner.setup()
        try:
            await web.SockSite(runner, listening).start()
            self._begun.set()
            await self._stop.wait()
        finally:
            await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        found = self._health.liveness()
        return _json(found, is_good=found.status == "ok")

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = self._health.obstacles()
        status = "not_ready" if reasons else "ready"
        return _json(Readiness(status, self._health.worker, reasons), is_good=not reasons)


def _json(value: Any, *, is_good: bool) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value) + b"\n",
        status=200 if is_good else _UNAVAILABLE,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
