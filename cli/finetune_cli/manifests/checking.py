"""Checks a spec against the API models before anything is sent.

Rules across fields, names, and permissions are checked by the API server in a dry run.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.unknown_fields import find_unknown_fields
from finetune_api.wire import JsonObject
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE
from finetune_data.read.findings import shown


def check(spec: JsonObject) -> None:
    """Raise CommandError with the field, value, and rule of every violation."""
    problems = [*_unknown(spec)]
    try:
        FineTuneSpec.model_validate(spec, strict=True)
    except ValidationError as error:
        problems += [_message(dict(found)) for found in error.errors(include_url=False)]
    if problems:
        raise CommandError(
            "; ".join(problems),
            "correct the fields; docs/reference/finetune.md describes all of them",
            code=EXIT_USAGE,
        )


def _unknown(spec: JsonObject) -> Iterator[str]:
    """Messages for unknown keys, with the most similar field."""
    for found in find_unknown_fields(spec, FineTuneSpec, "spec"):
        close = difflib.get_close_matches(_camel(found.key), found.known, 1, 0.6)
        advice = f", did you mean {close[0]}?" if close else ""
        yield f"{found.path}.{_plain(found.key)} is an unknown field{advice}"


def _message(found: dict[str, Any]) -> str:
    """`spec.hyperparameters.nEpochs: 0 must be greater than or equal to 1`."""
    field = "spec" + "".join(
        f"[{part}]" if isinstance(part, int) else f".{_plain(part)}" for part in found["loc"]
    )
    if found["type"] == "missing":
        return f"{field} is required"
    if found["type"] == "value_error":  # a rule across fields, which names them itself
        text = str(found["ctx"]["error"])
        return f"{field}.{text}" if text.startswith("trainingFile") else f"{field}: {text}"
    rule = str(found["msg"]).replace("Input should be", "must be").replace("should", "must", 1)
    if found["type"] == "string_pattern_mismatch":
        is_address = "s3://" in found["ctx"]["pattern"]
        rule = (
            "must have the form s3://bucket/key"
            if is_address
            else f"must {rule.split('must ')[-1]}"
        )
    return f"{field}: {_plain(_shortened.repr(found['input']))} {rule[0].lower()}{rule[1:]}"


def _plain(value: object) -> str:
    """An untrusted key or value: short, printable, and without added quotes."""
    return shown(str(value), 60)[1:-1]


def _camel(text: str) -> str:
    first, *others = text.replace("-", "_").split("_")
    return first + "".join(part.capitalize() for part in others)


_shortened = reprlib.Repr()
_shortened.maxstring = 50
