"""Models that the operator serves, without a cluster: objects, sleep, states, and causes."""

import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api import names
from finetune_api.model import Model
from finetune_api.outcome import Failure, Outcome
from finetune_api.serving import Serve, ServingStatus, serving_name
from finetune_api.wire import JsonObject
from finetune_operator.build.serving import (
    PROBE,
    build_deployment,
    build_lease,
    build_policy,
    build_service,
)
from finetune_operator.core.serving.decide import (
    GRACE_SECONDS,
    ChangeChild,
    Child,
    CreateChild,
    DeleteChild,
    ObservedServing,
    ServingPlan,
    decide_serving,
    event_of,
)
from finetune_operator.core.serving.pods import LOG_CHARACTERS, LOG_LINES, ServingPod
from finetune_operator.messages import StatusMessage
from finetune_operator.settings import PodNetwork
from tests.operator.test_deletion import SPEC
from tests.support.objects import NOW, a_settings

GOLDEN = Path(__file__).parent / "golden"
UID = "99999999-8888"
NAME = "ada-ft-team-tone-2026"
SERVING = {
    "fetchImage": "registry/trainer:1",
    "runtimes": [
        {"name": "cpu", "image": "registry/trainer:1", "startSeconds": 600},
        {
            "name": "vllm",
            "engine": "vllm",
            "image": "vllm/vllm-openai:v0.32.0",
            "args": ["--max-model-len=8192"],
            "resources": {"nvidia.com/gpu": 1, "memory": "32Gi"},
            "nodeSelector": {"gpu": "h100"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "env": {"HOME": "/data"},
            "podLabels": {"team": "a"},
        },
    ],
}
SLEEPER = {"minReplicas": 0, "idleSeconds": 300}


def served(
    serve: JsonObject | None = None,
    status: ServingStatus | None = None,
    *,
    going: bool = False,
    **changes: Any,
) -> Model:
    """A Model with spec.serve; serve=None: without."""
    meta: JsonObject = {"name": NAME, "namespace": "team", "uid": UID, "resourceVersion": "7"}
    if going:
        meta["deletionTimestamp"] = "2026-11-21T12:00:00Z"
    spec = {**SPEC, **changes} | ({} if serve is None else {"serve": serve})
    raw: JsonObject = {"metadata": meta, "spec": spec}
    if status is not None:
        raw["status"] = {"serving": status.to_dict()}
    return Model.parse(raw)


def child(kind: str, **changes: Any) -> Child:
    owner = UID if kind == "Deployment" else "uid-Deployment"
    found = Child(kind, serving_name(NAME, UID), f"uid-{kind}", "1", owner, UID)
    return replace(found, **changes)


def settings(**changes: Any) -> Any:
    return a_settings(serving=SERVING, **changes)


class Server:
    """The objects of one Model, to which plans are applied as the API server would."""

    def __init__(self, serve: JsonObject, **changes: Any) -> None:
        self.model = served(serve, **changes)
        self.children: dict[str, Child] = {}
        self.pods: list[JsonObject] = []
        self.now = NOW
        self.events: list[StatusMessage] = []
        self.plan = ServingPlan(None)

    def after(self, seconds: float) -> "Server":
        self.now += timedelta(seconds=seconds)
        return self.settle()

    def use(self) -> "Server":
        """A request, as the gateway reports it."""
        self.children["Lease"] = replace(self.children["Lease"], renewed_at=self.now)
        return self

    def settle(self) -> "Server":
        """Reconcile until nothing changes."""
        for _ in range(5):
            pods = tuple(map(ServingPod.parse, self.pods))
            observed = ObservedServing(self.model, tuple(self.children.values()), pods)
            self.plan = decide_serving(observed, settings(), self.now)
            for action in self.plan.actions:
                self._apply(action)
            before = self.model.status.serving
            event = event_of(before, self.plan.status)
            if event is not None:
                self.events.append(event)
            status = self.model.status.replace(serving=self.plan.status)
            self.model = self.model.replace(status=status)
            if not self.plan.actions and before == self.plan.status:
                return self
        raise AssertionError(f"it never settles: {self.plan}")

    def _apply(self, action: Any) -> None:
        if isinstance(action, CreateChild):
            kind = action.manifest["kind"]
            raw = {**action.manifest}
            raw["metadata"] = {**raw["metadata"], "uid": f"uid-{kind}", "resourceVersion": "1"}
            self.children[kind] = Child.parse(kind, raw)
        elif isinstance(action, ChangeChild):
            values = action.values
            found = self.children[action.child.kind]
            self.children[action.child.kind] = replace(
                found,
                replicas=values.get("/spec/replicas", found.replicas),
                template=values.get("/metadata/annotations/finetune.dev~1template", found.template),
            )
        else:
            del self.children[action.child.kind]

    @property
    def replicas(self) -> int:
        return self.children["Deployment"].replicas

    @property
    def status(self) -> ServingStatus:
        assert self.plan.status is not None
        return self.plan.status


def pod(
    number: int = 0,
    *,
    is_ready: bool = False,
    container: str = names.CONTAINER,
    exit_code: int | None = None,
    message: str = "",
    restarts: int = 0,
    reason: str = "Error",
    status: JsonObject | None = None,
) -> JsonObject:
    """A pod of the Deployment. exit_code: of the last end of the container."""
    entry: JsonObject = {"name": container, "ready": is_ready, "restartCount": restarts}
    if exit_code is None:
        entry["state"] = {"running": {}}
    else:
        end = {"exitCode": exit_code, "message": message, "reason": reason}
        entry["state"] = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s"}}
        entry["lastState"] = {"terminated": end}
    kind = "containerStatuses" if container == names.CONTAINER else "initContainerStatuses"
    found = {
        "phase": "Running",
        kind: [entry],
        "conditions": [{"type": "Ready", "status": str(is_ready)}],
    }
    limits = {"resources": {"limits": {"memory": "4Gi"}}}
    return {
        "metadata": {"name": f"p{number}", "uid": f"u{number}"},
        "spec": {"containers": [{"name": names.CONTAINER, **limits}]},
        "status": found if status is None else status,
    }


PENDING = {
    "phase": "Pending",
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        }
    ],
}
NO_IMAGE = {
    "phase": "Pending",
    "containerStatuses": [
        {
            "name": names.CONTAINER,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}},
        }
    ],
}


def test_a_served_model_gets_its_objects_and_becomes_ready() -> None:
    server = Server({"replicas": 2}).settle()
    assert set(server.children) == {"Service", "Lease", "Deployment"}
    assert (server.replicas, server.status.state, server.status.reason) == (2, "loading", "Loading")
    server.pods = [pod(0, is_ready=True), pod(1)]
    server.after(10)
    assert (server.status.state, server.status.ready_replicas) == ("ready", 1)
    assert server.status.message == "1 of 2 pods answers requests"
    server.pods = [pod(0, is_ready=True), pod(1, is_ready=True)]
    server.after(10)
    assert server.status.message == "2 of 2 pods answer requests"
    assert [event.reason for event in server.events] == ["Loading", "Ready"]
    assert server.status.service == serving_name(NAME, UID)
    assert server.after(10**7).replicas == 2  # it never sleeps


def test_an_idle_model_sleeps_and_the_next_request_wakes_it() -> None:
    server = Server(SLEEPER).settle()
    server.after(500)  # it loads for longer than idleSeconds
    assert server.replicas == 1
    server.pods = [pod(is_ready=True)]
    server.after(1)
    assert (server.status.state, server.replicas) == ("ready", 1)
    server.after(300 + GRACE_SECONDS - 1)
    assert server.replicas == 1  # since it is ready
    server.use().after(300)
    assert server.replicas == 1
    server.after(GRACE_SECONDS + 1)
    assert (server.status.state, server.replicas) == ("asleep", 0)
    server.pods = []
    assert server.after(10**6).replicas == 0
    assert server.use().after(1).replicas == 1
    assert server.status.state == "loading"
    reasons = [event.reason for event in server.events]
    assert reasons == ["Loading", "Ready", "Asleep", "Loading"]


def test_the_plan_comes_back_when_the_model_may_sleep() -> None:
    server = Server({**SLEEPER, "idleSeconds": 90}).settle()
    server.pods = [pod(is_ready=True)]
    server.after(5)
    wait = server.plan.requeue_after
    assert wait is not None
    server.after(wait)
    assert server.status.state == "asleep"


def test_some_pods_remain_when_idle() -> None:
    server = Server({"replicas": 3, "minReplicas": 1, "idleSeconds": 60}).settle()
    server.pods = [pod(n, is_ready=True) for n in range(3)]
    server.after(1)
    assert (server.replicas, server.status.replicas) == (3, 3)
    server.after(60 + GRACE_SECONDS + 1)
    assert (server.replicas, server.status.state, server.status.replicas) == (1, "ready", 1)
    assert server.use().after(1).replicas == 3


@pytest.mark.parametrize(
    "renewed", [None, NOW + timedelta(days=9999), NOW - timedelta(days=9999)], ids=str
)
def test_any_time_in_a_lease_is_harmless(renewed: datetime | None) -> None:
    server = Server(SLEEPER).settle()
    server.pods = [pod(is_ready=True)]
    server.after(1)
    server.children["Lease"] = replace(server.children["Lease"], renewed_at=renewed)
    server.after(1)
    assert server.status.state == "ready"
    assert server.plan.requeue_after is not None
    assert server.plan.requeue_after <= 300 + GRACE_SECONDS + 1


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-01-01", "2026-01-01T00:00:00", "🦊"])
def test_a_lease_with_an_invalid_time_counts_as_renewed(text: str) -> None:
    raw = {"metadata": {"name": "l", "uid": "u", "resourceVersion": "1"}}
    found = Child.parse("Lease", {**raw, "spec": {"renewTime": text}})
    assert found.renewed_at is None


@pytest.mark.parametrize(
    ("status", "reason", "part"),
    [
        (PENDING, "Unschedulable", "0/3 nodes have nvidia.com/gpu free"),
        (NO_IMAGE, "ImagePull", "no such tag"),
    ],
)
def test_a_cause_that_lasts_is_a_failure_and_recovers(
    status: JsonObject, reason: str, part: str
) -> None:
    server = Server({}).settle()
    server.pods = [pod(status=status)]
    server.after(10)
    assert (server.status.state, server.status.reason) == ("loading", reason)
    server.after(200)
    assert (server.status.state, server.status.reason) == ("failed", reason)
    assert part in server.status.message
    assert server.status.message.endswith("Kubernetes tries again until it works")
    server.pods = [pod()]
    assert server.after(10).status.state == "loading"
    server.pods = [pod(is_ready=True)]
    assert server.after(10).status.state == "ready"


def test_one_crash_is_no_failure_and_a_repeated_one_is() -> None:
    server = Server({}).settle()
    log = "loading\nCUDA error: no kernel image\n"
    server.pods = [pod(exit_code=1, message=log, restarts=1)]
    server.after(500)
    assert (server.status.state, server.status.reason) == ("loading", "ServerCrashed")
    server.pods = [pod(exit_code=1, message=log, restarts=2)]
    server.after(1)
    assert server.status.state == "failed"
    assert "exit code 1: CUDA error: no kernel image;" in server.status.message
    assert server.status.log == ["loading", "CUDA error: no kernel image"]
    server.pods = [pod(restarts=3, is_ready=True)]
    server.after(1)
    assert (server.status.state, server.status.log) == ("ready", None)


def test_too_little_memory_names_the_limit() -> None:
    server = Server({}).settle()
    server.pods = [pod(exit_code=137, restarts=2, reason="OOMKilled")]
    server.after(1)
    assert (server.status.state, server.status.reason) == ("failed", "OutOfMemory")
    assert "its limit of 4Gi; raise spec.serve.resources.memory" in server.status.message


def test_a_failed_download_has_the_words_of_the_pod() -> None:
    failure = Failure(code="S3AccessDenied", message="access denied\x1b[2J", hint="check the key")
    text = Outcome(failure=failure).to_termination_message()
    server = Server({}).settle()
    fetch = names.CONTAINER_FETCH
    server.pods = [pod(container=fetch, exit_code=names.EXIT_USER, message=text)]
    server.after(1)
    assert (server.status.state, server.status.reason) == ("failed", "S3AccessDenied")
    assert "cannot be downloaded: access denied\\x1b[2J; check the key;" in server.status.message
    server.pods = [pod(container=fetch, exit_code=names.EXIT_UNAVAILABLE, message="no route")]
    server.after(1)
    assert (server.status.state, server.status.reason) == ("loading", "ServerCrashed")


def test_hostile_words_of_a_pod_are_bounded() -> None:
    text = "\n".join(["\x1b]0;x\x07" + "a" * 9000] * 500)
    failure = Failure(code="🦊" * 500, message="m" * 9000, hint="h" * 9000)
    outcome = failure.replace(message="m" * 3000, hint="h" * 3000)
    hostile = Outcome(failure=outcome).model_dump_json(by_alias=True, exclude_none=True)
    for container, message in ((names.CONTAINER, text), (names.CONTAINER_FETCH, hostile)):
        server = Server({}).settle()
        server.pods = [pod(container=container, exit_code=1, message=message, restarts=9)]
        found = server.after(1).status
        ServingStatus.model_validate(found.to_dict())
        assert "\x1b" not in found.message + "".join(found.log or [])
        assert len(found.message) <= 2048
        assert len(found.log or []) <= LOG_LINES
        assert all(len(line) <= LOG_CHARACTERS for line in found.log or [])
        assert found.reason in {"ServerCrashed", "InternalError"}


def test_a_failed_start_is_remembered_while_the_model_sleeps() -> None:
    server = Server(SLEEPER).settle()
    server.pods = [pod(status=NO_IMAGE)]
    server.after(200).after(600 + GRACE_SECONDS)
    assert (server.status.state, server.replicas) == ("asleep", 0)
    assert "The last start failed: 1 of 1 pod cannot pull the image" in server.status.message


def test_an_unknown_runtime_and_a_taken_name_are_failures_without_actions() -> None:
    server = Server({"runtime": "tpu"}).settle()
    assert (server.status.state, server.status.reason) == ("failed", "UnknownRuntime")
    assert "'tpu' is unknown" in server.status.message
    assert server.status.message.endswith("serving.runtimes: cpu, vllm")
    assert server.children == {}
    for theirs in (child("Service", model_uid=None), child("Deployment", owner_uid="other")):
        plan = decide_serving(ObservedServing(served({}), (theirs,)), settings(), NOW)
        assert plan.status is not None
        assert (plan.status.reason, plan.actions) == ("ForeignObject", ())


def test_a_refusal_of_the_api_server_is_the_state() -> None:
    refused = StatusMessage("QuotaExceeded", "Deployment x cannot be created: exceeded quota")
    plan = decide_serving(ObservedServing(served({}), refused=refused), settings(), NOW)
    assert plan.status is not None
    assert (plan.status.state, plan.status.reason) == ("failed", "QuotaExceeded")
    assert plan.requeue_after is not None


def test_pods_that_cannot_be_created_are_explained() -> None:
    server = Server({}).settle()
    refused = 'pods "x" is forbidden: exceeded quota: gpus'
    server.children["Deployment"] = replace(server.children["Deployment"], refused=refused)
    server.after(200)
    assert (server.status.state, server.status.reason) == ("failed", "QuotaExceeded")


@pytest.mark.parametrize("going", [False, True])
def test_without_serve_and_while_it_is_deleted_the_deployment_goes_with_what_it_owns(
    going: bool,
) -> None:
    kinds = ("Deployment", "Service", "Lease")
    status = Server({}).settle().status
    model = served({} if going else None, status, going=going)

    def plan_with(*children: Child) -> ServingPlan:
        return decide_serving(ObservedServing(model, children), settings(), NOW)

    plan = plan_with(*map(child, kinds))
    assert plan == ServingPlan(None, (DeleteChild(child("Deployment")),))
    for harmless in (
        child("Service"),  # the garbage collector removes it
        child("Deployment", is_going=True),
        child("Deployment", owner_uid="other"),
    ):
        assert plan_with(harmless).actions == ()
    assert event_of(status, None) == StatusMessage(
        "Stopped", "spec.serve was removed, and the server with it"
    )


def test_what_a_new_deployment_owns_is_created_again() -> None:
    server = Server({}).settle()
    assert server.children["Lease"].owner_uid == "uid-Deployment"
    server.children["Deployment"] = replace(server.children["Deployment"], uid="another")
    observed = ObservedServing(server.model, tuple(server.children.values()))
    plan = decide_serving(observed, settings(), NOW)
    made = [action.manifest for action in plan.actions if isinstance(action, CreateChild)]
    assert {item["kind"] for item in made} == {"Service", "Lease"}
    assert {item["metadata"]["ownerReferences"][0]["uid"] for item in made} == {"another"}
    going = replace(server.children["Deployment"], is_going=True)
    children = (going, *(it for it in server.children.values() if it.kind != "Deployment"))
    assert decide_serving(ObservedServing(server.model, children), settings(), NOW).actions == ()


def test_another_runtime_replaces_the_pods_and_another_download_image_does_not() -> None:
    server = Server({}).settle()
    before = server.children["Deployment"].template
    server.model = server.model.replace(
        spec=server.model.spec.replace(serve=Serve(runtime="vllm", replicas=2))
    )
    server.settle()
    assert server.children["Deployment"].template != before
    assert server.replicas == 2
    other = a_settings(serving={**SERVING, "fetchImage": "registry/trainer:2"})
    plan = decide_serving(
        ObservedServing(server.model, tuple(server.children.values())), other, NOW
    )
    assert plan.actions == ()


def test_the_server_has_no_credentials_and_the_download_has() -> None:
    deployment = deployment_of({})
    spec = deployment["spec"]["template"]["spec"]
    (fetch,), (main,) = spec["initContainers"], spec["containers"]

    def secrets(container: JsonObject) -> set[str]:
        return {item["name"] for item in container["env"] if "valueFrom" in item}

    assert {"AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"} <= secrets(fetch)
    assert secrets(main) == set()
    (mount,) = [item for item in main["volumeMounts"] if item["name"] == "finetune-model"]
    assert mount["readOnly"] is True
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "Always"


@pytest.mark.parametrize("runtime", ["cpu", "vllm"])
def test_kubernetes_replaces_nothing_in_an_id(runtime: str) -> None:
    model = served({"runtime": runtime}, id="$(AWS_SECRET)$$x")
    command = deployment_of({"runtime": runtime}, model)["spec"]["template"]["spec"]["containers"][
        0
    ]["command"]
    joined = " ".join(command)
    assert expand(joined).count("$(AWS_SECRET)$$x") == 1


def expand(text: str) -> str:
    """The replacement of Kubernetes, with no variable known but AWS_SECRET.

    From its documentation: $$ is a $, and $(NAME) is replaced.
    """
    found, rest = "", text
    while rest:
        if rest.startswith("$$"):
            found, rest = found + "$", rest[2:]
        elif rest.startswith("$(AWS_SECRET)"):
            found, rest = found + "SECRET", rest[len("$(AWS_SECRET)") :]
        else:
            found, rest = found + rest[0], rest[1:]
    return found


def test_amounts_of_the_model_replace_those_of_the_runtime() -> None:
    serve = {"runtime": "vllm", "resources": {"gpus": 2, "memory": "64Gi"}}
    limits = deployment_of(serve)["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert limits["limits"] == {"nvidia.com/gpu": "2", "memory": "64Gi"}
    serve = {"runtime": "vllm", "resources": {"gpus": 0}}
    limits = deployment_of(serve)["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert limits["limits"] == {"memory": "32Gi"}


def deployment_of(serve: JsonObject, model: Model | None = None) -> JsonObject:
    found = settings()
    model = model or served(serve)
    wanted = Serve.model_validate(serve)
    runtime = found.serving.find(wanted.runtime)
    return build_deployment(model, wanted, runtime, found, wanted.replicas)


@pytest.mark.parametrize("runtime", ["cpu", "vllm"])
def test_the_manifests_are_the_golden_ones(runtime: str, request: pytest.FixtureRequest) -> None:
    model = served({"runtime": runtime})
    made = [
        deployment_of({"runtime": runtime}, model),
        build_service(model, "uid-of-the-deployment"),
        build_lease(model, "uid-of-the-deployment", NOW),
        build_policy(model, PodNetwork(egress=[{"to": []}])),
    ]
    text = yaml.safe_dump_all(made, sort_keys=False, width=1000)
    path = GOLDEN / f"serving-{runtime}.yaml"
    if request.config.getoption("--update-golden"):
        path.write_text(text)
    assert path.read_text() == text


def test_the_probe_is_a_program() -> None:
    compile(PROBE, "probe", "exec")


def test_a_name_is_a_dns_label_for_every_model() -> None:
    for name in ("a", "a.b", "a" * 253, f"{'a' * 34}.-b", "ada-ft-team-tone-2026"):
        found = serving_name(name, UID)
        assert len(found) <= 63
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", found)
        assert found.endswith("-99999999-serve")
