"""The operator's own process as the chart installs it: its Role, its settings, what it costs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from bench.operator.plane import Plane
from devcluster import gotools
from tests.integration.conftest import Operator
from tests.support.kubectl import Kubectl
from tests.support.objects import a_settings

TICKS = os.sysconf("SC_CLK_TCK")


class Subject(Operator):
    """Beside the tests' operator: the chart's pace of polling, CPU and memory."""

    def _write_settings(self, changes: dict[str, Any]) -> None:
        settings = a_settings(namespace=self.team.namespace, **changes)
        (self.folder / "settings.yaml").write_text(yaml.safe_dump(settings.to_dict()))

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def peak_mib(self) -> float:
        return peak_mib(self.pid)

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)


@contextmanager
def installed(plane: Plane, team: Kubectl) -> Iterator[Subject]:
    """Its rights are there and its kubeconfig; it is not started yet."""
    gotools.build(("helm",))
    with tempfile.TemporaryDirectory(prefix="bench-operator-") as folder:
        subject = Subject(team, gotools.binary("helm"), Path(folder))
        try:
            yield subject
        finally:
            subject.stop()


def cpu_seconds(pid: int) -> float:
    """User's and system's, of all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_mib(pid: int) -> float:
    """The most that was resident at once."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
