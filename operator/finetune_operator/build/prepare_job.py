"""The prepare Job: one CPU pod that checks the data before any GPU is requested."""

from typing import Any

from finetune_api import names
from finetune_api.assignments import prepare_task
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Resolved
from finetune_operator.build.identity import child_metadata, child_name, labels
from finetune_operator.build.model_cache import has_shared_cache
from finetune_operator.build.pods import credentials, pod_spec, retry_policy, scheduling
from finetune_operator.settings import Settings

RETRIES = 3  # after a crash or without an answer of S3; an error of the user is not retried


def prepare_name(finetune: FineTune) -> str:
    return child_name(finetune, "prepare")


def build_prepare_job(finetune: FineTune, resolved: Resolved, settings: Settings) -> dict[str, Any]:
    task = prepare_task(
        *(finetune, resolved, settings.hyperparameters, settings.data),
        has_model_cache=has_shared_cache(settings.runtime(resolved.runtime.name)),
    )
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
            "podFailurePolicy": retry_policy(),
            "template": {
                "metadata": {"labels": labels(finetune, names.COMPONENT_PREPARE)},
                "spec": {
                    **pod_spec(settings, source, container, []),
                    **scheduling(finetune),
                },
            },
        },
    }
