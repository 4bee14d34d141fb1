"""The image registry and the S3 server.

The registry is on loopback, for the image build and containerd. S3 is on the address of the node,
because pods use it.
"""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devcluster import files, paths
from devcluster.components import Component
from devcluster.credentials import LOOPBACK
from devcluster.probes import HttpProbe

REGISTRY = f"{LOOPBACK}:{paths.PORTS.registry}"
S3_ENDPOINT = f"http://{paths.NODE_ADDRESS}:{paths.PORTS.s3}"
HEALTH_PATH = "/.devcluster-health"


class StoreError(Exception):
    """The S3 server rejected the user or the bucket; the message has its output."""


@dataclass(frozen=True)
class StoreSettings:
    """The folders and the secrets of the stores."""

    folder: Path
    registry_root: Path
    binary: Callable[[str], Path]
    root_secret: str
    user_secret: str


def write_files(settings: StoreSettings) -> None:
    for folder in (settings.folder / "s3", settings.folder / "s3-users", settings.registry_root):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    files.write_all(settings.folder, {"registry.yaml": registry_config(settings)})


def registry_config(settings: StoreSettings) -> str:
    return f"""version: 0.1
log:
  level: warn
  accesslog: {{disabled: true}}
storage:
  filesystem: {{rootdirectory: {settings.registry_root}}}
  delete: {{enabled: true}}
  maintenance:
    uploadpurging: {{enabled: false}}
http:
  addr: {REGISTRY}
"""


def registry(settings: StoreSettings) -> Component:
    command = (
        str(settings.binary("registry")),
        "serve",
        str(settings.folder / "registry.yaml"),
    )
    # without this, the registry sends traces to a collector on a common port
    environment = {"OTEL_TRACES_EXPORTER": "none"}
    return Component("registry", command, HttpProbe(f"http://{REGISTRY}/v2/"), environment)


def s3(settings: StoreSettings) -> Component:
    command = (
        str(settings.binary("versitygw")),
        *("--port", f"{paths.NODE_ADDRESS}:{paths.PORTS.s3}"),
        *("--region", paths.REGION, "--health", HEALTH_PATH, "--quiet"),
        *("--iam-dir", str(settings.folder / "s3-users")),
        *("posix", str(settings.folder / "s3")),
    )
    probe = HttpProbe(f"{S3_ENDPOINT}{HEALTH_PATH}")
    return Component("s3", command, probe, _administrator(settings, "ROOT"))


def create_user_and_bucket(settings: StoreSettings) -> None:
    """Create the user and its bucket if they do not exist."""
    user = ("--access", paths.S3_ACCESS_KEY, "--secret", settings.user_secret, "--role", "userplus")
    bucket = ("--owner", paths.S3_ACCESS_KEY, "--bucket", paths.BUCKET)
    users = settings.folder / "s3-users" / "users.json"
    if not (users.exists() and f'"{paths.S3_ACCESS_KEY}"' in users.read_text()):
        _administer(settings, "create-user", *user)
    if not (settings.folder / "s3" / paths.BUCKET).exists():
        _administer(settings, "create-bucket", *bucket)


def _administer(settings: StoreSettings, *arguments: str) -> None:
    command = [str(settings.binary("versitygw")), "admin", *("--endpoint-url", S3_ENDPOINT)]
    command += [*("--region", paths.REGION), *arguments]
    environment = {**os.environ, **_administrator(settings, "ADMIN")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        reason = (result.stderr + result.stdout).strip()
        raise StoreError(f"versitygw admin {arguments[0]}: {reason}")


def _administrator(settings: StoreSettings, role: str) -> dict[str, str]:
    return {f"{role}_ACCESS_KEY": "administrator", f"{role}_SECRET_KEY": settings.root_secret}
