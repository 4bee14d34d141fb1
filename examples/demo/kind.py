"""A cluster of kind, for people with Docker: Kubernetes in one container, and S3 in one pod.

Kubernetes and the S3 server come as images, so that nothing but the four images of the project is
built. Only this machine reaches S3 from outside of the cluster, through a port on its loopback
address.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.demo.bucket import Bucket
from examples.demo.cluster import ROOT, S3_NAMES, Cluster, restricted_namespace, without_proxies
from examples.demo.terminal import DemoError, Terminal, output
from images.pins import dockerfile_base, pinned, read_pins, unpinned_note
from images.provenance import docker_arguments
from images.references import BaseImageError

NAME = "finetune-demo"  # of the cluster
STOP = f"kind delete cluster --name {NAME}"
PROGRAMS = ("docker", "kind", "kubectl", "helm")
S3_NAMESPACE = "finetune-demo-s3"
S3_IMAGE = "ghcr.io/versity/versitygw:v1.8.0"  # the version of the development cluster
S3_PORT, NODE_PORT = 7070, 30070
S3_HERE = f"http://127.0.0.1:{NODE_PORT}"
S3_IN_CLUSTER = f"http://s3.{S3_NAMESPACE}.svc:{S3_PORT}"
BUCKET, REGION, USER = "finetune", "us-east-1", "finetune"
READY_SECONDS = 180


class Kind:
    """Creates the cluster, builds the images with Docker, and loads them into it."""

    def __init__(self, work: Path, environ: Mapping[str, str]) -> None:
        """work: the folder for the kubeconfig."""
        self._kubeconfig = work / "kind.kubeconfig"
        self._env = {**environ, "KUBECONFIG": str(self._kubeconfig)}
        path = environ.get("PATH")
        if missing := [name for name in PROGRAMS if shutil.which(name, path=path) is None]:
            raise DemoError(
                f"CLUSTER=kind needs {', '.join(PROGRAMS)}, and {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not on PATH. Install what is missing, or "
                "run `make demo` without CLUSTER to use neither Docker nor kind."
            )
        self._images: dict[str, str] = {}

    def build_command(self) -> list[str]:
        """Build each target of the Dockerfile, tagged with the hash of its inputs."""
        try:
            base = pinned(dockerfile_base(), read_pins())
        except BaseImageError as error:
            raise DemoError(str(error)) from error
        listed = self._output(sys.executable, "-m", "images", "tags", "--base", base)
        self._images = {
            image: f"localhost/{reference}"
            for image, reference in (line.split("\t") for line in listed.splitlines())
        }
        note = unpinned_note(base)
        begin = [shlex.join(["echo", note])] if note else []
        builds = [
            shlex.join(command)
            for image, tag in self._images.items()
            for command in (
                ["echo", f"{image}: building {tag}"],
                ["docker", "build", "--quiet", f"--target={image}", f"--tag={tag}",
                 *docker_arguments(base), "."],
            )
        ]  # fmt: skip
        return ["sh", "-c", " && ".join([*begin, *builds])]

    def start(self, terminal: Terminal) -> Cluster:
        """Create the cluster and S3 unless they exist."""
        command: list[str | Path]
        if NAME in self._output("kind", "get", "clusters").split():
            command = ["kind", "export", "kubeconfig", "--name", NAME]
            terminal.stream("Finding the cluster", command, env=self._env, cwd=ROOT)
        else:
            config = self._kubeconfig.with_name("kind.json")
            config.write_text(json.dumps(kind_config(), indent=2) + "\n")
            command = ["kind", "create", "cluster", "--name", NAME, "--wait", f"{READY_SECONDS}s"]
            command += ["--config", config]
            terminal.stream("Creating the cluster", command, env=self._env, cwd=ROOT)
        place = self._cluster(self._secret())
        place.apply(*s3_objects(place.s3["AWS_SECRET_ACCESS_KEY"]))
        waiting = ["kubectl", f"--namespace={S3_NAMESPACE}", "rollout", "status", "deployment/s3"]
        waiting += [f"--timeout={READY_SECONDS}s"]
        terminal.stream("Starting S3", waiting, env=place.env, cwd=ROOT)
        _wait_for_bucket(Bucket(place.bucket, place.s3_here))
        return place

    def deliver(self, terminal: Terminal, place: Cluster) -> dict[str, str]:
        """Load the images into the node; returns their references for the chart."""
        command = ["kind", "load", "docker-image", *self._images.values(), "--name", NAME]
        terminal.stream("Loading the images into the node", command, env=place.env, cwd=ROOT)
        return dict(self._images)

    def _secret(self) -> str:
        """The secret of S3: that of the running pod, or a new one."""
        found = self._output(
            *("kubectl", f"--namespace={S3_NAMESPACE}", "get", "secret", "s3"),
            *("--ignore-not-found", "--output=json"),
        )
        if not found.strip():
            return secrets.token_hex(20)
        return base64.b64decode(json.loads(found)["data"]["ROOT_SECRET_KEY"]).decode()

    def _cluster(self, secret: str) -> Cluster:
        s3 = dict(zip(S3_NAMES, (USER, secret, REGION, S3_IN_CLUSTER), strict=True))
        return Cluster(
            kubeconfig=str(self._kubeconfig),
            registry="",
            bucket=BUCKET,
            s3=s3,
            s3_here={**s3, "AWS_ENDPOINT_URL": S3_HERE},
            env=self._env | without_proxies(self._env, [S3_HERE]),
            programs="",
            is_own=True,
            shell=(f"export KUBECONFIG={shlex.quote(str(self._kubeconfig))}",),
            stop=f"`{STOP}` deletes everything, including the models.",
            again="make demo CLUSTER=kind",
        )

    def _output(self, *command: str) -> str:
        return output(command, " ".join(command[:3]), env=self._env, cwd=ROOT)


def kind_config() -> dict[str, Any]:
    """One node, whose port for S3 is reachable from this machine and from no other."""
    mapping = {"containerPort": NODE_PORT, "hostPort": NODE_PORT, "listenAddress": "127.0.0.1"}
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{"role": "control-plane", "extraPortMappings": [mapping]}],
    }


def s3_arguments(address: str, folder: str) -> list[str]:
    """The arguments of versitygw. address: `HOST:PORT`, or `:PORT` for all addresses."""
    return ["--port", address, "--region", REGION, "--quiet", "posix", folder]


def s3_objects(secret: str) -> list[dict[str, Any]]:
    """The namespace, Secret, Deployment, and Service of the S3 server. Files end with the pod."""
    meta = {"name": "s3", "namespace": S3_NAMESPACE}
    labels = {"app": "s3"}
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    container = {
        "name": "s3",
        "image": os.environ.get("DEMO_S3_IMAGE", S3_IMAGE),
        "args": s3_arguments(f":{S3_PORT}", "/data"),
        "envFrom": [{"secretRef": {"name": "s3"}}],
        "ports": [{"containerPort": S3_PORT}],
        "readinessProbe": {"tcpSocket": {"port": S3_PORT}, "periodSeconds": 2},
        "securityContext": restricted,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    return [
        restricted_namespace(S3_NAMESPACE),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": meta,
            "stringData": {"ROOT_ACCESS_KEY": USER, "ROOT_SECRET_KEY": secret},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "selector": {"matchLabels": labels},
                "strategy": {"type": "Recreate"},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {
                "type": "NodePort",
                "selector": labels,
                "ports": [{"port": S3_PORT, "nodePort": NODE_PORT}],
            },
        },
    ]


def _wait_for_bucket(bucket: Bucket) -> None:
    """Create the bucket as soon as S3 answers. Raise DemoError if it does not."""
    end = time.monotonic() + READY_SECONDS
    while True:
        try:
            bucket.create()
        except Exception as error:
            if time.monotonic() > end:
                raise DemoError(f"S3 at {S3_HERE} does not answer: {error}") from error
            time.sleep(1)
        else:
            return
