"""Finds helm and kubeconform, and renders the chart."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import gotools
from finetune_api.wire import JsonObject
from tests.chart.schemas import swagger_file, write_schemas
from tests.integration.conftest import admin, control_plane, team, tools

__all__ = ["admin", "control_plane", "team", "tools"]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/finetune-operator"

Render = Callable[..., list[JsonObject]]
Helm = Callable[..., subprocess.CompletedProcess[str]]


def of_kind(objects: list[JsonObject], *kinds: str) -> list[JsonObject]:
    return [obj for obj in objects if obj["kind"] in kinds]


def name(obj: JsonObject) -> str:
    return str(obj["metadata"]["name"])


def one(objects: list[JsonObject], kind: str, suffix: str = "") -> JsonObject:
    (found,) = [obj for obj in of_kind(objects, kind) if name(obj).endswith(suffix)]
    return found


def settings(objects: list[JsonObject]) -> dict[str, Any]:
    """The settings file of the operator."""
    text = one(objects, "ConfigMap", "-settings")["data"]["settings.yaml"]
    return dict(yaml.safe_load(text))


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

    def call(
        *sets: str, release: str = "ft", namespace: str = "ml", chart: Path = CHART
    ) -> list[JsonObject]:
        arguments = [word for value in sets for word in ("--set-json", value)]
        done = helm("template", release, chart, "--namespace", namespace, *arguments)
        assert done.returncode == 0, done.stderr
        return [obj for obj in yaml.safe_load_all(done.stdout) if obj]

    return call


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Schemas from Go's module cache, or else kubeconform's own schemas from the network."""
    swagger = swagger_file()
    return write_schemas(swagger, tmp_path_factory.mktemp("schemas")) if swagger else "default"


def conform(schemas: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run kubeconform on a file of objects."""
    command = [
        program("kubeconform"),
        "-strict",
        "-summary",
        "-schema-location",
        schemas,
        str(path),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assert_valid(objects: list[JsonObject], schemas: str, folder: Path) -> None:
    """Check objects with kubeconform. folder: for their file."""
    path = folder / "objects.yaml"
    path.write_text(yaml.safe_dump_all(objects))
    done = conform(schemas, path)
    if schemas == "default" and "no such host" in done.stdout + done.stderr:
        pytest.skip("kubeconform's schemas are on the network, which is not there")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Invalid: 0, Errors: 0, Skipped: 0" in done.stdout
