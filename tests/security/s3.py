"""An S3 server for two tenants: each has a user and a bucket."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devcluster import gotools
from devcluster.controlplane import free_ports
from devcluster.probes import HttpProbe, wait_until

REGION = "us-east-1"


@dataclass(frozen=True)
class Tenant:
    """A user and a bucket of the same name; the secret is random and serves as a canary."""

    name: str
    endpoint: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the tenant's Secret sets in its pods."""
        return {
            "AWS_ACCESS_KEY_ID": self.name,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
        }


@contextmanager
def tenants(folder: Path, *names: str) -> Iterator[list[Tenant]]:
    """Run the server, and create its users."""
    (port,) = free_ports(1)
    endpoint = f"http://127.0.0.1:{port}"
    binary, root = str(gotools.binary("versitygw")), secrets.token_hex(16)
    for part in ("files", "users"):
        (folder / part).mkdir()
    command = [binary, "--port", f"127.0.0.1:{port}", "--region", REGION, "--health", "/health"]
    command += ["--quiet", "--iam-dir", str(folder / "users"), "posix", str(folder / "files")]
    keys = {"ROOT_ACCESS_KEY": "root", "ROOT_SECRET_KEY": root}
    server = subprocess.Popen(command, env={**os.environ, **keys})
    try:
        assert wait_until(HttpProbe(f"{endpoint}/health").is_healthy, 30)
        made = [Tenant(name, endpoint, secrets.token_hex(16)) for name in names]
        for tenant in made:
            _administer(endpoint, root, "create-user", "--access", tenant.name,
                        "--secret", tenant.secret, "--role", "user")  # fmt: skip
            _administer(endpoint, root, "create-bucket", "--owner", tenant.name,
                        "--bucket", tenant.name)  # fmt: skip
        yield made
    finally:
        server.kill()
        server.wait()


def _administer(endpoint: str, root: str, *arguments: str) -> None:
    command = [str(gotools.binary("versitygw")), "admin", "--endpoint-url", endpoint]
    keys = {"ADMIN_ACCESS_KEY": "root", "ADMIN_SECRET_KEY": root}
    subprocess.run(
        [*command, "--region", REGION, *arguments],
        env={**os.environ, **keys},
        check=True,
        capture_output=True,
    )
