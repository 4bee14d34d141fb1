"""Runs a built image as a pod does: a read-only root, some user, and no capabilities of the build.

No container engine is needed: buildah mounts the image, `unshare` and `chroot` do the rest.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.__main__ import tags
from images.context import ROOT

OWN_USER = "65532:65532"  # of the images
ASSIGNED = "1000680000:0"  # as OpenShift assigns it: no entry in /etc/passwd, and the group 0
SCRIPT = """
set -eu
root=$1 user=$2 folder=$3; shift 3
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
if [ "$folder" ]; then mount --bind "$folder" "$root/tmp"; else mount -t tmpfs tmpfs "$root/tmp"; fi
cp tests/images/deepspeed_step.py "$root/tmp/"
chmod 1777 "$root/tmp" "$root/dev/shm"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" --groups= "$root" /usr/bin/env -i "$@"
"""


def buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Image:
    """A mounted image, with the environment that it gives its processes."""

    def __init__(self, root: Path, environment: list[str]) -> None:
        self.root = root
        self.environment = environment

    def run(
        self, *command: str, user: str = OWN_USER, folder: str | Path = "", **environment: str
    ) -> str:
        """Run a command and return its output. folder: becomes /tmp, instead of an empty one."""
        more = {"DS_ACCELERATOR": "cpu"} | environment
        variables = [*self.environment, *(f"{name}={value}" for name, value in more.items())]
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--propagation", "private",
             "sh", "-c", SCRIPT, "sh", self.root, user, folder, *variables, *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def modules(self) -> set[str]:
        (packages,) = self.root.glob("opt/venv/lib/python3*/site-packages")
        return {path.name for path in packages.iterdir()}


def mounted(name: str) -> Iterator[Image]:
    if os.geteuid() != 0 or shutil.which("buildah") is None:
        pytest.skip("mounting an image needs root and buildah")
    reference = f"localhost/{tags()[name]}"
    if subprocess.run(["buildah", "inspect", "--type", "image", reference],
                      capture_output=True, check=False).returncode:  # fmt: skip
        pytest.skip(f"{reference} is not built: python3 -m images build")
    container = buildah("from", reference)
    try:
        config = json.loads(buildah("inspect", "--type", "image", reference))["OCIv1"]["config"]
        yield Image(Path(buildah("mount", container)), config["Env"])
    finally:
        buildah("rm", container)
