"""``askel worker``: serve an app until told to stop."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from askel import InvalidOptionError, size_bytes
from askel.state import check_compat
from askeld.cli.arguments import (
    add_redis_options,
    duration_argument,
    load_app,
    required_url,
)
from askeld.config import DEFAULT_HTTP, ON_WIPED_STORE, PROFILES, WorkerConfig, parse_address
from askeld.observability import configure_logs
from askeld.process import leave, serve

EPILOG = """\
examples:
  askel worker shop:app
  askel worker shop:app --queue warehouse --concurrency 50
  REDIS_URL=redis://10.0.0.5:6379 python -m askeld shop:app

SIGTERM, SIGINT and SIGHUP drain: nothing new is read, running steps end, the rest is handed
back, exit 0. A second signal stops at once. Health is told at http://ADDRESS:PORT/healthz and
/readyz; `askel health` asks there.
"""

#: Durations a worker takes: option -> (field of WorkerConfig, help).
_DURATIONS = {
    "lease": ("lease_ms", "how long an owner may be silent (10s)"),
    "claim-idle": ("claim_idle_ms", "silence after which work is taken over (12s)"),
    "sweep": ("sweep_ms", "how often is looked for work to take over (1s)"),
    "linger": ("linger_ms", "how long a waiting run is kept in memory (10s)"),
    "drain-timeout": ("drain_ms", "how long running steps may take at the end (25s)"),
    "unknown-after": ("unknown_after_ms", "give up on a name no worker has (10min)"),
    "retention-every": ("retention_ms", "how often retention policies are applied (30s)"),
    "not-found-after": ("not_found_after_ms", "give up on a run that is not there (25s)"),
    "warn-block": ("warn_block_ms", "name what blocks the event loop for so long; 0s: never (1s)"),
    "max-block": ("max_block_ms", "end the process whose loop is blocked; 0s: never (20s)"),
    "watchdog": ("watchdog_ms", "how late a loop may be before the worker is unhealthy (30s)"),
}
_COUNTS = {
    "concurrency": "entries worked on at a time (500)",
    "threads": "threads for steps that are not async (40)",
    "max-deliveries": "deliveries of a command that kills its worker (5)",
}

_LEAST_PAYLOAD = 1_024
_LEVELS = ("debug", "info", "warning", "error")


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("app", nargs="?", default=os.environ.get("ASKEL_APP"), help="module:app")
    add_redis_options(parser)
    add_worker_options(parser)
    parser.set_defaults(call=work, verb=verb)


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that tune a worker; each has its ``ASKEL_…`` variable."""
    parser.add_argument(
        "--queue", action="append", metavar="NAME", help="serve this queue, too (repeatable)"
    )
    parser.add_argument(
        "--max-payload", metavar="SIZE", help="largest payload taken (1MiB) [ASKEL_MAX_PAYLOAD]"
    )
    for name, line in _COUNTS.items():
        parser.add_argument(f"--{name}", metavar="N", help=f"{line} [{_variable(name)}]")
    for name, (_, line) in _DURATIONS.items():
        parser.add_argument(f"--{name}", metavar="TIME", help=f"{line} [{_variable(name)}]")
    parser.add_argument(
        "--profile",
        choices=tuple(PROFILES),
        help="default leases, or fast ones: a dead worker's step is back in 3s [ASKEL_PROFILE]",
    )
    parser.add_argument(
        "--http",
        metavar="ADDRESS:PORT",
        help=f"where to tell health, or off ({DEFAULT_HTTP}) [ASKEL_HTTP]",
    )
    parser.add_argument("--log-level", choices=_LEVELS, help="what to log (info) [ASKEL_LOG_LEVEL]")
    parser.add_argument(
        "--compat",
        metavar="SYSTEM",
        help="pikku: share the prefix with Node services [ASKEL_COMPAT]",
    )
    parser.add_argument(
        "--allow-unsafe-redis", action="store_true", help="accept a Redis that evicts or is old"
    )
    parser.add_argument(
        "--on-wiped-store",
        metavar="WHAT",
        help="recreate (go on, empty) or exit when Redis lost its data [ASKEL_ON_WIPED_STORE]",
    )


def _variable(name: str) -> str:
    return f"ASKEL_{name.replace('-', '_').upper()}"


def config_from(options: argparse.Namespace, url: str, **defaults: int) -> WorkerConfig:
    """Return the settings: flag, else environment, else *defaults*, else those of WorkerConfig."""
    chosen = _profile(*given(options, "profile"))
    settings: dict[str, object] = {**defaults, **chosen, "url": url, "prefix": options.prefix}
    for name in _COUNTS:
        where, text = given(options, name)
        if text is not None:
            settings[name.replace("-", "_")] = _count(where, text)
    for name, (field, _) in _DURATIONS.items():
        where, text = given(options, name)
        if text is not None:
            settings[field] = duration_argument(where, text)
    where, text = given(options, "max-payload")
    if text is not None:
        settings["max_payload"] = _payload(where, text)
    queues = options.queue or [q for q in os.environ.get("ASKEL_QUEUES", "").split(",") if q]
    settings["queues"] = ("", *queues)
    settings["http"], settings["http_required"] = _http(*given(options, "http"))
    settings["compat"] = _compat(*given(options, "compat"))
    settings["on_wiped_store"] = _on_wiped_store(*given(options, "on-wiped-store"))
    settings["allow_unsafe"] = options.allow_unsafe_redis
    settings["clock_offset_ms"] = int(os.environ.get("ASKEL_CLOCK_OFFSET_MS", "0"))
    return WorkerConfig(**settings)  # type: ignore[arg-type]


def given(options: argparse.Namespace, name: str) -> tuple[str, str | None]:
    """Return what was given for an option, and where: by its flag, else by its variable."""
    value = getattr(options, name.replace("-", "_"))
    if value is not None:
        return f"--{name}", str(value)
    return _variable(name), os.environ.get(_variable(name)) or None


def _size(where: str, text: str) -> int:
    try:
        return size_bytes(int(text) if text.isascii() and text.isdigit() else text)
    except (InvalidOptionError, ValueError):
        msg = f"{where} {text!r:.80} is no size: write it as 500000, 64KiB or 1MiB"
        raise InvalidOptionError(msg) from None


def _payload(where: str, text: str) -> int:
    """Return a limit of payloads; one that hardly any payload keeps was meant in another unit."""
    size = _size(where, text)
    if size < _LEAST_PAYLOAD:
        msg = f"{where} {text!r:.80} is less than 1KiB: write it as 500000, 64KiB or 1MiB"
        raise InvalidOptionError(msg)
    return size


def _compat(where: str, text: str | None) -> str | None:
    try:
        return check_compat(text)
    except InvalidOptionError as error:
        raise InvalidOptionError(f"{where}: {error}") from None


def _profile(where: str, text: str | None) -> Mapping[str, int]:
    if text is not None and text not in PROFILES:
        msg = f"{where} {text!r:.80} is no profile: give one of {', '.join(PROFILES)}"
        raise InvalidOptionError(msg)
    return PROFILES[text or "default"]


def _on_wiped_store(where: str, text: str | None) -> str:
    if text is not None and text not in ON_WIPED_STORE:
        msg = f"{where} {text!r:.80}: give {' or '.join(ON_WIPED_STORE)}"
        raise InvalidOptionError(msg)
    return text or ON_WIPED_STORE[0]


def _http(where: str, text: str | None) -> tuple[str, bool]:
    """Return where to tell health (empty: nowhere), and whether somebody asked for that."""
    if text == "off":
        return "", False
    try:
        parse_address(text or DEFAULT_HTTP)
    except InvalidOptionError as error:
        raise InvalidOptionError(f"{where} {error}") from None
    return text or DEFAULT_HTTP, text is not None


def _count(where: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        msg = f"{where} {text!r:.80} is no count: give 1 or more"
        raise InvalidOptionError(msg)
    return int(text)


def log_level(options: argparse.Namespace) -> str:
    """Return the log level of flag or environment.

    Raises:
        InvalidOptionError: The environment names one that does not exist.
    """
    level: str = options.log_level or os.environ.get("ASKEL_LOG_LEVEL") or "info"
    if level not in _LEVELS:
        msg = f"ASKEL_LOG_LEVEL {level!r:.80} is no level: give one of {', '.join(_LEVELS)}"
        raise InvalidOptionError(msg)
    return level


def work(options: argparse.Namespace) -> int:
    """Run a worker until SIGTERM or SIGINT."""
    if not options.app:
        msg = "which app? write askel worker module:app, or set ASKEL_APP"
        raise InvalidOptionError(msg)
    app = load_app(options.app)
    config = config_from(options, required_url(options))
    configure_logs(log_level(options))
    return leave(serve(app, config, options.verb))
