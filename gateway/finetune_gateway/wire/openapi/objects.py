"""The objects of answers."""

from __future__ import annotations

from finetune_gateway.wire.openapi.parts import (
    FILE_ID,
    SECONDS,
    Schema,
    integer,
    list_of,
    nullable,
    page_of,
    record,
    ref,
    text,
)

OBJECTS: dict[str, Schema] = {
    "Error": record(
        {
            "error": record(
                {
                    "message": text("What happened, where, and what to do."),
                    "type": text("Kind of the error."),
                    "param": nullable(text("Field of the request that the error is about.")),
                    "code": nullable(text("Machine-readable cause.")),
                }
            )
        }
    ),
    "Deleted": record({"id": text("Id."), "object": text("Kind."), "deleted": {"const": True}}),
    "File": record(
        {
            "id": text("Id."),
            "object": {"const": "file"},
            "bytes": nullable(integer("Size; null if it is not known.")),
            "created_at": nullable(integer(SECONDS)),
            "filename": text("Name without folders."),
            "purpose": {"enum": ["fine-tune", "fine-tune-results"]},
            "status": {"const": "processed"},
            "status_details": {"type": "null"},
        }
    ),
    "Upload": record(
        {
            "id": text("Id."),
            "object": {"const": "upload"},
            "bytes": integer("Size of the whole file."),
            "created_at": integer(SECONDS),
            "expires_at": integer(SECONDS),
            "filename": text("Name without folders."),
            "purpose": text("Purpose."),
            "status": {"enum": ["pending", "completed", "cancelled"]},
            "file": nullable(ref("File")),
        }
    ),
    "Part": record(
        {
            "id": text("Id."),
            "object": {"const": "upload.part"},
            "created_at": integer(SECONDS),
            "upload_id": text("Id of the upload."),
        }
    ),
    "FineTune": record(
        {
            "id": text("Id, ft-NAME of the FineTune NAME."),
            "object": {"const": "fine-tune"},
            "created_at": integer(SECONDS),
            "updated_at": integer(SECONDS),
            "model": text("Name of the base model."),
            "fine_tuned_model": nullable(text("Name of the new model.")),
            "organization_id": text("Organization."),
            "status": {"enum": ["pending", "running", "succeeded", "failed", "cancelled"]},
            "hyperparams": {"type": "object"},
            "training_files": list_of(ref("File")),
            "validation_files": list_of(ref("File")),
            "result_files": list_of(ref("File")),
            "events": list_of(ref("FineTuneEvent"), "Not in lists."),
        },
        required=["id", "object", "status", "fine_tuned_model", "result_files"],
    ),
    "FineTuneEvent": record(
        {
            "id": text("Id."),
            "object": {"const": "fine-tune-event"},
            "created_at": integer(SECONDS),
            "level": {"enum": ["info", "warn", "error"]},
            "message": text("One sentence."),
        }
    ),
    "Job": record(
        {
            "id": text("Id, ftjob-NAME of the FineTune NAME."),
            "object": {"const": "fine_tuning.job"},
            "created_at": integer(SECONDS),
            "finished_at": nullable(integer(SECONDS)),
            "estimated_finish": nullable(integer(SECONDS)),
            "status": {
                "enum": [
                    "validating_files",
                    "queued",
                    "running",
                    "paused",
                    "succeeded",
                    "failed",
                    "cancelled",
                ]
            },
            "error": nullable({"type": "object"}),
            "model": text("Name of the base model."),
            "fine_tuned_model": nullable(text("Name of the new model.")),
            "organization_id": text("Organization."),
            "training_file": text(FILE_ID),
            "validation_file": nullable(text(FILE_ID)),
            "result_files": list_of({"type": "string"}, "Ids."),
            "trained_tokens": nullable(integer("Trained tokens.")),
            "seed": integer("Seed."),
            "hyperparameters": {"type": "object"},
            "method": {"type": "object"},
            "integrations": list_of({"type": "object"}),
            "metadata": nullable({"type": "object"}),
        }
    ),
    "JobEvent": record(
        {
            "id": text("Id."),
            "object": {"const": "fine_tuning.job.event"},
            "created_at": integer(SECONDS),
            "level": {"enum": ["info", "warn", "error"]},
            "message": text("One sentence."),
            "type": {"enum": ["message", "metrics"]},
            "data": {"type": "object", "description": "Of metrics: a row of results.csv."},
        }
    ),
    "Checkpoint": {"type": "object"},
    "Permission": {"type": "object"},
    "Model": record(
        {
            "id": text("Name."),
            "object": {"const": "model"},
            "created": integer(SECONDS),
            "owned_by": text("Organization."),
            "permission": list_of({"type": "object"}),
            "root": text("Name of the base model."),
            "parent": nullable(text("Name of the model that it was trained from.")),
        }
    ),
    "Completion": {"type": "object", "required": ["choices"]},
    **{
        f"{item}List": page_of(item)
        for item in (
            "File",
            "FineTune",
            "FineTuneEvent",
            "Job",
            "JobEvent",
            "Checkpoint",
            "Permission",
            "Model",
        )
    },
}
