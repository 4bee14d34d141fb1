"""The labels of the images: what git and buildah answer, and nothing that was made up."""

import os
import subprocess
from pathlib import Path

import pytest

from images import provenance
from images.context import ROOT

BUILDAH = """#!/bin/sh
case "$*" in
  *known*) echo sha256:0123 ;;
  *) echo "no such image" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The path with a buildah that knows one image."""
    program = tmp_path / "buildah"
    program.write_text(BUILDAH)
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_the_labels_name_the_commit_the_base_and_the_content(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", environment["PATH"])
    labels = provenance.provenance("operator", "abc", "localhost/known:1", environment)
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        revision = labels["org.opencontainers.image.revision"]
        assert revision.removesuffix("-dirty") == done.stdout.strip()
    assert labels["org.opencontainers.image.base.digest"] == "sha256:0123"
    assert labels["dev.finetune.content"] == "abc"


def test_the_digest_of_a_pinned_base_is_the_pinned_one(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", environment["PATH"])
    digest = f"sha256:{'7' * 64}"
    labels = provenance.provenance("operator", "abc", f"localhost/known:1@{digest}", environment)
    assert labels["org.opencontainers.image.base.digest"] == digest  # buildah has another answer
    assert labels["org.opencontainers.image.base.name"] == "localhost/known:1"


def test_what_no_command_has_answered_is_not_in_them(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", environment["PATH"])
    monkeypatch.setattr(provenance, "ROOT", tmp_path)  # no checkout
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    labels = provenance.provenance("operator", "abc", "docker.io/library/python:3", environment)
    assert "org.opencontainers.image.revision" not in labels
    assert "org.opencontainers.image.base.digest" not in labels
    assert labels["org.opencontainers.image.base.name"] == "docker.io/library/python:3"
