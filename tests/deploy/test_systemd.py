"""The systemd unit: the lines it needs, and accepted by systemd itself where that is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from askel import AskelError, InvalidOptionError, StoreUnsafeError, StoreWipedError
from askeld.cli.exits import exit_for
from askeld.config import WorkerConfig

UNIT = Path(__file__).resolve().parents[2] / "deploy/systemd/askeld@.service"

# What operation relies on: how it starts, drains, restarts, and gives up.
NEEDED = {
    "Unit": {"StartLimitIntervalSec": "0"},
    "Service": {
        "Type": "notify",
        "NotifyAccess": "main",
        "WatchdogSec": "60s",
        "EnvironmentFile": "/etc/askel/%i.env",
        "ExecStart": "/usr/bin/env askel worker ${ASKEL_APP}",
        "KillSignal": "SIGTERM",
        "KillMode": "mixed",
        "TimeoutStopSec": "90",
        "Restart": "always",
        "RestartSec": "2s",
        "RestartPreventExitStatus": "2 4",
        "DynamicUser": "yes",
    },
    "Install": {"WantedBy": "multi-user.target"},
}


def settings() -> dict[str, dict[str, list[str]]]:
    """Every value of every setting, in order: systemd lets a setting stand more than once."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            section.setdefault(name, []).append(value)
    return sections


def test_unit_starts_drains_and_restarts_as_documented():
    found = settings()

    assert {
        section: {name: found[section].get(name) for name in needed}
        for section, needed in NEEDED.items()
    } == {
        section: {name: [value] for name, value in needed.items()}
        for section, needed in NEEDED.items()
    }


def test_a_worker_that_must_not_go_on_is_not_started_again():
    """`--on-wiped-store exit` above all: started again, it would serve the empty store."""
    (codes,) = settings()["Service"]["RestartPreventExitStatus"]
    for error, is_final in (
        (StoreWipedError("gone"), True),
        (StoreUnsafeError("evicts"), True),
        (InvalidOptionError("--lease soon"), True),
        (AskelError("importing 'shop' failed: ConnectionRefusedError"), False),
    ):
        assert (str(int(exit_for(error))) in codes.split()) == is_final, error


def test_a_worker_ends_itself_before_systemd_does():
    """The limits are in order: a blocked loop, a loop that is late, systemd's watchdog."""
    service = settings()["Service"]
    config = WorkerConfig()
    assert config.max_block_ms < config.watchdog_ms < seconds(service["WatchdogSec"]) * 1_000
    ends_s = (config.drain_ms + config.cancel_grace_ms) / 1_000
    assert ends_s < seconds(service["TimeoutStopSec"])


def seconds(values: list[str]) -> int:
    return int(values[0].removesuffix("s"))


def test_systemd_accepts_the_unit():
    program = shutil.which("systemd-analyze")
    if not program:
        pytest.skip("SKIPPED: no systemd-analyze on PATH, the unit is not verified by systemd")

    answer = subprocess.run(
        [program, "--man=no", "verify", UNIT], capture_output=True, text=True, check=False
    )

    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
