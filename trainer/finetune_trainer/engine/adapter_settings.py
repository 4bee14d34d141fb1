"""Reads adapter_config.json: only the settings of LoRA, because others import modules.

peft imports the module that `auto_mapping` or `megatron_core` names, and uses names of layers as
regular expressions, whose search can take exponential time.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from finetune_api.errors import FailureError
from finetune_data.models.base_models import read_json
from finetune_trainer import base_model_failures

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LARGEST_RANK = 2**16
# About who made the adapter and where, and how it began, which do not change the merged weights.
IGNORED = frozenset(
    {"auto_mapping", "base_model_name_or_path", "revision", "peft_version", "inference_mode"}
    | {"init_lora_weights", "peft_type", "task_type", "lora_dropout", "megatron_core"}
    | {"qalora_group_size"}
)
_NAME = re.compile(r"[\w.]{1,200}")


def _is_rank(value: object) -> bool:
    return type(value) is int and 0 < value <= LARGEST_RANK


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6


def _is_names(value: object) -> bool:
    if isinstance(value, str):
        return value == "all-linear"
    return isinstance(value, list) and all(_is_name(name) for name in value)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_layers(value: object) -> bool:
    return type(value) is int or (
        isinstance(value, list) and all(type(layer) is int for layer in value)
    )


def _is_pattern(is_value: Callable[[object], bool]) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        return isinstance(value, dict) and all(
            _is_name(name) and is_value(item) for name, item in value.items()
        )

    return check


CHECKS: Mapping[str, Callable[[object], bool]] = {
    "r": _is_rank,
    "lora_alpha": _is_number,
    "target_modules": _is_names,
    "target_parameters": _is_names,
    "exclude_modules": _is_names,
    "modules_to_save": _is_names,
    "fan_in_fan_out": lambda value: isinstance(value, bool),
    "use_rslora": lambda value: isinstance(value, bool),
    "use_dora": lambda value: isinstance(value, bool),
    "lora_bias": lambda value: isinstance(value, bool),
    "bias": lambda value: value in {"none", "all", "lora_only"},
    "rank_pattern": _is_pattern(_is_rank),
    "alpha_pattern": _is_pattern(_is_number),
    "layers_to_transform": _is_layers,
    "layers_pattern": lambda value: _is_name(value) or _is_names(value),
}


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings for peft's LoraConfig of the adapter in a folder. Raises FailureError."""
    try:
        settings = read_json(folder / CONFIG)
    except ValueError as error:
        raise FailureError(base_model_failures.unreadable_config(str(error))) from error
    if not (folder / WEIGHTS).is_file():
        raise FailureError(base_model_failures.unusable_adapter(f"has no {WEIGHTS}"))
    if settings.get("peft_type") != "LORA":
        kind = f"is no LoRA adapter, but has the type {settings.get('peft_type')!r:.50}"
        raise FailureError(base_model_failures.unusable_adapter(kind))
    kept: dict[str, Any] = {}
    for name, value in settings.items():
        if name in IGNORED or value is None or value == {} or (value is False and name != "bias"):
            continue
        check = CHECKS.get(name)
        if check is None or not check(value):
            problem = f"has the setting {name!r:.100}, or a value of it, that is not supported"
            raise FailureError(base_model_failures.unusable_adapter(problem))
        kept[name] = value
    return {**kept, "task_type": "CAUSAL_LM", "inference_mode": True}
