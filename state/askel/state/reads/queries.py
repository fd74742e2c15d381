"""The read side of the state service, and what keeps it tidy: deletion, retention, reindexing."""

from __future__ import annotations

from askel.names import check_run_id
from askel.state.models import StepState
from askel.state.reads.listing import RunListing, RunPage
from askel.state.reads.records import read_step
from askel.state.reads.run_reads import StepReads
from askel.state.reindex import RunReindexing
from askel.state.retention import RunRetention
from askel.state.writes.deletion import RunDeletion

__all__ = ["RunPage", "RunQueries"]


class RunQueries(RunListing, RunDeletion, RunRetention, RunReindexing, StepReads):
    """Methods over many runs, and over the steps of one."""

    async def get_run_steps(self, run_id: str) -> list[StepState]:
        """Return the steps of the run as they stand, in the order in which they were created.

        One round trip up to a thousand steps. An unknown run has none.
        """
        hashes = await self._read_step_hashes(check_run_id(run_id))
        return [read_step(name, fields, self.codec) for name, fields in hashes.items()]
