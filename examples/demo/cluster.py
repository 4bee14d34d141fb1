"""The cluster of the demo: kubectl and helm command lines, S3, and a registry.

If KUBECONFIG names another cluster, the demo uses that one. It then needs a registry and a bucket
for its images and files: DEMO_REGISTRY, DEMO_BUCKET, and the AWS_* variables. A cluster of kind is
in kind.py.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from examples.demo.terminal import DemoError, output

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "finetune-demo"
RELEASE = "finetune"
SECRET = "finetune-s3"
CRD = "finetunes.finetune.dev"
S3_NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL")


@dataclass(frozen=True)
class Cluster:
    """Addresses and credentials of the cluster, its registry, and its S3 store."""

    kubeconfig: str
    registry: str
    bucket: str
    s3: dict[str, str]  # the AWS_* variables, for pods
    s3_here: dict[str, str]  # for this machine
    env: dict[str, str]  # of kubectl and helm
    programs: str  # the folder of kubectl and helm; "" if they are on PATH
    is_own: bool  # whether it is there only for the demo and for tests
    shell: tuple[str, ...]  # commands with which a shell uses the cluster
    stop: str = ""  # a sentence: how to stop it
    again: str = "make demo"  # the command that repeats the demo on it

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Self:
        """Read `devcluster info`. Raises DemoError if a required setting is missing."""
        answer = subprocess.run(
            [sys.executable, "-m", "devcluster", "info"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode != 0:
            raise DemoError(f"The cluster is not usable: {answer.stderr.strip()}")
        return cls.from_info(json.loads(answer.stdout), environ)

    @classmethod
    def from_info(cls, info: dict[str, Any], environ: Mapping[str, str]) -> Self:
        """Create it from the output of `devcluster info`."""
        env = {**environ, "KUBECONFIG": info["kubeconfig"]}
        if info["bin"]:
            env["PATH"] = f"{info['bin']}{os.pathsep}{env.get('PATH', '')}"
        store = info["s3"]
        if store is None:
            registry, bucket = environ.get("DEMO_REGISTRY"), environ.get("DEMO_BUCKET")
            missing = [name for name in S3_NAMES[:2] if not environ.get(name)]
            if not registry or not bucket or missing:
                raise DemoError(
                    f"KUBECONFIG names your own cluster ({info['kubeconfig']}). Set DEMO_REGISTRY "
                    "(a registry from which its nodes pull), DEMO_BUCKET, and the AWS_* variables "
                    "of the bucket. To start a cluster on this machine instead, unset KUBECONFIG."
                )
            s3 = {name: environ[name] for name in S3_NAMES if environ.get(name)}
            shell = [f"export KUBECONFIG={shlex.quote(info['kubeconfig'])}"]
            shell += [f"export PATH={info['bin']}:$PATH"] if info["bin"] else []
            programs = info["bin"] or ""
            return cls(
                info["kubeconfig"], registry, bucket, s3, s3, env, programs, False, tuple(shell)
            )
        s3 = dict(
            zip(
                S3_NAMES,
                (store["accessKey"], store["secretKey"], store["region"], store["endpoint"]),
                strict=True,
            )
        )
        env |= without_proxies(
            environ, [info["nodeAddress"], info["registry"].split(":")[0], store["endpoint"]]
        )
        return cls(
            kubeconfig=info["kubeconfig"],
            registry=info["registry"],
            bucket=store["bucket"],
            s3=s3,
            s3_here=s3,
            env=env,
            programs=info["bin"] or "",
            is_own=True,
            shell=('eval "$(python3 -m devcluster env)"  # cluster, kubectl, and S3',),
            stop="`make down` stops the cluster and deletes everything, including the models.",
        )

    # --- kubectl ---------------------------------------------------------------------------------

    def kubectl(self, *arguments: str) -> list[str]:
        """A kubectl command line in the namespace of the demo."""
        return ["kubectl", f"--namespace={NAMESPACE}", *arguments]

    def run(self, *arguments: str) -> str:
        """Run kubectl and return its output. Raises DemoError with its error message."""
        what = f"kubectl {' '.join(arguments[:2])}"
        return output(self.kubectl(*arguments), what, env=self.env)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects, each in the namespace that it names.

        They go through standard input, because a Secret must not be on a command line.
        """
        document = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        command = ["kubectl", "apply", "--filename=-"]
        output(command, " ".join(command), env=self.env, stdin=json.dumps(document))

    def crd_owner(self) -> str | None:
        """The namespace of the release that installed the CRDs; None without CRDs."""
        text = self.run("get", "crd", CRD, "--ignore-not-found", "--output=json")
        if not text.strip():
            return None
        notes = json.loads(text)["metadata"].get("annotations") or {}
        return str(notes.get("meta.helm.sh/release-namespace", "-"))

    # --- helm ------------------------------------------------------------------------------------

    def helm_upgrade(self, values: Path) -> list[str]:
        """The command that installs or upgrades the operator.

        CRDs are cluster-wide. On the development cluster, the release of the demo takes them over
        from tests; on another cluster, it does not change them.
        """
        command = [
            "helm", "upgrade", RELEASE, str(ROOT / "charts" / "finetune-operator"), "--install",
            f"--namespace={NAMESPACE}", f"--values={values}", "--wait", "--timeout=4m",
        ]  # fmt: skip
        owner = self.crd_owner()
        if owner is None or owner == NAMESPACE:
            return command
        return [*command, "--take-ownership" if self.is_own else "--set=crds.install=false"]


def restricted_namespace(name: str) -> dict[str, Any]:
    """A namespace with the restricted Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def namespace_objects(s3: Mapping[str, str]) -> list[dict[str, Any]]:
    """The namespace, with the restricted Pod Security Standard, and its Secret for S3."""
    return [
        restricted_namespace(NAMESPACE),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": NAMESPACE},
            "type": "Opaque",
            "stringData": dict(s3),
        },
    ]


def chart_values(
    images: Mapping[str, str], bucket: str, *, rate: float, context: int, accounts: list[str]
) -> dict[str, Any]:
    """One base model and one runtime, with one thread per pod: the two pods share two CPUs.

    accounts: the ServiceAccounts of the users of the gateway.
    """
    return {
        "images": dict(images),
        "output": f"s3://{bucket}/demo/finetunes",
        "organization": "demo",
        "secretName": SECRET,
        "models": [
            {
                "name": "ada",
                "uri": f"s3://{bucket}/demo/ada-init",
                "pretrainingLearningRate": rate,
                "contextLength": context,
                # For requests to the gateway, whose API knows neither GPUs nor this tiny model.
                "fineTune": {
                    "resources": {"gpusPerNode": 0},
                    "hyperparameters": {"batchSize": 16},
                },
            }
        ],
        "gateway": {
            "enabled": True,
            "replicas": 1,
            "allowPlainHttp": True,  # it is reached through kubectl port-forward
            "keys": {"serviceAccounts": accounts},
            "server": {"enabled": True, "resources": {"requests": {"cpu": "100m"}}},
        },
        "runtimes": [{"name": "cpu", "accelerator": "cpu", "env": {"OMP_NUM_THREADS": "1"}}],
    }


def without_proxies(environ: Mapping[str, str], addresses: list[str]) -> dict[str, str]:
    """Variables that keep requests to the local cluster away from a proxy."""
    hosts = ["127.0.0.1", "localhost"]
    hosts += [urlsplit(address).hostname or address for address in addresses]
    present = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    value = ",".join(dict.fromkeys([*filter(None, present.split(",")), *hosts]))
    return {"NO_PROXY": value, "no_proxy": value}
