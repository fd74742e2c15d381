"""What several verbs share: the Redis options, JSON input, durations, loading an app."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from askel import (
    App,
    AskelError,
    Codec,
    InvalidOptionError,
    PayloadError,
    RedisWorkflowService,
    RegistrationError,
    duration_ms,
)
from askel.state import connect
from askeld.config import DEV_FOLDER, DEV_URL_FILE, redis_url, url_source

#: What the command line reads payloads by: it has no keys, and shows sealed ones as they stand.
SHOWN = Codec(lenient=True)
#: Variables that name a Redis, or a file with its address.
_URL_VARIABLES = ("ASKEL_REDIS_URL", "ASKEL_REDIS_URL_FILE", "REDIS_URL", "REDIS_URL_FILE")


def add_redis_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--redis`` and ``--prefix``."""
    parser.add_argument("--redis", metavar="URL", help="Redis to use [REDIS_URL]")
    parser.add_argument(
        "--prefix",
        default=os.environ.get("ASKEL_PREFIX") or "workflows",
        help="key prefix [ASKEL_PREFIX, default workflows]",
    )


def given_url(
    options: argparse.Namespace, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Return the URL that flag, environment or secret file name; a running dev is not asked."""
    if options.redis or any(environment.get(name) for name in _URL_VARIABLES):
        return _checked(redis_url(options.redis, environment), options, environment)
    return None


def _checked(
    url: str | None, options: argparse.Namespace, environment: Mapping[str, str]
) -> str | None:
    """Return *url*; what it must not be is said with the place it came from.

    Raises:
        InvalidOptionError: It is no address of a Redis.
    """
    try:
        if url is not None:
            connect(url)  # opens nothing
    except InvalidOptionError as error:
        raise InvalidOptionError(f"{url_source(options.redis, environment)}: {error}") from None
    return url


def required_url(options: argparse.Namespace) -> str:
    """Return the URL of the Redis to use, or say how to name one."""
    url = _checked(redis_url(options.redis), options, os.environ)
    if url is None:
        msg = "no Redis: set REDIS_URL or pass --redis URL, or start one here with 'askel dev'"
        raise InvalidOptionError(msg)
    if given_url(options) is None and url.startswith("unix://") and not _socket_of(url).exists():
        msg = (
            "no Redis: the 'askel dev' of this directory is gone "
            f"({DEV_FOLDER}/{DEV_URL_FILE} is what it left); start it again"
        )
        raise InvalidOptionError(msg)
    return url


def _socket_of(url: str) -> Path:
    return Path(unquote(url.removeprefix("unix://")))


def service_for(options: argparse.Namespace) -> RedisWorkflowService:
    """Return a service on the Redis of *options*; a verb does not wait long for it."""
    return RedisWorkflowService(
        required_url(options), key_prefix=options.prefix, codec=SHOWN, resend_s=2.0
    )


@asynccontextmanager
async def reading(options: argparse.Namespace) -> AsyncIterator[RedisWorkflowService]:
    """Provide a service for looking: nothing is written, so that a replica and a reader will do."""
    service = service_for(options)
    try:
        yield service
    finally:
        await service.close()


def json_argument(text: str) -> Any:
    """Return the value of JSON *text*; ``-`` reads standard input.

    Raises:
        PayloadError: It is not JSON.
    """
    raw = sys.stdin.buffer.read() if text == "-" else text
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError) as error:
        msg = f'the input is not JSON ({error}): write it as \'{{"email": "a@b.c"}}\''
        raise PayloadError(msg) from error


def duration_argument(name: str, text: str) -> int:
    """Return the milliseconds of the duration *text*, which was given as *name*.

    Raises:
        InvalidOptionError: It is no duration; the message names the option.
    """
    try:
        return duration_ms(text)
    except InvalidOptionError:
        msg = f"{name} {text!r:.80} is no time: write it as 500ms, 5s, 5min, 2h or 3d"
        raise InvalidOptionError(msg) from None


def load_app(path: str) -> App:
    """Return the App at ``module:attribute``, found from the current directory.

    Raises:
        RegistrationError: There is no such module or attribute, or it is no App.
        AskelError: The module is there, and its own code failed: perhaps only this time.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        msg = f"{path!r} names no app: write it as module:app, for example shop:app"
        raise RegistrationError(msg)
    if module_name.endswith(".py"):
        meant = module_name.removesuffix(".py").removeprefix("./").replace("/", ".")
        msg = f"{path!r} names a file: write the module, as {meant}:{attribute}"
        raise RegistrationError(msg)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        hint = f" in {here}" if error.name == module_name.partition(".")[0] else _place(error)
        msg = f"cannot import {module_name!r}: {error}{hint}"
        is_named = f"{module_name}.".startswith(f"{error.name}.")
        raise (RegistrationError if is_named else AskelError)(msg) from error
    except (Exception, SystemExit) as error:
        what = " ".join(str(error).split())
        msg = f"importing {module_name!r} failed: {type(error).__name__}: {what}{_place(error)}"
        raise AskelError(msg) from error
    app = getattr(module, attribute, None)
    if not isinstance(app, App):
        kind = type(app).__name__
        article = "an" if kind[0] in "aeiouAEIO" else "a"
        found = "nothing of that name" if app is None else f"{article} {kind}"
        msg = f"{path!r} is no askel App: {module_name} has {found}"
        raise RegistrationError(msg)
    return app


def _place(error: BaseException) -> str:
    """Return the line that *error* is about as `` (file:line)``, of this directory if possible."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen")
        and frame.filename not in {__file__, importlib.__file__}
    ]
    here = f"{Path.cwd()}{os.sep}"
    ours = [frame for frame in frames if frame.filename.startswith(here)] or frames
    return f" ({ours[-1].filename.removeprefix(here)}:{ours[-1].lineno})" if ours else ""
