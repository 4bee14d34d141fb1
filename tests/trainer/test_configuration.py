"""Hostile settings of models and adapters: none chooses code, a package, or another file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.errors import FailureError
from finetune_trainer.engine.adapter_settings import read_settings
from finetune_trainer.engine.configuration import read_config

LLAMA = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
CODE: dict[str, Any] = {
    "attn_implementation": "someone/kernel",
    "_attn_implementation": "someone/kernel",
    "experts_implementation": "someone/kernel",
    "_experts_implementation": "someone/kernel",
    "transformers_weights": "other.safetensors",
    "auto_map": {"AutoModelForCausalLM": "code.Model"},
    "dtype": "load",
    "use_kernels": True,
}
LORA = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}


def write(folder: Path, name: str, value: object) -> Path:
    (folder / name).write_text(json.dumps(value))
    return folder


@pytest.mark.slow
def test_a_config_obeys_no_setting_that_chooses_code(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, "config.json", LLAMA | CODE))
    assert (config._attn_implementation, config._experts_implementation) == (None, None)
    assert config.dtype is None
    assert not {"transformers_weights", "auto_map", "use_kernels"} & vars(config).keys()
    assert config.hidden_size == 8


def test_a_quantized_model_and_distracting_files_are_refused(tmp_path: Path) -> None:
    packed = {"quantization_config": {"quant_method": "awq"}}
    with pytest.raises(FailureError, match="is quantized"):
        read_config(write(tmp_path, "config.json", LLAMA | packed))
    write(tmp_path, "config.json", LLAMA)
    with pytest.raises(FailureError, match=r"adapter_config\.json next to"):
        read_config(write(tmp_path, "adapter_config.json", {}))


@pytest.mark.parametrize(
    "setting",
    [
        {"peft_type": "XLORA"},
        {"r": 10**9},
        {"r": "4"},
        {"target_modules": "(a|a)*$"},
        {"target_modules": ["(a|a)*$"]},
        {"rank_pattern": {"(a|a)*$": 4}},
        {"layers_pattern": ["(a|a)*$"]},
        {"megatron_config": {"x": 1}},
        {"runtime_config": {"x": 1}},
        {"layer_replication": [[0, 10**9]]},
        {"something_new": True},
    ],
)
def test_settings_of_an_adapter_beyond_lora_are_refused(
    setting: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(FailureError, match="the adapter cannot be used"):
        read_settings(write(tmp_path, "adapter_config.json", LORA | setting))


def test_settings_about_the_origin_of_an_adapter_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").touch()
    origin = {
        "auto_mapping": {"parent_library": "antigravity"},
        "megatron_core": "antigravity",
        "base_model_name_or_path": "someone/model",
    }
    found = read_settings(write(tmp_path, "adapter_config.json", LORA | origin))
    assert not found.keys() & origin.keys()
    assert found["r"] == 4


def test_an_adapter_without_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FailureError, match=r"has no adapter_model\.safetensors"):
        read_settings(write(tmp_path, "adapter_config.json", LORA))
