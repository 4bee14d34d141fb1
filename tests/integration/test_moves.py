"""FineTunes and Models are exported as YAML and imported into another cluster.

Both API servers are real. The prepare pods run the code of the image against an S3 server; training
pods are replaced by what they publish.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.controlplane import ControlPlane
from finetune_api import names
from finetune_api.outcome import Outcome
from finetune_api.tasks import PrepareTask, TrainTask
from finetune_api.uris import S3Uri
from finetune_data.prepare.job import prepare
from finetune_data.tokenize.dataset import read_manifest
from finetune_storage.connect import open_storage
from finetune_storage.s3 import Storage
from tests.data.builders import examples, jsonl, put_folder, write_tokenizer
from tests.data.conftest import set_environment
from tests.integration.conftest import ROOT, Kubelet, Operator
from tests.support.kubectl import Kubectl, finetune, until
from tests.support.objects import failed
from tests.support.published import publish

pytestmark = pytest.mark.integration

ONE_NODE = {"model": "ada", "resources": {"nodes": 1, "gpusPerNode": 0}}
OF_CLUSTER = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """A store with the base model and the data that the settings of the tests name."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, f"http://{host}:{port}")
        made = open_storage()
    made._client.create_bucket(Bucket="bucket")
    model = write_tokenizer(tmp_path_factory.mktemp("model"))
    put_folder(made, model, S3Uri("bucket", "models/ada"))
    made.write_bytes(S3Uri("bucket", "train.jsonl"), jsonl(examples(20)))
    yield made
    server.stop()


class Pods:
    """What the pods of one cluster do."""

    def __init__(self, team: Kubectl, storage: Storage, folder: Path) -> None:
        self.team = team
        self.storage = storage
        self.folder = folder
        self.kubelet = Kubelet(team)

    def job(self, name: str, ending: str) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            uid = self.team.get("finetune", name)["metadata"]["uid"]  # not of one before it
            jobs = self.team.list("jobs", f"{names.LABEL_UID}={uid}")
            return [job for job in jobs if job["metadata"]["name"].endswith(f"-{ending}")]

        until(found, 40, lambda: self.team("get", "finetunes,jobs,models"))
        return found()[0]

    def task(self, job: dict[str, Any]) -> str:
        [main] = job["spec"]["template"]["spec"]["containers"]
        return next(it["value"] for it in main["env"] if it["name"] == names.ENV_TASK)

    def prepare(self, name: str) -> Outcome:
        """Run the code of the prepare pod, and end the pod with its word."""
        job = self.job(name, "prepare")
        task = PrepareTask.model_validate_json(self.task(job))
        folder = self.folder / job["metadata"]["name"]
        folder.mkdir()
        outcome = prepare(task, self.storage, folder)
        assert outcome.failure is None, outcome.failure
        [pod] = self.kubelet.start_pods(job)
        self.kubelet.end(pod, 0, outcome.to_termination_message())
        return outcome

    def train(self, name: str) -> None:
        """Publish what the training pod would, and end it."""
        job = self.job(name, "a1")
        task = TrainTask.model_validate_json(self.task(job))
        dataset = read_manifest(S3Uri.parse(task.dataset), self.storage)
        assert dataset is not None
        model = f"ada:ft-{self.team.namespace}-2026-11-21-12-00-{len(name):02}"
        trained = publish(task, model, dataset, self.storage)
        [pod] = self.kubelet.start_pods(job)
        self.kubelet.end(pod, 0, Outcome(trained=trained).to_termination_message())
        self.team.wait_state(name, "succeeded")


@pytest.fixture
def pods(team: Kubectl, storage: Storage, tmp_path: Path) -> Pods:
    (tmp_path / "old").mkdir()
    return Pods(team, storage, tmp_path / "old")


def trains(team: Kubectl, name: str) -> bool:
    """Whether there is a Job of a training."""
    selector = f"{names.LABEL_FINETUNE}={name},{names.LABEL_COMPONENT}={names.COMPONENT_TRAIN}"
    return bool(team.list("jobs", selector))


def test_a_finetune_that_is_created_again_adopts_its_model(
    team: Kubectl, operator: Operator, pods: Pods
) -> None:
    team.apply(finetune("tone", **ONE_NODE))
    assert pods.prepare("tone").adopted is None
    pods.train("tone")
    former = team.get("finetune", "tone")
    team("delete", "finetune,job,model", "--all")

    team.apply(finetune("tone", **ONE_NODE))
    found = pods.prepare("tone").adopted
    assert found is not None and found.uid == former["metadata"]["uid"]
    status = team.wait_state("tone", "succeeded")
    assert status["reason"] == "Adopted"
    assert status["adoptedFrom"] == {"uid": former["metadata"]["uid"]}
    for key in ("modelUri", "fineTunedModel", "resultFiles", "trainedTokens"):
        assert status[key] == former["status"][key], key
    [model] = team.list("models")
    assert model["spec"]["deletionPolicy"] == "Retain"
    assert model["spec"]["fineTune"] == {"name": "tone", "uid": former["metadata"]["uid"]}
    assert model["metadata"]["annotations"][names.ANNOTATION_ADOPTED_FROM] == found.uid
    assert not trains(team, "tone")

    def posted() -> list[str]:
        uid = team.get("finetune", "tone")["metadata"]["uid"]
        events = team.list("events")
        return [it["reason"] for it in events if it["involvedObject"]["uid"] == uid]

    until(lambda: "Succeeded" in posted(), 20, operator.logs)
    assert sorted(posted()) == ["Adopted", "Created", "Succeeded"]

    team("delete", "finetune", "tone")
    team.apply(finetune("tone", reuse="Never", **ONE_NODE))
    assert pods.prepare("tone").adopted is None
    pods.job("tone", "a1")


def test_the_adopted_model_of_others_is_left_alone(
    team: Kubectl, operator: Operator, pods: Pods
) -> None:
    """A Model with its name describes other files: the FineTune trains."""
    team.apply(finetune("tone", **ONE_NODE))
    pods.prepare("tone")
    pods.train("tone")
    [model] = team.list("models")
    team("delete", "finetune,job,model", "--all")
    model["spec"]["uri"] = "s3://bucket/other"
    team.apply(_portable(model))
    team.apply(finetune("tone", **ONE_NODE))
    assert pods.prepare("tone").adopted is not None
    pods.job("tone", "a1")
    assert [item["spec"] for item in team.list("models")] == [model["spec"]]
    advice = [it["message"] for it in team.status("tone")["events"] if it["reason"] == "Advice"]
    assert any(model["metadata"]["name"] in text for text in advice)


# --- another cluster ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def new_cluster(tools: Path) -> Iterator[Kubectl]:
    with ControlPlane() as plane:
        kubectl = Kubectl(str(tools / "kubectl"), str(plane.kubeconfig))
        for name in ("finetunes.yaml", "models.yaml"):
            kubectl.apply_file(ROOT / "crds" / name)
        crds = ("crd/finetunes.finetune.dev", "crd/models.finetune.dev")
        kubectl("wait", "--for=condition=Established", *crds)
        yield kubectl


def _portable(item: dict[str, Any]) -> dict[str, Any]:
    """The object without what belongs to its cluster."""
    meta = {key: it for key, it in item["metadata"].items() if key not in OF_CLUSTER}
    return {**item, "metadata": meta}


def export(team: Kubectl, kind: str) -> str:
    """YAML of all objects of a kind, as a backup has it."""
    return yaml.safe_dump_all([_portable(item) for item in team.list(kind)])


def by_name(team: Kubectl, kind: str = "finetunes") -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item for item in team.list(kind)}


def populate(team: Kubectl, pods: Pods) -> None:
    """A namespace with a FineTune in each state, and the Models of two."""
    team.apply(*(finetune(name, **ONE_NODE) for name in ("tone", "tone-2", "broken", "runs")))
    team.apply(finetune("stopped", **ONE_NODE, cancel=True))
    team.apply(finetune("waits", **ONE_NODE, suspend=True))
    for name in ("tone", "tone-2", "runs", "waits"):
        pods.prepare(name)
    for name in ("tone", "tone-2"):
        pods.train(name)
    [pod] = pods.kubelet.start_pods(pods.job("broken", "prepare"))
    pods.kubelet.end(pod, names.EXIT_USER, failed("InvalidData").to_termination_message())
    pods.job("runs", "a1")
    team.wait_state("broken", "failed")
    team.wait_state("stopped", "cancelled")
    until(lambda: team.status("waits").get("reason") == "Suspended", 30)


def test_everything_moves_to_another_cluster(
    team: Kubectl,
    operator: Operator,
    pods: Pods,
    new_cluster: Kubectl,
    storage: Storage,
    tools: Path,
    tmp_path: Path,
) -> None:
    populate(team, pods)
    models, finetunes, before = export(team, "models"), export(team, "finetunes"), by_name(team)
    operator.stop()
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": team.namespace}}
    new_cluster.apply(space)
    moved = new_cluster.within(team.namespace)
    (tmp_path / "new").mkdir()
    there = Operator(moved, tools / "helm", tmp_path / "operator")
    try:
        _import_without_status(moved, models, finetunes)
        there.start()
        _adopts(moved, Pods(moved, storage, tmp_path / "new"), before)
        there.stop()
        moved("delete", "finetune,job,model,event", "--all")
        _import_with_status(moved, models, finetunes)
        there.start()
        _keeps(moved, there, before)
    finally:
        there.stop()


def _import_without_status(moved: Kubectl, models: str, finetunes: str) -> None:
    for text in (models, finetunes):
        moved("create", "-f", "-", stdin=text)


def _adopts(moved: Kubectl, pods: Pods, before: dict[str, dict[str, Any]]) -> None:
    """Without status: what succeeded is adopted, and the others start from the beginning."""
    imported = by_name(moved, "models")
    for name in ("tone", "tone-2", "runs", "waits"):
        found = pods.prepare(name).adopted
        assert (found is not None) == name.startswith("tone"), name
    for name in ("tone", "tone-2"):
        status, former = moved.wait_state(name, "succeeded"), before[name]
        assert status["reason"] == "Adopted"
        assert status["adoptedFrom"]["uid"] == former["metadata"]["uid"]
        assert status["modelUri"] == former["status"]["modelUri"]
        assert not trains(moved, name)
    assert by_name(moved, "models") == imported  # the Models of the backup are theirs
    pods.job("runs", "a1")
    moved.wait_state("stopped", "cancelled")
    until(lambda: moved.status("waits").get("reason") == "Suspended", 30)
    pods.job("broken", "prepare")
    assert not trains(moved, "waits") and not trains(moved, "broken")


def _import_with_status(moved: Kubectl, models: str, finetunes: str) -> None:
    _import_without_status(moved, models, finetunes)
    for item in yaml.safe_load_all(finetunes):
        moved("replace", "--subresource=status", "-f", "-", stdin=yaml.safe_dump(item))


def _keeps(moved: Kubectl, operator: Operator, before: dict[str, dict[str, Any]]) -> None:
    """With status: nothing that has ended or is suspended starts, and every byte is the same."""
    moved.apply(finetune("later", **ONE_NODE))  # shows that the operator works
    until(lambda: any("later" in it["metadata"]["name"] for it in moved.list("jobs")), 40)
    until(lambda: 'state="succeeded"' in operator.metrics(), 20, operator.logs)
    moved.wait_state("runs", "pending", "failed")
    after = by_name(moved)
    kept = ("tone", "tone-2", "broken", "stopped", "waits")
    for name in kept:
        assert after[name]["metadata"]["uid"] != before[name]["metadata"]["uid"]
        found, wanted = (json.dumps(it[name]["status"], sort_keys=True) for it in (after, before))
        assert found == wanted, name
    jobs = {it["metadata"]["labels"][names.LABEL_FINETUNE] for it in moved.list("jobs")}
    assert not jobs & set(kept)
    assert not trains(moved, "runs")
    assert len(moved.list("models")) == 2
