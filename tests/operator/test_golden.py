"""Golden manifests of whole FineTunes. `--update-golden` writes them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.build.train_job import build_service
from finetune_operator.core.decide import decide
from finetune_operator.core.observed import Observed
from finetune_operator.core.plan import Create, CreateService
from tests.support.objects import NOW, World, a_finetune, trained

ESTIMATES = {
    "memory_per_pod_gib": 130.25,
    "storage_per_pod_gib": 121.4,
    "checkpoint_per_pod_gib": 89.6,
}
FOLDER = Path(__file__).parent / "golden"
CASES: dict[str, dict[str, Any]] = {
    "cpu-two-nodes": {},
    "gpu": {
        "validationFile": "s3://bucket/valid.jsonl",
        "resources": {
            "nodes": 2,
            "gpusPerNode": 8,
            "cpu": "32",
            "memory": "256Gi",
            "shm": "64Gi",
        },
        "deepspeed": {"zeroStage": 3, "offload": "optimizer", "overlapCommunication": True},
        "storage": {"secretName": "other"},
        "queueName": "gpus",
        "priorityClassName": "high",
        "scheduling": {
            "nodeSelector": {"gpu": "h100"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
        },
    },
    "gpu-estimates": {"resources": {"nodes": 1, "gpusPerNode": 8}},
}


@pytest.mark.parametrize("case", CASES)
def test_the_manifests_are_the_golden_ones(case: str, request: pytest.FixtureRequest) -> None:
    world = World(a_finetune(**CASES[case]))
    prepare = decide(Observed(world.finetune), world.settings, NOW)
    world.until_training(**(ESTIMATES if case == "gpu-estimates" else {}))
    world.admit("a1")
    world.ready_pods("a1")
    world.end_pod("a1", 0, 0, trained())
    world.settle()
    made = list(world.created)
    assert isinstance(prepare.actions[0], Create)
    assert prepare.actions[0].manifest == made[0]
    assert CreateService(1, made[1]["metadata"]["name"]).job_name in world.services
    made.insert(2, build_service(world.finetune, 1, "uid-of-the-job"))
    text = yaml.safe_dump_all(made, sort_keys=False, width=1000)
    path = FOLDER / f"{case}.yaml"
    if request.config.getoption("--update-golden"):
        path.write_text(text)
    assert text == path.read_text()
