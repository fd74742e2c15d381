"""A worker that has nothing to do is alive, on servers where its waiting shows nowhere, too."""

import msgspec
from tests.apps.parts import app
from tests.helpers.waiting import wait_until

from askel import RedisWorkflowService
from askeld.doctor import Level, examine, gather


async def test_an_idle_worker_is_seen_although_it_never_read_anything(deployment):
    """Before Redis 7.2 a consumer that waits is not there, or seems to be silent."""
    async with RedisWorkflowService(deployment.url, key_prefix=deployment.prefix) as service:

        async def is_alive():
            facts = await gather(service, deployment.url)
            facts.streams = [msgspec.structs.replace(one, consumers=()) for one in facts.streams]
            found = next(one for one in examine(facts) if one.check == "workers")
            return found.level is Level.GREEN

        assert not await is_alive()
        async with deployment.worker(app):
            await wait_until(is_alive)
