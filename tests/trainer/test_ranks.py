"""Gradients and losses do not depend on ranks, ZeRO stage, compute path, and micro-batches."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_storage.s3 import Storage
from tests.trainer import support
from tests.trainer.ranks import BATCHES, BF16_STAGES, LORA_STAGES, MANY, exact_cases
from tests.trainer.support import Example

pytestmark = pytest.mark.slow

STAGES = (0, 1, 2, 3)
RANKS = (1, 2)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def computed(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of `ranks.py`: two ranks run first, and one rank then reads their checkpoints."""
    folder = tmp_path_factory.mktemp("ranks")
    for ranks in (MANY, 2, 1):
        kind = "gradients" if ranks == MANY else "curves"
        support.run_ranks("tests.trainer.ranks", ranks, str(folder), kind)
    return folder


@pytest.fixture(scope="module")
def expected() -> Callable[[str], dict[str, Any]]:
    """The gradient by definition: float64, without padding, DeepSpeed, and the trainer's code."""
    import torch
    from torch.nn import functional

    from tests.trainer.ranks import PROMPT_WEIGHT

    def compute(name: str) -> dict[str, Any]:
        examples: list[Example] = BATCHES[name]
        model = support.tiny_llama().double()
        numerator, denominator = torch.zeros((), dtype=torch.float64), 0.0
        for prompt, completion in examples:
            tokens = torch.tensor([prompt + completion])
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits[0]
            nll = functional.cross_entropy(logits, tokens[0, 1:], reduction="none")
            weights = [PROMPT_WEIGHT] * (len(prompt) - 1) + [1.0] * len(completion)
            numerator = numerator + (torch.tensor(weights, dtype=torch.float64) * nll).sum()
            denominator += sum(weights)
        (numerator / denominator).backward()
        return {n: p.grad for n, p in model.named_parameters()}

    return compute


def distance(computed: Path, file: str, expected: dict[str, Any]) -> float:
    """The relative distance of the full gradients."""
    import torch
    from safetensors.torch import load_file

    found = load_file(computed / f"{file}.safetensors")
    assert found.keys() == expected.keys()
    ours = torch.cat([found[name].double().flatten() for name in expected])
    right = torch.cat([expected[name].flatten() for name in expected])
    return float((ours - right).norm() / right.norm())


def test_the_gradient_is_exact(computed: Path, expected: Callable[[str], dict[str, Any]]) -> None:
    right = {name: expected(name) for name in BATCHES}
    distances = {}
    for stage, ranks in itertools.product(STAGES, (*RANKS, MANY)):
        for name, rows, path in exact_cases("fp32", ranks):
            file = f"fp32-{stage}-{ranks}-{name}-{rows}-{path}"
            distances[file] = distance(computed, file, right[name])
    print("largest relative distance of a gradient:", max(distances.values()))
    assert max(distances.values()) < TOLERANCE, distances


def test_a_mean_of_means_is_not_exact(
    computed: Path, expected: Callable[[str], dict[str, Any]]
) -> None:
    right = {name: expected(name) for name in BATCHES}
    for stage in STAGES:
        for ranks in RANKS:
            for name, rows in (("even", 4), ("even", 1), ("skewed", 4), ("skewed", 1)):
                file = f"fp32-{stage}-{ranks}-{name}-{rows}-mean-of-means"
                assert distance(computed, file, right[name]) > 100 * TOLERANCE, file


def test_in_bf16_the_gradient_is_exact_up_to_rounding(
    computed: Path, expected: Callable[[str], dict[str, Any]]
) -> None:
    right = {name: expected(name) for name in BATCHES}
    for stage, ranks in itertools.product(BF16_STAGES, (*RANKS, MANY)):
        for name, rows, path in exact_cases("bf16", ranks):
            file = f"bf16-{stage}-{ranks}-{name}-{rows}-{path}"
            assert distance(computed, file, right[name]) < 0.05


def curves(computed: Path, ranks: int) -> dict[str, dict[str, list[list[float]]]]:
    found: dict[str, dict[str, list[list[float]]]] = json.loads(
        (computed / f"curves-{ranks}.json").read_text()
    )
    return found


def difference(left: list[list[float]], right: list[list[float]]) -> float:
    assert len(left) == len(right)
    return max(abs(a[0] - b[0]) for a, b in zip(left, right, strict=True))


def test_two_ranks_have_the_losses_of_one_in_twenty_steps(computed: Path) -> None:
    one, two = curves(computed, 1), curves(computed, 2)
    for stage in STAGES:
        kind = f"fp32 {stage}"
        found = difference(one[kind]["straight"], two[kind]["straight"])
        print(f"ZeRO {stage}: largest difference of a loss {found:.1e}")
        assert found < TOLERANCE
        assert difference(one["fp32 0"]["straight"], two[kind]["straight"]) < TOLERANCE
    for stage in BF16_STAGES:  # bf16 rounds differently in another order
        kind = f"bf16 {stage}"
        assert difference(one[kind]["straight"], two[kind]["straight"]) < 5e-3


def test_the_loss_falls(computed: Path) -> None:
    for kind, found in curves(computed, 1).items():
        first, last = found["straight"][0][0], found["straight"][-1][0]
        assert last < first - (0.05 if kind.startswith("lora") else 0.5), kind


def test_a_resumed_run_repeats_every_loss_and_gradient_norm_exactly(computed: Path) -> None:
    for ranks in RANKS:
        for kind, found in curves(computed, ranks).items():
            assert found[f"resumed from {ranks}"] == found["straight"][10:], kind


def test_one_rank_continues_from_the_checkpoint_of_two(computed: Path) -> None:
    for kind, found in curves(computed, 1).items():
        tolerance = 5e-3 if kind.startswith("bf16") else TOLERANCE
        assert difference(found["resumed from 2"], found["straight"][10:]) < tolerance, kind


def test_the_published_files_are_those_of_the_gathered_weights(computed: Path) -> None:
    kinds = [("fp32", stage) for stage in STAGES] + [("bf16", stage) for stage in BF16_STAGES]
    for (precision, stage), ranks in itertools.product(kinds, RANKS):
        folder = computed / f"full-{precision}-{stage}-{ranks}"
        names = sorted(path.name for path in (folder / "right").iterdir())
        assert "model.safetensors.index.json" in names
        assert names == sorted(path.name for path in (folder / "found").iterdir())
        for name in names:
            found, right = ((folder / kind / name).read_bytes() for kind in ("found", "right"))
            assert found == right, (precision, stage, ranks, name)


def test_an_adapter_has_the_same_losses_for_all_ranks_and_stages(computed: Path) -> None:
    one, two = curves(computed, 1), curves(computed, 2)
    for stage in LORA_STAGES:
        for found in (one, two):
            straight = found[f"lora {stage}"]["straight"]
            assert difference(one["lora 0"]["straight"], straight) < TOLERANCE


def test_the_merged_model_has_the_logits_of_base_and_adapter(computed: Path) -> None:
    """It does not depend on ranks and stage, and peft can load the published adapter."""
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    wanted = load_file(computed / "lora-logits-1.safetensors")
    inputs = wanted["tokens"][:, :-1]
    for stage in LORA_STAGES:
        for ranks in RANKS:
            folder = computed / f"lora-{stage}-{ranks}"
            merged = AutoModelForCausalLM.from_pretrained(folder)
            assert not hasattr(merged, "peft_config")
            base = AutoModelForCausalLM.from_pretrained(computed / "base")
            both = PeftModel.from_pretrained(base, str(folder / "adapter"))
            with torch.no_grad():
                for model in (merged, both):
                    found = model(input_ids=inputs, use_cache=False).logits
                    assert (found - wanted["logits"]).abs().max() < 1e-4, (stage, ranks)
            untouched = load_file(computed / "base" / "model.safetensors")
            changed = load_file(folder / "model.safetensors")
            assert torch.equal(untouched["lm_head.weight"], changed["lm_head.weight"])
            layer = "model.layers.0.mlp.down_proj.weight"
            assert not torch.equal(untouched[layer], changed[layer])
