"""The lists of checks. To add a check, add its class to CHECKS."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from finetune_data.lint.check import Check
from finetune_data.lint.checks.amount import Amount, BaseModelAdvice, EmptyPrompts
from finetune_data.lint.checks.chats import ChatStructure
from finetune_data.lint.checks.classes import ClassBalance, UnseenClasses
from finetune_data.lint.checks.copies import Conflicts, Duplicates, Overlap
from finetune_data.lint.checks.endings import Ending
from finetune_data.lint.checks.letter_case import UpperCase
from finetune_data.lint.checks.prefixes import CommonPrefix, LeadingSpace
from finetune_data.lint.checks.refusals import RefusedExamples

# The checks of `finetune prepare-data`. Remarks of one level are shown in this order.
CHECKS: tuple[Callable[[], Check], ...] = (
    Amount,
    RefusedExamples,
    Duplicates,
    Conflicts,
    Overlap,
    UnseenClasses,
    ChatStructure,
    EmptyPrompts,
    partial(Ending, "prompt"),
    partial(Ending, "completion"),
    partial(CommonPrefix, "prompt"),
    partial(CommonPrefix, "completion"),
    partial(UpperCase, "prompt"),
    partial(UpperCase, "completion"),
    LeadingSpace,
    ClassBalance,
    BaseModelAdvice,
)

# The checks whose remarks the prepare Job reports as advice, the most important first. They get
# only the facts: the Job does not call `observe`.
JOB_CHECKS: tuple[Callable[[], Check], ...] = (
    Overlap,
    UnseenClasses,
    Duplicates,
    Conflicts,
    ClassBalance,
    Amount,
)
