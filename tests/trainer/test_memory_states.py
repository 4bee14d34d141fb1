"""The estimated bytes of a rank, compared with those that DeepSpeed allocates on a virtual GPU."""

import json
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

from finetune_api.tasks import MethodRef, RankResources
from finetune_data.memory.shape import ModelShape
from finetune_data.memory.states import head_gradient_bytes, pinned_bytes, states
from tests.trainer import support
from tests.trainer.virtual_gpu.combinations import (
    CONFIG_OF,
    CONFIGS,
    PHASES,
    Combination,
    combinations,
)

pytestmark = pytest.mark.slow

TOLERANCE = 0.12
ACTIVATIONS = 2**24  # those of the few tokens


@cache
def measured(ranks: int) -> dict[str, dict[str, dict[str, int]]]:
    """Bytes by combination, phase, and place."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.virtual_gpu.measure", str(ranks)],
        env=support.pod_environment(DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES=""),
        cwd=support.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, dict[str, dict[str, int]]] = {}
    for line in done.stdout.splitlines():  # DeepSpeed prints to the same stream
        if line.startswith("{"):
            found |= json.loads(line)
    return found


def estimated(combination: Combination, ranks: int) -> dict[str, float]:
    """Bytes by phase on the GPU, and on the host."""
    shape = ModelShape.of(CONFIGS[combination.config], None)
    assert shape is not None
    workers = RankResources(processes_per_node=ranks, accelerator="nvidia")
    plan: Any = {"zero_stage": combination.stage, "offload": combination.offload}
    found = states(shape, workers, combination.method, **plan)
    backward = found.backward + head_gradient_bytes(shape, combination.method) + ACTIVATIONS
    return {
        "init": found.start + ACTIVATIONS,
        "backward": backward,
        "boundary": backward,
        "step": found.step + ACTIVATIONS,
        "resume": found.backward + ACTIVATIONS,
        "host": pinned_bytes(shape, workers, combination.method, **plan) + ACTIVATIONS,
    }


@pytest.mark.parametrize("ranks", CONFIG_OF)
def test_the_estimate_is_never_below_and_at_most_12_percent_above(ranks: int) -> None:
    for combination in combinations(ranks):
        phases = measured(ranks)[combination.key]
        estimate = estimated(combination, ranks)
        found = {name: phases[name].get("device", 0) for name in PHASES}
        found["host"] = max(
            phase.get("host", 0) + phase.get("pinned", 0) for phase in phases.values()
        )
        print(combination.key, {name: (found[name], estimate[name]) for name in found})
        for name, size in found.items():
            assert size <= estimate[name], (combination.key, name)
        most = max(found[name] for name in PHASES)
        assert max(estimate[name] for name in PHASES) <= (1 + TOLERANCE) * most + ACTIVATIONS
        assert estimate["host"] <= (1 + TOLERANCE) * found["host"] + ACTIVATIONS


def test_the_host_is_not_the_device_and_a_copy_is_not_an_alias() -> None:
    """What the counter must tell apart, in the first mode that uses both."""
    phases = measured(8)[Combination("wide", 1, "optimizer", MethodRef()).key]
    shape = ModelShape.of(CONFIGS["wide"], None)
    assert shape is not None
    largest = 2 * shape.vocabulary * shape.hidden
    init = phases["init"]
    assert init["device"] == pytest.approx(2 * shape.parameters + largest, rel=0.001)
    assert init["host"] == pytest.approx(8 * shape.parameters / 8, rel=0.001)
    assert init["pinned"] == pytest.approx(10 * shape.parameters / 8 + largest, rel=0.001)
