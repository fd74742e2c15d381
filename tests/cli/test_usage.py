"""Wrong input: one line on standard error, the documented exit code, nothing started."""

import shlex
from importlib.metadata import version

import pytest
from tests.helpers.keys import sync_client

from askeld.cli import VERBS

MISTAKES = {
    "nonesuch": "'nonesuch'",
    "--nonesuch": "--nonesuch",
    "run": "WORKFLOW",
    "run checkout {bad": "not JSON",
    "run checkout ''": "not JSON",
    "run '' 3": "workflow name ''",
    "run checkout 3 --timeout soon": "--timeout 'soon' is no time: write it as",
    "run checkout 3 --timeout 5": "--timeout '5' is no time",
    "run checkout 3 --timeout=-1s": "--timeout '-1s' is no time",
    "run checkout 3 --run-id 'a b'": "run id 'a b' is not allowed",
    "run checkout 3 --nonesuch": "--nonesuch",
    "start checkout {bad": "not JSON",
    "start checkout '\"\\ud800\"'": "not JSON",
    "start checkout 3 --if-exists maybe": "--if-exists",
    "start checkout 3 --run-id ''": "run id '' is not allowed",
    "start checkout 3 --prefix 'a b'": "key prefix 'a b'",
    "send": "TYPE",
    "send run.start workflow": "field 'workflow' has no value",
    "send run.start workflow checkout input": "field 'input' has no value",
    "send nonesuch workflow x": "type 'nonesuch' is unknown; it is one of",
    "send '' workflow x": "type '' is unknown",
    "send run.start input 3": "run.start: field 'workflow' is missing",
    "send run.start workflow checkout workflow other": "a field is given twice",
    "send run.start workflow checkout input {bad": "input: not valid JSON",
    "send run.start workflow checkout v 7": "v 7 is not known",
    "send run.cancel run_id 'a b'": "run id 'a b' is not allowed",
    "send run.cancel run_id x --queue 'a b'": "queue 'a b' is not allowed",
    "send step.complete run_id x step_name y attempt one": "field 'attempt' must be a number",
    "show": "RUN",
    "show 'a b'": "run id 'a b' is not allowed",
    "history a:b": "run id 'a:b' is not allowed",
    "ls extra": "extra",
    "ls --status bogus": "'bogus' (choose from",
    "ls --limit 0": "limit=0: give 1 to 1000",
    "ls --limit 1001": "limit=1001: give 1 to 1000",
    "ls --limit many": "--limit",
    "ls --cursor zz": "cursor 'zz' is not one",
    "ls --prefix 'a b'": "key prefix 'a b'",
    "demo --runs 1": "--runs 1: give 2 to 100000",
    "demo --runs 100001": "--runs 100001: give 2 to 100000",
    "demo --runs many": "--runs",
    "demo extra": "extra",
    "worker": "which app? write askel worker module:app, or set ASKEL_APP",
    "worker nowhere": "'nowhere' names no app: write it as module:app",
    "worker :app": "names no app",
    "worker tests.apps.kiosk:": "names no app",
    "worker tests.apps.kiosk:app --concurrency none": "--concurrency 'none' is no count",
    "worker tests.apps.kiosk:app --concurrency 0": "--concurrency '0' is no count",
    "worker tests.apps.kiosk:app --threads=-1": "--threads '-1' is no count",
    "worker tests.apps.kiosk:app --max-deliveries 0": "--max-deliveries '0' is no count",
    "worker tests.apps.kiosk:app --lease soon": "--lease 'soon' is no time: write it as 500ms",
    "worker tests.apps.kiosk:app --lease 0s": "lease",
    "worker tests.apps.kiosk:app --compat node": "--compat: compat='node' is unknown",
    "worker tests.apps.kiosk:app --drain-timeout 9": "--drain-timeout '9' is no time",
    "worker tests.apps.kiosk:app --lease 1h": "--claim-idle (12s) must be longer than --lease (1h)",
    "worker tests.apps.kiosk:app --max-block 1s": "--max-block (1s) must be longer than --warn-bl",
    "worker tests.apps.kiosk:app --watchdog 0s": "--watchdog must be at least 1ms",
    "worker tests.apps.kiosk:app --bogus": "askel worker: unrecognized arguments: --bogus (see as",
    "worker tests.apps.kiosk:app --max-payload 3": "--max-payload '3' is less than 1KiB",
    "worker tests/apps/kiosk.py:app": "names a file: write the module, as tests.apps.kiosk:app",
    "list": "no verb 'list': did you mean ls?",
    "histroy": "did you mean history?",
    "send run.advance run_id x": "run.advance is sent by askel alone: send one of run.cancel",
    "send timer.fire run_id x": "timer.fire is sent by askel alone",
    "send run.approve run_id x": "run.approve is not supported by this version",
    "send step.heartbeat run_id x": "step.heartbeat is not supported by this version",
    "worker tests.apps.kiosk:app --http 9090": "--http '9090' is no address: write it as 127.0",
    "worker tests.apps.kiosk:app --http ::1:90": "--http '::1:90' is no address",
    "worker tests.apps.kiosk:app --profile slow": "'slow' (choose from",
    "health --http here": "'here' is no address",
    "health --http off": "the workers of this environment tell health nowhere",
    "health extra": "extra",
    "worker tests.apps.kiosk:app --log-level loud": "'loud' (choose from",
    "dev tests.apps.kiosk:app --lease soon": "--lease 'soon' is no time",
}
SETTINGS = {
    "ASKEL_CONCURRENCY": ("x", "ASKEL_CONCURRENCY 'x' is no count: give 1 or more"),
    "ASKEL_THREADS": ("0", "ASKEL_THREADS '0' is no count"),
    "ASKEL_MAX_DELIVERIES": ("2.5", "ASKEL_MAX_DELIVERIES '2.5' is no count"),
    "ASKEL_LEASE": ("soon", "ASKEL_LEASE 'soon' is no time: write it as 500ms"),
    "ASKEL_COMPAT": ("node", "ASKEL_COMPAT: compat='node' is unknown: give None or 'pikku'"),
    "ASKEL_CLAIM_IDLE": ("1ms", "--claim-idle (1ms) must be longer than --lease ("),
    "ASKEL_DRAIN_TIMEOUT": ("-1s", "ASKEL_DRAIN_TIMEOUT '-1s' is no time"),
    "ASKEL_PROFILE": ("slow", "ASKEL_PROFILE 'slow' is no profile: give one of default, fast"),
    "ASKEL_HTTP": ("x", "ASKEL_HTTP 'x' is no address"),
    "ASKEL_LOG_LEVEL": ("loud", "ASKEL_LOG_LEVEL 'loud' is no level: give one of debug"),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(call, line, own_server):
    ran = call(*shlex.split(line), REDIS_URL=own_server.url)
    assert ran.code == 2
    assert MISTAKES[line] in ran.complaint
    assert ran.complaint.startswith("askel")
    with sync_client(own_server.url) as redis:
        assert redis.dbsize() == 0


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("verb", ["worker", "dev"])
def test_a_wrong_variable_is_named(call, own_server, tmp_path, verb, name):
    value, message = SETTINGS[name]
    ran = call(verb, "tests.apps.kiosk:app", **{name: value, "REDIS_URL": own_server.url})
    assert ran.code == 2
    assert message in ran.complaint
    ran = call(verb, "tests.apps.kiosk:app", **{name: value, "REDIS_URL": ""})
    assert ran.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_flag_wins_over_its_variable(call, own_server):
    ran = call(
        *("worker", "tests.apps.kiosk:app", "--lease", "1y"),
        REDIS_URL=own_server.url,
        ASKEL_LEASE="soon",
    )
    assert "--lease '1y'" in ran.complaint


@pytest.mark.parametrize("line", ["nonesuch", "run checkout {bad", "send run.start workflow"])
def test_a_mistake_is_one_line_of_the_process_as_well(askel, own_server, line):
    ran = askel(*shlex.split(line), REDIS_URL=own_server.url)
    assert (ran.code, bool(ran.complaint)) == (2, True)


@pytest.mark.parametrize(
    "stdin", [b"", b"{bad", b"\xd0\xff", b'{"a": 1} trailing'], ids=["empty", "bad", "bytes", "two"]
)
def test_standard_input_that_is_no_json_is_a_mistake(askel, own_server, stdin):
    ran = askel("start", "checkout", "-", stdin=stdin, REDIS_URL=own_server.url)
    assert ran.code == 2
    assert ran.complaint.startswith("askel start: the input is not JSON (")


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_has_an_example_of_it(call, verb):
    ran = call(verb, "--help")
    assert (ran.code, ran.err) == (0, "")
    _, _, examples = ran.out.partition("example")
    assert f"  askel {verb}" in examples
    assert all(len(line) <= 110 for line in ran.out.splitlines())


@pytest.mark.parametrize("verb", VERBS)
def test_what_reads_can_print_json(call, verb):
    help_text = call(verb, "--help").out
    assert ("--json" in help_text) is (verb not in {"worker", "dev"})


def test_help_of_the_program_names_every_verb_and_exit_code(askel):
    ran = askel("--help")
    assert ran.code == 0
    for verb in VERBS:
        assert f"\n    {verb} " in ran.out
    codes = "0 ok, 1 error, 2 usage, 3 not found, 4 refused, 5 timeout, 6 unhealthy"
    assert codes in " ".join(ran.out.split())


def test_without_a_verb_it_prints_its_help_and_exits_with_2(call):
    ran = call()
    assert (ran.code, ran.err) == (2, "")
    assert ran.out == call("--help").out


def test_the_version_is_the_distributions(askel):
    assert askel("--version").out == f"askel {version('askel')}\n"
