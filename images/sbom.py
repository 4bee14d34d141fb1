"""Lists what an image contains as a software bill of materials in the format of CycloneDX.

The list comes from the image itself, from the metadata of its Python and Debian packages, and not
from the lock file: it also has what the base image and an installer added.
"""

from __future__ import annotations

import email
import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from images.progress import CommandError, run

SITE_PACKAGES = "opt/venv/lib/python3*/site-packages"
DPKG_STATUS = "var/lib/dpkg/status"
PYPI = "PyPI"


@dataclass(frozen=True, order=True)
class Package:
    """A package in an image. ecosystem: as in OSV, `PyPI` or `Debian:12`."""

    ecosystem: str
    name: str
    version: str
    source: str = ""  # of Debian: the source package, by which advisories name it
    source_version: str = ""

    @property
    def purl(self) -> str:
        """The package URL."""
        version = quote(self.version, safe="")
        if self.ecosystem == PYPI:
            return f"pkg:pypi/{self.name.lower().replace('_', '-')}@{version}"
        distribution, _, release = self.ecosystem.lower().partition(":")
        name = f"{distribution}/{quote(self.name)}"
        return f"pkg:deb/{name}@{version}?distro={distribution}-{release}"

    @property
    def is_complete(self) -> bool:
        """Whether an advisory source can find the package."""
        return bool(self.name and self.version) and not self.ecosystem.endswith(":")


def packages_below(root: Path) -> list[Package]:
    """All packages of an image whose file system is at `root`. Raise CommandError for none."""
    found = sorted({*_python_packages(root), *_debian_packages(root)})
    for ecosystem in ("PyPI", "Debian"):
        if not any(it.ecosystem.startswith(ecosystem) for it in found):
            raise CommandError(f"the image has no {ecosystem} package: its list is not complete")
    return found


def bill(reference: str, packages: list[Package]) -> dict[str, Any]:
    """The CycloneDX document of an image. The same packages give the same document."""
    components = [
        {
            "type": "library",
            "bom-ref": package.purl,
            "name": package.name,
            "version": package.version,
            "purl": package.purl,
        }
        for package in packages
    ]
    name, _, tag = reference.rpartition(":")
    digest = hashlib.sha256("\n".join([reference, *(it.purl for it in packages)]).encode())
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest.digest()[:16], version=4)}",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "version": tag}},
        "components": components,
    }


@contextmanager
def mounted(reference: str, environment: dict[str, str]) -> Iterator[Path]:
    """The file system of a local image, to read."""
    command = ["buildah", "from", "--pull-never", reference]
    container = run("buildah from", command, env=environment)[-1]
    try:
        yield Path(run("buildah mount", ["buildah", "mount", container], env=environment)[-1])
    finally:
        run("buildah rm", ["buildah", "rm", container], env=environment)


def _python_packages(root: Path) -> Iterator[Package]:
    for folder in sorted(root.glob(f"{SITE_PACKAGES}/*.dist-info")):
        file = folder / "METADATA"
        text = file.read_bytes() if file.is_file() else b""
        fields = email.message_from_bytes(text)
        name, version = fields.get("Name"), fields.get("Version")
        if not name or not version:
            raise CommandError(f"{folder.name} has no name and version: the list is not complete")
        yield Package(PYPI, str(name).strip(), str(version).strip())


def _debian_packages(root: Path) -> Iterator[Package]:
    status = root / DPKG_STATUS
    if not status.is_file():
        return
    ecosystem = f"Debian:{_release(root)}"
    for text in status.read_text(encoding="utf-8").split("\n\n"):
        fields = email.message_from_string(text.strip())
        if not str(fields.get("Status", "")).endswith(" installed"):
            continue
        name, version = str(fields["Package"]), str(fields["Version"])
        source, _, other = str(fields.get("Source") or name).partition(" ")
        yield Package(ecosystem, name, version, source, other.strip("()") or version)


def _release(root: Path) -> str:
    """`12`, from os-release."""
    lines = (root / "etc/os-release").read_text(encoding="utf-8").splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values.get("VERSION_ID", "").strip('"')
