"""``askel dev``: a worker and a private Redis in this terminal, for development."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from askel import App
from askeld.cli.arguments import add_redis_options, given_url, load_app
from askeld.cli.worker import add_worker_options, config_from, given, log_level
from askeld.config import DEFAULT_URL, DEV_FOLDER, DEV_URL_FILE
from askeld.demo import example_folder
from askeld.embedded import EmbeddedServer
from askeld.observability import configure_logs
from askeld.process import leave, serve

EPILOG = f"""\
Without an app the onboarding example is served. A private Redis is started unless --redis or
REDIS_URL names one; its data is kept in {DEV_FOLDER}/redis, and its address is written to
{DEV_FOLDER}/{DEV_URL_FILE}, where the other verbs find it while this one runs.

examples:
  askel dev
  askel dev shop:app
"""

#: Short, because here a worker is restarted often, and waiting for its work to come back is a bore.
_LEASES = {"lease_ms": 2_000, "claim_idle_ms": 2_500}
#: Whoever develops may stop in a debugger for as long as they like.
_NO_LIMIT = {"max_block_ms": 0}


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("app", nargs="?", help="module:app; the onboarding example by default")
    add_redis_options(parser)
    add_worker_options(parser)
    parser.set_defaults(call=lambda options: leave(_dev(options)), verb=verb)


def _dev(options: argparse.Namespace) -> int:
    app = load_app(options.app) if options.app else _sample()
    url = given_url(options)
    config = config_from(options, url or DEFAULT_URL, **_NO_LIMIT, **_leases(options))
    configure_logs(log_level(options))
    if url:
        _greet(app)
        return serve(app, config, options.verb)
    folder = _private_folder(Path(DEV_FOLDER))
    with EmbeddedServer(folder / "redis") as server, _recorded(folder / DEV_URL_FILE, server.url):
        _greet(app, server)
        return serve(app, msgspec.structs.replace(config, url=server.url), options.verb)


def _leases(options: argparse.Namespace) -> dict[str, int]:
    """Return the short leases, unless somebody chose one of them: the other has to fit."""
    return {} if any(given(options, name)[1] for name in ("lease", "claim-idle")) else _LEASES


def _sample() -> App:
    sys.path.insert(0, str(example_folder().parent))
    return load_app("onboarding.app:app")


def _private_folder(folder: Path) -> Path:
    """Make the folder for the data, which is nobody else's business: no user's, no repository's."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    return folder


@contextmanager
def _recorded(path: Path, url: str) -> Iterator[None]:
    """Keep the address in *path*, for this user alone, while the server runs."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(url + "\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _greet(app: App, private: EmbeddedServer | None = None) -> None:
    """Say on standard error what can be done now, and where."""
    where, by_hand, afterwards = "the Redis that --redis or REDIS_URL names", [], ""
    if private is not None:
        where = f"a private Redis at {private.url}"
        option = "-s" if private.url.startswith("unix://") else "-u"
        by_hand = [f"  redis-cli {option} {private.url.removeprefix('unix://')}"]
        afterwards = f"; the data stays in {DEV_FOLDER}/redis"
    workflow = next(iter(sorted(app.workflows)), "WORKFLOW")
    lines = [
        f"{app.name} is served on {where}",
        f"in another terminal, {'in this directory' if private else 'with the same Redis'}:",
        f"  {f'askel run {workflow} JSON':30} start a run and wait for its result",
        f"  {'askel ls':30} list runs",
        f"  {'askel history RUN':30} see everything that happened",
        *by_hand,
        f"Ctrl-C stops everything{afterwards}",
    ]
    sys.stderr.write("".join(f"{line}\n" for line in lines))
