"""Stored versions of workflow definitions: a graph under the name of its workflow and its hash."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from askel.errors import InvalidOptionError, VersionNotFoundError
from askel.names import check_name
from askel.state.codec import Codec
from askel.state.keys import Keys
from askel.state.models import from_ms
from askel.state.reads.records import fields_of
from askel.state.store.connection import Connection
from askel.state.store.scripts import Scripts
from askel.state.writes.mirror import MirrorTeller


class VersionStatus(StrEnum):
    """Where a stored definition stands."""

    DRAFT = "draft"
    ACTIVE = "active"
    DECLINED = "declined"


class WorkflowVersion(msgspec.Struct, frozen=True):
    """A stored definition; *source* tells what it was made from (``dsl``, ``graph``, …)."""

    workflow_name: str
    graph_hash: str
    graph: Any
    source: str
    status: VersionStatus
    created_at: datetime | None = None


class VersionMethods:
    """Storing and reading definitions. A definition once stored is never replaced."""

    keys: Keys
    connection: Connection
    scripts: Scripts
    codec: Codec
    mirror: MirrorTeller
    clock_offset_ms: int
    resend_s: float

    async def upsert_workflow_version(
        self,
        workflow_name: str,
        graph_hash: str,
        graph: Any,
        source: str,
        status: VersionStatus | str = VersionStatus.ACTIVE,
    ) -> bool:
        """Store a definition unless this workflow has one under this hash; one atomic step.

        Returns:
            Whether this call stored it. A definition that was there is left as it is, whatever
            the call says; of several callers at once exactly one stores.

        Raises:
            InvalidNameError, InvalidOptionError, PayloadError: Nothing was sent.
        """
        wanted = _as_status(status)
        answer, resent = await self.scripts.insist(
            "upsert_version",
            [self._version_key(workflow_name, graph_hash)],
            [
                self.clock_offset_ms,
                workflow_name,
                graph_hash,
                self.codec.encode(graph),
                check_name(source, "source"),
                wanted.value,
            ],
            patience_s=self.resend_s,
        )
        await self.mirror.tell(
            "upsert_workflow_version", workflow_name, graph_hash, graph, source, wanted
        )
        return answer[0] == b"OK" or (resent and answer[0] == b"ALREADY")

    async def update_workflow_version_status(
        self, workflow_name: str, graph_hash: str, status: VersionStatus | str
    ) -> None:
        """Make a stored definition a draft, active or declined. Repeating it changes nothing.

        Raises:
            VersionNotFoundError: There is no such definition; nothing was written.
            InvalidNameError, InvalidOptionError: Nothing was sent.
        """
        wanted = _as_status(status)
        answer, _ = await self.scripts.insist(
            "move_version",
            [self._version_key(workflow_name, graph_hash)],
            [wanted.value],
            patience_s=self.resend_s,
        )
        if answer[0] == b"NOTFOUND":
            raise VersionNotFoundError(workflow_name, graph_hash)
        await self.mirror.tell("update_workflow_version_status", workflow_name, graph_hash, wanted)

    async def get_workflow_version(
        self, workflow_name: str, graph_hash: str
    ) -> WorkflowVersion | None:
        """Return the definition of *workflow_name* under *graph_hash*, or None without one."""
        key = self._version_key(workflow_name, graph_hash)
        flat = await self.scripts.fetch("HGETALL", key, patience_s=self.resend_s)
        fields = fields_of(flat)
        if not fields.get("graph"):
            return None
        created = fields.get("createdAt")
        return WorkflowVersion(
            workflow_name=workflow_name,
            graph_hash=graph_hash,
            graph=self.codec.decode(fields["graph"]),
            source=fields.get("source", b"").decode(),
            status=VersionStatus(fields.get("status", b"active").decode()),
            created_at=from_ms(created) if created else None,
        )

    def _version_key(self, workflow_name: str, graph_hash: str) -> str:
        return self.keys.version(
            check_name(workflow_name, "workflow name"), check_name(graph_hash, "graph hash")
        )


def _as_status(status: str) -> VersionStatus:
    try:
        return VersionStatus(status)
    except ValueError:
        msg = f"{status!r} is no status of a version: use one of {', '.join(VersionStatus)}"
        raise InvalidOptionError(msg) from None
