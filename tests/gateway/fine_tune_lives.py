"""FineTunes at each point of their lives, with the statuses that the operator's decisions write."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from finetune_api.finetune import FineTune
from finetune_api.names import ANNOTATION_METADATA, Reason
from tests.support.objects import UID, World, failed, progress, trained

UPLOADED = "s3://bucket/gateway/team/files/file-01m7yw6nw0jv8eb33q8pb9ssjv/fine-tune/train.jsonl"


def a_finetune(**spec: Any) -> FineTune:
    """One that the gateway made, with metadata."""
    return FineTune.parse(
        {
            "metadata": {
                "name": "tone",
                "namespace": "team",
                "uid": UID,
                "generation": 1,
                "creationTimestamp": "2026-11-21T11:59:58Z",
                "annotations": {ANNOTATION_METADATA: '{"team":"support"}'},
            },
            "spec": {
                "model": "ada",
                "suffix": "tone",
                "trainingFile": UPLOADED,
                "validationFile": "s3://acme/valid.jsonl",
                "resources": {"nodes": 2, "gpusPerNode": 0},
                **spec,
            },
        }
    )


def new() -> FineTune:
    return a_finetune()


def validating() -> FineTune:
    world = World(a_finetune(hyperparameters={"nEpochs": 2, "batchSize": 8, "seed": 7}))
    world.settle()
    return world.finetune


def unschedulable() -> FineTune:
    """The data is not checked yet, and the pod that checks it waits for a node."""
    found = validating()
    status = found.status.replace(reason=Reason.UNSCHEDULABLE, message="no node has 2 CPUs")
    return found.replace(status=status)


def queued() -> FineTune:
    return World(a_finetune(queueName="gpus")).until_training().finetune


def paused() -> FineTune:
    world = World(a_finetune()).until_running()
    world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(suspend=True))
    world.settle()
    return world.finetune


def running() -> FineTune:
    world = World(a_finetune()).until_running()
    world.now += timedelta(seconds=60)
    world.progress = progress(step=30, epoch=1.2, training_loss=1.5, seconds_left=600)
    world.settle()
    return world.finetune


def succeeded() -> FineTune:
    world = World(a_finetune()).until_running()
    for index in range(2):
        world.end_pod("a1", index, 0, trained())
    world.settle()
    return world.finetune


def failed_validation() -> FineTune:
    world = World(a_finetune())
    world.settle()
    error = failed(
        Reason.INVALID_DATA,
        'training file, line 17: missing "completion"',
        param="trainingFile",
        hint="add the field or remove the line",
    )
    world.end_pod("prepare", 0, 65, error)
    world.settle()
    return world.finetune


def cancelled() -> FineTune:
    world = World(a_finetune()).until_running()
    world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(cancel=True))
    world.settle()
    return world.finetune


def of_kubectl() -> FineTune:
    """One with several weighted files, a learning rate, and an output of its own."""
    files = [{"uri": UPLOADED, "weight": 3}, {"uri": "s3://acme/old.csv", "weight": 1}]
    rate = {"learningRate": 0.0001, "computeClassificationMetrics": True}
    spec = {"trainingFiles": files, "hyperparameters": {**rate, "classificationNClasses": 3}}
    found = a_finetune(trainingFile=None, output="s3://other/out", **spec)
    return found.replace(metadata=found.metadata.replace(annotations={}))


LIVES: dict[str, Callable[[], FineTune]] = {
    "new": new,
    "validating": validating,
    "unschedulable": unschedulable,
    "queued": queued,
    "paused": paused,
    "running": running,
    "succeeded": succeeded,
    "failed": failed_validation,
    "cancelled": cancelled,
    "of-kubectl": of_kubectl,
}
