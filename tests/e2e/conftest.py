"""A user's environment on one machine: devcluster, the images, the chart, and an S3 server."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from examples.demo.cluster import Cluster as Place
from tests.e2e.training import Results, Training, jsonl
from tests.support.kubectl import Kubectl, RefusedError, until
from tests.support.tiny_model import CONTEXT, make_tiny_model

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "finetune-operator"
RUN = f"e2e-{int(time.time())}"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Cluster:
    """The cluster and its stores, as the demo finds them, and the pushed images."""

    place: Place
    images: dict[str, str]
    audit_log: Path | None  # only devcluster's is readable here

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(f"{self.place.programs}/kubectl", self.place.kubeconfig)

    @property
    def s3(self) -> Any:
        found = self.place.s3
        return boto3.client(
            "s3",
            endpoint_url=found.get("AWS_ENDPOINT_URL"),
            region_name=found.get("AWS_REGION"),
            aws_access_key_id=found["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=found["AWS_SECRET_ACCESS_KEY"],
        )

    @property
    def bucket(self) -> str:
        return self.place.bucket

    def of_this_machine(self) -> Path:
        """The audit log; skips the test if the cluster is not devcluster."""
        if self.audit_log is None:
            pytest.skip("needs devcluster: reads its audit log or its processes")
        return self.audit_log

    def helm(self, *arguments: str) -> str:
        done = subprocess.run(
            [f"{self.place.programs}/helm", *arguments],
            env=self.place.env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def _run(*arguments: str) -> str:
    """Run a command of the project, with its progress on the terminal."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    if os.geteuid() != 0 and "KUBECONFIG" not in os.environ:
        pytest.fail("the cluster tests need root: they run containers")
    _run("devcluster", "up")
    place = Place.find(os.environ)
    log = json.loads(_run("devcluster", "info"))["auditLog"]
    out = tmp_path_factory.mktemp("images") / "images.json"
    _run("images", "build", "--push", place.registry, "--out", str(out))
    return Cluster(place, json.loads(out.read_text()), Path(log) if log else None)


class Team:
    """A namespace under Pod Security `restricted`, with a Secret and a release of the operator."""

    def __init__(self, cluster: Cluster, name: str, folder: Path) -> None:
        self.cluster = cluster
        self.name = name
        self.folder = folder
        self.kubectl = cluster.kubectl.within(name)
        self.prefix = f"{RUN}/{name}"

    def create(self) -> None:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": self.name, "labels": labels},
            }
        )
        self.secret("finetune-s3")

    def secret(self, name: str, **changes: str) -> None:
        """Create a Secret with the S3 credentials and some changes."""
        self.kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name},
                "stringData": self.cluster.place.s3 | changes,
            }
        )

    def install(self, *more: str) -> None:
        """Run helm upgrade --install, and wait until the operator is ready."""
        values = {
            "images": self.cluster.images,
            "output": f"s3://{self.cluster.bucket}/{self.prefix}/out",
            "models": [
                {
                    "name": "tiny",
                    "uri": f"s3://{self.cluster.bucket}/{RUN}/tiny",
                    "pretrainingLearningRate": 0.02,
                    "contextLength": CONTEXT,
                },
                {
                    "name": "missing",
                    "uri": f"s3://{self.cluster.bucket}/{RUN}/nothing-here",
                    "pretrainingLearningRate": 0.02,
                    "contextLength": CONTEXT,
                },
            ],
            "runtimes": [{"name": "cpu", "accelerator": "cpu"}],
        }
        path = self.folder / "values.yaml"
        path.write_text(yaml.safe_dump(values))
        self.cluster.helm(
            "upgrade", "--install", "finetune-operator", str(CHART), "-n", self.name,
            "-f", str(path), "--wait", "--timeout", "120s", *more,
        )  # fmt: skip

    def put(self, name: str, text: str) -> str:
        """Write an object under this team's prefix; return its URI."""
        key = f"{self.prefix}/{name}"
        self.cluster.s3.put_object(Bucket=self.cluster.bucket, Key=key, Body=text.encode())
        return f"s3://{self.cluster.bucket}/{key}"

    def read(self, uri: str) -> str:
        bucket, key = uri.removeprefix("s3://").split("/", 1)
        text: str = self.cluster.s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
        return text

    def keys(self, prefix: str) -> list[str]:
        found = self.cluster.s3.list_objects_v2(Bucket=self.cluster.bucket, Prefix=prefix)
        return [str(item["Key"]) for item in found.get("Contents", [])]

    def remove(self) -> None:
        self.cluster.helm("uninstall", "finetune-operator", "-n", self.name, "--ignore-not-found")
        self.kubectl("delete", "namespace", self.name, "--wait=false")


@pytest.fixture(scope="session")
def tiny_model(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny"), hidden=64)
    for path in folder.iterdir():
        cluster.s3.upload_file(str(path), cluster.bucket, f"{RUN}/tiny/{path.name}")
    return f"s3://{cluster.bucket}/{RUN}/tiny"


@pytest.fixture(scope="session")
def team(
    cluster: Cluster, tiny_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Team]:
    made = Team(cluster, f"{RUN}-team", tmp_path_factory.mktemp("team"))
    made.create()
    # CRDs remain after a release is uninstalled, so those of an earlier one may exist.
    made.install("--take-ownership")
    yield made
    made.remove()


@pytest.fixture
def name() -> str:
    """The name of a FineTune, unique for each test."""
    return f"tone-{next(_numbers)}"


@pytest.fixture(scope="session")
def undisturbed(team: Team) -> Results:
    """The results of an undisturbed training."""
    training = Training(team, "undisturbed")
    return training.results(training.wait_success())


__all__ = ["Cluster", "RefusedError", "Team", "jsonl", "until"]
