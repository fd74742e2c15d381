"""Every Redis key of askel, in one place."""

from __future__ import annotations

from askel.names import check_prefix, check_queue
from askel.state.models import RunStatus


class Keys:
    """The keys under one prefix.

    A run id has no ``:``, so that (run id, step name) maps to its step key injectively although
    step names may contain one. ``partition`` is 0 until a deployment has more than one; it is
    carried from the first day so that no caller has to learn of it later.
    """

    __slots__ = (
        "commands_default",
        "dead",
        "events",
        "meta",
        "partition",
        "prefix",
        "retention",
        "runs",
        "runs_deleted",
        "schedules",
        "timers",
        "unconfirmed",
        "watch",
        "workflows",
    )

    def __init__(self, prefix: str = "workflows", partition: int = 0) -> None:
        """Check *prefix* and name the keys that exist once.

        Raises:
            InvalidNameError: The prefix is not allowed.
        """
        self.prefix = check_prefix(prefix)
        self.partition = partition
        self.commands_default = f"{prefix}:commands"
        self.timers = f"{prefix}:timers"
        self.dead = f"{prefix}:dead"
        self.events = f"{prefix}:events"
        self.meta = f"{prefix}:meta"
        self.watch = f"{prefix}:watch"
        self.schedules = f"{prefix}:schedules"
        self.retention = f"{prefix}:retention"
        self.runs = f"{prefix}:runs"
        self.runs_deleted = f"{prefix}:runs:deleted"
        self.unconfirmed = f"{prefix}:runs:unconfirmed"
        self.workflows = f"{prefix}:runs:workflows"

    def run(self, run_id: str) -> str:
        """Hash of the run."""
        return f"{self.prefix}:run:{run_id}"

    def step(self, run_id: str, step_name: str) -> str:
        """Hash of one step."""
        return f"{self.prefix}:step:{run_id}:{step_name}"

    def step_stem(self, run_id: str) -> str:
        """What the key of each step of the run begins with; scripts append the step's name."""
        return f"{self.prefix}:step:{run_id}:"

    def history(self, run_id: str) -> str:
        """List of everything that happened to the run."""
        return f"{self.prefix}:history:{run_id}"

    def step_history(self, step_id: str) -> str:
        """Sorted set of a step's attempts: written in compat mode, read by the Node service."""
        return f"{self.prefix}:step-history:{step_id}"

    def steps(self, run_id: str) -> str:
        """List of the run's step names in order of creation."""
        return f"{self.prefix}:steps:{run_id}"

    def run_state(self, run_id: str) -> str:
        """Hash of the run's variables."""
        return f"{self.prefix}:run-state:{run_id}"

    def step_lock(self, run_id: str, step_name: str) -> str:
        """The lock of one step."""
        return f"{self.prefix}:step-lock:{run_id}:{step_name}"

    def lock(self, run_id: str) -> str:
        """The run lock."""
        return f"{self.prefix}:lock:{run_id}"

    def version(self, workflow: str, graph_hash: str) -> str:
        """Hash of a stored workflow definition; names with ``:`` or ``%`` are percent-encoded."""
        return f"{self.prefix}:version:{_encoded(workflow)}:{_encoded(graph_hash)}"

    def ctl(self, run_id: str) -> str:
        """Hash that says who drives the run."""
        return f"{self.prefix}:ctl:{run_id}"

    def nudge(self, consumer: str) -> str:
        """Stream of hints for one process."""
        return f"{self.prefix}:nudge:{consumer}"

    def commands(self, queue: str | None = None) -> str:
        """Stream of commands: the default one, or that of *queue*."""
        if not queue:
            return self.commands_default
        return f"{self.commands_default}:{check_queue(queue)}"

    def sweep(self, queue: str = "") -> str:
        """Hash that says who sweeps the pending list of a stream of commands, and how far."""
        return f"{self.prefix}:sweep:{check_queue(queue)}" if queue else f"{self.prefix}:sweep"

    def queue_of(self, stream: str) -> str:
        """Return the queue whose commands are on *stream*; the default stream has none."""
        return stream[len(self.commands_default) + 1 :]

    def reply(self, name: str) -> str:
        """Stream on which one client awaits answers."""
        return f"{self.prefix}:reply:{name}"

    def runs_by_status(self, status: str) -> str:
        """Index of the runs that have *status*."""
        return f"{self.prefix}:runs:status:{status}"

    def runs_by_workflow(self, workflow: str) -> str:
        """Index of the runs of one workflow."""
        return f"{self.prefix}:runs:workflow:{workflow}"

    def runs_by_workflow_and_status(self, workflow: str, status: str) -> str:
        """Index of the runs of one workflow that have *status*, which has no ``:``."""
        return f"{self.prefix}:runs:workflow-status:{status}:{workflow}"

    def runs_ended(self, workflow: str) -> str:
        """Index of the ended runs of one workflow, by the time of their end."""
        return f"{self.prefix}:runs:ended:{workflow}"

    def generation_stems(self) -> list[str]:
        """What the keys begin with that a run leaves to its next generation, or loses to it."""
        return [*self.stems(), f"{self.prefix}:step-lock:"]

    def run_indexes(self, workflow: str) -> list[str]:
        """Every index that names runs of *workflow*."""
        statuses = [status.value for status in RunStatus]
        return [
            self.runs,
            self.workflows,
            self.runs_by_workflow(workflow),
            self.runs_ended(workflow),
            *(self.runs_by_status(status) for status in statuses),
            *(self.runs_by_workflow_and_status(workflow, status) for status in statuses),
        ]

    def step_keys(self, run_id: str) -> list[str]:
        """What belongs to the steps of a run, and its variables: steps, two stems, run-state."""
        p = self.prefix
        return [
            f"{p}:steps:{run_id}",
            f"{p}:step:{run_id}:",
            f"{p}:step-lock:{run_id}:",
            f"{p}:run-state:{run_id}",
        ]

    def stems(self) -> list[str]:
        """What keys of runs begin with: run, ctl, history, steps, run-state, step."""
        kinds = ("run", "ctl", "history", "steps", "run-state", "step")
        return [f"{self.prefix}:{kind}:" for kind in kinds]

    def run_keys(self, run_id: str) -> list[str]:
        """The four keys every script of a run begins with: run, ctl, history, lock."""
        p = self.prefix
        return [
            f"{p}:run:{run_id}",
            f"{p}:ctl:{run_id}",
            f"{p}:history:{run_id}",
            f"{p}:lock:{run_id}",
        ]


def _encoded(text: str) -> str:
    """Return *text* without ``:``, so that a pair joined by one can be told from every other."""
    return text.replace("%", "%25").replace(":", "%3A")
