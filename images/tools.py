"""The Debian programs that this package needs, and their environment."""

from __future__ import annotations

import os
import shutil

from images.progress import CommandError, run, say

PACKAGES = {
    "buildah": ("buildah", "uidmap", "fuse-overlayfs"),
    "mmdebstrap": ("mmdebstrap",),
}

# The lock is shared with devcluster, which may install packages at the same time.
APT_GET = ("flock", "/run/lock/finetune-apt", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300")


def require(*programs: str) -> None:
    """Install missing programs with apt-get, or raise an error with the command."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    packages = sorted({package for program in missing for package in PACKAGES[program]})
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CommandError(
            f"{', '.join(missing)} not found, and installing needs root and apt-get.\n"
            f"  Debian: sudo apt-get install {' '.join(packages)}\n"
            "  With docker or podman, use instead: docker build --target trainer ."
        )
    say(f"installing {' '.join(packages)}")
    apt = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get update", [*APT_GET, "update"], env=apt)
    install = [*APT_GET, "install", "-y", "--no-install-recommends", *packages]
    run("apt-get install", install, env=apt)


def buildah_environment() -> dict[str, str]:
    """Return buildah's environment: chroot isolation, and overlay storage where it works."""
    environment = dict(os.environ)
    environment.setdefault("BUILDAH_ISOLATION", "chroot")
    if "STORAGE_DRIVER" not in environment:
        try:
            run("buildah info", ["buildah", "info"], env=environment)
        except CommandError:
            say("overlay storage does not work here; using vfs, which is slow and needs more disk")
            environment["STORAGE_DRIVER"] = "vfs"
    return environment


def image_id(reference: str, environment: dict[str, str]) -> str | None:
    """Return the id of a local image, or None if it does not exist."""
    try:
        command = ["buildah", "images", "--quiet", "--no-trunc", reference]
        lines = run("buildah images", command, env=environment)
    except CommandError:
        return None
    return lines[-1].strip() if lines else None
