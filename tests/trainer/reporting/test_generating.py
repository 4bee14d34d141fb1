"""Two real ranks, ZeRO 1 and 3, packed and padded, generate the same tokens as transformers."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.reporting.samples.generation import MAX_COMPLETION_TOKENS
from finetune_trainer.reporting.samples.prompts import Prompt
from tests.trainer import support

pytestmark = pytest.mark.slow


def expected(prompts: list[Prompt]) -> list[list[int]]:
    """The completions by transformers, with a cache."""
    import torch

    model = support.tiny_llama().eval()
    found = []
    for prompt in prompts:
        inputs = torch.tensor([prompt.tokens])
        output = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=MAX_COMPLETION_TOKENS,
            do_sample=False,
            eos_token_id=prompt.expected[-1],
            pad_token_id=0,
        )
        found.append(output[0, len(prompt.tokens) :].tolist())
    return found


def test_the_first_rank_gets_what_transformers_generates(tmp_path: Path) -> None:
    support.run_ranks("tests.trainer.reporting.generating", 2, str(tmp_path))
    from tests.trainer.reporting.generating import PROMPTS

    right = expected(PROMPTS)
    assert len({tuple(tokens) for tokens in right}) > 1
    found: list[dict[str, Any]] = [
        json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)
    ]
    for moved, still in [*found[0].pop("compared"), *found[1].pop("compared")]:
        assert moved > 1e-4 > 1e-5 > still  # the base model is frozen
    short = [
        {kind: rank.pop(kind) for kind in list(rank) if kind.startswith("short")} for rank in found
    ]
    for kind, (completions, is_spent) in short[0].items():
        assert completions == [tokens[:3] for tokens in right], kind
        assert is_spent, kind
    for kind, (completions, _) in short[1].items():  # it waited for the decisions of rank 0
        assert completions == ([] if "stage 1" in kind else short[0][kind][0]), kind
    for kind, completions in found[1].items():  # up to ZeRO 2, only rank 0 generates
        assert completions == ([] if "stage 1" in kind else found[0][kind]), kind
    losses = [found[0].pop(f"losses {kind}") for kind in ("stage 3", "fresh")]
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]  # generation does not change the training
    assert len(found[0]) == 6
    for kind, completions in found[0].items():
        assert completions == right, kind
