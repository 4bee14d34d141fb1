"""The Model of a successful FineTune. It has no owner, so that it outlives the FineTune."""

from typing import Any

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Resolved
from finetune_api.model import ModelMetrics, ModelSource, ModelSpec, ValidationMetrics
from finetune_api.model_names import resource_name
from finetune_api.outcome import EpochMetrics, Trained
from finetune_operator.build.identity import labels


def build_model(
    finetune: FineTune, resolved: Resolved, trained: Trained, adopted_from: str | None = None
) -> dict[str, Any]:
    """Build the Model. adopted_from: the UID of the former FineTune that trained it.

    The files of an adopted model may be those of a Model in another cluster, too.
    """
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
        fine_tune=ModelSource(
            name=finetune.metadata.name, uid=adopted_from or finetune.metadata.uid
        ),
        secret_name=resolved.secret_name,
        metrics=ModelMetrics(training_loss=trained.training_loss, **_validation(last)),
        metrics_before=(
            ValidationMetrics(**_validation(trained.before)) if trained.before else None
        ),
    )
    annotations = _annotations(finetune, adopted_from)
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Model",
        "metadata": {
            "name": resource_name(trained.fine_tuned_model),
            "namespace": finetune.metadata.namespace,
            "labels": labels(finetune, "model"),
            **({"annotations": annotations} if annotations else {}),
        },
        "spec": spec.to_dict(),
    }


def _annotations(finetune: FineTune, adopted_from: str | None) -> dict[str, str]:
    """The queue, for the Job that deletes the files of the Model, and the origin of the files."""
    found = {
        names.ANNOTATION_QUEUE: finetune.spec.queue_name,
        names.ANNOTATION_ADOPTED_FROM: adopted_from,
    }
    return {key: value for key, value in found.items() if value}


def _validation(epoch: EpochMetrics | None) -> dict[str, float | None]:
    return {name: getattr(epoch, name, None) for name in ValidationMetrics.model_fields}
