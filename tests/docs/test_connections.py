"""The page on connections, done: its programs run, its options and names are those there are."""

import ast
import inspect
import os
import re
import subprocess
import sys

import pytest
import redis.asyncio
from tests.helpers.keys import sync_client
from tests.helpers.markdown import Page
from tests.helpers.workers import ROOT

import askel
from askel import InvalidOptionError
from askel.state.store.addresses import OwnOptions, read_connection
from askel.state.store.sentinel_addresses import OPTIONS
from askeld.embedded import EmbeddedServer

PAGE = Page(ROOT / "docs" / "connections.md")
PROGRAMS = [block.text for block in PAGE.blocks if block.language == "python"]


def run_program(text):
    """Run a program as a shell of asyncio would; return what it prints."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return f"""
import asyncio, inspect
code = compile({text!r}, "docs", "exec", flags={flags})
outcome = eval(code, {{}})
if inspect.iscoroutine(outcome):
    asyncio.run(outcome)
"""


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_program_prints_what_its_comments_say(number):
    text = PROGRAMS[number]
    expected = re.findall(r"^ *print\(.*\)  # (.+)$", text, re.MULTILINE)
    with EmbeddedServer(port=0, options={"appendonly": "no"}) as server:
        ran = subprocess.run(
            [sys.executable, "-c", run_program(text)],
            env={**os.environ, "REDIS_URL": server.url},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        with sync_client(server.url) as client:
            assert number != len(PROGRAMS) - 1 or client.dbsize() > 0
    assert (ran.stdout.splitlines(), ran.stderr) == (expected, "")
    assert expected


def test_options_of_the_table_exist():
    table = re.findall(r"^\| (`[^|]+) \|", PAGE.prose, re.MULTILINE)
    names = {name for row in table for name in re.findall(r"`([a-z_]+)`", row)}
    known = {
        *inspect.signature(redis.asyncio.Redis).parameters,
        *OwnOptions.__struct_fields__,
        *OPTIONS,
    }
    assert len(names) > 10
    assert names <= known


@pytest.mark.parametrize(
    "form",
    [
        "redis://user:password@host:6379/0",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://user:password@h1:26379,h2:26379/mymaster/0",
    ],
)
def test_addresses_of_the_page_are_understood(form):
    assert form in PAGE.text
    pool, _ = read_connection(form)
    assert pool.connection_kwargs


def test_url_with_tls_of_the_page_is_understood():
    url = PAGE.block("rediss://").strip()
    with pytest.raises(InvalidOptionError, match="/run/secrets/redis-password"):
        read_connection(url)  # all that is wrong with it is that the file is not here
    pool, _ = read_connection(re.sub(r"&password_file=.*", "", url))
    assert pool.connection_kwargs["ssl_check_hostname"] is True


def test_names_of_the_page_exist():
    names = {span for span in PAGE.spans if re.fullmatch(r"[A-Z]\w*(Error|Service)", span)}
    assert names >= {"StoreAccessError", "BlockingCallError", "SyncRedisWorkflowService"}
    assert {name for name in names if not hasattr(askel, name)} == set()
