"""All advice for a run: the recommendations of OpenAI's fine-tuning guide, applied to its curves.

Each rule looks at the evidence and returns one `Advice` with the numbers behind it, or None. Rules
never raise errors. A run without anything unusual gets no advice. Pure.
"""

from collections.abc import Callable, Iterator

from finetune_trainer.reporting.advice import count_rules, curve_rules
from finetune_trainer.reporting.advice.evidence import Advice, Evidence

Rule = Callable[[Evidence], Advice | None]

# the most severe first
RULES: tuple[Rule, ...] = (
    curve_rules.not_finite,
    curve_rules.diverged,
    curve_rules.spikes,
    curve_rules.worse_than_before,
    curve_rules.validation_loss_rose,
    curve_rules.overfitting,
    count_rules.unseen_classes,
    count_rules.majority,
    curve_rules.too_few_epochs,
    curve_rules.slow_learning,
    curve_rules.unusual_multiplier,
    count_rules.many_epochs,
    count_rules.batch_size,
    count_rules.few_steps,
    count_rules.long_prompts,
    count_rules.confused_classes,
    count_rules.few_examples,
    count_rules.few_validation_examples,
    count_rules.idle_processes,
    count_rules.large_model,
)


def advise(evidence: Evidence) -> list[Advice]:
    """Return the advice that applies, the most severe first, with at most one for each field."""
    found: list[Advice] = []
    fields: set[str] = set()
    for advice in _all(evidence):
        field = advice.change.partition(":")[0] if advice.change else advice.title
        if field not in fields:
            fields.add(field)
            found.append(advice)
    return found


def _all(evidence: Evidence) -> Iterator[Advice]:
    for rule in RULES:
        if (advice := rule(evidence)) is not None:
            yield advice
