"""The page on the data in Redis: it names every key, field and history member, and no others.

A workload of everything that this release does is watched while it runs; what is found is compared
with the tables of the page, both ways. The session with redis-cli is executed.
"""

import re
import shutil
import subprocess
import sys

import pytest
from tests.contract.test_history_shape import ALWAYS, SHAPES
from tests.docs.workload import do_everything
from tests.helpers.keys import KEY_PATTERNS
from tests.helpers.markdown import Page
from tests.helpers.workers import ROOT

from askeld.embedded import EmbeddedServer

PAGE = Page(ROOT / "docs" / "data.md")
_SPAN = re.compile(r"`([^`]+)`")


def section(title):
    """Return the text between a heading and the next one."""
    return re.search(
        rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", PAGE.text, re.MULTILINE | re.DOTALL
    )[1]


def rows(text):
    """Return the cells of the rows of the tables in *text*, without their headings."""
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    lines = [line for table in tables for line in table.splitlines()[2:]]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def spans(cell):
    return _SPAN.findall(cell)


def documented_keys():
    """Return the type of every documented key, by its pattern."""
    found = {}
    for title in ("Keys of a run", "Indexes", "Streams and timers", "Keys of the deployment"):
        for names, kind, *_ in rows(section(title)):
            found |= dict.fromkeys(spans(names), kind)
    return found


def documented_fields():
    """Return the documented fields of each hash, by the pattern of its key."""
    fields = {}
    for title in ("The run hash", "The step hash", "The ctl hash"):
        key = spans(section(title))[0]
        fields[key] = {name for row in rows(section(title)) for name in spans(row[0])}
    key = None
    for first, names, *_ in rows(section("The small hashes")):
        key = spans(first)[0] if spans(first) else key
        fields.setdefault(key, set()).update(spans(names))
    members = re.search(r"`P:step-history:\{stepId\}` is a JSON object: `([^`]+)`", PAGE.text)[1]
    fields["P:step-history:{stepId}"] = set(members.split())
    for key, *_, what in rows(section("Streams and timers")):
        listed = re.search(r": `([a-z_ ]+)`", what)
        if listed:
            fields |= {name: set(listed[1].split()) for name in spans(key)}
    return fields


def named(name, patterns):
    """Return the most particular of *patterns* that fits, or None."""
    for pattern in sorted(patterns, key=_vagueness):
        parts = re.split(r"(\{\w+\})", pattern)
        fits = "".join(".+" if part.startswith("{") else re.escape(part) for part in parts)
        if re.fullmatch(fits, name, re.DOTALL):
            return pattern
    return None


def _vagueness(pattern):
    return (pattern.startswith("{"), -len(re.sub(r"\{\w+\}", "", pattern)))


@pytest.fixture
async def found(redis, redis_url, prefix):
    """Return all that the workload made: the type and the fields of each key, by key."""
    return await do_everything(redis, redis_url, prefix)


@pytest.mark.allow_keys(r".*")
async def test_every_key_and_field_is_on_the_page_and_is_written(found):
    keys, fields = documented_keys(), documented_fields()
    seen = {}
    unnamed = []
    for key, (kind, names) in found.items():
        pattern = named(key, keys)
        if pattern is None or keys[pattern] != kind:
            unnamed.append(f"{key} ({kind})")
            continue
        seen.setdefault(pattern, set())
        for name in names if pattern in fields else ():
            field = named(name, fields[pattern])
            if field is None and pattern not in {"P:dead", "P:commands"}:
                unnamed.append(f"{key}: {name}")
            seen[pattern].add(field)

    assert unnamed == []
    assert set(keys) - set(seen) == set()
    assert {
        key: missing for key, names in fields.items() if (missing := names - seen.get(key, set()))
    } == {}


def test_page_names_the_kinds_of_keys_that_the_library_has():
    kinds = {re.match(r"P:([a-z-]+)", key)[1] for key in documented_keys()}
    reserved = {re.match(r"P:([a-z-]+)", span)[1] for span in spans(section("Reserved"))}
    assert kinds | reserved == set(KEY_PATTERNS)
    assert reserved == {"schedules", "reply"}


def test_history_table_has_the_shapes_that_the_contract_checks():
    table = {}
    for kind, status, always, perhaps in (
        row for row in rows(section("The history")) if len(row) == 4
    ):
        table[kind.strip("`"), status.strip("`") or None] = (
            set(spans(always)),
            set(spans(perhaps)),
        )
    expected = {
        kind: (set(always) - {"status"}, set(perhaps) - set(always))
        for kind, (always, perhaps) in SHAPES.items()
    }
    assert table == expected


def test_every_member_of_the_history_is_explained():
    members = {*ALWAYS, "status"} | {
        name for always, perhaps in SHAPES.values() for name in (*always, *perhaps)
    }
    explained = [
        name for row in rows(section("The history")) if len(row) == 2 for name in spans(row[0])
    ]
    assert sorted(explained) == sorted(members)


MASKS = (
    (re.compile(r"\d{13}-\d+"), "ENTRY"),
    (re.compile(r"\d{13}"), "TIME"),
    (re.compile(r"(?<=order-42:charge card:)[\w-]{8}"), "SUFFIX"),
    (re.compile(r'(?<="id":")[\w-]{8}(?=")'), "SUFFIX"),
    (re.compile(r"(?<=^nonce=)[\w-]+", re.MULTILINE), "NONCE"),
)


def masked(block):
    """Return the commands and outputs of a block, volatile parts masked; hashes have no order."""
    for pattern, word in MASKS:
        block = pattern.sub(word, block)
    parts = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    return [
        (command, sorted(output.splitlines()) if "HGETALL" in command else output.splitlines())
        for command, output in parts
    ]


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="the session needs redis-cli on PATH")
def test_session_with_redis_cli(tmp_path):
    program = tmp_path / "order.py"
    session = [block.text for block in PAGE.blocks if block.language == "console"]
    with EmbeddedServer(port=0, options={"appendonly": "no"}) as server:
        text = PAGE.block("# order.py", "python").replace("redis://localhost:6379", server.url)
        program.write_text(text)
        subprocess.run([sys.executable, program], check=True, timeout=30)
        port = server.url.rpartition(":")[2].partition("/")[0]
        redis_cli = tmp_path / "redis-cli"
        redis_cli.write_text(f'#!/bin/sh\nexec {shutil.which("redis-cli")} -p {port} "$@"\n')
        redis_cli.chmod(0o755)
        shown = [_replayed(block, {"PATH": f"{tmp_path}:/usr/bin:/bin"}) for block in session]
    assert len(session) >= 5
    assert shown == [masked(block) for block in session]


def _replayed(block, env):
    """Execute the commands of a block; return what a terminal would show, masked."""
    lines = []
    for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
        ran = subprocess.run(
            ["/bin/sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env=env,
        )
        lines.append(f"$ {command}\n{ran.stdout}")
    return masked("".join(lines))
