"""The output of `info` and `env`: how to use the cluster.

If KUBECONFIG names another cluster, that cluster is used, and nothing is started.
"""

import json
import os
import shlex
import shutil
import subprocess

from devcluster import gotools, instance, network, paths, stores


class AccessError(Exception):
    """There is no usable cluster; the message says what to do."""


def foreign_kubeconfig() -> str | None:
    """The value of KUBECONFIG, unless it is unset or names the development cluster."""
    value = os.environ.get("KUBECONFIG", "")
    entries = [entry for entry in value.split(os.pathsep) if entry]
    if not entries or str(paths.kubeconfig()) in map(os.path.realpath, entries):
        return None
    return value


def check_foreign_cluster() -> str:
    """Describe the cluster that KUBECONFIG names. Raises AccessError if it does not respond."""
    kubectl = shutil.which("kubectl") or str(gotools.binary("kubectl"))
    command = [kubectl, "get", "--raw", "/version", "--request-timeout=10s"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise AccessError(
            f"The cluster of KUBECONFIG ({os.environ['KUBECONFIG']}) does not respond: {reason}\n"
            "Unset KUBECONFIG to start the development cluster instead."
        )
    version = json.loads(result.stdout).get("gitVersion", "of an unknown version")
    return f"KUBECONFIG is {os.environ['KUBECONFIG']}. Its cluster runs Kubernetes {version}."


def info() -> dict[str, object]:
    """The settings for programs that use the cluster."""
    foreign = foreign_kubeconfig()
    if foreign:
        return {
            "kubeconfig": foreign,
            "bin": _programs(),
            "auditLog": None,
            "registry": None,
            "nodeAddress": None,
            "s3": None,
        }
    if not paths.kubeconfig().exists():
        raise AccessError("The cluster is not running. Start it: python3 -m devcluster up")
    return {
        "kubeconfig": str(paths.kubeconfig()),
        "bin": _programs(),
        "auditLog": str(paths.audit_log()),
        "registry": stores.REGISTRY,
        "nodeAddress": paths.NODE_ADDRESS,
        "s3": {
            "endpoint": stores.S3_ENDPOINT,
            "region": paths.REGION,
            "accessKey": paths.S3_ACCESS_KEY,
            "secretKey": instance.read_secrets().user,
            "bucket": paths.BUCKET,
        },
    }


def exports() -> str:
    """Shell commands that set the environment variables for the cluster."""
    about = info()
    values = {"KUBECONFIG": str(about["kubeconfig"])}
    s3 = about["s3"]
    if isinstance(s3, dict):
        values |= {
            "AWS_ENDPOINT_URL": s3["endpoint"],
            "AWS_REGION": s3["region"],
            "AWS_DEFAULT_REGION": s3["region"],
            "AWS_ACCESS_KEY_ID": s3["accessKey"],
            "AWS_SECRET_ACCESS_KEY": s3["secretKey"],
        }
        values |= network.proxy_exceptions(os.environ)
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    programs = about["bin"]
    if isinstance(programs, str):
        lines.append(f'export PATH={shlex.quote(programs)}:"$PATH"')
    return "\n".join(lines)


def _programs() -> str | None:
    try:
        return str(gotools.cli_folder())
    except gotools.BuildError:
        return None
