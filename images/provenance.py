"""The labels of an image that say what it was built from, as far as a command has answered it."""

from __future__ import annotations

from datetime import UTC, datetime

from images.context import ROOT
from images.progress import CommandError, run
from images.references import split_digest

OCI = "org.opencontainers.image"
CONTENT = "dev.finetune.content"  # the hash of the sources, the dependency lists, and the base


def provenance(image: str, content: str, base: str, environment: dict[str, str]) -> dict[str, str]:
    """The annotations of OCI. content: the tag of the image, a hash of everything it is made of.

    base: the reference of the base image, with its digest if it is pinned.
    """
    labels = {
        f"{OCI}.title": f"finetune-{image}",
        f"{OCI}.created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        f"{OCI}.revision": _revision(),
        **base_labels(base),
        CONTENT: content,
    }
    if f"{OCI}.base.digest" not in labels:
        labels[f"{OCI}.base.digest"] = _digest(base, environment)
    return {name: value for name, value in labels.items() if value}


def base_labels(base: str) -> dict[str, str]:
    """The name of the base image, and its digest if the reference has one."""
    name, digest = split_digest(base)
    labels = {f"{OCI}.base.name": name}
    return labels | ({f"{OCI}.base.digest": digest} if digest else {})


def docker_arguments(base: str) -> list[str]:
    """Return the arguments of `docker build` that set the base image and its labels."""
    labels = [f"--label={name}={value}" for name, value in base_labels(base).items()]
    return [f"--build-arg=BASE={base}", *labels]


def _revision() -> str:
    """The commit of the checkout; with `-dirty` if files differ from it. Empty without git."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = run("git", [*git, "rev-parse", "HEAD"])[-1]
        return commit + ("-dirty" if run("git", [*git, "status", "--porcelain"]) else "")
    except (CommandError, OSError, IndexError):
        return ""


def _digest(reference: str, environment: dict[str, str]) -> str:
    """The digest of an image on this machine. Empty if it is not here, and thus not resolved."""
    command = ["buildah", "images", "--format", "{{.Digest}}", reference]
    try:
        lines = run("buildah images", command, env=environment)
    except CommandError:
        return ""
    return lines[-1] if lines and lines[-1].startswith("sha256:") else ""
