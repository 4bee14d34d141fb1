"""The cluster as the demo uses it: kubectl and helm with argument lists, S3 and a registry.

With KUBECONFIG set to a cluster of one's own that one is used; the demo then needs to be told
where its images and files may go (DEMO_REGISTRY, DEMO_BUCKET, and the AWS_* names).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from examples.demo.terminal import DemoError

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "finetune-demo"
RELEASE = "finetune"
SECRET = "finetune-s3"
CRD = "finetunes.finetune.dev"
S3_NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL")


@dataclass(frozen=True)
class Cluster:
    """Where everything is, and how to speak to it."""

    kubeconfig: str
    registry: str
    bucket: str
    s3: dict[str, str]  # the AWS_* names and their values
    env: dict[str, str]  # of kubectl and helm
    programs: str  # the folder of kubectl and helm; "" where they are on PATH anyway
    is_own: bool  # devcluster's, not somebody else's

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Self:
        """Ask devcluster. Raises DemoError when something that only the user knows is missing."""
        answer = subprocess.run(
            [sys.executable, "-m", "devcluster", "info"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode != 0:
            raise DemoError(f"the cluster can't be used: {answer.stderr.strip()}")
        return cls.from_info(json.loads(answer.stdout), environ)

    @classmethod
    def from_info(cls, info: dict[str, Any], environ: Mapping[str, str]) -> Self:
        """`info`: what `devcluster info` prints."""
        env = {**environ, "KUBECONFIG": info["kubeconfig"]}
        if info["bin"]:
            env["PATH"] = f"{info['bin']}{os.pathsep}{env.get('PATH', '')}"
        store = info["s3"]
        if store is None:
            registry, bucket = environ.get("DEMO_REGISTRY"), environ.get("DEMO_BUCKET")
            missing = [name for name in S3_NAMES[:2] if not environ.get(name)]
            if not registry or not bucket or missing:
                raise DemoError(
                    f"KUBECONFIG names a cluster of yours ({info['kubeconfig']}): set "
                    "DEMO_REGISTRY (its nodes pull from there), DEMO_BUCKET and the AWS_* names "
                    "for it, or unset KUBECONFIG to start one on this machine"
                )
            s3 = {name: environ[name] for name in S3_NAMES if environ.get(name)}
            return cls(info["kubeconfig"], registry, bucket, s3, env, info["bin"] or "", False)
        s3 = dict(
            zip(
                S3_NAMES,
                (store["accessKey"], store["secretKey"], store["region"], store["endpoint"]),
                strict=True,
            )
        )
        env |= _past_proxies(
            environ, [info["nodeAddress"], info["registry"].split(":")[0], store["endpoint"]]
        )
        return cls(
            info["kubeconfig"], info["registry"], store["bucket"], s3, env, info["bin"] or "", True
        )

    # --- kubectl ---------------------------------------------------------------------------------

    def kubectl(self, *arguments: str) -> list[str]:
        """The command line, in the demo's namespace."""
        return ["kubectl", f"--namespace={NAMESPACE}", *arguments]

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """kubectl's answer. Raises DemoError with its own words."""
        done = subprocess.run(
            self.kubectl(*arguments),
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            words = (done.stderr.strip().splitlines() or ["no answer"])[-1]
            raise DemoError(f"kubectl {' '.join(arguments[:2])} failed: {words}")
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        """kubectl apply, through its standard input: a Secret is on no command line."""
        document = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run("apply", "--filename=-", stdin=json.dumps(document))

    def crd_owner(self) -> str | None:
        """The namespace of the release that brought the CRDs; None where there are none."""
        text = self.run("get", "crd", CRD, "--ignore-not-found", "--output=json")
        if not text.strip():
            return None
        notes = json.loads(text)["metadata"].get("annotations") or {}
        return str(notes.get("meta.helm.sh/release-namespace", "-"))

    # --- helm ------------------------------------------------------------------------------------

    def helm_upgrade(self, values: Path) -> list[str]:
        """The command that installs the operator, or brings it up to date.

        The CRDs are the cluster's: on our own the demo's release takes them over from whatever
        test brought them, on somebody else's they stay as they are.
        """
        command = [
            "helm", "upgrade", RELEASE, str(ROOT / "charts" / "finetune-operator"), "--install",
            f"--namespace={NAMESPACE}", f"--values={values}", "--wait", "--timeout=4m",
        ]  # fmt: skip
        owner = self.crd_owner()
        if owner is None or owner == NAMESPACE:
            return command
        return [*command, "--take-ownership" if self.is_own else "--set=crds.install=false"]


def namespace_objects(s3: Mapping[str, str]) -> list[dict[str, Any]]:
    """The namespace, under the strictest Pod Security, and the S3 credentials in it."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": NAMESPACE,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": NAMESPACE},
            "type": "Opaque",
            "stringData": dict(s3),
        },
    ]


def chart_values(
    images: Mapping[str, str], bucket: str, *, rate: float, context: int
) -> dict[str, Any]:
    """One base model, one runtime; a thread a pod, since both pods share the machine's two CPUs."""
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
            }
        ],
        "runtimes": [{"name": "cpu", "accelerator": "cpu", "env": {"OMP_NUM_THREADS": "1"}}],
    }


def _past_proxies(environ: Mapping[str, str], addresses: list[str]) -> dict[str, str]:
    """Requests to this machine's own cluster never go through a proxy."""
    hosts = ["127.0.0.1", "localhost"]
    hosts += [urlsplit(address).hostname or address for address in addresses]
    present = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    value = ",".join(dict.fromkeys([*filter(None, present.split(",")), *hosts]))
    return {"NO_PROXY": value, "no_proxy": value}
