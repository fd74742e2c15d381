"""What was measured on: the facts without which figures mean nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from askel.state import Connection

_PACKAGES = {
    "askel": "askel",
    "redis-py": "redis",
    "hiredis": "hiredis",
    "msgspec": "msgspec",
    "anyio": "anyio",
    "structlog": "structlog",
    "uvloop": "uvloop",
}


def has_uvloop() -> bool:
    """Tell whether workers, and so the benchmarks, run on uvloop here."""
    return _version("uvloop") is not None


def machine_facts() -> dict[str, Any]:
    """Return processor, system and interpreter."""
    return {
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
    }


def versions() -> dict[str, str | None]:
    """Return the versions that matter here; None for what is not installed."""
    found = {name: _version(package) for name, package in _PACKAGES.items()}
    return found | {"node": _node_version()}


def load_average() -> list[float]:
    """Return the load of the machine over 1, 5 and 15 minutes; near 0 before is what is wanted."""
    return [round(load, 2) for load in os.getloadavg()]


async def server_facts(connection: Connection) -> dict[str, Any]:
    """Return what the server is and how it keeps data."""
    info = (await connection.send("INFO", "server")).decode()
    info += (await connection.send("INFO", "persistence")).decode()
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    fsync = await connection.send("CONFIG", "GET", "appendfsync")
    valkey = fields.get("valkey_version")
    return {
        "kind": "valkey" if valkey else "redis",
        "version": valkey or fields["redis_version"],
        "append_only": fields["aof_enabled"] == "1",
        "fsync": fsync[1].decode() if fields["aof_enabled"] == "1" and fsync else None,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _node_version() -> str | None:
    node = shutil.which("node")
    if node is None:
        return None
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip().removeprefix("v") or None


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor()
