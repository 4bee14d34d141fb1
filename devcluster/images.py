"""OCI images with one static program, for example the sandbox ("pause") image.

The same program gives the same bytes, so that repeated imports change nothing.
"""

import gzip
import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

PAUSE_IMAGE = "localhost/finetune-devcluster/pause:1"

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_image(name: str, program: Path, archive: Path) -> None:
    """Write an OCI archive of the image `name` with `program` as its only file and entry point."""
    entry_point = f"/{program.name}"
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        _add(tar, entry_point.lstrip("/"), program.read_bytes(), 0o755)
    plain = layer.getvalue()
    # fast compression, because the archive is read only once, on this machine
    packed = gzip.compress(plain, compresslevel=1, mtime=0)
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    configuration = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": [entry_point], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(plain)]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("image.config.v1+json", configuration),
            "layers": [_descriptor("image.layer.v1.tar+gzip", packed)],
        }
    ).encode()
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                **_descriptor("image.manifest.v1+json", manifest),
                "annotations": {"io.containerd.image.name": name},
                "platform": {"architecture": architecture, "os": "linux"},
            }
        ],
    }
    with tarfile.open(archive, mode="w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(tar, "index.json", json.dumps(index).encode())
        for blob in (packed, configuration, manifest):
            _add(tar, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)


def _descriptor(kind: str, blob: bytes) -> dict[str, object]:
    return {
        "mediaType": f"application/vnd.oci.{kind}",
        "digest": _digest(blob),
        "size": len(blob),
    }


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(data))
