"""A cluster that assigns user IDs, as OpenShift does: every pod of the product runs under one."""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from finetune_api.names import LABEL_COMPONENT
from tests.e2e.conftest import RUN, Cluster, Team, jsonl
from tests.e2e.test_finetune import TWO_NODES, delete_with_files
from tests.e2e.test_serving import SERVING, Served
from tests.support.kubectl import finetune
from tests.support.user_ids import assign_ids, refuse_fixed_ids

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

POLICY_SECONDS = 3  # until the API server applies new policies


@dataclass(frozen=True)
class Assigned:
    """A namespace whose pods get one user ID, and in which no object may choose another."""

    team: Team
    number: int

    def components(self) -> dict[str, set[int]]:
        """The user IDs of all containers by the component of their pod; the operator's is `""`."""
        found: dict[str, set[int]] = {}
        for pod in self.team.kubectl.list("pods"):
            spec, component = pod["spec"], pod["metadata"]["labels"].get(LABEL_COMPONENT, "")
            numbers = found.setdefault(component, set())
            for container in [*spec.get("initContainers", []), *spec["containers"]]:
                own = container.get("securityContext", {}).get("runAsUser")
                numbers.add(own or spec["securityContext"]["runAsUser"])
        return found


@pytest.fixture(scope="module")
def assigned(
    cluster: Cluster, tiny_model: str, team: Team, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Assigned]:
    number = random.randrange(1_000_000_000, 2_000_000_000)
    made = Team(cluster, f"{RUN}-ids", tmp_path_factory.mktemp("ids"))
    made.create()
    refused = refuse_fixed_ids(made.name, "jobs", "deployments")
    given = assign_ids(made.name, number)
    cluster.kubectl.apply(*refused, *given)
    time.sleep(POLICY_SECONDS)
    try:
        flags = ("crds.install=false", "clusterAssignsUserIds=true")
        flags += ("gateway.enabled=true", "gateway.allowPlainHttp=true")
        serving = f"serving={json.dumps(SERVING)}"
        made.install(*(f"--set={flag}" for flag in flags), "--set-json", serving)
        yield Assigned(made, number)
    finally:
        for policy in (*refused, *given):
            cluster.kubectl("delete", policy["kind"], policy["metadata"]["name"])
        made.remove()


def test_every_pod_runs_as_the_user_that_the_cluster_assigns(assigned: Assigned, name: str) -> None:
    team, kubectl = assigned.team, assigned.team.kubectl
    kubectl.apply(
        finetune(
            name,
            model="tiny",
            trainingFile=team.put("train.jsonl", jsonl(32)),
            validationFile=team.put("valid.jsonl", jsonl(8, seed=1000)),
            hyperparameters={"nEpochs": 1, "batchSize": 8},
            resources=TWO_NODES,
        )
    )
    status = kubectl.wait_state(name, "succeeded", "failed", seconds=240)
    assert status["state"] == "succeeded", json.dumps(status, indent=1)
    (model,) = kubectl.list("models")
    served = Served(team, model["metadata"]["name"])
    served.serve()
    served.until_state("ready")
    own = {assigned.number}
    assert assigned.components() == {"": own, "prepare": own, "train": own, "serving": own}
    program = "import os; print(os.getuid(), os.getgid())"
    inside = kubectl("exec", "deployment/finetune-operator", "--", "python", "-c", program)
    assert inside.split() == [str(assigned.number), "0"]

    uri = status["modelUri"]
    prefix = uri.removeprefix(f"s3://{team.cluster.bucket}/")
    assert f"{prefix}/model.safetensors" in team.keys(prefix)
    delete_with_files(team, status["fineTunedModel"].replace(":", "-"))
    assert team.keys(prefix) == []
