"""The Model of a successful FineTune. It has no owner, so that it outlives the FineTune."""

from typing import Any

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Resolved
from finetune_api.model import ModelMetrics, ModelSource, ModelSpec, ValidationMetrics
from finetune_api.model_names import resource_name
from finetune_api.outcome import EpochMetrics, Trained
from finetune_operator.build.identity import labels


def build_model(finetune: FineTune, resolved: Resolved, trained: Trained) -> dict[str, Any]:
    last = trained.epochs[-1] if trained.epochs else None
    spec = ModelSpec(
        id=trained.fine_tuned_model,
        uri=trained.model_uri,
        base=resolved.base.root,
        parent=resolved.base.name if resolved.base.is_continued else None,
        manifest_sha256=trained.model_manifest_sha256,
        pretraining_learning_rate=resolved.base.pretraining_learning_rate,
        context_length=resolved.base.context_length,
        training_examples=resolved.training_examples,
        trained_tokens=trained.trained_tokens,
        fine_tune=ModelSource(name=finetune.metadata.name, uid=finetune.metadata.uid),
        secret_name=resolved.secret_name,
        metrics=ModelMetrics(training_loss=trained.training_loss, **_validation(last)),
        metrics_before=(
            ValidationMetrics(**_validation(trained.before)) if trained.before else None
        ),
    )
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Model",
        "metadata": {
            "name": resource_name(trained.fine_tuned_model),
            "namespace": finetune.metadata.namespace,
            "labels": labels(finetune, "model"),
            **_queue(finetune),
        },
        "spec": spec.to_dict(),
    }


def _queue(finetune: FineTune) -> dict[str, Any]:
    """The queue of the FineTune, for the Job that deletes the files of the Model."""
    queue = finetune.spec.queue_name
    return {"annotations": {names.ANNOTATION_QUEUE: queue}} if queue else {}


def _validation(epoch: EpochMetrics | None) -> dict[str, float | None]:
    return {name: getattr(epoch, name, None) for name in ValidationMetrics.model_fields}
