"""The peer: the Node package that askel re-implements, driven in a process of its own."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
from tests.helpers.node import PACKAGES, NodeMissingError, node_driver

from benchmarks.figures import BenchmarkError, SkippedError

_DRIVER = Path(__file__).with_name("node") / "state.mjs"
_LONGEST_S = 240.0


def package_versions() -> dict[str, str]:
    """Return the versions of the npm packages, which are installed exactly."""
    pinned: dict[str, str] = msgspec.json.decode(PACKAGES.read_bytes())["dependencies"]
    return pinned


async def drive(payloads: list[Any], **job: Any) -> dict[str, Any]:
    """Let the Node package do *job* and return its answer.

    Raises:
        SkippedError: This machine lacks Node, npm, or the packages.
        BenchmarkError: The job failed.
    """
    try:
        driver = await anyio.to_thread.run_sync(_driver)
    except NodeMissingError as error:
        raise SkippedError(f"the Node package cannot be run: {error}") from error
    with tempfile.TemporaryDirectory(prefix="askel-bench-") as folder:
        path = anyio.Path(folder, "payloads.json")
        await path.write_bytes(msgspec.json.encode(payloads))
        text = msgspec.json.encode(job | {"payloads": str(path)}).decode()
        with anyio.move_on_after(_LONGEST_S):
            done = await anyio.run_process(["node", str(driver), text], check=False)
            if done.returncode == 0:
                answer: dict[str, Any] = msgspec.json.decode(done.stdout)
                return answer
            last = done.stderr.decode(errors="replace").strip().splitlines()[-12:]
            raise BenchmarkError("the Node driver failed: " + "\n".join(last))
    raise BenchmarkError(f"the Node driver took more than {_LONGEST_S:g} s")


@cache
def _driver() -> Path:
    return node_driver(_DRIVER)
