"""Completions by the published model, loaded with transformers on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.demo.dataset import SEPARATOR, Row

NEW_TOKENS = 6  # the longest label has fewer, including its end token
SAMPLES = 3


@dataclass(frozen=True)
class Sample:
    """One validation row and the model's completion."""

    docstring: str
    expected: str
    got: str


@dataclass(frozen=True)
class Answers:
    """Greedy completions of the validation prompts."""

    rows: int
    right: int
    samples: list[Sample]  # the first rows, without any selection


def ask(folder: Path, rows: Sequence[Row]) -> Answers:
    """Complete every prompt; a completion without the end-of-sequence token is wrong."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    got: dict[int, str] = {}
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].prompt))
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            part = order[start : start + 64]
            inputs = tokenizer([rows[i].prompt for i in part], return_tensors="pt", padding=True)
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
            )
            new = output[:, inputs["input_ids"].shape[1] :]
            for index, tokens in zip(part, new.tolist(), strict=True):
                got[index] = _until_end(tokenizer, tokens)
    return Answers(
        rows=len(rows),
        right=sum(got[index] == row.completion for index, row in enumerate(rows)),
        samples=[
            Sample(row.prompt.removesuffix(SEPARATOR), row.module, got[index].strip())
            for index, row in enumerate(rows[:SAMPLES])
        ],
    )


def _until_end(tokenizer: object, tokens: list[int]) -> str:
    """The text before the end-of-sequence token; with an ellipsis if there is none."""
    end = tokenizer.eos_token_id  # type: ignore[attr-defined]
    decode = tokenizer.decode  # type: ignore[attr-defined]
    if end not in tokens:
        return f"{decode(tokens)}…"
    text: str = decode(tokens[: tokens.index(end)])
    return text
