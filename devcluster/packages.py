"""Programs from the distribution: runc, CNI plugins, and network commands.

Missing packages are installed with apt-get, as root, and the output names them.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

# Debian packages by program. CNI plugins are in different folders on different distributions.
PROGRAMS = {
    "runc": "runc",
    "ip": "iproute2",
    "nft": "nftables",
    "openssl": "openssl",
    "mount": "mount",
}
CNI_PACKAGE = "containernetworking-plugins"
CNI_FOLDERS = tuple(
    Path(name)
    for name in ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni", "/usr/lib/cni-plugins")
)
CNI_PROGRAMS = ("bridge", "host-local")
# with a lock, because the build of the images can install packages at the same time
APT_GET = ("flock", "/run/lock/finetune-apt", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300")
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class PackageError(Exception):
    """A package is missing and cannot be installed; the message has its name and the cause."""


def extend_path() -> None:
    """Add the folders of ip, nft, and runc to PATH, which an unprivileged user's PATH lacks."""
    present = os.environ.get("PATH", "").split(os.pathsep)
    missing = [folder for folder in SYSTEM_FOLDERS if folder not in present]
    os.environ["PATH"] = os.pathsep.join([*present, *missing])


def cni_folder() -> Path | None:
    for folder in CNI_FOLDERS:
        if all((folder / program).exists() for program in CNI_PROGRAMS):
            return folder
    return None


def missing_packages() -> list[str]:
    packages = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if cni_folder() is None:
        packages.append(CNI_PACKAGE)
    return packages


def install(packages: Sequence[str]) -> None:
    if not packages:
        return
    names = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise PackageError(f"{names} are missing, and there is no apt-get. Install them.")
    print(f"Installing with apt-get: {names}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        result = subprocess.run(
            [*APT_GET, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            reason = result.stderr.strip()[-500:]
            raise PackageError(f"apt-get {arguments[0]} failed for {names}: {reason}")
    still = missing_packages()
    if still:
        raise PackageError(f"apt-get installed {names}, but {' '.join(still)} are still missing.")
