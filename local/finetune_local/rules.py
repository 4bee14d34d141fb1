"""The rules of the CRD that span several fields, as the API server evaluates them."""

from __future__ import annotations

from collections.abc import Iterator

import cel

from finetune_api.crd.rules import NEW_RULES
from finetune_api.finetune_spec import FineTuneSpec


def broken_rules(spec: FineTuneSpec) -> Iterator[str]:
    """The messages of the rules that a new FineTune breaks."""
    finetune = {"spec": spec.to_dict()}  # with the defaults, which the API server adds first
    for rule, message in NEW_RULES:
        if cel.evaluate(rule, {"self": finetune}) is not True:
            yield message
