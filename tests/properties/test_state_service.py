"""The state service agrees with a plain model of it, whatever two clients do and the network."""

import os
import uuid
from collections import Counter

import fakeredis
import pytest
import redis.asyncio
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.helpers.keys import delete_all, sync_client
from tests.helpers.state import in_a_hurry
from tests.properties.machine import ServiceMachine
from tests.properties.model import CHANGES

from askel import RedisWorkflowService, UnknownOutcomeError
from askeld.torture.fault_proxy import FaultProxy

__all__ = ["in_a_hurry"]

#: How many times as long; for `make torture-state`.
FACTOR = int(os.environ.get("ASKEL_TORTURE_STATE", "1"))
STEPS = 50


def explore(open_, examples, salt):
    """Run the machine; return what happened how often."""
    parts = {"open": open_, "counts": Counter(), "salt": salt}
    machine = type("Machine", (ServiceMachine,), parts)
    phases = (Phase.generate,) if FACTOR == 1 else (Phase.generate, Phase.shrink)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples * FACTOR,
            stateful_step_count=STEPS,
            derandomize=FACTOR == 1,
            database=None,
            deadline=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return machine.counts


pytestmark = pytest.mark.usefixtures("in_a_hurry")


def on_server(server):
    """Two services behind a proxy that loses what it is told to lose."""

    async def open_(stack):
        proxy = await stack.enter_async_context(FaultProxy(server.host, server.port))
        client = redis.asyncio.Redis.from_url(
            server.url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=20
        )
        stack.push_async_callback(client.aclose)
        prefix = f"p:{uuid.uuid4().hex[:12]}"
        services = [RedisWorkflowService(proxy.url, key_prefix=prefix) for _ in range(2)]
        for service in services:
            await stack.enter_async_context(service)

        def arm(fault):
            rule = getattr(proxy, fault)(b"EVALSHA")

            def bit():
                proxy.disarm(rule)
                return rule.hits > 0

            return bit

        return services, client, prefix, arm

    return staticmethod(open_)


class LossyConnection:
    """A connection that loses one request or reply when it is told to."""

    def __init__(self, connection):
        self._connection = connection
        self.fault = ""

    async def send(self, *command):
        fault = self.fault if command[0] == "EVALSHA" else ""
        if fault == "lose_next_request":
            self.fault = ""
            raise UnknownOutcomeError("lost") from OSError()
        reply = await self._connection.send(*command)
        if fault:
            self.fault = ""
            raise UnknownOutcomeError("lost") from OSError()
        return reply

    async def close(self):
        await self._connection.close()


def on_a_fake():
    """Two services on one fake server, each with a connection that may lose things."""

    async def open_(stack):
        client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
        stack.push_async_callback(client.aclose)
        services, lossy = [], []
        for _ in range(2):
            service = RedisWorkflowService(client, key_prefix="p")
            service.connection = LossyConnection(service.connection)
            service.scripts._connection = service.connection
            lossy.append(service.connection)
            services.append(service)

        def arm(fault):
            for connection in lossy:
                connection.fault = fault

            def bit():
                hits = [connection for connection in lossy if not connection.fault]
                for connection in lossy:
                    connection.fault = ""
                return bool(hits)

            return bit

        return services, client, "p", arm

    return staticmethod(open_)


#: What must have happened, or the machine has not tried hard.
MUST = {
    "lose_next_reply",
    "lose_next_request",
    "late copy",
    "at once",
    "lock done",
    "create_run done",
    "delete_run done",
    "transaction done",
    *(f"{method} done" for method in CHANGES),
}


def test_on_every_server(redis_server):
    counts = explore(on_server(redis_server), 9, redis_server.id)
    with sync_client(redis_server.url) as client:
        delete_all(client)

    assert sum(counts.values()) > 500
    assert set(counts) >= MUST, MUST - set(counts)
    refusals = {name for name in counts if name.endswith("Error")}
    assert len(refusals) >= 15, refusals


def test_on_a_fake():
    counts = explore(on_a_fake(), 4, "fake")

    assert counts["steps"] > 100
    assert {"lose_next_reply", "late copy", "at once", "transaction done"} <= set(counts)
