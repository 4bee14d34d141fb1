"""FineTunes that the previous version resolved get the same Jobs as from that version."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.finetune import FineTune
from finetune_api.names import ENV_ALLOWED_ENDPOINTS
from finetune_api.tasks import TrainTask
from finetune_api.wire import JsonObject
from finetune_operator.build.train_job import build_train_job
from tests.support import previous
from tests.support.objects import UID, a_settings

OLDER: dict[str, Any] = json.loads((Path(__file__).parent / "older" / "statuses.json").read_text())
SPECS: dict[str, JsonObject] = {
    "cpu": {"resources": {"nodes": 2, "gpusPerNode": 0}},
    "gpus": {"resources": {"nodes": 2, "gpusPerNode": 8}},
    "gpus with a limit": {"resources": {"gpusPerNode": 8, "cpu": "8", "memory": "64Gi"}},
    "queue": {"queueName": "gpus", "scheduling": {"nodeSelector": {"gpu": "h100"}}},
}
PROGRAM = """
import json, sys
from finetune_api.finetune import FineTune
from finetune_operator.build.train_job import build_train_job
from finetune_operator.settings import Settings
settings, objects = json.load(sys.stdin)
parsed = [FineTune.parse(each) for each in objects]
settings = Settings.model_validate(settings)
print(json.dumps([build_train_job(each, each.status.resolved, settings, 2) for each in parsed]))
"""


def objects() -> list[JsonObject]:
    """FineTunes with a status of the previous version, whose pods are still to be created."""
    meta = {"name": "tone", "namespace": "team", "uid": UID, "generation": 1}
    data = {"trainingFile": "s3://bucket/train.jsonl"}
    status = OLDER["restarting"]["status"]
    return [{"metadata": meta, "spec": data | spec, "status": status} for spec in SPECS.values()]


def without_task(job: JsonObject) -> tuple[JsonObject, TrainTask]:
    """The Job with an empty task and without credentials, and the task as this version reads it.

    The previous version passed all keys of the Secret. Its images read them by the same names.
    """
    container = job["spec"]["template"]["spec"]["containers"][0]
    task = TrainTask.model_validate_json(container["env"][0].pop("value"))
    container.pop("envFrom", None)
    added = {item["name"] for item in container["env"] if "valueFrom" in item}
    added.add(ENV_ALLOWED_ENDPOINTS)  # which images of the previous version ignore
    container["env"] = [item for item in container["env"] if item["name"] not in added]
    return job, task


@pytest.mark.slow
def test_the_next_attempt_after_an_upgrade_is_the_one_of_the_previous_version() -> None:
    settings = a_settings()
    given = settings.model_dump(mode="json", by_alias=True, exclude_unset=True)
    before = json.loads(previous.run(PROGRAM, json.dumps([given, objects()])))
    for name, raw, older in zip(SPECS, objects(), before, strict=True):
        finetune = FineTune.parse(raw)
        assert finetune.status.resolved is not None
        job = build_train_job(finetune, finetune.status.resolved, settings, 2)
        assert without_task(job) == without_task(older), name
