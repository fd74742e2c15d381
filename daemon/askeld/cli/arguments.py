"""What several verbs share: the Redis options, JSON input, loading an app."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from askel import App, InvalidOptionError, PayloadError, RedisWorkflowService, RegistrationError
from askeld.config import redis_url


def add_redis_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--redis`` and ``--prefix``."""
    parser.add_argument("--redis", metavar="URL", help="Redis to use [REDIS_URL]")
    parser.add_argument(
        "--prefix",
        default=os.environ.get("ASKEL_PREFIX", "workflows"),
        help="key prefix [ASKEL_PREFIX, default workflows]",
    )


def required_url(options: argparse.Namespace) -> str:
    """Return the URL of the Redis to use, or say how to name one."""
    url = redis_url(options.redis)
    if url is None:
        msg = "no Redis: set REDIS_URL or pass --redis URL, or start one here with 'askel dev'"
        raise InvalidOptionError(msg)
    return url


def service_for(options: argparse.Namespace) -> RedisWorkflowService:
    """Return a service on the Redis of *options*; a verb does not wait long for it."""
    return RedisWorkflowService(required_url(options), key_prefix=options.prefix, resend_s=2.0)


def json_argument(text: str) -> Any:
    """Return the value of JSON *text*; ``-`` reads standard input.

    Raises:
        PayloadError: It is not JSON.
    """
    raw = sys.stdin.read() if text == "-" else text
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError) as error:
        msg = f'the input is not JSON ({error}): write it as \'{{"email": "a@b.c"}}\''
        raise PayloadError(msg) from error


def load_app(path: str) -> App:
    """Return the App at ``module:attribute``, found from the current directory.

    Raises:
        RegistrationError: There is no such module or attribute, or it is no App.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        msg = f"{path!r} names no app: write it as module:app, for example shop.workflows:app"
        raise RegistrationError(msg)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        msg = f"cannot import {module_name!r}: {error}"
        raise RegistrationError(msg) from error
    except Exception as error:
        msg = f"importing {module_name!r} failed: {type(error).__name__}: {error}"
        raise RegistrationError(msg) from error
    app = getattr(module, attribute, None)
    if not isinstance(app, App):
        found = "nothing of that name" if app is None else f"a {type(app).__name__}"
        msg = f"{path!r} is no askel App: {module_name} has {found}"
        raise RegistrationError(msg)
    return app
