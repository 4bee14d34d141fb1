"""The prepare Job: one CPU pod that checks base model and data before any GPU is requested."""

from typing import Any

from finetune_api import names
from finetune_api.assignments import prepare_task
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Resolved
from finetune_api.quantities import gib_to_quantity
from finetune_operator.build.credentials import credentials
from finetune_operator.build.identity import child_metadata, labels, prepare_name
from finetune_operator.build.model_cache import has_shared_cache
from finetune_operator.build.pod_metadata import pod_metadata
from finetune_operator.build.pod_resources import small_pod_resources, with_defaults
from finetune_operator.build.pods import deadline, pod_spec, retry_policy, scheduling
from finetune_operator.build.queueing import put_in_queue, queue_on_cpus
from finetune_operator.build.scratch_space import SMALL_GIB, scratch_space
from finetune_operator.settings import Settings

# A trainer image of an earlier version has no check. The training pods then fail instead.
CHECK = """\
from importlib.util import find_spec
from runpy import run_module

if find_spec("finetune_trainer.base_check"):
    run_module("finetune_trainer.base_check", run_name="__main__", alter_sys=True)
else:
    print("this trainer image has no check of base models")
"""
BASE_REVISION = "/tmp/base-revision.json"  # noqa: S108 - a volume of the pod
RETRIES = 3  # after a crash or without an answer of S3; an error of the user is not retried


def build_prepare_job(finetune: FineTune, resolved: Resolved, settings: Settings) -> dict[str, Any]:
    task = prepare_task(
        with_defaults(finetune, resolved, settings),
        *(resolved, settings.hyperparameters, settings.data),
        has_model_cache=has_shared_cache(settings.runtime(resolved.runtime.name)),
        searches=True,
    )
    space = scratch_space(finetune, settings)
    source = credentials(finetune, resolved.secret_name)
    variables = [{"name": names.ENV_TASK, "value": task.to_json()}]
    if settings.base_check.enabled:  # both containers use the revision that the first one found
        variables.append({"name": names.ENV_BASE_REVISION, "value": BASE_REVISION})
    container = {
        "image": resolved.runtime.prepare_image,
        "env": variables,
        "resources": small_pod_resources(
            *(finetune, settings, settings.prepare_resources), space.usual
        ),
    }
    checks = _checks(finetune, resolved, settings, variables)
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(finetune, prepare_name(finetune), names.COMPONENT_PREPARE),
        "spec": {
            **deadline(settings),
            "backoffLimit": RETRIES,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": retry_policy(*(check["name"] for check in checks)),
            "template": {
                "metadata": pod_metadata(
                    settings, labels(finetune, names.COMPONENT_PREPARE), finetune=finetune
                ),
                "spec": {
                    **pod_spec(
                        *(settings, source, container, []),
                        before=checks,
                        room=settings.prepare_resources.ephemeral_storage
                        or gib_to_quantity(space.most),
                    ),
                    **scheduling(finetune),
                },
            },
        },
    }
    return put_in_queue(job, queue_on_cpus(finetune.spec.queue_name, settings))


def _checks(
    finetune: FineTune,
    resolved: Resolved,
    settings: Settings,
    variables: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """The container that checks the base model with the code that will load it: one or none."""
    if not settings.base_check.enabled:
        return []
    runtime = settings.runtime(resolved.runtime.name)
    added = runtime.env.items() if runtime else ()
    return [
        {
            "name": names.CONTAINER_BASE_CHECK,
            "image": resolved.runtime.trainer_image,
            "command": ["python", "-c", CHECK],
            "env": [
                *(dict(variable) for variable in variables),
                *({"name": key, "value": value} for key, value in added),
            ],
            "resources": small_pod_resources(
                *(finetune, settings, settings.base_check.resources), SMALL_GIB
            ),
        }
    ]
