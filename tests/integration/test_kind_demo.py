"""What the demo on kind sends to a real API server, and the S3 server that it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from devcluster import gotools, processes
from devcluster.controlplane import ControlPlane, free_ports
from examples.demo import kind
from examples.demo.bucket import Bucket
from examples.demo.kind import S3_NAMESPACE, Kind, s3_arguments, s3_objects
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.integration


@pytest.fixture
def provider(control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """A provider whose cluster is the control plane. Only kubectl is called."""
    monkeypatch.setattr(kind, "PROGRAMS", ("kubectl",))
    (tmp_path / "kind.kubeconfig").write_text(Path(control_plane.kubeconfig).read_text())
    home = str(tmp_path)  # of kubectl's cache
    return Kind(tmp_path, {"PATH": str(Path(control_plane.kubectl).parent), "HOME": home})


def test_the_objects_are_accepted_and_the_secret_is_found_again(
    provider: Kind, admin: Kubectl
) -> None:
    """Pod Security admits the pod as well, which the Deployment's controller would create."""
    new = provider._secret()
    assert len(new) == 40
    try:
        place = provider._cluster(new)
        place.apply(*s3_objects(new))
        deployment = next(item for item in s3_objects(new) if item["kind"] == "Deployment")
        pod = deployment["spec"]["template"]
        meta = {**pod["metadata"], "name": "s3", "namespace": S3_NAMESPACE}
        place.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod["spec"]})
        place.apply(*s3_objects(provider._secret()))
        assert provider._secret() == new
        found = admin.within(S3_NAMESPACE).get("service", "s3")["spec"]
        assert found["ports"][0]["nodePort"] == kind.NODE_PORT
    finally:
        admin("delete", "namespace", S3_NAMESPACE, "--ignore-not-found", "--wait=false")


def test_the_s3_server_takes_the_arguments_and_the_demos_files(tmp_path: Path) -> None:
    gotools.build(("versitygw",))
    (port,) = free_ports(1)
    (tmp_path / "data").mkdir()
    secret = next(item for item in s3_objects("a-secret") if item["kind"] == "Secret")
    arguments = s3_arguments(f"127.0.0.1:{port}", str(tmp_path / "data"))
    server = processes.start(
        "s3",
        [str(gotools.binary("versitygw")), *arguments],
        tmp_path / "log",
        secret["stringData"],
        ends_with_us=True,
    )
    s3 = {
        "AWS_ACCESS_KEY_ID": kind.USER,
        "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_REGION": kind.REGION,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    try:
        bucket = Bucket(kind.BUCKET, s3)
        for _ in range(2):
            kind._wait_for_bucket(bucket)
        uri = bucket.put("train.jsonl", b"{}")
        assert bucket.read(uri) == b"{}"
        assert bucket.empty() == 1
    finally:
        processes.kill([server])
