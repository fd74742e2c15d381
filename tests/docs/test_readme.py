"""The README, done: its tour is walked as a newcomer would, and its outputs are compared."""

import json
import re
import shlex
import shutil
import signal
import sys
import uuid
from pathlib import Path

import pytest
from tests.helpers.cli import ASKEL, run_program
from tests.helpers.keys import sync_client
from tests.helpers.markdown import Page
from tests.helpers.waiting import wait_until
from tests.helpers.workers import ROOT, WorkerProcess

README = Page(ROOT / "README.md")
NAMESPACE = uuid.UUID("70696b6b-7500-5770-9f6c-6f77000a0001")
TIME = re.compile(r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d\.\d\d\d")


class Newcomer:
    """Somebody in an empty folder who has installed askel and does what the README says."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = f"{Path(ASKEL).parent}:/usr/local/bin:/usr/bin:/bin"

    def types(self, text):
        """Run the lines of a block in a shell."""
        return run_program(["/bin/sh", "-e", "-c", text], cwd=self.folder, env={"PATH": self.path})

    def askel(self, *words):
        return run_program([ASKEL, *words], cwd=self.folder)

    def saves_and_runs(self, name, text):
        (self.folder / name).write_text(text.replace("redis://localhost:6379", self.url))
        return run_program([sys.executable, name], cwd=self.folder)

    def serves(self):
        """Do what the README says to serve the app."""
        command = README.block("askel dev").split()
        assert command[:2] == ["askel", "dev"]
        return WorkerProcess(
            *command[2:],
            redis_url="",
            prefix="workflows",
            directory=self.folder,
            command=(ASKEL, "dev"),
        )

    @property
    def url(self):
        return (self.folder / ".askel" / "dev.url").read_text().strip()

    def sends(self, command):
        """Run a redis-cli command line on the private server, without redis-cli if need be."""
        program, *words = shlex.split(command)
        assert program == "redis-cli"
        if shutil.which("redis-cli"):
            where = ["-s", self.url.removeprefix("unix://")]
            return run_program([program, *where, *words], cwd=self.folder).out.strip()
        with sync_client(self.url) as redis:
            return redis.execute_command(*words).decode()

    async def sees_all_complete(self, count):
        """Wait until that many runs have completed; the list shows no other."""
        with sync_client(self.url) as redis:
            index = "workflows:runs:status:completed"
            await wait_until(lambda: redis.zcard(index) == count, 20)
        statuses = [run["status"] for run in self.askel("ls", "--json").json()["runs"]]
        assert statuses == ["completed"] * count


@pytest.fixture
def newcomer(tmp_path):
    person = Newcomer(tmp_path)
    (tmp_path / "shop.py").write_text(README.block("# shop.py", "python"))
    return person


def receipt(run_id, cents):
    key = uuid.uuid5(NAMESPACE, f"{run_id}:charge card")
    return f"charged {cents} as {str(key)[:8]}"


async def test_the_tour_from_the_first_run_to_any_program(newcomer):
    async with newcomer.serves() as dev:
        await dev.wait_ready()
        ran = newcomer.types(README.block("askel run"))
        result, *table = ran.out.splitlines()
        assert ran.code == 0
        assert json.loads(result) == [receipt("order-42", 4200), "parcel of order-42"]
        assert {
            cells(line) for line in README.block("#   TIME").splitlines() if "…" not in line
        } <= {cells(line) for line in table}
        listed = table[-1].split()
        assert listed[:3] == ["order-42", "checkout", "completed"]

        ran = newcomer.saves_and_runs("client.py", README.block("from askel import Client"))
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.endswith("'parcel of order-43']\n")
        ran = newcomer.saves_and_runs(
            "service.py", README.block("from askel import RedisWorkflowService")
        )
        assert (ran.code, ran.out, ran.err) == (0, "read succeeded {'lines': 1200}\n", "")
        ran = newcomer.saves_and_runs(
            "blocking.py", README.block("from askel import SyncRedisWorkflowService")
        )
        assert (ran.code, ran.out, ran.err) == (0, "['invoice']\n", "")

        command = README.block("redis-cli XADD").replace("\\\n", "")
        for _ in range(2):  # "sent again, it is the same run"
            assert re.fullmatch(r"\d+-\d+", newcomer.sends(command))
        words = shlex.split(command)[5:]  # "askel send is the same"
        assert newcomer.askel("send", *words).code == 0
        await newcomer.sees_all_complete(5)
        assert {run["workflow"] for run in newcomer.askel("ls", "--json").json()["runs"]} == {
            "checkout",
            "import",
            "invoice",
        }
        with sync_client(newcomer.url) as redis:
            assert redis.xlen("workflows:dead") == 0


def cells(line):
    """Return what a line of a history says, whatever the time."""
    _, *rest = re.split(r"\s{2,}", TIME.sub("TIME", line.strip()))
    return tuple(rest)


async def test_stopped_in_the_middle_all_runs_complete_after_a_restart(newcomer):
    def starts(*names):
        for name in names:
            order = json.dumps({"id": name, "cents": 100})
            assert newcomer.askel("start", "checkout", order, "--run-id", name).code == 0

    def unfinished():
        with sync_client(newcomer.url) as redis:
            return redis.zcard("workflows:runs:status:running")

    async with newcomer.serves() as dev:
        await dev.wait_ready()
        starts("k-1", "k-2")
        await wait_until(unfinished)
        dev.kill()
        assert await dev.wait() == -signal.SIGKILL
    async with newcomer.serves() as dev:
        await dev.wait_ready()
        await newcomer.sees_all_complete(2)
        starts("c-1", "c-2")
        await wait_until(unfinished)
        dev._signal(signal.SIGINT)
        assert await dev.wait() == 0
    async with newcomer.serves() as dev:
        await dev.wait_ready()
        await newcomer.sees_all_complete(4)
