"""Known vulnerabilities of the pinned dependencies, by pip-audit; run by `make audit`.

Exit code 1 names what was found. Where the database of vulnerabilities cannot be reached nothing
was looked up: that is said in one line, and is no failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"
#: For one answer of the database, and for all of them, in seconds.
_TIMEOUT_S, _PATIENCE_S = 5, 120
_OPTIONS = ("--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json")
_OUT_OF_REACH = ("Connection", "connect", "timed out", "resolve", "unreachable")


def main(program: Sequence[str] = (sys.executable, "-m", "pip_audit")) -> int:
    """Look up every pinned version; print what is known against it and return the exit code."""
    command = [*program, "--requirement", str(CONSTRAINTS), "--timeout", str(_TIMEOUT_S), *_OPTIONS]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return _skipped(f"no answer within {_PATIENCE_S} s")
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = "".join([line for line in done.stderr.splitlines() if line.strip()][-1:])
        if any(word in done.stderr for word in _OUT_OF_REACH):
            return _skipped(last)
        sys.stderr.write(f"audit: pip-audit failed: {last}\n")
        return 1
    return _judge(found)


def _judge(found: Sequence[dict[str, Any]]) -> int:
    bad = [one for one in found if one.get("vulns")]
    unknown = [str(one["name"]) for one in found if "skip_reason" in one]
    for one in bad:
        for vuln in one["vulns"]:
            mended = ", ".join(vuln["fix_versions"]) or "no version yet"
            what = f"{one['name']} {one['version']}: {vuln['id']}, mended in {mended}"
            sys.stderr.write(f"audit: {what}\n")
    if bad:
        return 1
    if len(unknown) == len(found):
        return _skipped("it knows none of the packages")
    known = len(found) - len(unknown)
    sys.stdout.write(f"audit: {known} pinned versions, nothing known against them\n")
    if unknown:
        sys.stdout.write(f"audit: not in the database: {', '.join(unknown)}\n")
    return 0


def _skipped(why: str) -> int:
    sys.stdout.write(f"audit: skipped, the database of vulnerabilities is out of reach ({why})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
