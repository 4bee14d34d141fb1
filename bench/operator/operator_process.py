"""The operator's process as the chart installs it, with its Role, settings, CPU, and memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from bench.operator.control_plane import KwokControlPlane
from devcluster import gotools
from tests.integration.conftest import Operator
from tests.support.kubectl import Kubectl
from tests.support.objects import a_settings

TICKS = os.sysconf("SC_CLK_TCK")


class OperatorProcess(Operator):
    """The operator of the tests with the chart's polling intervals, and its CPU and memory."""

    def _write_settings(self, changes: dict[str, Any]) -> None:
        settings = a_settings(namespace=self.team.namespace, **changes)
        (self.folder / "settings.yaml").write_text(yaml.safe_dump(settings.to_dict()))

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def peak_mib(self) -> float:
        return memory_mib(self.pid, "VmHWM")

    def resident_mib(self) -> float:
        return memory_mib(self.pid, "VmRSS")

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)


@contextmanager
def installed(plane: KwokControlPlane, team: Kubectl, **settings: Any) -> Iterator[OperatorProcess]:
    """Yield an operator with rights and kubeconfig that is not started."""
    gotools.build(("helm",))
    with tempfile.TemporaryDirectory(prefix="bench-operator-") as folder:
        subject = OperatorProcess(team, gotools.binary("helm"), Path(folder), **settings)
        try:
            yield subject
        finally:
            subject.stop()


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(pid: int, field: str) -> float:
    """Return a field of /proc/PID/status: the resident memory, or its peak."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
