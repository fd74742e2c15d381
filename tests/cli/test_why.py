"""`askel why`: a paragraph for people, an object for programs."""

import json

from tests.helpers.waiting import wait_until


async def test_a_run_is_explained(shop, tmp_path):
    run_id, gate = shop.new_id(), tmp_path / "gate"
    assert shop.run("start", "waits", json.dumps(str(gate)), "--run-id", run_id).code == 0

    def is_held():
        ran = shop.run("why", run_id)
        return ran if "executes step 'hold'" in " ".join(ran.out.split()) else None

    ran = await wait_until(is_held)

    words = " ".join(ran.out.split())
    assert words.startswith(f"Run {run_id} of waits is being worked on: worker ")
    assert all(len(line) <= 100 for line in ran.out.splitlines())
    told = shop.run("why", run_id, "--json").json()
    assert (told["state"], told["stuck"], told["run_id"]) == ("running", False, run_id)
    assert told["text"] == words
    assert told["holder"]
    assert told["since"].endswith("Z")
    assert set(told) == {
        *("run_id", "state", "text", "since", "holder", "idle_ms", "next", "command", "stuck")
    }
    gate.touch()
    await wait_until(lambda: shop.run("why", run_id, "--json").json()["state"] == "ended")


def test_what_is_not_there_or_makes_no_sense(shop):
    ran = shop.call("why", "nobody")
    assert (ran.code, ran.out) == (3, "")
    assert ran.complaint == (
        "askel why: run 'nobody' does not exist: a start that no worker has read, or that waits "
        "for its time, is no run yet"
    )
    ran = shop.call("why", "nobody", "--json")
    assert (ran.code, ran.json()["state"], ran.json()["stuck"]) == (3, "not_found", False)
    assert ran.json()["run_id"] == "nobody"
    ran = shop.call("why", "a:b")
    assert ran.code == 2
    assert "a:b" in ran.complaint
    assert shop.call("why").code == 2
    assert shop.call("why", "r", "another").code == 2
    ran = shop.call("why", "r", REDIS_URL="redis://127.0.0.1:1")
    assert ran.code == 1
    assert ran.complaint.startswith("askel why: ")
