"""The untrained model and its completions. Imports torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.demo import dataset
from examples.demo.base_model import write_base_model
from examples.demo.dataset import Dataset
from examples.demo.samples import NEW_TOKENS, SAMPLES, ask
from examples.demo.tokenizer import CONTEXT, write_tokenizer

pytestmark = pytest.mark.slow


def test_a_seed_gives_the_same_weights_and_transformers_reads_them(
    data: Dataset, tmp_path: Path
) -> None:
    one, two, other = tmp_path / "one", tmp_path / "two", tmp_path / "other"
    parameters = write_base_model(one)
    write_base_model(two)
    write_base_model(other, seed=7)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (one, two, other)]
    assert weights[0] == weights[1] != weights[2]
    assert 2e6 < parameters < 5e6
    assert json.loads((one / "config.json").read_text())["max_position_embeddings"] == CONTEXT
    assert (one / "generation_config.json").is_file()

    write_tokenizer(dataset.seen_texts(data), one)
    rows = data.validation[:70]
    answers = ask(one, rows)
    assert answers.rows == 70
    assert answers.right < 10
    assert [sample.expected for sample in answers.samples] == [r.module for r in rows[:SAMPLES]]


def test_a_completion_without_an_end_is_wrong(data: Dataset, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    write_base_model(tmp_path)
    write_tokenizer(dataset.seen_texts(data), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    end = model.config.eos_token_id
    with torch.no_grad():  # all logits are equal, so that the model always predicts token 0
        model.model.norm.weight.zero_()
        model.model.norm.weight[0] = 1.0
        model.lm_head.weight.zero_()
    model.save_pretrained(tmp_path)
    silent = ask(tmp_path, data.validation[:2])
    assert all(sample.got.endswith("…") for sample in silent.samples)  # never the end token
    assert silent.right == 0
    assert end == 1
    assert NEW_TOKENS < CONTEXT
