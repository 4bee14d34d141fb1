"""Finds helm and kubeconform, and renders the chart."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from devcluster import gotools
from finetune_api.wire import JsonObject

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/finetune-operator"

Render = Callable[..., list[JsonObject]]


def program(name: str) -> str:
    """Return the path of a program. Without it, skip the test, or fail it in CI."""
    built = Path(gotools.cli_folder()) / name
    if built.exists():
        return str(built)
    if found := shutil.which(name):
        return found
    reason = f"no {name}: neither on PATH nor built by `python3 -m devcluster build`"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs helm."""
    path = program("helm")

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [path, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return call


@pytest.fixture(scope="session")
def render(helm: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """Return a function that renders the chart: `render("crds.install=false", release=...)`."""

    def call(*sets: str, release: str = "ft", namespace: str = "ml") -> list[JsonObject]:
        arguments = [word for value in sets for word in ("--set-json", value)]
        done = helm("template", release, CHART, "--namespace", namespace, *arguments)
        assert done.returncode == 0, done.stderr
        return [obj for obj in yaml.safe_load_all(done.stdout) if obj]

    return call
