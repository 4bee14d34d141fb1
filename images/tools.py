"""The programs from Debian that this room needs, and the environment they run in."""

from __future__ import annotations

import os
import shutil

from images.progress import CommandError, run, say

PACKAGES = {
    "buildah": ("buildah", "uidmap", "fuse-overlayfs"),
    "mmdebstrap": ("mmdebstrap",),
}

# One at a time: devcluster may install its own packages at this moment.
APT_GET = ("flock", "/run/lock/finetune-apt", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300")


def require(*programs: str) -> None:
    """Install what is missing with apt-get, or say how to."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    packages = sorted({package for program in missing for package in PACKAGES[program]})
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CommandError(
            f"{', '.join(missing)} not found, and installing needs root and apt-get.\n"
            f"  Debian: sudo apt-get install {' '.join(packages)}\n"
            "  With docker or podman, no need of this command: docker build --target trainer ."
        )
    say(f"installing {' '.join(packages)}")
    apt = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get update", [*APT_GET, "update"], env=apt)
    install = [*APT_GET, "install", "-y", "--no-install-recommends", *packages]
    run("apt-get install", install, env=apt)


def buildah_environment() -> dict[str, str]:
    """buildah without a container engine: chroot isolation, and overlay unless told otherwise."""
    environment = dict(os.environ)
    environment.setdefault("BUILDAH_ISOLATION", "chroot")
    if "STORAGE_DRIVER" not in environment:
        try:
            run("buildah info", ["buildah", "info"], env=environment)
        except CommandError:
            say("buildah's overlay storage does not work here: vfs (slow, takes more disk)")
            environment["STORAGE_DRIVER"] = "vfs"
    return environment


def image_id(reference: str, environment: dict[str, str]) -> str | None:
    """The local image's id; None: there is no such image."""
    try:
        command = ["buildah", "images", "--quiet", "--no-trunc", reference]
        lines = run("buildah images", command, env=environment)
    except CommandError:
        return None
    return lines[-1].strip() if lines else None
