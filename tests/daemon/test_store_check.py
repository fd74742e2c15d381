"""What a worker checks of its Redis before it begins."""

from askel.state import load_scripts
from askeld.store_check import NEEDED_SCRIPTS

#: Called by programs and by the command line, never by a worker.
OF_PROGRAMS = {
    *("acquire_lock", "adopt", "apply", "erase_orphan", "finish_step", "index_runs"),
    *("index_steps", "insert_step", "list_dead", "list_runs", "move_step", "move_version"),
    *("prune_index", "prune_workflows", "read_run", "read_steps", "redrive", "release_lock"),
    *("renew_lock", "set_retention", "upsert_version"),
}
#: Called by a worker that can do without: it says that it was refused.
OF_RETENTION = {"delete_run", "expired", "measure_runs", "prune_timers"}
#: Called before there is anything to be halfway through.
FIRST = {"self_test"}
#: Of a run that asks to be confirmed by replicas: what it writes, it writes at once.
OF_CONFIRMATION = {"confirmed"}


def test_the_self_test_knows_every_script_that_a_worker_calls():
    others = OF_PROGRAMS | OF_RETENTION | FIRST | OF_CONFIRMATION
    assert set(NEEDED_SCRIPTS) == set(load_scripts()) - others
