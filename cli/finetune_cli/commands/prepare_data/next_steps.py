"""The suggested next steps: a `finetune create` command and a FineTune manifest. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from finetune_api.hyperparameters import HyperparameterRules
from finetune_data.lint.fixes import Fix, LeaveOut, LeaveOutWrong, apply_all
from finetune_data.lint.inspection import Inspection
from finetune_data.read.examples import Row
from finetune_data.read.findings import shown
from finetune_data.rewrite.rewriting import Written

EPOCHS = 4
GENERATION_EPOCHS = 2  # with more epochs, generated text repeats the training data verbatim
CHARACTERS_PER_TOKEN = 4  # of English text, without a tokenizer
TOKENS_PER_SECOND = 10_000  # a 7B model in bf16 on one H200 (published by KempnerForge)


def create_command(written: Sequence[Written]) -> str:
    """A command that uploads the files and creates a FineTune, in one line for copying."""
    parts = ["finetune", "create"]
    for flag, file in zip(("-t", "-v"), written, strict=False):  # the validation file is optional
        parts += [flag, str(file.path)]
    return shlex.join([*parts, "--upload-to", "s3://BUCKET/PREFIX"])


def manifest(inspection: Inspection, accepted: Sequence[Fix], written: Sequence[Written]) -> str:
    """A FineTune manifest for the files, with its estimated size in comments."""
    examples = written[0].examples
    is_classification = inspection.kind == "classification"
    epochs = EPOCHS if is_classification else GENERATION_EPOCHS
    rules = HyperparameterRules()
    batch = rules.batch_size(examples)
    steps = -(-examples // batch) * epochs
    tokens = inspection.tokens or inspection.characters // CHARACTERS_PER_TOKEN
    tokens = max(1, tokens * examples // max(1, inspection.examples)) * epochs
    minutes = max(1, round(tokens / TOKENS_PER_SECOND / 60))
    lines = [
        "apiVersion: finetune.dev/v1alpha1",
        "kind: FineTune",
        f"metadata: {{name: {_name(written[0].path.stem)}}}",
        "spec:",
        f"  trainingFile: s3://BUCKET/{written[0].path.name}",
    ]
    if len(written) > 1:
        lines.append(f"  validationFile: s3://BUCKET/{written[1].path.name}")
    lines += ["  hyperparameters:", f"    nEpochs: {epochs}"]
    classes = _classes(inspection, accepted) if is_classification and len(written) > 1 else []
    if classes:
        lines.append("    computeClassificationMetrics: true")
        if len(classes) == 2:
            lines.append(f"    classificationPositiveClass: {_quoted(classes[0])}")
        else:
            lines.append(f"    classificationNClasses: {len(classes)}")
    lines += [
        f"# defaults: batchSize {batch}, learningRateMultiplier {rules.multiplier(batch):g}",
        f"# {steps:,} steps, {tokens:,} tokens: about {minutes:,} min for a 7B model on one H200",
    ]
    if inspection.stop:
        lines.append(f"# at inference: stop={shown(inspection.stop)}")
    if inspection.separator:
        lines.append(f"# end every prompt with {shown(inspection.separator)}")
    return "\n".join(lines)


def _name(stem: str) -> str:
    plain = "".join(char if char.isascii() and char.isalnum() else "-" for char in stem.lower())
    return plain.strip("-")[:50].strip("-") or "my-finetune"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # JSON strings are valid YAML


def _classes(inspection: Inspection, accepted: Sequence[Fix]) -> list[str]:
    """The classes in the written files, in order of their frequency in the input."""
    changes = [fix for fix in accepted if not isinstance(fix, LeaveOut | LeaveOutWrong)]
    changes.sort(key=lambda fix: fix.order)
    rows = [Row(0, "", label) for label, _ in inspection.classes or ()]
    found = [apply_all(changes, 0, row) for row in rows]
    return list(dict.fromkeys(row.completion for row in found if isinstance(row, Row)))
