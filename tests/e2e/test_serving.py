"""A model that the operator serves on the cluster: it loads, sleeps, wakes, fails, and recovers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from finetune_api.serving import serving_name
from finetune_api.wire import JsonObject
from tests.e2e.conftest import RUN, Cluster, Team, jsonl
from tests.e2e.test_gateway import OWNER, forwarded, key_of
from tests.support.kubectl import finetune, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

REQUESTS = 20
LOADING = 409
IDLE_SECONDS = 60
SMALL = {"engine": "finetune", "resources": {"memory": "1500Mi"}, "startSeconds": 300}
SERVING = {
    "enabled": True,
    "patienceSeconds": 2,
    "fetchResources": {"cpu": None, "memory": "512Mi"},  # the node has two CPUs
    "runtimes": [
        {"name": "small", **SMALL},
        {"name": "no-image", **SMALL, "image": "localhost:1/none:1"},
        {"name": "gpus", **SMALL, "resources": {"nvidia.com/gpu": 1}},
        {"name": "crashing", **SMALL, "args": ["--no-such-flag"]},
    ],
}


class Served:
    """A Model of the team."""

    def __init__(self, team: Team, name: str) -> None:
        self.team = team
        self.name = name

    @property
    def status(self) -> JsonObject:
        found: JsonObject = self.team.kubectl.get("model", self.name).get("status", {})
        return found.get("serving") or {}

    @property
    def server(self) -> str:
        return serving_name(self.name, self.team.kubectl.get("model", self.name)["metadata"]["uid"])

    def serve(self, **fields: Any) -> None:
        patch = json.dumps({"spec": {"serve": fields}})
        self.team.kubectl("patch", "model", self.name, "--type=merge", "-p", patch)

    def stop(self) -> None:
        patch = '{"spec":{"serve":null}}'
        self.team.kubectl("patch", "model", self.name, "--type=merge", "-p", patch)

    def until(self, is_so: Callable[[], Any], seconds: float = 120) -> None:
        until(is_so, seconds, lambda: f"{self.status}\n{self.team.kubectl('get', 'pods')}")

    def until_state(self, *states: str, seconds: float = 120) -> JsonObject:
        self.until(lambda: self.status.get("state") in states, seconds)
        return self.status

    def pods(self) -> list[str]:
        component = "finetune.dev/component=serving"
        found = [
            item["metadata"]["name"]
            for item in self.team.kubectl.list("pods", component)
            if "deletionTimestamp" not in item["metadata"]
        ]
        return [name for name in found if name.startswith(f"{self.server}-")]

    def events(self, reason: str) -> int:
        return sum(
            item["reason"] == reason and item["involvedObject"]["name"] == self.name
            for item in self.team.kubectl.list("events")
        )

    def copy(self, name: str, **spec: Any) -> Served:
        """Another Model with the same files, except for these fields."""
        found = deepcopy(self.team.kubectl.get("model", self.name))
        changed = {**found["spec"], "id": f"{found['spec']['id']}-{name}", **spec}
        self.team.kubectl.apply(
            {
                "apiVersion": found["apiVersion"],
                "kind": "Model",
                "metadata": {"name": name},
                "spec": {key: value for key, value in changed.items() if key != "serving"},
            }
        )
        return Served(self.team, name)


@pytest.fixture(scope="module")
def served(cluster: Cluster, tiny_model: str, tmp_path_factory: Any) -> Iterator[Served]:
    """A trained model of a namespace whose release serves models."""
    folder: Path = tmp_path_factory.mktemp("serving")
    team = Team(cluster, f"{RUN}-serving", folder)
    team.create()
    key = key_of(team, OWNER)
    team.install(
        *("--take-ownership", "--set", "gateway.enabled=true"),
        *("--set", "gateway.allowPlainHttp=true", "--set", "gateway.replicas=1"),
        *("--set-json", f'gateway.keys.serviceAccounts=["{OWNER}"]'),
        *("--set-json", f"serving={json.dumps(SERVING)}"),
    )
    (folder / "key").write_text(key)
    uri = team.put("train.jsonl", jsonl(32))
    spec = {"model": "tiny", "hyperparameters": {"nEpochs": 1, "batchSize": 8}}
    team.kubectl.apply(
        finetune("tone", **spec, trainingFile=uri, resources={"nodes": 1, "gpusPerNode": 0})
    )
    team.kubectl.wait_state("tone", "succeeded", seconds=300)
    (model,) = team.kubectl.list("models")
    yield Served(team, model["metadata"]["name"])
    team.remove()


@contextmanager
def gateway(served: Served) -> Iterator[Callable[[], str]]:
    """A function that completes a prompt with the model, and returns the text."""
    key = (served.team.folder / "key").read_text()
    model = served.team.kubectl.get("model", served.name)["spec"]["id"]
    body = json.dumps({"model": model, "prompt": "aaa 8 ->", "max_tokens": 3, "temperature": 0})
    with forwarded(served.team) as url:

        def complete() -> str:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            request = urllib.request.Request(f"{url}/completions", body.encode(), headers)
            for left in (2, 1, 0):  # as clients do, if it loads for longer than the gateway holds
                try:
                    with urllib.request.urlopen(request, timeout=120) as answer:
                        return str(json.load(answer)["choices"][0]["text"])
                except urllib.error.HTTPError as error:
                    if not left or error.code != LOADING:
                        raise
            raise AssertionError("unreachable")

        yield complete


def test_it_serves_sleeps_and_twenty_requests_wake_it_once(served: Served) -> None:
    team = served.team
    served.serve(minReplicas=0, idleSeconds=IDLE_SECONDS)
    with gateway(served) as complete:
        first = complete()  # holds until it is loaded
        assert served.until_state("ready")["readyReplicas"] == 1
        assert complete() == first
        (pod,) = served.pods()
        found = team.kubectl.get("pod", pod)
        main = found["spec"]["containers"][0]
        assert not [item for item in main["env"] if "valueFrom" in item]

        # Faults of other Models, while this one is idle. Each says what to do.
        faults = {
            "no-image": (served.copy("no-image"), "ImagePull", "localhost:1/none"),
            "gpus": (served.copy("gpus"), "Unschedulable", "nvidia.com/gpu"),
            "crashing": (served.copy("crashing"), "ServerCrashed", "no-such-flag"),
        }
        changed = changed_copy(served)
        for runtime, (fault, _, _) in faults.items():
            fault.serve(runtime=runtime)
        changed.serve(runtime="small")
        for fault, reason, part in faults.values():
            status = fault.until_state("failed", seconds=240)
            assert status["reason"] == reason, status
            assert part in status["message"] + "".join(status.get("log", [])), status
        status = changed.until_state("failed")
        assert status["reason"] == "ModelChanged", status
        assert "restore the files" in status["message"]
        faults["no-image"][0].serve(runtime="small")  # the user corrects the runtime
        faults["no-image"][0].until_state("ready")
        for fault in (*(it for it, _, _ in faults.values()), changed):
            team.kubectl("delete", "model", fault.name)

        served.until_state("asleep", seconds=240)
        served.until(lambda: served.pods() == [])
        starts = served.events("Loading")
        with ThreadPoolExecutor(REQUESTS) as threads:
            texts = list(threads.map(lambda _: complete(), range(REQUESTS)))
        assert texts == [first] * REQUESTS
        assert served.events("Loading") == starts + 1
        assert len(served.pods()) == 1


def changed_copy(served: Served) -> Served:
    """A Model whose files in S3 were changed after they were published."""
    cluster = served.team.cluster
    uri: str = served.team.kubectl.get("model", served.name)["spec"]["uri"]
    prefix = uri.removeprefix(f"s3://{cluster.bucket}/")
    other = f"{served.team.prefix}/changed"
    for key in served.team.keys(prefix):
        body = cluster.s3.get_object(Bucket=cluster.bucket, Key=key)["Body"].read()
        if key.endswith("manifest.json"):
            body += b"\n"
        name = key.removeprefix(f"{prefix}/")
        cluster.s3.put_object(Bucket=cluster.bucket, Key=f"{other}/{name}", Body=body)
    return served.copy("changed", uri=f"s3://{cluster.bucket}/{other}")


def test_lost_pods_and_a_drained_node_are_told_and_made_good(served: Served) -> None:
    served.team.cluster.of_this_machine()
    served.serve(minReplicas=1)
    served.until_state("ready")
    kubectl = served.team.kubectl
    (before,) = served.pods()
    kubectl("delete", "pod", before, "--grace-period=0", "--force")
    served.until(lambda: before not in served.pods() and served.status["state"] == "ready")

    (before,) = served.pods()
    kubectl("cordon", "devcluster")
    try:
        kubectl("delete", "pod", before, "--wait=false")
        status = served.until_state("failed")
        assert status["reason"] == "Unschedulable"
    finally:
        kubectl("uncordon", "devcluster")
    served.until_state("ready")


def test_without_spec_serve_nothing_remains(served: Served) -> None:
    kubectl = served.team.kubectl
    server = served.server
    served.stop()
    served.until(lambda: served.status == {})
    served.until(lambda: not kubectl.list("deployments", "finetune.dev/component=serving"))
    served.until(lambda: served.team.kubectl.list("pods", "finetune.dev/component=serving") == [])
    assert server not in [item["metadata"]["name"] for item in kubectl.list("leases")]
    with gateway(served) as complete, pytest.raises(urllib.error.HTTPError) as refused:
        complete()
    assert refused.value.code == 503
