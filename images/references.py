"""References of images in a registry, such as `docker.io/library/python:3.12-slim`."""

from __future__ import annotations

import re
from dataclasses import dataclass

DOCKER_HUB = "docker.io"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

_HOST = re.compile(
    r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9A-Fa-f:]+\])(?::(?P<port>\d{1,5}))?"
)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class BaseImageError(Exception):
    """The base image cannot be pinned or used. The message is one sentence with the fix."""


@dataclass(frozen=True)
class Reference:
    """An image by its tag. registry: `HOST[:PORT]`; repository: the path in it."""

    registry: str
    repository: str
    tag: str

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}:{self.tag}"


def parse_reference(text: str) -> Reference:
    """Parse `[REGISTRY/]NAME:TAG` by the rules of Docker. Raise BaseImageError for another form.

    Without a registry, the image is on Docker Hub, where a name of one part is below `library/`.
    """
    name, digest = split_digest(text)
    if digest or "@" in text:
        raise BaseImageError(f"{text!r} has a digest. Pin {name!r} instead, or build with --base.")
    registry, path = _split_registry(text)
    if registry == "localhost":
        raise BaseImageError(
            f"{text!r} is an image of this machine's storage, and no registry has its digest. "
            "Pin an image with a registry, such as localhost:5000/NAME:TAG."
        )
    repository, _, tag = path.rpartition(":")
    if not repository:
        raise BaseImageError(f"{text!r} has no tag. Add one: {text}:TAG")
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    host = _HOST.fullmatch(registry)
    is_valid = host and int(host["port"] or 0) < 2**16 and _REPOSITORY.fullmatch(repository)
    if not is_valid or not _TAG.fullmatch(tag):
        raise BaseImageError(
            f"{text!r} is not the reference of an image. Use [REGISTRY/]NAME:TAG, such as "
            "docker.io/library/python:3.12-slim."
        )
    return Reference(registry, repository, tag)


def split_digest(text: str) -> tuple[str, str]:
    """Return the reference without its digest, and the digest; empty if there is none."""
    name, _, digest = text.partition("@")
    return name, digest if DIGEST.fullmatch(digest) else ""


def _split_registry(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or (first != "localhost" and not {".", ":"} & set(first)):
        return DOCKER_HUB, text
    return (DOCKER_HUB if first == f"index.{DOCKER_HUB}" else first), rest
