"""The bounds of config.json, and the settings in it that choose code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_data.models.base_models import read_json
from finetune_data.models.configuration import check_bounds, chooses_code, without_code
from tests.support.hostile import SETTINGS

# As in the files of published models: each is unusual, and none is absurd.
USUAL: dict[str, Any] = {
    "vocab_size": 262_144,
    "max_position_embeddings": 10_485_760,
    "time_step_limit": [0.0, float("inf")],
    "num_attention_heads": [12, 16, 20],
    "n_inner": None,
    "pad_token_id": -1,
    "norm_layer": "rms",
    "num_local_experts": 0,
    "conv_kernel": 4,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    "text_config": {"hidden_size": 2560, "layer_types": ["full_attention"] * 34},
    "use_mamba_kernels": False,
}
CODE: dict[str, Any] = {
    "attn_implementation": "kernels-community/flash-attn",
    "_attn_implementation": {"text_config": "someone/kernel"},
    "_attn_implementation_internal": "someone/kernel",
    "experts_implementation": "someone/kernel",
    "_experts_implementation": "deepgemm",
    "quantization_config": {"quant_method": "bitsandbytes"},
    "auto_map": {"AutoConfig": "code.Config"},
    "trust_remote_code": True,
    "use_kernels": True,
    "kernel_config": {"RMSNorm": "someone/kernel:Norm"},
    "transformers_weights": "other.safetensors",
    "dtype": "load",
    "torch_dtype": "hub",
    "name_or_path": "someone/model",
    "_name_or_path": "someone/model",
    "base_model_tp_plan": {"layers.*": "x"},
    "custom_generate": "someone/code",
}


def test_usual_settings_stay() -> None:
    check_bounds(USUAL)
    assert without_code(USUAL) == USUAL


@pytest.mark.parametrize("name", CODE)
def test_settings_that_choose_code_are_dropped_at_every_level(name: str) -> None:
    setting = {name: CODE[name]}
    settings = {**setting, "text_config": {**setting, "sub": [setting]}, "hidden_size": 8}
    assert without_code(settings) == {"text_config": {"sub": [{}]}, "hidden_size": 8}
    assert chooses_code(name, CODE[name]) or name.startswith("_")


@pytest.mark.parametrize("text", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("level", ["{{{}}}", '{{"text_config": {{{}}}}}'], ids=["top", "nested"])
def test_absurd_settings_name_the_file_and_the_setting(
    level: str, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    repeated = '"model_type": "llama", ' if "model_type" in text else ""
    path.write_text(level.format(repeated + text))
    with pytest.raises(ValueError, match=r"config\.json") as error:
        read_json(path)
    assert len(str(error.value)) < 300


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=r"config.json has 1,099,511,627,776 bytes, more than"):
        read_json(path)


def test_large_numbers_outside_of_config_json_stay(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"model_max_length": int(1e30)}))
    assert read_json(path) == {"model_max_length": int(1e30)}
