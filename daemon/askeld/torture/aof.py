"""Reads Redis' append-only file: everything that ever changed, in the order in which it changed.

The file is the server's own word on what happened, and in what order. A script's writes stand in
it as ``MULTI … EXEC`` (one write alone, without them), so that one item of `Aof.transitions` is one
atomic step. What is read: the folder of Redis 7 and Valkey (a manifest, a base, increments), and
the single file of Redis 6.2. A snapshot at its beginning is read only where it holds nothing.

A tail that is cut, and a transaction that never ended, are left out, as a server leaves them out
that loads the file. The file may be that of a server that is running.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import hiredis

Words = list[bytes]
Transition = list[Words]

_CHUNK = 1 << 20
_LONGEST_NOTE = 64
# Bytes of a snapshot: something that is said about it, and its end.
_ABOUT, _END = 0xFA, 0xFF


class AofError(Exception):
    """The append-only file cannot be read; the message says why, and what to do."""


class Aof:
    """One append-only file, wherever its parts lie.

    Args:
        path: The data folder of a server, the folder with the manifest, or the single file.

    Raises:
        AofError: There is none, or it begins with a snapshot that holds data.

    Attributes:
        base: The file of the manifest that holds the state to begin with, if there is one.
        parts: The files with what happened since, in order.
        commands: How many commands were read so far.
        is_cut: Whether what was read last ends within a command or a transaction.
    """

    def __init__(self, path: Path) -> None:
        """Find the parts."""
        self.base, self.parts = _parts_of(path)
        self.commands = 0
        self.is_cut = False
        if self.base is not None and _snapshot_end(self.base) is None:
            self.opening: Path | None = self.base
        else:
            self.opening = None

    def base_commands(self) -> Iterator[Words]:
        """Yield the commands that make the state of the base: no transitions, nothing is judged."""
        if self.opening is not None:
            for transition in self._read(self.opening, is_last=False):
                yield from transition

    def transitions(self) -> Iterator[Transition]:
        """Yield each atomic step, as the commands that it consists of.

        Raises:
            AofError: A part before the last is cut, or something in between is no command.
        """
        for part in self.parts:
            yield from self._read(part, is_last=part == self.parts[-1])

    def _read(self, path: Path, *, is_last: bool) -> Iterator[Transition]:
        queued: Transition | None = None
        with path.open("rb") as file:
            file.seek(_snapshot_end(path) or 0)
            reader = _Reader(file)
            try:
                for words in reader:
                    self.commands += 1
                    name = words[0]
                    if name == b"MULTI":
                        queued = []
                    elif name == b"EXEC":
                        if queued:
                            yield queued
                        queued = None
                    elif queued is not None:
                        queued.append(words)
                    else:
                        yield [words]
            except hiredis.ProtocolError as error:
                raise AofError(f"{path}: no command before byte {file.tell()}: {error}") from None
            self.is_cut = queued is not None or reader.is_cut
        if self.is_cut and not is_last:
            raise AofError(f"{path}: cut in a command, and another part follows")


class _Reader:
    """Yields whole commands; notes between them (``#TS:…``) are skipped."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hiredis = hiredis.Reader()
        self.is_cut = False

    def __iter__(self) -> Iterator[Words]:
        feed, gets = self._hiredis.feed, self._hiredis.gets
        for piece in self._pieces():
            feed(piece)
            while (words := gets()) is not False:
                yield words
        self.is_cut = self._hiredis.has_data() or not self._is_between_commands()

    def _is_between_commands(self) -> bool:
        """Tell whether all words were read: one more is then a command, else a part of one."""
        self._hiredis.feed(b"+\r\n")
        try:
            return bool(self._hiredis.gets() == b"")
        except hiredis.ProtocolError:
            return False

    def _pieces(self) -> Iterator[bytes]:
        """Yield the file in chunks, without the notes that stand between commands.

        A note begins a line. Whether a line that looks like one is a note, or part of a payload,
        only the reader knows: between commands it has nothing left over.
        """
        rest = b""
        while chunk := self._file.read(_CHUNK):
            data, rest = rest + chunk, b""
            at = 0
            while True:
                found = _line_of_note(data, at)
                if found < 0:
                    break
                yield data[at:found]
                end = data.find(b"\n", found, found + _LONGEST_NOTE)
                if end < 0 and found + _LONGEST_NOTE > len(data):
                    rest, at = data[found:], len(data)
                    break
                if end >= 0 and not self._hiredis.has_data():
                    at = end + 1
                else:
                    yield data[found : found + 1]
                    at = found + 1
            # A line break at the end of the chunk may be followed by a note.
            keep = 1 if not rest and data.endswith(b"\n") and at < len(data) else 0
            yield data[at : len(data) - keep]
            rest = data[len(data) - keep :] if keep else rest
        if rest and not (rest.startswith(b"#") and not self._hiredis.has_data()):
            yield rest


def _line_of_note(data: bytes, at: int) -> int:
    """Return where, from *at* on, a line begins that looks like a note; -1 for nowhere."""
    if data.startswith(b"#", at) and (at == 0 or data[at - 1 : at] == b"\n"):
        return at
    found = data.find(b"\n#", at)
    return found + 1 if found >= 0 else -1


def _parts_of(path: Path) -> tuple[Path | None, list[Path]]:
    if path.is_file() and path.suffix != ".manifest":
        return None, [path]
    manifests = [path] if path.is_file() else sorted(path.glob("*.manifest"))
    manifests = manifests or sorted(path.glob("*/*.manifest"))
    if manifests:
        return _parts_of_manifest(manifests[0])
    files = sorted(path.glob("*.aof"))
    if not files:
        raise AofError(f"{path}: no append-only file: is the server's appendonly on?")
    return None, [files[0]]


def _parts_of_manifest(manifest: Path) -> tuple[Path | None, list[Path]]:
    base, parts = None, []
    for line in manifest.read_text("utf-8").splitlines():
        words = line.split()
        facts = dict(zip(words[::2], words[1::2], strict=False))
        part = manifest.parent / facts.get("file", "")
        if facts.get("type") == "b":
            base = part
        elif facts.get("type") == "i":
            parts.append(part)
    if not parts:
        raise AofError(f"{manifest}: it names no increment")
    return base, parts


def _snapshot_end(path: Path) -> int | None:
    """Return where the commands begin behind an empty snapshot; None where the file has none.

    Raises:
        AofError: The snapshot holds data: of what happened before it nothing is known.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.startswith((b"REDIS", b"VALKEY")):
        return None
    at = 9
    while at < len(head) and head[at] == _ABOUT:  # what is said of the snapshot itself
        at = _after_string(head, _after_string(head, at + 1))
    if at < len(head) and head[at] == _END:
        return at + 9  # the end, and a checksum
    raise AofError(
        f"{path}: it begins with a snapshot of what was there before; judge a server that began "
        "empty, with auto-aof-rewrite-percentage 0"
    )


def _after_string(head: bytes, at: int) -> int:
    """Return where the string of a snapshot that begins at *at* ends; its length comes first."""
    first = head[at]
    match first >> 6:
        case 0:
            return at + 1 + first
        case 1:
            return at + 2 + ((first & 0x3F) << 8 | head[at + 1])
        case 2:
            return at + 5 + int.from_bytes(head[at + 1 : at + 5], "big")
        case _:
            return at + 1 + {0: 1, 1: 2, 2: 4}.get(first & 0x3F, len(head))
