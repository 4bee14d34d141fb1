"""The estimated bytes of a rank, compared with those that DeepSpeed allocates on a virtual GPU."""

import json
import subprocess
import sys
from typing import Any

import pytest

from finetune_api.tasks import MethodRef, RankResources
from finetune_data.memory.shape import ModelShape
from finetune_data.memory.states import head_gradient_bytes, pinned_bytes, states
from tests.support.cases import LONG
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


def check_places(phases: dict[str, dict[str, int]], ranks: int) -> None:
    """An offloaded optimizer is not on the GPU, and what is copied to the host counts there."""
    shape = ModelShape.of(CONFIGS[CONFIG_OF[ranks]], None)
    assert shape is not None
    largest = 2 * shape.vocabulary * shape.hidden
    part = shape.parameters / ranks
    init = phases["init"]
    assert init["device"] == pytest.approx(2 * shape.parameters + largest, rel=0.001)
    assert init["host"] == pytest.approx(8 * part, rel=0.001)
    assert init["pinned"] == pytest.approx(10 * part + largest, rel=0.001)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("ranks", [1, 16, pytest.param(8, marks=LONG)])
def test_the_estimate_is_never_below_and_at_most_12_percent_above(ranks: int) -> None:
    found_by_key = measured(ranks)
    offloaded = Combination(CONFIG_OF[ranks], 1, "optimizer", MethodRef()).key
    if ranks == max(CONFIG_OF) or offloaded in found_by_key:
        check_places(found_by_key[offloaded], ranks)
    for combination in combinations(ranks):
        phases = found_by_key[combination.key]
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
