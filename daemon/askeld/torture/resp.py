"""Cuts a RESP byte stream, RESP2 or RESP3, into whole top-level values."""

from __future__ import annotations


class Framer:
    """Keeps what is incomplete; every byte fed comes out once, in order, unchanged.

    An inline command is a line and thus one frame. Bytes are not checked beyond what the framing
    needs: they come from a real server or a real client.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._missing = 1  # Values still to come until the current top-level one is whole.

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream, return the values that they complete."""
        self._buffer += data
        frames: list[bytes] = []
        while self._advance():
            if self._missing == 0:
                frames.append(bytes(self._buffer[: self._at]))
                del self._buffer[: self._at]
                self._at, self._missing = 0, 1
        return frames

    def _advance(self) -> bool:
        """Step over one value, or the header of an aggregate; False when bytes are missing."""
        line_end = self._buffer.find(b"\r\n", self._at)
        if line_end < 0:
            return False
        kind = chr(self._buffer[self._at])
        end = line_end + 2
        added = -1
        if kind in "$=!*~>%|":
            count = max(int(self._buffer[self._at + 1 : line_end]), -1)
            if kind in "$=!" and count >= 0:
                end += count + 2
                if len(self._buffer) < end:
                    return False
            elif kind in "*~>" and count >= 0:
                added += count
            elif kind == "%":
                added += 2 * count
            elif kind == "|":  # Attributes precede the value they belong to.
                added = 2 * count
        self._at = end
        self._missing += added
        return True


def command_name(request: bytes) -> str:
    """Return the command's name in upper case, of a whole request in either form."""
    words = request.split(b"\r\n", 3) if request.startswith(b"*") else request.split()
    position = 2 if request.startswith(b"*") else 0
    return words[position].decode("ascii", "replace").upper() if len(words) > position else ""
