"""What to do next about an error of Redis: the library says what happened, this says what helps."""

from __future__ import annotations

import os

from askel import StoreAccessError, StoreError, StoreUnavailableError
from askel.state import StoreTrouble, trouble_of

_UNREACHABLE = "cannot reach Redis"
#: What Redis says of a key of another type; askel itself names the key.
_NAMELESS = "Operation against a key"
_PASSWORD_FILES = ("ASKEL_REDIS_PASSWORD_FILE", "REDIS_PASSWORD_FILE")

#: Trouble -> the line in place of Redis' own words.
_LINES = {
    StoreTrouble.FULL: (
        "Redis is full (OOM) and takes nothing new: raise maxmemory, or free some first, which is "
        "allowed: askel dead drop --all --older-than 30d --yes; askel doctor shows what is large"
    ),
    StoreTrouble.READ_ONLY: (
        "this Redis is a replica and takes no writes (READONLY): name the primary with --redis or "
        "REDIS_URL, or the sentinels that know it: redis+sentinel://h1:26379,h2:26379/MASTER"
    ),
    StoreTrouble.WRONG_TYPE: (
        "a key of this prefix holds what askel did not write (WRONGTYPE): askel doctor names it"
    ),
}


def explained(error: BaseException) -> str:
    """Return the text of *error*, with what to do next where that is known."""
    if isinstance(error, StoreAccessError):
        return f"{error}{_login_hint(error)}"
    if isinstance(error, StoreUnavailableError) and str(error).startswith(_UNREACHABLE):
        return f"{error}: is it running? askel dev starts one for this directory"
    if not isinstance(error, StoreError):
        return str(error)
    trouble = trouble_of(error)
    if trouble is StoreTrouble.WRONG_TYPE and _NAMELESS not in str(error):
        return str(error)
    return _LINES.get(trouble, str(error))


def _login_hint(error: StoreAccessError) -> str:
    """Return where a password may stand, or came from."""
    if error.code == "NOAUTH":
        return " in the URL, or the password in a file that REDIS_PASSWORD_FILE names"
    used = next((name for name in _PASSWORD_FILES if os.environ.get(name)), None)
    if error.code == "WRONGPASS" and used:
        return f" (unless the URL has a password, it is read from {used})"
    return ""
