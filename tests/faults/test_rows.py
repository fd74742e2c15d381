"""Where each row of the fault tables of processes and of poison handlers is tested.

A row without a test, or a test that was renamed away, is found here.
"""

import ast

import pytest
from tests.helpers.workers import ROOT

KINDS, KILLERS = "daemon/test_handler_kinds.py", "faults/test_killers.py"
DRAIN, PAUSES, POINTS = (
    "faults/test_drain.py",
    "faults/test_pauses.py",
    "faults/test_kill_points.py",
)
WATCHDOG, ENDS = "daemon/test_watchdog.py", "daemon/test_unasked_ends.py"
ANY_KIND = (KINDS, "test_row_becomes_a_failed_attempt")
KILLER = (KILLERS, "test_row_that_kills_its_worker")
ABANDONED = (KINDS, "test_row_handler_that_swallows_its_cancellation_is_abandoned")
KILL_POINT = (POINTS, "test_a_kill_anywhere_in_a_journey")

PROCESSES = {
    "kill -9 before claim": [
        ("faults/test_recovery.py", "test_a_worker_that_dies_before_it_reads")
    ],
    "kill -9 after claim, before BEGIN": [KILL_POINT],
    "kill -9 after lock": [KILL_POINT],
    "kill -9 after BEGIN, during handler": [
        KILL_POINT,
        (
            "faults/test_recovery.py",
            "test_a_dead_workers_step_is_back_within_claim_idle_and_a_sweep",
        ),
    ],
    "kill -9 after handler, before commit": [KILL_POINT],
    "kill -9 after commit, before reply read": [KILL_POINT],
    "SIGSTOP > TTL then SIGCONT": [(PAUSES, "test_what_a_frozen_worker_sends_late_does_not_land")],
    "VM freeze": [
        (
            "daemon/test_renewal.py",
            "test_row_vm_freeze_leases_are_judged_by_a_clock_that_goes_on",
        )
    ],
    "SIGTERM in long handler": [
        (DRAIN, "test_a_running_handler_ends_and_its_result_is_recorded"),
        (DRAIN, "test_a_handler_that_does_not_end_in_time_is_given_up"),
        (DRAIN, "test_what_was_read_is_begun_elsewhere_while_a_step_still_runs"),
        (DRAIN, "test_renewal_goes_on_until_the_last_step_has_ended"),
    ],
    "SIGTERM twice / SIGINT / SIGHUP": [
        (DRAIN, "test_a_second_signal_ends_the_process_now"),
        (DRAIN, "test_an_idle_worker_leaves_without_a_trace"),
        (DRAIN, "test_a_hang_up_that_is_ignored_stays_ignored"),
    ],
    "fork/exec in handler": [(ENDS, "test_row_a_handler_that_forks_and_execs")],
    "fd close": [KILLER],
    "blocked loop": [
        (WATCHDOG, "test_row_blocked_loop_is_warned_of_with_the_guilty_line"),
        (WATCHDOG, "test_row_loop_blocked_for_good_ends_the_process"),
        (PAUSES, "test_a_handler_that_blocks_the_loop_is_not_robbed"),
    ],
}

#: The 26 kinds; each is a step of `tests/apps/poison.py`.
HANDLERS = {
    "sys_exit": ANY_KIND,
    "keyboard_interrupt": ANY_KIND,
    "generator_exit": ANY_KIND,
    "base_exception": ANY_KIND,
    "cancelled_error": ANY_KIND,
    "cancels_its_task": ANY_KIND,
    "stop_iteration": ANY_KIND,
    "infinite_loop": KILLER,
    "long_sleep": KILLER,
    "catastrophic_regex": KILLER,
    "endless_arithmetic": KILLER,
    "swallows_cancellation": ABANDONED,
    "long_shield": ABANDONED,
    "segfault": KILLER,
    "abort": KILLER,
    "exits_at_once": KILLER,
    "terminates_itself": (KILLERS, "test_row_sigterm_to_itself_drains"),
    "closes_everything": KILLER,
    "memory_hog": (KILLERS, "test_row_memory_hog_is_a_failed_attempt"),
    "mute_error": (KINDS, "test_row_an_error_that_cannot_be_shown_is_named"),
    "long_message": (KINDS, "test_row_10_megabytes_of_message_are_cut"),
    "exception_group": ANY_KIND,
    "returns_object": ANY_KIND,
    "returns_nan": (KINDS, "test_row_nan_and_infinity"),
    "detached_task": (KINDS, "test_row_detached_task_or_thread"),
    "detached_thread": (KINDS, "test_row_detached_task_or_thread"),
}


def functions(path):
    tree = ast.parse((ROOT / "tests" / path).read_text())
    return {
        node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)
    }


@pytest.mark.parametrize("row", PROCESSES)
def test_row_of_processes_has_its_tests(row):
    for path, name in PROCESSES[row]:
        assert name in functions(path)


@pytest.mark.parametrize("kind", HANDLERS)
def test_row_of_handlers_has_its_test(kind):
    path, name = HANDLERS[kind]
    assert name in functions(path)
    assert f'"{kind}"' in (ROOT / "tests" / path).read_text()


def test_there_are_26_kinds():
    assert len(HANDLERS) == 26
