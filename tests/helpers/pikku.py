"""The services of the npm package, driven from Python: one Node process, many calls."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

from tests.helpers.node import node_driver

DRIVER = Path(__file__).resolve().parents[1] / "interop" / "driver.mjs"
UNDEFINED = {"$undefined": True}
"""An argument that JavaScript is to see as undefined."""

_WAIT_S = 20


class NodeError(Exception):
    """A call rejected in Node; `name` and `code` are those of the JavaScript error."""

    def __init__(self, error: dict[str, Any]):
        super().__init__(error.get("message"))
        self.name = error.get("name")
        self.code = error.get("code")


def js_error(message: str, **more: str) -> dict[str, Any]:
    """Return an argument that JavaScript is to see as an Error."""
    return {"$error": {"message": message, **more}}


class NodeProcess:
    """The driver: calls go in as lines of JSON and come back in any order."""

    def __init__(self):
        self._node = subprocess.Popen(
            ["node", str(node_driver(DRIVER))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._ids = itertools.count(1)
        self._waiting: dict[int, concurrent.futures.Future[dict[str, Any]]] = {}
        self._reader = threading.Thread(target=self._read, name="node-driver", daemon=True)
        self._reader.start()

    async def call(self, url: str, prefix: str, target: str, method: str, *args: Any) -> Any:
        """Return what Node answers; raise NodeError where it rejects."""
        future: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
        number = next(self._ids)
        self._waiting[number] = future
        line = {"id": number, "url": url, "prefix": prefix}
        line |= {"target": target, "method": method, "args": args}
        self._node.stdin.write(json.dumps(line) + "\n")
        self._node.stdin.flush()
        answer = await asyncio.wait_for(asyncio.wrap_future(future), _WAIT_S)
        if "error" in answer:
            raise NodeError(answer["error"])
        return answer["result"]

    def stop(self) -> None:
        """End the process."""
        self._node.stdin.close()
        self._node.wait(_WAIT_S)
        self._reader.join(_WAIT_S)
        self._node.stdout.close()

    def _read(self) -> None:
        for line in self._node.stdout:
            answer = json.loads(line)
            self._waiting.pop(answer["id"]).set_result(answer)
        for future in self._waiting.values():
            future.set_result({"error": {"message": "the Node process ended"}})


class Target:
    """One object in Node, whose methods are called by their JavaScript names."""

    def __init__(self, node: NodeProcess, url: str, prefix: str, name: str):
        self._where = (node, url, prefix, name)

    def __getattr__(self, method: str) -> Any:
        node, *where = self._where

        async def call(*args: Any) -> Any:
            return await node.call(*where, method, *args)

        return call


class Pikku:
    """The original on one server and prefix: `service`, `runs`, `engine` and `locks`."""

    def __init__(self, node: NodeProcess, url: str, prefix: str):
        self.service = Target(node, url, prefix, "service")
        self.runs = Target(node, url, prefix, "runs")
        self.engine = Target(node, url, prefix, "engine")
        self.locks = Target(node, url, prefix, "locks")
        self._close = Target(node, url, prefix, "close")

    async def close(self) -> None:
        """Close its connection."""
        await self._close.now()
