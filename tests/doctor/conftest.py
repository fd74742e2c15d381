"""A private server that is as well as can be, with a worker's consumer and a run in it."""

from __future__ import annotations

import pytest
import redis.asyncio
from tests.doctor.patient import Patient

from askeld.embedded import EmbeddedServer


@pytest.fixture(scope="module")
def own_server():
    """A server with an append-only file, of this module's own."""
    with EmbeddedServer(port=0) as server:
        yield server


@pytest.fixture
async def patient(own_server, anyio_backend):
    """What is examined; settings that a test changes are set back."""
    client = redis.asyncio.Redis.from_url(own_server.url, protocol=2)
    settings = await client.config_get("*")
    await client.flushall()
    await client.config_resetstat()
    async with Patient(own_server.url, client) as patient:
        await patient.become_well()
        yield patient
    await client.replicaof("NO", "ONE")
    for name, value in (await client.config_get("*")).items():
        if settings.get(name) != value and name in Patient.CHANGED:
            await client.config_set(name, settings[name])
    for user in await client.acl_users():
        if user != "default":
            await client.acl_deluser(user)
    await client.flushall()
    await client.aclose()
