"""The prepare Job: one CPU pod that checks the data before any GPU is asked for."""

from typing import Any

from finetune_api import names
from finetune_api.finetune import FineTune, Resolved
from finetune_api.tasks import PrepareTask, RequestedHyperparameters, RunRef, Workers
from finetune_operator.build.identity import child_metadata, child_name, labels
from finetune_operator.build.method import build_classification, build_method
from finetune_operator.build.pods import credentials, pod_spec, scheduling
from finetune_operator.settings import Settings

RETRIES = 3  # of a crash or a store that does not answer; a user's error is never retried


def prepare_name(finetune: FineTune) -> str:
    return child_name(finetune, "prepare")


def build_prepare_task(finetune: FineTune, resolved: Resolved, settings: Settings) -> PrepareTask:
    spec = finetune.spec
    requested = spec.hyperparameters.model_dump(
        include=set(RequestedHyperparameters.model_fields), exclude_none=True
    )
    return PrepareTask(
        run=RunRef(
            namespace=finetune.metadata.namespace,
            name=finetune.metadata.name,
            uid=finetune.metadata.uid,
            output=resolved.output,
        ),
        base=resolved.base,
        training_file=spec.training_file,
        validation_file=spec.validation_file,
        hyperparameters=RequestedHyperparameters(**requested),
        rules=settings.hyperparameters,
        limits=settings.data,
        data_tolerance=spec.data_tolerance,
        method=build_method(spec),
        classification=build_classification(spec),
        workers=Workers(
            nodes=spec.resources.nodes,
            processes_per_node=max(1, spec.resources.gpus_per_node),
            accelerator="nvidia" if spec.resources.gpus_per_node else "cpu",
            gpu_memory_gib=resolved.runtime.gpu_memory_gib,
            zero_stage=spec.deepspeed.zero_stage if spec.deepspeed else None,
            offload=spec.deepspeed.offload if spec.deepspeed else None,
        ),
    )


def build_prepare_job(finetune: FineTune, resolved: Resolved, settings: Settings) -> dict[str, Any]:
    task = build_prepare_task(finetune, resolved, settings)
    source = credentials(finetune, resolved.secret_name)
    amounts = settings.prepare_resources.to_dict()
    container = {
        "image": resolved.runtime.prepare_image,
        "env": [{"name": names.ENV_TASK, "value": task.to_json()}],
        "resources": {"requests": amounts, "limits": dict(amounts)},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(finetune, prepare_name(finetune), names.COMPONENT_PREPARE),
        "spec": {
            "backoffLimit": RETRIES,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"operator": "In", "values": [names.EXIT_USER]},
                    },
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
                ]
            },
            "template": {
                "metadata": {"labels": labels(finetune, names.COMPONENT_PREPARE)},
                "spec": {
                    **pod_spec(settings, source, container, []),
                    **scheduling(finetune),
                },
            },
        },
    }
