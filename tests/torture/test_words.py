"""Lines of logs in the report of a campaign."""

from askeld.torture.words import in_words


def test_a_line_is_its_event_and_its_facts():
    line = {"event": "handler_failed", "level": "error", "at": 5, "run_id": "r 1", "pid": 7}
    assert in_words(line) == "handler_failed: run_id r 1, pid 7"


def test_of_a_traceback_its_last_line_is_shown():
    raised = "Traceback (most recent call last):\n  File …\nValueError: no\n"
    assert in_words({"event": "crashed", "exception": raised}) == "crashed: ValueError: no"


def test_nothing_but_an_event_and_what_is_long():
    assert in_words({"event": "crashed", "level": "error"}) == "crashed"
    assert len(in_words({"event": "crashed", "error": "x\n" * 900})) < 250
