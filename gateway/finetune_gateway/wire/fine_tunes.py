"""The FineTune object of OpenAI's fine-tunes API (`/v1/fine-tunes`)."""

from __future__ import annotations

from finetune_api.finetune import FineTune
from finetune_api.names import State
from finetune_api.wire import JsonObject
from finetune_gateway.wire.events import fine_tune_events
from finetune_gateway.wire.file_objects import RESULTS, KnownFiles
from finetune_gateway.wire.finetunes import created_at, hyperparameters, updated_at
from finetune_gateway.wire.ids import shown_id
from finetune_gateway.wire.timestamps import unix

OBJECT = "fine-tune"


def fine_tune_object(
    finetune: FineTune, files: KnownFiles, organization: str, *, has_events: bool = True
) -> JsonObject:
    """has_events: lists have none."""
    spec, status = finetune.spec, finetune.status
    validation = [spec.validation_file] if spec.validation_file else []
    finished = unix(status.finished_at)
    found: JsonObject = {
        "id": shown_id(finetune.metadata.name, "fine-tune"),
        "object": OBJECT,
        "created_at": created_at(finetune),
        "updated_at": updated_at(finetune),
        "model": spec.model,
        "fine_tuned_model": status.fine_tuned_model,
        "organization_id": organization,
        "status": status.state or State.PENDING,
        "hyperparams": _hyperparams(finetune),
        "training_files": [
            files.object_of(file.uri, "fine-tune", None) for file in spec.training_data
        ],
        "validation_files": [files.object_of(uri, "fine-tune", None) for uri in validation],
        "result_files": [
            files.object_of(uri, RESULTS, finished) for uri in status.result_files or []
        ],
    }
    return found | ({"events": fine_tune_events(finetune)} if has_events else {})


def _hyperparams(finetune: FineTune) -> JsonObject:
    """The hyperparameters as used, and those of the classification if the request has them."""
    used, requested = hyperparameters(finetune), finetune.spec.hyperparameters
    found: JsonObject = {
        "n_epochs": used.n_epochs,
        "batch_size": used.batch_size,
        "learning_rate_multiplier": used.learning_rate_multiplier,
        "prompt_loss_weight": used.prompt_loss_weight,
    }
    classification = {
        "compute_classification_metrics": requested.compute_classification_metrics or None,
        "classification_n_classes": requested.classification_n_classes,
        "classification_positive_class": requested.classification_positive_class,
        "classification_betas": requested.classification_betas,
    }
    return found | {key: value for key, value in classification.items() if value is not None}
