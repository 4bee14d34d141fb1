"""The check of the examples that the trainer refuses: the same decision as in the prepare Job."""

from __future__ import annotations

from finetune_data.lint.check import Check
from finetune_data.lint.facts import Facts
from finetune_data.lint.fixes import LeaveOut, Side, row_mask
from finetune_data.lint.remarks import PLACES, Remark
from finetune_data.lint.token_counts import TokenCounts
from finetune_data.read.findings import TOO_LONG, counted, has_or_have

UNFIT_MODEL = "base-model-unfit"


class RefusedExamples(Check):
    """Examples that the base model's chat template refuses, or that exceed its context length."""

    def remarks(self, facts: Facts) -> list[Remark]:
        sides = (facts.token_counts, facts.validation_token_counts)
        failure = next((one.failure for one in sides if one and one.failure), None)
        if failure is not None:
            return [Remark(UNFIT_MODEL, "error", failure)]
        held_out = len(facts.validation.rows) if facts.validation else 0
        return [
            *_remarks(sides[0], "training", facts.examples),
            *_remarks(sides[1], "validation", held_out),
        ]


def _remarks(counts: TokenCounts | None, side: Side, examples: int) -> list[Remark]:
    if counts is None:
        return []
    codes = dict.fromkeys(finding.code for _, finding in counts.refused)
    return [_remark(code, counts, side, examples) for code in codes]


def _remark(code: str, counts: TokenCounts, side: Side, examples: int) -> Remark:
    refused = [(ordinal, finding) for ordinal, finding in counts.refused if finding.code == code]
    is_training = side == "training"
    noun = "example" if is_training else "validation example"
    what = counted(len(refused), noun)
    if code == TOO_LONG:
        message = (
            f"{what} {has_or_have(len(refused))} more than {counts.context:,} tokens, the context "
            "length of the base model"
        )
        places = tuple(
            f"{finding.place}: {finding.message.partition(' (')[0]}" for _, finding in refused
        )
    else:
        message = f"{what} cannot be used with the base model; the first: {refused[0][1]}"
        places = tuple(finding.place for _, finding in refused)
    name = code if is_training else f"validation-{code}"
    mask = row_mask([ordinal for ordinal, _ in refused], examples)
    adjective = "long" if code == TOO_LONG else "refused"
    proposal = f"Remove {counted(len(refused), f'{adjective} {noun}')}"
    fix = LeaveOut(name, proposal, mask, side=side)
    return Remark(name, "error", message, len(refused), places[:PLACES], fix=fix)
