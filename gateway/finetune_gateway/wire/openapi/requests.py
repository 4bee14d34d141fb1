"""The bodies of requests. Limits come from the modules that check them."""

from __future__ import annotations

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
from finetune_gateway.wire.openapi.parts import (
    FILE_ID,
    Schema,
    body,
    boolean,
    integer,
    list_of,
    nullable,
    number,
    text,
)
from finetune_gateway.wire.request_bodies import AUTO, FINE_TUNE_SUFFIX, JOB_SUFFIX


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

REQUESTS: dict[str, Schema] = {
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
            "top_logprobs": integer(
                "Number of best tokens; needs logprobs.", minimum=0, maximum=20
            ),
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
}
