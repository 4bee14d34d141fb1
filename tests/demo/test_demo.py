"""The manifests, the chart values, and the cluster of the demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples.demo import cluster, demo
from examples.demo.cluster import Cluster
from examples.demo.dataset import MODULES
from examples.demo.terminal import DemoError
from finetune_api.finetune import FineTune

INFO: dict[str, Any] = {
    "kubeconfig": "/var/lib/finetune-devcluster/kubeconfig",
    "bin": "/cache/bin/cli",
    "registry": "127.0.0.1:18500",
    "nodeAddress": "10.213.0.1",
    "auditLog": "/var/lib/finetune-devcluster/audit.log",
    "s3": {
        "endpoint": "http://10.213.0.1:18333",
        "region": "us-east-1",
        "accessKey": "finetune",
        "secretKey": "secret",
        "bucket": "finetune",
    },
}


@pytest.mark.parametrize("name", ["base.yaml", "classify.yaml"])
def test_the_manifests_are_finetunes_of_two_pods_without_gpu(name: str) -> None:
    manifest = demo.read_manifest(demo.HERE / name, "bucket-a", "ada:ft-demo:x")
    finetune = FineTune.parse(manifest)
    assert manifest["kind"] == "FineTune"
    assert finetune.metadata.namespace == cluster.NAMESPACE
    assert finetune.spec.model == "ada:ft-demo:x"
    assert finetune.spec.training_file.startswith("s3://bucket-a/demo/")
    assert (finetune.spec.resources.nodes, finetune.spec.resources.gpus_per_node) == (2, 0)


def test_only_the_classifier_is_validated() -> None:
    base = FineTune.parse(demo.read_manifest(demo.HERE / "base.yaml", "finetune"))
    tuned = FineTune.parse(demo.read_manifest(demo.HERE / "classify.yaml", "finetune"))
    assert base.spec.model == "ada"
    assert base.spec.validation_file is None
    assert tuned.spec.validation_file == "s3://finetune/demo/valid.jsonl"


def test_the_schema_of_the_chart_accepts_the_values() -> None:
    schema = json.loads(
        (cluster.ROOT / "charts" / "finetune-operator" / "values.schema.json").read_text()
    )
    values = cluster.chart_values(
        {"operator": "r/o:1", "prepare": "r/p:1", "trainer": "r/t:1"},
        "abc",
        rate=0.002,
        context=256,
        accounts=["anna", "bert"],
    )
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(values, schema)
    assert values["models"][0]["uri"] == "s3://abc/demo/ada-init"


def test_the_output_of_devcluster_is_sufficient() -> None:
    place = Cluster.from_info(INFO, {"PATH": "/bin", "NO_PROXY": "a.example,localhost"})
    assert place.is_own
    assert place.env["KUBECONFIG"] == INFO["kubeconfig"]
    assert place.env["PATH"] == "/cache/bin/cli:/bin"
    assert place.env["NO_PROXY"] == "a.example,localhost,127.0.0.1,10.213.0.1"
    assert place.s3["AWS_ENDPOINT_URL"] == "http://10.213.0.1:18333"
    assert place.s3["AWS_SECRET_ACCESS_KEY"] == "secret"


def test_another_cluster_needs_a_registry_and_a_bucket() -> None:
    foreign = {**INFO, "s3": None, "registry": None, "nodeAddress": None, "bin": None}
    with pytest.raises(DemoError, match=r"Set DEMO_REGISTRY .* DEMO_BUCKET, and the AWS_"):
        Cluster.from_info(foreign, {})
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    place = Cluster.from_info(foreign, {"DEMO_REGISTRY": "r", "DEMO_BUCKET": "b", **keys})
    assert not place.is_own
    assert place.s3 == keys
    assert (place.registry, place.bucket) == ("r", "b")


def test_the_namespace_is_restricted_and_the_secret_is_on_no_command_line() -> None:
    namespace, secret = cluster.namespace_objects({"AWS_ACCESS_KEY_ID": "a"})
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert secret["stringData"] == {"AWS_ACCESS_KEY_ID": "a"}
    place = Cluster.from_info(INFO, {})
    assert "secret" not in place.kubectl("apply", "--filename=-")


def test_no_manifest_names_the_modules() -> None:
    for path in Path(demo.HERE).glob("*.yaml"):
        assert not [module for module in MODULES if f" {module}" in path.read_text()]
