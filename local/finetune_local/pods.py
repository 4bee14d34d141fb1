"""A pod as Kubernetes would describe it, from what is known of its processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from finetune_api import names
from finetune_api.outcome import ProgressReport
from finetune_api.wire import JsonObject

LOCALHOST = "127.0.0.1"
NODE = "this-machine"
BUSY = "another fine-tune uses this machine, which runs one at a time"
LOST = "finetune serve ended while the pod was running"


@dataclass
class Pod:
    """The state of a pod. Times are those of Kubernetes."""

    job: JsonObject
    number: int  # of the pods of the Job, from 1
    created_at: str
    started_at: str | None = None
    states: dict[str, JsonObject] = field(default_factory=dict)  # of containers, by name
    phase: str = "Pending"
    is_ready: bool = False
    is_lost: bool = False  # its processes ended with this program
    report: ProgressReport | None = None  # of a training

    @property
    def name(self) -> str:
        return f"{self.job['metadata']['name']}-{self.number}"

    @property
    def component(self) -> str:
        return str(self.job["metadata"]["labels"][names.LABEL_COMPONENT])

    @property
    def spec(self) -> JsonObject:
        found: JsonObject = self.job["spec"]["template"]["spec"]
        return found

    @property
    def containers(self) -> list[JsonObject]:
        """In the order in which they run, one after the other."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def to_object(self) -> JsonObject:
        """The pod as the API server returns it."""
        job = self.job["metadata"]
        labels = {**job["labels"], "batch.kubernetes.io/job-completion-index": "0"}
        return {
            "metadata": {
                "name": self.name,
                "uid": f"{job['uid']}-{self.number}",
                "labels": labels,
                "creationTimestamp": self.created_at,
                "ownerReferences": [{"uid": job["uid"], "controller": True}],
            },
            "spec": {**self.spec, "nodeName": NODE},
            "status": self._status(),
        }

    def _status(self) -> JsonObject:
        found: JsonObject = {
            "phase": self.phase,
            "conditions": self._conditions(),
            "initContainerStatuses": self._statuses("initContainers"),
            "containerStatuses": self._statuses("containers"),
        }
        if self.started_at is not None:
            found |= {"startTime": self.started_at, "podIP": LOCALHOST}
        if self.is_lost:
            found |= {"reason": "NodeShutdown", "message": LOST}
        return found

    def _conditions(self) -> list[JsonObject]:
        placed: JsonObject = {
            "type": "PodScheduled",
            "status": "True",
            "lastTransitionTime": self.started_at or self.created_at,
        }
        if self.started_at is None:
            placed |= {"status": "False", "reason": "Unschedulable", "message": BUSY}
        lost = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "TerminationByKubelet",
            "message": LOST,
        }
        return [placed, *([lost] if self.is_lost else [])]

    def _statuses(self, which: str) -> list[JsonObject]:
        return [
            {
                "name": item["name"],
                "ready": self.is_ready and "running" in self.states.get(item["name"], {}),
                "state": self.states.get(item["name"], {}),
            }
            for item in self.spec.get(which, [])
        ]


def running(at: str) -> JsonObject:
    """The state of a container."""
    return {"running": {"startedAt": at}}


def terminated(code: int, message: str, at: str) -> JsonObject:
    """The state of a container that has ended."""
    reason = "Completed" if code == 0 else "Error"
    ended: dict[str, Any] = {"exitCode": code, "reason": reason, "finishedAt": at}
    return {"terminated": {**ended, **({"message": message} if message else {})}}
