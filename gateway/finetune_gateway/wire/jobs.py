"""The FineTuningJob object of OpenAI's fine-tuning API (`/v1/fine_tuning/jobs`)."""

from __future__ import annotations

from finetune_api.finetune import FineTune
from finetune_api.names import HEALTHY_REASONS, Stage, State
from finetune_api.wire import JsonObject
from finetune_gateway.wire.file_objects import KnownFiles
from finetune_gateway.wire.finetunes import created_at, hyperparameters, is_ended
from finetune_gateway.wire.ids import shown_id
from finetune_gateway.wire.object_marks import read_metadata
from finetune_gateway.wire.request_bodies import AUTO
from finetune_gateway.wire.request_fields import job_fields
from finetune_gateway.wire.timestamps import unix

OBJECT = "fine_tuning.job"
DEFAULT_SEED = 42  # of a training without one, which the prepare Job resolves


def job_object(finetune: FineTune, files: KnownFiles, organization: str) -> JsonObject:
    spec, status = finetune.spec, finetune.status
    training = [files.id_of(file.uri) for file in spec.training_data]
    found: JsonObject = {
        "id": shown_id(finetune.metadata.name, "job"),
        "object": OBJECT,
        "created_at": created_at(finetune),
        "finished_at": unix(status.finished_at),
        "estimated_finish": _estimated_finish(finetune),
        "status": job_status(finetune),
        "error": _error(finetune),
        "model": spec.model,
        "fine_tuned_model": status.fine_tuned_model,
        "organization_id": organization,
        "user_provided_suffix": spec.suffix,
        "training_file": training[0],
        "validation_file": files.id_of(spec.validation_file) if spec.validation_file else None,
        "result_files": [files.id_of(uri) for uri in status.result_files or []],
        "trained_tokens": status.trained_tokens if is_ended(finetune) else None,
        "seed": _seed(finetune),
        "hyperparameters": _hyperparameters(finetune),
        "method": {
            "type": "supervised",
            "supervised": {"hyperparameters": _hyperparameters(finetune)},
        },
        "integrations": [],
        "metadata": read_metadata(finetune.metadata.annotations),
    }
    if len(training) > 1:  # the API has one file; this field is the project's own
        weights = [file.weight for file in spec.training_data]
        found["training_files"] = [
            {"id": file_id, "weight": weight}
            for file_id, weight in zip(training, weights, strict=True)
        ]
    return found


def job_status(finetune: FineTune) -> str:
    """The status. `paused` is not in the types of OpenAI's clients, but in its documentation.

    validating_files is shown only while the data is checked: clients that wait for the end of this
    status stop early otherwise.
    """
    status = finetune.status
    if is_ended(finetune):
        return str(status.state)
    if finetune.spec.suspend:
        return "paused"
    if status.state == State.RUNNING:
        return "running"
    is_checked = status.stage == Stage.VALIDATING and status.reason in HEALTHY_REASONS
    return "validating_files" if is_checked else "queued"


def _estimated_finish(finetune: FineTune) -> int | None:
    status = finetune.status
    is_running = status.state == State.RUNNING and status.progress is not None
    return unix(status.progress.eta) if is_running and status.progress else None


def _error(finetune: FineTune) -> JsonObject | None:
    error = finetune.status.error
    if error is None:
        return None
    fields = job_fields({}, "hyperparameters")
    hint = f". {error.hint[:1].upper()}{error.hint[1:]}" if error.hint else ""
    return {
        "code": error.code,
        "message": f"{error.message.rstrip('.')}{hint}",
        "param": fields.param(error.param) if error.param else None,
    }


def _seed(finetune: FineTune) -> int:
    seed = hyperparameters(finetune).seed
    return DEFAULT_SEED if seed is None else seed


def _hyperparameters(finetune: FineTune) -> JsonObject:
    """`auto` is a value that the operator still has to choose."""
    used = hyperparameters(finetune)
    rate: float | str | None = used.learning_rate_multiplier
    if rate is None and used.learning_rate is None:
        rate = AUTO  # an absolute learning rate has no multiplier
    return {
        "n_epochs": used.n_epochs,
        "batch_size": AUTO if used.batch_size is None else used.batch_size,
        "learning_rate_multiplier": rate,
    }
