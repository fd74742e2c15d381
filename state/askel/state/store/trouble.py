"""What is the matter with the store: the one place that reads Redis' error codes for it.

Inside a script some servers (6.2 among them) put the code behind other text, and call the whole
``ERR``; so codes are looked for anywhere in a reply, but only after permissions, whose texts name
users and commands.
"""

from __future__ import annotations

import re
from enum import StrEnum

from askel.errors import (
    ScriptMissingError,
    ServiceClosedError,
    StoreAccessError,
    StoreError,
    StoreReplyError,
    StoreUnavailableError,
    UnknownOutcomeError,
)


class StoreTrouble(StrEnum):
    """Why the store did not do what it was asked to."""

    AWAY = "away"  # it cannot be reached, or does not answer
    NOT_READY = "not_ready"  # it answers that it cannot serve yet: loading, a slow script
    READ_ONLY = "read_only"  # it is a replica: the primary is elsewhere
    FULL = "full"  # it has no memory left for what is new
    UNSAFE = "unsafe"  # it refuses writes that it could not keep: disk, replicas
    DENIED = "denied"  # login or permission refused
    MISSING = "missing"  # a script, a stream or a consumer group is gone
    WRONG_TYPE = "wrong_type"  # a key holds something that askel did not write
    REFUSED = "refused"  # anything else, for good


#: What passes by itself, or when somebody mends the server: the same call may be sent again then.
PASSING = frozenset(
    {
        StoreTrouble.AWAY,
        StoreTrouble.NOT_READY,
        StoreTrouble.READ_ONLY,
        StoreTrouble.FULL,
        StoreTrouble.UNSAFE,
    }
)

_CODES = (
    (r"LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN", StoreTrouble.NOT_READY),
    (r"READONLY", StoreTrouble.READ_ONLY),
    (r"OOM", StoreTrouble.FULL),
    (r"MISCONF|NOREPLICAS", StoreTrouble.UNSAFE),
    (r"NOSCRIPT|NOGROUP", StoreTrouble.MISSING),
    (r"WRONGTYPE", StoreTrouble.WRONG_TYPE),
)
_CODE = re.compile("|".join(rf"\b(?:{codes})\b" for codes, _ in _CODES))
_KIND = [(re.compile(codes), kind) for codes, kind in _CODES]
# A primary that becomes a replica sends readers that wait away with the same code as one whose
# stream was deleted.
_DEMOTED = "instance state changed"
# Why a connection was left that had led to a primary; see ``connection.py`` and ``sentinel.py``.
_REPLICA = "it leads to a replica"


def trouble_of(error: StoreError) -> StoreTrouble:
    """Return what *error* says of the store."""
    if isinstance(error, StoreAccessError):
        return StoreTrouble.DENIED  # whatever else its text says: it names users
    if isinstance(error, ScriptMissingError):
        return StoreTrouble.MISSING
    text = str(error)
    if _REPLICA in text:
        return StoreTrouble.READ_ONLY
    if isinstance(error, StoreReplyError):
        return _of_reply(error.code, text)
    if isinstance(error, UnknownOutcomeError):
        return StoreTrouble.AWAY
    if isinstance(error, StoreUnavailableError) and not isinstance(error, ServiceClosedError):
        greeted = _of_reply("", text) is StoreTrouble.NOT_READY
        return StoreTrouble.NOT_READY if greeted else StoreTrouble.AWAY
    return StoreTrouble.REFUSED


def _of_reply(code: str, text: str) -> StoreTrouble:
    if code == "UNBLOCKED":
        return StoreTrouble.READ_ONLY if _DEMOTED in text else StoreTrouble.MISSING
    found = _CODE.search(text)
    return StoreTrouble.REFUSED if found is None else _kind(found[0])


def is_passing(error: StoreError) -> bool:
    """Tell whether *error* passes by itself: a lost connection, a server that cannot write now.

    A script that is missing although it was loaded just now was flushed in between.
    """
    return isinstance(error, ScriptMissingError) or trouble_of(error) in PASSING


def _kind(code: str) -> StoreTrouble:
    return next(kind for codes, kind in _KIND if codes.fullmatch(code))
