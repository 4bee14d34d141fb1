"""The schemas of requests and answers. Limits come from the modules that check them."""

from __future__ import annotations

from typing import Any

from finetune_gateway.wire.completions.requests import (
    MODEL_CHARACTERS,
    MOST_CHOICES,
    MOST_STOPS,
)
from finetune_gateway.wire.object_marks import (
    KEY_CHARACTERS,
    MOST_PAIRS,
    VALUE_CHARACTERS,
)
from finetune_gateway.wire.request_bodies import AUTO, FINE_TUNE_SUFFIX, JOB_SUFFIX

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def integer(description: str, **more: Any) -> Schema:
    return {"type": "integer", "description": description, **more}


def number(description: str, **more: Any) -> Schema:
    return {"type": "number", "description": description, **more}


def boolean(description: str) -> Schema:
    return {"type": "boolean", "description": description}


def nullable(schema: Schema) -> Schema:
    """The same value, or null."""
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    if isinstance(schema["type"], list):
        return schema
    return {**schema, "type": [schema["type"], "null"]}


def list_of(item: Schema, description: str = "", **more: Any) -> Schema:
    found: Schema = {"type": "array", "items": item, **more}
    return found | ({"description": description} if description else {})


def record(properties: dict[str, Schema], *, required: list[str] | None = None) -> Schema:
    """An object of an answer. required: all properties by default."""
    names = [*properties] if required is None else required
    return {"type": "object", "properties": properties, "required": names}


def body(properties: dict[str, Schema], required: list[str]) -> Schema:
    """A body of a request: every optional field may be null, and no other field is accepted."""
    optional = {
        name: found if name in required or "anyOf" in found or "type" not in found
        else nullable(found)
        for name, found in properties.items()
    }  # fmt: skip
    return {
        "type": "object",
        "properties": optional,
        "required": required,
        "additionalProperties": False,
    }


def page_of(item: str) -> Schema:
    """A list object, with or without further pages."""
    return record(
        {
            "object": {"const": "list"},
            "data": list_of(ref(item)),
            "has_more": boolean("Whether further pages follow."),
            "first_id": nullable(text("Id of the first object.")),
            "last_id": nullable(text("Id of the last object, for `after` of the next page.")),
        }
    )


SECONDS = "Time in seconds since 1970."
FILE_ID = "Id of an uploaded file, or an address s3://bucket/key."


def _automatic(schema: Schema) -> Schema:
    """A hyperparameter, or the word for the choice of the operator."""
    return {"anyOf": [schema, {"const": AUTO}, {"type": "null"}]}


def _hyperparameters(*, is_legacy: bool) -> dict[str, Schema]:
    found = {
        "n_epochs": _automatic(integer("Passes over the training file.", minimum=1, maximum=50)),
        "batch_size": _automatic(integer("Examples for each step.", minimum=1)),
        "learning_rate_multiplier": _automatic(
            number("Multiplies the learning rate of the pre-training.", exclusiveMinimum=0)
        ),
    }
    if not is_legacy:
        return found
    return found | {
        "prompt_loss_weight": _automatic(
            number("Weight of the tokens of the prompt.", minimum=0, maximum=1)
        ),
        "compute_classification_metrics": boolean("Measure the model as a classifier."),
        "classification_n_classes": integer("Number of classes.", minimum=2),
        "classification_positive_class": text("The positive one of two classes."),
        "classification_betas": list_of(number("Beta."), "Betas of F-beta scores."),
    }


_CREATION: dict[str, Schema] = {
    "training_file": text(FILE_ID, minLength=1),
    "validation_file": text(FILE_ID),
    "finetune": {
        "type": ["object", "null"],
        "description": "Further fields of the FineTune's spec.",
        "additionalProperties": True,
    },
}
_SAMPLING: dict[str, Schema] = {
    "temperature": number("0 always selects the most likely token.", minimum=0, maximum=2),
    "top_p": number("Share of the most likely tokens to sample from.", minimum=0, maximum=1),
    "n": integer("Number of choices.", minimum=1, maximum=MOST_CHOICES),
    "stop": {
        "anyOf": [
            {"type": "string", "minLength": 1},
            list_of({"type": "string", "minLength": 1}, maxItems=MOST_STOPS),
            {"type": "null"},
        ],
        "description": "Texts that end a choice.",
    },
    "presence_penalty": number("Penalty of tokens that occur.", minimum=-2, maximum=2),
    "frequency_penalty": number("Penalty for each occurrence.", minimum=-2, maximum=2),
    "logit_bias": {
        "type": "object",
        "description": "Added to the logits of tokens, by id.",
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
    },
    "seed": integer("Seed of the random numbers."),
    "stream": boolean("Send server-sent events."),
    "stream_options": {
        "type": "object",
        "properties": {"include_usage": {"type": ["boolean", "null"]}},
        "description": "Only with stream.",
    },
    "user": text("A user of the client; for the server of the model."),
}
_TOKENS: Schema = list_of({"type": "integer", "minimum": 0}, minItems=1)
MODEL = text("Name of a model.", minLength=1, maxLength=MODEL_CHARACTERS)

SCHEMAS: dict[str, Schema] = {
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
    "NewFile": {
        "type": "object",
        "properties": {
            "purpose": {"const": "fine-tune"},
            "file": {
                "type": "string",
                "format": "binary",
                "description": "Lines of JSON objects; .csv, .tsv, .xlsx, .json, .parquet as is.",
            },
        },
        "required": ["purpose", "file"],
        "additionalProperties": False,
    },
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
    "NewUpload": body(
        {
            "bytes": integer("Size of the whole file.", minimum=1),
            "filename": text("Name of the file.", minLength=1),
            "purpose": {"const": "fine-tune"},
            "mime_type": text("Media type."),
        },
        ["bytes", "filename", "purpose"],
    ),
    "NewPart": {
        "type": "object",
        "properties": {"data": {"type": "string", "format": "binary"}},
        "required": ["data"],
        "additionalProperties": False,
    },
    "Part": record(
        {
            "id": text("Id."),
            "object": {"const": "upload.part"},
            "created_at": integer(SECONDS),
            "upload_id": text("Id of the upload."),
        }
    ),
    "UploadEnd": body(
        {
            "part_ids": list_of({"type": "string"}, "The parts in their order."),
            "md5": text("MD5 of the whole file.", pattern="^[0-9a-fA-F]{32}$"),
        },
        ["part_ids"],
    ),
    "NewFineTune": body(
        {
            **_CREATION,
            "model": text("Name of a model. Default: curie."),
            "suffix": text("Part of the model's name.", maxLength=FINE_TUNE_SUFFIX),
            **_hyperparameters(is_legacy=True),
        },
        ["training_file"],
    ),
    "NewJob": body(
        {
            **_CREATION,
            "model": MODEL,
            "suffix": text("Part of the model's name.", maxLength=JOB_SUFFIX),
            "seed": _automatic(integer("Seed of the training.", minimum=0, maximum=2**31 - 1)),
            "hyperparameters": nullable(
                {
                    "type": "object",
                    "properties": _hyperparameters(is_legacy=False),
                    "additionalProperties": False,
                }
            ),
            "method": {
                "anyOf": [
                    {
                        "type": "object",
                        "properties": {
                            "type": {"const": "supervised"},
                            "supervised": {
                                "type": "object",
                                "properties": {
                                    "hyperparameters": {
                                        "type": "object",
                                        "properties": _hyperparameters(is_legacy=False),
                                        "additionalProperties": False,
                                    }
                                },
                                "additionalProperties": False,
                            },
                        },
                        "additionalProperties": False,
                    },
                    {"type": "null"},
                ],
                "description": "The method and its hyperparameters.",
            },
            "metadata": {
                "type": "object",
                "description": "Texts of the client.",
                "maxProperties": MOST_PAIRS,
                "propertyNames": {"maxLength": KEY_CHARACTERS},
                "additionalProperties": {"type": "string", "maxLength": VALUE_CHARACTERS},
            },
            "integrations": list_of({"type": "object"}, "Must be empty.", maxItems=0),
        },
        ["training_file", "model"],
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
                    "validating_files", "queued", "running", "paused", "succeeded", "failed",
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
    "NewCompletion": body(
        {
            "model": MODEL,
            "prompt": {
                "anyOf": [
                    {"type": "string"},
                    list_of({"type": "string"}, minItems=1),
                    _TOKENS,
                    list_of(_TOKENS, minItems=1),
                ],
                "description": "Text or tokens, or several of one kind.",
            },
            **_SAMPLING,
            "max_tokens": integer("Maximum number of new tokens.", minimum=0),
            "echo": boolean("Return the prompt, too."),
            "logprobs": integer("Log probabilities of the best tokens.", minimum=0, maximum=5),
            "best_of": integer("Return the best of these.", minimum=1, maximum=20),
            "suffix": text("Text after the completion."),
        },
        ["model", "prompt"],
    ),
    "NewChatCompletion": body(
        {
            "model": MODEL,
            "messages": list_of(
                {
                    "type": "object",
                    "properties": {"role": {"type": "string"}},
                    "required": ["role"],
                },
                "The chat so far.",
                minItems=1,
            ),
            **_SAMPLING,
            "max_tokens": integer("Maximum number of new tokens.", minimum=1),
            "max_completion_tokens": integer("The newer name of max_tokens.", minimum=1),
            "logprobs": boolean("Return log probabilities."),
            "top_logprobs": integer("Of the best tokens; with logprobs.", minimum=0, maximum=20),
            "tools": list_of({"type": "object"}),
            "tool_choice": {"type": ["string", "object", "null"]},
            "parallel_tool_calls": boolean("Whether several tools may be called."),
            "functions": list_of({"type": "object"}),
            "function_call": {"type": ["string", "object", "null"]},
            "response_format": {"type": "object"},
            "reasoning_effort": text("Effort of a reasoning model."),
        },
        ["model", "messages"],
    ),
    "Completion": {"type": "object", "required": ["choices"]},
    **{f"{item}List": page_of(item) for item in (
        "File", "FineTune", "FineTuneEvent", "Job", "JobEvent", "Checkpoint", "Permission", "Model"
    )},
}  # fmt: skip
