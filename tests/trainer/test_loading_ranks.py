"""Models partitioned while they are loaded, on one, two, and three real ranks in ZeRO 3."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer import architectures, support
from tests.trainer.loading import RUNS, RUNS_OF

pytestmark = pytest.mark.slow

RANKS = (1, 2, 3)
WIDTH, WIDE_LAYERS, VOCABULARY = 768, 8, 4096
LAYER = 4 * WIDTH**2 + 3 * WIDTH * 4 * WIDTH + 2 * WIDTH  # parameters
EMBEDDING = VOCABULARY * WIDTH
SLACK = 16 * 2**20  # bytes; of the allocator, and of the libraries' own objects


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of `loading.py`."""
    folder = tmp_path_factory.mktemp("loading")
    for name, (kind, changes) in architectures.ALL.items():
        architectures.model_of(kind, changes).save_pretrained(folder / "models" / name)
    for are_equal in (True, False):
        name = f"tied weights that are {'' if are_equal else 'not '}equal"
        architectures.save_both_tied(folder / "models" / name, are_equal=are_equal)
    model = architectures.model_of("qwen3_moe", architectures.EXPERTS)
    model.bfloat16().save_pretrained(folder / "models" / "bf16 files", max_shard_size="20KB")
    save_large(folder / "large")
    with pytest.MonkeyPatch.context() as patch:
        # so that malloc returns large tensors to the system, and holes do not count as memory
        patch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")
        for ranks in RANKS:
            support.run_ranks("tests.trainer.loading", ranks, str(folder))
    return folder


def save_large(folder: Path) -> None:
    """Layers as large as those of a small real model, in fp32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=WIDE_LAYERS,
        num_attention_heads=12,
        num_key_value_heads=12,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.to_empty(device="cpu").save_pretrained(folder)


def results(loaded: Path, ranks: int) -> list[dict[str, Any]]:
    """Of each rank."""
    return [json.loads((loaded / f"{ranks}-{rank}.json").read_text()) for rank in range(ranks)]


def test_gathered_weights_and_buffers_are_those_of_transformers(loaded: Path) -> None:
    for found in results(loaded, 2):
        wrong = {name: value for name, value in found.items() if isinstance(value, list) and value}
        assert wrong == {}
        assert len(found) > len(architectures.ALL)


@pytest.mark.parametrize("ranks", RANKS)
def test_training_does_not_depend_on_how_the_model_was_loaded(loaded: Path, ranks: int) -> None:
    for found in results(loaded, ranks):
        assert set(found["runs"]) == {run.model for run in RUNS_OF[ranks]}
        for name, run in found["runs"].items():
            mine, right = (
                {k: v for k, v in run[kind].items() if k != "moved"}
                for kind in ("found", "expected")
            )
            assert mine == right, name
            assert run["same checkpoint"], name


@pytest.mark.parametrize("ranks", RANKS)
def test_published_files_do_not_depend_on_how_the_model_was_loaded(
    loaded: Path, ranks: int
) -> None:
    for name in (run.model for run in RUNS_OF[ranks]):
        mine, right = (
            {
                str(path.relative_to(folder)): path.read_bytes()
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            for kind in ("partitioned", "whole")
            for folder in [loaded / f"published-{kind}-{ranks}" / name]
        )
        assert mine == right, name
        assert "model.safetensors" in mine


@pytest.mark.parametrize("ranks", RANKS)
def test_no_more_than_a_layer_moves_to_the_device_at_once(loaded: Path, ranks: int) -> None:
    precisions = {run.model: run.precision for run in RUNS}
    for found in results(loaded, ranks):
        for name, run in found["runs"].items():
            model = architectures.model_of(*architectures.ALL[name])
            size = 4 if precisions[name] == "fp32" else 2
            layer = size * sum(p.numel() for p in model.parameters()) / 3  # two, and embeddings
            assert run["found"]["moved"] < layer, name
            assert run["expected"]["moved"] > 2 * layer, name  # the test can fail


def test_loading_needs_the_memory_of_one_layer_besides_what_stays(loaded: Path) -> None:
    weights = 2 * (WIDE_LAYERS * LAYER + 2 * EMBEDDING)  # bytes in bf16
    once = 2 * max(LAYER, EMBEDDING)
    for found in results(loaded, 2):
        memory = found["memory"]
        print({name: f"{size / 2**20:.0f} MiB" for name, size in memory.items()})
        assert memory["partitioned"] < weights / 2 + once + SLACK
        assert memory["on a device"] < once + SLACK
        assert memory["whole"] > weights - SLACK  # the test can fail


def test_only_offloaded_parts_that_stay_are_pinned_in_host_memory(loaded: Path) -> None:
    runs = results(loaded, 2)[0]["runs"]
    pinned = {name: run["pinned"] for name, run in runs.items()}
    frozen = architectures.model_of(*architectures.ALL["llama"])
    # of the frozen model on two ranks; a trained one has a buffer of DeepSpeed's
    assert pinned.pop("llama") == sum(p.numel() for p in frozen.parameters()) / 2
    assert set(pinned.values()) == {0}
