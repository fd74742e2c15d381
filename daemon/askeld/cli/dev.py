"""``askel dev``: a worker and a private Redis in this terminal, for development."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from askel import App
from askeld.cli.arguments import add_redis_options, load_app
from askeld.cli.demo import example_folder
from askeld.cli.worker import add_worker_options, config_from, serve
from askeld.config import DEV_FOLDER, DEV_URL_FILE
from askeld.embedded import EmbeddedServer
from askeld.observability import configure_logs

EPILOG = f"""\
Without an app the onboarding example is served. A private Redis is started unless --redis or
REDIS_URL names one; its data is kept in {DEV_FOLDER}/redis, and its address is written to
{DEV_FOLDER}/{DEV_URL_FILE}, where the other verbs find it while this one runs.

examples:
  askel dev
  askel dev shop.workflows:app
"""


def configure(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("app", nargs="?", help="module:app; the onboarding example by default")
    add_redis_options(parser)
    add_worker_options(parser)
    parser.set_defaults(call=_dev, verb=verb)


def _dev(options: argparse.Namespace) -> int:
    app = load_app(options.app) if options.app else _sample()
    url = options.redis or os.environ.get("ASKEL_REDIS_URL") or os.environ.get("REDIS_URL")
    configure_logs(options.log_level)
    if url:
        return serve(app, config_from(options, url))
    folder = Path(DEV_FOLDER)
    with EmbeddedServer(folder / "redis") as server, _recorded(folder / DEV_URL_FILE, server.url):
        _greet(app, server.url)
        return serve(app, config_from(options, server.url))


def _sample() -> App:
    sys.path.insert(0, str(example_folder().parent))
    return load_app("onboarding.app:app")


@contextmanager
def _recorded(path: Path, url: str) -> Iterator[None]:
    """Keep the address in *path* while the server runs."""
    path.write_text(url + "\n", encoding="utf-8")
    path.chmod(0o600)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _greet(app: App, url: str) -> None:
    workflow = next(iter(sorted(app.workflows)), "WORKFLOW")
    sys.stderr.write(
        f"private Redis at {url}\n"
        f"in another terminal, in this directory:\n"
        f"  askel run {workflow} '{{…}}'    start a run and wait for its result\n"
        f"  askel ls                list runs\n"
        f"  askel history RUN       see everything that happened\n"
        f"Ctrl-C stops everything; the data stays in {DEV_FOLDER}/redis\n"
    )
