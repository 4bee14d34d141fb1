"""Runs the commands that need a cluster but no pods: an API server, helm, kubectl, and finetune.

There is no operator, so nothing trains. A FineTune that failed already exists.
"""

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_storage.s3 import Storage
from tests.cli.conftest import admin, aws, control_plane, s3_endpoint, storage, team, tools
from tests.docs.blocks import ROOT, all_blocks, blocks_for, pages_with
from tests.docs.programs import command_lines
from tests.docs.sessions import environment, run_page
from tests.support.kubectl import Kubectl, finetune

__all__ = ["admin", "aws", "control_plane", "s3_endpoint", "storage", "team", "tools"]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

BUCKET = "acme"
IMAGES = ("operator", "prepare", "trainer")
INSTALLED = {"how-to/upgrade.md"}  # pages that require a release
STATUS: dict[str, Any] = {
    "state": "failed",
    "reason": "InvalidData",
    "message": "trainingFile s3://acme/train.jsonl, line 17: not valid JSON",
    "error": {"code": "InvalidData", "message": "line 17: not valid JSON", "param": "trainingFile"},
    "attempts": [{"number": 1, "startedAt": "2026-11-21T12:00:00Z", "reason": "NodeLost"}],
    "events": [{"at": "2026-11-21T12:00:00Z", "reason": "Created", "message": "Created fine-tune"}],
    "startedAt": "2026-11-21T12:00:00Z",
    "finishedAt": "2026-11-21T12:05:00Z",
}


class Reader:
    """A reader in a copy of the repository, with access to one namespace."""

    def __init__(self, team: Kubectl, folder: Path, tools: Path, s3: dict[str, str]) -> None:
        self.team = team
        self.folder = folder / "repository"
        self.folder.mkdir()
        for part in ("charts", "examples", "crds"):
            (self.folder / part).symlink_to(ROOT / part)
        images = {name: f"registry.example.com/ml/{name}:1" for name in IMAGES}
        (self.folder / "images.json").write_text(json.dumps(images))
        row = {"prompt": "Where is my parcel?", "completion": " shipping"}
        for lines, name in enumerate(("train", "valid", "old", "corrections"), 1):
            (self.folder / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * lines)
        config = yaml.safe_load(Path(team.kubeconfig).read_text())
        for context in config["contexts"]:
            context["context"]["namespace"] = team.namespace
        (folder / "kubeconfig").write_text(yaml.safe_dump(config))
        self.env = environment(folder, tools, KUBECONFIG=str(folder / "kubeconfig"), **s3)

    def run(self, page: str) -> None:
        """Run a page with the namespace of this test for `ml`; helm only renders unknown kinds."""
        changes = {
            r"(?<=-n )ml\b|(?<=serviceaccount:)ml\b": self.team.namespace,
            r"\bteam-b\b": f"{self.team.namespace}-b",
        }
        blocks = blocks_for(page, "apiserver", "render")
        if page in INSTALLED:
            blocks = [*blocks_for("how-to/install.md", "apiserver")[:1], *blocks]
        if any("render" in block.classes for block, _ in blocks):
            changes[r"helm upgrade --install"] = "helm template"
        run_page(blocks, self.folder, self.env, changes, seconds=500)


@pytest.fixture
def reader(
    team: Kubectl, tools: Path, tmp_path: Path, storage: Storage, s3_endpoint: str
) -> Iterator[Reader]:
    there = {item["Name"] for item in storage._client.list_buckets()["Buckets"]}
    if BUCKET not in there:
        storage._client.create_bucket(Bucket=BUCKET)
    team.apply(finetune("support-tone"))
    team.patch_status("finetune", "support-tone", STATUS)
    s3 = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    made = Reader(team, tmp_path, tools, s3)
    yield made
    helm = Kubectl(str(tools / "helm"), team.kubeconfig, team.namespace)
    for release in json.loads(helm("list", "-o", "json")):
        helm("uninstall", release["name"])


@pytest.mark.parametrize("page", pages_with("apiserver", "render"))
def test_commands_run_against_an_api_server(page: str, reader: Reader) -> None:
    reader.run(page)


def test_the_api_server_accepts_every_manifest_of_the_pages(team: Kubectl) -> None:
    """Only an API server evaluates the rules across fields (CEL)."""
    tried = 0
    for block in all_blocks():
        if block.language == "yaml" and "apiVersion: finetune.dev" in block.text:
            team("apply", "--dry-run=server", "-f", "-", stdin=block.text)
            tried += 1
    assert tried >= 5


@pytest.mark.parametrize("program", ["kubectl", "helm"])
def test_every_option_of_kubectl_and_helm_exists(program: str, tools: Path) -> None:
    """Check all commands, including those that run nowhere, against their own help."""
    asked = 0
    for block in (block for block in all_blocks() if block.is_command):
        lines = [] if block.language == "python" else command_lines(block.text)
        for words in (words for words in lines if words[0] == program):
            used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            unknown = used - options(str(tools / program), *subcommand(words))
            assert not unknown, f"{block.where}: {program} has no {', '.join(unknown)}"
            asked += 1
    assert asked >= 5


def subcommand(words: list[str]) -> list[str]:
    """`kubectl create secret generic NAME --x` -> create, secret, generic, NAME."""
    return list(itertools.takewhile(lambda word: not word.startswith("-"), words[1:]))


@cache
def options(binary: str, *words: str) -> frozenset[str]:
    """Return the options in the help of a command, and the global options of kubectl."""
    told = [[*words, "--help"], ["options"]] if binary.endswith("kubectl") else [[*words, "--help"]]
    texts = [
        subprocess.run([binary, *one], capture_output=True, text=True, check=True).stdout
        for one in told
    ]
    return frozenset([*re.findall(r"(?<![\w-])--?[a-z][\w-]*", "\n".join(texts)), "--help"])
