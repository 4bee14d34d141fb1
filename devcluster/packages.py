"""What comes from the distribution: runc, CNI plugins and the network's commands.

The rule of this room: installed only when a program is missing, only as root, only with apt-get,
and said aloud.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

# Program -> Debian package. CNI plugins are looked for in the folders where distributions put them.
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
# One at a time: the images' build may install its own packages at this moment.
APT_GET = ("flock", "/run/lock/finetune-apt", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300")
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class PackageError(Exception):
    """A package is missing and can't be installed; the message says which and why."""


def extend_path() -> None:
    """The system's folders, which a plain user's PATH lacks, are where ip, nft and runc lie."""
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
        raise PackageError(f"please install {names}: there is no apt-get here to do it")
    print(f"installing with apt-get: {names}", flush=True)
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
            raise PackageError(f"apt-get {arguments[0]} failed, {names} missing: {reason}")
    still = missing_packages()
    if still:
        raise PackageError(f"apt-get installed {names}, but still missing: {' '.join(still)}")
