"""The home of the Lua scripts: read once from the package, run by EVALSHA.

Each script's header names its KEYS, its ARGV and every answer; a test compares them with the
callers. Shared functions live in ``lua/include`` and stand in front of the scripts that name them.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from importlib import resources
from typing import Any

import msgspec

from askel.errors import ScriptMissingError, StoreError, UnknownOutcomeError
from askel.state.moves import step_sources_in_lua
from askel.state.store.connection import Connection
from askel.state.store.trouble import is_passing

_HEADER = re.compile(r"-- (?P<name>[a-z_]+): ")
_INCLUDE = re.compile(r"^--- include (?P<names>[a-z_ ]+)$", re.MULTILINE)
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0


class Script(msgspec.Struct, frozen=True, dict=True):
    """One script: what is sent, and what its header promises.

    ``keys`` and ``args`` are the names in order; a last name ending in ``...`` repeats.
    """

    name: str
    body: str
    sha: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    answers: tuple[str, ...]

    @cached_property
    def words(self) -> frozenset[bytes]:
        """The answers as they are sent."""
        return frozenset(word.encode() for word in self.answers)


@cache
def load_scripts(compat: str | None = None) -> dict[str, Script]:
    """Return every script of the package by name.

    Args:
        compat: A folder in ``lua`` whose includes stand in the place of those of the same name.

    Raises:
        AssertionError: A file's header does not say what it must; a mistake of ours.
    """
    folder = resources.files("askel.state") / "lua"
    includes = {
        item.name.removesuffix(".lua"): item.read_text("utf-8")
        for source in ("include", *([compat] if compat else []))
        for item in (folder / source).iterdir()
        if item.name.endswith(".lua")
    }
    includes["moves"] = step_sources_in_lua()
    scripts = {}
    for item in folder.iterdir():
        if item.name.endswith(".lua"):
            script = _parse(item.name.removesuffix(".lua"), item.read_text("utf-8"), includes)
            scripts[script.name] = script
    return scripts


def _parse(name: str, text: str, includes: dict[str, str]) -> Script:
    header = []
    for line in text.splitlines():
        if not line.startswith("--") or line.startswith("---"):
            break
        header.append(line.removeprefix("--").strip())
    first = _HEADER.match(text)
    assert first, f"{name}.lua: the first line must be '-- {name}: what it does'"
    assert first["name"] == name, f"{name}.lua: its header names {first['name']}"
    keys = _named(header, "KEYS ", name)
    args = _named(header, "ARGV ", name)
    answers = tuple(part.split()[0] for part in header[-1].split("|"))

    def expand(match: re.Match[str]) -> str:
        text = "".join(includes[word] for word in match["names"].split())
        return _INCLUDE.sub(expand, text)

    body = _INCLUDE.sub(expand, text)
    return Script(name, body, hashlib.sha1(body.encode()).hexdigest(), keys, args, answers)  # noqa: S324 - the id Redis uses


def _named(header: list[str], label: str, name: str) -> tuple[str, ...]:
    for line in header:
        if line.startswith(label):
            return tuple(line.removeprefix(label).split())
    msg = f"{name}.lua: no line '-- {label}...'"
    raise AssertionError(msg)


class Scripts:
    """Runs the scripts on one connection."""

    def __init__(self, connection: Connection, compat: str | None = None) -> None:
        """Use *connection* for every call; with *compat* the scripts write for others, too."""
        #: The system that the scripts write for, too; None without one.
        self.compat = compat
        #: Told of each failure that a call is made again after; must not wait.
        self.on_trouble: Callable[[StoreError], None] | None = None
        self._connection = connection
        self._scripts = load_scripts(compat) if compat else load_scripts()  # one entry of the cache

    async def fetch(self, *command: str | bytes | int, patience_s: float | None = None) -> Any:
        """Return the reply of a command that only reads, asked again until it is answered.

        Args:
            command: The command; a second copy of it must be harmless.
            patience_s: Give up this long after the first failure; None never gives up.
        """
        loop = asyncio.get_running_loop()
        end: float | None = None
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return await self._connection.send(*command)
            except StoreError as error:
                if patience_s is not None and end is None:
                    end = loop.time() + patience_s
                if not is_passing(error) or (end is not None and loop.time() >= end):
                    raise
                self._tell(error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def run(
        self, name: str, keys: Sequence[str], args: Sequence[str | bytes | int]
    ) -> list[Any]:
        """Run script *name* once and return its answer, whose first item is a word in bytes.

        A script that the server forgot is loaded and sent again: it was not executed.

        Raises:
            StoreUnavailableError: It was not sent.
            UnknownOutcomeError: It may have been executed. Send the same call again.
            StoreReplyError: Redis refused it (out of memory, read only, no permission).
            AssertionError: The header does not list the answer; a mistake of ours.
        """
        script = self._scripts[name]
        send = self._connection.send
        try:
            answer: list[Any] = await send("EVALSHA", script.sha, len(keys), *keys, *args)
        except ScriptMissingError:
            await send("SCRIPT", "LOAD", script.body)
            answer = await send("EVALSHA", script.sha, len(keys), *keys, *args)
        if answer[0] not in script.words:
            msg = f"{name} answered {answer[0].decode()}, which its header does not list"
            raise AssertionError(msg)
        return answer

    async def insist(
        self,
        name: str,
        keys: Sequence[str],
        args: Sequence[str | bytes | int],
        *,
        patience_s: float | None,
    ) -> tuple[list[Any], bool]:
        """Run script *name*, sending the same bytes again until it is answered.

        Right only for scripts whose second copy is harmless, which all of askel's are.

        Args:
            name: The script.
            keys: Its KEYS.
            args: Its ARGV.
            patience_s: Give up this long after the first failure; None never gives up.

        Returns:
            The answer, and whether an earlier copy may have been executed too.

        Raises:
            StoreUnavailableError, UnknownOutcomeError: Patience ran out.
            StoreReplyError: Redis refused it, for good or until patience ran out.
        """
        try:
            return await self.run(name, keys, args), False
        except StoreError as error:
            if patience_s == 0 or not is_passing(error):
                raise
            unknown = isinstance(error, UnknownOutcomeError)
            self._tell(error)
        loop = asyncio.get_running_loop()
        end = None if patience_s is None else loop.time() + patience_s
        pause = _FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause)
            try:
                return await self.run(name, keys, args), unknown
            except StoreError as error:
                if not is_passing(error):
                    raise
                unknown = unknown or isinstance(error, UnknownOutcomeError)
                if end is not None and loop.time() >= end:
                    if unknown and not isinstance(error, UnknownOutcomeError):
                        raise UnknownOutcomeError(_why(error)) from error
                    raise
                self._tell(error)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _tell(self, error: StoreError) -> None:
        if self.on_trouble is not None:
            self.on_trouble(error)


def _why(error: StoreError) -> str:
    """Return what broke, without the advice of an error that gives its own."""
    return str(error).partition(" (it may have been applied")[0]
