"""Certificates from the `openssl` command: one authority per instance, P-256 keys, one year.

Private keys have mode 0600 and never leave their folder.
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DAYS = "365"


class CertificateError(Exception):
    """openssl failed; the message has its output."""


@dataclass(frozen=True)
class Pair:
    """The paths of a certificate and its private key, in PEM format."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Subject:
    """The subject of a certificate: Kubernetes user (`common_name`) and group (`organization`)."""

    common_name: str
    organization: str = ""
    addresses: Sequence[str] = ()
    names: Sequence[str] = ()

    def as_openssl(self) -> str:
        organization = f"/O={self.organization}" if self.organization else ""
        return f"{organization}/CN={self.common_name}"

    def extensions(self) -> str:
        """The extensions for `openssl x509 -extfile`."""
        alternatives = [f"DNS:{name}" for name in self.names]
        alternatives += [f"IP:{address}" for address in self.addresses]
        lines = [
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature,keyEncipherment",
            "extendedKeyUsage=serverAuth,clientAuth",
        ]
        if alternatives:
            lines.append(f"subjectAltName={','.join(alternatives)}")
        return "\n".join(lines) + "\n"


class Authority:
    """Signs certificates and stores them as `<name>.crt` and `<name>.key` in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.crt"
        self._key = folder / "ca.key"

    def create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key(self._key)
        _openssl(
            *("req", "-x509", "-new", "-sha256", "-days", DAYS, "-key", str(self._key)),
            *("-subj", "/CN=devcluster", "-out", str(self.certificate)),
        )

    def pair(self, name: str) -> Pair:
        return Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")

    def issue(self, name: str, subject: Subject) -> Pair:
        pair = self.pair(name)
        request = self.folder / f"{name}.csr"
        extensions = self.folder / f"{name}.ext"
        key(pair.key)
        _openssl(
            *("req", "-new", "-sha256", "-key", str(pair.key), "-subj", subject.as_openssl()),
            *("-out", str(request)),
        )
        extensions.write_text(subject.extensions())
        _openssl(
            *("x509", "-req", "-sha256", "-days", DAYS, "-in", str(request)),
            *("-CA", str(self.certificate), "-CAkey", str(self._key)),
            *("-set_serial", str(int.from_bytes(os.urandom(8), "big"))),
            *("-extfile", str(extensions), "-out", str(pair.certificate)),
        )
        request.unlink()
        extensions.unlink()
        return pair


def key(path: Path) -> None:
    """Write a new private key."""
    path.touch(mode=0o600)
    _openssl(
        "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(path)
    )
    path.chmod(0o600)


def public_key(private: Path, path: Path) -> None:
    _openssl("pkey", "-in", str(private), "-pubout", "-out", str(path))


def _openssl(*arguments: str) -> None:
    command = ["openssl", *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CertificateError("openssl is not installed.") from None
    if result.returncode != 0:
        raise CertificateError(f"openssl {arguments[0]}: {result.stderr.strip()}")
