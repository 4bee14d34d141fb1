"""Publishing needs the host memory of a few weights, and a rank stays below its estimate."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from finetune_api.tasks import MethodRef, RankResources
from finetune_data.memory.plan import estimate
from finetune_data.memory.shape import ModelShape
from tests.support.memory_limit import memory_limit
from tests.trainer import support
from tests.trainer.publish_memory import create

pytestmark = pytest.mark.slow

MIB = 1024**2
FACTOR = 2  # times the largest weight in fp32: it, and its rounded copy, are at most 1.5
SLACK = 1.15  # of the estimate of a node's memory
CONSTANT = 64 * MIB  # Python's objects, and what the allocator keeps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("publish-memory")
    create(made / "base")
    return made


def run(kind: str, folder: Path, join: Callable[[], None] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.publish_memory", kind, str(folder)],
        cwd=support.ROOT,
        env=support.pod_environment(DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES=""),
        preexec_fn=join,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-4000:]}"
    return done.stdout


def test_publishing_needs_the_memory_of_a_few_weights(folder: Path) -> None:
    found = json.loads(run("write", folder).splitlines()[-1])
    print({name: f"{size / MIB:,.0f} MiB" for name, size in found.items()})
    for method in ("full", "lora"):
        assert 0 < found[method] < FACTOR * found["largest"] + CONSTANT, method


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_rank_stays_below_its_estimate_from_loading_to_publishing(
    method: Literal["full", "lora"], folder: Path
) -> None:
    shape = ModelShape.of(json.loads((folder / "base" / "config.json").read_text()), None)
    assert shape is not None
    plan = estimate(
        shape,
        RankResources(nodes=1, processes_per_node=1, accelerator="cpu", memory_gib=None),
        MethodRef(type=method, rank=8, alpha=16),
        tokens=32,
        zero_stage=0,
    )
    with memory_limit(int(SLACK * plan.node.memory), pytest.skip) as limit:
        found = json.loads(run(method, folder, limit.join).splitlines()[-1])
        assert limit.kills == 0
    print(f"{method}: {found['peak'] / MIB:,.0f} of {plan.node.memory / MIB:,.0f} MiB")


def test_a_limited_child_is_killed_and_counted(folder: Path) -> None:
    """The limit works: so little memory does not even hold the libraries."""
    with memory_limit(64 * MIB, pytest.skip) as limit:
        with pytest.raises(AssertionError, match="exit code -9"):
            run("write", folder, limit.join)
        assert limit.kills == 1
