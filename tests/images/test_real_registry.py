"""The digest of a base image in the registry of the development cluster, with and without tokens.

Two platforms of an image, and the index of both, are pushed to it over loopback.
"""

import hashlib
import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import pytest

from devcluster import gotools, processes
from devcluster.controlplane import free_ports
from images.digests import Resolved, resolve_digest
from images.references import BaseImageError, parse_reference
from tests.images.registry_server import (
    EMPTY,
    INDEX_TYPE,
    MANIFEST_TYPE,
    RegistryServer,
    Reply,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

START_SECONDS = 60
TOKEN = {"Authorization": "Bearer word"}


@contextmanager
def running_registry(folder: Path, access: str = "") -> Iterator[str]:
    """A registry on a free port; yields its host. access: the section `auth` of its settings."""
    (port,) = free_ports(1)
    host = f"127.0.0.1:{port}"
    settings = folder / "registry.yaml"
    storage = f"storage: {{filesystem: {{rootdirectory: {folder / 'storage'}}}}}"
    log = "log: {level: warn, accesslog: {disabled: true}}"
    settings.write_text(f"version: 0.1\n{log}\n{storage}\nhttp: {{addr: '{host}'}}\n{access}")
    gotools.build(("registry",))
    command = [str(gotools.binary("registry")), "serve", str(settings)]
    log_file, environment = folder / "log", {"OTEL_TRACES_EXPORTER": "none"}
    server = processes.start("registry", command, log_file, environment, ends_with_us=True)
    try:
        wait_for(host, server, log_file)
        yield host
    finally:
        processes.kill([server])


def wait_for(host: str, server: processes.Process, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            send("GET", f"http://{host}/v2/")
        except OSError:
            assert server.is_running(), log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        else:
            return


def send(method: str, url: str, body: bytes | None = None, kind: str = "") -> dict[str, str]:
    """Send a request, and return the headers of the answer."""
    headers = {**TOKEN, "Content-Type": kind or "application/octet-stream"}
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return {name.lower(): value for name, value in answer.headers.items()}


def push_blob(repository: str, content: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    upload = send("POST", f"{repository}/blobs/uploads/", b"")["location"]
    place = urljoin(repository, upload)
    send("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", content)
    return digest


def push_manifest(repository: str, reference: str, manifest: dict[str, object]) -> str:
    """Push a manifest or an index, and return the digest that the registry has given it."""
    body = json.dumps(manifest).encode()
    kind = str(manifest["mediaType"])
    sent = send("PUT", f"{repository}/manifests/{reference}", body, kind)
    return sent["docker-content-digest"]


def push_image(host: str) -> tuple[str, str]:
    """Push `team/base`; returns the digests of the index `:1`, and of the one platform `:arm64`."""
    repository = f"http://{host}/v2/team/base"
    assert push_blob(repository, b"{}") == EMPTY
    digests = {}
    for platform in ("amd64", "arm64"):
        config = json.dumps({"architecture": platform, "os": "linux"}).encode()
        manifest: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": push_blob(repository, config),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": EMPTY,
                    "size": 2,
                }
            ],
        }
        size = len(json.dumps(manifest))
        digests[platform] = (push_manifest(repository, platform, manifest), size)
    entries = [
        {
            "mediaType": MANIFEST_TYPE,
            "digest": digest,
            "size": size,
            "platform": {"architecture": platform, "os": "linux"},
        }
        for platform, (digest, size) in digests.items()
    ]
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}
    return push_manifest(repository, "1", index), digests["arm64"][0]


def test_the_digest_is_the_one_by_which_the_registry_serves_the_index(tmp_path: Path) -> None:
    with running_registry(tmp_path) as host:
        index, arm64 = push_image(host)
        assert index != arm64
        assert resolve_digest(parse_reference(f"{host}/team/base:1")) == Resolved(index, True)
        one = resolve_digest(parse_reference(f"{host}/team/base:arm64"))
        assert one == Resolved(arm64, False)
        for missing in ("team/base:2", "team/other:1"):
            with pytest.raises(BaseImageError, match="has no such image"):
                resolve_digest(parse_reference(f"{host}/{missing}"))


def test_a_registry_that_requires_a_token_gets_an_anonymous_one(tmp_path: Path) -> None:
    body = json.dumps({"token": "anonymous"}).encode()
    with RegistryServer(lambda _: Reply(200, body)) as tokens:
        # The registry takes any token and has the challenge of the real ones.
        access = f"auth: {{silly: {{realm: 'http://{tokens.host}/token', service: registry}}}}\n"
        with running_registry(tmp_path, access) as host:
            index, _ = push_image(host)
            assert resolve_digest(parse_reference(f"{host}/team/base:1")).digest == index
        (asked,) = tokens.asked
    assert asked.path == "/token?service=registry&scope=repository%3Ateam%2Fbase%3Apull"
