"""What to try next: the advice of the old service's guide, applied to this run's curves. Pure.

Each rule looks at the evidence and says nothing, or one `Advice` with the numbers that it looked
at. Never an error: a run that nothing stands out of gets none.
"""

from collections.abc import Callable, Iterator

from finetune_trainer.reporting.advice import count_rules, curve_rules
from finetune_trainer.reporting.advice.evidence import Advice, Evidence

Rule = Callable[[Evidence], Advice | None]

# The gravest first.
RULES: tuple[Rule, ...] = (
    curve_rules.no_numbers,
    curve_rules.diverged,
    curve_rules.spikes,
    curve_rules.worse_than_before,
    curve_rules.validation_loss_rose,
    curve_rules.overfitting,
    count_rules.unseen_classes,
    count_rules.majority,
    curve_rules.too_few_epochs,
    curve_rules.slow_learning,
    curve_rules.untried_multiplier,
    count_rules.many_epochs,
    count_rules.large_batch,
    count_rules.few_steps,
    count_rules.long_prompts,
    count_rules.confused_classes,
    count_rules.few_examples,
    count_rules.no_validation,
    count_rules.idle_processes,
    count_rules.smaller_model,
)


def advise(evidence: Evidence) -> list[Advice]:
    """All that applies, the gravest first; of several about one field the first."""
    found: list[Advice] = []
    fields: set[str] = set()
    for advice in _all(evidence):
        field = advice.change.partition(":")[0] if advice.change else advice.what
        if field not in fields:
            fields.add(field)
            found.append(advice)
    return found


def _all(evidence: Evidence) -> Iterator[Advice]:
    for rule in RULES:
        if (advice := rule(evidence)) is not None:
            yield advice
