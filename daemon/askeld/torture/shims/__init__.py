"""Small libraries in C that are laid between a server and the system, compiled where they are used.

They need a C compiler and a system whose loader knows LD_PRELOAD. Where one is missing, what needs
them is left out, loudly: `unavailable` says why.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

_COMPILERS = ("cc", "gcc", "clang")
_TIMEOUT_S = 60


class ShimError(Exception):
    """A shim cannot be compiled here; the message says why."""


def unavailable() -> str:
    """Say why no shim can be used on this machine; empty where they can."""
    if not sys.platform.startswith("linux"):
        return f"LD_PRELOAD shims are for Linux, this is {sys.platform}"
    if _compiler() is None:
        return f"no C compiler on PATH ({', '.join(_COMPILERS)}): apt install gcc libc6-dev"
    return ""


def compiled(name: str) -> Path:
    """Return the library *name*, compiled unless it was before from the same source.

    Raises:
        ShimError: It cannot be.
    """
    reason = unavailable()
    compiler = _compiler()
    if reason or compiler is None:
        raise ShimError(reason)
    source = files("askeld.torture.shims").joinpath(f"{name}.c").read_bytes()
    digest = hashlib.sha256(source + compiler.encode()).hexdigest()[:16]
    library = _folder() / f"{name}-{digest}.so"
    if not library.exists():
        _compile(compiler, source, library)
    return library


def _compile(compiler: str, source: bytes, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        made = Path(scratch, library.name)
        command = [
            compiler,
            "-shared",
            "-fPIC",
            "-O2",
            "-Wall",
            "-x",
            "c",
            "-",
            "-o",
            str(made),
            "-ldl",
        ]
        try:
            done = subprocess.run(
                command, input=source, capture_output=True, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ShimError(f"{compiler} does not run: {error}") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise ShimError(f"{compiler} failed: {said[0] if said else done.returncode}")
        made.replace(library)  # at once whole, whoever else compiles it


def _folder() -> Path:
    """Return a folder of this user's alone: what lies in it is loaded into servers."""
    folder = Path(tempfile.gettempdir(), f"askel-shims-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise ShimError(f"{folder} belongs to another user, or others may write to it")
    return folder


def _compiler() -> str | None:
    return next((found for name in _COMPILERS if (found := shutil.which(name))), None)
