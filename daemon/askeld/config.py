"""Settings of a worker: flag, else environment, else default; checked once."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from askel import AskelError, InvalidOptionError, duration_text
from askel.state import check_compat

DEFAULT_URL = "redis://127.0.0.1:6379/0"
#: Where ``askel dev`` keeps its data, and the name of the file with its address.
DEV_FOLDER = ".askel"
DEV_URL_FILE = "dev.url"
_HIGHEST_PORT = 65_535


#: Where health is told unless ``--http`` says otherwise.
DEFAULT_HTTP = "127.0.0.1:9090"
#: Sets of leases by the name of their profile. ``fast``: a dead worker's step is back within 3 s.
PROFILES: Mapping[str, Mapping[str, int]] = {
    "default": {},
    "fast": {"lease_ms": 1_500, "claim_idle_ms": 2_000, "sweep_ms": 250},
}


#: What a worker may do when Redis has lost its data while it works.
ON_WIPED_STORE = ("recreate", "exit")


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How one worker process behaves. Times are in milliseconds.

    A dead worker's work is back within ``claim_idle_ms`` and one sweep; ``lease_ms`` is how long
    an activation holds the run lock between loading a run and its first turn. A handler that
    blocks the event loop is named after ``warn_block_ms``, and the process ends at
    ``max_block_ms`` (0: neither). A loop that is later than it said by ``watchdog_ms`` makes the
    worker unhealthy. ``on_wiped_store`` says whether it goes on (``recreate``) or ends (``exit``)
    when Redis has lost its data. ``cancel_grace_ms`` is how long a handler may take to end when it
    is cancelled. Every ``vitals_ms`` the log says, at debug, how many tasks and threads there
    are. ``http`` is where health is told (empty: nowhere); if ``http_required``, a port
    that is in use is an error.
    """

    url: str = DEFAULT_URL
    prefix: str = "workflows"
    queues: tuple[str, ...] = ("",)
    concurrency: int = 500
    threads: int = 40
    batch: int = 100
    block_ms: int = 2_000
    lease_ms: int = 10_000
    claim_idle_ms: int = 12_000
    sweep_ms: int = 1_000
    linger_ms: int = 10_000
    max_lingering: int = 1_000
    drain_ms: int = 25_000
    max_deliveries: int = 5
    max_payload: int = 1024 * 1024
    unknown_after_ms: int = 600_000
    not_found_after_ms: int = 25_000
    retention_ms: int = 30_000
    warn_block_ms: int = 1_000
    max_block_ms: int = 20_000
    watchdog_ms: int = 30_000
    cancel_grace_ms: int = 2_000
    vitals_ms: int = 10_000
    http: str = ""
    http_required: bool = False
    allow_unsafe: bool = False
    on_wiped_store: str = "recreate"
    compat: str | None = None
    clock_offset_ms: int = 0
    consumer: str = ""

    def __repr__(self) -> str:
        """Name what is no secret: the address may hold a password."""
        return f"<{type(self).__name__} prefix={self.prefix!r} queues={self.queues!r}>"

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another."""
        check_compat(self.compat)
        if self.on_wiped_store not in ON_WIPED_STORE:
            msg = f"on_wiped_store {self.on_wiped_store!r:.80}: give recreate or exit"
            raise InvalidOptionError(msg)
        times = ("block_ms", "lease_ms", "sweep_ms", "retention_ms", "watchdog_ms", "vitals_ms")
        positive = ("concurrency", "threads", "batch", *times)
        for name in positive:
            if getattr(self, name) < 1:
                msg = f"{_option(name)} must be at least 1{'ms' if name.endswith('_ms') else ''}"
                raise InvalidOptionError(msg)
        if self.claim_idle_ms <= self.lease_ms:
            idle, lease = duration_text(self.claim_idle_ms), duration_text(self.lease_ms)
            msg = (
                f"--claim-idle ({idle}) must be longer than --lease ({lease}), "
                "or live work is taken away"
            )
            raise InvalidOptionError(msg)
        if 0 < self.max_block_ms <= self.warn_block_ms:
            most, least = duration_text(self.max_block_ms), duration_text(self.warn_block_ms)
            msg = (
                f"--max-block ({most}) must be longer than --warn-block ({least}), "
                "or 0s for no limit"
            )
            raise InvalidOptionError(msg)

    @property
    def renew_ms(self) -> int:
        """How often entries in work are renewed."""
        return max(self.lease_ms // 3, 1)


def _option(name: str) -> str:
    """Return the option of the command line that sets the field *name*."""
    return f"--{name.removesuffix('_ms').replace('_', '-')}"


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``ADDRESS:PORT``.

    Raises:
        InvalidOptionError: It is none.
    """
    host, colon, port = text.rpartition(":")
    good = colon and port.isascii() and port.isdigit() and int(port) <= _HIGHEST_PORT
    if not good or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        msg = f"{text!r:.80} is no address: write it as 127.0.0.1:9090, [::1]:9090 or off"
        raise InvalidOptionError(msg)
    return host.strip("[]"), int(port)


def new_consumer() -> str:
    """Return a consumer name that is unique to this process start and never used again."""
    host = "".join(c if c.isalnum() or c in "._-" else "-" for c in socket.gethostname())[:40]
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


def redis_url(flag: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the URL from the flag, the environment, a secret file, or ``.askel/dev.url``.

    Of a URL or a password in a secret file the *name* of the file is returned, as an address that
    the connection reads again whenever it logs in.

    Raises:
        AskelError: A file that was named cannot be read.
    """
    url = flag
    for name in ("ASKEL_REDIS_URL", "REDIS_URL"):
        if url:
            break
        url = environment.get(name)
        if not url and (path := environment.get(f"{name}_FILE")):
            return f"file://{quote(_readable(f'{name}_FILE', path))}"
    if url:
        for name in ("ASKEL_REDIS_PASSWORD_FILE", "REDIS_PASSWORD_FILE"):
            if path := environment.get(name):
                return _with_password_file(url, _readable(name, path))
        return url
    recorded = Path(DEV_FOLDER) / DEV_URL_FILE
    return recorded.read_text("utf-8").strip() if recorded.is_file() else None


def url_source(flag: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Return where `redis_url` takes the URL from, for a message."""
    if flag:
        return "--redis"
    names = (f"{name}{end}" for name in ("ASKEL_REDIS_URL", "REDIS_URL") for end in ("", "_FILE"))
    return next((name for name in names if environment.get(name)), f"{DEV_FOLDER}/{DEV_URL_FILE}")


def _readable(name: str, path: str) -> str:
    """Return the absolute *path* of the one-line text file that the variable *name* names."""
    try:
        Path(path).read_text("utf-8")
    except OSError as error:
        raise AskelError(f"{name}: cannot read {path}: {error.strerror}") from None
    except ValueError:  # it holds the whole secret
        raise AskelError(f"{name}: {path} is not UTF-8 text") from None
    return str(Path(path).absolute())


def _with_password_file(url: str, path: str) -> str:
    """Return *url* with the password in the file at *path*, unless it has one already."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url  # refused where it is read
    if parts.password or "password" in parts.query or parts.scheme == "file":
        return url
    return f"{url}{'&' if parts.query else '?'}password_file={quote(path, safe='')}"
