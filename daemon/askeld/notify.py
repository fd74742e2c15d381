"""Telling systemd how the service does: READY, STOPPING, WATCHDOG (``sd_notify``)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

_MICROSECONDS = 1_000_000
#: How long a state may wait for room in the socket.
_LONGEST_S = 1.0


class Notifier:
    """Sends states to the socket that NOTIFY_SOCKET names; without one, nowhere.

    Attributes:
        watchdog_s: Within how many seconds systemd wants the next ``WATCHDOG=1``; None: never.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Read what systemd has set; nothing is sent yet."""
        path = environment.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is no file: it lies in the abstract namespace.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self.watchdog_s: float | None = None
        microseconds = environment.get("WATCHDOG_USEC", "")
        asked = environment.get("WATCHDOG_PID") or str(os.getpid())
        if self._address and microseconds.isdigit() and asked == str(os.getpid()):
            self.watchdog_s = int(microseconds) / _MICROSECONDS or None

    def send(self, *states: str) -> None:
        """Send *states*, such as ``READY=1``; never fails, and hardly waits."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_LONGEST_S)
            sender.sendto("\n".join(states).encode(), self._address)
