"""What the store of watches knows about the gangs of all FineTunes."""

from copy import deepcopy
from typing import Any

from finetune_api import names
from finetune_api.wire import JsonObject
from finetune_operator.kube.store import Store
from tests.operator.test_gangs import partial
from tests.support.objects import World, a_finetune, a_settings

RELEASED = {
    "number": 1,
    "startedAt": "2026-11-21T12:00:00Z",
    "endedAt": "2026-11-21T12:05:00Z",
    "reason": "GangReleased",
}


class Team:
    """A store that has seen FineTunes, their Jobs, and their pods."""

    def __init__(self) -> None:
        self.store = Store()
        self.version = 0
        self.objects: dict[str, list[JsonObject]] = {}

    def see(self, plural: str, raw: JsonObject, event: str | None = "MODIFIED") -> None:
        self.version += 1
        raw["metadata"]["resourceVersion"] = str(self.version)
        self.store.saw(plural, deepcopy(raw), event)

    def add(self, name: str, *nodes: str | None, attempts: Any = (), created: str = "1") -> None:
        """A FineTune whose newest attempt has these nodes."""
        uid = f"uid-{name}"
        world = World(
            a_finetune(resources={"nodes": len(nodes), "gpusPerNode": 1}), a_settings()
        ).until_training()
        world = partial(world, *nodes)
        raw = {
            "metadata": {
                "name": name,
                "namespace": "team",
                "uid": uid,
                "creationTimestamp": created,
            },
            "spec": {"trainingFile": "s3://bucket/train.jsonl"},
            "status": {"state": "pending", "attempts": list(attempts)},
        }
        job = world.jobs[world.job("-a1")]
        pods = world.pods[world.job("-a1")]
        for item in (job, *pods):
            item["metadata"]["labels"] |= {names.LABEL_UID: uid, names.LABEL_FINETUNE: name}
        job["metadata"] |= {"uid": f"job-{name}", "namespace": "team"}
        job["metadata"]["ownerReferences"] = [{"uid": uid, "controller": True}]
        for pod in pods:
            owner = {"uid": f"job-{name}", "controller": True}
            pod["metadata"] |= {"ownerReferences": [owner], "namespace": "team"}
            pod["metadata"]["uid"] = f"{pod['metadata']['name']}-{name}"
        self.objects[name] = [raw, job, *pods]
        self.see("finetunes", raw)
        self.see("jobs", job)
        for pod in pods:
            self.see("pods", pod)

    def gangs(self, own: str = "me") -> dict[str, tuple[int, int]]:
        found = self.store.rivals(f"uid-{own}").gangs
        return {gang.name: (gang.held, gang.wanted) for gang in found}


def test_the_gangs_of_the_others_are_known_without_reads_and_follow_the_watches() -> None:
    team = Team()
    team.add("me", "node-1", None)
    team.add("half", "node-1", None)
    team.add("none", None, None, None)
    team.add("all", "node-1", "node-2")
    assert team.gangs() == {"half": (1, 2), "none": (0, 3)}
    assert team.gangs("half") == {"me": (1, 2), "none": (0, 3)}

    pod = team.objects["half"][-1]
    pod["spec"]["nodeName"] = "node-2"
    team.see("pods", pod)
    assert team.gangs() == {"none": (0, 3)}
    team.see("jobs", team.objects["none"][1], "DELETED")
    assert team.gangs() == {}


def test_one_that_is_deleted_or_has_ended_is_no_rival() -> None:
    team = Team()
    for name in ("deleted", "ended", "suspended", "gone"):
        team.add(name, "node-1", None)
    assert set(team.gangs()) == {"deleted", "ended", "suspended", "gone"}
    team.see("finetunes", team.objects["deleted"][0], "DELETED")
    team.objects["ended"][0]["status"]["state"] = "cancelled"
    team.see("finetunes", team.objects["ended"][0])
    team.objects["suspended"][1]["spec"]["suspend"] = True
    team.see("jobs", team.objects["suspended"][1])
    team.store.remove_job("uid-gone", "job-gone")
    assert team.gangs() == {}


def test_a_released_gang_leaves_until_its_pods_have_ended() -> None:
    team = Team()
    team.add("me", "node-1", None)
    team.add("other", "node-1", None)
    assert not team.store.rivals("uid-me").is_leaving
    raw, _, first, second = team.objects["other"]
    raw["status"]["attempts"] = [RELEASED]
    team.see("finetunes", raw)
    found = team.store.rivals("uid-me")
    assert (found.gangs, found.is_leaving) == ((), True)  # its Job is about to be deleted
    assert found.released_at is not None
    assert found.released_at.isoformat() == "2026-11-21T12:05:00+00:00"
    team.store.remove_job("uid-other", "job-other")
    assert team.store.rivals("uid-me").is_leaving
    team.see("pods", second, "DELETED")
    assert team.store.rivals("uid-me").is_leaving
    team.see("pods", first, "DELETED")
    assert not team.store.rivals("uid-me").is_leaving


def test_releases_in_a_row_are_counted_from_the_status() -> None:
    def released(*reasons: str | None) -> list[JsonObject]:
        ended = [
            {**RELEASED, "number": number, "reason": reason}
            for number, reason in enumerate(reasons, 1)
        ]
        return ended

    cases = {
        ("GangReleased",): 1,
        ("GangReleased", "GangReleased"): 2,
        ("GangReleased", "Preempted"): 0,
        ("Preempted", "GangReleased"): 1,
    }
    for reasons, times in cases.items():
        team = Team()
        attempts = [*released(*reasons), {"number": len(reasons) + 1, "startedAt": "2026"}]
        team.add("other", "node-1", None, attempts=attempts)
        label = str(len(reasons) + 1)
        for plural, item in (
            ("jobs", team.objects["other"][1]),
            *zip(("pods", "pods"), team.objects["other"][2:], strict=True),
        ):
            item["metadata"]["labels"][names.LABEL_ATTEMPT] = label
            team.see(plural, item)
        (found,) = team.store.rivals("uid-me").gangs
        assert found.releases == times, reasons
