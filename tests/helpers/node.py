"""Node and the pinned npm packages of the original system, for tests and for benchmarks.

The packages of `tests/interop/package.json` are installed once per version set into a folder of
the user's cache; parallel test workers wait for the one that installs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

PACKAGES = Path(__file__).resolve().parents[1] / "interop" / "package.json"
REQUIRE_NODE = "ASKEL_REQUIRE_NODE"
OLDEST_NODE = 20
# One attempt of npm; a second one follows, since registries have bad moments.
_NPM_TIMEOUT_S = 25
_NPM_TRIES = 2


class NodeMissingError(Exception):
    """Node, npm or the packages cannot be had on this machine; the text says what is missing."""


def is_required(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether tests that need Node fail without it: ASKEL_REQUIRE_NODE=1, or CI is set."""
    explicit = environment.get(REQUIRE_NODE)
    return (explicit or environment.get("CI", "")) not in {"", "0", "false"}


def node_modules(cache: Path | None = None) -> Path:
    """Return the folder in which `node_modules` lies, installed if need be.

    Raises:
        NodeMissingError: There is no node or npm, or npm cannot install.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        missing = "node" if node is None else "npm"
        msg = f"no {missing} on PATH: install Node {OLDEST_NODE} or newer with npm"
        raise NodeMissingError(msg)
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    major = int(version.stdout.removeprefix("v").split(".", 1)[0])
    if major < OLDEST_NODE:
        msg = f"Node {major} is too old: the packages need {OLDEST_NODE}"
        raise NodeMissingError(msg)
    wanted = PACKAGES.read_bytes()
    folder = (cache or _cache()) / f"node-{hashlib.sha256(wanted).hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _install(npm, wanted, folder)
    return folder


def node_driver(source: Path) -> Path:
    """Return a copy of the module *source* beside the packages, where its imports are found.

    Raises:
        NodeMissingError: See `node_modules`.
    """
    folder, text = node_modules(), source.read_bytes()
    copy = folder / f"{source.stem}-{hashlib.sha256(text).hexdigest()[:16]}.mjs"
    if not copy.exists():
        part = copy.with_suffix(f".{os.getpid()}")
        part.write_bytes(text)
        part.replace(copy)
    return copy


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "askel-tests"


def _install(npm: str, wanted: bytes, folder: Path) -> None:
    """Install beside *folder* and move there: a folder that is there is a whole one."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as part:
        Path(part, "package.json").write_bytes(wanted)
        command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund"]
        command += ["--ignore-scripts", "--loglevel=error"]
        failure: str | None = None
        for _ in range(_NPM_TRIES):
            failure = _failure_of(command, part)
            if failure is None:
                made = Path(part, "whole")
                made.mkdir()
                for name in ("package.json", "node_modules"):
                    Path(part, name).rename(made / name)
                made.rename(folder)
                return
    msg = f"npm could not install the packages: {failure}"
    raise NodeMissingError(msg)


def _failure_of(command: list[str], folder: str) -> str | None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=_NPM_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_NPM_TIMEOUT_S} s"
    return None if done.returncode == 0 else done.stderr.strip()[-500:] or f"exit {done.returncode}"
