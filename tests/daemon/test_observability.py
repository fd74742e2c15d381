"""What a driver's log tells, besides the end of runs."""

from structlog import wrap_logger
from structlog.testing import CapturingLogger

from askel.state import StepResult, Turn, Turned
from askeld.alarm import TimerAlarm
from askeld.observability import LogObserver


def told(turn, word):
    logger = CapturingLogger()
    log = wrap_logger(logger, processors=[lambda _log, _name, facts: (("",), facts)])
    observer = LogObserver(log, TimerAlarm(), lambda **_: None, None)
    observer.turn_taken(turn, Turned(word))
    return [(call.method_name, call.kwargs) for call in logger.calls]


def turn_with(*results):
    return Turn("r", "w/1", 3, 7, "n", list(results), [])


def lost(attempt, *, final):
    return StepResult("it", "running", attempt, "*", "lost", b"{}", 7, final=final)


async def test_a_step_that_died_with_its_workers_in_all_attempts_is_named():
    """As one of a queue is: whoever looks for what kills workers finds it in either case."""
    spent = {"event": "attempts_spent", "step": "it", "attempt": 4}

    assert told(turn_with(lost(4, final=True)), "OK") == [("warning", spent)]
    assert told(turn_with(lost(3, final=False)), "OK") == []
    assert ("warning", spent) not in told(turn_with(lost(4, final=True)), "CONFLICT")
