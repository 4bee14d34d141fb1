"""Cgroups that disappear while they are read: the kubelet removes those of pods at any time."""

import os
from pathlib import Path
from typing import Any

import pytest

from devcluster import cgroups


def test_a_cgroup_that_disappears_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pods", "pods/gone", "pods/stays"):
        (tmp_path / name).mkdir()
    (tmp_path / "cgroup.procs").write_text("7\n")
    (tmp_path / "pods" / "stays" / "cgroup.procs").write_text("8\n9\n")
    scan = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("gone"):
            raise FileNotFoundError(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert cgroups.processes(tmp_path) == {7, 8, 9}


def test_a_tree_is_removed_from_below(tmp_path: Path) -> None:
    (tmp_path / "own" / "pods" / "one").mkdir(parents=True)
    (tmp_path / "own" / "two").mkdir()
    assert cgroups.remove(tmp_path / "own")
    assert not (tmp_path / "own").exists()
