"""Pushes an image, unless the registry already has it."""

from __future__ import annotations

import urllib.error
import urllib.request
from ipaddress import ip_address
from urllib.parse import urlsplit

from images.progress import run, say

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)


def is_loopback(registry: str) -> bool:
    """Whether the registry is on this machine, and therefore uses plain HTTP."""
    host = urlsplit(f"//{registry}").hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # another name, such as 127.example.com
        return False


def has_image(registry: str, reference: str) -> bool:
    """Whether a loopback registry has the tag; for others, buildah has the login and compares."""
    if not is_loopback(registry):
        return False
    host, _, path = reference.partition("/")
    name, tag = path.rsplit(":", 1)
    request = urllib.request.Request(
        f"http://{host}/v2/{name}/manifests/{tag}", method="HEAD", headers={"Accept": MANIFESTS}
    )
    # The host's proxy does not apply to its own loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10):
            return True
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise


def push_image(
    image: str,
    local: str,
    registry: str,
    tag: str | None,
    environment: dict[str, str],
    *,
    again: bool = False,
) -> str:
    """Push an image with zstd at its fastest level and return the reference.

    Layers that the registry has are not sent again. If it has the content tag, nothing is sent; a
    `tag` from the user says nothing about the content, so it is always pushed.
    """
    reference = f"{registry}/{local.removeprefix('localhost/')}"
    if tag:
        reference = f"{reference.rsplit(':', 1)[0]}:{tag}"
    elif not again and has_image(registry, reference):
        say(f"{image}: {reference} is in the registry")
        return reference
    say(f"{image}: pushing {reference}")
    run(
        image,
        ["buildah", "push", "--format", "oci", "--compression-format", "zstd",
         "--compression-level", "1", f"--tls-verify={str(not is_loopback(registry)).lower()}",
         local, f"docker://{reference}"],
        env=environment,
    )  # fmt: skip
    say(f"{image}: pushed {reference}")
    return reference
