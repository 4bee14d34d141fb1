"""A FineTune in its own namespace, and what its user, its pods, and its queue do.

The controllers of Kubernetes are real: Jobs get pods, and garbage is collected. Only the kubelet is
missing, and the life sets the status of pods instead.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from finetune_api import names
from finetune_api.outcome import Outcome
from finetune_api.wire import JsonObject
from tests.integration.conftest import READY, ended
from tests.integration.crowds import TWO_NODES
from tests.integration.sweep.api import Api, ApiRefusalError
from tests.integration.sweep.forked import ForkedOperator
from tests.support.kubectl import finetune
from tests.support.objects import prepared, trained
from tests.support.proxy import FaultyProxy, Rule, Seen, let_pass

STEP_SECONDS = 60.0
NAME = "tone"
T = TypeVar("T")


class Life:
    """The steps of a script. Each waits for what it needs, and restarts an operator that died."""

    def __init__(self, api: Api, proxy: FaultyProxy, operator: ForkedOperator) -> None:
        self.api = api
        self.proxy = proxy
        self.operator = operator
        self.first = 1  # the first write that the sweep disturbs
        self.released = threading.Event()  # late requests may be committed
        self.hit: Seen | None = None  # the write with the fault
        self.events = 0  # of the operator's watches
        self.hit_event: str | None = None  # the event with the fault
        self.rule_after_crash: Rule = let_pass
        self.exit_codes: list[int | None] = []  # of the operators that ended
        self.is_queued = False
        self.serves = False  # a Model with spec.serve instead of a FineTune
        self._is_unseen = False
        self.is_away = False  # the operator is killed before each act, and started after it
        self._frozen: ForkedOperator | None = None

    # --- waiting ----------------------------------------------------------------------------------

    def until(
        self,
        find: Callable[[], T],
        what: str | Callable[[], str],
        seconds: float = STEP_SECONDS,
    ) -> T:
        """Wait until `find` returns something true, and return it."""
        end = time.monotonic() + seconds
        while True:
            self.live_on()
            found = find()
            if found:
                return found
            if time.monotonic() > end:
                words = what if isinstance(what, str) else what()
                raise AssertionError(f"not within {seconds:.0f} s: {words}\n{self.describe()}")
            time.sleep(0.1)

    def live_on(self) -> None:
        """Start the operator again if it died. The fault is over then."""
        if self.operator.is_dead and not self._is_unseen:
            if self.operator.starts:
                self.exit_codes.append(self.operator.exit_code)
            self.proxy.rule, self.rule_after_crash = self.rule_after_crash, let_pass
            self.operator.start()

    @contextmanager
    def unseen(self, *, always: bool = False) -> Iterator[None]:
        """What a user, pods, or a queue do while the operator is away.

        always: in every life, and not only in one with `is_away`.
        """
        is_outermost = (always or self.is_away) and not self._is_unseen
        if is_outermost:
            self._is_unseen = True
            self.operator.stop()
        yield
        if is_outermost:
            self._is_unseen = False
            self.operator.start()

    def freeze(self) -> None:
        """Stop the process without an end, so that another one takes over. Any thread may call."""
        self._frozen, self.operator = self.operator, self.operator.twin()
        self._frozen.send(signal.SIGSTOP)

    def end_fault(self) -> None:
        """Commit what is late, and wake up a frozen process."""
        self.released.set()
        if self._frozen is not None:
            self._frozen.send(signal.SIGCONT)

    def close(self) -> None:
        self.released.set()
        for operator in (self.operator, self._frozen):
            if operator is not None:
                operator.stop()

    def describe(self) -> str:
        status = self.status()
        parts = ("state", "stage", "reason", "message", "error", "attempts")
        jobs = {
            job["metadata"]["name"]: [
                item["type"] for item in job.get("status", {}).get("conditions", [])
            ]
            for job in self.api.list("jobs")
        }
        told = {part: status[part] for part in parts if part in status}
        return f"status: {told}\nJobs: {jobs}\n{self.operator.logs()}"

    def status(self) -> JsonObject:
        found = self.api.get("finetunes", NAME)
        return found.get("status", {}) if found else {}

    def wait(self, state: str) -> JsonObject:
        def find() -> JsonObject | None:
            status = self.status()
            return status if status.get("state") == state else None

        found = self.until(find, f"the state {state}")
        assert found is not None
        return found

    def wait_reason(self, reason: str) -> None:
        self.until(lambda: self.status().get("reason") == reason, f"the reason {reason}")

    def wait_publishing(self) -> None:
        self.until(lambda: self.status().get("stage") == "publishing", "the stage publishing")

    def job(self, ending: str) -> JsonObject:
        """Wait for a Job that is not being deleted."""

        def find() -> JsonObject | None:
            jobs = [job for job in self.api.list("jobs") if is_present(job, ending)]
            return jobs[0] if jobs else None

        found = self.until(find, f"the Job {ending}")
        assert found is not None
        return found

    def pods(self, ending: str) -> list[str]:
        """Wait for all pods of a Job and return their names in the order of ranks."""

        def find() -> list[str]:
            job = self.job(ending)
            uid, wanted = job["metadata"]["uid"], job["spec"].get("completions") or 1
            found = [pod for pod in self.api.list("pods") if is_owned(pod, uid)]
            return sorted(map(_name, found), key=_rank) if len(found) == wanted else []

        return self.until(find, f"the pods of {ending}")

    def wait_no_job(self, ending: str) -> None:
        def is_gone() -> bool:
            return not any(is_present(job, ending) for job in self.api.list("jobs"))

        self.until(is_gone, f"the deletion of the Job {ending}")

    def wait_attempt(self, number: int = 1) -> None:
        """Wait until the status has the attempt."""

        def is_recorded() -> bool:
            return any(item["number"] == number for item in self.status().get("attempts", []))

        self.until(is_recorded, f"the record of attempt {number}")

    # --- what the user does -----------------------------------------------------------------------

    def create(self, *, queued: bool = False, **spec: Any) -> None:
        self.is_queued = queued
        if queued:
            spec["queueName"] = "gpus"
        with self.unseen():
            self.api.create("finetunes", finetune(NAME, **{**TWO_NODES, **spec}))

    def change(self, **spec: Any) -> None:
        with self.unseen():
            self.api.patch("finetunes", NAME, {"spec": spec})

    def cancel(self) -> None:
        self.change(cancel=True)
        self.wait("cancelled")

    def delete(self) -> None:
        with self.unseen():
            self.api.delete("finetunes", NAME)
        self.until(lambda: self.api.get("finetunes", NAME) is None, "the end of the FineTune")

    # --- what the pods do -------------------------------------------------------------------------

    def check_data(self, outcome: Outcome | None = None, code: int = 0) -> None:
        (pod,) = self.pods("-prepare")
        self.end(pod, code, outcome or prepared())

    def train(self, ending: str = "-a1", address: str | None = None) -> list[str]:
        """Make the pods ready until the operator knows it. address: of rank 0.

        A fault may delete the Job and its pods in the meantime, and other ones replace them.
        """
        ready: set[str] = set()

        def is_running() -> list[str]:
            pods = self.pods(ending)
            for rank, pod in enumerate(pods):
                if pod not in ready:
                    self._make_ready(pod, address if rank == 0 else None)
                    ready.add(pod)
            status = self.status()  # it may still be that of the attempt before
            recorded = {f"-a{item['number']}" for item in status.get("attempts", [])}
            return pods if status.get("state") == "running" and ending in recorded else []

        return self.until(is_running, "the state running")

    def _make_ready(self, pod: str, address: str | None) -> None:
        where = {"podIP": address, "podIPs": [{"ip": address}]} if address else {}
        with suppress(ApiRefusalError):  # it is gone
            self.api.patch("pods", f"{pod}/status", {"status": {**ready_now(), **where}})

    def publish(self, ending: str = "-a1") -> None:
        first, *others = self.pods(ending)
        with self.unseen():
            self.end(first, 0, self.published())
            for pod in others:
                self.end(pod, 0)

    def published(self) -> Outcome:
        """The result of a training, with the addresses of the layout of this FineTune."""
        finetune = self.api.get("finetunes", NAME)
        assert finetune is not None
        uid = finetune["metadata"]["uid"]
        base = f"s3://bucket/out/{self.api.namespace}/{NAME}-{uid[:8]}"
        result = trained().trained
        assert result is not None
        return Outcome(
            trained=result.replace(
                fine_tuned_model=f"ada:ft-{self.api.namespace}:{NAME}",
                model_uri=f"{base}/model",
                result_files=[f"{base}/results.csv"],
            )
        )

    def end(self, pod: str, code: int, outcome: Outcome | None = None) -> None:
        message = outcome.to_termination_message() if outcome else ""
        with self.unseen():
            self.api.patch("pods", f"{pod}/status", {"status": ended(code, message)})

    def lose_pods(self, ending: str) -> None:
        """Remove the pods of a Job that has ended well, as a cleanup of nodes does."""
        self.until(lambda: is_complete(self.job(ending)), f"the end of {ending}")
        for pod in self.pods(ending):
            self.api.delete("pods", pod)

    def delete_job(self, ending: str) -> None:
        """Delete a Job. The garbage collector deletes its pods."""
        job = self.job(ending)
        with self.unseen():
            self.api.delete("jobs", _name(job))

    # --- a served Model ---------------------------------------------------------------------------

    def create_model(self) -> None:
        self.serves = True
        spec = {
            "id": f"ada:ft-{self.api.namespace}:{NAME}",
            "uri": f"s3://bucket/out/{self.api.namespace}/{NAME}-11111111/model",
            "base": "ada",
            "pretrainingLearningRate": 0.001,
            "contextLength": 256,
        }
        model = {"apiVersion": names.API_VERSION, "kind": "Model", "metadata": {"name": NAME}}
        self.api.create("models", {**model, "spec": spec})

    def serve(self, fields: JsonObject | None) -> None:
        """Change spec.serve of the Model. None: remove it."""
        with self.unseen():
            self.api.patch("models", NAME, {"spec": {"serve": fields}})

    def serving(self) -> JsonObject:
        found = self.api.get("models", NAME)
        serving: JsonObject | None = found.get("status", {}).get("serving") if found else None
        return serving or {}

    def serving_pods(self) -> list[JsonObject]:
        """The pods of the server that are not being deleted."""
        return [
            pod
            for pod in self.api.list("pods")
            if pod["metadata"].get("labels", {}).get(names.LABEL_COMPONENT)
            == names.COMPONENT_SERVING
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def renew(self, at: datetime) -> None:
        """Renew the Lease, as the gateway does for a request."""

        def lease() -> str | None:
            return next((_name(item) for item in self.api.list("leases")), None)

        name = self.until(lease, "the Lease")
        assert name is not None
        renewed = {"renewTime": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
        with self.unseen():
            self.api.patch("leases", name, {"spec": renewed})

    def wait_serving(self, state: str, pods: int, runtime: str = "small") -> None:
        """Make the pods ready if the state is ready, until the operator knows it."""

        def is_there() -> bool:
            found = self.serving_pods()
            for pod in found if state == "ready" else []:
                if not is_ready(pod):
                    self._make_ready(_name(pod), None)
            serving = self.serving()
            is_new = serving.get("runtime") == runtime and serving.get("replicas") == pods
            is_enough = state != "ready" or (
                serving.get("readyReplicas") == pods and self._is_rolled_out(pods)
            )
            return serving.get("state") == state and is_new and is_enough and len(found) == pods

        self.until(is_there, lambda: f"{state} with {pods} pods: {self.serving()}")

    def _is_rolled_out(self, pods: int) -> bool:
        """Whether all pods have the newest template and are ready."""
        for deployment in self.api.list("deployments"):
            status = deployment.get("status", {})
            is_seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
            counts = [status.get(f"{which}eplicas") for which in ("r", "updatedR", "readyR")]
            if is_seen and counts == [pods] * 3:
                return True
        return False

    # --- what the queue does ----------------------------------------------------------------------

    def admit(self, ending: str) -> None:
        """Start a queued Job, as Kueue does."""
        job = _name(self.job(ending))
        with self.unseen():
            self.api.patch("jobs", job, {"spec": {"suspend": False}})

    def preempt(self, ending: str) -> None:
        """Suspend an admitted Job, as Kueue does. Its controller deletes the pods."""
        job = _name(self.job(ending))
        with self.unseen():
            self.api.patch("jobs", job, {"spec": {"suspend": True}})


def ready_now() -> JsonObject:
    """The status of a pod that has just become ready."""
    return {**READY, "startTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


def is_present(job: JsonObject, ending: str) -> bool:
    """Whether a Job has this name and is not being deleted."""
    return _name(job).endswith(ending) and "deletionTimestamp" not in job["metadata"]


def is_working(job: JsonObject) -> bool:
    """Whether a Job has neither ended nor is being deleted."""
    conditions = job.get("status", {}).get("conditions", [])
    has_ended = any(item["type"] in {"Complete", "Failed"} for item in conditions)
    return not has_ended and "deletionTimestamp" not in job["metadata"]


def is_complete(job: JsonObject) -> bool:
    """Whether all pods of a Job have ended well."""
    conditions = job.get("status", {}).get("conditions", [])
    return any(item["type"] == "Complete" and item["status"] == "True" for item in conditions)


def is_ready(pod: JsonObject) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def is_owned(thing: JsonObject, uid: str) -> bool:
    """Whether an object has this owner and is not being deleted."""
    owners = [owner["uid"] for owner in thing["metadata"].get("ownerReferences", [])]
    return uid in owners and "deletionTimestamp" not in thing["metadata"]


def _name(thing: JsonObject) -> str:
    return str(thing["metadata"]["name"])


def _rank(pod: str) -> int:
    """The rank in the name of an Indexed Job's pod: `NAME-RANK-SUFFIX`."""
    part = pod.rsplit("-", 2)[1]
    return int(part) if part.isdigit() else 0
