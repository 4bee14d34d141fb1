"""The labels of an image that say what it was built from, as far as a command has answered it."""

from __future__ import annotations

from datetime import UTC, datetime

from images.context import ROOT
from images.progress import CommandError, run

OCI = "org.opencontainers.image"
CONTENT = "dev.finetune.content"  # the hash of the sources, the dependency lists, and the base


def provenance(image: str, content: str, base: str, environment: dict[str, str]) -> dict[str, str]:
    """The annotations of OCI. content: the tag of the image, a hash of everything it is made of."""
    labels = {
        f"{OCI}.title": f"finetune-{image}",
        f"{OCI}.created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        f"{OCI}.revision": _revision(),
        f"{OCI}.base.name": base,
        f"{OCI}.base.digest": _digest(base, environment),
        CONTENT: content,
    }
    return {name: value for name, value in labels.items() if value}


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
