"""Models that the operator serves, on a real API server, with the rights of the chart."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from finetune_api.serving import serving_name
from finetune_api.wire import JsonObject
from finetune_operator.build.serving import ANNOTATION_TEMPLATE
from tests.integration.conftest import AUDITED, READY, Operator
from tests.integration.test_model_deletion import NAME, a_model
from tests.support.api_reader import RefusedError
from tests.support.kubectl import Kubectl, until

pytestmark = pytest.mark.integration

SERVING = {
    "fetchImage": "registry/trainer:1",
    "patienceSeconds": 0,
    "runtimes": [
        {"name": "small", "image": "registry/trainer:1", "startSeconds": 10},
        {"name": "vllm", "engine": "vllm", "image": "vllm:1", "resources": {"nvidia.com/gpu": 1}},
    ],
}


@pytest.fixture
def operator(team: Kubectl, tools: Path, tmp_path: Path) -> Iterator[Operator]:
    """An operator with exactly the rights of the chart with serving.enabled."""
    made = Operator(team, tools / "helm", tmp_path, serving=SERVING, deletesModels=False)
    AUDITED.add(made.user)
    made.start()
    yield made
    made.stop()


class Served:
    """One Model, and what belongs to it."""

    def __init__(self, team: Kubectl, operator: Operator) -> None:
        self.team = team
        self.operator = operator
        self.pods = 0

    def apply(self, serve: JsonObject | None) -> None:
        model = a_model(self.team, "Retain")
        if serve is not None:
            model["spec"]["serve"] = serve
        self.team.apply(model)

    @property
    def name(self) -> str:
        return serving_name(NAME, self.team.get("model", NAME)["metadata"]["uid"])

    @property
    def status(self) -> JsonObject:
        found: JsonObject = self.team.get("model", NAME).get("status", {}).get("serving") or {}
        return found

    def until(self, is_so: Callable[[], Any], seconds: float = 20) -> None:
        until(is_so, seconds, lambda: f"{self.status}\n{self.operator.logs()}")

    def until_state(self, state: str) -> JsonObject:
        self.until(lambda: self.status.get("state") == state)
        return self.status

    def names(self, kind: str) -> list[str]:
        return [item["metadata"]["name"] for item in self.team.list(kind)]

    def start_pod(self, status: JsonObject = READY) -> str:
        """Create a pod as the Deployment's controller does."""
        template = self.team.get("deployment", self.name)["spec"]["template"]
        self.pods += 1
        name = f"{self.name}-{self.pods}"
        meta = {**template["metadata"], "name": name}
        spec = {"containers": [{"name": "main", "image": "x"}]}
        self.team.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        self.team.patch_status("pod", name, status)
        return name

    def renew(self, at: datetime) -> None:
        """What the gateway does."""
        patch = f'{{"spec":{{"renewTime":"{at:%Y-%m-%dT%H:%M:%S.%fZ}"}}}}'
        self.team("patch", "lease", self.name, "--type=merge", "-p", patch)

    def replicas(self) -> int:
        found: int = self.team.get("deployment", self.name)["spec"]["replicas"]
        return found


@pytest.fixture
def served(team: Kubectl, operator: Operator) -> Served:
    return Served(team, operator)


def test_a_model_is_served_changed_and_stopped(served: Served, team: Kubectl) -> None:
    served.apply({"replicas": 1})
    served.until(lambda: served.names("leases") == [served.name])
    assert served.names("deployments") == [served.name]
    served.until(lambda: served.name in served.names("services"))
    assert served.until_state("loading")["service"] == served.name
    pod = served.start_pod()
    assert served.until_state("ready")["readyReplicas"] == 1
    events = [item for item in team.list("events") if item["involvedObject"]["kind"] == "Model"]
    assert {item["reason"] for item in events} == {"Loading", "Ready"}
    assert 'finetune_served_models{namespace="' in served.operator.metrics()

    # Pods that die are loading again; another runtime is another template.
    team("delete", "pod", pod, "--grace-period=0", "--force")
    served.until_state("loading")
    before = team.get("deployment", served.name)["metadata"]["annotations"][ANNOTATION_TEMPLATE]
    served.apply({"replicas": 3, "runtime": "vllm"})
    served.until(lambda: served.replicas() == 3)
    found = team.get("deployment", served.name)
    assert found["metadata"]["annotations"][ANNOTATION_TEMPLATE] != before
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "vllm:1"

    # What others delete comes back, and what others scale is corrected.
    team("delete", "service,lease", served.name)
    team("scale", "deployment", served.name, "--replicas=9")
    served.start_pod()
    served.until(lambda: served.names("leases") == [served.name])
    served.until(lambda: served.replicas() == 3)

    team("patch", "model", NAME, "--type=json", "-p", '[{"op":"remove","path":"/spec/serve"}]')
    served.until(lambda: not served.names("deployments"))  # which owns the others
    served.until(lambda: served.status == {})


def test_it_sleeps_and_the_lease_wakes_it(served: Served) -> None:
    served.apply({"minReplicas": 0, "idleSeconds": 60})
    served.until_state("loading")
    served.renew(datetime.now(UTC) - timedelta(hours=1))
    assert "wakes the model" in served.until_state("asleep")["message"]
    assert served.replicas() == 0
    served.renew(datetime.now(UTC))
    served.until_state("loading")
    assert served.replicas() == 1
    assert "finetune_model_wakes_total 1.0" in served.operator.metrics()


def test_a_refused_object_is_explained_and_made_later(served: Served, team: Kubectl) -> None:
    quota = {"hard": {"count/deployments.apps": "0"}}
    meta = {"name": "none"}
    team.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": quota})
    team.patch_status("resourcequota", "none", {**quota, "used": {"count/deployments.apps": "0"}})
    served.apply({})
    found = served.until_state("failed")
    assert found["reason"] == "QuotaExceeded"
    assert f"Deployment {served.name} cannot be created" in found["message"]
    team("delete", "resourcequota", "none")
    served.until_state("loading")


def test_the_api_server_refuses_contradictions(team: Kubectl, admin: Kubectl) -> None:
    def refusal(**spec: Any) -> str:
        model = a_model(team, "Retain")
        model["spec"] |= spec
        with pytest.raises(RefusedError) as error:
            team.apply(model)
        return str(error.value)

    both = refusal(serve={}, serving={"service": "s", "port": 80})
    assert "set spec.serve, for a server of the operator, or spec.serving" in both
    assert "serve.minReplicas may be at most serve.replicas" in refusal(serve={"minReplicas": 2})
    assert "should be greater than or equal to 60" in refusal(serve={"idleSeconds": 1})


def test_every_object_is_garbage_once_the_model_is_gone(served: Served, team: Kubectl) -> None:
    served.apply({})
    served.until(lambda: served.names("leases") == [served.name])
    model, deployment = team.get("model", NAME), team.get("deployment", served.name)
    owners = {"deployment": ("Model", model), "service": ("Deployment", deployment)}
    for kind, (owner_kind, owner) in {**owners, "lease": ("Deployment", deployment)}.items():
        (found,) = team.get(kind, served.name)["metadata"]["ownerReferences"]
        assert (found["kind"], found["uid"]) == (owner_kind, owner["metadata"]["uid"])
        assert found["controller"]


def test_what_the_operator_missed_while_it_was_down(served: Served) -> None:
    served.apply({"minReplicas": 0, "idleSeconds": 60})
    served.until_state("loading")
    served.operator.kill()
    served.renew(datetime.now(UTC) - timedelta(hours=1))
    served.operator.start()
    served.until_state("asleep")
