"""What becomes of the proposals: asked, accepted, written, and what to do next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from finetune_api.hyperparameters import HyperparameterRules
from finetune_cli.commands.prepare_data.screen import Screen
from finetune_data.lint.fixes import Fix, LeaveOut, LeaveOutWrong, apply_all
from finetune_data.lint.inspection import Inspection
from finetune_data.read.examples import Row
from finetune_data.read.findings import shown
from finetune_data.read.reader import Reader
from finetune_data.rewrite.rewriting import Written, kept_by, rewrite, rows_after
from finetune_data.rewrite.train_validation_split import plan_split

EPOCHS = 4
GENERATION_EPOCHS = 2  # more of them repeat the training data's very words
LEAST_TO_SPLIT = 10  # examples
CHARACTERS_A_TOKEN = 4  # of English text, where no tokenizer counted
TOKENS_A_SECOND = 10_000  # a 7B model in bf16 on one H200 (KempnerForge's published figure)


@dataclass(frozen=True)
class Target:
    """Where the prepared files go."""

    folder: Path
    stem: str
    seed: int


def choose(
    screen: Screen,
    inspection: Inspection,
    *,
    yes: bool,
    wanted: Sequence[str],
    unwanted: Sequence[str],
) -> list[Fix]:
    """The accepted changes. --yes takes what loses nothing; a person is asked about all."""
    check_names(inspection, wanted)
    accepted: list[Fix] = []
    for fix in inspection.fixes:
        if fix.name in unwanted:
            continue
        loses = _loses(fix)
        if fix.name in wanted or (yes and fix.is_recommended and not fix.loses):
            accepted.append(fix)
            screen.say(f"accepted: {fix.proposal}{loses}")
        elif yes or not screen.can_ask:
            screen.say(f"left: {fix.proposal}{loses}; --fix {fix.name} accepts it")
        elif screen.ask(f"{fix.proposal}?{loses}", fix.is_recommended and not fix.loses):
            accepted.append(fix)
    return accepted


def check_names(inspection: Inspection, wanted: Sequence[str]) -> None:
    """Raise click.BadParameter for a change that nobody proposes."""
    known = {fix.name for fix in inspection.fixes}
    for name in wanted:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise click.BadParameter(
                f"{name} is not proposed; there is {listed}", param_hint="--fix"
            )


def propose(screen: Screen, inspection: Inspection) -> None:
    """What could be changed, and how to accept it."""
    for fix in inspection.fixes:
        how = f"--fix {fix.name} accepts it"
        if fix.is_recommended and not fix.loses:
            how = f"--yes or {how}"
        screen.say(f"proposed: {fix.proposal}{_loses(fix)}; {how}")


def _loses(fix: Fix) -> str:
    return " (something is lost)" if fix.loses else ""


def ask_for_split(screen: Screen, inspection: Inspection) -> bool:
    """Whether to keep some for validation, where nobody has said so."""
    if inspection.validation_examples or inspection.examples < LEAST_TO_SPLIT:
        return False
    if not screen.can_ask:
        return False
    return screen.ask("Keep a part for validation?", inspection.kind == "classification")


def write(
    screen: Screen,
    training: Sequence[Reader],
    held_out: Sequence[Reader],
    *,
    accepted: Sequence[Fix],
    inspection: Inspection,
    target: Target,
    share: float | None,
) -> list[Written]:
    """The prepared files. share: to split off for validation.

    Of validation files only the style is changed: no row of theirs is left out.
    """
    split = None
    if share is not None:
        split = plan_split(
            rows_after(training, accepted, inspection.rows),
            kept_by(accepted, inspection.examples),
            share=share,
            seed=target.seed,
            is_classification=inspection.kind == "classification",
        )
        if split.single_prompt_classes:
            screen.warn(
                f"classes with one prompt only stay in training and are not measured: "
                f"{split.single_prompt_classes:,}"
            )
    with screen.progress("writing") as progress:
        ending = "_train" if held_out else ""
        written = rewrite(
            training,
            accepted,
            target.folder,
            target.stem,
            ending=ending,
            split=split,
            progress=progress,
        )
    if held_out:
        style = [fix for fix in accepted if not isinstance(fix, LeaveOut | LeaveOutWrong)]
        written += rewrite(held_out, style, target.folder, target.stem, ending="_valid")
    return written


def _classes(inspection: Inspection, accepted: Sequence[Fix]) -> list[str]:
    """As they stand in the written files, the most frequent of those that were read first."""
    changes = [fix for fix in accepted if not isinstance(fix, LeaveOut | LeaveOutWrong)]
    changes.sort(key=lambda fix: fix.order)
    rows = [Row(0, "", label) for label, _ in inspection.classes or ()]
    found = [apply_all(changes, 0, row) for row in rows]
    return list(dict.fromkeys(row.completion for row in found if isinstance(row, Row)))


def create_command(written: Sequence[Written]) -> str:
    """What uploads the files and starts a FineTune: one line, to copy."""
    words = ["finetune", "create"]
    for flag, file in zip(("-t", "-v"), written, strict=False):  # nothing need be held out
        words += [flag, str(file.path)]
    return shlex.join([*words, "--upload-to", "s3://BUCKET/PREFIX"])


def manifest(inspection: Inspection, accepted: Sequence[Fix], written: Sequence[Written]) -> str:
    """A FineTune for the files, with what it would do in comments."""
    examples = written[0].examples
    is_classification = inspection.kind == "classification"
    epochs = EPOCHS if is_classification else GENERATION_EPOCHS
    rules = HyperparameterRules()
    batch = rules.batch_size(examples)
    steps = -(-examples // batch) * epochs
    tokens = inspection.tokens or inspection.characters // CHARACTERS_A_TOKEN
    tokens = max(1, tokens * examples // max(1, inspection.examples)) * epochs
    minutes = max(1, round(tokens / TOKENS_A_SECOND / 60))
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
        f"# by default batches of {batch}, learningRateMultiplier {rules.multiplier(batch):g}",
        f"# {steps:,} steps, {tokens:,} tokens: {minutes:,} min for a 7B model on one H200",
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
    return json.dumps(text, ensure_ascii=False)  # JSON is YAML, too
