"""The training files of a fine-tune: from the flag -t to the spec, and from a FineTune to texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.finetune_status import Resolved
from finetune_api.wire import JsonObject
from finetune_cli.manifests.uploads import is_local

FIELDS = ("trainingFile", "trainingFiles")


def field_of_flags(values: Sequence[str]) -> tuple[str, Any]:
    """The field of the spec, and its value, for the values of -t: `FILE`, or several files.

    Each of several can be `FILE=WEIGHT`. A single file has no weight.
    """
    if len(values) == 1:
        return "trainingFile", values[0]
    return "trainingFiles", [_split(value) for value in values]


def without_other_field(whole: JsonObject, changed: Sequence[str]) -> JsonObject:
    """A copy in which a field that the command line sets replaces the other one of FIELDS.

    changed: the paths that the command line sets, in their order.
    """
    last = next((path for path in reversed(changed) if path in FIELDS), None)
    if last is None:
        return whole
    spec = {key: value for key, value in whole["spec"].items() if key not in FIELDS or key == last}
    return {**whole, "spec": spec}


def training_file_texts(spec: FineTuneSpec, resolved: Resolved | None) -> list[str]:
    """Each training file with its examples, its weight, and its part of an epoch."""
    counts = resolved.training_files if resolved else None
    texts = []
    for index, file in enumerate(spec.training_data):
        facts = []
        if counts and index < len(counts):
            facts.append(f"{counts[index].examples:,} examples")
        elif len(spec.training_data) == 1 and resolved and resolved.training_examples:
            facts.append(f"{resolved.training_examples:,} examples")
        if file.weight is not None and len(spec.training_data) > 1:
            facts.append(f"weight {file.weight:g}")
            if counts and index < len(counts):
                facts.append(f"{counts[index].epoch_examples:,} in an epoch")
        texts.append(file.uri + (f" ({', '.join(facts)})" if facts else ""))
    return texts


def _split(value: str) -> dict[str, Any]:
    """`train.jsonl=3` with its weight, unless that is the name of a file on this machine."""
    address, mark, text = value.rpartition("=")
    if not mark or not address or (is_local(value) and Path(value).expanduser().exists()):
        return {"uri": value}
    try:
        weight = float(text)
    except ValueError:
        return {"uri": value}
    if not math.isfinite(weight):
        return {"uri": value}
    return {"uri": address, "weight": int(weight) if weight.is_integer() else weight}
