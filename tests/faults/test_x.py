import time
import pytest
from tests.helpers.forked import ForkedWorker
from tests.helpers.workers import WorkerProcess
@pytest.mark.parametrize("cls", [ForkedWorker, ForkedWorker, ForkedWorker, WorkerProcess])
async def test_it(redis, redis_url, prefix, tmp_path, cls):
    t = time.time()
    async with cls("tests.apps.parts:app", redis_url=redis_url, prefix=prefix, directory=tmp_path, failpoint=None) as w:
        await w.wait_ready()
        print(time.time()-t)
        w.terminate()
        print(await w.wait())
        print(w.output())
        print(time.time()-t)
