"""The page on running a worker: its settings, events, codes and limits are those there are."""

import argparse
import json
import re
import signal

import msgspec
import pytest
from tests.helpers.markdown import Page
from tests.helpers.workers import ROOT

from askel.durations import duration_ms
from askeld.cli.exits import Exit
from askeld.cli.worker import _COUNTS, _DURATIONS, add_worker_options, config_from
from askeld.config import DEFAULT_HTTP, PROFILES, WorkerConfig
from askeld.health import Health, Liveness, LoopState, Readiness

PAGE = Page(ROOT / "docs" / "worker.md")
ROWS = {
    flag: (variable, default)
    for flag, variable, default in re.findall(
        r"^\| `--([a-z-]+)` \| `([A-Z_]+)` \| ([^|]*?) ?\|", PAGE.prose, re.MULTILINE
    )
}
#: Options with a page of their own, or for tests.
ELSEWHERE = {"compat", "allow-unsafe-redis", "max-payload"}


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefix", default="p")
    add_worker_options(parser)
    return parser


def test_the_table_has_every_option():
    known = {word[2:] for action in options()._actions for word in action.option_strings}
    assert set(ROWS) == {name for name in known if len(name) > 1} - ELSEWHERE - {"help", "prefix"}


def test_the_defaults_are_those_of_the_table():
    config = WorkerConfig()
    for name, (field, _) in _DURATIONS.items():
        assert duration_ms(ROWS[name][1]) == getattr(config, field), name
    for name in _COUNTS:
        assert int(ROWS[name][1]) == getattr(config, name.replace("-", "_")), name
    assert ROWS["http"][1] == DEFAULT_HTTP
    assert (ROWS["profile"][1], ROWS["log-level"][1]) == ("default", "info")


def test_the_variables_are_read(monkeypatch):
    for name, (variable, _) in ROWS.items():
        if name in _DURATIONS:
            monkeypatch.setenv(variable, "77s")
    monkeypatch.setenv("ASKEL_CLAIM_IDLE", "78s")
    monkeypatch.setenv("ASKEL_MAX_BLOCK", "79s")
    monkeypatch.setenv("ASKEL_HTTP", "[::1]:1")
    monkeypatch.setenv("ASKEL_QUEUES", "a,b")
    config = config_from(options().parse_args([]), "redis://h")
    for name, (field, _) in _DURATIONS.items():
        expected = {"claim-idle": 78_000, "max-block": 79_000}.get(name, 77_000)
        assert getattr(config, field) == expected, name
    assert (config.http, config.http_required) == ("[::1]:1", True)
    assert config.queues == ("", "a", "b")


def test_the_profile_is_what_the_page_says_and_flags_go_before_it(monkeypatch):
    said = dict(re.findall(r"(lease|claim idle|sweep) ([\d.]+m?s)", PAGE.prose))
    fast = config_from(options().parse_args(["--profile", "fast"]), "redis://h")
    assert {
        "lease_ms": duration_ms(said["lease"]),
        "claim_idle_ms": duration_ms(said["claim idle"]),
        "sweep_ms": duration_ms(said["sweep"]),
    } == PROFILES["fast"]
    assert fast.claim_idle_ms == PROFILES["fast"]["claim_idle_ms"]
    monkeypatch.setenv("ASKEL_PROFILE", "fast")
    own = config_from(options().parse_args(["--claim-idle", "5s"]), "redis://h")
    assert (own.claim_idle_ms, own.lease_ms) == (5_000, fast.lease_ms)
    default = WorkerConfig()
    within = re.search(
        r"by default within (\d+) s, with `--profile fast` within ([\d.]+) s", PAGE.text
    )
    assert [float(word) * 1_000 for word in within.groups()] == [
        default.claim_idle_ms + default.sweep_ms,
        fast.claim_idle_ms + fast.sweep_ms,
    ]


def test_the_events_of_the_page_are_logged():
    sources = "".join(path.read_text() for path in (ROOT / "daemon").rglob("*.py"))
    events = re.findall(r"`([a-z]+(?:_[a-z]+)+)`", PAGE.prose)
    assert len(set(events)) > 6
    for event in set(events):
        assert f'"{event}"' in sources, event


@pytest.mark.parametrize(("number", "kind"), [(0, Liveness), (1, Readiness)])
def test_the_answers_have_the_fields_of_the_page(number, kind):
    shown = [block.text for block in PAGE.blocks if block.language == "json"][number]
    value = msgspec.json.decode(shown, type=kind, strict=True)
    assert set(json.loads(shown)) == {*kind.__struct_fields__}
    if kind is Liveness:
        assert set(json.loads(shown)["loops"]["timers"]) == {*LoopState.__struct_fields__}
        assert value.status in {"ok", "stuck"}


def test_the_first_reason_is_that_it_starts():
    assert Health("w", 1).obstacles() == ["starting"]


def test_the_exit_codes_are_those_of_the_command_line():
    table = re.findall(r"^\| ([\d, ]+) \| ", PAGE.prose, re.MULTILINE)
    codes = {int(word) for row in table for word in row.split(",")}
    signals = {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    assert codes == {Exit.OK, Exit.ERROR, Exit.USAGE, Exit.REFUSED, *signals}


def test_links_lead_somewhere():
    for link in PAGE.links:
        assert (PAGE.path.parent / link.partition("#")[0]).exists(), link
