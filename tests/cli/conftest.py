"""A private server with a worker on it, and `askel` to be called: as a process, or in this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.helpers.cli import ASKEL, Ran, environment, run_program

from askeld.cli import main
from askeld.embedded import EmbeddedServer

APP = "tests.apps.kiosk:app"


@pytest.fixture
def call(monkeypatch, tmp_path, capsys) -> Callable[..., Ran]:
    """Call the program in this process, in an empty folder and a clean environment: it is fast."""
    for name in os.environ:
        if name.startswith(("ASKEL_", "REDIS_URL")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # Where an app is loaded from is put there.

    def run(*arguments: str, **env: str) -> Ran:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            try:
                code = main(arguments)
            except SystemExit as end:
                code = end.code
        return Ran(int(code), *capsys.readouterr())

    return run


@pytest.fixture
def askel(tmp_path) -> Callable[..., Ran]:
    """Run the program as a process of its own, in an empty folder."""

    def run(*arguments: str, stdin: str | bytes = b"", timeout: float = 30, **env: str) -> Ran:
        return run_program([ASKEL, *arguments], cwd=tmp_path, env=env, stdin=stdin, timeout=timeout)

    return run


@pytest.fixture(scope="module")
def own_server() -> Iterator[EmbeddedServer]:
    """A server of this module's own, which nobody empties."""
    with EmbeddedServer(port=0, options={"appendonly": "no"}) as server:
        yield server


@dataclass(frozen=True)
class Shop:
    """A deployment of the kiosk with a worker at work."""

    url: str
    run: Callable[..., Ran]
    call: Callable[..., Ran]

    def new_id(self) -> str:
        """Return a run id that no test has."""
        return f"order-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def worker_url(own_server, tmp_path_factory) -> Iterator[str]:
    """The address of a Redis on which a worker serves the kiosk."""
    log = tmp_path_factory.mktemp("worker") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [ASKEL, "worker", APP, "--redis", own_server.url],
            env=environment(ASKEL_NOT_FOUND_AFTER="300ms"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    yield own_server.url
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, log.read_text()


@pytest.fixture
def shop(worker_url, call, askel) -> Shop:
    """The kiosk at work: `shop.run` is a process, `shop.call` is not."""
    return Shop(
        worker_url,
        lambda *a, **k: askel(*a, **{"REDIS_URL": worker_url, **k}),
        lambda *a, **k: call(*a, **{"REDIS_URL": worker_url, **k}),
    )


@pytest.fixture
def app_file(tmp_path) -> Callable[[str, str], Path]:
    """Write a module into the folder where `askel` runs."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return path

    return write
