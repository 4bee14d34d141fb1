"""A real S3 server of moto's, a real API server, and the command as its own process."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune_cli.main import main
from tests.data.conftest import aws, bucket, model_folder, s3_endpoint, storage
from tests.integration.conftest import admin, control_plane, team, tools
from tests.support.kubectl import Kubectl

__all__ = [
    "admin",
    "aws",
    "bucket",
    "control_plane",
    "model_folder",
    "s3_endpoint",
    "storage",
    "team",
    "tools",
]

Ran = subprocess.CompletedProcess[str]
Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def logs_of_others() -> Iterator[None]:
    """The command line changes how its process logs and warns. Other tests have the usual way."""
    factory, format_warning = logging.getLogRecordFactory(), warnings.formatwarning
    yield
    logging.setLogRecordFactory(factory)
    warnings.formatwarning = format_warning


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and home, without the configuration of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("KUBECONFIG", "FINETUNE_UPLOAD_TO", "KUBERNETES_SERVICE_HOST", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`finetune` with these arguments, in a pipe, in this process; `stdin` is typed."""

    def call(*arguments: str, stdin: str = "") -> Ran:
        typed = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", typed)
        monkeypatch.setattr(sys, "argv", ["finetune", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        code = ended.value.code
        return Ran(arguments, code if isinstance(code, int) else 0, told.out, told.err)

    return call


@pytest.fixture
def at_team(
    run: Run, team: Kubectl, monkeypatch: pytest.MonkeyPatch, aws: pytest.MonkeyPatch
) -> Run:
    """The command in a namespace of the test's own, with S3."""
    monkeypatch.setenv("KUBECONFIG", team.kubeconfig)

    def call(*arguments: str, stdin: str = "") -> Ran:
        return run("-n", team.namespace, *arguments, stdin=stdin)

    return call
