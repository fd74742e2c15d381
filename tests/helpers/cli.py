"""The command line program as people run it: a process with an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.workers import ROOT

#: The console script beside the interpreter that runs the tests.
ASKEL = str(Path(sys.executable).with_name("askel"))
#: Variables of the developer's shell that change what is printed, and where.
_DISTURBING = ("REDIS_URL", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "TERM", "PYTHONUNBUFFERED")


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return the one JSON value on standard output."""
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one line that it printed on standard error, and nothing else anywhere."""
        assert self.out == "", self
        lines = self.err.splitlines()
        assert len(lines) == 1, self
        assert "Traceback" not in self.err, self
        assert self.err.endswith("\n"), self
        return lines[0]


def environment(**own: str) -> dict[str, str]:
    """Return this process's environment without what belongs to the developer, and *own*."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("ASKEL_", "REDIS_URL")) and key not in _DISTURBING
    }
    folders = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "state", ROOT / "daemon"))
    # Programs that run side by side would want one port.
    return {**inherited, "ASKEL_HTTP": "off", "PYTHONPATH": folders, **own}


def run_program(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes = b"",
    timeout: float = 30,
) -> Ran:
    """Run a program to its end; *env* is added to `environment`."""
    done = subprocess.run(
        list(command),
        cwd=cwd,
        env=environment(**(env or {})),
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
