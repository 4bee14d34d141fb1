"""The Job that deletes the files of a Model: one CPU pod with the namespace's credentials."""

from typing import Any

from finetune_api import names
from finetune_api.model import Model
from finetune_api.tasks import DeletionTask
from finetune_operator.build.credentials import SecretSource
from finetune_operator.build.identity import NAME_CHARACTERS
from finetune_operator.build.pod_metadata import pod_metadata
from finetune_operator.build.pods import deadline, pod_spec, retry_policy
from finetune_operator.build.queueing import put_in_queue, queue_on_cpus
from finetune_operator.settings import Settings

RETRIES = 3
KEPT_SECONDS = 3600  # longer than the operator's wait between two Jobs


def deletion_name(model: Model) -> str:
    meta = model.metadata
    return f"mdl-{meta.name.replace('.', '-')[:NAME_CHARACTERS]}-{meta.uid[:8]}-delete"


def build_deletion_task(model: Model) -> DeletionTask:
    made_by = model.spec.fine_tune
    return DeletionTask(
        namespace=model.metadata.namespace,
        model=model.spec.id,
        uri=model.spec.uri,
        manifest_sha256=model.spec.manifest_sha256,
        fine_tune=made_by.name if made_by else None,
        fine_tune_uid=made_by.uid if made_by else None,
    )


def build_deletion_job(model: Model, settings: Settings) -> dict[str, Any]:
    """The Job has no owner: a foreground deletion of the Model would delete it too early."""
    secret = model.spec.secret_name or settings.secret_name
    source = SecretSource(secret, is_required=secret != settings.secret_name)
    amounts = settings.prepare_resources.amounts
    container = {
        "image": settings.prepare_image,
        "command": ["python", "-m", "finetune_data.deletion"],
        "env": [{"name": names.ENV_TASK, "value": build_deletion_task(model).to_json()}],
        "resources": {"requests": amounts, "limits": dict(amounts)},
    }
    labels = {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_UID: model.metadata.uid,
        names.LABEL_COMPONENT: names.COMPONENT_DELETION,
    }
    annotations = {names.ANNOTATION_MODEL: model.metadata.name}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": deletion_name(model),
            "namespace": model.metadata.namespace,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": {
            **deadline(settings),
            "backoffLimit": RETRIES,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": retry_policy(),
            "template": {
                "metadata": pod_metadata(settings, labels, annotations),
                "spec": pod_spec(settings, source, container, []),
            },
        },
    }
    queue = model.metadata.annotations.get(names.ANNOTATION_QUEUE)
    return put_in_queue(job, queue_on_cpus(queue, settings))
