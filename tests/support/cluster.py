"""What a cluster does with the Jobs of a `World`: the Job controller, kubelets, and queues."""

from collections import Counter
from typing import Any

from finetune_api import names
from finetune_api.names import Reason
from finetune_api.wire import JsonObject
from tests.support.objects import World, a_pod, failed, prepared, progress, trained

PREPARE_FAILURES = 3  # `backoffLimit`


class Cluster:
    """A cluster in which pods end well, unless a test has ended them in another way."""

    def __init__(self, world: World, **estimates: Any) -> None:
        self.world = world
        self.has_published = False  # whether the model is in S3
        self._check = prepared(**estimates)
        self._done: dict[str, set[int]] = {}  # the indexes of a Job that have ended well
        self._failures: Counter[str] = Counter()
        self._counted: set[str] = set()

    # --- the Job controller ----------------------------------------------------------------------

    def control(self) -> bool:
        """Create, count, and remove pods, and end Jobs. Return whether anything changed."""
        changes = [self._control(name) for name in list(self.world.jobs)]
        return any(changes)

    def _control(self, name: str) -> bool:
        job, pods = self.world.jobs[name], self.world.pods[name]
        if is_finished(job) or job["spec"].get("suspend"):
            return False
        uid, wanted = job["metadata"]["uid"], set(range(job["spec"].get("completions", 1)))
        done = self._done.setdefault(uid, set())
        done |= {_index(pod) for pod in pods if pod["status"]["phase"] == "Succeeded"}
        lost = [pod for pod in pods if "deletionTimestamp" in pod["metadata"]]
        failures = [pod for pod in pods if pod["status"]["phase"] == "Failed"]
        new = [
            pod
            for pod in [*lost, *(pod for pod in failures if pod not in lost)]
            if pod["metadata"]["name"] not in self._counted
            and pod["status"]["phase"] != "Succeeded"
        ]
        self._counted |= {pod["metadata"]["name"] for pod in new}
        self._failures[uid] += len(new)
        is_final = any(_exit_code(pod) == names.EXIT_USER for pod in failures)
        limit = 0 if _component(job) == names.COMPONENT_TRAIN else PREPARE_FAILURES
        if new and (is_final or self._failures[uid] > limit):
            self.world.pods[name] = [pod for pod in pods if pod in failures and pod not in lost]
            self.world.set_condition(name, "Failed", "the backoff limit is reached")
            return True
        if done == wanted:
            self.world.set_condition(name, "Complete")
            return True
        self.world.pods[name] = pods = [pod for pod in pods if pod not in lost]
        missing = wanted - done - {_index(pod) for pod in pods if pod not in failures}
        for index in sorted(missing):
            pod = a_pod(job["metadata"], index)
            pod["metadata"]["name"] += f"-{self._failures[uid]}"
            pods.append(pod)
        return bool(lost or missing)

    # --- queues and kubelets ---------------------------------------------------------------------

    def go_on(self) -> bool:
        """Admit Jobs, start pods, and end them well. Return whether anything changed."""
        changes = [self._go_on(name) for name in list(self.world.jobs)]
        return any(changes)

    def _go_on(self, name: str) -> bool:
        job, pods = self.world.jobs[name], self.world.pods[name]
        if is_finished(job):
            return False
        if job["spec"].get("suspend"):
            job["spec"]["suspend"] = False
            return True
        alive = [pod for pod in pods if pod["status"]["phase"] in {"Pending", "Running"}]
        alive = [pod for pod in alive if "deletionTimestamp" not in pod["metadata"]]
        started = [pod for pod in alive if pod["status"]["phase"] == "Running"]
        if alive and not started:
            self.world.ready_pods(name)
            if _component(job) == names.COMPONENT_TRAIN:
                attempt = int(job["metadata"]["labels"][names.LABEL_ATTEMPT])
                self.world.progress = progress(attempt=attempt, resumed_from_step=5)
            return True
        at_work = [pod for pod in started if _exit_code(pod) is None]
        for pod in at_work:
            self._end_well(name, job, pods.index(pod), _index(pod))
        return bool(at_work)

    def _end_well(self, name: str, job: JsonObject, position: int, index: int) -> None:
        if _component(job) == names.COMPONENT_PREPARE:
            self.world.end_pod(name, position, 0, self._check)
        elif _component(job) == names.COMPONENT_TRAIN:
            self.has_published = True
            self.world.progress = None
            self.world.end_pod(name, position, 0, trained() if index == 0 else None)
        elif self.has_published:
            self.world.end_pod(name, position, 0, trained())
        else:
            missing = failed(Reason.DATA_NOT_FOUND, "there is no model")
            self.world.end_pod(name, position, names.EXIT_USER, missing)


def is_finished(job: JsonObject) -> bool:
    """Whether the Job has the condition Complete or Failed."""
    return bool(job.get("status", {}).get("conditions"))


def _component(job: JsonObject) -> str:
    return str(job["metadata"]["labels"][names.LABEL_COMPONENT])


def _index(pod: JsonObject) -> int:
    return int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])


def _exit_code(pod: JsonObject) -> int | None:
    for status in pod["status"].get("containerStatuses", []):
        if status["name"] == names.CONTAINER and "terminated" in status["state"]:
            return int(status["state"]["terminated"]["exitCode"])
    return None
