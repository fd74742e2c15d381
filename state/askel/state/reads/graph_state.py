"""What the runner of a graph reads of a run: which nodes are done, which failed for good."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from askel.names import check_name, check_run_id
from askel.state.models import StepStatus
from askel.state.reads.run_reads import StepReads


class GraphState(msgspec.Struct, frozen=True):
    """How far a graph has come.

    ``failed_node_ids`` are those whose budget is spent: a node that will be tried again is in
    neither list. ``branch_keys`` are the branches that completed nodes have taken.
    """

    completed_node_ids: list[str]
    failed_node_ids: list[str]
    branch_keys: dict[str, str]


class StepInstance(msgspec.Struct, frozen=True):
    """A step of a run: its name, where it stands, and which step it was reached from."""

    step_name: str
    status: StepStatus
    from_step_name: str | None = None


class GraphReads(StepReads):
    """The reads of a graph's runner: one round trip each, up to a thousand steps.

    Each step counts once under its own name, whatever that name is.
    """

    async def get_completed_graph_state(self, run_id: str) -> GraphState:
        """Return which nodes have completed or failed for good, in order of creation.

        A node has failed for good when it had ``retries`` + 1 attempts; where ``retries`` was not
        given it counts as 0. An unknown run has no nodes.
        """
        steps = await self._read_step_hashes(
            check_run_id(run_id), ("status", "attemptCount", "retries", "branchTaken")
        )
        return graph_state(steps)

    async def get_step_instances(self, run_id: str) -> list[StepInstance]:
        """Return the steps of the run, in order of creation; none of an unknown run."""
        steps = await self._read_step_hashes(check_run_id(run_id), ("status", "fromStepName"))
        return [
            StepInstance(
                name, StepStatus(fields["status"].decode()), _text(fields.get("fromStepName"))
            )
            for name, fields in steps.items()
        ]

    async def get_node_results(self, run_id: str, node_ids: Iterable[str]) -> dict[str, Any]:
        """Return the results of those of *node_ids* that have succeeded, None and 0 included.

        Without any *node_ids* nothing is read.

        Raises:
            InvalidNameError: One of them cannot be a name.
        """
        check_run_id(run_id)
        names = list(dict.fromkeys(check_name(name, "node id") for name in node_ids))
        if not names:
            return {}
        steps = await self._read_step_hashes(run_id, ("status", "result"), names)
        return {
            name: self.codec.decode(fields["result"])
            for name, fields in steps.items()
            if fields["status"] == b"succeeded" and fields.get("result")
        }


def graph_state(steps: Mapping[str, Mapping[str, bytes]]) -> GraphState:
    """Return how far the graph with the step hashes *steps* has come. Pure."""
    state = GraphState([], [], {})
    for name, fields in steps.items():
        if fields["status"] == b"succeeded":
            state.completed_node_ids.append(name)
            if branch := _text(fields.get("branchTaken")):
                state.branch_keys[name] = branch
        elif fields["status"] == b"failed":
            attempts = int(fields.get("attemptCount") or 1)
            if attempts > int(fields.get("retries") or 0):
                state.failed_node_ids.append(name)
    return state


def _text(value: bytes | None) -> str | None:
    return value.decode() if value else None
