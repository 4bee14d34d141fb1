"""The sandbox image is a valid OCI archive, and the same program gives the same bytes."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from devcluster.images import write_image


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "pause"
    path.write_bytes(b"\x7fELF")
    return path


def test_the_same_program_gives_the_same_bytes(program: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    write_image("localhost/pause:1", program, one)
    write_image("localhost/pause:1", program, two)
    assert one.read_bytes() == two.read_bytes()


def test_every_digest_in_the_archive_is_right(program: Path, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    write_image("localhost/pause:1", program, archive)
    with tarfile.open(archive) as tar:
        files = {entry.name: read(tar, entry) for entry in tar}

    def blob(descriptor: dict[str, object]) -> bytes:
        digest = str(descriptor["digest"]).removeprefix("sha256:")
        data = files[f"blobs/sha256/{digest}"]
        assert hashlib.sha256(data).hexdigest() == digest
        assert len(data) == descriptor["size"]
        return data

    [entry] = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/pause:1"
    manifest = json.loads(blob(entry))
    configuration = json.loads(blob(manifest["config"]))
    layer = gzip.decompress(blob(manifest["layers"][0]))
    assert configuration["config"]["Entrypoint"] == ["/pause"]
    assert configuration["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        [packed] = tar.getmembers()
        assert (packed.name, packed.mode) == ("pause", 0o755)


def read(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(entry)
    assert stream is not None
    return stream.read()
