"""Commands of a newer wire version: left to newer workers, as names are that are unknown here."""

from __future__ import annotations

import msgspec

from askel.state import Entry
from askel.wire import VERSION

_MOST_DIGITS = 15


class PutBack(msgspec.Struct, frozen=True):
    """What a command goes back with, and for how many times it has gone back before."""

    words: tuple[bytes, ...]
    tries: int


def for_newer_workers(entry: Entry, unknown_after_ms: int) -> PutBack | None:
    """Return what *entry* goes back with; None when its version is not newer than ours.

    Neither does one go back that nobody has taken for *unknown_after_ms*.
    """
    fields = dict(zip(entry.fields[::2], entry.fields[1::2], strict=True))
    version = _number(fields.get(b"v", b""))
    if version is None or version <= VERSION:
        return None
    # Anybody may have sent these: a time to come would never be long ago.
    since = min(_number(fields.get(b"unknown_since", b"")) or entry.sent_at, entry.sent_at)
    if entry.sent_at - since > unknown_after_ms:
        return None
    tries = min(_number(fields.get(b"tries", b"")) or 0, 1_000)
    fields |= {b"tries": b"%d" % (tries + 1), b"unknown_since": b"%d" % since}
    return PutBack(tuple(word for pair in fields.items() for word in pair), tries)


def _number(text: bytes) -> int | None:
    """Return the number that *text* is in digits, None if it is none."""
    return int(text) if text.isdigit() and len(text) <= _MOST_DIGITS else None
