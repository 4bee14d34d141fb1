"""Reads config.json without the settings that choose code, a package, or another file.

transformers sets every key of the file as an attribute of the config and reads some of them later:
the implementation of the attention can be a kernel of a repository on the hub, a quantization can
import a package, and `transformers_weights` names a file. Only the loader here decides about these.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_api.errors import FailureError
from finetune_data.models.base_models import CONFIG, read_json, text_settings
from finetune_data.models.configuration import without_code
from finetune_trainer import base_model_failures

# Files next to the model with which transformers would load something else.
DISTRACTIONS = ("adapter_config.json", ".metadata")


def read_config(folder: Path) -> Any:
    """The config of transformers for the model in a folder. Raises FailureError."""
    from transformers import __version__ as version
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        settings = read_json(folder / CONFIG)
    except ValueError as error:
        raise FailureError(base_model_failures.unreadable_config(str(error))) from error
    check_quantization(settings)
    for name in DISTRACTIONS:
        if (folder / name).exists():
            raise FailureError(base_model_failures.distracting_file(name))
    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise FailureError(base_model_failures.unknown_model_type(f"{kind!s:.100}", version))
    try:
        return CONFIG_MAPPING[kind].from_dict(without_code(settings))
    except Exception as error:  # a config raises what its checks raise
        raise FailureError(base_model_failures.unloadable_model(error)) from error


def check_quantization(settings: Mapping[str, Any]) -> None:
    """Raise FailureError for a quantized model, whose packages are never imported."""
    text = text_settings(settings)
    for key in ("quantization_config", "compression_config"):
        found = settings.get(key) or text.get(key)
        if found:
            raise FailureError(base_model_failures.quantized_base(_method(found)))


def _method(found: object) -> str:
    """The name of the method in a quantization_config."""
    if not isinstance(found, dict):
        return "quantization_config"
    if found.get("load_in_4bit") or found.get("load_in_8bit"):
        return f"bitsandbytes, {4 if found.get('load_in_4bit') else 8} bits"
    name = found.get("quant_method") or found.get("quant_algo") or "quantization_config"
    return f"{name!s:.40}"
